//! A small process that holds the reading ends of FIFOs while no daemon does.
//!
//! A shim closes its ends of a FIFO when its container ends. If the daemon is dead at that moment, nobody has the FIFO
//! open any more, and what is in it is gone with it. So the daemon starts itself a second time under the name
//! [`NAME`], as a process that outlives it: it opens FIFOs that it is told, and closes them when told, or when they
//! have been deleted. It never reads. It ends when it holds nothing and no daemon is connected.
//!
//! The line protocol on its socket: `+PATH` holds, `-PATH` lets go; each is answered by an empty line. Without the
//! keeper (a program that does not call [`run_if_asked`], or any trouble with it) logs work all the same, but for that
//! one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;

/// How the process is called.
pub const NAME: &str = "seam-fifo-keeper";
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often deleted FIFOs are looked for.
const PRUNE: Duration = Duration::from_secs(10);

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Call it first of all in `main`: becomes the keeper, and does not return, if that is what this process was started
/// as. Otherwise notes that this program can be started as one.
pub fn run_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        std::process::exit(i32::from(serve().is_err()));
    }
    AVAILABLE.store(true, Ordering::Relaxed);
}

// The keeper.

#[derive(Default)]
struct Held {
    fifos: BTreeMap<PathBuf, File>,
    daemons: usize,
}

/// The listening socket is this process's standard input.
fn serve() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(false)?;
    // Only for who looks at a list of processes.
    let _ = rustix::thread::set_name(c"fifo-keeper");
    let held = Arc::new(Mutex::new(Held { daemons: 1, ..Default::default() }));
    // The daemon connects at once, or has died.
    let timeout = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&listener, timeout, Some(PRUNE))?;
    let first = listener.accept()?.0;
    rustix::net::sockopt::set_socket_timeout(&listener, timeout, None)?;
    first.set_read_timeout(None)?;
    spawn(first, held.clone());
    let others = held.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            lock(&others).daemons += 1;
            spawn(stream, others.clone());
        }
    });
    loop {
        std::thread::sleep(PRUNE);
        let mut held = lock(&held);
        held.fifos.retain(|_, file| file.metadata().is_ok_and(|meta| meta.nlink() > 0));
        end_if_idle(&held);
    }
}

/// The lock is held by the caller, so nothing new is taken on at this moment; a daemon that connects just now finds
/// nobody and starts another keeper.
fn end_if_idle(held: &Held) {
    if held.fifos.is_empty() && held.daemons == 0 {
        std::process::exit(0);
    }
}

fn spawn(stream: UnixStream, held: Arc<Mutex<Held>>) {
    std::thread::spawn(move || {
        let _ = obey(&stream, &held);
        let mut held = lock(&held);
        held.daemons -= 1;
        end_if_idle(&held);
    });
}

fn obey(mut stream: &UnixStream, held: &Mutex<Held>) -> io::Result<()> {
    for line in BufReader::new(stream).split(b'\n') {
        let line = line?;
        let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        match line.split_first() {
            Some((b'+', name)) => {
                if let Ok(fifo) = shared_sys::fifo::open_read(&path(name)) {
                    lock(held).fifos.insert(path(name), fifo);
                }
            }
            Some((b'-', name)) => drop(lock(held).fifos.remove(&path(name))),
            _ => {}
        }
        stream.write_all(b"\n")?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

// The daemon's side.

/// The daemon's connection to its keeper. All calls block, for at most a few seconds.
pub(super) struct Keeper {
    socket: PathBuf,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    stream: Option<BufReader<UnixStream>>,
    held: BTreeSet<PathBuf>,
    child: Option<Child>,
}

impl Keeper {
    pub fn new(socket: &Path) -> Option<Self> {
        let available = AVAILABLE.load(Ordering::Relaxed);
        available.then(|| Self { socket: socket.to_owned(), link: Mutex::default() })
    }

    /// Finds the keeper of a former daemon, or starts one.
    pub fn start(&self) {
        self.tell(&mut lock(&self.link), &[], b'+');
    }

    pub fn hold(&self, fifos: &[PathBuf]) {
        let mut link = lock(&self.link);
        link.held.extend(fifos.iter().cloned());
        self.tell(&mut link, fifos, b'+');
    }

    pub fn release(&self, fifos: &[PathBuf]) {
        let mut link = lock(&self.link);
        link.held.retain(|held| !fifos.contains(held));
        self.tell(&mut link, fifos, b'-');
    }

    /// A keeper that is gone is replaced once; it is told all again.
    fn tell(&self, link: &mut Link, fifos: &[PathBuf], sign: u8) {
        if link.stream.is_some() && link.send(fifos, sign).is_ok() {
            return;
        }
        // A keeper with nothing to hold may have ended while it was connected to: the second try starts another.
        if let Err(e) = self.connect(link).or_else(|_| self.connect(link)) {
            link.stream = None;
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                let doing = "output of containers that end while no daemon runs may be lost";
                tracing::warn!(socket = %self.socket.display(), error = %e, "no FIFO keeper: {doing}");
            });
        }
    }

    fn connect(&self, link: &mut Link) -> io::Result<()> {
        link.stream = None;
        if let Some(mut child) = link.child.take() {
            // One that is stuck stays what it is; one that has ended is no zombie any more.
            let _ = child.try_wait();
        }
        let stream = match UnixStream::connect(&self.socket) {
            Ok(stream) => stream,
            Err(_) => {
                link.child = Some(self.launch()?);
                UnixStream::connect(&self.socket)?
            }
        };
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        link.stream = Some(BufReader::new(stream));
        let all: Vec<PathBuf> = link.held.iter().cloned().collect();
        link.send(&all, b'+')
    }

    /// The socket is made here, so that it can be connected to at once.
    fn launch(&self) -> io::Result<Child> {
        let listener =
            shared_sys::socket::bind(&self.socket, shared_sys::socket::Access { uid: 0, gid: 0, mode: 0o600 })
                .map_err(io::Error::other)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).env_clear().stdin(Stdio::from(OwnedFd::from(listener)));
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").process_group(0).spawn()
    }
}

impl Link {
    /// An error leaves the link unusable.
    fn send(&mut self, fifos: &[PathBuf], sign: u8) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        // Few lines at a time: neither side may wait for the other to read.
        for some in fifos.chunks(64) {
            let mut lines = Vec::new();
            for fifo in some {
                lines.push(sign);
                lines.extend_from_slice(fifo.as_os_str().as_bytes());
                lines.push(b'\n');
            }
            stream.get_mut().write_all(&lines)?;
            for _ in some {
                let mut answer = String::new();
                if stream.read_line(&mut answer)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(())
    }
}
