//! Snapshots: layered file systems, from which containers get their root.
//!
//! ```text
//!             prepare ──▶ Active ──commit──▶ Committed ──▶ parent of others
//!   (parent) ─┤              │                   │
//!             view ────▶ View│                   │ only without children
//!                         └──┴──────remove───────┘
//! ```
//!
//! [`Snapshots`] is what everybody uses: names by namespace, leases, events. Below it a [`Snapshotter`] (overlayfs or
//! native) does the work under keys of its own. Both write their record in one transaction ([`Record`]), so that no
//! crash leaves one without the other; a folder without a record is removed at the next start.
//!
//! A committed layer is on disk before its record says so. Records of active snapshots and views may be lost in a
//! power cut, and the snapshot with them: whatever ran in it is gone as well.

mod layers;
mod namespaced;
mod native;
mod overlay;
mod records;
mod sweep;
mod trash;
pub mod tree;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::Connection;
use shared_sys::mount::Mount;

use crate::domain::{Invalid, Labels};
use crate::metadata::{DbError, MetadataError};

pub use crate::metadata::snapshots::{Kind, Snapshot, Usage};
pub use namespaced::Snapshots;
pub use native::Native;
pub use overlay::Overlay;
pub use sweep::Sweep;

/// Labels that are passed on to the snapshotter start with one of these.
const PASSED_ON: [&str; 2] = ["containerd.io/snapshot/", "containerd.io/snapshot."];

/// What the layer above keeps about a change: written in the same transaction as the snapshotter's own record. When it
/// fails, the change doesn't happen.
pub type Record = Box<dyn FnOnce(&Connection) -> Result<(), SnapshotError> + Send>;

/// What to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    pub key: String,
    /// Empty = none.
    pub parent: String,
    pub writable: bool,
    pub labels: Labels,
}

/// A kind of layered file system. Keys are unique over all namespaces.
///
/// Changes are not cancelled by dropping their future half-way in the caller: [`Snapshots`] sees to that.
#[async_trait]
pub trait Snapshotter: Send + Sync + 'static {
    /// Where everything lies.
    fn root(&self) -> &Path;
    /// Makes an active snapshot or a view on top of a committed parent.
    async fn create(&self, new: New, record: Record) -> Result<Vec<Mount>, SnapshotError>;
    /// How to mount an active snapshot or a view.
    async fn mounts(&self, key: &str) -> Result<Vec<Mount>, SnapshotError>;
    /// Turns the active snapshot `key` into the committed one `name`; its data is on disk when this returns.
    async fn commit(&self, key: &str, name: &str, labels: Labels, record: Record) -> Result<(), SnapshotError>;
    /// Removes what has no children. The files may go away later.
    async fn remove(&self, key: &str, record: Record) -> Result<(), SnapshotError>;
    /// What it takes, without its parents.
    async fn usage(&self, key: &str) -> Result<Usage, SnapshotError>;
    /// All keys, children before parents.
    async fn keys(&self) -> Result<Vec<String>, SnapshotError>;
    /// Removes files that belong to nothing, and waits for it.
    async fn cleanup(&self) -> Result<(), SnapshotError>;
}

/// Why something about snapshots did not work.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshotter {0:?} is not configured")]
    UnknownSnapshotter(String),
    #[error("{snapshotter} can't be used in {root}: {reason}")]
    Unusable { snapshotter: &'static str, root: PathBuf, reason: String },
    #[error("snapshot {0:?}: not found")]
    NotFound(String),
    #[error("parent snapshot {0:?}: not found")]
    NoParent(String),
    #[error("snapshot {0:?}: already exists")]
    Exists(String),
    #[error("parent snapshot {0:?} is not committed")]
    ParentNotCommitted(String),
    #[error("snapshot {0:?} has children and can't be removed")]
    HasChildren(String),
    #[error("snapshot {key:?} is {is}, but must be {needed}")]
    WrongKind { key: String, is: &'static str, needed: &'static str },
    #[error("field {0:?} of a snapshot can't be updated")]
    Field(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} folders could not be removed; the first: {first}", .others + 1)]
    Cleanup { first: Box<SnapshotError>, others: usize },
}

impl SnapshotError {
    /// For `map_err`: what was being done, and to which path.
    fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| SnapshotError::Io { doing, path, source: source.into() }
    }
}

impl From<DbError> for SnapshotError {
    fn from(e: DbError) -> Self {
        SnapshotError::Metadata(e.into())
    }
}

impl From<SnapshotError> for shared_proto::Error {
    fn from(e: SnapshotError) -> Self {
        use shared_proto::{Code, Error};
        let message = e.to_string();
        let code = match e {
            SnapshotError::Metadata(e) => return e.into(),
            SnapshotError::UnknownSnapshotter(_)
            | SnapshotError::ParentNotCommitted(_)
            | SnapshotError::Field(_)
            | SnapshotError::Invalid(_) => Code::InvalidArgument,
            SnapshotError::NotFound(_) | SnapshotError::NoParent(_) => Code::NotFound,
            SnapshotError::Exists(_) => Code::AlreadyExists,
            SnapshotError::HasChildren(_) | SnapshotError::WrongKind { .. } => Code::FailedPrecondition,
            SnapshotError::Unusable { .. } | SnapshotError::Io { .. } | SnapshotError::Cleanup { .. } => Code::Internal,
        };
        Error::new(code, message)
    }
}

/// How a kind is called in messages.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::View => "a view",
        Kind::Active => "active",
        Kind::Committed => "committed",
    }
}

/// The labels among these that a snapshotter gets to see.
fn passed_on(labels: &Labels) -> Labels {
    let wanted = |key: &String| PASSED_ON.iter().any(|prefix| key.starts_with(prefix));
    labels.iter().filter(|(key, _)| wanted(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests;
