//! What is done with a task between its making and its end. Most of it is the shim's business: passed on and answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Name;
use prost_types::Any;
use serde::de::IgnoredAny;
use shared_proto::containerd::task_types::ProcessInfo;
use shared_proto::ttrpc::task as shim;

use super::error::RuntimeError;
use super::manager::{Inner, Tasks, no_process};
use super::process::{Exit, State, Stdio};
use super::shim::{deadline, exit_of};
use super::task::Task;
use crate::domain::{Id, Namespace, Payload};
use crate::stages;

/// How long the shim's event of an exit may take before we publish the exit ourselves.
const EVENT_GRACE: Duration = Duration::from_secs(5);

/// The highest number of a signal, a real-time one.
const MAX_SIGNAL: u32 = 64;

/// An exec to be added to a task.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub exec: String,
    pub stdio: Stdio,
    /// The OCI process, passed on unread.
    pub spec: Option<Payload>,
}

/// A signal to be sent.
#[derive(Debug, Clone, Default)]
pub struct Kill {
    pub exec: String,
    pub signal: u32,
    /// To every process of the container.
    pub all: bool,
}

/// The statistics of one task, as its shim reports them.
#[derive(Debug, Clone)]
pub struct Sample {
    pub id: Id,
    pub data: Option<Payload>,
}

