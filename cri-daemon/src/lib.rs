//! placeholder

pub mod host;
pub mod logs;
pub mod network;
pub mod spec;
