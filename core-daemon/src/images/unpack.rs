//! Layers into snapshots, one on top of the other, while they are still being fetched.
//!
//! A layer is applied as soon as the one below it is committed, from the file that its download still writes
//! ([`Tail`]). Layers of one image are not applied side by side: a layer may link to files below it, and folders that
//! it does not mention must keep the attributes they have below, so each needs its parent. Downloads go on meanwhile.
//!
//! A snapshot is committed under the chain id of its layers, and only when the blob's digest and the layer's diff id
//! are right. Two pulls never unpack the same chain at the same time: the second finds it done. An unfinished
//! snapshot is removed, whatever ended the work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::flights::Flights;
use super::manifest::{self, Descriptor, chain_id};
use super::progress::Reporter;
use super::tail::{Outcome, Tail};
use super::{ImageError, inner};
use crate::content::Store;
use crate::diff;
use crate::domain::{Digest, Labels, Namespace, Scope};
use crate::metadata::{Db, MetadataError, leases, snapshots as rows};
use crate::snapshots::{SnapshotError, Snapshots};

/// How long the removal of an unfinished snapshot may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// A layer to unpack.
#[derive(Clone)]
pub(super) struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
    pub tail: Tail,
}

/// What unpacking needs. Owned, because it runs as a task that outlives a cancelled transfer until it has cleaned up.
pub(super) struct Unpacker {
    pub content: Store,
    pub snapshots: Snapshots,
    pub db: Db,
    pub scope: Scope,
    pub flights: std::sync::Arc<Flights<(Namespace, String, Digest)>>,
    pub reporter: std::sync::Arc<Reporter>,
    pub snapshotter: String,
    pub stop: CancellationToken,
}

/// What applying one layer came to.
enum Applied {
    Committed,
    /// The bytes were wrong and are fetched again.
    Again,
}

impl Unpacker {
    /// Unpacks all layers, and says under which name the last one is. `None` for an image without layers.
    pub async fn run(self, manifest: &Descriptor, layers: &[Layer]) -> Result<Option<Digest>, ImageError> {
        let mut chain: Vec<Digest> = Vec::new();
        for layer in layers {
            if !manifest::is_layer(&layer.descriptor.media_type) {
                let reason = format!("a layer of type {:?} can't be unpacked", layer.descriptor.media_type);
                return Err(ImageError::Malformed { what: format!("manifest {}", manifest.digest), reason });
            }
            let parent = chain_id(&chain).map_or_else(String::new, |id| id.to_string());
            chain.push(layer.diff_id.clone());
            let Some(name) = chain_id(&chain) else { continue };
            let key = (self.scope.ns.clone(), self.snapshotter.clone(), name.clone());
            let flight = tokio::select! {
                flight = self.flights.board(key) => flight,
                () = self.stop.cancelled() => return Err(ImageError::Cancelled),
            };
            while !self.exists(&name).await? {
                match self.apply(layer, &parent, &name, manifest).await? {
                    Applied::Committed => break,
                    Applied::Again => tracing::debug!(layer = %layer.descriptor.digest, "unpacking starts again"),
                }
            }
            drop(flight);
            self.finished(layer).await?;
            let label = Labels::from([("containerd.io/uncompressed".to_owned(), layer.diff_id.to_string())]);
            self.content.set_labels(&self.scope, &layer.descriptor.digest, label).await.map_err(inner)?;
        }
        Ok(chain_id(&chain))
    }

    /// Whether the chain is unpacked already; then the lease holds it.
    async fn exists(&self, name: &Digest) -> Result<bool, ImageError> {
        let (scope, snapshotter, chain) = (self.scope.clone(), self.snapshotter.clone(), name.to_string());
        // First the lease, then the look: what is there after that can't go away.
        let held = self.db.write::<_, MetadataError>(shared_sys::files::Durability::Rebuildable, move |c| {
            leases::protect(c, &scope, &rows::resource(&snapshotter), &chain)
        });
        held.await.map_err(|e| inner(SnapshotError::from(e)))?;
        match self.snapshots.stat(&self.scope, &self.snapshotter, name.as_str()).await {
            Ok(_) => Ok(true),
            Err(SnapshotError::NotFound(_)) => Ok(false),
            Err(e) => Err(inner(e)),
        }
    }

