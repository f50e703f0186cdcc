//! System calls behind safe functions: the only crate with unsafe code.
//!
//! - [`blocking`]: the one door from async code to blocking work.
//! - [`files`]: files that are whole or absent after a crash.
//! - [`socket`]: listening on a Unix socket that one daemon owns.

pub mod blocking;
pub mod files;
pub mod socket;

pub use blocking::blocking;
