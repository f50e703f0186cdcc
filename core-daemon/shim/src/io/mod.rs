//! The standard streams of a process.
//!
//! | address | stdout, stderr | stdin |
//! |---|---|---|
//! | empty | `/dev/null` | `/dev/null` |
//! | a path, `fifo://path` | the container writes to the FIFO itself | copied: see [`input`] |
//! | `file://path` | the container appends to the file itself | – |
//! | `binary://program?key=value` | a logger reads from pipes: see [`logger`] | – |
//!
//! What the container writes itself costs the shim nothing and outlives it. Of an output FIFO the shim keeps a reading
//! end until the process is deleted: a container whose reader has gone waits, it is not killed, and what was written
//! stays there for a reader that comes late.
//!
//! With a terminal the streams are one; the shim holds its other end and copies: see [`terminal`].

mod input;
mod logger;
mod terminal;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use shared_sys::fifo;

pub use terminal::Socket;

use crate::engine::Streams;
use crate::error::Error;
use input::Input;
use terminal::Terminal;

/// The addresses in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// What is told to a logger about the container, and who owns its pipes.
#[derive(Debug, Clone)]
pub struct Owner {
    pub namespace: String,
    pub id: String,
    pub uid: u32,
    pub gid: u32,
}

/// What the shim keeps of a process's streams.
#[derive(Default)]
pub struct Io {
    /// Reading ends of outputs.
    _held: Vec<OwnedFd>,
    input: Option<Input>,
    terminal: Option<Terminal>,
}

impl Io {
    /// The client will send no more: the process reads what has come, and then an end.
    pub fn close_stdin(&self) {
        if let Some(input) = &self.input {
            input.close();
        }
    }

    /// `None`: the process has no terminal.
    pub fn resize(&self, width: u16, height: u16) -> Option<std::io::Result<()>> {
        self.terminal.as_ref().map(|terminal| terminal.resize(width, height))
    }
}

/// Where a process writes to.
struct Output {
    write: OwnedFd,
    held: Option<OwnedFd>,
}

/// The streams of a process without a terminal. Must be called inside the runtime.
pub async fn open(stdio: &Stdio, owner: &Owner) -> Result<(Streams, Io), Error> {
    let (stdin, input) = match path_of(&stdio.stdin)? {
        None => (null()?, None),
        Some(path) => {
            let (stdin, input) = Input::for_process(&path, owner)?;
            (stdin, Some(input))
        }
    };
    let (stdout, stderr) = outputs(stdio, owner).await?;
    let held = stdout.held.into_iter().chain(stderr.held).collect();
    let streams = Streams { stdin, stdout: stdout.write, stderr: stderr.write };
    Ok((streams, Io { _held: held, input, terminal: None }))
}

/// The streams that the engine itself gets when the process has a terminal.
pub fn nothing() -> Result<Streams, Error> {
    Ok(Streams { stdin: null()?, stdout: null()?, stderr: null()? })
}

/// Waits for the terminal that the engine has made, and joins it to the client's streams.
pub async fn attach(socket: Socket, stdio: &Stdio, owner: &Owner) -> Result<Io, Error> {
    let master = socket.receive().await?;
    let (stdout, _) = outputs(&Stdio { stderr: String::new(), ..stdio.clone() }, owner).await?;
    let terminal = Terminal::new(master, stdout.write)?;
    let input = match path_of(&stdio.stdin)? {
        None => None,
        Some(path) => Some(Input::for_terminal(&path, &terminal)?),
    };
    Ok(Io { _held: stdout.held.into_iter().collect(), input, terminal: Some(terminal) })
}

async fn outputs(stdio: &Stdio, owner: &Owner) -> Result<(Output, Output), Error> {
    if let Some(program) = stdio.stdout.strip_prefix("binary://") {
        return logger::start(program, owner).await;
    }
    Ok((output(&stdio.stdout, owner)?, output(&stdio.stderr, owner)?))
}

fn output(address: &str, owner: &Owner) -> Result<Output, Error> {
    if let Some(path) = address.strip_prefix("file://") {
        let path = Path::new(path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        return Ok(Output { write: file.map_err(Error::io("open", path))?.into(), held: None });
    }
    let Some(path) = path_of(address)? else { return Ok(Output { write: null()?, held: None }) };
    fifo::make(&path, 0o700).map_err(Error::io("make FIFO", &path))?;
    let held = fifo::open_read(&path).map_err(Error::io("open FIFO", &path))?;
    // Blocking, as programs expect of their output; doesn't block here, as a reading end is open.
    let write = OpenOptions::new().write(true).open(&path).map_err(Error::io("open FIFO", &path))?;
    give(&write, owner, &path)?;
    Ok(Output { write: write.into(), held: Some(held.into()) })
}

/// The path of a FIFO's address; `None` for no address.
fn path_of(address: &str) -> Result<Option<PathBuf>, Error> {
    let path = address.strip_prefix("fifo://").unwrap_or(address);
    if path.is_empty() {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err(Error::Invalid(format!("stream {address:?}: neither a path nor an address that is known")));
    }
    Ok(Some(path.into()))
}

/// Root of a user namespace can open its streams again (`/dev/stdout`) only if it owns them.
fn give(file: &File, owner: &Owner, path: &Path) -> Result<(), Error> {
    if owner.uid == 0 && owner.gid == 0 {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid)).map_err(Error::io("chown", path))
}

fn null() -> Result<OwnedFd, Error> {
    let path = "/dev/null";
    Ok(OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))?.into())
}

#[cfg(test)]
mod tests;
