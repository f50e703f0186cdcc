//! The closed set of errors that crosses a port.
//!
//! Clients steer by the code alone (`NotFound` and `AlreadyExists` are control flow for them), so every error of the
//! core and of the CRI side is one of [`Code`]'s variants by the time it reaches a port. Message text is for people
//! and is never matched.
//!
//! | code | means | example |
//! |---|---|---|
//! | `InvalidArgument` | the request can't succeed as written | a malformed id |
//! | `NotFound`, `AlreadyExists` | the named object is absent, or present | |
//! | `FailedPrecondition` | not in the state that the call needs | delete of a running task; no namespace header |
//! | `Unavailable` | try again | a locked ingest; a core that is restarting |
//! | `OutOfRange` | an offset beyond the object | |
//! | `Unimplemented` | the method is not offered | |
//! | `Internal`, `Unknown` | our fault, or somebody's who didn't say | |

use std::fmt;

/// The code of an [`Error`]; the names are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// Every code, in the order of their declaration.
    pub const ALL: [Code; 16] = [
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// gRPC's name.
    pub fn name(self) -> &'static str {
        match self {
            Code::Canceled => "Canceled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::AlreadyExists => "AlreadyExists",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::Aborted => "Aborted",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }
}

/// An error as it crosses a port: a code for programs, a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

/// The result of a port method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, message)
    }
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, message)
    }
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Puts what was being done in front of the message: `create container "x": no such image`.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
    pub fn is_exists(&self) -> bool {
        self.code == Code::AlreadyExists
    }
    /// Whether the callee may well answer the same question later: it is away, not wrong.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::Canceled)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Adds context to the error of a port's result.
pub trait ResultExt<T> {
    /// See [`Error::context`].
    fn context(self, doing: impl fmt::Display) -> Result<T>;
    /// Like `context`, built only when there is an error.
    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().context(doing))
    }
    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }
}

impl Code {
    /// The number of the code in gRPC and in ttrpc's `google.rpc.Status`.
    pub fn number(self) -> i32 {
        match self {
            Code::Canceled => 1,
            Code::Unknown => 2,
            Code::InvalidArgument => 3,
            Code::DeadlineExceeded => 4,
            Code::NotFound => 5,
            Code::AlreadyExists => 6,
            Code::PermissionDenied => 7,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::Aborted => 10,
            Code::OutOfRange => 11,
            Code::Unimplemented => 12,
            Code::Internal => 13,
            Code::Unavailable => 14,
            Code::DataLoss => 15,
            Code::Unauthenticated => 16,
        }
    }

    /// The inverse of [`Code::number`]; numbers that gRPC does not define are `Unknown`.
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Code::Canceled,
            3 => Code::InvalidArgument,
            4 => Code::DeadlineExceeded,
            5 => Code::NotFound,
            6 => Code::AlreadyExists,
            7 => Code::PermissionDenied,
            8 => Code::ResourceExhausted,
            9 => Code::FailedPrecondition,
            10 => Code::Aborted,
            11 => Code::OutOfRange,
            12 => Code::Unimplemented,
            13 => Code::Internal,
            14 => Code::Unavailable,
            15 => Code::DataLoss,
            16 => Code::Unauthenticated,
            _ => Code::Unknown,
        }
    }
}

#[cfg(feature = "grpc")]
impl From<Error> for tonic::Status {
    fn from(e: Error) -> Self {
        tonic::Status::new(tonic::Code::from_i32(e.code.number()), e.message)
    }
}

#[cfg(feature = "grpc")]
impl From<tonic::Status> for Error {
    /// A status that stems from a broken connection, not from the peer's handler, is `Unavailable`: ask again.
    fn from(status: tonic::Status) -> Self {
        let code = Code::from_number(i32::from(status.code()));
        let broken = matches!(code, Code::Unknown | Code::Internal | Code::Canceled)
            && std::error::Error::source(&status).is_some();
        Error::new(if broken { Code::Unavailable } else { code }, status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for n in 1..=16 {
            assert_eq!(Code::from_number(n).number(), n);
        }
        assert_eq!(Code::from_number(99), Code::Unknown);
    }

    #[test]
    fn context_keeps_the_code() {
        let e: Result<()> = Err(Error::not_found("no such blob"));
        let e = e.context("pull \"x\"").unwrap_err();
        assert_eq!((e.code, e.message.as_str()), (Code::NotFound, "pull \"x\": no such blob"));
    }
}