impl Tasks {
    /// Starts the init process, or an exec. Answers its process id.
    pub async fn start(&self, ns: &Namespace, id: &Id, exec: &str) -> Result<u32, RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        // The shim's own refusal has no code of its own.
        if let Some(state) = task.with(exec, |process| process.sure.then(|| process.state())).flatten() {
            match state {
                State::Created | State::Unknown => {}
                State::Running | State::Paused | State::Stopped(_) => {
                    let (id, exec) = (id.to_string(), exec.to_owned());
                    return Err(RuntimeError::Started { id, exec, state: state.name() });
                }
            }
        }
        let request = shim::StartRequest { id: id.to_string(), exec_id: exec.to_owned() };
        let began = Instant::now();
        let started = call(&task, "Start", &request, deadline::RUN);
        let answer: shim::StartResponse = stages::stage("runtime-start", started).await?;
        let step = if exec.is_empty() { "start" } else { "start-exec" };
        self.0.config.steps.add(step, &task.binary, began);
        if task.with(exec, |process| process.started(answer.pid)).is_none() {
            task.told(exec, answer.pid, State::Running, Stdio::default());
            task.with(exec, |process| process.sure = false);
        }
        self.0.watch_exit(&task, exec);
        Ok(answer.pid)
    }

    /// Waits for the end of a process, started or not.
    pub async fn wait(&self, ns: &Namespace, id: &Id, exec: &str) -> Result<Exit, RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        if task.state(exec).is_none() {
            self.0.ask(&task, exec).await?;
        }
        let mut states = task.subscribe(exec).ok_or_else(|| no_process(&task, exec))?;
        self.0.watch_exit(&task, exec);
        drop(task);
        loop {
            if let State::Stopped(exit) = *states.borrow_and_update() {
                return Ok(exit);
            }
            if states.changed().await.is_err() {
                return Err(RuntimeError::NoProcess { id: id.to_string(), exec: exec.to_owned() });
            }
        }
    }

    pub async fn kill(&self, ns: &Namespace, id: &Id, kill: Kill) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        if !kill.all && matches!(task.state(&kill.exec), Some(State::Stopped(_))) {
            return Err(RuntimeError::Finished { id: id.to_string(), exec: kill.exec });
        }
        let Kill { exec, signal, all } = kill;
        if signal > MAX_SIGNAL {
            return Err(RuntimeError::Signal { id: id.to_string(), signal });
        }
        let request = shim::KillRequest { id: id.to_string(), exec_id: exec, signal, all };
        call(&task, "Kill", &request, deadline::QUICK).await
    }

    /// Registers an exec; [`Tasks::start`] runs it.
    pub async fn exec(&self, ns: &Namespace, id: &Id, exec: Exec) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        let Exec { exec, stdio, spec } = exec;
        check_json(id, "process", spec.as_ref(), shared_proto::any::PROCESS)?;
        let request = shim::ExecProcessRequest {
            id: id.to_string(),
            exec_id: exec.clone(),
            terminal: stdio.terminal,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            spec: spec.map(any),
        };
        call::<()>(&task, "Exec", &request, deadline::RUN).await?;
        task.added(&exec, stdio);
        Ok(())
    }

    /// Forgets an exec that has ended or was never started.
    pub async fn delete_process(&self, ns: &Namespace, id: &Id, exec: &str) -> Result<Exit, RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        if let Some(State::Running | State::Paused) = task.state(exec) {
            // The news of its exit may still be on its way.
            self.0.ask(&task, exec).await?;
            if let Some(state @ (State::Running | State::Paused)) = task.state(exec) {
                let (id, exec) = (id.to_string(), exec.to_owned());
                return Err(RuntimeError::ExecNotStopped { id, exec, state: state.name() });
            }
        }
        let exit = self.0.delete_process_at(&task, exec).await?;
        // Whoever still waits learns the status before the process is forgotten.
        task.exited(exec, exit);
        task.forget(exec);
        Ok(exit)
    }

    pub async fn pause(&self, ns: &Namespace, id: &Id) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        call::<()>(&task, "Pause", &shim::PauseRequest { id: id.to_string() }, deadline::RUN).await?;
        task.with("", |init| init.paused());
        Ok(())
    }

    pub async fn resume(&self, ns: &Namespace, id: &Id) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        call::<()>(&task, "Resume", &shim::ResumeRequest { id: id.to_string() }, deadline::RUN).await?;
        task.with("", |init| init.resumed());
        Ok(())
    }

    pub async fn resize_pty(
        &self,
        ns: &Namespace,
        id: &Id,
        exec: &str,
        (width, height): (u32, u32),
    ) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        let request = shim::ResizePtyRequest { id: id.to_string(), exec_id: exec.to_owned(), width, height };
        call(&task, "ResizePty", &request, deadline::QUICK).await
    }

    pub async fn close_io(&self, ns: &Namespace, id: &Id, exec: &str, stdin: bool) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        // Of a process that it does not know the shim says so without a code.
        if task.state(exec).is_none() {
            self.0.ask(&task, exec).await?;
        }
        let request = shim::CloseIoRequest { id: id.to_string(), exec_id: exec.to_owned(), stdin };
        call(&task, "CloseIO", &request, deadline::QUICK).await
    }

    /// Writes a checkpoint into the folder `path`.
    pub async fn checkpoint(
        &self,
        ns: &Namespace,
        id: &Id,
        path: &str,
        options: Option<Payload>,
    ) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        let options = options.map(any);
        let request = shim::CheckpointTaskRequest { id: id.to_string(), path: path.to_owned(), options };
        call(&task, "Checkpoint", &request, deadline::RUN).await
    }

    /// Changes the resources of a running task.
    pub async fn update(
        &self,
        ns: &Namespace,
        id: &Id,
        resources: Option<Payload>,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        check_json(id, "resources", resources.as_ref(), shared_proto::any::LINUX_RESOURCES)?;
        let request = shim::UpdateTaskRequest { id: id.to_string(), resources: resources.map(any), annotations };
        call(&task, "Update", &request, deadline::RUN).await
    }

    /// The processes of a task, with what the shim adds to each.
    pub async fn pids(&self, ns: &Namespace, id: &Id) -> Result<Vec<ProcessInfo>, RuntimeError> {
        let task = self.0.registry.get(ns, id)?;
        let answer: shim::PidsResponse =
            call(&task, "Pids", &shim::PidsRequest { id: id.to_string() }, deadline::QUICK).await?;
        Ok(answer.processes)
    }

    /// The statistics of all tasks that are wanted. One that can't be had is left out, and logged.
    pub async fn metrics(&self, ns: &Namespace, wanted: impl Fn(&Id) -> bool) -> Vec<Sample> {
        let tasks = self.0.registry.list(ns);
        let samples = tasks.iter().filter(|task| wanted(&task.id)).map(|task| async {
            let request = shim::StatsRequest { id: task.id.to_string() };
            match call::<shim::StatsResponse>(task, "Stats", &request, deadline::STATS).await {
                Ok(answer) => {
                    let data = answer.stats.map(|any| Payload { type_url: any.type_url, value: any.value });
                    Some(Sample { id: task.id.clone(), data })
                }
                Err(e) => {
                    if !e.is_not_found() {
                        tracing::warn!(id = %task.id, error = %e, "statistics of a task");
                    }
                    None
                }
            }
        });
        futures::future::join_all(samples).await.into_iter().flatten().collect()
    }
}

