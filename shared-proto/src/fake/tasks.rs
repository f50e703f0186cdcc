//! Tasks that run only in the imagination: they start at once and end when they are killed or told to.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{FakeCore, key, now};
use crate::api::Tasks;
use crate::containerd::{containers, events, task_types, tasks as t};
use crate::context::Context;
use crate::errdefs::{Error, Result};

/// Processes by namespace, container and exec id (empty: the init process).
pub(super) type Table = watch::Sender<Processes>;

#[derive(Default)]
pub(super) struct Processes {
    all: BTreeMap<(String, String, String), task_types::Process>,
    next_pid: u32,
}

type ProcessKey = (String, String, String);

fn process_key(cx: &Context, container: &str, exec: &str) -> Result<ProcessKey> {
    let (ns, container) = key(cx, container)?;
    Ok((ns, container, exec.to_owned()))
}

fn no_such(key: &ProcessKey) -> Error {
    match key.2.as_str() {
        "" => Error::not_found(format!("task {:?}: not found", key.1)),
        exec => Error::not_found(format!("exec {exec:?} of task {:?}: not found", key.1)),
    }
}

impl FakeCore {
    /// Ends a process with a status, as if it had called `exit`. `exec` is empty for the init process.
    pub fn exit(&self, ns: &str, container: &str, exec: &str, status: u32) {
        let cx = Context::new(ns);
        let key = (ns.to_owned(), container.to_owned(), exec.to_owned());
        let mut ended = None;
        self.0.tasks.send_modify(|table| {
            if let Some(process) = table.all.get_mut(&key) {
                process.set_status(task_types::Status::Stopped);
                process.exit_status = status;
                process.exited_at = now();
                ended = Some(process.clone());
            }
        });
        if let Some(process) = ended {
            let id = if exec.is_empty() { container } else { exec };
            let event = events::TaskExit {
                container_id: container.to_owned(),
                id: id.to_owned(),
                pid: process.pid,
                exit_status: status,
                exited_at: process.exited_at,
            };
            // Only a missing namespace could fail, and there is one.
            let _ = self.emit(&cx, "/tasks/exit", &event);
        }
    }

    fn process(&self, key: &ProcessKey) -> Result<task_types::Process> {
        self.0.tasks.borrow().all.get(key).cloned().ok_or_else(|| no_such(key))
    }

    fn set_status(&self, cx: &Context, container: &str, status: task_types::Status) -> Result<()> {
        let key = process_key(cx, container, "")?;
        self.process(&key)?;
        self.0.tasks.send_modify(|table| {
            if let Some(process) = table.all.get_mut(&key) {
                process.set_status(status);
            }
        });
        Ok(())
    }

    fn add(&self, key: ProcessKey, process: task_types::Process) -> Result<u32> {
        let mut outcome = Ok(0);
        self.0.tasks.send_modify(|table| {
            if table.all.contains_key(&key) {
                outcome = Err(Error::exists(format!("process {:?} {:?}: already exists", key.1, key.2)));
                return;
            }
            table.next_pid += 1;
            let pid = 1000 + table.next_pid;
            table.all.insert(key, task_types::Process { pid, ..process });
            outcome = Ok(pid);
        });
        outcome
    }

    fn remove(&self, key: &ProcessKey) -> Result<t::DeleteResponse> {
        let process = self.process(key)?;
        if process.status() == task_types::Status::Running {
            return Err(Error::precondition(format!("process {:?} {:?} is running", key.1, key.2)));
        }
        self.0.tasks.send_modify(|table| {
            table.all.remove(key);
        });
        let (id, pid) = (process.id, process.pid);
        Ok(t::DeleteResponse { id, pid, exit_status: process.exit_status, exited_at: process.exited_at })
    }
}

#[async_trait]
impl Tasks for FakeCore {
    async fn create(&self, cx: &Context, req: t::CreateTaskRequest) -> Result<t::CreateTaskResponse> {
        let id = req.container_id;
        containers_get(self, cx, &id).await?;
        let status = task_types::Status::Created.into();
        let process = task_types::Process {
            container_id: id.clone(),
            id: id.clone(),
            status,
            stdin: req.stdin,
            stdout: req.stdout,
            stderr: req.stderr,
            terminal: req.terminal,
            ..Default::default()
        };
        let pid = self.add(process_key(cx, &id, "")?, process)?;
        let event = events::TaskCreate { container_id: id.clone(), pid, ..Default::default() };
        self.emit(cx, "/tasks/create", &event)?;
        Ok(t::CreateTaskResponse { container_id: id, pid })
    }

    async fn start(&self, cx: &Context, req: t::StartRequest) -> Result<t::StartResponse> {
        let key = process_key(cx, &req.container_id, &req.exec_id)?;
        let process = self.process(&key)?;
        if process.status() != task_types::Status::Created {
            return Err(Error::precondition(format!("process {:?} {:?} is not in state created", key.1, key.2)));
        }
        self.0.tasks.send_modify(|table| {
            if let Some(process) = table.all.get_mut(&key) {
                process.set_status(task_types::Status::Running);
            }
        });
        let event = events::TaskStart { container_id: req.container_id, pid: process.pid };
        self.emit(cx, "/tasks/start", &event)?;
        Ok(t::StartResponse { pid: process.pid })
    }

