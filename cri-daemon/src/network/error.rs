//! Why a pod has no network, or one that could not be taken back.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shared_proto::errdefs::{Code, Error};

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("no network configuration in {dir}")]
    NoConfig { dir: PathBuf },
    #[error("network configuration {file}: {problem}")]
    Config { file: PathBuf, problem: String },
    #[error("CNI plugin {plugin:?} is in none of {}", list(.dirs))]
    NoPlugin { plugin: String, dirs: Vec<PathBuf> },
    #[error("run CNI plugin {plugin:?} ({command}, network {network:?}): {source}")]
    Spawn { network: String, plugin: String, command: &'static str, source: io::Error },
    #[error("CNI plugin {plugin:?} ({command}, network {network:?}) did not end within {after:?} and was killed{}", said(.stderr))]
    Deadline { network: String, plugin: String, command: &'static str, after: Duration, stderr: String },
    #[error("CNI plugin {plugin:?} ({command}, network {network:?}) failed: {message}")]
    Failed { network: String, plugin: String, command: &'static str, message: String },
    #[error("CNI plugin {plugin:?} ({command}, network {network:?}) answered no result: {problem}")]
    BadResult { network: String, plugin: String, command: &'static str, problem: String },
    #[error("annotation {annotation:?}: {value:?} is no bandwidth from 1k to 1P bits per second")]
    Bandwidth { annotation: String, value: String },
    #[error("port_mappings[{index}].{field}: {value} {problem}")]
    PortMapping { index: usize, field: &'static str, value: String, problem: &'static str },
    #[error("network {network:?} gave the pod no address on {interface}")]
    NoAddress { network: String, interface: String },
    #[error("network result {path}: {source}")]
    Cache { path: PathBuf, source: io::Error },
    #[error("conf_template {file}: {problem}")]
    Template { file: PathBuf, problem: String },
    #[error("pod CIDR {cidr:?} is none")]
    Cidr { cidr: String },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<NetworkError>),
}

fn list(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A plugin's own words, at the end of a message.
pub(super) fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") }
}

impl NetworkError {
    /// No error, the one, or all of them as one.
    pub(super) fn all(mut errors: Vec<NetworkError>) -> Result<(), NetworkError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(NetworkError::Several(errors)),
        }
    }
}

impl NetworkError {
    fn code(&self) -> Code {
        match self {
            NetworkError::NoConfig { .. } => Code::Unavailable,
            NetworkError::Deadline { .. } => Code::DeadlineExceeded,
            NetworkError::Cidr { .. } | NetworkError::Bandwidth { .. } | NetworkError::PortMapping { .. } => {
                Code::InvalidArgument
            }
            // The first is what went wrong, the others what could not be taken back because of it.
            NetworkError::Several(all) => all.first().map_or(Code::Internal, NetworkError::code),
            NetworkError::Config { .. }
            | NetworkError::NoPlugin { .. }
            | NetworkError::Spawn { .. }
            | NetworkError::Failed { .. }
            | NetworkError::BadResult { .. }
            | NetworkError::NoAddress { .. }
            | NetworkError::Cache { .. }
            | NetworkError::Template { .. } => Code::Internal,
        }
    }
}

impl From<NetworkError> for Error {
    fn from(e: NetworkError) -> Self {
        Error::new(e.code(), e.to_string())
    }
}
