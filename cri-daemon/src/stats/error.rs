//! Why there is no figure.

use std::io;
use std::path::PathBuf;

use shared_proto::{Code, Error};

#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The cgroup is not there any more: its last process ended, or it was never made.
    #[error("the cgroup of {id} is gone")]
    Gone { id: String },
    /// The process is in a cgroup that is not its container's: figures of others would be shown.
    #[error("process {pid} is in no cgroup of {id}'s own")]
    NotItsOwn { id: String, pid: u32 },
    #[error("no cgroup hierarchy has the controllers {0}")]
    NoController(&'static str),
    #[error("read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl StatsError {
    /// Of a file of `id`'s: one that vanished says that the cgroup is gone.
    pub(super) fn of(id: &str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        match source.raw_os_error() {
            // A file held open answers ENODEV once its cgroup is removed; /proc/PID answers ESRCH.
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH) => Self::Gone { id: id.to_owned() },
            Some(_) | None => Self::Io { path: path.into(), source },
        }
    }
}

impl From<StatsError> for Error {
    fn from(e: StatsError) -> Self {
        let code = match &e {
            StatsError::Gone { .. } | StatsError::NotItsOwn { .. } => Code::Unavailable,
            StatsError::NoController(_) => Code::FailedPrecondition,
            StatsError::Io { .. } => Code::Internal,
        };
        Error::new(code, e.to_string())
    }
}
