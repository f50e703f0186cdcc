//! What a shim speaks: the Task service and the events that it forwards, both over ttrpc.

/// Messages of the Task service. Version 3 has the same messages under another service name.
pub use crate::generated::containerd::task::v2 as task;

/// How a shim delivers events to the core.
pub use crate::generated::containerd::services::events::ttrpc::v1 as events;

/// What a shim is told and answers when it is started (containerd 2.3 and later).
pub use crate::generated::containerd::runtime::bootstrap::v1 as bootstrap;

/// The sandbox service of a shim.
pub use crate::generated::containerd::runtime::sandbox::v1 as sandbox;

/// Full service name of the Task service, version 2.
pub const TASK_V2: &str = "containerd.task.v2.Task";
/// Full service name of the Task service, version 3.
pub const TASK_V3: &str = "containerd.task.v3.Task";
/// Full service name of the event service that the core offers to shims.
pub const EVENTS: &str = "containerd.services.events.ttrpc.v1.Events";
