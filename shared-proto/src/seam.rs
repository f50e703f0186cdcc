//! Messages of our own: where the time of a pod's start went, and what was said. Neither CRI nor containerd has a place
//! for that.
//!
//! The service `Starts` is served beside CRI. The core has no service for it: it answers `CoreStagesRequest`, which
//! comes as an option of containerd's `Introspection.PluginInfo`, for the plugin named here.

/// Type and id of the plugin that tells what the core did for a container.
pub const CORE_STAGES: (&str, &str) = ("io.containerd.runtime.v2", "task");

/// In [`v1::Message`]: JSON, and a command line, whose words end in zeros.
pub const JSON: &str = "json";
pub const COMMAND: &str = "command";

impl v1::Message {
    /// A message as it is sent.
    pub fn of<M: prost::Name>(message: &M) -> Self {
        Self { r#type: M::full_name(), value: message.encode_to_vec() }
    }

    /// The words of a command.
    pub fn command<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Self {
        let mut value = Vec::new();
        for word in words {
            value.extend_from_slice(word.as_encoded_bytes());
            value.push(0);
        }
        Self { r#type: COMMAND.into(), value }
    }

    pub fn json(value: impl Into<Vec<u8>>) -> Self {
        Self { r#type: JSON.into(), value: value.into() }
    }
}

/// Version 1.
pub mod v1 {
    pub use crate::generated::seam::v1::*;
}
