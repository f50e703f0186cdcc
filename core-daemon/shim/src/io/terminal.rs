//! Terminals: the engine makes one and hands over its other end, through a socket; we copy.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use shared_sys::descriptor::Descriptor;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixListener;
use tokio::net::unix::pipe::Sender;

use crate::command::SOCKETS;
use crate::error::Error;

/// One read, bytes.
const BUFFER: usize = 4 << 10;

/// Where the engine hands a terminal over. Its file goes with this value.
pub struct Socket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket {
    pub fn listen() -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pty-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(SOCKETS).join(name);
        // Of a shim that had our pid.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(Error::io("listen on", &path))?;
        Ok(Self { listener, path })
    }

    /// To be called when the engine has returned: what it sent is here then.
    pub async fn receive(self) -> Result<Descriptor, Error> {
        let (stream, _) = self.listener.accept().await.map_err(Error::io("accept on", &self.path))?;
        let take = || descriptor(&stream);
        let received = loop {
            stream.readable().await.map_err(Error::io("receive from", &self.path))?;
            match stream.try_io(Interest::READABLE, take) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => break other,
            }
        };
        let descriptor = received.map_err(Error::io("receive from", &self.path))?;
        Descriptor::new(File::from(descriptor), Interest::READABLE | Interest::WRITABLE)
            .map_err(Error::io("watch the terminal from", &self.path))
    }
}

fn descriptor(stream: &tokio::net::UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.next().ok_or_else(|| io::Error::other("the engine sent no terminal"))
}

/// A terminal whose output is being copied, until the last process has closed it: that may be after this value's end.
pub struct Terminal {
    master: Arc<Descriptor>,
}

impl Terminal {
    pub fn new(master: Descriptor, output: OwnedFd) -> Result<Self, Error> {
        let master = Arc::new(master);
        tokio::spawn(copy(master.clone(), Sink::new(output)?));
        Ok(Self { master })
    }

    pub fn master(&self) -> Arc<Descriptor> {
        self.master.clone()
    }

    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let size = Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.master.get(), size)?)
    }
}

/// Where a terminal's output goes: a pipe may be full, a file or `/dev/null` never is.
enum Sink {
    Pipe(Sender),
    File(File),
}

impl Sink {
    fn new(output: OwnedFd) -> Result<Self, Error> {
        let file = File::from(output);
        let kind = file.metadata().map_err(Error::io("look at", "the terminal's output"))?.file_type();
        if !std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
            return Ok(Sink::File(file));
        }
        let pipe = rustix::io::ioctl_fionbio(&file, true).map_err(io::Error::from);
        let pipe = pipe.and_then(|()| Sender::from_file(file));
        Ok(Sink::Pipe(pipe.map_err(Error::io("watch", "the terminal's output"))?))
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Pipe(pipe) => pipe.write_all(bytes).await,
            Sink::File(file) => io::Write::write_all(file, bytes),
        }
    }
}

async fn copy(master: Arc<Descriptor>, mut to: Sink) {
    let mut buffer = vec![0; BUFFER];
    let mut open = true;
    // An error is the end: the terminal says so (EIO) when nobody has it open any more.
    while let Ok(n @ 1..) = master.read(&mut buffer).await {
        // Without a reader the output is thrown away, so that the process doesn't hang.
        open = open && to.write_all(&buffer[..n]).await.is_ok();
    }
}
