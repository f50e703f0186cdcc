//! The RuntimeService: one file a call.
//!
//! A call that changes something is checked first and then runs as a task of its own, so that a kubelet whose deadline
//! passed cancels nothing half-way; it may ask again and joins or finds the outcome.

mod attach;
mod container_stats;
mod container_status;
mod create_container;
mod exec;
pub(crate) mod exec_sync;
mod get_container_events;
mod list_containers;
mod list_pod_sandbox;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod port_forward;
mod remove_container;
mod remove_pod_sandbox;
mod reopen_container_log;
mod run_pod_sandbox;
mod runtime_config;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod stream_lists;
mod update_container_resources;
mod update_pod_sandbox_resources;
mod update_runtime_config;
mod version;

#[cfg(test)]
mod label_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use shared_proto::cri::v1;
use uuid::Uuid;

pub(crate) use pod_sandbox_status::status as sandbox_status_of;

/// What makes two RunPodSandbox calls the same.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRequest {
    pub config: v1::PodSandboxConfig,
    pub handler: String,
}

/// What makes two CreateContainer calls the same.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRequest {
    pub sandbox_id: String,
    pub config: v1::ContainerConfig,
}

/// A new id: 64 hex digits, as cAdvisor looks for them in cgroup names.
pub(crate) fn new_id() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether an object has all labels of a selector.
fn selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A verbose answer: what `crictl inspect` shows below `info`.
fn info(info: &serde_json::Value, timeline: &[crate::instrument::Shown]) -> BTreeMap<String, String> {
    let stages = serde_json::to_string(timeline).unwrap_or_default();
    [("info".to_owned(), info.to_string()), ("timeline".to_owned(), stages)].into()
}

/// The runtime spec in a record, for a verbose answer.
pub(crate) fn spec_json(record: &shared_proto::containerd::containers::Container) -> serde_json::Value {
    let spec = record.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(spec).unwrap_or_default()
}
