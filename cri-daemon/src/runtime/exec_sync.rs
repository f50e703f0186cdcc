//! ExecSync: one command in a running container, its output collected.
//!
//! Output beyond what fits an answer is read and dropped, so that the command never blocks on it. When the time is up,
//! or the caller goes away, the command is killed. Whatever happens, exec and FIFOs are gone at the end. The answer waits
//! for that, but not for a shim that does not answer: then the caller has its error in time, and the rest follows.
//!
//! A command may leave children behind that hold its output open. How long they are waited for is a setting
//! (`drain_exec_sync_io_timeout`); by default as long as the call has time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_proto::cri::v1;
use shared_proto::errdefs::ResultExt as _;
use shared_proto::{Error, Result};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::tasks::Ended;
use crate::call::{RECORD, within};
use crate::command::{Command, Wanted};
use crate::container::Container;
use crate::{Cri, Inner};

/// The most that is kept of each stream; the two and the rest of an answer also have to fit a message together.
const MOST: usize = 16 << 20;
/// What an answer needs besides its output.
const FRAME: usize = 1 << 10;
/// How much longer than its time-out a call may take, until the command is gone.
const GRACE: Duration = Duration::from_secs(2);
/// Seconds.
const YEAR: u64 = 366 * 24 * 3600;
/// Why a command that has ended is no success.
pub(crate) const HELD_OPEN: &str =
    "the command has ended, but its output is still held open by processes that it left behind";

impl Cri {
    pub async fn exec_sync(&self, req: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse> {
        let container = self.0.running(&req.container_id)?;
        let id = container.record.id.clone();
        if req.cmd.is_empty() {
            return Err(Error::invalid(format!("cmd: an exec in container {id} needs a command")));
        }
        // Dropped with the caller: then the command is killed.
        let caller = CancellationToken::new();
        let gone = caller.clone();
        let _caller = caller.drop_guard();
        let late = timed_out(&req);
        let limit = deadline(&req).map(|at| at + GRACE + self.0.config.runtime.drain_exec_sync_io_timeout);
        let cri = self.clone();
        let (tell, mut outcome) = oneshot::channel();
        let work = async move {
            cri.0.run_exec(&container, &req, &gone, tell).await;
            Ok(())
        };
        tokio::select! {
            cleaned = self.detached(work) => cleaned?,
            () = until(limit) => {}
        }
        // What has come of it may be known although it could not be cleaned up yet.
        let answer = match outcome.try_recv() {
            Ok(answer) => answer,
            Err(_) => Err(self.0.too_late(&late).await),
        };
        answer.with_context(|| format!("exec in container {id}"))
    }
}

impl Inner {
    /// The error of a command that is not known to have ended long after its time. While the core is away it says that:
    /// a kubelet takes a time-out for a failed probe, and would restart what only could not be asked.
    async fn too_late(&self, late: &str) -> Error {
        match within("ask the core", RECORD, self.core.version.version(&self.cx, ())).await {
            Err(e) if e.is_transient() => e,
            Ok(_) | Err(_) => Error::deadline(format!("{late}, and could not be ended in time")),
        }
    }

    async fn run_exec(
        &self,
        container: &Container,
        req: &v1::ExecSyncRequest,
        gone: &CancellationToken,
        tell: oneshot::Sender<Result<v1::ExecSyncResponse>>,
    ) {
        let wanted = Wanted { stdin: false, stdout: true, stderr: true, tty: false };
        let command = Command::new(&self.config, &container.record.id, wanted);
        // Nobody waits any more when the time is up.
        let _ = tell.send(self.collect(container, &command, req, gone).await);
        self.end_command(&command).await;
    }

    async fn collect(
        &self,
        container: &Container,
        command: &Command,
        req: &v1::ExecSyncRequest,
        gone: &CancellationToken,
    ) -> Result<v1::ExecSyncResponse> {
        let deadline = deadline(req);
        let pipes = self.begin_command(container, command, &req.cmd).await?;
        let (stdout, stderr) = (Output::collect(pipes.stdout), Output::collect(pipes.stderr));
        let ended = tokio::select! {
            ended = self.wait(&command.container, &command.id) => ended?,
            () = until(deadline) => return Err(self.kill_exec(command, &timed_out(req)).await),
            () = gone.cancelled() => return Err(self.kill_exec(command, "the caller went away").await),
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
            () = until(limit) => return Err(Error::deadline(HELD_OPEN)),
            () = gone.cancelled() => return Err(Error::new(shared_proto::Code::Canceled, "the caller went away")),
        }
        Ok(answer(stdout.take(), stderr.take(), ended))
    }

    /// Kills a command whose time is up, waits until it is gone, and gives the error.
    async fn kill_exec(&self, command: &Command, why: &str) -> Error {
        match self.kill_command(command).await {
            Ok(()) => Error::deadline(why),
            Err(e) => Error::deadline(format!("{why}, and it could not be killed: {e}")),
        }
    }
}

/// When a command that begins now has had its time; zero, and more than a year, is no limit.
fn deadline(req: &v1::ExecSyncRequest) -> Option<Instant> {
    let seconds = u64::try_from(req.timeout).ok().filter(|seconds| (1..=YEAR).contains(seconds))?;
    Some(Instant::now() + Duration::from_secs(seconds))
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
}

impl Output {
    fn collect(source: Option<pipe::Receiver>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let done = CancellationToken::new();
        let (keep, ended) = (kept.clone(), done.clone());
        let reader = tokio::spawn(async move {
            let _ended = ended.drop_guard();
            if let Some(source) = source {
                read(source, &keep).await;
            }
        });
        Self { kept, reader, done }
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
async fn read(mut source: pipe::Receiver, kept: &Mutex<Vec<u8>>) {
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
