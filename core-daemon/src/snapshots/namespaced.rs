//! What everybody uses: snapshots by namespace and name, over all snapshotters.
//!
//! A change that has begun is finished even when its caller goes away. What is made is added to the caller's lease in
//! the same transaction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use shared_proto::containerd::events as event;
use shared_sys::files::Durability;
use shared_sys::mount::Mount;

use super::records::{add, change_labels, check_name, checked, drop_childless, drop_row};
use super::sweep::Sweep;
use super::{Kind, New, Record, Snapshot, SnapshotError, Snapshotter, Usage, kind_name, passed_on};
use crate::domain::{Labels, Scope, labels};
use crate::events::Exchange;
use crate::metadata::{Db, now, snapshots as rows};

/// All snapshots; cheap to clone.
#[derive(Clone)]
pub struct Snapshots(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub db: Db,
    pub backends: BTreeMap<String, Arc<dyn Snapshotter>>,
    exchange: Exchange,
    /// Makes keys at the snapshotters unique, over restarts too: starts at the time.
    sequence: AtomicU64,
}

impl Snapshots {
    /// Without listeners to its events.
    pub fn new(db: Db, backends: BTreeMap<String, Arc<dyn Snapshotter>>) -> Self {
        Self::publishing(db, backends, Exchange::default())
    }

    /// Publishes `/snapshot/{prepare,commit,remove}`.
    pub fn publishing(db: Db, backends: BTreeMap<String, Arc<dyn Snapshotter>>, exchange: Exchange) -> Self {
        Self(Arc::new(Inner { db, backends, exchange, sequence: AtomicU64::new(now() as u64) }))
    }

