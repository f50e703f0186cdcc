//! Messages of our own: where the time of a pod's start went. Neither CRI nor containerd has a place for that.
//!
//! The service `Starts` is served beside CRI. The core has no service for it: it answers `CoreStagesRequest`, which
//! comes as an option of containerd's `Introspection.PluginInfo`, for the plugin named here.

/// Type and id of the plugin that tells what the core did for a container.
pub const CORE_STAGES: (&str, &str) = ("io.containerd.runtime.v2", "task");

/// Version 1.
pub mod v1 {
    pub use crate::generated::seam::v1::*;
}
