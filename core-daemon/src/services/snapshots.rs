//! The port `Snapshots`.

use async_trait::async_trait;
use futures::StreamExt as _;
use shared_proto::api::{Items, Snapshots as Port};
use shared_proto::containerd::snapshots as s;
use shared_proto::{Context, Error, Result};
use shared_sys::mount::Mount;

use super::convert::{mount_message, timestamp};
use crate::domain::filter::Filters;
use crate::domain::{Invalid, Scope};
use crate::snapshots::{Kind, Snapshot, Snapshots};
use crate::stages::Stages;

/// Snapshots in one message of a list.
const BLOCK: usize = 100;

#[derive(Clone)]
pub struct SnapshotsService(Snapshots, Stages);

impl SnapshotsService {
    pub fn new(snapshots: Snapshots) -> Self {
        Self(snapshots, Stages::default())
    }

    /// The same; what starts were made of is kept there.
    pub fn recording(self, stages: &Stages) -> Self {
        Self(self.0, stages.clone())
    }
}

fn info(row: Snapshot) -> s::Info {
    let kind = match row.kind {
        Kind::View => s::Kind::View,
        Kind::Active => s::Kind::Active,
        Kind::Committed => s::Kind::Committed,
    };
    s::Info {
        name: row.name,
        parent: row.parent,
        kind: kind.into(),
        created_at: Some(timestamp(row.created_at)),
        updated_at: Some(timestamp(row.updated_at)),
        labels: row.labels,
    }
}

fn messages(mounts: Vec<Mount>) -> Vec<shared_proto::containerd::Mount> {
    mounts.into_iter().map(mount_message).collect()
}

#[async_trait]
impl Port for SnapshotsService {
    async fn prepare(&self, cx: &Context, req: s::PrepareSnapshotRequest) -> Result<s::PrepareSnapshotResponse> {
        let scope = Scope::of(cx)?;
        // CRI gives a container's snapshot the container's id.
        let made = self.0.prepare(&scope, &req.snapshotter, &req.key, &req.parent, req.labels);
        let made = self.1.during(scope.ns.as_str(), &req.key, "Snapshots.prepare", cx.watched, made).await?;
        Ok(s::PrepareSnapshotResponse { mounts: messages(made) })
    }

    async fn view(&self, cx: &Context, req: s::ViewSnapshotRequest) -> Result<s::ViewSnapshotResponse> {
        let scope = Scope::of(cx)?;
        let made = self.0.view(&scope, &req.snapshotter, &req.key, &req.parent, req.labels).await?;
        Ok(s::ViewSnapshotResponse { mounts: messages(made) })
    }

    async fn mounts(&self, cx: &Context, req: s::MountsRequest) -> Result<s::MountsResponse> {
        let mounts = self.0.mounts(&Scope::of(cx)?, &req.snapshotter, &req.key).await?;
        Ok(s::MountsResponse { mounts: messages(mounts) })
    }

    async fn commit(&self, cx: &Context, req: s::CommitSnapshotRequest) -> Result<()> {
        let scope = Scope::of(cx)?;
        if !req.parent.is_empty() && self.0.stat(&scope, &req.snapshotter, &req.key).await?.parent != req.parent {
            return Err(Error::unimplemented(format!(
                "commit {:?}: snapshots can't be moved to another parent",
                req.key
            )));
        }
        Ok(self.0.commit(&scope, &req.snapshotter, &req.name, &req.key, req.labels).await?)
    }

    async fn remove(&self, cx: &Context, req: s::RemoveSnapshotRequest) -> Result<()> {
        Ok(self.0.remove(&Scope::of(cx)?, &req.snapshotter, &req.key).await?)
    }

    async fn stat(&self, cx: &Context, req: s::StatSnapshotRequest) -> Result<s::StatSnapshotResponse> {
        let row = self.0.stat(&Scope::of(cx)?, &req.snapshotter, &req.key).await?;
        Ok(s::StatSnapshotResponse { info: Some(info(row)) })
    }

    async fn update(&self, cx: &Context, req: s::UpdateSnapshotRequest) -> Result<s::UpdateSnapshotResponse> {
        let scope = Scope::of(cx)?;
        let new = req.info.ok_or_else(|| Invalid("an update needs the snapshot's info".into()))?;
        let fields = req.update_mask.unwrap_or_default().paths;
        let row = self.0.update(&scope, &req.snapshotter, &new.name, new.labels, &fields).await?;
        Ok(s::UpdateSnapshotResponse { info: Some(info(row)) })
    }

    async fn usage(&self, cx: &Context, req: s::UsageRequest) -> Result<s::UsageResponse> {
        let usage = self.0.usage(&Scope::of(cx)?, &req.snapshotter, &req.key).await?;
        Ok(s::UsageResponse { size: usage.size as i64, inodes: usage.inodes as i64 })
    }