    /// The snapshotters' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.backends.keys().map(String::as_str)
    }

    /// Where a snapshotter keeps everything.
    pub fn root(&self, snapshotter: &str) -> Option<PathBuf> {
        self.0.backends.get(snapshotter).map(|backend| backend.root().to_owned())
    }

    /// Makes an active snapshot; `parent` may be empty.
    pub async fn prepare(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let mounts = self.create(scope, snapshotter, key, parent, true, labels).await?;
        let (key, parent, snapshotter) = (key.to_owned(), parent.to_owned(), snapshotter.to_owned());
        let message = event::SnapshotPrepare { key, parent, snapshotter };
        self.0.exchange.publish_message(scope.ns.as_str(), "/snapshot/prepare", &message);
        Ok(mounts)
    }

    /// Makes a read-only snapshot; `parent` may be empty.
    pub async fn view(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        self.create(scope, snapshotter, key, parent, false, labels).await
    }

    async fn create(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        parent: &str,
        writable: bool,
        labels: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let backend = self.backend(snapshotter)?;
        check_name(key)?;
        let labels = checked(labels)?;
        let (ns, sn, name, below) = (scope.ns.clone(), snapshotter.to_owned(), key.to_owned(), parent.to_owned());
        let parent_key = self.0.db.read(move |c| {
            if rows::get(c, &ns, &sn, &name)?.is_some() {
                return Err(SnapshotError::Exists(name));
            }
            if below.is_empty() {
                return Ok(String::new());
            }
            Ok(rows::get(c, &ns, &sn, &below)?.ok_or(SnapshotError::NoParent(below))?.backend)
        });
        let parent_key = parent_key.await?;
        let at = now();
        let row = Snapshot {
            name: key.to_owned(),
            parent: parent.to_owned(),
            kind: if writable { Kind::Active } else { Kind::View },
            labels,
            backend: self.backend_key(scope, key),
            created_at: at,
            updated_at: at,
        };
        let new = New { key: row.backend.clone(), parent: parent_key, writable, labels: passed_on(&row.labels) };
        let record = add(scope.clone(), snapshotter.to_owned(), row);
        let done = uncancelled(async move { backend.create(new, record).await }).await;
        done.map_err(|e| e.named(key, parent))
    }

    /// How to mount an active snapshot or a view.
    pub async fn mounts(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let backend = self.backend(snapshotter)?;
        let row = self.stat(scope, snapshotter, key).await?;
        backend.mounts(&row.backend).await.map_err(|e| e.named(key, &row.parent))
    }

    /// Turns the active snapshot `key` into the committed one `name`, with these labels alone.
    pub async fn commit(
        &self,
        scope: &Scope,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: Labels,
    ) -> Result<(), SnapshotError> {
        let backend = self.backend(snapshotter)?;
        check_name(name)?;
        let labels = checked(labels)?;
        let active = self.stat(scope, snapshotter, key).await?;
        if active.kind != Kind::Active {
            let (is, needed) = (kind_name(active.kind), kind_name(Kind::Active));
            return Err(SnapshotError::WrongKind { key: key.to_owned(), is, needed });
        }
        match self.stat(scope, snapshotter, name).await {
            Err(SnapshotError::NotFound(_)) => {}
            Ok(_) => return Err(SnapshotError::Exists(name.to_owned())),
            Err(e) => return Err(e),
        }
        let at = now();
        let passed = passed_on(&labels);
        let committed = self.backend_key(scope, name);
        let row = Snapshot {
            name: name.to_owned(),
            parent: active.parent.clone(),
            kind: Kind::Committed,
            labels,
            backend: committed.clone(),
            created_at: at,
            updated_at: at,
        };
        let drop_active = drop_row(scope.clone(), snapshotter.to_owned(), key.to_owned());
        let add_committed = add(scope.clone(), snapshotter.to_owned(), row);
        let record: Record = Box::new(move |c| {
            drop_active(c)?;
            add_committed(c)
        });
        let done = async move { backend.commit(&active.backend, &committed, passed, record).await };
        uncancelled(done).await.map_err(|e| e.named(key, name))?;
        let (name, key, snapshotter) = (name.to_owned(), key.to_owned(), snapshotter.to_owned());
        let message = event::SnapshotCommit { key, name, snapshotter };
        self.0.exchange.publish_message(scope.ns.as_str(), "/snapshot/commit", &message);
        Ok(())
    }

    /// Removes a snapshot that no other one stands on.
    pub async fn remove(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<(), SnapshotError> {
        let backend = self.backend(snapshotter)?;
        let row = self.stat(scope, snapshotter, key).await?;
        let remove = |backend: Arc<dyn Snapshotter>| {
            let record = drop_childless(scope.clone(), snapshotter.to_owned(), key.to_owned());
            let layer = row.backend.clone();
            uncancelled(async move { backend.remove(&layer, record).await })
        };
        let done = match remove(backend.clone()).await {
            // Perhaps only by a layer that nobody knows any more.
            Err(SnapshotError::HasChildren(_)) => {
                self.sweep_one(snapshotter, &backend, &mut Sweep::default()).await?;
                remove(backend).await
            }
            other => other,
        };
        done.map_err(|e| e.named(key, &row.parent))?;
        let message = event::SnapshotRemove { key: key.to_owned(), snapshotter: snapshotter.to_owned() };
        self.0.exchange.publish_message(scope.ns.as_str(), "/snapshot/remove", &message);
        Ok(())
    }

    pub async fn stat(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Snapshot, SnapshotError> {
        self.backend(snapshotter)?;
        let (ns, sn, name) = (scope.ns.clone(), snapshotter.to_owned(), key.to_owned());
        self.0.db.read(move |c| rows::get(c, &ns, &sn, &name)?.ok_or(SnapshotError::NotFound(name))).await
    }

    /// Changes labels. Without `fields` all are replaced; a field is `labels` or `labels.KEY`. An empty value deletes.
    pub async fn update(
        &self,
        scope: &Scope,
        snapshotter: &str,
        key: &str,
        new: Labels,
        fields: &[String],
    ) -> Result<Snapshot, SnapshotError> {
        self.backend(snapshotter)?;
        let (ns, sn, name) = (scope.ns.clone(), snapshotter.to_owned(), key.to_owned());
        let fields = fields.to_vec();
        let work = move |c: &Connection| {
            let mut row = rows::get(c, &ns, &sn, &name)?.ok_or_else(|| SnapshotError::NotFound(name.clone()))?;
            change_labels(&mut row.labels, new, &fields)?;
            labels::check(&row.labels)?;
            row.updated_at = now();
            rows::set_labels(c, &ns, &sn, &name, &row.labels, row.updated_at)?;
            Ok(row)
        };
        self.0.db.write(Durability::Durable, work).await
    }

    /// What a snapshot takes, without its parents.
    pub async fn usage(&self, scope: &Scope, snapshotter: &str, key: &str) -> Result<Usage, SnapshotError> {
        let backend = self.backend(snapshotter)?;
        let row = self.stat(scope, snapshotter, key).await?;
        backend.usage(&row.backend).await.map_err(|e| e.named(key, &row.parent))
    }

    /// All snapshots of the namespace at one snapshotter, by name.
    pub async fn list(&self, scope: &Scope, snapshotter: &str) -> Result<Vec<Snapshot>, SnapshotError> {
        self.backend(snapshotter)?;
        let (ns, sn) = (scope.ns.clone(), snapshotter.to_owned());
        self.0.db.read(move |c| Ok(rows::list(c, &ns, &sn)?)).await
    }

    pub(super) fn backend(&self, snapshotter: &str) -> Result<Arc<dyn Snapshotter>, SnapshotError> {
        let backend = self.0.backends.get(snapshotter).cloned();
        backend.ok_or_else(|| SnapshotError::UnknownSnapshotter(snapshotter.to_owned()))
    }

    fn backend_key(&self, scope: &Scope, name: &str) -> String {
        format!("{}/{}/{name}", scope.ns, self.0.sequence.fetch_add(1, Ordering::Relaxed))
    }
}

impl SnapshotError {
    /// The same error under the names that clients know, instead of the snapshotter's keys. `second` is the parent, or
    /// the name committed to.
    fn named(self, name: &str, second: &str) -> Self {
        match self {
            SnapshotError::NotFound(_) => SnapshotError::NotFound(name.to_owned()),
            SnapshotError::NoParent(_) => SnapshotError::NoParent(second.to_owned()),
            SnapshotError::ParentNotCommitted(_) => SnapshotError::ParentNotCommitted(second.to_owned()),
            SnapshotError::HasChildren(_) => SnapshotError::HasChildren(name.to_owned()),
            SnapshotError::WrongKind { is, needed, .. } => {
                SnapshotError::WrongKind { key: name.to_owned(), is, needed }
            }
            other => other,
        }
    }
}

/// Finishes `work` even when the caller goes away.
pub(super) async fn uncancelled<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(crate::stages::carried(work)).await {
        Ok(value) => value,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks are only cancelled with the whole runtime, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
