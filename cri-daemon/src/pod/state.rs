//! The states of a sandbox, and every way from one to another.
//!
//! ```text
//!  RunPodSandbox                      StopPodSandbox, or the pause process ended
//!   ─▶ Creating ────ok────▶ Ready ─────────────────────▶ NotReady ──RemovePodSandbox──▶ (gone)
//!         │                                                 ▲  ▲
//!         ├── failed and cleaned ──▶ (gone)                 │  │
//!         └── failed, something could not be cleaned ───────┘  │
//!  recovery: the core could not say ──▶ Unknown ──StopPodSandbox, or it says so now
//!                                          └──it runs: Ready
//! ```
//!
//! Beside the state there is the gate: calls that work on a sandbox's containers (`admit`) pass while it is Ready and
//! nobody stops it, and whoever stops it waits until they are through. So no container is made in a pod that is on its
//! way out.

use std::sync::Arc;
use std::time::Duration;

use shared_proto::cri::v1::PodSandboxState;
use shared_proto::{Error, Result};
use tokio::sync::watch;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// RunPodSandbox is at work: not listed yet.
    Creating,
    /// The pause process runs.
    Ready { pid: u32 },
    /// It doesn't. `network`: whether there may be something of the network left to take back.
    NotReady { network: Leftover },
    /// The core could not say in time: only stop and remove are allowed.
    Unknown {
        reason: String,
        /// The core is asked again until it says. Not for a record that can't be read.
        asking: bool,
    },
}

/// Whether something may be left to clean up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    Maybe,
    Nothing,
}

