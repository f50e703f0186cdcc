//! What all transfers share, and the frame around each: a lease, and the end that cleans up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared_proto::containerd::images::{ImageCreate, ImageUpdate};
use shared_sys::files::Durability;
use tokio_util::sync::CancellationToken;

use super::flights::Flights;
use super::http::Clients;
use super::manifest::Descriptor;
use super::progress::Reporter;
use super::registry::Retry;
use super::target::Stored;
use super::{ImageError, inner};
use crate::content::Store;
use crate::domain::{Digest, Labels, LeaseId, Namespace, Scope};
use crate::events::Exchange;
use crate::gc::Gc;
use crate::metadata::images::{self, Image};
use crate::metadata::{Db, MetadataError, leases, namespaces};
use crate::snapshots::Snapshots;

/// How long a transfer's lease protects what it made when the core dies.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// Marks the leases of transfers: after a restart none of them can still be running.
const MARK: &str = "io.seam.transfer";
/// How long the end of a transfer may take.
const END: Duration = Duration::from_secs(60);

/// Limits of pulls.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Layers fetched at a time in one pull.
    pub max_concurrent_downloads: usize,
    /// A pull ends when no byte came for so long. Zero = never.
    pub progress_timeout: Duration,
    pub retry: Retry,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_concurrent_downloads: 3, progress_timeout: Duration::from_secs(300), retry: Retry::default() }
    }
}

/// Pulls and imports images; cheap to clone.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    content: Store,
    snapshots: Snapshots,
    db: Db,
    exchange: Exchange,
    gc: Gc,
    settings: Settings,
    clients: Arc<Clients>,
    blobs: Flights<(Namespace, Digest)>,
    chains: Arc<Flights<(Namespace, String, Digest)>>,
    shutdown: CancellationToken,
}

impl Puller {
    pub fn new(content: Store, snapshots: Snapshots, db: Db, exchange: Exchange, gc: Gc, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            content,
            snapshots,
            db,
            exchange,
            gc,
            settings,
            clients: Arc::default(),
            blobs: Flights::default(),
            chains: Arc::default(),
            shutdown: CancellationToken::new(),
        }))
    }

    /// Gives back the leases of transfers that an earlier process began: none of them runs any more.
    pub async fn recover(&self) -> Result<(), ImageError> {
        let removed = self.0.db.write::<_, MetadataError>(Durability::Rebuildable, |c| {
            let mut removed = 0;
            for (ns, _) in namespaces::list(c)? {
                for lease in leases::list(c, &ns)?.into_iter().filter(|lease| lease.labels.contains_key(MARK)) {
                    leases::delete(c, &ns, &lease.id)?;
                    removed += 1;
                }
            }
            Ok(removed)
        });
        let removed = removed.await.map_err(inner)?;
        if removed > 0 {
            self.0.gc.schedule();
            tracing::info!(removed, "transfers of an earlier process left leases");
        }
        Ok(())
    }

    /// A token for [`Puller::pull`] and [`Puller::import`]; also cancelled by [`Puller::stop`].
    pub fn token(&self) -> CancellationToken {
        self.0.shutdown.child_token()
    }

    /// Cancels every transfer, for good.
    pub fn stop(&self) {
        self.0.shutdown.cancel();
    }

    pub(super) fn content(&self) -> &Store {
        &self.0.content
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(super) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.0.clients
    }

    pub(super) fn blobs(&self) -> &Flights<(Namespace, Digest)> {
        &self.0.blobs
    }

    pub(super) fn chains(&self) -> &Arc<Flights<(Namespace, String, Digest)>> {
        &self.0.chains
    }

    /// Starts a transfer. A caller that brings no lease gets one of its own.
    pub(super) async fn begin(
        &self,
        scope: &Scope,
        reporter: Arc<Reporter>,
        cancel: CancellationToken,
    ) -> Result<Transfer, ImageError> {
        let mut scope = scope.clone();
        let own = scope.lease.is_none();
        if own {
            let id = LeaseId::parse(&format!("transfer-{}", uuid::Uuid::new_v4().simple())).map_err(inner)?;
            let expire = rfc3339(SystemTime::now() + LEASE);
            let labels =
                Labels::from([("containerd.io/gc.expire".to_owned(), expire), (MARK.to_owned(), "true".to_owned())]);
            let (ns, lease) = (scope.ns.clone(), id.clone());
            // A power cut ends the transfer as well: nothing is lost with the lease.
            let made = self.0.db.write::<_, MetadataError>(Durability::Rebuildable, move |c| {
                leases::create(c, &ns, &lease, labels).map(drop)
            });
            made.await.map_err(inner)?;
            scope.lease = Some(id);
        }
        Ok(Transfer { puller: self.clone(), scope, own, reporter, stop: cancel })
    }
}

