//! Changes of pods and containers, as they are told to subscribers: the change and its event in one step.
//!
//! Whoever changes a state that the kubelet sees does it through here. What is told of each:
//!
//! | | created | started | stopped | deleted |
//! |---|---|---|---|---|
//! | sandbox | RunPodSandbox is through, or left something behind | with it, unless it failed | stopped, or its process ended | removed |
//! | container | CreateContainer is through | it runs | it ended, or could not be started | removed |
//!
//! Each comes once. Two exceptions, for clients that would not look for themselves: what was in an unknown state and is
//! found to run is told as started; and a new daemon tells ends again that the last one may not have told any more.

use std::sync::Arc;

use shared_proto::cri::v1::{ContainerEventResponse, ContainerEventType as Type};

use super::feed::{AGE, News};
use crate::Inner;
use crate::container::{Container, Exit};
use crate::pod::{Leftover, Sandbox};
use crate::runtime::sandbox_status_of;

impl Inner {
    /// RunPodSandbox is through.
    pub(crate) fn sandbox_made(&self, sandbox: &Sandbox, pid: u32) {
        self.sandbox_changed(sandbox, &[Type::ContainerCreatedEvent, Type::ContainerStartedEvent], || {
            sandbox.life.made(pid)
        });
    }

    /// RunPodSandbox failed, and something could not be cleaned up: it is listed from now on.
    pub(crate) fn sandbox_failed(&self, sandbox: &Sandbox) {
        self.sandbox_changed(sandbox, &[Type::ContainerCreatedEvent, Type::ContainerStoppedEvent], || {
            sandbox.life.ended(Leftover::Maybe);
            true
        });
    }

    /// It was in an unknown state, and the pause process runs.
    pub(crate) fn sandbox_found_ready(&self, sandbox: &Sandbox, pid: u32) {
        self.sandbox_changed(sandbox, &[Type::ContainerStartedEvent], || sandbox.life.found_ready(pid));
    }

    /// The pause process is gone: see [`crate::pod::Lifecycle::ended`].
    pub(crate) fn sandbox_ended(&self, sandbox: &Sandbox, network: Leftover) {
        self.sandbox_changed(sandbox, &[Type::ContainerStoppedEvent], || sandbox.life.ended(network));
    }

    /// A new daemon has found it without a process.
    pub(crate) fn sandbox_found_ended(&self, sandbox: &Sandbox) {
        self.sandbox_changed(sandbox, &[Type::ContainerStoppedEvent], || true);
    }

    /// The sandbox is gone. The event still has its status: the kubelet learns from it which pod this was.
    pub(crate) fn sandbox_removed(&self, sandbox: &Sandbox) {
        let id = sandbox.record().id.clone();
        let status = Some(sandbox_status_of(sandbox));
        let happen = || match self.sandboxes.remove(&id) {
            Some(_) => {
                vec![News { sandbox: id.clone(), id: id.clone(), kind: Type::ContainerDeletedEvent, status }]
            }
            None => Vec::new(),
        };
        self.feed.record(happen, |news| self.event(news));
    }

    /// All pods and containers of the last daemon are known.
    pub(crate) fn tell_from_now_on(&self) {
        self.feed.open(|news| self.event(news));
    }

    fn sandbox_changed(&self, sandbox: &Sandbox, kinds: &[Type], change: impl FnOnce() -> bool) {
        let id = &sandbox.record().id;
        let news = |kind: &Type| News { id: id.clone(), sandbox: id.clone(), kind: *kind, status: None };
        let happen = || if change() { kinds.iter().map(news).collect() } else { Vec::new() };
        self.feed.record(happen, |news| self.event(news));
    }

    /// CreateContainer is through, or has left something behind.
    pub(crate) fn container_made(&self, container: Arc<Container>) {
        let made = container.clone();
        self.container_changed(&made, Type::ContainerCreatedEvent, || {
            self.containers.insert(container);
            true
        });
    }

    pub(crate) fn container_started(&self, container: &Container, pid: u32, started_at: i64) {
        let change = || container.life.started(pid, started_at);
        self.container_changed(container, Type::ContainerStartedEvent, change);
    }

    /// It was in an unknown state, and runs.
    pub(crate) fn container_found_running(&self, container: &Container, pid: u32, started_at: i64) {
        let change = || container.life.found_running(pid, started_at);
        self.container_changed(container, Type::ContainerStartedEvent, change);
    }

    pub(crate) fn container_exited(&self, container: &Container, exit: Exit) {
        self.container_changed(container, Type::ContainerStoppedEvent, || container.life.exited(exit));
    }

    /// A new daemon has found an end that was written: was it told as well?
    pub(crate) fn container_found_exited(&self, container: &Container, exit: &Exit) {
        let age = self.host.now().saturating_sub(exit.finished_at);
        let recent = i128::from(age) <= AGE.as_nanos() as i128;
        self.container_changed(container, Type::ContainerStoppedEvent, || recent);
    }

    pub(crate) fn container_removed(&self, container: &Container) {
        let change = || self.containers.remove(&container.record.id).is_some();
        self.container_changed(container, Type::ContainerDeletedEvent, change);
    }

    fn container_changed(&self, container: &Container, kind: Type, change: impl FnOnce() -> bool) {
        let record = &container.record;
        let news = || News { id: record.id.clone(), sandbox: record.sandbox_id.clone(), kind, status: None };
        let happen = || if change() { vec![news()] } else { Vec::new() };
        self.feed.record(happen, |news| self.event(news));
    }

    /// An event with the states of now.
    fn event(&self, news: News) -> ContainerEventResponse {
        let listed = || self.sandboxes.exact(&news.sandbox).map(|sandbox| sandbox_status_of(&sandbox));
        let containers = self.containers_of(&news.sandbox);
        ContainerEventResponse {
            container_event_type: news.kind.into(),
            created_at: self.host.now(),
            pod_sandbox_status: news.status.or_else(listed),
            containers_statuses: containers.iter().map(|container| self.container_status_of(container)).collect(),
            container_id: news.id,
        }
    }
}

#[cfg(test)]
mod tests;
