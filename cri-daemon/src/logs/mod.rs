//! Container logs: from the FIFOs that a shim writes to into files in the CRI format.
//!
//! **No line is lost or doubled when this daemon is killed**, at whatever moment, and started again. Bytes that a
//! killed reader has read from a FIFO are gone, so nobody reads: the kernel moves them (`splice`) from the FIFO to the
//! end of a spool file beside it, where a byte is in exactly one of the two. From there:
//!
//! 1. *stage*: FIFO → spool. The spool's length tells how much has arrived.
//! 2. *announce*: the journal names the next batch: which part of the spool, the time that its entries carry, and the
//!    identity and length of the log file before it.
//! 3. *append*: the entries go to the log. Appending is ours alone, so the log's length tells how far this came.
//! 4. *trim*: the space of what is in the log is given back. An idle spool begins anew, announced in the journal too.
//!
//! After a kill [`pump`] forms the announced batch again (same bytes, same time, same text) and appends what of it is
//! missing after the announced length; a log that was renamed meanwhile is found by its inode. Only if that file is
//! gone can the one batch be written twice. An unfinished line stays in the spool. The spool must be on a local file
//! system; a tmpfs, as below `/run`, is best.
//!
//! A log that can't be written (full disk) holds its container up for ten seconds, then output is given up, with one
//! error in the daemon's own log, until the log can be written again. Lines without a limit are split at 16 MiB.
//!
//! All logs share a few blocking threads; each costs one sleeping task and four files. What is in a FIFO when its shim
//! closes it while no daemon runs is kept by the [`keeper`]. Clients that are attached read at a [`tap`].

mod file;
mod format;
mod journal;
pub mod keeper;
mod pump;
mod stream;
pub mod tap;
mod task;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use keeper::Keeper;
use pump::Pump;
use tap::{Tap, Taps};
use task::{Command, Task};

/// Blocking threads that logs may hold at a time: a disk that hangs must not take those of everybody.
const SLOTS: usize = 32;

/// Where a container's output comes from and goes to.
#[derive(Debug, Clone)]
pub struct LogInput {
    /// Id of the container, for messages.
    pub id: String,
    /// FIFOs, made already. Our own files are kept beside them: `<fifo>.spool` and `<fifo of stdout>.journal`.
    pub stdout: Option<PathBuf>,
    /// `None` with a tty: the terminal's output is all stdout.
    pub stderr: Option<PathBuf>,
    /// Absolute path of the log; its folder is made when missing. `None`: output is read and dropped.
    pub log_path: Option<PathBuf>,
    /// Longer lines are split; 0 or less = 16 MiB.
    pub max_line: i64,
}

/// All logs of this daemon. Clones share everything.
#[derive(Clone)]
pub struct Logs {
    slots: Arc<Semaphore>,
    keeper: Option<Arc<Keeper>>,
}

/// One container's log. Dropping it is the same as [`LogHandle::detach`], without waiting for it.
pub struct LogHandle {
    commands: mpsc::Sender<Command>,
    taps: Taps,
}

/// The FIFOs of one log, in the keeper's hands.
struct Keep {
    keeper: Option<Arc<Keeper>>,
    fifos: Vec<PathBuf>,
}

impl Keep {
    /// Blocks.
    fn hold(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.hold(&self.fifos);
        }
    }

    /// Once nothing more is to be read. Blocks.
    fn release(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.release(&self.fifos);
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(SLOTS)), keeper: None }
    }
}

impl Logs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs with a [`keeper`], if this program can be one, whose socket is at `socket`.
    pub fn keeping(socket: &std::path::Path) -> Self {
        Self { keeper: Keeper::new(socket).map(Arc::new), ..Self::default() }
    }

    /// Starts the keeper, or finds the one that a former daemon has left.
    pub async fn start(&self) {
        if let Some(keeper) = self.keeper.clone() {
            shared_sys::blocking(move || keeper.start()).await;
        }
    }

    /// Opens the FIFOs and the log, finishes what a killed daemon had begun, and goes on from there.
    ///
    /// Call it before the task is created (the reader comes first), or again after a restart.
    pub async fn attach(&self, input: LogInput) -> io::Result<LogHandle> {
        let id = input.id.clone();
        let paths = [&input.stdout, &input.stderr].into_iter().flatten().cloned().collect();
        let held = Keep { keeper: self.keeper.clone(), fifos: paths };
        let taps = Taps::default();
        let feed = taps.feed();
        let (pump, held) = shared_sys::blocking(move || {
            let pump = Pump::open(&input, feed)?;
            held.hold();
            Ok::<_, io::Error>((pump, held))
        })
        .await?;
        let fifos = Task::watch(&pump)?;
        let (sender, commands) = mpsc::channel(4);
        let task = Task { id, pump, commands, slots: self.slots.clone(), held };
        // Owned by its handle: it ends when that is dropped.
        tokio::spawn(task.run(fifos));
        Ok(LogHandle { commands: sender, taps })
    }
}

impl LogHandle {
    /// Goes on in a new file at the log's path, after the kubelet has renamed the old one. No line is lost.
    pub async fn reopen(&self) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the log has ended");
        self.commands.send(Command::Reopen(reply)).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }

    /// What the container writes from now on, beside the log.
    pub fn tap(&self) -> Tap {
        self.taps.tap()
    }

    /// Waits until everything that the container wrote is in the log. Call it once the task is deleted, that is, when
    /// the shim has closed the FIFOs or never will. After `deadline` what is there is written and the rest given up.
    /// Says whether all there was is in the log. The log is finished then: later output is not read.
    pub async fn drained(&self, deadline: Duration) -> bool {
        let (reply, done) = oneshot::channel();
        // A log that has ended was drained before.
        self.commands.send(Command::Drain(deadline, reply)).await.is_err() || done.await.unwrap_or(false)
    }

    /// Stops reading, for good or until another daemon attaches; nothing that was read is lost.
    pub async fn detach(self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Detach(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}
