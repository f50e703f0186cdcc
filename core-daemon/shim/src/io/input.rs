//! Input: copied from the client's FIFO, so that the process reads an end only when the client says so.
//!
//! A process gets the reading end of a pipe. Clients may come and go at the FIFO (a terminal is attached, left, and
//! attached again), which is no end. `CloseIO` is: the process reads what was written before, and then an end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use shared_sys::descriptor::Descriptor;
use shared_sys::fifo;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Owner;
use super::terminal::Terminal;
use crate::error::Error;

/// One read, bytes.
const BUFFER: usize = 16 << 10;

/// A copy under way; ends with this value.
pub struct Input {
    task: AbortHandle,
    closing: Arc<Notify>,
}

impl Drop for Input {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where input goes.
enum Target {
    Pipe(Sender),
    Terminal(Arc<Descriptor>),
}

impl Target {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Pipe(pipe) => pipe.write_all(bytes).await,
            Target::Terminal(master) => master.write_all(bytes).await,
        }
    }
}

impl Input {
    /// Copies to a pipe, whose reading end is for the process.
    pub fn for_process(path: &Path, owner: &Owner) -> Result<(OwnedFd, Self), Error> {
        let (read, write) = io::pipe().map_err(Error::io("make a pipe for", path))?;
        let read = std::fs::File::from(OwnedFd::from(read));
        super::give(&read, owner, path)?;
        let write = std::fs::File::from(OwnedFd::from(write));
        let to = rustix::io::ioctl_fionbio(&write, true).map_err(io::Error::from);
        let to = to.and_then(|()| Sender::from_file(write)).map_err(Error::io("watch the pipe for", path))?;
        Ok((read.into(), Self::copy(path, Target::Pipe(to))?))
    }

    /// Copies to a terminal.
    pub fn for_terminal(path: &Path, terminal: &Terminal) -> Result<Self, Error> {
        Self::copy(path, Target::Terminal(terminal.master()))
    }

    fn copy(path: &Path, to: Target) -> Result<Self, Error> {
        fifo::make(path, 0o700).map_err(Error::io("make FIFO", path))?;
        // Both ends: a client that leaves is no end.
        let from = fifo::open_both(path).and_then(Receiver::from_file).map_err(Error::io("open FIFO", path))?;
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(pump(from, to, closing.clone())).abort_handle();
        Ok(Self { task, closing })
    }

    /// No more will come than what is in the FIFO now.
    pub fn close(&self) {
        self.closing.notify_one();
    }
}

/// Copies until the input is closed and drained, or the target takes no more.
async fn pump(from: Receiver, mut to: Target, closing: Arc<Notify>) {
    let mut buffer = vec![0; BUFFER];
    let mut closed = false;
    loop {
        // After the close the pipe itself says what is left: the runtime may not have heard of it yet.
        let read = if closed {
            rustix::io::read(&from, &mut buffer).map_err(io::Error::from)
        } else {
            from.try_read(&mut buffer)
        };
        match read {
            Ok(0) => return,
            Ok(n) => {
                if to.write(&buffer[..n]).await.is_err() {
                    return;
                }
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if closed {
                    return;
                }
            }
            Err(_) => return,
        }
        tokio::select! {
            ready = from.readable() => if ready.is_err() { return },
            () = closing.notified() => closed = true,
        }
    }
}
