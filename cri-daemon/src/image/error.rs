//! What can go wrong with an image on this side of the seam.

use std::time::Duration;

use shared_proto::Error;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the request names no image")]
    Unnamed,
    #[error("{reference:?} is no image reference: {reason}")]
    Reference { reference: String, reason: String },
    #[error("image {reference:?}: not found")]
    NotFound { reference: String },
    #[error("{prefix:?} is the beginning of several image ids: {}", ids.join(", "))]
    Ambiguous { prefix: String, ids: Vec<String> },
    #[error("credentials for {reference}: {reason}")]
    Credentials { reference: String, reason: String },
    #[error("unknown runtime handler {handler:?}: the image can't be unpacked for it")]
    Handler { handler: String },
    #[error("image {name}: {reason}")]
    Malformed { name: String, reason: String },
    #[error("image {name} has no part for {platform}")]
    Platform { name: String, platform: String },
    #[error("pull {reference}: not one byte for {limit:?}, given up")]
    Stalled { reference: String, limit: Duration },
    #[error("{doing}: {source}")]
    Core { doing: String, source: Error },
}

impl From<ImageError> for Error {
    fn from(e: ImageError) -> Self {
        let message = e.to_string();
        match e {
            ImageError::Unnamed
            | ImageError::Reference { .. }
            | ImageError::Ambiguous { .. }
            | ImageError::Credentials { .. }
            | ImageError::Handler { .. } => Error::invalid(message),
            ImageError::NotFound { .. } => Error::not_found(message),
            ImageError::Malformed { .. } | ImageError::Platform { .. } => Error::precondition(message),
            ImageError::Stalled { .. } => Error::deadline(message),
            ImageError::Core { source, .. } => Error::new(source.code, message),
        }
    }
}
