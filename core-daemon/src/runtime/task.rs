//! One task: where it is, and its processes as far as known.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::bundle::Bundle;
use super::process::{Exit, Info, Process, State, Stdio};
use super::shim::Shim;
use crate::domain::{Id, Namespace};

pub(super) struct Task {
    pub ns: Namespace,
    pub id: Id,
    pub bundle: Bundle,
    /// The shim's binary, for `delete`.
    pub binary: PathBuf,
    pub shim: Arc<Shim>,
    /// By exec id; the init process is "".
    processes: Mutex<HashMap<String, Process>>,
}

impl Task {
    pub fn new(bundle: Bundle, binary: PathBuf, shim: Arc<Shim>, init: Process) -> Self {
        Self {
            ns: bundle.ns.clone(),
            id: bundle.id.clone(),
            bundle,
            binary,
            shim,
            processes: Mutex::new(HashMap::from([(String::new(), init)])),
        }
    }

    /// Does something with a process, if it is known.
    pub fn with<T>(&self, exec: &str, act: impl FnOnce(&mut Process) -> T) -> Option<T> {
        self.processes.lock().expect("processes lock").get_mut(exec).map(act)
    }

    /// What is known, and whether it can be trusted.
    pub fn info(&self, exec: &str) -> Option<(Info, bool)> {
        self.with(exec, |process| {
            let info = Info {
                id: self.id.to_string(),
                exec: exec.to_owned(),
                pid: process.pid,
                state: process.state(),
                stdio: process.stdio.clone(),
            };
            (info, process.sure)
        })
    }

    pub fn state(&self, exec: &str) -> Option<State> {
        self.with(exec, |process| process.state())
    }

    pub fn subscribe(&self, exec: &str) -> Option<watch::Receiver<State>> {
        self.with(exec, |process| process.subscribe())
    }

    /// An exec that was registered at the shim. News of it may have come first; then those count.
    pub fn added(&self, exec: &str, stdio: Stdio) {
        let mut processes = self.processes.lock().expect("processes lock");
        match processes.get_mut(exec) {
            Some(process) => process.stdio = stdio,
            None => {
                processes.insert(exec.to_owned(), Process::new(0, State::Created, stdio));
            }
        }
    }

    /// News of the shim about a process that may be new to us.
    pub fn told(&self, exec: &str, pid: u32, state: State, stdio: Stdio) {
        let mut processes = self.processes.lock().expect("processes lock");
        match processes.get_mut(exec) {
            Some(process) => process.told(pid, state, stdio),
            None => {
                processes.insert(exec.to_owned(), Process::new(pid, state, stdio));
            }
        }
    }

    /// An exit, whoever says so. Of an exec that is not known nothing is noted: it was deleted before this teller came,
    /// or it is of an earlier run of the daemon, and then the shim is asked.
    pub fn exited(&self, exec: &str, exit: Exit) {
        self.with(exec, |process| process.exited(exit));
    }

    /// Forgets a process; whoever waits for it is woken.
    pub fn forget(&self, exec: &str) {
        self.processes.lock().expect("processes lock").remove(exec);
    }

    /// The ids of all known processes.
    pub fn execs(&self) -> Vec<String> {
        self.processes.lock().expect("processes lock").keys().cloned().collect()
    }
}
