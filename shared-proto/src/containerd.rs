//! Messages of the containerd API, as its Go, Python and Rust clients know them.
//!
//! Source: the wire tables of containerd 2.4, see `proto/containerd`.

use crate::generated::containerd as pkg;

pub use pkg::types::{self, Descriptor, Envelope, Mount, Platform};
/// Tasks' processes: `Process`, `ProcessInfo`, `Status`.
pub use pkg::v1::types as task_types;

pub use pkg::services::containers::v1 as containers;
pub use pkg::services::content::v1 as content;
pub use pkg::services::diff::v1 as diff;
pub use pkg::services::events::v1 as events_service;
pub use pkg::services::images::v1 as images;
pub use pkg::services::introspection::v1 as introspection;
pub use pkg::services::leases::v1 as leases;
pub use pkg::services::mounts::v1 as mounts;
pub use pkg::services::namespaces::v1 as namespaces;
pub use pkg::services::sandbox::v1 as sandbox;
pub use pkg::services::snapshots::v1 as snapshots;
pub use pkg::services::streaming::v1 as streaming;
pub use pkg::services::tasks::v1 as tasks;
pub use pkg::services::transfer::v1 as transfer;
pub use pkg::services::version::v1 as version;

/// What a transfer moves from and to.
pub use pkg::types::transfer as transfer_types;

/// The events themselves: `TaskExit`, `ContainerCreate`, …
pub use pkg::events;

/// Options of runtimes with a configuration file of their own.
pub use crate::generated::runtimeoptions::v1 as runtimeoptions;
/// Options of the runc shim.
pub use pkg::runc::v1 as runc;

/// Statistics of a cgroup: `cgroups::v1::Metrics` and `cgroups::v2::Metrics`.
pub mod cgroups {
    pub use crate::generated::io::containerd::cgroups::{v1, v2};
}

/// `google.rpc.Status`, embedded in some messages.
pub use crate::generated::google::rpc;