impl State {
    /// What CRI says about it; it has only two words.
    pub fn cri(&self) -> PodSandboxState {
        match self {
            State::Ready { .. } => PodSandboxState::SandboxReady,
            State::Creating | State::NotReady { .. } | State::Unknown { .. } => PodSandboxState::SandboxNotready,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            State::Creating => "being created",
            State::Ready { .. } => "ready",
            State::NotReady { .. } => "not ready",
            State::Unknown { .. } => "in an unknown state",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inside {
    state: State,
    /// Calls at work on the sandbox's containers.
    admitted: usize,
    /// StopPodSandbox or RemovePodSandbox is at work.
    ending: bool,
    /// It is gone from the core; only waiters still hold it.
    removed: bool,
}

/// The state of one sandbox, to be changed only as in the diagram; see `events::publish` for who is told.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    id: Arc<str>,
    inside: watch::Sender<Inside>,
}

/// Leave to work on a sandbox's containers; ends when dropped.
#[derive(Debug)]
pub struct Admitted(watch::Sender<Inside>);

/// The right to stop or remove a sandbox; ends when dropped. There is one at a time.
#[derive(Debug)]
pub struct Ending(watch::Sender<Inside>);

impl Lifecycle {
    pub fn new(id: &str, state: State) -> Self {
        let inside = Inside { state, admitted: 0, ending: false, removed: false };
        Self { id: id.into(), inside: watch::Sender::new(inside) }
    }

    pub fn state(&self) -> State {
        self.inside.borrow().state.clone()
    }

    /// RunPodSandbox is through. Only from Creating: whether it was so.
    pub fn made(&self, pid: u32) -> bool {
        self.change(|state| match state {
            State::Creating => Some(State::Ready { pid }),
            State::Ready { .. } | State::NotReady { .. } | State::Unknown { .. } => None,
        })
    }

    /// Unknown ─▶ Ready: the core has said that the pause process runs. Whether it was so.
    pub fn found_ready(&self, pid: u32) -> bool {
        self.change(|state| match state {
            State::Unknown { .. } => Some(State::Ready { pid }),
            State::Creating | State::Ready { .. } | State::NotReady { .. } => None,
        })
    }

    /// The pause process is gone, or was never there. `network` says what may be left then; what was known to be gone
    /// stays gone. Whether it was ready, as far as was known.
    pub fn ended(&self, network: Leftover) -> bool {
        let mut ran = false;
        self.change(|state| match state {
            State::NotReady { network: Leftover::Nothing } => None,
            State::Ready { .. } | State::Unknown { .. } => {
                ran = true;
                Some(State::NotReady { network })
            }
            State::Creating | State::NotReady { .. } => Some(State::NotReady { network }),
        });
        ran
    }

    fn change(&self, next: impl FnOnce(&State) -> Option<State>) -> bool {
        self.inside.send_if_modified(|inside| match next(&inside.state) {
            Some(state) if state != inside.state => {
                tracing::debug!(sandbox = %self.id, from = inside.state.name(), to = state.name(), "sandbox");
                inside.state = state;
                true
            }
            Some(_) | None => false,
        })
    }

    /// Lets a call in that works on containers of this sandbox, with the pid of the pause process.
    pub fn admit(&self) -> Result<(Admitted, u32)> {
        let mut outcome = Err(Error::internal("not looked at"));
        self.inside.send_if_modified(|inside| {
            outcome =
                match inside.state {
                    State::Ready { pid } if !inside.ending => Ok(pid),
                    State::Ready { .. } => Err(Error::precondition(format!("sandbox {} is being stopped", self.id))),
                    State::Creating | State::NotReady { .. } | State::Unknown { .. } => Err(Error::precondition(
                        format!("sandbox {} is {}; it must be ready", self.id, inside.state.name()),
                    )),
                };
            inside.admitted += usize::from(outcome.is_ok());
            outcome.is_ok()
        });
        outcome.map(|pid| (Admitted(self.inside.clone()), pid))
    }

    /// Closes the gate and waits until the sandbox is made, nobody else ends it and all who were let in are through.
    /// `None`: somebody else removed it meanwhile.
    pub async fn end(&self, patience: Duration) -> Result<Option<Ending>> {
        let late = |doing| Error::deadline(format!("sandbox {} is {doing} for more than {patience:?}", self.id));
        let waiting = async {
            loop {
                let mut seen = self.inside.subscribe();
                if seen.wait_for(|i| i.removed || (!i.ending && i.state != State::Creating)).await.is_err() {
                    return None;
                }
                if self.inside.borrow().removed {
                    return None;
                }
                let mine = self.inside.send_if_modified(|inside| {
                    let free = !inside.ending && !inside.removed;
                    inside.ending |= free;
                    free
                });
                if mine {
                    return Some(Ending(self.inside.clone()));
                }
            }
        };
        let Some(ending) = tokio::time::timeout(patience, waiting).await.map_err(|_| late("being made or ended"))?
        else {
            return Ok(None);
        };
        let mut seen = self.inside.subscribe();
        let through = seen.wait_for(|inside| inside.admitted == 0);
        match tokio::time::timeout(patience, through).await {
            Ok(_) => Ok(Some(ending)),
            Err(_) => Err(late("in use by calls on its containers")),
        }
    }

    /// Waits until RunPodSandbox is through, one way or the other.
    pub async fn settled(&self) {
        let mut seen = self.inside.subscribe();
        // The sender is ours, so the wait can only end by the state.
        let _ = seen.wait_for(|inside| inside.state != State::Creating).await;
    }
}

impl Ending {
    /// The sandbox is gone: whoever waits to end it is done as well.
    pub fn removed(self) {
        self.0.send_modify(|inside| inside.removed = true);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_modify(|inside| inside.ending = false);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.send_modify(|inside| inside.admitted -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::Code;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn only_the_drawn_ways_are_open() {
        let life = Lifecycle::new("s", State::Creating);
        assert_eq!(life.admit().unwrap_err().code, Code::FailedPrecondition);
        life.made(7);
        assert_eq!(life.state(), State::Ready { pid: 7 });
        life.ended(Leftover::Maybe);
        life.made(8);
        assert_eq!(life.state(), State::NotReady { network: Leftover::Maybe });
        life.ended(Leftover::Nothing);
        life.ended(Leftover::Maybe);
        assert_eq!(life.state(), State::NotReady { network: Leftover::Nothing }, "a late exit event changes nothing");
    }

    #[tokio::test]
    async fn whoever_ends_a_pod_waits_for_its_calls_and_lets_no_more_in() {
        let life = Lifecycle::new("s", State::Ready { pid: 1 });
        let (call, _) = life.admit().unwrap();
        assert_eq!(life.end(SOON).await.unwrap_err().code, Code::DeadlineExceeded);
        assert!(life.admit().is_ok(), "the attempt to end it is over");

        let waiting = tokio::spawn({
            let life = life.clone();
            async move { life.end(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(SOON).await;
        assert!(life.admit().unwrap_err().message.contains("being stopped"));
        assert!(!waiting.is_finished());
        drop(call);
        let ending = waiting.await.unwrap().unwrap().unwrap();
        assert_eq!(life.end(SOON).await.unwrap_err().code, Code::DeadlineExceeded, "one at a time");
        ending.removed();
        assert!(life.end(SOON).await.unwrap().is_none(), "removed by somebody else is done");
    }

    #[tokio::test]
    async fn a_sandbox_in_the_making_is_ended_when_it_is_made() {
        let life = Lifecycle::new("s", State::Creating);
        let waiting = tokio::spawn({
            let life = life.clone();
            async move { life.end(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(SOON).await;
        assert!(!waiting.is_finished());
        life.made(1);
        assert!(waiting.await.unwrap().unwrap().is_some());
    }
}
