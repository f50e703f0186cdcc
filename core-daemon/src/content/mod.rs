//! The content store: blobs under their digests, and blobs that are being written.
//!
//! ```text
//! <root>/blobs/sha256/<hex>     a whole, verified blob, read-only; once for all namespaces
//! <root>/ingest/<dir>/data      bytes of an unfinished one; <dir> is random and in its record
//! ```
//!
//! Which namespace sees which blob is in the database. A namespace adopts a blob that another one has by naming its
//! digest (containerd's `shared` policy).
//!
//! Invariants:
//! - A blob's file is on disk before its record is, and its record is gone before its file is. So a crash leaves at
//!   worst a file without a record, which [`Store::sweep`] removes.
//! - One writer an ingest ([`ContentError::Locked`]). A writer that goes away keeps the ingest, and the next one goes
//!   on behind its last byte; the hash is made again from the file, so nothing but the file has to survive.
//! - Reading, writing, hashing and syncing run on blocking threads.
//!
//! Limits: refs of [`MAX_REF`] bytes; an ingest that nobody writes or leases is kept for [`INGEST_LIFE`].

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared_proto::containerd::events::{ContentCreate, ContentDelete};
use shared_sys::files::Durability;

use crate::domain::{Digest, Filters, Labels, Namespace, Scope, labels};
use crate::events::Exchange;
use crate::metadata::content as rows;
use crate::metadata::{self, Db, leases};

mod error;
mod locks;
mod open;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::metadata::content::Info;
pub use error::ContentError;
pub use sweep::Sweep;
pub use writer::Writer;

use locks::Locks;

/// The longest name of an ingest, bytes.
pub const MAX_REF: usize = 4096;
/// How long an ingest is kept that nobody writes and no lease holds.
pub const INGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The store; cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    root: PathBuf,
    db: Db,
    exchange: Exchange,
    locks: Arc<Locks>,
}

/// A blob, open for reading.
pub struct Blob {
    pub file: File,
    /// Bytes.
    pub size: u64,
}

/// How far an ingest is. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub reference: String,
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that should come; 0 = unknown.
    pub total: u64,
    pub expected: Option<Digest>,
    pub started_at: i64,
    pub updated_at: i64,
}

impl Store {
    /// Opens or makes the store below `root`, without listeners. Blocking.
    pub fn open(root: &Path, db: Db) -> Result<Self, ContentError> {
        Self::publishing(root, db, Exchange::default())
    }

    /// Opens or makes the store below `root`; `/content/create` and `/content/delete` are published. Blocking.
    pub fn publishing(root: &Path, db: Db, exchange: Exchange) -> Result<Self, ContentError> {
        for dir in [root.join("blobs/sha256"), root.join("ingest")] {
            std::fs::create_dir_all(&dir).map_err(io_error(|| format!("make {}", dir.display())))?;
        }
        Ok(Self(Arc::new(Inner { root: root.to_owned(), db, exchange, locks: Arc::default() })))
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.root.join("blobs/sha256").join(digest.hex())
    }

    fn ingest_path(&self, dir: &str) -> PathBuf {
        self.0.root.join("ingest").join(dir)
    }

