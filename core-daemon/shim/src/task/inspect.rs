//! `State`, `Wait`, `Pids`, `Stats`: questions.

use prost_types::Any;
use shared_proto::any;
use shared_proto::containerd::runc::ProcessDetails;
use shared_proto::containerd::task_types::{ProcessInfo, Status};
use shared_proto::ttrpc::task::{StateRequest, StateResponse, WaitRequest};

use super::Tasks;
use super::process::State;
use crate::error::Error;
use crate::exits::Exit;

impl Tasks {
    pub fn state(&self, request: &StateRequest) -> Result<StateResponse, Error> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let (status, exit) = match process.state() {
            State::Created => (Status::Created, None),
            State::Running => (Status::Running, None),
            State::Paused => (Status::Paused, None),
            State::Stopped(exit) => (Status::Stopped, Some(exit)),
        };
        Ok(StateResponse {
            id: request.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: status.into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.timestamp()),
            exec_id: request.exec_id.clone(),
        })
    }

    pub async fn wait(&self, request: &WaitRequest) -> Result<Exit, Error> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        Ok(process.ended().await)
    }

    /// All processes; those that were started by an exec carry its name.
    pub fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>, Error> {
        let container = self.container(id)?;
        let execs: Vec<_> = container.execs().values().cloned().collect();
        let info = |pid| {
            let exec = execs.iter().find(|exec| exec.pid() == pid);
            let details = exec.map(|exec| any::pack(&ProcessDetails { exec_id: exec.exec.clone() }));
            ProcessInfo { pid, info: details }
        };
        Ok(container.cgroup()?.pids().into_iter().map(info).collect())
    }

    pub fn stats(&self, id: &str) -> Result<Any, Error> {
        self.container(id)?.cgroup()?.stats()
    }

    /// The pid of a container's first process; 0 for one that isn't here.
    pub fn pid_of(&self, id: &str) -> u32 {
        self.container(id).map_or(0, |container| container.init.pid())
    }
}
