//! One process of a task, the init process or an exec, and its states.
//!
//! ```text
//!            started            paused
//! Created ────────────▶ Running ──────▶ Paused
//!    │                   │   ▲ resumed     │
//!    │ exited            │   └─────────────┤
//!    ▼                   ▼                 │
//! Stopped ◀──────────────┴─────────────────┘       Unknown: the shim didn't answer; any news leads out
//! ```
//!
//! The news come from two sides, answers to calls and events of the shim, in either order. So a transition that comes
//! late or twice does nothing, and `Stopped` is final.

use tokio::sync::watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub pid: u32,
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    Stopped(Exit),
    /// The shim didn't say.
    Unknown,
}

impl State {
    /// The word for it, as clients show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped(_) => "stopped",
            State::Unknown => "unknown",
        }
    }
}

/// Where a process's input and output go: FIFO paths or URIs that only the shim reads; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The task.
    pub id: String,
    /// Empty for the init process.
    pub exec: String,
    /// 0 for an exec that has not been started.
    pub pid: u32,
    pub state: State,
    pub stdio: Stdio,
}

/// A process in memory.
pub(super) struct Process {
    pub pid: u32,
    pub stdio: Stdio,
    /// Whether `state` can be trusted, or the shim must be asked.
    pub sure: bool,
    /// Whether somebody already waits at the shim for the exit.
    pub watched: bool,
    state: watch::Sender<State>,
}

impl Process {
    pub fn new(pid: u32, state: State, stdio: Stdio) -> Self {
        let sure = state != State::Unknown;
        Self { pid, stdio, sure, watched: false, state: watch::Sender::new(state) }
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Sees every later state.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub fn started(&mut self, pid: u32) {
        match self.state() {
            State::Created | State::Unknown => {
                self.pid = pid;
                self.state.send_replace(State::Running);
            }
            State::Running | State::Paused | State::Stopped(_) => {}
        }
    }

    pub fn paused(&mut self) {
        match self.state() {
            State::Running | State::Unknown => {
                self.state.send_replace(State::Paused);
            }
            State::Created | State::Paused | State::Stopped(_) => {}
        }
    }

    pub fn resumed(&mut self) {
        match self.state() {
            State::Paused | State::Unknown => {
                self.state.send_replace(State::Running);
            }
            State::Created | State::Running | State::Stopped(_) => {}
        }
    }

    /// The first exit is kept. One of another process id belongs to an earlier process of this name.
    pub fn exited(&mut self, exit: Exit) {
        match self.state() {
            State::Stopped(_) => {}
            State::Created | State::Running | State::Paused | State::Unknown => {
                if self.pid == 0 || exit.pid == 0 || self.pid == exit.pid {
                    self.pid = self.pid.max(exit.pid);
                    self.sure = true;
                    self.state.send_replace(State::Stopped(Exit { pid: self.pid, ..exit }));
                }
            }
        }
    }

    /// What the shim says when it is asked.
    pub fn told(&mut self, pid: u32, state: State, stdio: Stdio) {
        if matches!(self.state(), State::Stopped(_)) {
            return;
        }
        self.pid = pid;
        self.stdio = stdio;
        self.sure = state != State::Unknown;
        self.state.send_replace(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(pid: u32, status: u32) -> Exit {
        Exit { pid, status, at: 1 }
    }

    #[test]
    fn an_exit_that_overtakes_the_start_is_kept() {
        let mut process = Process::new(0, State::Created, Stdio::default());
        process.exited(exit(7, 3));
        process.started(7);
        assert_eq!((process.pid, process.state()), (7, State::Stopped(exit(7, 3))));
    }

    #[test]
    fn the_first_exit_counts() {
        let mut process = Process::new(7, State::Created, Stdio::default());
        process.started(7);
        process.exited(exit(6, 1));
        assert_eq!(process.state(), State::Running, "another process");
        process.exited(exit(7, 0));
        process.exited(exit(7, 137));
        process.told(7, State::Running, Stdio::default());
        assert_eq!(process.state(), State::Stopped(exit(7, 0)));
    }

    #[test]
    fn an_unknown_state_is_not_trusted() {
        let mut process = Process::new(7, State::Unknown, Stdio::default());
        assert!(!process.sure);
        process.told(7, State::Paused, Stdio::default());
        assert!(process.sure);
        process.resumed();
        assert_eq!(process.state(), State::Running);
    }
}
