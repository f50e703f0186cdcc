//! Garbage collection: what nothing holds any more goes away.
//!
//! A run has two halves. *Mark* ([`mark`]) finds, from leases, images, containers and labels, what is still needed;
//! the records of everything else are deleted in the transaction that found it, so nothing can start to need it in
//! between. *Sweep* then removes files and layers without records. A crash between the halves leaves files that the
//! next run removes.
//!
//! Most runs find nothing: those only read. Runs never overlap. A caller of [`Gc::collect`] gets the report of a run
//! that began after its call, and callers that wait together share one run. [`Gc::schedule`] asks for a run soon,
//! many requests for one; [`Gc::run`] does those, and a run from time to time for what expires.
//!
//! What can't be removed is reported, delays nothing else, and is tried again by the next run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shared_proto::containerd::events::SnapshotRemove;
use shared_proto::containerd::images::ImageDelete;
use shared_sys::files::Durability;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::content::Store;
use crate::events::Exchange;
use crate::metadata::{Db, DbError};
use crate::snapshots::Snapshots;

mod graph;
mod mark;
#[cfg(test)]
mod tests;

use mark::Garbage;

/// How long a scheduled run waits for more to collect. Short: who failed to make a container tries again under the same
/// name, and finds the snapshot of the first try in its way until it is collected.
const DELAY: Duration = Duration::from_millis(50);
/// The longest time without a run.
const IDLE: Duration = Duration::from_secs(600);
/// After a run, the next scheduled one waits so many times as long as it took: 2 % of the time at most, which is what
/// containerd's `pause_threshold` is set to.
const REST: u32 = 49;
/// How long the layers of a snapshotter may take.
const LAYERS: Duration = Duration::from_secs(300);

/// The collector; cheap to clone.
#[derive(Clone)]
pub struct Gc(Arc<Inner>);

struct Inner {
    db: Db,
    content: Store,
    snapshots: Snapshots,
    exchange: Exchange,
    wanted: Notify,
    /// Calls of `collect` and `schedule` so far.
    calls: AtomicU64,
    /// The last call of `schedule`.
    scheduled: AtomicU64,
    /// Held during a run: runs don't overlap.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// Calls that the last run answers: all before it began.
    answers: u64,
    report: Report,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Records deleted.
    pub leases: usize,
    pub images: usize,
    pub blobs: usize,
    pub snapshots: usize,
    pub ingests: usize,
    /// Blobs and ingests removed from disk.
    pub files: usize,
    /// Layers removed from snapshotters.
    pub layers: usize,
    /// What could not be removed, and why.
    pub errors: Vec<String>,
    pub took: Duration,
}

impl Gc {
    pub fn new(db: Db, content: Store, snapshots: Snapshots, exchange: Exchange) -> Self {
        Self(Arc::new(Inner {
            db,
            content,
            snapshots,
            exchange,
            wanted: Notify::new(),
            calls: AtomicU64::new(0),
            scheduled: AtomicU64::new(0),
            last: Mutex::default(),
        }))
    }

    /// Asks for a run soon, unless another one begins before. Does not wait.
    pub fn schedule(&self) {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.scheduled.fetch_max(call, Ordering::SeqCst);
        self.0.wanted.notify_one();
    }

    /// Does the scheduled runs, until `shutdown`; a run that has begun is finished.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = self.0.wanted.notified() => {}
                () = tokio::time::sleep(IDLE) => self.schedule(),
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(DELAY) => {}
                () = shutdown.cancelled() => return,
            }
            let rest = match self.answer(self.0.scheduled.load(Ordering::SeqCst)).await {
                Ok(report) => report.took * REST,
                Err(error) => {
                    tracing::error!(%error, "garbage collection failed");
                    IDLE / 10
                }
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Collects what is garbage now. Only the database can make the whole run fail.
    pub async fn collect(&self) -> Result<Report, DbError> {
        self.answer(self.0.calls.fetch_add(1, Ordering::SeqCst)).await
    }

    /// The report of a run that began after this call.
    async fn answer(&self, call: u64) -> Result<Report, DbError> {
        let mut last = self.0.last.lock().await;
        if last.answers > call {
            return Ok(last.report.clone());
        }
        let answers = self.0.calls.load(Ordering::SeqCst);
        let report = self.run_once().await?;
        *last = Last { answers, report: report.clone() };
        Ok(report)
    }

    async fn run_once(&self) -> Result<Report, DbError> {
        let begun = Instant::now();
        let mut report = Report::default();
        for (ns, garbage) in self.forget().await? {
            report.leases += garbage.leases.len();
            report.images += garbage.images.len();
            report.blobs += garbage.blobs.len();
            report.snapshots += garbage.snapshots.len();
            report.ingests += garbage.ingests.len();
            self.announce(&ns, garbage);
        }
        match self.0.content.sweep().await {
            Ok(sweep) => {
                report.files = sweep.blobs + sweep.ingests;
                report.errors.extend(sweep.errors.iter().map(ToString::to_string));
            }
            Err(e) => report.errors.push(e.to_string()),
        }
        match tokio::time::timeout(LAYERS, self.0.snapshots.sweep()).await {
            Ok(sweep) => {
                report.layers = sweep.removed;
                report.errors.extend(sweep.errors.iter().map(ToString::to_string));
            }
            Err(_) => report.errors.push(format!("removing layers took more than {} s", LAYERS.as_secs())),
        }
        report.took = begun.elapsed();
        for error in &report.errors {
            tracing::warn!(error, "garbage collection left something for the next run");
        }
        tracing::debug!(?report, "garbage collection");
        Ok(report)
    }

    /// Deletes the records of what nothing holds.
    async fn forget(&self) -> Result<Vec<(String, Garbage)>, DbError> {
        let content = self.0.content.clone();
        let found = self.0.db.read(move |c| mark::all(c, &content));
        if found.await?.is_empty() {
            return Ok(Vec::new());
        }
        // Looked at again where nothing can change meanwhile.
        let content = self.0.content.clone();
        let work = move |c: &rusqlite::Connection| {
            let found = mark::all(c, &content)?;
            found.iter().try_for_each(|(ns, garbage)| garbage.delete(c, ns))?;
            Ok(found)
        };
        self.0.db.write(Durability::Durable, work).await
    }

    fn announce(&self, ns: &str, garbage: Garbage) {
        for name in garbage.images {
            self.0.exchange.publish_message(ns, "/images/delete", &ImageDelete { name });
        }
        for digest in garbage.blobs {
            self.0.content.deleted(ns, &digest);
        }
        for (snapshotter, key) in garbage.snapshots {
            self.0.exchange.publish_message(ns, "/snapshot/remove", &SnapshotRemove { key, snapshotter });
        }
    }
}
