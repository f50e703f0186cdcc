//! Layers into a snapshotter that the pull was not for.
//!
//! A pull unpacks for one runtime handler. When a pod of a handler with another snapshotter needs the image, or it was
//! imported without being unpacked, its stored layers are unpacked then: by the ports, as every client of containerd
//! does it. Each layer is committed under its chain id when its digest is right. All is under a lease until a label of
//! the image's configuration holds the last one. Two that need the same do it once.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prost_types::{FieldMask, Timestamp};
use shared_proto::containerd::{Descriptor, content as c, diff as d, leases as l, snapshots as s, types::Mount};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Context, Error, Result};

use super::content::chain_next;
use super::{ImageError, Images, ResolvedImage};
use crate::call;

/// For one layer, however large it is.
const LAYER: Duration = Duration::from_secs(30 * 60);
/// How long the lease protects what was made when this daemon dies and does not come back.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// Marks our leases: those that a start finds are of work that is not done any more.
const MARK: &str = "io.seam.unpack";

impl Images {
    /// Gives back the leases of an earlier process; what only they held is collected.
    pub(super) async fn forget_unpacks(&self) -> Result<()> {
        let inner = &*self.0;
        let list = inner.core.leases.list(&inner.cx, l::ListRequest::default());
        let leases = call::within("list leases", call::RECORD, list).await?.leases;
        for lease in leases.into_iter().filter(|lease| lease.labels.contains_key(MARK)) {
            let delete = inner.core.leases.delete(&inner.cx, l::DeleteRequest { id: lease.id.clone(), sync: false });
            match call::within(format!("delete lease {}", lease.id), call::RECORD, delete).await {
                Err(e) if !e.is_not_found() => return Err(e),
                Ok(()) | Err(_) => tracing::info!(lease = lease.id, "an image was left half unpacked"),
            }
        }
        Ok(())
    }

    /// Unpacks an image's stored layers, those that are missing.
    pub async fn unpack(&self, image: &ResolvedImage, snapshotter: &str) -> Result<()> {
        let key = (image.chain_id.clone(), snapshotter.to_owned());
        let (images, wanted, into) = (self.clone(), image.clone(), snapshotter.to_owned());
        let done = self.0.unpacks.join(key, || async move { images.under_lease(&wanted, &into).await });
        done.await.with_context(|| format!("unpack image {} into snapshotter {snapshotter:?}", image.reference))
    }

    async fn under_lease(&self, image: &ResolvedImage, snapshotter: &str) -> Result<()> {
        let inner = &*self.0;
        let id = format!("unpack-{}", uuid::Uuid::new_v4().simple());
        let expire = Timestamp::from(SystemTime::now() + LEASE).to_string();
        let labels =
            BTreeMap::from([("containerd.io/gc.expire".to_owned(), expire), (MARK.to_owned(), "true".to_owned())]);
        let create = inner.core.leases.create(&inner.cx, l::CreateRequest { id: id.clone(), labels });
        call::within("make a lease", call::RECORD, create).await?;
        let done = self.layers(&inner.cx.with_lease(&id), &id, image, snapshotter).await;
        let delete = inner.core.leases.delete(&inner.cx, l::DeleteRequest { id: id.clone(), sync: false });
        if let Err(error) = call::within("delete the lease", call::CLEANUP, delete).await {
            tracing::warn!(lease = id, %error, "the lease of an unpacked image stays for a day");
        }
        done
    }

    async fn layers(&self, cx: &Context, lease: &str, image: &ResolvedImage, snapshotter: &str) -> Result<()> {
        let started = std::time::Instant::now();
        let inner = &*self.0;
        let diff_ids = image.config.rootfs().diff_ids();
        if image.layers.len() != diff_ids.len() {
            let reason = format!("{} layers, but the configuration names {}", image.layers.len(), diff_ids.len());
            return Err(ImageError::Malformed { name: image.reference.clone(), reason }.into());
        }
        let mut chain = String::new();
        for (layer, diff_id) in image.layers.iter().zip(diff_ids) {
            let next = chain_next(&chain, diff_id);
            let parent = std::mem::replace(&mut chain, next);
            // First the lease, then the look: what is there after that can't go away.
            let resource = Some(l::Resource { id: chain.clone(), r#type: format!("snapshots/{snapshotter}") });
            let held = inner.core.leases.add_resource(cx, l::AddResourceRequest { id: lease.to_owned(), resource });
            call::within("add to the lease", call::RECORD, held).await?;
            let request = s::StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: chain.clone() };
            match call::within("look for a layer", call::RECORD, inner.core.snapshots.stat(cx, request)).await {
                Ok(_) => {}
                Err(e) if e.is_not_found() => self.layer(cx, snapshotter, layer, diff_id, &parent, &chain).await?,
                Err(e) => return Err(e),
            }
        }
        let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
        let labels = BTreeMap::from([(label.clone(), chain)]);
        let request = c::UpdateRequest {
            info: Some(c::Info { digest: image.id.clone(), labels, ..Default::default() }),
            update_mask: Some(FieldMask { paths: vec![format!("labels.{label}")] }),
        };
        call::within("label the configuration", call::RECORD, inner.core.content.update(cx, request)).await?;
        tracing::info!(image = image.reference, snapshotter, took = ?started.elapsed(), "unpacked");
        Ok(())
    }

    async fn layer(
        &self,
        cx: &Context,
        snapshotter: &str,
        layer: &Descriptor,
        diff_id: &str,
        parent: &str,
        chain: &str,
    ) -> Result<()> {
        let inner = &*self.0;
        let key = format!("extract-{} {chain}", uuid::Uuid::new_v4().simple());
        let (parent, sn) = (parent.to_owned(), snapshotter.to_owned());
        let request =
            s::PrepareSnapshotRequest { snapshotter: sn.clone(), key: key.clone(), parent, ..Default::default() };
        let prepared =
            call::within("prepare a layer", call::PROCESS, inner.core.snapshots.prepare(cx, request)).await?;
        let done = async {
            self.apply(cx, layer, diff_id, prepared.mounts).await?;
            let (name, key) = (chain.to_owned(), key.clone());
            let request = s::CommitSnapshotRequest { snapshotter: sn.clone(), name, key, ..Default::default() };
            call::within("commit a layer", call::PROCESS, inner.core.snapshots.commit(cx, request)).await
        };
        let done = done.await;
        if done.is_err() {
            let request = s::RemoveSnapshotRequest { snapshotter: sn.clone(), key: key.clone() };
            let removed = call::within("remove", call::CLEANUP, inner.core.snapshots.remove(cx, request)).await;
            if let Err(error) = removed.or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) }) {
                tracing::warn!(key, %error, "an unfinished snapshot stays until its lease ends");
            }
        }
        match done {
            // Somebody else unpacked it: theirs is as good.
            Err(e) if e.is_exists() => Ok(()),
            done => done.with_context(|| format!("layer {}", layer.digest)),
        }
    }

    async fn apply(&self, cx: &Context, layer: &Descriptor, diff_id: &str, mounts: Vec<Mount>) -> Result<()> {
        let request = d::ApplyRequest { diff: Some(layer.clone()), mounts, ..Default::default() };
        let applied = call::within("apply", LAYER, self.0.core.diff.apply(cx, request)).await?;
        let found = applied.applied.map(|applied| applied.digest).unwrap_or_default();
        if found != diff_id {
            return Err(Error::precondition(format!("its digest is {found}, not {diff_id}")));
        }
        Ok(())
    }
}
