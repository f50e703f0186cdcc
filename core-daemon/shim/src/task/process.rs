//! One process of a container.
//!
//! ```text
//!            start              exit
//! Created ──────────▶ Running ────────▶ Stopped
//!    │                 │   ▲               ▲
//!    │           pause ▼   │ resume        │
//!    │                 Paused ─────────────┤
//!    └──────── exit before the start ──────┘
//! ```
//!
//! A container's first process exists from its making: it waits to be started. An exec exists from its start.

use std::sync::Mutex;

use tokio::sync::watch;

use crate::exits::Exit;
use crate::io::{Io, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

/// See the module.
pub struct Process {
    /// Empty: the container's first.
    pub exec: String,
    pub stdio: Stdio,
    /// The OCI process of an exec, JSON.
    pub spec: Vec<u8>,
    /// Held by calls that change the process, and by the exit until it is published.
    pub turn: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    exit: watch::Sender<Option<Exit>>,
}

struct Inner {
    /// 0: there is none yet.
    pid: u32,
    state: State,
    io: Io,
    /// The client sends no more. It may say so while the engine still makes the process.
    input_ended: bool,
}

impl Process {
    pub fn new(exec: &str, stdio: Stdio, spec: Vec<u8>) -> Self {
        Self {
            exec: exec.to_owned(),
            stdio,
            spec,
            turn: tokio::sync::Mutex::default(),
            inner: Mutex::new(Inner { pid: 0, state: State::Created, io: Io::default(), input_ended: false }),
            exit: watch::Sender::new(None),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("a process")
    }

    pub fn pid(&self) -> u32 {
        self.inner().pid
    }

    pub fn state(&self) -> State {
        self.inner().state
    }

    /// The process exists now.
    pub fn made(&self, pid: u32, io: Io) {
        let mut inner = self.inner();
        inner.pid = pid;
        inner.io = io;
        if inner.input_ended {
            inner.io.close_stdin();
        }
    }

    /// The client sends no more input.
    pub fn close_stdin(&self) {
        let mut inner = self.inner();
        inner.input_ended = true;
        inner.io.close_stdin();
    }

    /// Moves on, unless it has stopped: an exit is final.
    pub fn set(&self, state: State) {
        let mut inner = self.inner();
        match inner.state {
            State::Stopped(_) => {}
            State::Created | State::Running | State::Paused => inner.state = state,
        }
    }

    /// The end; tells everybody who waits.
    pub fn stop(&self, exit: Exit) {
        self.set(State::Stopped(exit));
        self.exit.send_replace(Some(exit));
    }

    /// Until the end.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.expect("the process outlives the wait");
        exit.expect("it was waited for")
    }

    /// Does something with the streams.
    pub fn with_io<T>(&self, what: impl FnOnce(&Io) -> T) -> T {
        what(&self.inner().io)
    }

    /// Lets the streams go.
    pub fn close(&self) {
        self.inner().io = Io::default();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::io::{Owner, open};

    #[tokio::test]
    async fn input_may_end_before_the_process_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        let stdio = Stdio { stdin: path.to_str().unwrap().into(), ..Stdio::default() };
        let owner = Owner { namespace: "ns".into(), id: "box".into(), uid: 0, gid: 0 };
        let (streams, io) = open(&stdio, &owner).await.unwrap();
        let mut client = shared_sys::fifo::open_write(&path).unwrap();
        client.write_all(b"all of it").unwrap();
        let process = Process::new("e", stdio, Vec::new());
        process.close_stdin();
        process.made(7, io);
        let read = shared_sys::blocking(move || {
            let mut text = String::new();
            std::fs::File::from(streams.stdin).read_to_string(&mut text).map(|_| text)
        });
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), read).await;
        assert_eq!(read.expect("an end").unwrap(), "all of it");
    }

    #[tokio::test]
    async fn an_exit_is_final() {
        let process = Process::new("", Stdio::default(), Vec::new());
        process.made(7, Io::default());
        process.set(State::Running);
        let exit = Exit { pid: 7, status: 3, at: std::time::SystemTime::now() };
        process.stop(exit);
        process.set(State::Running);
        assert_eq!(process.state(), State::Stopped(exit));
        assert_eq!(process.ended().await, exit);
    }
}
