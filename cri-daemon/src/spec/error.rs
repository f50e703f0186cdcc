//! Why no spec can be made.

use std::io;
use std::path::PathBuf;

use shared_proto::errdefs::{Code, Error};

use crate::selinux::LabelError;

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The request can't be served as written.
    #[error("{field}: {problem}")]
    Invalid { field: String, problem: String },
    /// A feature that is not offered, by name.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The user or group is not in the image.
    #[error("{kind} {name:?} is not in the image's {file}")]
    NoSuchAccount { kind: &'static str, name: String, file: &'static str },
    /// A file that the request names, or that we keep, can't be used.
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// A file that the configuration names.
    #[error("base_runtime_spec of runtime handler {handler:?}: {file}: {problem}")]
    Base { handler: String, file: PathBuf, problem: String },
    /// An AppArmor profile of ours.
    #[error("load AppArmor profile {name}: {source}")]
    LoadProfile { name: &'static str, source: io::Error },
    /// A file of the image can't be read.
    #[error("read {path} in the image: {source}")]
    Rootfs { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error("encode the spec: {0}")]
    Encode(serde_json::Error),
    /// A spec that the core has stored.
    #[error("malformed spec of the container: {0}")]
    Stored(serde_json::Error),
}

impl SpecError {
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }
}

impl From<SpecError> for Error {
    fn from(e: SpecError) -> Self {
        let text = e.to_string();
        let code = match e {
            SpecError::Label(e) => return e.into(),
            SpecError::Invalid { .. } | SpecError::NoSuchAccount { .. } => Code::InvalidArgument,
            SpecError::Unsupported(_) => Code::Unimplemented,
            SpecError::Stored(_) | SpecError::Base { .. } => Code::FailedPrecondition,
            SpecError::Io { .. } | SpecError::LoadProfile { .. } | SpecError::Rootfs { .. } | SpecError::Encode(_) => {
                Code::Internal
            }
        };
        Error::new(code, text)
    }
}
