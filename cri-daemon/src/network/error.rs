//! Why a pod has no network.

use std::path::PathBuf;

use shared_proto::errdefs::{Code, Error};

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("set up the network of pod {pod}: no network configuration in {dir}")]
    NoConfig { dir: PathBuf, pod: String },
}

impl From<NetworkError> for Error {
    fn from(e: NetworkError) -> Self {
        let code = match &e {
            NetworkError::NoConfig { .. } => Code::Unavailable,
        };
        Error::new(code, e.to_string())
    }
}
