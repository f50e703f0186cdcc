//! Making a task and taking it away.
//!
//! A task in the making leaves its bundle first, so whatever happens then, this process's end included, can be cleaned
//! up from disk. A failed `create` leaves nothing; what can't be undone is logged and undone at the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use shared_proto::containerd::Mount;
use shared_proto::ttrpc::task::{CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse};

use super::bootstrap::Bootstrap;
use super::bundle::Bundle;
use super::error::RuntimeError;
use super::launch;
use super::manager::{Inner, Tasks};
use super::process::{Exit, Process, State, Stdio};
use super::registry::Registry;
use super::shim::{Shim, deadline, exit_of};
use super::shim_log::ShimLog;
use super::spec;
use super::task::Task;
use super::undo::remove_bundle;
use crate::domain::{Id, Namespace, Payload};
use crate::stages;

/// Shims that put a container with a sandbox annotation into the sandbox's shim. For them, `start` would only tell the
/// address that is known already, at the price of a process.
const SHARES_BY_SANDBOX: &[&str] = &["containerd-shim-runc-v2"];

/// A task to be made.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// Name of the runtime, for example `io.containerd.runc.v2`, or the path of its shim; empty = the default.
    pub runtime: String,
    /// Path of the shim's binary, if the name isn't to decide.
    pub runtime_path: String,
    /// The OCI spec, JSON.
    pub spec: Vec<u8>,
    /// Options for the runtime, passed on unread.
    pub options: Option<Payload>,
    /// The root filesystem, mounted by the shim; empty = the spec's root path is used as it is.
    pub rootfs: Vec<Mount>,
    pub stdio: Stdio,
    /// Folder of a checkpoint to restore from; empty = none.
    pub checkpoint: String,
}

impl Tasks {
    /// Makes a task: afterwards its init process waits for [`Tasks::start`]. Answers its process id.
    pub async fn create(&self, ns: &Namespace, id: &Id, request: Create) -> Result<u32, RuntimeError> {
        let inner = &self.0;
        let reservation = inner.registry.reserve(ns, id).await?;
        let bundle = inner.layout.bundle(ns.clone(), id.clone());
        let began = Instant::now();
        let (binary, facts, request) = stages::stage("bundle", prepare(inner, &bundle, request)).await?;
        inner.config.steps.add("bundle", &binary, began);
        let (task, pid) = inner.bring_up(bundle, binary, &facts, request).await?;
        reservation.fulfil(task.clone());
        // A shim that died before the task was in the registry was not mourned for it.
        inner.bury_if_dead(&task);
        Ok(pid)
    }

    /// Takes a stopped task away, or one that was never started. `NotStopped` otherwise.
    pub async fn delete(&self, ns: &Namespace, id: &Id) -> Result<Exit, RuntimeError> {
        let inner = &self.0;
        let removal = inner.registry.begin_removal(ns, id).await?;
        let task = removal.task().clone();
        let outcome = inner.delete_stopped(&task).await;
        let exit = match outcome {
            Err(e) if e.is_closed() => return Ok(inner.bury(removal).await),
            Err(e) if e.is_not_found() => None,
            Err(e) => {
                drop(removal);
                inner.bury_if_dead(&task);
                return Err(e);
            }
            Ok(exit) => Some(exit),
        };
        if let Some(exit) = exit {
            task.exited("", exit);
        }
        if inner.shims.give_back(&task.shim) {
            inner.shut_down(&task.shim, &task.bundle).await;
        }
        remove_bundle(&task.bundle).await;
        removal.done();
        // The shim may have lost it; then its exit is what was known before.
        match (exit, task.state("")) {
            (Some(exit), _) | (None, Some(State::Stopped(exit))) => Ok(exit),
            (None, _) => Err(RuntimeError::NoTask { ns: ns.to_string(), id: id.to_string() }),
        }
    }
}

impl Inner {
    /// Starts or finds the shim and makes the task there; cleans up when that fails.
    async fn bring_up(
        self: &Arc<Self>,
        bundle: Bundle,
        binary: PathBuf,
        facts: &spec::Facts,
        request: Create,
    ) -> Result<(Arc<Task>, u32), RuntimeError> {
        let began = Instant::now();
        let launched = self.shim_for(&bundle, &binary, facts, request.options.as_ref());
        let shim = match stages::stage("shim", launched).await {
            Ok(shim) => shim,
            Err(e) => {
                self.abandon_launch(&bundle, &binary).await;
                return Err(e);
            }
        };
        self.config.steps.add("shim", &binary, began);
        let stdio = request.stdio.clone();
        let began = Instant::now();
        let doing = || format!("failed to create shim task {:?}", bundle.id.as_str());
        let message = create_request(&bundle, request);
        let ns = bundle.ns.as_str();
        let made = async {
            let answer: CreateTaskResponse = shim.call(ns, "Create", &message, Some(deadline::RUN), doing).await?;
            mark_made(&bundle).await?;
            Ok(answer)
        };
        match stages::stage("runtime-create", made).await {
            Ok(answer) => {
                self.config.steps.add("create", &binary, began);
                let init = Process::new(answer.pid, State::Created, stdio);
                Ok((Arc::new(Task::new(bundle, binary, shim, init)), answer.pid))
            }
            Err(e) => {
                self.abandon(&bundle, &binary, &shim).await;
                Err(e)
            }
        }
    }

