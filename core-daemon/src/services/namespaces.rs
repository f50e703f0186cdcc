//! Namespaces. Their calls need no namespace header.
//!
//! `Get` of an absent namespace answers one without labels: Go clients ask before they have made anything, and give up
//! on `NotFound`. `Update` makes an absent one.

use async_trait::async_trait;
use shared_proto::api;
use shared_proto::containerd::{events, namespaces as pb};
use shared_proto::{Context, Result};
use shared_sys::files::Durability;

use super::convert::{self, Path};
use super::detached;
use crate::domain::{Labels, Namespace};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::metadata::{Db, MetadataError, namespaces};

/// The namespaces service.
#[derive(Clone)]
pub struct NamespacesService {
    db: Db,
    exchange: Exchange,
    gc: Gc,
}

impl NamespacesService {
    pub fn new(db: Db, exchange: Exchange, gc: Gc) -> Self {
        Self { db, exchange, gc }
    }
}

#[async_trait]
impl api::Namespaces for NamespacesService {
    async fn get(&self, _: &Context, req: pb::GetNamespaceRequest) -> Result<pb::GetNamespaceResponse> {
        let ns = Namespace::parse(&req.name)?;
        let wanted = ns.clone();
        let found = self.db.read::<_, MetadataError>(move |c| Ok(namespaces::get(c, &wanted)?)).await?;
        Ok(pb::GetNamespaceResponse { namespace: Some(encode(&ns, found.unwrap_or_default())) })
    }

    /// The filter is ignored, as in containerd.
    async fn list(&self, _: &Context, _: pb::ListNamespacesRequest) -> Result<pb::ListNamespacesResponse> {
        let all = self.db.read::<_, MetadataError>(|c| Ok(namespaces::list(c)?)).await?;
        Ok(pb::ListNamespacesResponse { namespaces: all.into_iter().map(|(ns, labels)| encode(&ns, labels)).collect() })
    }

    async fn create(&self, _: &Context, req: pb::CreateNamespaceRequest) -> Result<pb::CreateNamespaceResponse> {
        let new = req.namespace.ok_or_else(|| convert::missing("namespace"))?;
        let (ns, labels, this) = (Namespace::parse(&new.name)?, new.labels, self.clone());
        detached(async move {
            let made = ns.clone();
            let labels = this.db.write(Durability::Durable, move |c| namespaces::create(c, &made, labels)).await?;
            let event = events::NamespaceCreate { name: ns.to_string(), labels: labels.clone() };
            this.exchange.publish_message(ns.as_str(), "/namespaces/create", &event);
            Ok(pb::CreateNamespaceResponse { namespace: Some(encode(&ns, labels)) })
        })
        .await
    }

    async fn update(&self, _: &Context, req: pb::UpdateNamespaceRequest) -> Result<pb::UpdateNamespaceResponse> {
        let mut new = req.namespace.ok_or_else(|| convert::missing("namespace"))?;
        let (ns, this) = (Namespace::parse(&new.name)?, self.clone());
        let paths = convert::paths(req.update_mask.as_ref(), &["labels"]);
        let mut changes = Labels::new();
        for path in &paths {
            match *path {
                Path::Entry("labels", key) => {
                    drop(changes.insert(key.to_owned(), new.labels.remove(key).unwrap_or_default()));
                }
                other => return Err(convert::immutable(other, "namespace", &new.name)),
            }
        }
        let merge = !paths.is_empty();
        let changes = if merge { changes } else { new.labels };
        detached(async move {
            let (of, changed) = (ns.clone(), changes.clone());
            let work = move |c: &rusqlite::Connection| namespaces::set_labels(c, &of, changes, merge);
            let labels = this.db.write(Durability::Rebuildable, work).await?;
            // What has changed, as in containerd: a label that went is one without a value.
            let event = events::NamespaceUpdate { name: ns.to_string(), labels: changed };
            this.exchange.publish_message(ns.as_str(), "/namespaces/update", &event);
            Ok(pb::UpdateNamespaceResponse { namespace: Some(encode(&ns, labels)) })
        })
        .await
    }

    async fn delete(&self, _: &Context, req: pb::DeleteNamespaceRequest) -> Result<()> {
        let (ns, this) = (Namespace::parse(&req.name)?, self.clone());
        detached(async move {
            let gone = ns.clone();
            this.db.write(Durability::Durable, move |c| namespaces::delete(c, &gone)).await?;
            let event = events::NamespaceDelete { name: ns.to_string() };
            this.exchange.publish_message(ns.as_str(), "/namespaces/delete", &event);
            // Its unfinished ingests go.
            this.gc.schedule();
            Ok(())
        })
        .await
    }
}

fn encode(ns: &Namespace, labels: Labels) -> pb::Namespace {
    pb::Namespace { name: ns.to_string(), labels }
}