    async fn delete(&self, cx: &Context, req: t::DeleteTaskRequest) -> Result<t::DeleteResponse> {
        self.remove(&process_key(cx, &req.container_id, "")?)
    }

    async fn delete_process(&self, cx: &Context, req: t::DeleteProcessRequest) -> Result<t::DeleteResponse> {
        self.remove(&process_key(cx, &req.container_id, &req.exec_id)?)
    }

    async fn get(&self, cx: &Context, req: t::GetRequest) -> Result<t::GetResponse> {
        let process = self.process(&process_key(cx, &req.container_id, &req.exec_id)?)?;
        Ok(t::GetResponse { process: Some(process) })
    }

    async fn list(&self, cx: &Context, _: t::ListTasksRequest) -> Result<t::ListTasksResponse> {
        let ns = cx.namespace()?;
        let table = self.0.tasks.borrow();
        let tasks = table.all.iter().filter(|((n, _, exec), _)| n == ns && exec.is_empty());
        Ok(t::ListTasksResponse { tasks: tasks.map(|(_, process)| process.clone()).collect() })
    }

    async fn kill(&self, cx: &Context, req: t::KillRequest) -> Result<()> {
        let key = process_key(cx, &req.container_id, &req.exec_id)?;
        if self.process(&key)?.status() == task_types::Status::Stopped {
            return Err(Error::not_found(format!("process {:?} {:?} already finished", key.1, key.2)));
        }
        self.exit(&key.0, &key.1, &key.2, 128 + req.signal);
        Ok(())
    }

    async fn exec(&self, cx: &Context, req: t::ExecProcessRequest) -> Result<()> {
        self.process(&process_key(cx, &req.container_id, "")?)?;
        let process = task_types::Process {
            container_id: req.container_id.clone(),
            id: req.exec_id.clone(),
            status: task_types::Status::Created.into(),
            stdin: req.stdin,
            stdout: req.stdout,
            stderr: req.stderr,
            terminal: req.terminal,
            ..Default::default()
        };
        self.add(process_key(cx, &req.container_id, &req.exec_id)?, process).map(drop)
    }

    async fn resize_pty(&self, cx: &Context, req: t::ResizePtyRequest) -> Result<()> {
        self.process(&process_key(cx, &req.container_id, &req.exec_id)?).map(drop)
    }

    async fn close_io(&self, cx: &Context, req: t::CloseIoRequest) -> Result<()> {
        self.process(&process_key(cx, &req.container_id, &req.exec_id)?).map(drop)
    }

    async fn pause(&self, cx: &Context, req: t::PauseTaskRequest) -> Result<()> {
        self.set_status(cx, &req.container_id, task_types::Status::Paused)
    }

    async fn resume(&self, cx: &Context, req: t::ResumeTaskRequest) -> Result<()> {
        self.set_status(cx, &req.container_id, task_types::Status::Running)
    }

    async fn list_pids(&self, cx: &Context, req: t::ListPidsRequest) -> Result<t::ListPidsResponse> {
        let process = self.process(&process_key(cx, &req.container_id, "")?)?;
        Ok(t::ListPidsResponse { processes: vec![task_types::ProcessInfo { pid: process.pid, info: None }] })
    }

    async fn checkpoint(&self, _: &Context, _: t::CheckpointTaskRequest) -> Result<t::CheckpointTaskResponse> {
        Err(Error::unimplemented("the fake core makes no checkpoints"))
    }

    async fn update(&self, cx: &Context, req: t::UpdateTaskRequest) -> Result<()> {
        self.process(&process_key(cx, &req.container_id, "")?).map(drop)
    }

    async fn metrics(&self, _: &Context, _: t::MetricsRequest) -> Result<t::MetricsResponse> {
        Ok(t::MetricsResponse::default())
    }

    async fn wait(&self, cx: &Context, req: t::WaitRequest) -> Result<t::WaitResponse> {
        let key = process_key(cx, &req.container_id, &req.exec_id)?;
        let mut changes = self.0.tasks.subscribe();
        let stopped = changes.wait_for(|table| {
            table.all.get(&key).is_none_or(|process| process.status() == task_types::Status::Stopped)
        });
        let table = stopped.await.map_err(|_| Error::unavailable("the fake core is gone"))?;
        let process = table.all.get(&key).ok_or_else(|| no_such(&key))?;
        Ok(t::WaitResponse { exit_status: process.exit_status, exited_at: process.exited_at })
    }
}

async fn containers_get(fake: &FakeCore, cx: &Context, id: &str) -> Result<containers::GetContainerResponse> {
    fake.core().containers.get(cx, containers::GetContainerRequest { id: id.to_owned() }).await
}
