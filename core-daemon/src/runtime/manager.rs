//! The manager: what all operations share, and the questions that memory answers.

use std::path::PathBuf;
use std::sync::Arc;

use shared_proto::containerd::task_types::Status;
use shared_proto::ttrpc::task::{StateRequest, StateResponse};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::bundle::Layout;
use super::engines::Engines;
use super::error::RuntimeError;
use super::exits::Exits;
use super::process::{Info, State, Stdio};
use super::registry::Registry;
use super::shim::{deadline, exit_of};
use super::shims::Shims;
use super::task::Task;
use crate::domain::{Id, Namespace};
use crate::events::Exchange;
use crate::metrics::Steps;

/// Clean-ups after dead shims that run at a time: each starts two processes.
const BURIALS: usize = 8;

/// What the manager must know of its surroundings.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Folder for bundles (below `io.containerd.runtime.v2.task`).
    pub state: PathBuf,
    /// Folder for the working folders of tasks (likewise).
    pub root: PathBuf,
    /// The core's gRPC socket, which shims are told.
    pub core_socket: PathBuf,
    /// The socket of [`serve_ttrpc`](super::serve_ttrpc), where shims deliver their events.
    pub ttrpc_address: PathBuf,
    /// This program, for shims that publish by command.
    pub binary: PathBuf,
    /// Where the steps of starts are counted.
    pub steps: Steps,
}

/// The tasks of all namespaces; cheap to clone.
///
/// Operations that change something go on when their future is dropped only if the caller runs them in a task of its
/// own (`services::detached`).
#[derive(Clone)]
pub struct Tasks(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub config: RuntimeConfig,
    pub layout: Layout,
    pub exchange: Exchange,
    pub registry: Registry,
    pub shims: Shims,
    pub engines: Arc<Engines>,
    pub exits: Exits,
    pub burials: Semaphore,
    /// Clean-ups in the background, which must be let finish.
    pub work: TaskTracker,
    /// Ends what only watches.
    pub stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Tasks {
    pub fn new(config: RuntimeConfig, exchange: Exchange) -> Self {
        let stop = CancellationToken::new();
        let work = TaskTracker::new();
        work.close();
        Self(Arc::new(Inner {
            layout: Layout::new(&config.state, &config.root),
            config,
            exchange,
            registry: Registry::default(),
            shims: Shims::default(),
            engines: Default::default(),
            exits: Exits::default(),
            burials: Semaphore::new(BURIALS),
            work,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// Waits for clean-ups that are under way. The caller limits the time; tasks and shims are left alone.
    pub async fn drain(&self) {
        self.0.stop.cancel();
        self.0.work.wait().await;
    }

    /// What is known of a process; the shim is asked only when memory isn't sure, for at most two seconds.
    pub async fn get(&self, ns: &Namespace, id: &Id, exec: &str) -> Result<Info, RuntimeError> {
        self.0.info(&*self.0.registry.get(ns, id)?, exec).await
    }

    /// The init processes of all tasks of a namespace. One whose shim doesn't answer is listed as unknown.
    pub async fn list(&self, ns: &Namespace) -> Vec<Info> {
        let tasks = self.0.registry.list(ns);
        let infos = tasks.iter().map(|task| async {
            match self.0.info(task, "").await {
                Ok(info) => Some(info),
                Err(e) if e.is_not_found() => None,
                Err(e) => {
                    tracing::warn!(id = %task.id, error = %e, "state of a task");
                    task.info("").map(|(info, _)| Info { state: State::Unknown, ..info })
                }
            }
        });
        futures::future::join_all(infos).await.into_iter().flatten().collect()
    }
}

impl Inner {
    /// See [`Tasks::get`].
    pub async fn info(&self, task: &Task, exec: &str) -> Result<Info, RuntimeError> {
        if let Some((info, true)) = task.info(exec) {
            return Ok(info);
        }
        match self.ask(task, exec).await {
            Ok(()) => {}
            // Slow isn't gone: what is known of it still helps, its state isn't.
            Err(RuntimeError::Shim { source: shared_ttrpc::CallError::Deadline { .. }, doing }) => {
                tracing::warn!(id = %task.id, exec, "{doing}: no answer");
                if let Some((info, _)) = task.info(exec) {
                    return Ok(Info { state: State::Unknown, ..info });
                }
            }
            Err(e) => return Err(e),
        }
        let (info, _) = task.info(exec).ok_or_else(|| no_process(task, exec))?;
        Ok(info)
    }

    /// Asks the shim for the state of a process and notes it.
    pub async fn ask(&self, task: &Task, exec: &str) -> Result<(), RuntimeError> {
        let request = StateRequest { id: task.id.to_string(), exec_id: exec.to_owned() };
        let doing = || format!("state of task {:?} process {exec:?}", task.id.as_str());
        let answer: StateResponse =
            task.shim.call(task.ns.as_str(), "State", &request, Some(deadline::STATE), doing).await?;
        let (pid, state, stdio) = state_of(answer);
        task.told(exec, pid, state, stdio);
        Ok(())
    }
}

pub(super) fn no_process(task: &Task, exec: &str) -> RuntimeError {
    RuntimeError::NoProcess { id: task.id.to_string(), exec: exec.to_owned() }
}

/// A shim's answer to `State`, in our words.
pub(super) fn state_of(answer: StateResponse) -> (u32, State, Stdio) {
    let state = match answer.status() {
        Status::Created => State::Created,
        Status::Running => State::Running,
        // Pausing is on its way to be paused; the event of it makes memory unsure again.
        Status::Paused | Status::Pausing => State::Paused,
        Status::Stopped => State::Stopped(exit_of(answer.pid, answer.exit_status, answer.exited_at)),
        Status::Unknown => State::Unknown,
    };
    let stdio = Stdio { stdin: answer.stdin, stdout: answer.stdout, stderr: answer.stderr, terminal: answer.terminal };
    (answer.pid, state, stdio)
}
