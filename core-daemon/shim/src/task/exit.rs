//! What happens when a process ends, and when the kernel kills one for memory.

use std::sync::Arc;
use std::time::Duration;

use shared_proto::containerd::events::{TaskExit, TaskOom};
use tokio::sync::oneshot;

use super::Tasks;
use super::container::Container;
use super::process::{Process, State};
use crate::cgroup::{Cgroup, Watch};
use crate::exits::Exit;
use crate::log;

/// How long a container's first exit waits for those of its execs, which were killed with it.
const EXECS: Duration = Duration::from_secs(2);
const KILL: u32 = 9;

impl Tasks {
    /// Follows a process to its end.
    pub(super) fn watch_exit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        process: &Arc<Process>,
        exit: oneshot::Receiver<Exit>,
    ) {
        let (tasks, container, process) = (self.clone(), container.clone(), process.clone());
        tokio::spawn(async move {
            let Ok(exit) = exit.await else { return };
            if process.exec.is_empty() {
                container.died.notify_one();
                tasks.first_ended(&container, exit).await;
            }
            // Whoever starts it publishes that first.
            let _turn = process.turn.lock().await;
            process.stop(exit);
            let event = TaskExit {
                container_id: container.id.clone(),
                id: if process.exec.is_empty() { container.id.clone() } else { process.exec.clone() },
                pid: exit.pid,
                exit_status: exit.status,
                exited_at: Some(exit.timestamp()),
            };
            tasks.events.publish("/tasks/exit", &event);
        });
    }

    /// Before the end of a container is told: it is on record, and none of its processes runs any more.
    async fn first_ended(&self, container: &Container, exit: Exit) {
        if let Err(e) = exit.save(&container.bundle) {
            log::warn(format_args!("the exit of {:?} can't be kept on disk: {e}", container.id));
        }
        // In a PID namespace of its own the kernel has seen to it.
        if !container.own_pids
            && let Ok(cgroup) = container.cgroup()
        {
            cgroup.kill(KILL);
        }
        let execs: Vec<_> = container.execs().values().cloned().collect();
        let running = execs.iter().filter(|exec| exec.pid() != 0 && !matches!(exec.state(), State::Stopped(_)));
        let ended = async {
            for exec in running {
                exec.ended().await;
            }
        };
        if tokio::time::timeout(EXECS, ended).await.is_err() {
            log::warn(format_args!("execs of {:?} outlive its first process", container.id));
        }
    }

    /// Follows the kills for memory of a container.
    pub(super) fn watch_memory(&self, id: &str, cgroup: &Arc<Cgroup>) {
        let mut watch = match Watch::new(cgroup) {
            Ok(Some(watch)) => watch,
            Ok(None) => return,
            Err(e) => return log::warn(format_args!("kills for memory of {id:?} can't be watched: {e}")),
        };
        let (events, container_id) = (self.events.clone(), id.to_owned());
        tokio::spawn(async move {
            while watch.killed().await {
                events.publish("/tasks/oom", &TaskOom { container_id: container_id.clone() });
            }
        });
    }
}
