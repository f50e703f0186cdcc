//! One container.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use shared_sys::mount;
use tokio::sync::Notify;

use super::process::{Process, State};
use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::error::Error;
use crate::io::Owner;
use crate::pause::{self, Gate};
use crate::spec::Facts;

/// A container, from the request that makes it until it is deleted.
pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub engine: Engine,
    /// Of a container that was made without the engine, until its process is let go.
    pub gate: Mutex<Option<Gate>>,
    /// See [`Facts`].
    pub own_pids: bool,
    pub hooks: bool,
    /// Whether the root filesystem is taken off the node once the container has it. Hooks may look for it there.
    pub lets_go: bool,
    /// Told as soon as the first process has ended, before anything else knows.
    pub died: Notify,
    pub init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    cgroup: Mutex<Option<Arc<Cgroup>>>,
}

impl Container {
    pub fn new(id: &str, bundle: PathBuf, engine: Engine, facts: &Facts, init: Process) -> Self {
        Self {
            id: id.to_owned(),
            bundle,
            engine,
            gate: Mutex::default(),
            own_pids: facts.own_pids,
            hooks: facts.hooks,
            lets_go: facts.group.is_some() && !facts.hooks,
            died: Notify::new(),
            init: Arc::new(init),
            execs: Mutex::default(),
            cgroup: Mutex::default(),
        }
    }

    pub fn execs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().expect("the execs")
    }

    /// A process by its name; an empty one is the first.
    pub fn process(&self, exec: &str) -> Result<Arc<Process>, Error> {
        if exec.is_empty() {
            return Ok(self.init.clone());
        }
        self.execs().get(exec).cloned().ok_or_else(|| Error::no_process(&self.id, exec))
    }

    pub fn set_cgroup(&self, cgroup: Cgroup) -> Arc<Cgroup> {
        let cgroup = Arc::new(cgroup);
        *self.cgroup.lock().expect("the cgroup") = Some(cgroup.clone());
        cgroup
    }

    pub fn cgroup(&self) -> Result<Arc<Cgroup>, Error> {
        let cgroup = self.cgroup.lock().expect("the cgroup").clone();
        cgroup.ok_or_else(|| Error::State(format!("container {:?} has no cgroup yet", self.id)))
    }

    pub fn owner(&self) -> Owner {
        let options = &self.engine.options;
        Owner {
            namespace: options.root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            id: self.id.clone(),
            uid: options.io_uid,
            gid: options.io_gid,
        }
    }

    /// Refuses `action` unless the container runs; the error says what it does instead.
    pub fn running(&self, action: &str) -> Result<(), Error> {
        let is = match self.init.state() {
            State::Running => return Ok(()),
            State::Created => "was not started",
            State::Paused => "is paused",
            State::Stopped(_) => "has ended",
        };
        Err(Error::State(format!("cannot {action} container {:?}: it {is}", self.id)))
    }

    /// Whether it is the pod's own process, made without the engine.
    pub fn is_pause(&self) -> bool {
        pause::made(&self.bundle)
    }

    /// The engine, for `action` on a container that it has made.
    pub fn engine_to(&self, action: &str) -> Result<&Engine, Error> {
        if self.is_pause() {
            let id = &self.id;
            return Err(Error::State(format!(
                "cannot {action} container {id:?}: it is a pod's own process, without an OCI runtime"
            )));
        }
        Ok(&self.engine)
    }

    /// Takes the root filesystem off the node.
    pub fn unmount(&self) -> Result<(), Error> {
        let rootfs = self.bundle.join("rootfs");
        mount::unmount(&rootfs).map_err(Error::io("unmount", rootfs))
    }
}
