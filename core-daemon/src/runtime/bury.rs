//! After the death of a shim: its containers are killed and cleaned up from outside, and the world is told once.
//!
//! The shim's own `delete` command does the killing and unmounting; cgroups that the runtime has left go after it.
//! The exit that is published is the real one if it was known before, else what `delete` says (137), else 255.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use shared_proto::containerd::events::{TaskDelete, TaskExit};

use super::bundle::Bundle;
use super::cgroup;
use super::launch;
use super::manager::Inner;
use super::process::{Exit, State};
use super::registry::Removal;
use super::shim::{Shim, remove_dead_socket, watch};
use super::task::Task;
use super::undo::{kill_strays, remove_bundle};

/// Status of a process of whose end nothing is known.
const UNKNOWN: u32 = 255;

impl Inner {
    /// Follows a new shim until it is dead or nobody uses it.
    pub fn watch(self: &Arc<Self>, shim: &Arc<Shim>) {
        let (inner, shim, stop) = (Arc::downgrade(self), Arc::downgrade(shim), self.stop.clone());
        tokio::spawn(async move {
            let died = tokio::select! {
                died = watch(&shim) => died,
                () = stop.cancelled() => None,
            };
            if let (Some(shim), Some(inner)) = (died, inner.upgrade()) {
                for task in inner.registry.of_shim(&shim) {
                    inner.bury_in_background(task);
                }
            }
        });
    }

    /// For a task whose shim may have died while nobody looked.
    pub fn bury_if_dead(self: &Arc<Self>, task: &Arc<Task>) {
        if task.shim.is_dead() {
            self.bury_in_background(task.clone());
        }
    }

    fn bury_in_background(self: &Arc<Self>, task: Arc<Task>) {
        let inner = self.clone();
        self.work.spawn(async move {
            // Whoever is taking the task away already meets the closed connection and does it.
            if let Some(removal) = inner.registry.removal_of(&task) {
                tracing::warn!(id = %task.id, ns = %task.ns, address = %task.shim.address, "the task's shim died");
                inner.bury(removal).await;
            }
        });
    }

    /// Cleans up after a task whose shim is dead, and publishes its end.
    pub async fn bury(&self, removal: Removal) -> Exit {
        let task = removal.task().clone();
        let guess = self.clean_up(&task.bundle, &task.binary).await;
        if self.shims.give_back(&task.shim) {
            let socket = task.shim.socket.clone();
            shared_sys::blocking(move || remove_dead_socket(&socket)).await;
        }
        let known = match task.state("") {
            Some(State::Stopped(exit)) => Some(exit),
            Some(State::Created | State::Running | State::Paused | State::Unknown) | None => None,
        };
        let pid = task.with("", |init| init.pid).filter(|pid| *pid != 0);
        let exit = known.unwrap_or(Exit { pid: pid.unwrap_or(guess.pid), ..guess });
        removal.done();
        for exec in task.execs() {
            let pid = task.with(&exec, |process| process.pid).unwrap_or(0);
            task.exited(&exec, Exit { pid, ..exit });
        }
        self.publish_end(task.ns.as_str(), task.id.as_str(), exit);
        exit
    }

    /// Ends what is left of a task without a shim, and removes its bundle. Answers the exit that must be assumed.
    pub async fn clean_up(&self, bundle: &Bundle, binary: &Path) -> Exit {
        let guess = self.end_runtime(bundle, binary).await;
        remove_bundle(bundle).await;
        guess
    }

    /// Kills what is left of the shim, and runs its `delete`. The bundle stays.
    pub async fn end_runtime(&self, bundle: &Bundle, binary: &Path) -> Exit {
        let _place = self.burials.acquire().await.expect("the semaphore is never closed");
        kill_strays(bundle).await;
        let guess = match launch::delete(&self.config, bundle, binary).await {
            Ok(exit) => exit,
            Err(e) => {
                tracing::error!(id = %bundle.id, ns = %bundle.ns, error = %e, "clean up after a dead shim");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Exit { pid: 0, status: UNKNOWN, at: now.as_nanos() as i64 }
            }
        };
        let (path, id) = (bundle.path.clone(), bundle.id.to_string());
        let socket = launch::usual_socket(&self.config, bundle);
        shared_sys::blocking(move || {
            cgroup::remove(&path, &id);
            remove_dead_socket(&socket);
        })
        .await;
        guess
    }

    /// Publishes the exit of an init process, if nobody has, and the end of its task.
    pub fn publish_end(&self, ns: &str, id: &str, exit: Exit) {
        self.publish_exit(ns, id, "", exit);
        let deleted = TaskDelete {
            container_id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)),
            id: id.to_owned(),
        };
        self.exchange.publish_message(ns, "/tasks/delete", &deleted);
    }

    /// Publishes the exit of a process, if nobody has.
    pub fn publish_exit(&self, ns: &str, id: &str, exec: &str, exit: Exit) {
        if self.exits.first(ns, id, exec, exit.pid) {
            let exited = TaskExit {
                container_id: id.to_owned(),
                id: if exec.is_empty() { id.to_owned() } else { exec.to_owned() },
                pid: exit.pid,
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)),
            };
            self.exchange.publish_message(ns, "/tasks/exit", &exited);
        }
    }
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as i32 }
}
