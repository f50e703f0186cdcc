//! Why an image could not be pulled or imported, and the code that a client steers by.

use std::path::PathBuf;
use std::time::Duration;

use shared_proto::{Code, Error};

use crate::domain::Digest;

/// What a registry said about itself in the body of an error, or nothing.
pub type Detail = String;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("image reference {reference:?}: {reason}")]
    Reference { reference: String, reason: String },

    // Configuration.
    #[error("read {path}: {source}")]
    HostsRead { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {reason}")]
    HostsFile { path: PathBuf, line: usize, reason: String },
    #[error("certificate {path}: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("no host of registry {registry} may be asked to {what}")]
    NoHost { registry: String, what: &'static str },
    #[error("set up the connection to {host}: {reason}")]
    Client { host: String, reason: String },

    // What one host answered.
    #[error("{host} wants credentials, and none were given (401 Unauthorized){detail}")]
    CredentialsMissing { host: String, detail: Detail },
    #[error("{host} refused the credentials of {user} (401 Unauthorized){detail}")]
    CredentialsRefused { host: String, user: String, detail: Detail },
    #[error("{host} forbids access to {what} (403 Forbidden){detail}")]
    Forbidden { host: String, what: String, detail: Detail },
    #[error("{host} has no {what}{detail}")]
    NotFound { host: String, what: String, detail: Detail },
    #[error("{host} refuses more requests for now{} (429 Too Many Requests){detail}", wait(.retry_after))]
    TooManyRequests { host: String, retry_after: Option<Duration>, detail: Detail },
    #[error("{host} answered {status} to {what}{detail}")]
    Status { host: String, what: String, status: u16, detail: Detail },
    #[error("{host} can't be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host}: {what}: {reason}")]
    Transport { host: String, what: String, reason: String },
    #[error("{host}: {reason}")]
    Protocol { host: String, reason: String },
    #[error("{what} from {host} has digest {found}, wanted {expected}")]
    WrongDigest { host: String, what: String, expected: Digest, found: Digest },
    #[error("{what} from {host} has {found} bytes, wanted {expected}")]
    WrongSize { host: String, what: String, expected: u64, found: u64 },
    #[error("{what} is {size} bytes long; the limit is {limit}")]
    TooLarge { what: String, size: u64, limit: u64 },
    #[error("{what}: no byte arrived for {} s", .after.as_secs_f32())]
    Stalled { what: String, after: Duration },
    /// Every host that was tried, with what it answered.
    #[error("{what}: {}", .tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Hosts { what: String, tried: Vec<ImageError> },
    #[error("ask the client for the credentials for {host}: {reason}")]
    Credentials { host: String, reason: String },

    // What an image turned out to be.
    #[error("{reference} is an image of the old schema 1, which is not supported: push it again with a newer tool")]
    Schema1 { reference: String },
    #[error("{what}: {reason}")]
    Malformed { what: String, reason: String },
    #[error("layer {layer} unpacks to {found}, but the image's config says {expected} (wrong diff id)")]
    WrongDiffId { layer: Digest, expected: Digest, found: Digest },
    #[error("{what} has no image for platform {wanted} (it has: {available})")]
    NoPlatform { what: String, wanted: String, available: String },

    // Around it.
    #[error("read the archive: {source}")]
    Archive { source: std::io::Error },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("cancelled")]
    Cancelled,
    #[error("a task of the transfer failed: {reason}")]
    Bug { reason: String },
    #[error("pull {reference}: {source}")]
    Pull { reference: String, source: Box<ImageError> },
    /// Of the store, the snapshots or the records, with their code.
    #[error("{0}")]
    Inner(Error),
}

/// For `map_err`: an error of the store, the snapshots or the records.
pub(super) fn inner<E: Into<Error>>(e: E) -> ImageError {
    ImageError::Inner(e.into())
}

fn wait(after: &Option<Duration>) -> String {
    after.map_or_else(String::new, |after| format!(", for {} s", after.as_secs()))
}

impl ImageError {
    /// Whether it will be the same the next time: what is being fetched is wrong, absent or forbidden.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::CredentialsMissing { .. }
            | Self::CredentialsRefused { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::TooLarge { .. }
            | Self::Schema1 { .. }
            | Self::Malformed { .. }
            | Self::WrongDiffId { .. }
            | Self::NoPlatform { .. } => true,
            Self::Hosts { tried, .. } => tried.iter().all(Self::is_final),
            _ => false,
        }
    }

    /// Whether the same request may succeed at the same host a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } | Self::Transport { .. } => true,
            Self::Status { status, .. } => *status == 408 || *status >= 500,
            _ => false,
        }
    }
}

impl From<ImageError> for Error {
    fn from(e: ImageError) -> Self {
        fn code(e: &ImageError) -> Code {
            match e {
                ImageError::Reference { .. } | ImageError::Schema1 { .. } | ImageError::Malformed { .. } => {
                    Code::InvalidArgument
                }
                ImageError::HostsRead { .. }
                | ImageError::Client { .. }
                | ImageError::Io { .. }
                | ImageError::Bug { .. } => Code::Internal,
                ImageError::Archive { .. } => Code::InvalidArgument,
                ImageError::Cancelled => Code::Canceled,
                ImageError::Pull { source, .. } => code(source),
                ImageError::Inner(e) => e.code,
                ImageError::HostsFile { .. }
                | ImageError::Certificate { .. }
                | ImageError::NoHost { .. }
                | ImageError::WrongDigest { .. }
                | ImageError::WrongSize { .. }
                | ImageError::WrongDiffId { .. }
                | ImageError::TooLarge { .. } => Code::FailedPrecondition,
                ImageError::CredentialsMissing { .. } | ImageError::CredentialsRefused { .. } => Code::Unauthenticated,
                ImageError::Forbidden { .. } => Code::PermissionDenied,
                ImageError::NotFound { .. } | ImageError::NoPlatform { .. } => Code::NotFound,
                ImageError::TooManyRequests { .. } => Code::ResourceExhausted,
                ImageError::Status { status, .. } if *status < 500 => Code::Unknown,
                ImageError::Status { .. }
                | ImageError::Unreachable { .. }
                | ImageError::Transport { .. }
                | ImageError::Credentials { .. } => Code::Unavailable,
                ImageError::Protocol { .. } => Code::Unknown,
                ImageError::Stalled { .. } => Code::DeadlineExceeded,
                // The last host is the registry itself, or the nearest to it: its word counts.
                ImageError::Hosts { tried, .. } => tried.last().map_or(Code::Unknown, code),
            }
        }
        Error::new(code(&e), e.to_string())
    }
}
