//! Network namespaces: made, entered and removed.
//!
//! `setns` and `unshare` change the calling thread, so each piece of work gets a thread of its own that ends with it.
//! A namespace lives while a bind mount on a file holds it; the file's path is its name for CNI and the OCI runtime.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Runs `work` on a new thread inside the network namespace at `path`, and waits for it. Blocks.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(path)?;
    on_thread(move || {
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// A TCP socket, not connected yet and non-blocking, of the network namespace at `path`; `None`: the caller's. It stays
/// in that namespace whoever uses it. Blocks.
pub fn tcp_socket(path: Option<&Path>, v6: bool) -> io::Result<std::net::TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = move || socket_with(family, SocketType::STREAM, flags, None);
    let socket = match path {
        Some(path) => run_in(path, make)??,
        None => make()?,
    };
    Ok(socket.into())
}

/// Makes a network namespace with `lo` up, held by a bind mount on `path`, which must not exist. Blocks.
///
/// The folder of `path` is made when missing (0755). On an error nothing is left behind.
pub fn create(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?;
    let made = on_thread(|| {
        unshare_net()?;
        loopback_up()?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(())
    });
    if made.is_err() {
        // Best effort: the first error is the one to report.
        let _ = remove(path);
    }
    made
}

/// Unmounts and deletes what [`create`] made. A path that is absent, or only half made, is no error. Blocks.
pub fn remove(path: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Somebody may have mounted twice: go on until nothing is left.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(e) => return Err(e.into()),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether `path` holds a namespace (and is not just an empty file).
pub fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC))
}

/// Switches the calling thread to a new, empty network namespace.
fn unshare_net() -> io::Result<()> {
    // SAFETY: the flag unshares no memory, files or credentials of the process; the thread is ours and ends soon.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Brings `lo` up in the calling thread's network namespace.
fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero bytes are a valid `ifreq`, a plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: both calls get a live socket and an `ifreq` with a NUL-terminated name; SIOCGIFFLAGS fills the member
    // that is then read and handed to SIOCSIFFLAGS.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_by_its_mount() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns/cni-1");
        create(&path).unwrap();
        assert!(is_namespace(&path));
        assert!(create(&path).is_err(), "a second one under the same name");
        assert!(is_namespace(&path), "and the first is untouched");

        let inside = run_in(&path, || fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(inside, fs::read_link("/proc/thread-self/ns/net").unwrap());
        let (names, up) = run_in(&path, || {
            let names: Vec<_> =
                fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().skip(2).map(String::from).collect();
            // Only an interface that is up can be sent to.
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            (names, socket.send_to(b"x", socket.local_addr().unwrap()).is_ok())
        })
        .unwrap();
        assert!(names.iter().any(|n| n.trim_start().starts_with("lo:")), "{names:?}");
        assert!(up);

        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }

    #[test]
    fn a_half_made_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni-2");
        fs::write(&path, "").unwrap();
        assert!(!is_namespace(&path));
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
