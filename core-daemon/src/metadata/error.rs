//! Why something could not be read from or written to the records.

use std::fmt;

use shared_proto::Error;

use super::DbError;
use crate::domain::Invalid;

/// What kind of record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Namespace,
    Container,
    Image,
    Lease,
    Sandbox,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Namespace => "namespace",
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Lease => "lease",
            Kind::Sandbox => "sandbox",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("{0} {1:?}: not found")]
    NotFound(Kind, String),
    #[error("{0} {1:?}: already exists")]
    Exists(Kind, String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The object is not in the state that the call needs.
    #[error("{0} {1:?}: {2}")]
    Precondition(Kind, String, String),
    #[error("{0} {1:?}: its record is damaged: {2}")]
    Damaged(Kind, String, String),
    #[error("resources of type {0:?} can't be leased")]
    ResourceType(String),
}

impl From<rusqlite::Error> for MetadataError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Db(DbError::Sqlite(e))
    }
}

impl From<MetadataError> for Error {
    fn from(e: MetadataError) -> Self {
        let message = e.to_string();
        match e {
            MetadataError::Db(e) => e.into(),
            MetadataError::NotFound(..) => Error::not_found(message),
            MetadataError::Exists(..) => Error::exists(message),
            MetadataError::Invalid(_) => Error::invalid(message),
            MetadataError::Precondition(..) => Error::precondition(message),
            MetadataError::Damaged(..) => Error::internal(message),
            MetadataError::ResourceType(_) => Error::unimplemented(message),
        }
    }
}

impl From<DbError> for Error {
    fn from(e: DbError) -> Self {
        let message = e.to_string();
        match e {
            // The core is going down.
            DbError::Closed => Error::unavailable(message),
            DbError::Sqlite(_)
            | DbError::Open { .. }
            | DbError::InUse { .. }
            | DbError::Lock { .. }
            | DbError::TooNew { .. }
            | DbError::Commit(_) => Error::internal(message),
        }
    }
}
