//! The one TOML file that both daemons read.
//!
//! It is read as containerd reads its own (versions 2 and 3), plus the table `[cri]`, which is ours. Whatever the
//! version, the result is one [`Config`] with every default filled in; nothing outside this crate knows TOML.

#![forbid(unsafe_code)]

mod file;
mod load;
mod model;
mod render;

pub use file::parse_duration;
pub use load::{ConfigError, Warning, load, parse};
pub use model::*;
pub use render::render;