    /// Waits until the layer's blob is in the store.
    async fn finished(&self, layer: &Layer) -> Result<(), ImageError> {
        let mut generation = 0;
        loop {
            match self.settled(layer, generation).await? {
                Outcome::Complete => return Ok(()),
                Outcome::Restarted => generation += 1,
                Outcome::Stopped => return Err(ImageError::Cancelled),
            }
        }
    }

    async fn settled(&self, layer: &Layer, generation: u32) -> Result<Outcome, ImageError> {
        tokio::select! {
            outcome = layer.tail.outcome(generation) => Ok(outcome),
            () = self.stop.cancelled() => Err(ImageError::Cancelled),
        }
    }

    async fn apply(
        &self,
        layer: &Layer,
        parent: &str,
        name: &Digest,
        manifest: &Descriptor,
    ) -> Result<Applied, ImageError> {
        tokio::select! {
            () = layer.tail.started() => {}
            () = self.stop.cancelled() => return Err(ImageError::Cancelled),
        }
        let key = format!("extract-{} {name}", uuid::Uuid::new_v4().simple());
        let labels = Labels::from([("containerd.io/snapshot.ref".to_owned(), name.to_string())]);
        let (scope, sn) = (&self.scope, self.snapshotter.as_str());
        let mounts = self.snapshots.prepare(scope, sn, &key, parent, labels.clone()).await.map_err(inner)?;
        self.reporter.about("extracting", &layer.descriptor, Some(manifest), 0);

        let reader = layer.tail.reader(&self.stop);
        let generation = reader.generation();
        let media_type = layer.descriptor.media_type.clone();
        // A transfer that ends stops the reader, and with it this thread.
        let applied = shared_sys::blocking(move || {
            let mut plain = diff::decompress(&media_type, Box::new(reader))?;
            diff::apply(&mut *plain, &mounts)
        })
        .await;

        // Wrong bytes make any error; so first see whether the bytes were right.
        let verdict = match (self.settled(layer, generation).await, applied) {
            (Err(e), _) => Err(e),
            (Ok(Outcome::Stopped), _) => Err(ImageError::Cancelled),
            (Ok(Outcome::Restarted), _) => Ok(None),
            (Ok(Outcome::Complete), Err(source)) => {
                let e: shared_proto::Error = source.into();
                Err(ImageError::Inner(e.context(format!("unpack layer {}", layer.descriptor.digest))))
            }
            (Ok(Outcome::Complete), Ok(applied)) if applied.digest != layer.diff_id => Err(ImageError::WrongDiffId {
                layer: layer.descriptor.digest.clone(),
                expected: layer.diff_id.clone(),
                found: applied.digest,
            }),
            (Ok(Outcome::Complete), Ok(_)) => Ok(Some(())),
        };
        let error = match verdict {
            Ok(Some(())) => match self.snapshots.commit(scope, sn, name.as_str(), &key, labels).await {
                Ok(()) => {
                    self.reporter.about("extracted", &layer.descriptor, Some(manifest), layer.descriptor.size);
                    return Ok(Applied::Committed);
                }
                // Somebody unpacked it by hand: theirs is as good.
                Err(SnapshotError::Exists(_)) => None,
                Err(e) => Some(inner(e)),
            },
            Ok(None) => None,
            Err(e) => Some(e),
        };
        self.discard(&key).await;
        error.map_or(Ok(Applied::Again), Err)
    }

    /// Removes an unfinished snapshot.
    async fn discard(&self, key: &str) {
        let removed = self.snapshots.remove(&self.scope, &self.snapshotter, key);
        match tokio::time::timeout(CLEANUP, removed).await {
            Ok(Ok(()) | Err(SnapshotError::NotFound(_))) => {}
            Ok(Err(error)) => tracing::warn!(key, %error, "an unfinished snapshot could not be removed"),
            Err(_) => tracing::warn!(key, "the removal of an unfinished snapshot takes too long"),
        }
    }
}
