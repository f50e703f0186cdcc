//! Everybody's exit: the engines that we run, the containers' processes, and strangers that lost their parent.
//!
//! The shim is a subreaper, so the first process of a container becomes its child when the engine that made it ends.
//! One loop reaps all children. A child that has ended keeps its pid until it is reaped, and everything here happens
//! on one thread: a pid that is marked as running can't be somebody else's. That is what a pidfd would be for.
//!
//! A container's process may end before its engine has told us its pid. While an engine is at work (a [`Birth`]), the
//! exits of strangers are kept for that case.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::exits::Exit;

/// See the module.
#[derive(Default)]
pub struct Reaper(Mutex<Table>);

#[derive(Default)]
struct Table {
    awaited: HashMap<u32, oneshot::Sender<Exit>>,
    strangers: HashMap<u32, Exit>,
    births: usize,
}

/// An engine is about to make a process whose pid is not known yet.
pub struct Birth(Arc<Reaper>);

impl Drop for Birth {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.births -= 1;
        if table.births == 0 {
            table.strangers = HashMap::new();
        }
    }
}

impl Reaper {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().expect("the reaper's table")
    }

    /// Runs a command; the receiver tells its exit.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(u32, oneshot::Receiver<Exit>)> {
        // No reaping in between: the loop runs on this thread.
        let child = command.spawn()?;
        Ok((child.id(), self.expect(child.id())))
    }

    /// To be held from before the engine starts until [`Reaper::expect`] was told the new process.
    pub fn birth(self: &Arc<Self>) -> Birth {
        self.table().births += 1;
        Birth(self.clone())
    }

    /// The exit of a child, which may be over already if a [`Birth`] is held.
    pub fn expect(&self, pid: u32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        match table.strangers.remove(&pid) {
            Some(exit) => drop(sender.send(exit)),
            None => drop(table.awaited.insert(pid, sender)),
        }
        receiver
    }

    /// Reaps until the server ends.
    pub async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = Exit { pid: number(pid), status: code(status), at: SystemTime::now() };
            let mut table = self.table();
            match table.awaited.remove(&exit.pid) {
                Some(waiting) => drop(waiting.send(exit)),
                None if table.births > 0 => drop(table.strangers.insert(exit.pid, exit)),
                None => {}
            }
        }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// As a shell counts: 128 more than the signal that killed it.
fn code(status: WaitStatus) -> u32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code.unsigned_abs(),
        (None, Some(signal)) => 128 + signal.unsigned_abs(),
        (None, None) => 255,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_reach_those_who_wait_and_early_ones_are_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reaper = Arc::new(Reaper::default());
            tokio::spawn(reaper.clone().run());
            let sh = |script: &str| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]);
                command
            };
            let (pid, exit) = reaper.spawn(&mut sh("exit 7")).unwrap();
            let exit = exit.await.unwrap();
            assert_eq!((exit.pid, exit.status), (pid, 7));
            let (_, exit) = reaper.spawn(&mut sh("kill -9 $$")).unwrap();
            assert_eq!(exit.await.unwrap().status, 137);

            // Nobody waits yet.
            let birth = reaper.birth();
            #[expect(clippy::zombie_processes, reason = "the reaper takes it")]
            let child = sh("exit 9").spawn().unwrap();
            while !reaper.table().strangers.contains_key(&child.id()) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(reaper.expect(child.id()).await.unwrap().status, 9);
            drop(birth);
            assert!(reaper.table().strangers.is_empty());
        });
    }
}
