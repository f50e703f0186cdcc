//! What can go wrong in a shim, and the code that the core is told.

use std::io;
use std::path::PathBuf;

use shared_proto::Code;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Exists(String),
    /// Not in the state that the call needs.
    #[error("{0}")]
    State(String),
    #[error("{0} is not offered")]
    Unimplemented(String),
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("mount the root filesystem: {0}")]
    Mount(io::Error),
    #[error("{}: malformed: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("run {binary}: {source}")]
    Spawn { binary: String, source: io::Error },
    /// The engine said no, in its own words.
    #[error("OCI runtime {action} failed: {said}")]
    Engine { action: &'static str, said: String },
    /// The child says why.
    #[error("make the pause process: {0}")]
    Pause(String),
    #[error("logger {binary}: {reason}")]
    Logger { binary: String, reason: String },
    #[error("the server of the pod: {0}")]
    Server(String),
}

impl Error {
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub fn no_container(id: &str) -> Self {
        Self::NotFound(format!("container {id:?} is not here"))
    }

    pub fn no_process(id: &str, exec: &str) -> Self {
        Self::NotFound(format!("container {id:?} has no process {exec:?}"))
    }
}

impl From<Error> for shared_proto::Error {
    fn from(e: Error) -> Self {
        let code = match &e {
            Error::Usage(_) | Error::Invalid(_) => Code::InvalidArgument,
            Error::NotFound(_) => Code::NotFound,
            Error::Exists(_) => Code::AlreadyExists,
            Error::State(_) => Code::FailedPrecondition,
            Error::Unimplemented(_) => Code::Unimplemented,
            Error::Io { .. }
            | Error::Mount(_)
            | Error::Malformed { .. }
            | Error::Spawn { .. }
            | Error::Engine { .. }
            | Error::Pause(_)
            | Error::Logger { .. }
            | Error::Server(_) => Code::Unknown,
        };
        shared_proto::Error::new(code, e.to_string())
    }
}
