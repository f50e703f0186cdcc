//! Layer archives: into snapshots ([`apply`]) and out of them ([`create`]).
//!
//! ```text
//! blob ─▶ decompress ─▶ chunks, hashed (thread) ─▶ archive: entries ─▶ writer ─▶ upper folder
//! ```
//!
//! Archives come from strangers. Whatever an entry is called or links to, nothing is read or written outside the
//! layer's own folder: names are resolved one component at a time by descriptor, and `..`, absolute names and links are
//! contained. Attributes that steer the overlay (`trusted.overlay.*`, `user.overlay.*`) are left out.
//!
//! Limits: names of 4096 bytes and 256 components, extended headers of 1 MiB, 65536 pieces in a sparse file. How large
//! a layer may become is the caller's business. Data behind the end of the archive counts for digest and size; data
//! behind the end of a gzip or zstd stream that is no further member is an error.

mod apply;
mod archive;
mod attributes;
mod chunks;
mod compare;
mod compress;
mod create;
mod decompress;
mod flush;
mod parents;
mod record;
mod target;
mod whiteouts;

use std::io;

use shared_proto::{Code, Error};

use crate::domain::Digest;

pub use apply::{apply, sync};
pub use compress::Layer;
pub use create::create;
pub use decompress::{decompress, is_layer};

/// What was applied: the uncompressed archive, up to the end of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What an image calls the layer's diff id.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Why a layer could not be applied or made.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("media type {0:?} is not that of a layer")]
    MediaType(String),
    #[error("nothing can be written to these mounts: {0}")]
    Mounts(String),
    #[error("read the layer: {0}")]
    Read(#[source] io::Error),
    #[error("malformed layer at byte {position}: {reason}")]
    Malformed { position: u64, reason: String },
    #[error("layer entry {path:?}: {source}")]
    Entry { path: String, source: io::Error },
    #[error("write the layer: {0}")]
    Write(#[source] io::Error),
    #[error("sync the layer: {0}")]
    Sync(#[source] io::Error),
}

impl From<DiffError> for Error {
    fn from(e: DiffError) -> Self {
        let code = match &e {
            DiffError::MediaType(_) => Code::Unimplemented,
            DiffError::Mounts(_) | DiffError::Malformed { .. } => Code::InvalidArgument,
            DiffError::Read(_) => Code::DataLoss,
            DiffError::Entry { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::ResourceExhausted,
            DiffError::Entry { .. } | DiffError::Write(_) | DiffError::Sync(_) => Code::Internal,
        };
        Error::new(code, e.to_string())
    }
}

impl DiffError {
    /// For `map_err`: which entry could not be written.
    fn entry<E: Into<io::Error>>(path: &[u8]) -> impl FnOnce(E) -> Self {
        move |source| DiffError::Entry { path: String::from_utf8_lossy(path).into_owned(), source: source.into() }
    }
}

#[cfg(test)]
mod tests;
