//! Container records.
//!
//! `Update` with a mask changes `labels`, `labels.KEY`, `spec`, `extensions`, `extensions.KEY`, `image`,
//! `snapshot_key` (also `snapshotkey`) and `runtime`; without one it replaces labels, spec, extensions, image and
//! snapshot key, and refuses another runtime or snapshotter.
//!
//! Limits: a list that is too large for one message is `ResourceExhausted`; `ListStream` has no limit.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use shared_proto::api::{self, Items};
use shared_proto::containerd::{containers as pb, events};
use shared_proto::{Code, Context, Error, Result};
use shared_sys::files::Durability;

use super::convert::{self, Path};
use super::detached;
use crate::domain::{Filters, Namespace, Scope};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::metadata::containers::{self, Change, Container};
use crate::metadata::{Db, MetadataError};
use crate::stages::Stages;

/// Containers read at a time for a stream.
const PAGE: usize = 64;

/// The containers service.
#[derive(Clone)]
pub struct ContainersService {
    db: Db,
    exchange: Exchange,
    gc: Gc,
    stages: Stages,
}

impl ContainersService {
    pub fn new(db: Db, exchange: Exchange, gc: Gc) -> Self {
        Self { db, exchange, gc, stages: Stages::default() }
    }

    /// The same; what starts were made of is kept there.
    pub fn recording(self, stages: &Stages) -> Self {
        Self { stages: stages.clone(), ..self }
    }
}

#[async_trait]
impl api::Containers for ContainersService {
    async fn get(&self, cx: &Context, req: pb::GetContainerRequest) -> Result<pb::GetContainerResponse> {
        let ns = Scope::of(cx)?.ns;
        let found = self.db.read(move |c| containers::get(c, &ns, &req.id)).await?;
        Ok(pb::GetContainerResponse { container: Some(encode(found)) })
    }

    async fn list(&self, cx: &Context, req: pb::ListContainersRequest) -> Result<pb::ListContainersResponse> {
        let ns = Scope::of(cx)?.ns;
        let filters = Filters::parse(&req.filters)?;
        let all = self.db.read(move |c| containers::list(c, &ns, |container| filters.matches(container))).await?;
        if all.iter().map(Container::size).sum::<usize>() > containers::MAX_RECORD {
            let message = format!("{} containers are too many for one message: use ListStream or filters", all.len());
            return Err(Error::new(Code::ResourceExhausted, message));
        }
        Ok(pb::ListContainersResponse { containers: all.into_iter().map(encode).collect() })
    }

    async fn list_stream(
        &self,
        cx: &Context,
        req: pb::ListContainersRequest,
    ) -> Result<Items<pb::ListContainerMessage>> {
        let (ns, filters) = (Scope::of(cx)?.ns, Arc::new(Filters::parse(&req.filters)?));
        let db = self.db.clone();
        let pages = futures::stream::try_unfold(String::new(), move |after| {
            page(db.clone(), ns.clone(), filters.clone(), after)
        });
        let items = pages.map_ok(|page| futures::stream::iter(page.into_iter().map(Ok))).try_flatten();
        Ok(items.map_ok(|found| pb::ListContainerMessage { container: Some(encode(found)) }).boxed())
    }

    async fn create(&self, cx: &Context, req: pb::CreateContainerRequest) -> Result<pb::CreateContainerResponse> {
        let scope = Scope::of(cx)?;
        let new = decode(req.container.ok_or_else(|| convert::missing("container"))?);
        let (this, of) = (self.clone(), (scope.ns.clone(), new.id.clone()));
        let work = detached(async move {
            let ns = scope.ns.clone();
            let made = this.db.write(Durability::Durable, move |c| containers::create(c, &ns, new)).await?;
            let made = encode(made);
            let runtime = made.runtime.clone();
            let event = events::ContainerCreate {
                id: made.id.clone(),
                image: made.image.clone(),
                runtime: runtime.map(|r| events::container_create::Runtime { name: r.name, options: r.options }),
            };
            this.exchange.publish_message(scope.ns.as_str(), "/containers/create", &event);
            Ok(pb::CreateContainerResponse { container: Some(made) })
        });
        self.stages.during(of.0.as_str(), &of.1, "Containers.create", cx.watched, work).await
    }

