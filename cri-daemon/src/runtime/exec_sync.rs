//! ExecSync: one command in a running container, its output collected.
//!
//! Output beyond what fits an answer is read and dropped, so that the command never blocks on it. When the time is up,
//! or the caller goes away, the command is killed. Whatever happens, exec and FIFOs are gone at the end.
//!
//! A command may leave children behind that hold its output open. How long they are waited for is a setting
//! (`drain_exec_sync_io_timeout`); by default as long as the call has time.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_proto::containerd::tasks as t;
use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result, any};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::new_id;
use crate::call::tasks::{Ended, SIGKILL};
use crate::call::{PROCESS, within};
use crate::container::{Container, State};
use crate::{Cri, Inner, paths};

/// The most that is kept of each stream; the two and the rest of an answer also have to fit a message together.
const MOST: usize = 16 << 20;
/// What an answer needs besides its output.
const FRAME: usize = 1 << 10;
/// How long a killed command may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

impl Cri {
    pub async fn exec_sync(&self, req: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse> {
        let container = self.0.containers.get(&req.container_id)?;
        let id = container.record.id.clone();
        if req.cmd.is_empty() {
            return Err(Error::invalid(format!("cmd: an exec in container {id} needs a command")));
        }
        let state = container.life.state();
        if !matches!(state, State::Running { .. }) {
            let state = state.name();
            return Err(Error::precondition(format!("container {id} is {state}; a command needs a running one")));
        }
        // Dropped with the caller: then the command is killed.
        let caller = CancellationToken::new();
        let gone = caller.clone();
        let _caller = caller.drop_guard();
        let cri = self.clone();
        let work = async move { cri.0.run_exec(&container, &req, &gone).await };
        self.detached(work).await.with_context(|| format!("exec in container {id}"))
    }
}

/// One command at work.
struct Exec<'a> {
    container: &'a str,
    id: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Inner {
    async fn run_exec(
        &self,
        container: &Container,
        req: &v1::ExecSyncRequest,
        gone: &CancellationToken,
    ) -> Result<v1::ExecSyncResponse> {
        let id = new_id();
        let io = paths::container(&self.config, &container.record.id).io();
        let exec = Exec {
            container: &container.record.id,
            stdout: io.join(format!("{id}-stdout")),
            stderr: io.join(format!("{id}-stderr")),
            id,
        };
        let outcome = self.collect(container, &exec, req, gone).await;
        // Also ends what may still write into the FIFOs.
        if let Err(error) = self.delete_exec(exec.container, &exec.id).await {
            tracing::warn!(container = exec.container, exec = exec.id, %error, "an exec stays until its container ends");
        }
        for path in [&exec.stdout, &exec.stderr] {
            // Never made, or removed with the container's folder.
            let _ = tokio::fs::remove_file(path).await;
        }
        outcome
    }

    async fn collect(
        &self,
        container: &Container,
        exec: &Exec<'_>,
        req: &v1::ExecSyncRequest,
        gone: &CancellationToken,
    ) -> Result<v1::ExecSyncResponse> {
        let deadline =
            u64::try_from(req.timeout).ok().filter(|s| *s > 0).map(|s| Instant::now() + Duration::from_secs(s));
        let process = self.exec_process(container, &req.cmd).await?;
        let mut stdout = Output::open(&exec.stdout).await?;
        let mut stderr = Output::open(&exec.stderr).await?;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let request = t::ExecProcessRequest {
            container_id: exec.container.to_owned(),
            stdout: text(&exec.stdout),
            stderr: text(&exec.stderr),
            spec: Some(any::raw(any::PROCESS, process)),
            exec_id: exec.id.clone(),
            ..Default::default()
        };
        within("exec", PROCESS, self.core.tasks.exec(&self.cx, request)).await?;
        self.start_process(exec.container, &exec.id).await?;
        stdout.started();
        stderr.started();

        let ended = tokio::select! {
            ended = self.wait(exec.container, &exec.id) => ended?,
            () = until(deadline) => return Err(self.kill_exec(exec, &timed_out(req)).await),
            () = gone.cancelled() => return Err(self.kill_exec(exec, "the caller went away").await),
        };
        let drained = async {
            tokio::join!(stdout.ended(), stderr.ended());
        };
        let limit = match self.config.runtime.drain_exec_sync_io_timeout {
            Duration::ZERO => deadline,
            limit => Some(Instant::now() + limit),
        };
        tokio::select! {
            () = drained => {}
            () = until(limit) => {
                let problem = "the command has ended, but its output is still held open by processes that it left behind";
                return Err(Error::deadline(problem));
            }
            () = gone.cancelled() => return Err(Error::new(shared_proto::Code::Canceled, "the caller went away")),
        }
        Ok(answer(stdout.take(), stderr.take(), ended))
    }

    /// Kills a command whose time is up, waits until it is gone, and gives the error.
    async fn kill_exec(&self, exec: &Exec<'_>, why: &str) -> Error {
        let killed = async {
            self.signal(exec.container, &exec.id, SIGKILL, false).await?;
            within("wait for its end", KILLED, self.wait(exec.container, &exec.id)).await
        };
        match killed.await {
            Ok(_) => Error::deadline(why),
            Err(e) if e.is_not_found() => Error::deadline(why),
            Err(e) => Error::deadline(format!("{why}, and it could not be killed: {e}")),
        }
    }

    /// The process of the command: the container's own, with other arguments.
    async fn exec_process(&self, container: &Container, cmd: &[String]) -> Result<Vec<u8>> {
        let mut process = match container.process() {
            Some(process) => (*process).clone(),
            None => {
                let record = self.record(&container.record.id).await?;
                let process = super::spec_json(&record)["process"].take();
                container.set_process(Arc::new(process.clone()));
                process
            }
        };
        let fields = process.as_object_mut().ok_or_else(|| Error::internal("the container's spec has no process"))?;
        fields.insert("args".into(), cmd.into());
        fields.insert("terminal".into(), false.into());
        fields.remove("consoleSize");
        fields.remove("commandLine");
        serde_json::to_vec(&process).map_err(|e| Error::internal(format!("encode the process: {e}")))
    }
}

fn timed_out(req: &v1::ExecSyncRequest) -> String {
    let command: String = req.cmd.join(" ").chars().take(200).collect();
    format!("command {command:?} timed out after {} s", req.timeout)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The answer, with the output cut so that it fits a message.
fn answer(mut stdout: Vec<u8>, mut stderr: Vec<u8>, ended: Ended) -> v1::ExecSyncResponse {
    let room = MOST - FRAME;
    stderr.truncate(room.saturating_sub(stdout.len()).max(room / 16));
    stdout.truncate(room - stderr.len());
    v1::ExecSyncResponse { stdout, stderr, exit_code: ended.code }
}

/// One stream of a command, read by a task of its own.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: tokio::task::JoinHandle<()>,
    done: CancellationToken,
    /// A FIFO without any writer reads as ended: this one holds it open until the shim has it.
    writer: Option<File>,
}

impl Output {
    async fn open(path: &std::path::Path) -> Result<Self> {
        let made = {
            let path = path.to_owned();
            shared_sys::blocking(move || {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                shared_sys::fifo::make(&path, 0o700)?;
                Ok((shared_sys::fifo::open_read(&path)?, shared_sys::fifo::open_write(&path)?))
            })
        };
        let failed = |e: std::io::Error| Error::internal(format!("make FIFO {}: {e}", path.display()));
        let (source, writer) = made.await.map_err(failed)?;
        let source = pipe::Receiver::from_file(source).map_err(failed)?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let done = CancellationToken::new();
        let reader = tokio::spawn(read(source, kept.clone(), done.clone()));
        Ok(Self { kept, reader, done, writer: Some(writer) })
    }

    /// The shim has opened the writing end: from now on the end of the output is the end.
    fn started(&mut self) {
        self.writer = None;
    }

    /// Waits until nobody holds the writing end any more.
    async fn ended(&self) {
        self.done.cancelled().await;
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads to the end, keeping the beginning.
async fn read(mut source: pipe::Receiver, kept: Arc<Mutex<Vec<u8>>>, done: CancellationToken) {
    let _done = done.drop_guard();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MOST.saturating_sub(kept.len()).min(n);
                kept.extend_from_slice(&buffer[..room]);
            }
        }
    }
}