    async fn cleanup(&self, cx: &Context, req: s::CleanupRequest) -> Result<()> {
        Scope::of(cx)?;
        Ok(self.0.cleanup(&req.snapshotter).await?)
    }

    async fn list(&self, cx: &Context, req: s::ListSnapshotsRequest) -> Result<Items<s::ListSnapshotsResponse>> {
        let scope = Scope::of(cx)?;
        let filters = Filters::parse(&req.filters)?;
        let rows = self.0.list(&scope, &req.snapshotter).await?.into_iter();
        let found: Vec<_> = rows.filter(|row| filters.matches(row)).map(info).collect();
        let blocks: Vec<_> =
            found.chunks(BLOCK).map(|block| Ok(s::ListSnapshotsResponse { info: block.to_vec() })).collect();
        Ok(futures::stream::iter(blocks).boxed())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::events::Exchange;
    use crate::metadata::Db;
    use crate::snapshots::{Native, Overlay, Snapshotter};

    async fn service() -> (tempfile::TempDir, Exchange, SnapshotsService) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let overlay = Overlay::open(&dir.path().join("overlayfs"), db.clone()).await.unwrap();
        let native = Native::open(&dir.path().join("native"), db.clone()).await.unwrap();
        let mut backends: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
        backends.insert("overlayfs".into(), Arc::new(overlay));
        backends.insert("native".into(), Arc::new(native));
        let exchange = Exchange::default();
        let service = SnapshotsService::new(Snapshots::publishing(db, backends, exchange.clone()));
        (dir, exchange, service)
    }

    fn prepare(key: &str) -> s::PrepareSnapshotRequest {
        let labels = BTreeMap::from([("tier".to_owned(), key.len().to_string())]);
        s::PrepareSnapshotRequest { snapshotter: "native".into(), key: key.into(), parent: String::new(), labels }
    }

    #[tokio::test]
    async fn it_conforms() {
        let (_dir, _, service) = service().await;
        let mut core = shared_proto::fake::FakeCore::default().core();
        core.snapshots = Arc::new(service);
        shared_proto::conformance::snapshots(&core).await;
    }

    #[tokio::test]
    async fn lists_come_in_blocks_and_can_be_filtered() {
        let (_dir, _, service) = service().await;
        let cx = Context::new("test");
        for n in 0..205 {
            service.prepare(&cx, prepare(&format!("key-{n}"))).await.unwrap();
        }
        let list = |filters: &[&str]| {
            let filters = filters.iter().map(|f| (*f).to_owned()).collect();
            service.list(&cx, s::ListSnapshotsRequest { snapshotter: "native".into(), filters })
        };
        let sizes: Vec<_> = list(&[]).await.unwrap().map(|block| block.unwrap().info.len()).collect().await;
        assert_eq!(sizes, [100, 100, 5]);
        let found: Vec<_> = list(&["kind==active,labels.tier==5", "name==key-17"])
            .await
            .unwrap()
            .map(|b| b.unwrap().info.len())
            .collect()
            .await;
        assert_eq!(found, [11]);
        assert_eq!(list(&["name=="]).await.err().unwrap().code, shared_proto::Code::InvalidArgument);
    }

    #[tokio::test]
    async fn what_happens_is_published_in_its_namespace() {
        let (_dir, exchange, service) = service().await;
        let mut events = exchange.subscribe();
        let cx = Context::new("test");
        service.prepare(&cx, prepare("a")).await.unwrap();
        let (snapshotter, name, key) = ("native".to_owned(), "b".to_owned(), "a".to_owned());
        let commit = s::CommitSnapshotRequest { snapshotter: snapshotter.clone(), name, key, ..Default::default() };
        service.commit(&cx, commit).await.unwrap();
        service.remove(&cx, s::RemoveSnapshotRequest { snapshotter, key: "b".into() }).await.unwrap();
        for topic in ["/snapshot/prepare", "/snapshot/commit", "/snapshot/remove"] {
            let event = events.try_recv().unwrap();
            assert_eq!((event.ns.as_str(), event.topic.as_str()), ("test", topic));
        }
    }

    #[tokio::test]
    async fn another_parent_at_commit_is_refused() {
        let (_dir, _, service) = service().await;
        let cx = Context::new("test");
        service.prepare(&cx, prepare("a")).await.unwrap();
        let commit = s::CommitSnapshotRequest {
            snapshotter: "native".into(),
            name: "b".into(),
            key: "a".into(),
            parent: "other".into(),
            ..Default::default()
        };
        assert_eq!(service.commit(&cx, commit).await.unwrap_err().code, shared_proto::Code::Unimplemented);
    }
}
