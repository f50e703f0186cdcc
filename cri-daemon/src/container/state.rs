//! The states of a container, and every way from one to another.
//!
//! ```text
//!  CreateContainer       StartContainer            the process ended
//!   ─▶ Created ─────────▶ Starting ──ok──▶ Running ────────────────▶ Exited ──RemoveContainer──▶ (gone)
//!         │                  └──failed: 128, StartError ──────────────▲  ▲
//!         │ recovery: the core could not say                             │
//!         └──────────▶ Unknown ──the core says now, or StopContainer─────┘
//!                         └──it runs: Running
//! ```
//!
//! CRI calls Starting CREATED. Any state but Starting may be removed; a running one is killed first.

use std::sync::Arc;
use std::time::Duration;

use shared_proto::cri::v1::ContainerState;
use shared_proto::{Error, Result};
use tokio::sync::watch;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Unix times, nanoseconds. `started_at` is 0 when it never ran.
    pub started_at: i64,
    pub finished_at: i64,
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`.
    pub reason: String,
    pub message: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Created,
    /// StartContainer is at work.
    Starting,
    Running {
        pid: u32,
        started_at: i64,
    },
    Exited(Exit),
    /// The core could not say in time: only stop and remove are allowed.
    Unknown {
        reason: String,
        /// The core is asked again until it says. Not for a record that can't be read.
        asking: bool,
    },
}

impl State {
    pub fn cri(&self) -> ContainerState {
        match self {
            State::Created | State::Starting => ContainerState::ContainerCreated,
            State::Running { .. } => ContainerState::ContainerRunning,
            State::Exited(_) => ContainerState::ContainerExited,
            State::Unknown { .. } => ContainerState::ContainerUnknown,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Starting => "starting",
            State::Running { .. } => "running",
            State::Exited(_) => "exited",
            State::Unknown { .. } => "in an unknown state",
        }
    }
}

impl Exit {
    /// The end of a process that ran: the reason follows from the code and from whether memory ran out.
    pub fn of(started_at: i64, finished_at: i64, code: i32, oom: bool) -> Self {
        let reason = match (oom, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        Self { started_at, finished_at, code, reason: reason.into(), message: String::new() }
    }

    /// The end of a container that never ran.
    pub fn start_error(finished_at: i64, e: &Error) -> Self {
        let message = e.message.clone();
        Self { started_at: 0, finished_at, code: 128, reason: "StartError".into(), message }
    }

    /// The end of one that nobody saw ending.
    pub fn unknown(started_at: i64, finished_at: i64) -> Self {
        let message = "its end was not seen".into();
        Self { started_at, finished_at, code: 255, reason: "Unknown".into(), message }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inside {
    state: State,
    /// The kernel killed one of its processes for memory.
    oom: bool,
    removal: Removal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    No,
    AtWork,
    Done,
}

/// The state of one container, to be changed only as in the diagram; see `events::publish` for who is told.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    id: Arc<str>,
    inside: watch::Sender<Inside>,
}

/// The right to remove a container; ends when dropped. There is one at a time.
#[derive(Debug)]
pub struct Removing(watch::Sender<Inside>);

impl Lifecycle {
    pub fn new(id: &str, state: State) -> Self {
        let inside = Inside { state, oom: false, removal: Removal::No };
        Self { id: id.into(), inside: watch::Sender::new(inside) }
    }

    pub fn state(&self) -> State {
        self.inside.borrow().state.clone()
    }

    pub fn oom(&self) -> bool {
        self.inside.borrow().oom
    }

    /// The kernel killed one of its processes for memory.
    pub fn mark_oom(&self) {
        self.inside.send_if_modified(|inside| !std::mem::replace(&mut inside.oom, true));
    }

    /// Created ─▶ Starting, or why not.
    pub fn begin_start(&self) -> Result<()> {
        let mut outcome = Ok(());
        self.inside.send_if_modified(|inside| {
            outcome = match (&inside.state, inside.removal) {
                (State::Created, Removal::No) => Ok(()),
                (State::Created, Removal::AtWork | Removal::Done) => {
                    Err(Error::precondition(format!("container {} is being removed", self.id)))
                }
                (State::Starting | State::Running { .. } | State::Exited(_) | State::Unknown { .. }, _) => {
                    let state = inside.state.name();
                    Err(Error::precondition(format!("container {} is {state}; it must be created", self.id)))
                }
            };
            if outcome.is_ok() {
                inside.state = State::Starting;
            }
            outcome.is_ok()
        });
        outcome
    }

    /// Why its configuration can't be changed: only that of a container that was created or runs can.
    pub fn may_change(&self) -> Result<()> {
        let inside = self.inside.borrow();
        match (&inside.state, inside.removal) {
            (State::Created | State::Starting | State::Running { .. }, Removal::No) => Ok(()),
            (State::Created | State::Starting | State::Running { .. }, Removal::AtWork | Removal::Done) => {
                Err(Error::precondition(format!("container {} is being removed", self.id)))
            }
            (State::Exited(_) | State::Unknown { .. }, _) => {
                let state = inside.state.name();
                Err(Error::precondition(format!("container {} is {state}; it must be created or running", self.id)))
            }
        }
    }

    /// Starting ─▶ Running. Whether it was so.
    pub fn started(&self, pid: u32, started_at: i64) -> bool {
        self.change(|state| match state {
            State::Starting => Some(State::Running { pid, started_at }),
            State::Created | State::Running { .. } | State::Exited(_) | State::Unknown { .. } => None,
        })
    }

    /// Unknown ─▶ Running: the core has said. Whether it was so.
    pub fn found_running(&self, pid: u32, started_at: i64) -> bool {
        self.change(|state| match state {
            State::Unknown { .. } => Some(State::Running { pid, started_at }),
            State::Created | State::Starting | State::Running { .. } | State::Exited(_) => None,
        })
    }

    /// Anything but Exited ─▶ Exited. The first end is the one that counts: whether this was it.
    pub fn exited(&self, exit: Exit) -> bool {
        self.change(|state| match state {
            State::Created | State::Starting | State::Running { .. } | State::Unknown { .. } => {
                Some(State::Exited(exit))
            }
            State::Exited(_) => None,
        })
    }

    fn change(&self, next: impl FnOnce(&State) -> Option<State>) -> bool {
        self.inside.send_if_modified(|inside| match next(&inside.state) {
            Some(state) => {
                tracing::debug!(container = %self.id, from = inside.state.name(), to = state.name(), "container");
                inside.state = state;
                true
            }
            None => false,
        })
    }

    /// Waits until StartContainer is through, and says what came of it.
    pub async fn settled(&self) -> State {
        self.wait(|state| *state != State::Starting).await
    }

    /// Waits for the end. Bound it with a deadline of yours.
    pub async fn ended(&self) -> State {
        self.wait(|state| matches!(state, State::Exited(_))).await
    }

    async fn wait(&self, mut arrived: impl FnMut(&State) -> bool) -> State {
        let mut seen = self.inside.subscribe();
        match seen.wait_for(|inside| arrived(&inside.state)).await {
            Ok(inside) => inside.state.clone(),
            // We hold the sender ourselves.
            Err(_) => self.state(),
        }
    }

    /// Begins a removal, once nobody else is at one. `None`: somebody else has done it.
    pub async fn begin_removal(&self, patience: Duration) -> Result<Option<Removing>> {
        let waiting = async {
            let mut seen = self.inside.subscribe();
            loop {
                let mut removal = Removal::No;
                self.inside.send_if_modified(|inside| {
                    removal = inside.removal;
                    if removal == Removal::No {
                        inside.removal = Removal::AtWork;
                    }
                    removal == Removal::No
                });
                match removal {
                    Removal::No => return Some(Removing(self.inside.clone())),
                    Removal::Done => return None,
                    // Ends with the state's owner, which is us: the change comes.
                    Removal::AtWork => drop(seen.changed().await),
                }
            }
        };
        let late = || Error::deadline(format!("container {} is being removed for more than {patience:?}", self.id));
        tokio::time::timeout(patience, waiting).await.map_err(|_| late())
    }
}

impl Removing {
    /// The container is gone: whoever waits to remove it is done as well.
    pub fn done(self) {
        self.0.send_modify(|inside| inside.removal = Removal::Done);
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        self.0.send_if_modified(|inside| {
            let at_work = inside.removal == Removal::AtWork;
            if at_work {
                inside.removal = Removal::No;
            }
            at_work
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn only_the_drawn_ways_are_open() {
        let life = Lifecycle::new("c", State::Created);
        life.started(1, 1);
        assert_eq!(life.state(), State::Created, "only what is starting can have started");
        life.begin_start().unwrap();
        assert_eq!(life.state().cri(), ContainerState::ContainerCreated);
        assert_eq!(life.begin_start().unwrap_err().code, Code::FailedPrecondition);
        life.started(7, 100);
        let first = Exit::of(100, 200, 0, false);
        life.exited(first.clone());
        life.exited(Exit::of(100, 300, 137, true));
        life.started(8, 400);
        assert_eq!(life.state(), State::Exited(first), "the first end counts");
        assert!(life.begin_start().unwrap_err().message.contains("exited"));
    }

    #[test]
    fn reasons_follow_from_code_and_memory() {
        assert_eq!(Exit::of(1, 2, 0, false).reason, "Completed");
        assert_eq!(Exit::of(1, 2, 3, false).reason, "Error");
        assert_eq!(Exit::of(1, 2, 137, true).reason, "OOMKilled");
        let failed = Exit::start_error(5, &Error::invalid("no such command"));
        assert_eq!((failed.code, failed.reason.as_str(), failed.started_at), (128, "StartError", 0));
        assert_eq!(failed.message, "no such command");
    }

    #[tokio::test]
    async fn one_removal_at_a_time_and_the_others_are_done_with_it() {
        let life = Lifecycle::new("c", State::Created);
        let first = life.begin_removal(SOON).await.unwrap().unwrap();
        assert!(life.begin_start().unwrap_err().message.contains("being removed"));
        assert_eq!(life.begin_removal(SOON).await.unwrap_err().code, Code::DeadlineExceeded);
        drop(first);
        let again = life.begin_removal(SOON).await.unwrap().expect("a failed removal can be tried again");
        let other = tokio::spawn({
            let life = life.clone();
            async move { life.begin_removal(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(SOON).await;
        again.done();
        assert!(other.await.unwrap().unwrap().is_none());
    }
}
