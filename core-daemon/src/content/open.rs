//! What a new writer works on, and the record of it.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use shared_sys::files::Durability;

use super::locks::RefLock;
use super::writer::{Source, Writer};
use super::{ContentError, INGEST_LIFE, MAX_REF, Store, io_error};
use crate::domain::{Digest, Invalid, Scope};
use crate::metadata::content as rows;
use crate::metadata::{self, leases, namespaces};

/// Bytes read at a time to hash what is there.
const BLOCK: usize = 1 << 20;

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
        let (lock, now) = (Arc::new(lock), metadata::now());
        let (source, total, started_at, updated_at) = match opened.await? {
            Opened::Exists(digest) => {
                self.discard(scope, reference).await;
                return Err(ContentError::Exists(digest));
            }
            Opened::Adopted(digest, size) => (Source::Adopted { digest, size }, size, now, now),
            Opened::Growing(ingest) => {
                let (source, written) = self.grow(&ingest, &lock).await?;
                (source, ingest.total, ingest.started_at, written)
            }
        };
        let mut writer = Writer {
            store: self.clone(),
            scope: scope.clone(),
            reference: reference.to_owned(),
            source,
            total,
            started_at,
            updated_at,
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

    /// Opens the file of an ingest and hashes what it has. The second value is when it was last written.
    pub(super) async fn grow(&self, ingest: &rows::Ingest, lock: &Arc<RefLock>) -> Result<(Source, i64), ContentError> {
        let (path, held) = (self.ingest_path(&ingest.dir), lock.clone());
        let opened = shared_sys::blocking(move || {
            let _held = held;
            std::fs::create_dir_all(&path)?;
            let options =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("data"));
            let mut file = options?;
            let found = file.metadata()?;
            let (mut hasher, mut offset) = (Sha256::new(), 0);
            let mut block = vec![0; BLOCK.min(found.len() as usize)];
            while offset < found.len() {
                match file.read(&mut block)? {
                    0 => break,
                    n => {
                        hasher.update(&block[..n]);
                        offset += n as u64;
                    }
                }
            }
            Ok((Arc::new(file), hasher, offset, metadata::nanos(found.modified()?)))
        });
        let (file, hasher, offset, written) =
            opened.await.map_err(io_error(|| format!("open ref {}", ingest.reference)))?;
        Ok((Source::Growing { dir: ingest.dir.clone(), file, hasher, offset, busy: false }, written))
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
pub(super) fn begin(
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
