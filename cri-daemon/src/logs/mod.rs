//! Container logs: from the FIFOs that a shim writes to into files in the CRI format.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

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

/// All logs of this daemon.
#[derive(Clone, Default)]
pub struct Logs {}

/// One container's log. Dropping it is the same as [`LogHandle::detach`].
pub struct LogHandle {}

impl Logs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the FIFOs and the log, finishes what a killed daemon had begun, and goes on from there.
    ///
    /// Call it before the task is created (the reader comes first), or again after a restart.
    pub async fn attach(&self, input: LogInput) -> io::Result<LogHandle> {
        let _ = input;
        Err(io::Error::other("logs"))
    }
}

impl LogHandle {
    /// Goes on in a new file at the log's path, after the kubelet has renamed the old one. No line is lost.
    pub async fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    /// Waits until everything that the container wrote is in the log. Call it once the task is deleted, that is, when
    /// the shim has closed the FIFOs or never will. After `deadline` what is there is written and the rest given up.
    /// Says whether the end was reached. The log is finished then: later output is not read.
    pub async fn drained(&self, deadline: Duration) -> bool {
        let _ = deadline;
        true
    }

    /// Stops reading, for good or until another daemon attaches; nothing that was read is lost.
    pub async fn detach(self) {}
}
