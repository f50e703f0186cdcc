//! Writing a blob.
//!
//! ```text
//!             ┌─ digest known here ────────────▶ Exists (and leased)
//! writer() ───┼─ digest known elsewhere ───────▶ Adopted ── commit ──▶ recorded
//!             │                                    │ write, truncate
//!             └─ else ─▶ Growing ◀─────────────────┘
//!                          │ write…, commit ─▶ fsync, rename, fsync folder ─▶ recorded, ingest gone
//!                          └ dropped ─▶ ingest kept, lock released
//! ```
//!
//! A commit with the wrong size or digest fails and keeps the ingest; a writer may then [truncate](Writer::truncate).

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shared_sys::files::Durability;

use super::locks::{Pin, RefLock};
use super::open;
use super::{ContentError, Info, Store, io_error};
use crate::domain::{Digest, Labels, Scope, labels};
use crate::metadata::content as rows;
use crate::metadata::{self, leases, namespaces};

/// The only writer of one ingest. Dropped, it keeps the ingest for the next one.
pub struct Writer {
    pub(super) store: Store,
    pub(super) scope: Scope,
    pub(super) reference: String,
    pub(super) source: Source,
    pub(super) total: u64,
    pub(super) started_at: i64,
    pub(super) updated_at: i64,
    /// Keeps the expected blob's file, while there is one.
    pub(super) pin: Option<Pin>,
    /// Shared with the step that runs on a blocking thread: a cut writer is locked until its last step is done.
    pub(super) lock: Arc<RefLock>,
}

/// Where the bytes are.
pub(super) enum Source {
    /// In the file of the ingest.
    Growing { dir: String, file: Arc<File>, hasher: Sha256, offset: u64, busy: bool },
    /// Another namespace has the whole blob.
    Adopted { digest: Digest, size: u64 },
}

impl Writer {
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Bytes that are there.
    pub fn offset(&self) -> u64 {
        match &self.source {
            Source::Growing { offset, .. } => *offset,
            Source::Adopted { size, .. } => *size,
        }
    }

    /// The digest of the bytes that are there.
    pub fn digest(&self) -> Digest {
        match &self.source {
            Source::Growing { hasher, .. } => Digest::from_hash(&hasher.clone().finalize()),
            Source::Adopted { digest, .. } => digest.clone(),
        }
    }

    /// Bytes that should come; 0 = unknown.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When the ingest was begun, nanoseconds since the epoch.
    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// When this writer last changed it, nanoseconds since the epoch.
    pub fn updated_at(&self) -> i64 {
        self.updated_at
    }

    /// A second handle on the bytes, for reading at positions below [`offset`](Self::offset). It shares no position
    /// with the writer, which uses none.
    pub fn reader(&self) -> Result<File, ContentError> {
        let opened = match &self.source {
            Source::Growing { file, .. } => file.try_clone(),
            Source::Adopted { digest, .. } => File::open(self.store.blob_path(digest)),
        };
        opened.map_err(io_error(|| format!("read ref {}", self.reference)))
    }

    /// Adds bytes at the end.
    pub async fn write(&mut self, data: Bytes) -> Result<(), ContentError> {
        if data.is_empty() {
            return Ok(());
        }
        self.own(true).await?;
        let failed = io_error(|| format!("write ref {}", self.reference));
        let Source::Growing { file, hasher, offset, busy, .. } = &mut self.source else { return Ok(()) };
        if std::mem::replace(busy, true) {
            return Err(ContentError::Interrupted(self.reference.clone()));
        }
        let (at, length, held) = (*offset, data.len() as u64, self.lock.clone());
        let (file, mut running) = (file.clone(), hasher.clone());
        let written = shared_sys::blocking(move || {
            let _held = held;
            file.write_all_at(&data, at)?;
            running.update(&data);
            Ok(running)
        });
        let written = written.await;
        // After an error the bytes behind the offset don't count: the next write goes over them.
        *busy = false;
        *hasher = written.map_err(failed)?;
        *offset += length;
        self.updated_at = metadata::now();
        Ok(())
    }

    /// Throws all bytes away.
    pub async fn truncate(&mut self) -> Result<(), ContentError> {
        self.own(false).await?;
        let Source::Growing { file, hasher, offset, busy, .. } = &mut self.source else { return Ok(()) };
        if std::mem::replace(busy, true) {
            return Err(ContentError::Interrupted(self.reference.clone()));
        }
        let (file, held) = (file.clone(), self.lock.clone());
        let cut = shared_sys::blocking(move || {
            let _held = held;
            file.set_len(0)
        });
        let cut = cut.await;
        *busy = false;
        cut.map_err(io_error(|| format!("truncate ref {}", self.reference)))?;
        (*hasher, *offset) = (Sha256::new(), 0);
        self.updated_at = metadata::now();
        Ok(())
    }

