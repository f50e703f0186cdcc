//! Why the content store could not do something.

use shared_proto::Error;

use crate::domain::{Digest, Invalid};
use crate::metadata::{DbError, MetadataError};

#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error("content {0}: not found")]
    NotFound(Digest),
    #[error("content {0}: already exists")]
    Exists(Digest),
    /// Somebody writes it: try again later.
    #[error("ref {0} locked")]
    Locked(String),
    #[error("ref {0}: not found")]
    NoIngest(String),
    #[error("ref {reference}: write at {asked} must occur at the current offset {current}")]
    Offset { reference: String, asked: i64, current: u64 },
    #[error("ref {reference}: unexpected commit size {found}, expected {expected}")]
    WrongSize { reference: String, expected: u64, found: u64 },
    #[error("ref {reference}: unexpected commit digest {found}, expected {expected}")]
    WrongDigest { reference: String, expected: Digest, found: Digest },
    /// Somebody aborted it, or collected the blob that it stands for.
    #[error("ref {0} was aborted while it was written")]
    Aborted(String),
    #[error("ref {0}: an earlier write was cut short")]
    Interrupted(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("content store: {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl From<DbError> for ContentError {
    fn from(e: DbError) -> Self {
        Self::Metadata(e.into())
    }
}

impl From<ContentError> for Error {
    fn from(e: ContentError) -> Self {
        let message = e.to_string();
        match e {
            ContentError::NotFound(_) | ContentError::NoIngest(_) => Error::not_found(message),
            ContentError::Exists(_) => Error::exists(message),
            ContentError::Locked(_) => Error::unavailable(message),
            ContentError::Offset { .. } => Error::new(shared_proto::Code::OutOfRange, message),
            ContentError::WrongSize { .. } | ContentError::WrongDigest { .. } | ContentError::Aborted(_) => {
                Error::precondition(message)
            }
            ContentError::Invalid(_) => Error::invalid(message),
            ContentError::Interrupted(_) => Error::internal(message),
            ContentError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Error::new(shared_proto::Code::ResourceExhausted, message)
            }
            ContentError::Io { .. } => Error::internal(message),
            ContentError::Metadata(e) => e.into(),
        }
    }
}
