//! The commands that the core runs.

mod delete;
mod info;
mod start;

pub use delete::delete;
pub use info::info;
pub use start::start;

/// Where shims listen: containerd's place. Names are short, for a socket's path is.
pub const SOCKETS: &str = "/run/containerd/s";