    /// Turns an adopted blob into an ingest of our own: the client brings other bytes after all, instead of those of
    /// the blob or (`copy`) behind them.
    async fn own(&mut self, copy: bool) -> Result<(), ContentError> {
        let Source::Adopted { digest, .. } = &self.source else { return Ok(()) };
        let (of, name) = (self.scope.clone(), self.reference.clone());
        let work = move |c: &rusqlite::Connection| open::begin(c, &of, name, None, 0);
        let ingest = self.store.0.db.write(Durability::Rebuildable, work).await?;
        if copy {
            let (from, to) = (self.store.blob_path(digest), self.store.ingest_path(&ingest.dir));
            let held = self.lock.clone();
            let copied = shared_sys::blocking(move || {
                let _held = held;
                std::fs::create_dir_all(&to)?;
                // Bytes only: the blob's own mode would make the copy read-only.
                let (mut from, mut to) = (File::open(from)?, File::create(to.join("data"))?);
                io::copy(&mut from, &mut to)
            });
            copied.await.map_err(|e| gone(e, &self.reference, "copy a blob to"))?;
        }
        (self.source, self.updated_at) = self.store.grow(&ingest, &self.lock).await?;
        Ok(())
    }

    /// Makes the bytes a blob of the namespace, held by the scope's lease. `WrongSize` and `WrongDigest` keep the
    /// ingest; `Exists` when the blob was there already, which is then leased as well.
    pub async fn commit(
        self,
        total: Option<u64>,
        expected: Option<&Digest>,
        mut labels: Labels,
    ) -> Result<Digest, ContentError> {
        labels::check(&labels)?;
        labels::drop_empty(&mut labels);
        let (digest, size) = (self.digest(), self.offset());
        if let Some(expected) = total.filter(|total| *total != size) {
            return Err(ContentError::WrongSize { reference: self.reference, expected, found: size });
        }
        if let Some(expected) = expected.filter(|expected| **expected != digest).cloned() {
            return Err(ContentError::WrongDigest { reference: self.reference, expected, found: digest });
        }
        let pin = match self.pin {
            Some(pin) if pin.of(&digest) => pin,
            _ => self.store.0.locks.pin(&digest).await,
        };
        let path = self.store.blob_path(&digest);
        let dir = match self.source {
            Source::Growing { busy: true, .. } => return Err(ContentError::Interrupted(self.reference)),
            Source::Growing { dir, file, .. } => {
                let (from, held) = (self.store.ingest_path(&dir).join("data"), self.lock.clone());
                let moved = shared_sys::blocking(move || {
                    let _held = held;
                    file.set_len(size)?;
                    file.set_permissions(Permissions::from_mode(0o444))?;
                    file.sync_all()?;
                    std::fs::rename(from, &path)?;
                    let parent = path.parent().ok_or_else(|| io::Error::other("a blob lies in a folder"))?;
                    File::open(parent)?.sync_all()
                });
                moved.await.map_err(|e| gone(e, &self.reference, "commit"))?;
                Some(dir)
            }
            Source::Adopted { .. } => {
                let looked = shared_sys::blocking(move || std::fs::metadata(path)).await;
                looked.map_err(|e| gone(e, &self.reference, "adopt"))?;
                None
            }
        };

        let now = metadata::now();
        let info = Info { digest: digest.clone(), size, labels, created_at: now, updated_at: now };
        let (scope, reference, old) = (self.scope.clone(), self.reference.clone(), dir.clone());
        let recorded = self.store.0.db.write(Durability::Durable, move |c| {
            namespaces::ensure(c, &scope.ns)?;
            leases::protect(c, &scope, leases::CONTENT, info.digest.as_str())?;
            let new = rows::insert(c, &scope.ns, &info)?;
            if let Some(dir) = old {
                rows::delete_ingest(c, &dir)?;
                leases::unprotect(c, &scope.ns, leases::INGESTS, &reference)?;
            }
            Ok::<_, ContentError>(new)
        });
        let new = recorded.await?;
        drop((pin, self.lock));
        if let Some(dir) = dir
            && let Err(error) = self.store.remove_ingest_dir(dir).await
        {
            tracing::warn!(%error, "the empty folder of an ingest stays for the next sweep");
        }
        if !new {
            return Err(ContentError::Exists(digest));
        }
        self.store.created(&self.scope.ns, &digest, size);
        Ok(digest)
    }
}

/// A file that is missing was aborted or collected.
fn gone(source: io::Error, reference: &str, doing: &str) -> ContentError {
    if source.kind() == io::ErrorKind::NotFound {
        return ContentError::Aborted(reference.to_owned());
    }
    ContentError::Io { what: format!("{doing} ref {reference}"), source }
}
