//! Writing a blob.
//!
//! ```text
//!             ┌─ digest known here ────────────▶ Exists (and leased)
//! writer() ───┼─ digest known elsewhere ───────▶ Adopted ── commit ──▶ recorded
//!             │                                    │ truncate
//!             └─ else ─▶ Growing ◀─────────────────┘
//!                          │ write…, commit ─▶ fsync, rename, fsync folder ─▶ recorded, ingest gone
//!                          └ dropped ─▶ ingest kept, lock released
//! ```
//!
//! A commit with the wrong size or digest fails and keeps the ingest; a writer may then [truncate](Writer::truncate).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shared_sys::files::Durability;

use super::locks::{Pin, RefLock};
use super::{ContentError, INGEST_LIFE, Info, MAX_REF, Store, io_error};
use crate::domain::{Digest, Invalid, Labels, Scope, labels};
use crate::metadata::content as rows;
use crate::metadata::{self, leases, namespaces};

/// Bytes read at a time to hash what is there.
const BLOCK: usize = 1 << 20;

/// The only writer of one ingest. Dropped, it keeps the ingest for the next one.
pub struct Writer {
    store: Store,
    scope: Scope,
    reference: String,
    source: Source,
    total: u64,
    started_at: i64,
    updated_at: i64,
    /// Keeps the expected blob's file, while there is one.
    pin: Option<Pin>,
    /// Shared with the step that runs on a blocking thread: a cut writer is locked until its last step is done.
    lock: Arc<RefLock>,
}

/// Where the bytes are.
enum Source {
    /// In the file of the ingest.
    Growing { dir: String, file: Arc<File>, hasher: Sha256, offset: u64, busy: bool },
    /// Another namespace has the whole blob.
    Adopted { digest: Digest, size: u64 },
}

/// What the records say about a new writer.
enum Opened {
    Exists(Digest),
    Adopted(Digest, u64),
    Growing(rows::Ingest),
}

impl Store {
    /// Starts or resumes writing. `expected` is the digest and `total` the size (0 = unknown) that the blob should
    /// have. `Locked`; `Exists` when the namespace has the blob already, which the scope's lease then holds as well.
    pub async fn writer(
        &self,
        scope: &Scope,
        reference: &str,
        expected: Option<&Digest>,
        total: u64,
    ) -> Result<Writer, ContentError> {
        check_ref(reference)?;
        let lock = self.0.locks.lock(&scope.ns, reference).ok_or_else(|| ContentError::Locked(reference.to_owned()))?;
        let pin = match expected {
            Some(digest) => Some(self.0.locks.pin(digest).await),
            None => None,
        };
        let (of, name, digest) = (scope.clone(), reference.to_owned(), expected.cloned());
        let opened = self.0.db.write(Durability::Rebuildable, move |c| open(c, &of, name, digest, total));
        let (lock, started_at) = (Arc::new(lock), metadata::now());
        let (source, started_at) = match opened.await? {
            Opened::Exists(digest) => {
                self.discard(scope, reference).await;
                return Err(ContentError::Exists(digest));
            }
            Opened::Adopted(digest, size) => (Source::Adopted { digest, size }, started_at),
            Opened::Growing(ingest) => (self.grow(&ingest, &lock).await?, ingest.started_at),
        };
        let mut writer = Writer {
            store: self.clone(),
            scope: scope.clone(),
            reference: reference.to_owned(),
            source,
            total,
            started_at,
            updated_at: metadata::now(),
            pin,
            lock,
        };
        if total > 0 && writer.offset() > total {
            // More than the whole: not a beginning of it.
            writer.truncate().await?;
        }
        Ok(writer)
    }

    /// Lets go of an ingest that nobody needs any more. What stays is swept later.
    async fn discard(&self, scope: &Scope, reference: &str) {
        match self.abort(scope, reference).await {
            Ok(()) | Err(ContentError::NoIngest(_)) => {}
            Err(error) => tracing::warn!(%error, reference, "an ingest could not be removed"),
        }
    }

