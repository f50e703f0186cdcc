//! Why a call has no answer.

use std::time::Duration;

use shared_proto::{Code, Error};

/// Why a call failed. Only [`CallError::Status`] comes from the peer's handler; with every other one it is unknown
/// whether the call took effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer's handler answered an error.
    #[error("{0}")]
    Status(Error),
    /// The connection ended before the answer came: the peer is gone.
    #[error("{call}: the connection is closed")]
    Closed { call: String },
    /// No answer in time.
    #[error("{call}: no answer within {limit:?}")]
    Deadline { call: String, limit: Duration },
    /// The request is larger than the protocol allows; it was not sent.
    #[error("{call}: a message of {length} bytes is larger than {limit}")]
    TooLarge { call: String, length: usize, limit: usize },
    /// The answer is no such message.
    #[error("{call}: malformed answer: {reason}")]
    Malformed { call: String, reason: String },
}

impl From<CallError> for Error {
    fn from(e: CallError) -> Self {
        let code = match e {
            CallError::Status(status) => return status,
            CallError::Closed { .. } => Code::Unavailable,
            CallError::Deadline { .. } => Code::DeadlineExceeded,
            CallError::TooLarge { .. } => Code::ResourceExhausted,
            CallError::Malformed { .. } => Code::Internal,
        };
        Error::new(code, e.to_string())
    }
}

/// What is wrong with the bytes on a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the connection ended within a frame")]
    Truncated,
    #[error("unknown frame type {0}")]
    UnknownType(u8),
}