    async fn update(&self, cx: &Context, req: pb::UpdateContainerRequest) -> Result<pb::UpdateContainerResponse> {
        let scope = Scope::of(cx)?;
        let new = decode(req.container.ok_or_else(|| convert::missing("container"))?);
        let paths = convert::paths(req.update_mask.as_ref(), &["labels", "extensions"]);
        let id = new.id.clone();
        let fixed = paths.is_empty().then(|| (new.runtime_name.clone(), new.snapshotter.clone()));
        let changes = changes(new, &paths)?;
        let (this, of) = (self.clone(), (scope.ns.clone(), id.clone()));
        let updated = detached(async move {
            let ns = scope.ns.clone();
            let work = move |c: &rusqlite::Connection| {
                if let Some((runtime, snapshotter)) = fixed {
                    containers::same_backends(c, &ns, &id, &runtime, &snapshotter)?;
                }
                containers::update(c, &ns, &id, changes)
            };
            let updated = encode(this.db.write(Durability::Rebuildable, work).await?);
            let event = events::ContainerUpdate {
                id: updated.id.clone(),
                image: updated.image.clone(),
                labels: updated.labels.clone(),
                snapshot_key: updated.snapshot_key.clone(),
            };
            this.exchange.publish_message(scope.ns.as_str(), "/containers/update", &event);
            Ok(pb::UpdateContainerResponse { container: Some(updated) })
        });
        self.stages.during(of.0.as_str(), &of.1, "Containers.update", cx.watched, updated).await
    }

    async fn delete(&self, cx: &Context, req: pb::DeleteContainerRequest) -> Result<()> {
        let scope = Scope::of(cx)?;
        let this = self.clone();
        detached(async move {
            let (ns, id) = (scope.ns.clone(), req.id.clone());
            this.db.write(Durability::Durable, move |c| containers::delete(c, &ns, &id)).await?;
            let event = events::ContainerDelete { id: req.id };
            this.exchange.publish_message(scope.ns.as_str(), "/containers/delete", &event);
            // Its snapshot may be held by nothing else.
            this.gc.schedule();
            Ok(())
        })
        .await
    }
}

/// The containers behind the id `after`, and the id to go on from; `None` at the end.
async fn page(db: Db, ns: Namespace, filters: Arc<Filters>, after: String) -> Result<Option<(Vec<Container>, String)>> {
    let read =
        move |c: &rusqlite::Connection| containers::page(c, &ns, &after, PAGE, |container| filters.matches(container));
    let page = db.read::<_, MetadataError>(read).await?;
    Ok(page.last().map(|last| last.id.clone()).map(|last| (page, last)))
}

/// The steps that a mask asks for.
fn changes(mut new: Container, paths: &[Path<'_>]) -> Result<Vec<Change>> {
    if paths.is_empty() {
        return Ok(vec![
            Change::Labels(new.labels),
            Change::Spec(new.spec),
            Change::Extensions(new.extensions),
            Change::Image(new.image),
            Change::SnapshotKey(new.snapshot_key),
        ]);
    }
    let mut changes = Vec::with_capacity(paths.len());
    for path in paths {
        changes.push(match *path {
            Path::Entry("labels", key) => {
                Change::Label(key.to_owned(), new.labels.get(key).cloned().unwrap_or_default())
            }
            Path::Entry("extensions", key) => Change::Extension(key.to_owned(), new.extensions.remove(key)),
            Path::Field("labels") => Change::Labels(new.labels.clone()),
            Path::Field("extensions") => Change::Extensions(std::mem::take(&mut new.extensions)),
            Path::Field("spec") => Change::Spec(new.spec.take()),
            Path::Field("image") => Change::Image(new.image.clone()),
            Path::Field("snapshot_key" | "snapshotkey") => Change::SnapshotKey(new.snapshot_key.clone()),
            Path::Field("runtime") => Change::Runtime(new.runtime_name.clone(), new.runtime_options.take()),
            other => return Err(convert::immutable(other, "container", &new.id)),
        });
    }
    Ok(changes)
}

fn decode(proto: pb::Container) -> Container {
    let (runtime_name, runtime_options) = match proto.runtime {
        Some(runtime) => (runtime.name, runtime.options.map(convert::payload)),
        None => (String::new(), None),
    };
    Container {
        id: proto.id,
        labels: proto.labels,
        image: proto.image,
        runtime_name,
        runtime_options,
        spec: proto.spec.map(convert::payload),
        snapshotter: proto.snapshotter,
        snapshot_key: proto.snapshot_key,
        sandbox: proto.sandbox,
        extensions: proto.extensions.into_iter().map(|(name, any)| (name, convert::payload(any))).collect(),
        // Ours to set.
        created_at: 0,
        updated_at: 0,
    }
}

fn encode(record: Container) -> pb::Container {
    let options = record.runtime_options.map(convert::any);
    pb::Container {
        id: record.id,
        labels: record.labels,
        image: record.image,
        runtime: Some(pb::container::Runtime { name: record.runtime_name, options }),
        spec: record.spec.map(convert::any),
        snapshotter: record.snapshotter,
        snapshot_key: record.snapshot_key,
        sandbox: record.sandbox,
        extensions: record.extensions.into_iter().map(|(name, payload)| (name, convert::any(payload))).collect(),
        created_at: Some(convert::timestamp(record.created_at)),
        updated_at: Some(convert::timestamp(record.updated_at)),
    }
}