    /// Opens the file of an ingest and hashes what it has.
    async fn grow(&self, ingest: &rows::Ingest, lock: &Arc<RefLock>) -> Result<Source, ContentError> {
        let (path, held) = (self.ingest_path(&ingest.dir), lock.clone());
        let opened = shared_sys::blocking(move || {
            let _held = held;
            std::fs::create_dir_all(&path)?;
            let options =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("data"));
            let mut file = options?;
            let (mut hasher, mut offset, mut block) = (Sha256::new(), 0, Vec::new());
            if file.metadata()?.len() > 0 {
                block.resize(BLOCK, 0);
            }
            while !block.is_empty() {
                match file.read(&mut block)? {
                    0 => break,
                    n => {
                        hasher.update(&block[..n]);
                        offset += n as u64;
                    }
                }
            }
            Ok((Arc::new(file), hasher, offset))
        });
        let (file, hasher, offset) = opened.await.map_err(io_error(|| format!("open ref {}", ingest.reference)))?;
        Ok(Source::Growing { dir: ingest.dir.clone(), file, hasher, offset, busy: false })
    }
}

/// Decides what a writer works on, and records it.
fn open(
    c: &rusqlite::Connection,
    scope: &Scope,
    reference: String,
    expected: Option<Digest>,
    total: u64,
) -> Result<Opened, ContentError> {
    if let Some(digest) = expected.clone() {
        if rows::get(c, &scope.ns, &digest)?.is_some() {
            leases::protect(c, scope, leases::CONTENT, digest.as_str())?;
            return Ok(Opened::Exists(digest));
        }
        if let Some(size) = rows::size_anywhere(c, &digest)?.filter(|size| total == 0 || *size == total) {
            return Ok(Opened::Adopted(digest, size));
        }
    }
    begin(c, scope, reference, expected, total).map(Opened::Growing)
}

/// Makes or continues the record of an ingest.
fn begin(
    c: &rusqlite::Connection,
    scope: &Scope,
    reference: String,
    expected: Option<Digest>,
    total: u64,
) -> Result<rows::Ingest, ContentError> {
    namespaces::ensure(c, &scope.ns)?;
    leases::protect(c, scope, leases::INGESTS, &reference)?;
    let expires_at = metadata::now().saturating_add(INGEST_LIFE.as_nanos() as i64);
    let ingest = match rows::get_ingest(c, &scope.ns, &reference)? {
        Some(old) if total == 0 || old.total == 0 || total == old.total => rows::Ingest {
            expected: expected.or(old.expected),
            total: total.max(old.total),
            expires_at,
            reference,
            ..old
        },
        // Another size is another blob: it starts again in a folder of its own, and the old one is swept.
        Some(_) | None => {
            let dir = uuid::Uuid::new_v4().simple().to_string();
            rows::Ingest { reference, dir, expected, total, started_at: metadata::now(), expires_at }
        }
    };
    rows::put_ingest(c, &scope.ns, &ingest)?;
    Ok(ingest)
}

fn check_ref(reference: &str) -> Result<(), Invalid> {
    if reference.is_empty() {
        return Err(Invalid("a ref must not be empty".into()));
    }
    if reference.len() > MAX_REF {
        return Err(Invalid(format!("a ref is longer than {MAX_REF} bytes")));
    }
    Ok(())
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
        let failed = io_error(|| format!("write ref {}", self.reference));
        let Source::Growing { file, hasher, offset, busy, .. } = &mut self.source else {
            // Nothing follows a whole blob.
            let (reference, expected) = (self.reference.clone(), self.offset());
            return Err(ContentError::WrongSize { reference, expected, found: expected + data.len() as u64 });
        };
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
        if let Source::Adopted { digest, .. } = &self.source {
            // The client brings its own bytes after all.
            let (of, name, total, expected) = (self.scope.clone(), self.reference.clone(), self.total, digest.clone());
            let work = move |c: &rusqlite::Connection| begin(c, &of, name, Some(expected), total);
            let ingest = self.store.0.db.write(Durability::Rebuildable, work).await?;
            self.source = self.store.grow(&ingest, &self.lock).await?;
        }
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
