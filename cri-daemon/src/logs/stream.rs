//! One output of a container: its FIFO, and the spool that the kernel moves its bytes to.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FallocateFlags;
use shared_sys::fifo::{self, Moved};

use super::format::Ending;

/// Bytes that one call moves: what a FIFO holds.
const CHUNK: usize = 64 << 10;

/// One of a container's outputs: its FIFO, and the spool beside it.
pub(super) struct Stream {
    pub fifo: Arc<File>,
    spool: File,
    pub spool_path: PathBuf,
    /// Bytes in the spool, those of them that are in the log, and those without a newline after `done`.
    pub size: u64,
    pub done: u64,
    pub scanned: u64,
    /// Where the space that was given back ends.
    pub hole: u64,
    pub state: Writer,
}

/// What is known of a FIFO's writing end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody has it open, maybe not yet.
    Unseen,
    Open,
    Closed,
}

impl Stream {
    pub fn open(path: &Path, done: u64, emptying: bool) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let spool_path = with_suffix(path, ".spool");
        let spool =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&spool_path)?;
        let fifo = Arc::new(fifo::open_read(path).map_err(named)?);
        let size = spool.metadata()?.len();
        // A spool that is shorter than what was written of it belongs to no record.
        let done = if done <= size { done } else { 0 };
        let mut stream = Self { fifo, spool, spool_path, size, done, scanned: done, hole: 0, state: Writer::Unseen };
        if emptying {
            stream.clear()?;
        }
        Ok(stream)
    }

    /// From the FIFO to the spool; how many bytes. `last`: a FIFO without a writer will never get one again.
    pub fn stage(&mut self, last: bool) -> io::Result<usize> {
        if self.state == Writer::Closed {
            return Ok(0);
        }
        match fifo::move_to_file(&self.fifo, &self.spool, self.size, CHUNK)? {
            Moved::Bytes(bytes) => {
                self.size += bytes as u64;
                self.state = Writer::Open;
                Ok(bytes)
            }
            Moved::Empty => {
                self.state = Writer::Open;
                Ok(0)
            }
            Moved::NoWriter => {
                if last || self.state == Writer::Open || hung_up(&self.fifo) {
                    self.state = Writer::Closed;
                }
                Ok(0)
            }
        }
    }

    /// Begins anew.
    pub fn clear(&mut self) -> io::Result<()> {
        self.spool.set_len(0)?;
        (self.size, self.done, self.scanned, self.hole) = (0, 0, 0, 0);
        Ok(())
    }

    /// File systems without holes keep the space until the spool begins anew.
    pub fn punch(&mut self) {
        let end = self.done & !4095;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&self.spool, flags, 0, end);
        self.hole = end;
    }

    pub fn read(&self, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        let mut out = vec![0; (range.end - range.start) as usize];
        self.spool.read_exact_at(&mut out, range.start)?;
        Ok(out)
    }

    /// Whether the bytes after `done` hold an entry, looking at each byte once.
    pub fn ripe(&mut self, max: usize, ending: Ending) -> io::Result<bool> {
        let waiting = self.size - self.done;
        if waiting > max as u64 || (ending == Ending::Closed && waiting > 0) {
            return Ok(true);
        }
        let fresh = self.read(self.scanned.max(self.done)..self.size)?;
        if fresh.contains(&b'\n') {
            return Ok(true);
        }
        self.scanned = self.size;
        Ok(false)
    }
}

/// Whether a writer was there and has gone.
fn hung_up(fifo: &File) -> bool {
    let mut poll = [PollFd::new(fifo, PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&none)).is_ok() && poll[0].revents().contains(PollFlags::HUP)
}

/// A file beside `path`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
