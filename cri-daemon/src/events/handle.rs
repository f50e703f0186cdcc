//! What one exit leads to, and trying again when the core fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_proto::containerd::task_types::Status;
use shared_proto::{Error, Result};
use tokio::sync::Notify;

use crate::call::tasks::Ended;
use crate::pod::{Leftover, Sandbox, State};
use crate::{Cri, Inner, container};

/// The end of a process, as an event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Which process: an event may be late, and another process have the id by then.
    pub pid: u32,
    pub ended: Ended,
}

/// Pauses between the tries.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The ids that somebody looks after now. New news of one wakes its handler.
#[derive(Default)]
pub struct Handlers(Mutex<HashMap<String, Arc<Notify>>>);

impl Handlers {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new handler of this id, or `None` when there is one, which is woken then.
    fn enter(&self, id: &str) -> Option<Arc<Notify>> {
        let mut all = self.all();
        if let Some(there) = all.get(id) {
            there.notify_one();
            return None;
        }
        let wake = Arc::new(Notify::new());
        all.insert(id.to_owned(), wake.clone());
        Some(wake)
    }

    /// Leaves the place, unless there was news meanwhile: `false` means to look again.
    fn leave(&self, id: &str, wake: &Notify) -> bool {
        let mut all = self.all();
        // Whoever brings news does it under this lock, so none is missed.
        let news = futures::FutureExt::now_or_never(wake.notified()).is_some();
        if !news {
            all.remove(id);
        }
        !news
    }
}

impl Cri {
    /// Sees to the end of a sandbox's or a container's process. `told`: what an event said; without it the core is
    /// asked.
    pub(crate) fn handle(&self, id: String, told: Option<Told>) {
        let Some(wake) = self.0.exits.enter(&id) else { return };
        let cri = self.clone();
        self.0.work.spawn(async move {
            let mut news = told;
            let mut pause = FIRST_PAUSE;
            loop {
                match cri.0.look_after(&id, news.take()).await {
                    Ok(()) if cri.0.exits.leave(&id, &wake) => return,
                    // An event came while we were at it.
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(error) => {
                        tracing::warn!(id, %error, again_after = ?pause, "an exit could not be handled");
                        let woken = async {
                            let _ = tokio::time::timeout(pause, wake.notified()).await;
                        };
                        if cri.0.shutdown.run_until_cancelled(woken).await.is_none() {
                            return;
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        });
    }
}

impl Inner {
    async fn look_after(&self, id: &str, told: Option<Told>) -> Result<()> {
        if let Some(container) = self.containers.exact(id) {
            // A process may end before its start is through.
            return match (container.life.settled().await, told) {
                (container::State::Running { pid, .. }, Some(told)) if told.pid == pid => {
                    self.finish(&container, told.ended).await
                }
                // Nothing was told, or it was told of an earlier process: a start that was given up.
                (container::State::Running { .. } | container::State::Unknown { .. }, _) => {
                    self.look_at_container(&container).await
                }
                // Ended in our eyes, but maybe not deleted in the core's.
                (container::State::Exited(_), _) => self.delete_task(id).await.map(drop),
                (container::State::Created | container::State::Starting, _) => Ok(()),
            };
        }
        match self.sandboxes.exact(id) {
            Some(sandbox) => self.look_after_sandbox(&sandbox, told).await,
            // Not ours, or removed meanwhile.
            None => Ok(()),
        }
    }

    async fn look_after_sandbox(&self, sandbox: &Sandbox, told: Option<Told>) -> Result<()> {
        sandbox.life.settled().await;
        let id = sandbox.record().id.clone();
        let pid = match sandbox.life.state() {
            State::Ready { pid } => Some(pid),
            State::Unknown { asking: true, .. } => None,
            State::NotReady { .. } => return self.delete_task(&id).await.map(drop),
            State::Creating | State::Unknown { asking: false, .. } => return Ok(()),
        };
        let sure = told.is_some_and(|told| Some(told.pid) == pid);
        let task = if sure { None } else { self.task(&id).await? };
        let over = match task.as_ref().map(|process| (process.status(), process.pid)) {
            None | Some((Status::Stopped | Status::Created, _)) => true,
            Some((Status::Running | Status::Paused | Status::Pausing, pid)) => {
                self.sandbox_found_ready(sandbox, pid);
                false
            }
            Some((Status::Unknown, _)) => {
                return Err(Error::unavailable(format!("the shim of sandbox {id} does not answer")));
            }
        };
        if over {
            tracing::warn!(sandbox = id, "the pause process has ended");
            // Told at once: the kubelet must see it, whether or not the core can delete the task.
            self.sandbox_ended(sandbox, Leftover::Maybe);
            self.stats.forget(&id);
            self.delete_task(&id).await?;
        }
        Ok(())
    }
}
