//! Why a task operation failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shared_proto::{Code, Error};
use shared_ttrpc::CallError;

/// Why a task operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("task {id:?} in namespace {ns:?}: not found")]
    NoTask { ns: String, id: String },
    #[error("task {id:?} in namespace {ns:?}: already exists")]
    Exists { ns: String, id: String },
    #[error("task {id:?}: process {exec:?}: not found")]
    NoProcess { id: String, exec: String },
    #[error("task {id:?}: process {exec:?} has already finished")]
    Finished { id: String, exec: String },
    #[error("task {id:?} must be stopped before deletion: it is {state}")]
    NotStopped { id: String, state: &'static str },
    #[error("task {id:?}: process {exec:?} must be stopped before deletion: it is {state}")]
    ExecNotStopped { id: String, exec: String, state: &'static str },
    #[error("task {id:?}: process {exec:?} can't be started: it is {state} already")]
    Started { id: String, exec: String, state: &'static str },
    #[error("task {id:?}: no signal has the number {signal}")]
    Signal { id: String, signal: u32 },
    #[error("container {id:?}: malformed spec: {source}")]
    Spec { id: String, source: serde_json::Error },
    #[error("task {id:?}: malformed {what}: {source}")]
    Payload { id: String, what: &'static str, source: serde_json::Error },
    #[error("runtime {name:?}: {reason}")]
    Runtime { name: String, reason: &'static str },
    #[error("runtime {name:?}: no binary {binary:?} in PATH")]
    NoBinary { name: String, binary: String },
    #[error("bundle {path}: {doing}: {source}")]
    Bundle { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("shim {binary} {action}: {reason}")]
    Launch { binary: PathBuf, action: &'static str, reason: String },
    #[error("shim {binary} {action}: no answer within {limit:?}")]
    LaunchDeadline { binary: PathBuf, action: &'static str, limit: Duration },
    #[error("shim at {address}: connect: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{doing}: {source}")]
    Shim { doing: String, source: CallError },
}

impl RuntimeError {
    /// Whether the shim's process is gone, as far as one call can tell.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, RuntimeError::Shim { source: CallError::Closed { .. }, .. } | RuntimeError::Connect { .. })
    }

    /// Whether the shim answered that it doesn't know the object.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, RuntimeError::Shim { source: CallError::Status(e), .. } if e.is_not_found())
    }
}

impl From<RuntimeError> for Error {
    fn from(e: RuntimeError) -> Self {
        let code = match &e {
            RuntimeError::NoTask { .. } | RuntimeError::NoProcess { .. } | RuntimeError::Finished { .. } => {
                Code::NotFound
            }
            RuntimeError::Exists { .. } => Code::AlreadyExists,
            RuntimeError::NotStopped { .. } | RuntimeError::ExecNotStopped { .. } | RuntimeError::Started { .. } => {
                Code::FailedPrecondition
            }
            RuntimeError::Signal { .. }
            | RuntimeError::Spec { .. }
            | RuntimeError::Payload { .. }
            | RuntimeError::Runtime { .. }
            | RuntimeError::NoBinary { .. } => Code::InvalidArgument,
            RuntimeError::Bundle { .. } => Code::Internal,
            RuntimeError::Launch { .. } => Code::Unknown,
            RuntimeError::LaunchDeadline { .. } => Code::DeadlineExceeded,
            RuntimeError::Connect { .. } => Code::Unavailable,
            RuntimeError::Shim { source, .. } => Error::from(source.clone()).code,
        };
        Error::new(code, e.to_string())
    }
}
