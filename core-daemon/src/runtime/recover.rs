//! After a start: the tasks of an earlier run are found again.
//!
//! All bundles at a time, each on its own: one that is broken or whose shim hangs delays and harms no other.
//!
//! | a bundle whose | becomes |
//! |---|---|
//! | shim answers | a task in the state that the shim says; an exit meanwhile is found here |
//! | shim doesn't know the task | removed, with what a runtime that was killed half way may have left |
//! | task was not started, nor its client told that it is made | removed: for the client its making has failed |
//! | shim isn't there, and it ever ran | a stopped task: its exit is there to be read until the task is deleted |
//! | shim isn't there, and it never ran | removed, by the shim's `delete` |
//! | shim is there, but silent | a task in state unknown: silence is no exit |

use std::path::PathBuf;
use std::sync::Arc;

use shared_proto::containerd::events::TaskStart;
use shared_proto::ttrpc::task::{StateRequest, StateResponse};

use super::bootstrap::Bootstrap;
use super::bundle::{Bundle, Record};
use super::error::RuntimeError;
use super::launch;
use super::manager::{Inner, Tasks, state_of};
use super::process::{Exit, Process, State, Stdio};
use super::registry::Reservation;
use super::shim::{Shim, deadline, remove_dead_socket};
use super::shim_log::ShimLog;
use super::task::Task;
use super::undo::{kill_strays, remove_bundle};

/// What was found of an earlier run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks that are there again, running or not.
    pub tasks: usize,
    /// Of these, tasks whose shim doesn't answer.
    pub silent: usize,
    /// Tasks whose shim was gone: stopped, until they are deleted.
    pub dead: usize,
    /// Bundles that held no task.
    pub empty: usize,
}

enum Found {
    Task,
    Silent,
    Dead,
    Empty,
}

impl Tasks {
    /// Takes over the tasks of an earlier run. To be called once, before clients are served; the ttrpc socket should
    /// be served already, as shims have news for us.
    pub async fn recover(&self) -> Recovered {
        let layout = self.0.layout.clone();
        let bundles = shared_sys::blocking(move || layout.scan()).await;
        let found = futures::future::join_all(bundles.into_iter().map(|bundle| self.0.recover_one(bundle))).await;
        let count = |kind: fn(&Found) -> bool| found.iter().filter(|f| kind(f)).count();
        Recovered {
            tasks: count(|f| matches!(f, Found::Task | Found::Silent)),
            silent: count(|f| matches!(f, Found::Silent)),
            dead: count(|f| matches!(f, Found::Dead)),
            empty: count(|f| matches!(f, Found::Empty)),
        }
    }
}

impl Inner {
    async fn recover_one(self: &Arc<Self>, bundle: Bundle) -> Found {
        let Ok(reservation) = self.registry.reserve(&bundle.ns, &bundle.id).await else {
            // A client was quicker to make a task of this name anew.
            return Found::Task;
        };
        let record = {
            let bundle = bundle.clone();
            shared_sys::blocking(move || bundle.load()).await
        };
        let Some(binary) = record.binary.clone().or_else(|| launch::resolve("", "", &self.config.binary).ok()) else {
            kill_strays(&bundle).await;
            remove_bundle(&bundle).await;
            return Found::Empty;
        };
        let Some((shim, state)) = self.reach(&bundle, &record).await else {
            return self.recover_dead(reservation, bundle, binary, &record).await;
        };
        let (found, pid, state, stdio) = match state.map(state_of) {
            // Clients take a task that waits for its start for one of somebody else: they can't even delete it.
            Ok((pid, State::Created, _)) if !record.made => {
                tracing::warn!(id = %bundle.id, ns = %bundle.ns, "a task whose making was cut off is taken back");
                if pid == 0 {
                    // The engine is still at it, maybe at a hook that waits for the client: nobody waits for that.
                    kill_strays(&bundle).await;
                }
                self.abandon(&bundle, &binary, &shim).await;
                return Found::Empty;
            }
            Ok((pid, state, stdio)) => (Found::Task, pid, state, stdio),
            Err(e) if e.is_not_found() => {
                self.abandon(&bundle, &binary, &shim).await;
                return Found::Empty;
            }
            Err(e) if e.is_closed() && !shim.settle().await => {
                self.shims.give_back(&shim);
                return self.recover_dead(reservation, bundle, binary, &record).await;
            }
            Err(e) => {
                tracing::warn!(id = %bundle.id, ns = %bundle.ns, error = %e, "the shim of a task is silent");
                (Found::Silent, record.pid.unwrap_or(0), State::Unknown, Stdio::default())
            }
        };
        if matches!(state, State::Running | State::Paused) {
            let start = TaskStart { container_id: bundle.id.to_string(), pid };
            self.exchange.recall(bundle.ns.as_str(), "/tasks/start", &start);
        }
        let task = Arc::new(Task::new(bundle, binary, shim, Process::new(pid, state, stdio)));
        reservation.fulfil(task.clone());
        self.bury_if_dead(&task);
        if matches!(found, Found::Task) {
            self.watch_exit(&task, "");
        }
        found
    }

    /// Connects to the shim of a bundle and asks for the task. `None`: there is no shim.
    async fn reach(
        self: &Arc<Self>,
        bundle: &Bundle,
        record: &Record,
    ) -> Option<(Arc<Shim>, Result<StateResponse, RuntimeError>)> {
        let bootstrap = record.bootstrap.as_ref()?;
        let (shim, fresh) = match self.shims.connect(bootstrap).await {
            Ok(connected) => connected,
            Err(e) => {
                tracing::warn!(id = %bundle.id, ns = %bundle.ns, error = %e, "the shim of a task is gone");
                return None;
            }
        };
        if fresh {
            self.watch(&shim);
        }
        if !bootstrap.shared {
            match ShimLog::open(&bundle.path.join("log"), bundle.id.as_str()) {
                Ok(log) => shim.keep_log(log),
                Err(e) => tracing::warn!(id = %bundle.id, error = %e, "the log of a shim can't be read"),
            }
        }
        let request = StateRequest { id: bundle.id.to_string(), exec_id: String::new() };
        let doing = || format!("state of task {:?}", bundle.id.as_str());
        let state = shim.call(bundle.ns.as_str(), "State", &request, Some(deadline::LOAD), doing).await;
        Some((shim, state))
    }

    /// What a dead shim kept is ended and cleaned up. The exit is the one that it left on record, or what must be
    /// assumed; it stays to be read, as no client may have heard of it.
    async fn recover_dead(
        self: &Arc<Self>,
        reservation: Reservation,
        bundle: Bundle,
        binary: PathBuf,
        record: &Record,
    ) -> Found {
        if let Some(socket) = record.bootstrap.as_ref().and_then(Bootstrap::socket) {
            shared_sys::blocking(move || remove_dead_socket(&socket)).await;
        }
        let Some(pid) = record.pid else {
            self.clean_up(&bundle, &binary).await;
            return Found::Empty;
        };
        let exit = Exit { pid, ..self.end_runtime(&bundle, &binary).await };
        let shim = Arc::new(Shim::dead(record.bootstrap.as_ref()));
        let init = Process::new(pid, State::Stopped(exit), Stdio::default());
        let (ns, id) = (bundle.ns.clone(), bundle.id.clone());
        reservation.fulfil(Arc::new(Task::new(bundle, binary, shim, init)));
        self.publish_exit(ns.as_str(), id.as_str(), "", exit);
        Found::Dead
    }
}
