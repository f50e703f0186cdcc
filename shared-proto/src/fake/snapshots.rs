//! A tree of snapshots without files.

use async_trait::async_trait;
use futures::StreamExt as _;

use super::{FakeCore, Named, in_namespace, key, lock, merge_labels, now, required};
use crate::api::{Items, Snapshots};
use crate::containerd::{Mount, snapshots as s};
use crate::context::Context;
use crate::errdefs::{Error, Result};

/// The one snapshotter that the fake has.
pub const SNAPSHOTTER: &str = "overlayfs";

pub(super) type Tree = Named<s::Info>;

fn known(snapshotter: &str) -> Result<()> {
    if snapshotter == SNAPSHOTTER {
        return Ok(());
    }
    Err(Error::invalid(format!("snapshotter {snapshotter:?} is not configured")))
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("snapshot {name:?}: not found"))
}

fn mounts(name: &str) -> Vec<Mount> {
    let source = format!("/fake/{name}");
    vec![Mount { r#type: "bind".into(), source, target: String::new(), options: vec!["rbind".into(), "rw".into()] }]
}

impl FakeCore {
    fn add_snapshot(&self, cx: &Context, snapshotter: &str, info: s::Info) -> Result<Vec<Mount>> {
        known(snapshotter)?;
        let name = key(cx, &info.name)?;
        let mut tree = lock(&self.0.snapshots);
        if tree.contains_key(&name) {
            return Err(Error::exists(format!("snapshot {:?}: already exists", info.name)));
        }
        if !info.parent.is_empty() {
            let parent = tree.get(&key(cx, &info.parent)?).ok_or_else(|| no_such(&info.parent))?;
            if parent.kind() != s::Kind::Committed {
                return Err(Error::precondition(format!("parent {:?} is not committed", info.parent)));
            }
        }
        let answer = mounts(&info.name);
        tree.insert(name, s::Info { created_at: now(), updated_at: now(), ..info });
        Ok(answer)
    }
}

#[async_trait]
impl Snapshots for FakeCore {
    async fn prepare(&self, cx: &Context, req: s::PrepareSnapshotRequest) -> Result<s::PrepareSnapshotResponse> {
        let kind = s::Kind::Active.into();
        let info = s::Info { name: req.key, parent: req.parent, kind, labels: req.labels, ..Default::default() };
        Ok(s::PrepareSnapshotResponse { mounts: self.add_snapshot(cx, &req.snapshotter, info)? })
    }

    async fn view(&self, cx: &Context, req: s::ViewSnapshotRequest) -> Result<s::ViewSnapshotResponse> {
        let kind = s::Kind::View.into();
        let info = s::Info { name: req.key, parent: req.parent, kind, labels: req.labels, ..Default::default() };
        Ok(s::ViewSnapshotResponse { mounts: self.add_snapshot(cx, &req.snapshotter, info)? })
    }

    async fn mounts(&self, cx: &Context, req: s::MountsRequest) -> Result<s::MountsResponse> {
        known(&req.snapshotter)?;
        if !lock(&self.0.snapshots).contains_key(&key(cx, &req.key)?) {
            return Err(no_such(&req.key));
        }
        Ok(s::MountsResponse { mounts: mounts(&req.key) })
    }

    async fn commit(&self, cx: &Context, req: s::CommitSnapshotRequest) -> Result<()> {
        known(&req.snapshotter)?;
        let mut tree = lock(&self.0.snapshots);
        if tree.contains_key(&key(cx, &req.name)?) {
            return Err(Error::exists(format!("snapshot {:?}: already exists", req.name)));
        }
        let active = tree.remove(&key(cx, &req.key)?).ok_or_else(|| no_such(&req.key))?;
        let kind = s::Kind::Committed.into();
        let info = s::Info { name: req.name.clone(), kind, labels: req.labels, updated_at: now(), ..active };
        tree.insert(key(cx, &req.name)?, info);
        Ok(())
    }

    async fn remove(&self, cx: &Context, req: s::RemoveSnapshotRequest) -> Result<()> {
        known(&req.snapshotter)?;
        let mut tree = lock(&self.0.snapshots);
        if in_namespace(&tree, cx.namespace()?).any(|info| info.parent == req.key) {
            return Err(Error::precondition(format!("snapshot {:?} has children", req.key)));
        }
        tree.remove(&key(cx, &req.key)?).map(drop).ok_or_else(|| no_such(&req.key))
    }

    async fn stat(&self, cx: &Context, req: s::StatSnapshotRequest) -> Result<s::StatSnapshotResponse> {
        known(&req.snapshotter)?;
        let found = lock(&self.0.snapshots).get(&key(cx, &req.key)?).cloned();
        Ok(s::StatSnapshotResponse { info: Some(found.ok_or_else(|| no_such(&req.key))?) })
    }

    async fn update(&self, cx: &Context, req: s::UpdateSnapshotRequest) -> Result<s::UpdateSnapshotResponse> {
        known(&req.snapshotter)?;
        let new = required(req.info, "info")?;
        let mut tree = lock(&self.0.snapshots);
        let info = tree.get_mut(&key(cx, &new.name)?).ok_or_else(|| no_such(&new.name))?;
        merge_labels(&mut info.labels, new.labels, &req.update_mask.unwrap_or_default().paths);
        info.updated_at = now();
        Ok(s::UpdateSnapshotResponse { info: Some(info.clone()) })
    }

    async fn usage(&self, cx: &Context, req: s::UsageRequest) -> Result<s::UsageResponse> {
        known(&req.snapshotter)?;
        if !lock(&self.0.snapshots).contains_key(&key(cx, &req.key)?) {
            return Err(no_such(&req.key));
        }
        Ok(s::UsageResponse { size: 4096, inodes: 1 })
    }

    async fn cleanup(&self, _: &Context, req: s::CleanupRequest) -> Result<()> {
        known(&req.snapshotter)
    }

    async fn list(&self, cx: &Context, req: s::ListSnapshotsRequest) -> Result<Items<s::ListSnapshotsResponse>> {
        known(&req.snapshotter)?;
        let tree = lock(&self.0.snapshots);
        let all: Vec<_> = in_namespace(&tree, cx.namespace()?).cloned().collect();
        let blocks: Vec<_> = all.chunks(100).map(|info| Ok(s::ListSnapshotsResponse { info: info.to_vec() })).collect();
        Ok(futures::stream::iter(blocks).boxed())
    }
}
