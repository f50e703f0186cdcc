//! Why the machine refused.

use std::io;
use std::path::PathBuf;

use shared_proto::errdefs::{Code, Error};

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("make network namespace {path}: {source}")]
    CreateNetns { path: PathBuf, source: io::Error },
    #[error("remove network namespace {path}: {source}")]
    RemoveNetns { path: PathBuf, source: io::Error },
    #[error("mount /dev/shm of a sandbox on {path}: {source}")]
    MountShm { path: PathBuf, source: io::Error },
    #[error("unmount {path}: {source}")]
    Unmount { path: PathBuf, source: io::Error },
    #[error("{path} is busy: mounted in the mount namespace of {}", list(.holders))]
    Busy { path: PathBuf, holders: Vec<String> },
    #[error("read {what}: {source}")]
    Facts { what: String, source: io::Error },
}

fn list(holders: &[String]) -> String {
    if holders.is_empty() { "a process that could not be found".into() } else { holders.join(", ") }
}

impl From<HostError> for Error {
    fn from(e: HostError) -> Self {
        let code = match &e {
            HostError::Busy { .. } => Code::Unavailable,
            HostError::CreateNetns { .. }
            | HostError::RemoveNetns { .. }
            | HostError::MountShm { .. }
            | HostError::Unmount { .. }
            | HostError::Facts { .. } => Code::Internal,
        };
        Error::new(code, e.to_string())
    }
}
