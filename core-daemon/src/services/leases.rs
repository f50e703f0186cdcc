//! Leases. A lease without an id gets a random one. `Delete` with `sync` answers when a collection that began after it
//! is done. A lease with a label `containerd.io/gc.expire` (RFC 3339) in the past is collected itself.

use async_trait::async_trait;
use shared_proto::api;
use shared_proto::containerd::leases as pb;
use shared_proto::{Context, Result};
use shared_sys::files::Durability;

use super::{convert, detached};
use crate::domain::{Filters, LeaseId, Scope};
use crate::gc::Gc;
use crate::metadata::Db;
use crate::metadata::leases::{self, Lease, Resource};

/// The leases service.
#[derive(Clone)]
pub struct LeasesService {
    db: Db,
    gc: Gc,
}

impl LeasesService {
    pub fn new(db: Db, gc: Gc) -> Self {
        Self { db, gc }
    }
}

#[async_trait]
impl api::Leases for LeasesService {
    async fn create(&self, cx: &Context, req: pb::CreateRequest) -> Result<pb::CreateResponse> {
        let ns = Scope::of(cx)?.ns;
        let id = if req.id.is_empty() { LeaseId::random() } else { LeaseId::parse(&req.id)? };
        let made = self.db.write(Durability::Durable, move |c| leases::create(c, &ns, &id, req.labels)).await?;
        Ok(pb::CreateResponse { lease: Some(encode(made)) })
    }

    async fn delete(&self, cx: &Context, req: pb::DeleteRequest) -> Result<()> {
        let ns = Scope::of(cx)?.ns;
        let this = self.clone();
        detached(async move {
            this.db.write(Durability::Durable, move |c| leases::delete(c, &ns, &req.id)).await?;
            if req.sync {
                this.gc.collect().await?;
            } else {
                this.gc.schedule();
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, cx: &Context, req: pb::ListRequest) -> Result<pb::ListResponse> {
        let ns = Scope::of(cx)?.ns;
        let filters = Filters::parse(&req.filters)?;
        let all = self.db.read(move |c| leases::list(c, &ns)).await?;
        Ok(pb::ListResponse { leases: all.into_iter().filter(|lease| filters.matches(lease)).map(encode).collect() })
    }

    async fn add_resource(&self, cx: &Context, req: pb::AddResourceRequest) -> Result<()> {
        let ns = Scope::of(cx)?.ns;
        let new = resource(req.resource)?;
        Ok(self.db.write(Durability::Durable, move |c| leases::add_resource(c, &ns, &req.id, &new)).await?)
    }

    async fn delete_resource(&self, cx: &Context, req: pb::DeleteResourceRequest) -> Result<()> {
        let ns = Scope::of(cx)?.ns;
        let old = resource(req.resource)?;
        self.db.write(Durability::Durable, move |c| leases::delete_resource(c, &ns, &req.id, &old)).await?;
        self.gc.schedule();
        Ok(())
    }

    async fn list_resources(&self, cx: &Context, req: pb::ListResourcesRequest) -> Result<pb::ListResourcesResponse> {
        let ns = Scope::of(cx)?.ns;
        let all = self.db.read(move |c| leases::list_resources(c, &ns, &req.id)).await?;
        let resources = all.into_iter().map(|held| pb::Resource { id: held.id, r#type: held.kind }).collect();
        Ok(pb::ListResourcesResponse { resources })
    }
}

fn resource(proto: Option<pb::Resource>) -> Result<Resource> {
    let proto = proto.ok_or_else(|| convert::missing("resource"))?;
    Ok(Resource { kind: proto.r#type, id: proto.id })
}

fn encode(lease: Lease) -> pb::Lease {
    pb::Lease { id: lease.id, created_at: Some(convert::timestamp(lease.created_at)), labels: lease.labels }
}