/// A running pull or import.
pub(super) struct Transfer {
    pub puller: Puller,
    /// With a lease that holds everything that is made.
    pub scope: Scope,
    /// Whether the lease is ours.
    own: bool,
    pub reporter: Arc<Reporter>,
    /// Cancelled: everything should end.
    pub stop: CancellationToken,
}

impl Transfer {
    /// Does the work, unless it is cancelled, and then ends the transfer. To be run to its end: see
    /// [`crate::services::detached`].
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, ImageError>>) -> Result<T, ImageError> {
        let done = work.await;
        if self.own {
            self.give_back().await;
        }
        done
    }

    /// Does work that leaves nothing behind when it is dropped.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, ImageError>>) -> Result<T, ImageError> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(ImageError::Cancelled),
        }
    }

    /// Deletes our lease; what only it held is collected soon.
    async fn give_back(&self) {
        let Some(lease) = self.scope.lease.clone() else { return };
        let (ns, id) = (self.scope.ns.clone(), lease.to_string());
        let gone =
            self.puller.0.db.write::<_, MetadataError>(Durability::Rebuildable, move |c| leases::delete(c, &ns, &id));
        match tokio::time::timeout(END, gone).await {
            Ok(Ok(()) | Err(MetadataError::NotFound(..))) => {}
            Ok(Err(error)) => tracing::warn!(%lease, %error, "the lease of a transfer could not be deleted"),
            Err(_) => tracing::warn!(%lease, "deleting the lease of a transfer takes too long"),
        }
        self.puller.0.gc.schedule();
    }

    /// Makes image records of these names that point at `target`. An image that is there is pointed at it.
    pub async fn store(
        &self,
        names: Vec<String>,
        target: &Descriptor,
        labels: &Labels,
    ) -> Result<Vec<Stored>, ImageError> {
        let (scope, labels) = (self.scope.clone(), labels.clone());
        let record = move |name: &String| Image {
            name: name.clone(),
            labels: labels.clone(),
            target: crate::domain::Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.clone(),
                size: target.size as i64,
                annotations: target.annotations.clone(),
            },
            created_at: 0,
            updated_at: 0,
        };
        let records: Vec<Image> = names.iter().map(record).collect();
        let written = self.puller.0.db.write::<_, MetadataError>(Durability::Durable, move |c| {
            records.into_iter().map(|record| images::upsert(c, &scope, record)).collect::<Result<Vec<_>, _>>()
        });
        let mut stored = Vec::new();
        for (image, made) in written.await.map_err(inner)? {
            let (ns, labels) = (self.scope.ns.as_str(), image.labels.into_iter().collect());
            let exchange = &self.puller.0.exchange;
            if made {
                exchange.publish_message(ns, "/images/create", &ImageCreate { name: image.name.clone(), labels });
            } else {
                exchange.publish_message(ns, "/images/update", &ImageUpdate { name: image.name.clone(), labels });
            }
            self.reporter.note("saved", &image.name, Some(target));
            stored.push(Stored { name: image.name, target: target.clone() });
        }
        Ok(stored)
    }
}

/// A time as labels have it: RFC 3339.
fn rfc3339(at: SystemTime) -> String {
    prost_types::Timestamp::from(at).to_string()
}