    /// Opens a blob for reading. It stays readable when it is removed meanwhile. `NotFound`.
    pub async fn open_blob(&self, scope: &Scope, digest: &Digest) -> Result<Blob, ContentError> {
        let info = self.info(scope, digest).await?;
        let (path, digest) = (self.blob_path(digest), digest.clone());
        let file = shared_sys::blocking(move || File::open(path)).await;
        match file {
            Ok(file) => Ok(Blob { file, size: info.size }),
            // Removed since we looked, or lost.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.forget_lost(&digest).await?;
                Err(ContentError::NotFound(digest))
            }
            Err(source) => Err(ContentError::Io { what: format!("open blob {digest}"), source }),
        }
    }

    /// What is known of a blob. `NotFound`.
    pub async fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info, ContentError> {
        let (ns, digest) = (scope.ns.clone(), digest.clone());
        self.0.db.read(move |c| rows::get(c, &ns, &digest)?.ok_or(ContentError::NotFound(digest))).await
    }

    /// Like [`info`](Self::info), and lets the scope's lease hold the blob, in one step: past that it can't be
    /// collected while the lease lives.
    pub async fn hold(&self, scope: &Scope, digest: &Digest) -> Result<Info, ContentError> {
        if scope.lease.is_none() {
            return self.info(scope, digest).await;
        }
        let (scope, digest) = (scope.clone(), digest.clone());
        let work = move |c: &rusqlite::Connection| match rows::get(c, &scope.ns, &digest)? {
            Some(info) => {
                leases::protect(c, &scope, leases::CONTENT, digest.as_str())?;
                Ok(info)
            }
            None => Err(ContentError::NotFound(digest)),
        };
        self.0.db.write(Durability::Rebuildable, work).await
    }

    /// At most `limit` blobs behind the digest `after` that pass the filters, by digest.
    pub async fn page(
        &self,
        scope: &Scope,
        after: String,
        limit: usize,
        filters: Arc<Filters>,
    ) -> Result<Vec<Info>, ContentError> {
        let ns = scope.ns.clone();
        self.0.db.read(move |c| Ok(rows::page(c, &ns, &after, limit, |info| filters.matches(info))?)).await
    }

    /// Sets labels; an empty value deletes. `NotFound`.
    pub async fn set_labels(&self, scope: &Scope, digest: &Digest, changes: Labels) -> Result<Info, ContentError> {
        self.change_labels(scope, digest, |labels| labels::merge(labels, changes)).await
    }

    /// Replaces all labels. `NotFound`.
    pub async fn replace_labels(&self, scope: &Scope, digest: &Digest, new: Labels) -> Result<Info, ContentError> {
        self.change_labels(scope, digest, |labels| {
            *labels = new;
            labels::drop_empty(labels);
        })
        .await
    }

    async fn change_labels(
        &self,
        scope: &Scope,
        digest: &Digest,
        change: impl FnOnce(&mut Labels) + Send + 'static,
    ) -> Result<Info, ContentError> {
        let (ns, digest) = (scope.ns.clone(), digest.clone());
        let work = move |c: &rusqlite::Connection| {
            let mut info = rows::get(c, &ns, &digest)?.ok_or(ContentError::NotFound(digest))?;
            change(&mut info.labels);
            labels::check(&info.labels)?;
            info.updated_at = metadata::now();
            rows::set_labels(c, &ns, &info.digest, &info.labels, info.updated_at)?;
            Ok(info)
        };
        self.0.db.write(Durability::Rebuildable, work).await
    }

    /// The namespace no longer sees the blob; the bytes go when no namespace does. `NotFound`.
    pub async fn delete(&self, scope: &Scope, digest: &Digest) -> Result<(), ContentError> {
        let (ns, gone) = (scope.ns.clone(), digest.clone());
        let work = move |c: &rusqlite::Connection| {
            if !rows::delete(c, ns.as_str(), gone.as_str())? {
                return Err(ContentError::NotFound(gone));
            }
            Ok(leases::unprotect(c, &ns, leases::CONTENT, gone.as_str())?)
        };
        self.0.db.write(Durability::Durable, work).await?;
        self.deleted(scope.ns.as_str(), digest.as_str());
        self.remove_file(digest).await.map(drop)
    }

    /// The blob of this digest is visible now.
    fn created(&self, ns: &Namespace, digest: &Digest, size: u64) {
        let event = ContentCreate { digest: digest.to_string(), size: size as i64, media_type: String::new() };
        self.0.exchange.publish_message(ns.as_str(), "/content/create", &event);
    }

    /// Says that a namespace no longer sees a blob.
    pub fn deleted(&self, ns: &str, digest: &str) {
        let event = ContentDelete { digest: digest.to_owned() };
        self.0.exchange.publish_message(ns, "/content/delete", &event);
    }

    /// How far an ingest is. `NoIngest`.
    pub async fn status(&self, scope: &Scope, reference: &str) -> Result<Status, ContentError> {
        let (store, ns, reference) = (self.clone(), scope.ns.clone(), reference.to_owned());
        let found = self.0.db.read(move |c| match rows::get_ingest(c, &ns, &reference)? {
            Some(ingest) => Ok(store.status_of(ingest)),
            None => Err(ContentError::NoIngest(reference)),
        });
        found.await
    }

    /// How far all ingests of the namespace are, by ref.
    pub async fn statuses(&self, scope: &Scope) -> Result<Vec<Status>, ContentError> {
        let (store, ns) = (self.clone(), scope.ns.clone());
        let all = self.0.db.read(move |c| {
            let ingests = rows::list_ingests(c, &ns)?;
            Ok(ingests.into_iter().map(|ingest| store.status_of(ingest)).collect())
        });
        all.await
    }

    /// Looks at the ingest's file. Blocking.
    fn status_of(&self, ingest: rows::Ingest) -> Status {
        let found = std::fs::metadata(self.ingest_path(&ingest.dir).join("data"));
        let written = found.as_ref().ok().and_then(|m| m.modified().ok()).map(metadata::nanos);
        Status {
            offset: found.map_or(0, |m| m.len()),
            updated_at: written.unwrap_or(ingest.started_at),
            reference: ingest.reference,
            total: ingest.total,
            expected: ingest.expected,
            started_at: ingest.started_at,
        }
    }

    /// Removes an ingest, even under its writer: that one's commit fails then. `NoIngest`.
    pub async fn abort(&self, scope: &Scope, reference: &str) -> Result<(), ContentError> {
        let (ns, reference) = (scope.ns.clone(), reference.to_owned());
        let work = move |c: &rusqlite::Connection| match rows::get_ingest(c, &ns, &reference)? {
            Some(ingest) => {
                rows::delete_ingest(c, &ingest.dir)?;
                leases::unprotect(c, &ns, leases::INGESTS, &reference)?;
                Ok(ingest.dir)
            }
            None => Err(ContentError::NoIngest(reference)),
        };
        let dir = self.0.db.write(Durability::Rebuildable, work).await?;
        self.remove_ingest_dir(dir).await
    }

    /// Whether somebody writes this ingest right now.
    pub fn is_locked(&self, ns: &str, reference: &str) -> bool {
        self.0.locks.is_locked(ns, reference)
    }
}

/// Gives an I/O error the name of what was done.
fn io_error(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> ContentError {
    |source| ContentError::Io { what: what(), source }
}
