//! Containers and their processes.
//!
//! - [`process`]: one process, and what happens to it.
//! - [`container`]: one container: its first process, its execs, its engine, its cgroup.
//! - [`Tasks`]: all of the pod's. `create`, `delete`, `exec`, `signal` and `inspect` are its methods, one file a group.
//! - [`release`], [`remove`]: what an engine's `start` and `delete` do, where that is a few system calls.
//!
//! Calls on one process that change it take turns; calls on different processes don't wait for each other. What is told
//! about a process comes in order: a start is published before the exit, however short the process lived.

mod container;
mod create;
mod delete;
mod exec;
mod exit;
mod inspect;
mod process;
mod release;
mod remove;
mod signal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shared_sys::program::Program;

use crate::error::Error;
use crate::events::Events;
use crate::reaper::Reaper;
use container::Container;
use process::Process;

/// What all methods share.
pub struct Tasks {
    pub namespace: String,
    pub reaper: Arc<Reaper>,
    pub events: Events,
    /// A copy of the engine, if there is one.
    pub program: Option<Arc<Program>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
}

impl Tasks {
    pub fn new(namespace: &str, reaper: Arc<Reaper>, events: Events, program: Option<Arc<Program>>) -> Self {
        Self { namespace: namespace.to_owned(), reaper, events, program, containers: Mutex::default() }
    }

    /// Whether no container is left.
    pub fn is_empty(&self) -> bool {
        self.containers().is_empty()
    }

    fn containers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.containers.lock().expect("the containers")
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.containers().get(id).cloned().ok_or_else(|| Error::no_container(id))
    }

    /// A process of a container; an empty `exec` is the first one.
    fn process(&self, id: &str, exec: &str) -> Result<(Arc<Container>, Arc<Process>), Error> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        Ok((container, process))
    }
}
