//! Calls on tasks: the processes behind sandboxes and containers.
//!
//! "Not found" is no error when something is to end: it has ended then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use prost_types::{Any, Timestamp};
use shared_proto::containerd::task_types::{Process, Status};
use shared_proto::containerd::{tasks as t, types};
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Code, Error, Result};

use super::{CLEANUP, PATIENCE, PROCESS, RECORD, patient, within};
use crate::Inner;

/// How long a process that got SIGKILL may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
pub const SIGKILL: u32 = 9;

/// FIFOs of a process; empty paths = none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Io {
    pub stdin: PathBuf,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    pub terminal: bool,
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    /// Unix time, nanoseconds; 0 = not known.
    pub at: i64,
}

impl Ended {
    pub fn new(status: u32, at: Option<&Timestamp>) -> Self {
        Self { code: status.cast_signed(), at: at.map_or(0, nanos) }
    }
}

/// Unix time in nanoseconds. Times before 1970 are those of containerd's zero time: not known.
pub fn nanos(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos)).max(0)
}

/// Whether a process is past its start and not at its end.
pub fn is_alive(process: &Process) -> bool {
    match process.status() {
        Status::Running | Status::Paused | Status::Pausing => true,
        Status::Unknown | Status::Created | Status::Stopped => false,
    }
}

impl Inner {
    /// Creates the task of a container; its pid.
    pub async fn create_task(
        &self,
        id: &str,
        rootfs: Vec<types::Mount>,
        io: &Io,
        runtime: &shared_config::Runtime,
    ) -> Result<u32> {
        let request = t::CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: text(&io.stdin)?,
            stdout: text(&io.stdout)?,
            stderr: text(&io.stderr)?,
            terminal: io.terminal,
            runtime_path: runtime.runtime_path.clone(),
            ..Default::default()
        };
        Ok(within(format!("create task {id}"), PROCESS, self.core.tasks.create(&self.cx, request)).await?.pid)
    }

    /// Starts a task, or an exec of it when `exec` is not empty.
    pub async fn start_process(&self, id: &str, exec: &str) -> Result<u32> {
        let request = t::StartRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        Ok(within(format!("start {}", name(id, exec)), PROCESS, self.core.tasks.start(&self.cx, request)).await?.pid)
    }

    /// Sends a signal; `all`: to every process of the container. `false`: there is nothing to send it to.
    pub async fn signal(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<bool> {
        let request = t::KillRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), signal, all };
        let doing = format!("send signal {signal} to {}", name(id, exec));
        match patient(doing, PROCESS, PATIENCE, || self.core.tasks.kill(&self.cx, request.clone())).await {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The state of a task; `None`: there is none.
    pub async fn task(&self, id: &str) -> Result<Option<Process>> {
        let request = t::GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        match patient(format!("get task {id}"), RECORD, PATIENCE, || self.core.tasks.get(&self.cx, request.clone()))
            .await
        {
            Ok(answer) => Ok(answer.process),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Waits for the end of a process, however often the connection breaks. Bound it with a deadline of yours.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<Ended> {
        let request = t::WaitRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        loop {
            match self.core.tasks.wait(&self.cx, request.clone()).await {
                Ok(answer) => return Ok(Ended::new(answer.exit_status, answer.exited_at.as_ref())),
                // A broken call says nothing about the process: ask again.
                Err(e) if e.is_transient() => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(e) => return Err(e).with_context(|| format!("wait for {}", name(id, exec))),
            }
        }
    }

    /// Changes the resources of a running task. May be made twice: the second finds its values set.
    pub async fn update_task(&self, id: &str, resources: Any, annotations: BTreeMap<String, String>) -> Result<()> {
        let request = t::UpdateTaskRequest { container_id: id.to_owned(), resources: Some(resources), annotations };
        let doing = format!("update task {id}");
        patient(doing, PROCESS, PATIENCE, || self.core.tasks.update(&self.cx, request.clone())).await
    }

    /// Deletes a task that has ended or never ran. `None`: there is none.
    pub async fn delete_task(&self, id: &str) -> Result<Option<Ended>> {
        let request = t::DeleteTaskRequest { container_id: id.to_owned() };
        let doing = format!("delete task {id}");
        match patient(doing, PROCESS, PATIENCE, || self.core.tasks.delete(&self.cx, request.clone())).await {
            Ok(answer) => Ok(Some(Ended::new(answer.exit_status, answer.exited_at.as_ref()))),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Deletes an exec that has ended. One that is not there is done.
    pub async fn delete_exec(&self, id: &str, exec: &str) -> Result<()> {
        let request = t::DeleteProcessRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        let doing = format!("delete {}", name(id, exec));
        match patient(doing, PROCESS, PATIENCE, || self.core.tasks.delete_process(&self.cx, request.clone())).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Ends a task in whatever state it is: kills, waits, deletes. `None`: there was none.
    pub async fn end_task(&self, id: &str) -> Result<Option<Ended>> {
        let work = async {
            loop {
                match self.delete_task(id).await {
                    Err(e) if e.code == Code::FailedPrecondition => {}
                    outcome => return outcome,
                }
                self.signal(id, "", SIGKILL, true).await?;
                match tokio::time::timeout(KILLED, self.wait(id, "")).await {
                    // Gone, or gone meanwhile: deletion tells.
                    Ok(Ok(_)) | Err(_) => {}
                    Ok(Err(e)) if e.is_not_found() => {}
                    Ok(Err(e)) => return Err(e),
                }
            }
        };
        within(format!("end task {id}"), CLEANUP, work).await
    }
}

fn name(id: &str, exec: &str) -> String {
    match exec {
        "" => format!("task {id}"),
        exec => format!("exec {exec} of {id}"),
    }
}

fn text(path: &std::path::Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::internal(format!("{} is not UTF-8", path.display())))?;
    Ok(text.to_owned())
}