impl Inner {
    /// Has one call wait at the shim for the end of a process, in case the event of it is lost.
    pub fn watch_exit(self: &Arc<Self>, task: &Arc<Task>, exec: &str) {
        let first = task.with(exec, |process| {
            let stopped = matches!(process.state(), State::Stopped(_));
            !std::mem::replace(&mut process.watched, true) && !stopped
        });
        if first != Some(true) {
            return;
        }
        let (inner, task, exec, stop) = (Arc::downgrade(self), task.clone(), exec.to_owned(), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                exit = wait_at_shim(&task, &exec) => {
                    let Some(exit) = exit else { return };
                    task.exited(&exec, exit);
                    tokio::time::sleep(EVENT_GRACE).await;
                    if let Some(inner) = inner.upgrade() {
                        inner.publish_exit(task.ns.as_str(), task.id.as_str(), &exec, exit);
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

/// The exit of a process, from its shim. `None` when it became known otherwise, or never will.
async fn wait_at_shim(task: &Task, exec: &str) -> Option<Exit> {
    let request = shim::WaitRequest { id: task.id.to_string(), exec_id: exec.to_owned() };
    let doing = || format!("wait for task {:?} process {exec:?}", task.id.as_str());
    let mut states = task.subscribe(exec)?;
    loop {
        // Only a process that is forgotten ends the wait: an exit known from elsewhere still has its event to check.
        let answer = tokio::select! {
            answer = task.shim.call::<shim::WaitResponse>(task.ns.as_str(), "Wait", &request, None, doing) => answer,
            () = forgotten(&mut states) => return None,
        };
        match answer {
            Ok(answer) => {
                // Deleted meanwhile: whoever did that knows the exit.
                let pid = task.with(exec, |process| process.pid)?;
                return Some(exit_of(pid, answer.exit_status, answer.exited_at));
            }
            Err(e) if e.is_closed() => {
                // If it is dead, the burial tells the exit.
                if !task.shim.settle().await {
                    return None;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "the shim can't wait");
                task.with(exec, |process| process.watched = false);
                if e.is_not_found() && !exec.is_empty() {
                    task.forget(exec);
                }
                return None;
            }
        }
    }
}

async fn forgotten(states: &mut tokio::sync::watch::Receiver<State>) {
    while states.changed().await.is_ok() {}
}

/// A payload of the kind `url` is JSON: shims say so without a code, or only when they use it.
fn check_json(id: &Id, what: &'static str, payload: Option<&Payload>, url: &str) -> Result<(), RuntimeError> {
    let Some(payload) = payload.filter(|payload| payload.type_url == url) else { return Ok(()) };
    let parsed = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&payload.value);
    parsed.map(drop).map_err(|source| RuntimeError::Payload { id: id.to_string(), what, source })
}

fn any(payload: Payload) -> Any {
    Any { type_url: payload.type_url, value: payload.value }
}

async fn call<A: Name + Default>(
    task: &Task,
    method: &'static str,
    request: &impl Name,
    limit: Duration,
) -> Result<A, RuntimeError> {
    let doing = || format!("task {:?}: {method}", task.id.as_str());
    task.shim.call(task.ns.as_str(), method, request, Some(limit), doing).await
}
