//! Named pipes, and moving bytes between a pipe and a file inside the kernel.
//!
//! All files are opened non-blocking and close-on-exec.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::pipe::SpliceFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes a FIFO. One that exists already is kept; anything else in its place is an error.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) if is_fifo(path) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether `path` is a FIFO (a symbolic link is not).
pub fn is_fifo(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Opens the reading end; succeeds with or without a writer.
pub fn open_read(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDONLY)
}

/// Opens the writing end; `ENXIO` when nobody has the reading end open.
pub fn open_write(path: &Path) -> io::Result<File> {
    open(path, OFlags::WRONLY)
}

/// Whether somebody has the reading end open. Whoever asks must hold a writing end: the moment of asking would be
/// taken for the end of all writers.
pub fn has_reader(path: &Path) -> bool {
    open_write(path).is_ok()
}

/// Opens both ends at once: the pipe and what is in it live on while this file is open.
pub fn open_both(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDWR)
}

fn open(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a FIFO", path.display())))
    }
}

/// What [`move_to_file`] found in the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes went from the pipe to the file.
    Bytes(usize),
    /// The pipe is empty, and somebody may still write.
    Empty,
    /// The pipe is empty and has no writer.
    NoWriter,
}

/// Moves up to `max` bytes from a pipe to `offset` of a regular file, without passing through this process.
///
/// A byte is either still in the pipe or in the file: killing the process during the call loses and doubles nothing.
/// The file's length grows with the bytes, so it tells how many have arrived. The file must not be in append mode.
pub fn move_to_file(pipe: impl AsFd, file: impl AsFd, offset: u64, max: usize) -> io::Result<Moved> {
    let mut offset = offset;
    loop {
        match rustix::pipe::splice(&pipe, None, &file, Some(&mut offset), max, SpliceFlags::NONBLOCK) {
            Ok(0) => return Ok(Moved::NoWriter),
            Ok(n) => return Ok(Moved::Bytes(n)),
            Err(rustix::io::Errno::AGAIN) => return Ok(Moved::Empty),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A reading end that an async task can wait for.
pub struct Watch(AsyncFd<Arc<File>>);

impl Watch {
    /// Must be called inside a runtime.
    pub fn new(fifo: Arc<File>) -> io::Result<Self> {
        // SAFETY: the descriptor of a `File` is valid, always the same, and open as long as the `Arc`, which the
        // `AsyncFd` owns and which nobody can take out of it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fifo, Interest::READABLE) }?))
    }

    /// Until there is something to read, or the last writer has gone. Call it before reading to the end: what comes
    /// after it returned wakes the next call.
    pub async fn readable(&self) {
        match self.0.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // The runtime goes down, and the caller with it.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_are_in_the_pipe_or_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        make(&path, 0o600).unwrap();
        make(&path, 0o600).unwrap();
        assert_eq!(open_write(&path).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert!(!has_reader(&path));
        let reader = open_read(&path).unwrap();
        assert!(has_reader(&path));
        let mut spool = File::create_new(dir.path().join("spool")).unwrap();
        assert_eq!(move_to_file(&reader, &spool, 0, 100).unwrap(), Moved::NoWriter);
        let mut writer = open_write(&path).unwrap();
        assert_eq!(move_to_file(&reader, &spool, 0, 100).unwrap(), Moved::Empty);
        writer.write_all(b"hello world").unwrap();
        assert_eq!(move_to_file(&reader, &spool, 0, 5).unwrap(), Moved::Bytes(5));
        assert_eq!(spool.metadata().unwrap().len(), 5);
        assert_eq!(move_to_file(&reader, &spool, 5, 100).unwrap(), Moved::Bytes(6));
        drop(writer);
        assert_eq!(move_to_file(&reader, &spool, 11, 100).unwrap(), Moved::NoWriter);
        let mut text = String::new();
        spool = File::open(dir.path().join("spool")).unwrap();
        spool.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
    }

    #[test]
    fn only_a_fifo_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(make(&path, 0o600).is_err());
        assert!(open_read(&path).is_err());
    }
}