    /// The shim for a new task, with one use of it taken.
    async fn shim_for(
        self: &Arc<Self>,
        bundle: &Bundle,
        binary: &Path,
        facts: &spec::Facts,
        options: Option<&Payload>,
    ) -> Result<Arc<Shim>, RuntimeError> {
        if let Some(shim) = self.sandbox_shim(bundle, binary, facts) {
            return self.join(bundle, shim).await;
        }
        let log = ShimLog::open(&bundle.path.join("log"), bundle.id.as_str())
            .map_err(|source| RuntimeError::Bundle { path: bundle.path.clone(), doing: "open log", source })?;
        let bootstrap = launch::start(&self.config, bundle, binary, options, &self.engines).await?;
        if let Some(shim) = self.shims.take(&bootstrap.address) {
            return self.join(bundle, shim).await;
        }
        save(bundle, bootstrap.clone()).await?;
        let (shim, fresh) = self.shims.connect(&bootstrap).await?;
        if fresh {
            shim.keep_log(log);
            self.watch(&shim);
        }
        Ok(shim)
    }

    /// The shim of the sandbox that the container belongs to, by the rule of the runc shim.
    fn sandbox_shim(&self, bundle: &Bundle, binary: &Path, facts: &spec::Facts) -> Option<Arc<Shim>> {
        let name = binary.file_name()?.to_str()?;
        let sandbox = Id::parse(facts.sandbox.as_deref()?).ok()?;
        if sandbox == bundle.id || !SHARES_BY_SANDBOX.contains(&name) {
            return None;
        }
        let task = self.registry.get(&bundle.ns, &sandbox).ok().filter(|task| task.binary == binary)?;
        self.shims.take(&task.shim.address)
    }

    /// Makes a shim, of which a use was taken, that of the bundle.
    async fn join(&self, bundle: &Bundle, shim: Arc<Shim>) -> Result<Arc<Shim>, RuntimeError> {
        match save(bundle, shim.bootstrap()).await {
            Ok(()) => Ok(shim),
            Err(e) => {
                self.shims.give_back(&shim);
                Err(e)
            }
        }
    }

    /// Deletes the task at the shim, if it is stopped or was never started.
    async fn delete_stopped(&self, task: &Arc<Task>) -> Result<Exit, RuntimeError> {
        if matches!(task.state(""), Some(State::Running | State::Paused | State::Unknown) | None) {
            // The news of an exit may still be on its way.
            self.ask(task, "").await?;
            match task.state("") {
                Some(state @ (State::Running | State::Paused)) => {
                    return Err(RuntimeError::NotStopped { id: task.id.to_string(), state: state.name() });
                }
                Some(State::Created | State::Stopped(_) | State::Unknown) | None => {}
            }
        }
        match self.delete_process_at(task, "").await {
            Err(e) if e.is_closed() && task.shim.settle().await => self.delete_process_at(task, "").await,
            answer => answer,
        }
    }

    /// `Delete` of a process at its shim.
    pub async fn delete_process_at(&self, task: &Task, exec: &str) -> Result<Exit, RuntimeError> {
        let request = DeleteRequest { id: task.id.to_string(), exec_id: exec.to_owned() };
        let doing = || format!("delete task {:?} process {exec:?}", task.id.as_str());
        let answer: DeleteResponse =
            task.shim.call(task.ns.as_str(), "Delete", &request, Some(deadline::RUN), doing).await?;
        Ok(exit_of(answer.pid, answer.exit_status, answer.exited_at))
    }
}

/// Records the shim of a task, so that a restart finds it.
async fn save(bundle: &Bundle, bootstrap: Bootstrap) -> Result<(), RuntimeError> {
    let bundle = bundle.clone();
    shared_sys::blocking(move || bundle.save(&bootstrap)).await
}

/// Records that the shim has made the task. Without it a restart takes the task for one that nobody has heard of.
async fn mark_made(bundle: &Bundle) -> Result<(), RuntimeError> {
    let bundle = bundle.clone();
    shared_sys::blocking(move || bundle.mark_made()).await
}

/// Finds the binary, reads the spec and makes the bundle, all in one go on a blocking thread.
async fn prepare(
    inner: &Inner,
    bundle: &Bundle,
    request: Create,
) -> Result<(PathBuf, spec::Facts, Create), RuntimeError> {
    let (own, bundle, registry) = (inner.config.binary.clone(), bundle.clone(), inner.registry.clone());
    shared_sys::blocking(move || {
        let facts =
            spec::read(&request.spec).map_err(|source| RuntimeError::Spec { id: bundle.id.to_string(), source })?;
        let binary = match launch::resolve(&request.runtime, &request.runtime_path, &own) {
            Err(RuntimeError::NoBinary { name, binary }) => match in_use(&registry, &bundle.ns, &facts, &binary) {
                // Its file is gone, but the pod's shim runs: nothing more is needed of it.
                Some(running) => running,
                None => return Err(RuntimeError::NoBinary { name, binary }),
            },
            resolved => resolved?,
        };
        bundle.create(&request.spec, &binary, facts.root_gid)?;
        Ok((binary, facts, request))
    })
    .await
}

/// The binary of the pod's shim, if it is the one that is wanted: a whole path, or a name that was looked for in folders.
fn in_use(registry: &Registry, ns: &Namespace, facts: &spec::Facts, wanted: &str) -> Option<PathBuf> {
    let sandbox = Id::parse(facts.sandbox.as_deref()?).ok()?;
    let task = registry.get(ns, &sandbox).ok()?;
    task.binary.ends_with(wanted).then(|| task.binary.clone())
}

fn create_request(bundle: &Bundle, request: Create) -> CreateTaskRequest {
    CreateTaskRequest {
        id: bundle.id.to_string(),
        bundle: bundle.path.to_string_lossy().into_owned(),
        rootfs: request.rootfs,
        terminal: request.stdio.terminal,
        stdin: request.stdio.stdin,
        stdout: request.stdio.stdout,
        stderr: request.stdio.stderr,
        checkpoint: request.checkpoint,
        parent_checkpoint: String::new(),
        options: request.options.map(|o| prost_types::Any { type_url: o.type_url, value: o.value }),
    }
}
