//! System calls behind safe functions: the only crate with unsafe code.
//!
//! - [`blocking`]: the one door from async code to blocking work.
//! - [`files`]: files that are whole or absent after a crash.

pub mod blocking;
pub mod files;

pub use blocking::blocking;
