//! Listening on a Unix socket that only one daemon may own.
//!
//! A socket file whose owner is gone is replaced. One that somebody answers on is left alone, and the error says who.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{path}: {owner} already listens here; stop it, or configure another address")]
    InUse { path: PathBuf, owner: String },
    #[error("{path} exists and is not a socket")]
    NotASocket { path: PathBuf },
    #[error("listen on {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Who may connect.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Default for Access {
    /// Root, and the group of root: containerd's default.
    fn default() -> Self {
        Self { uid: 0, gid: 0, mode: 0o660 }
    }
}

/// Binds `path`, creating its folder (0755). The listener is non-blocking, ready for an async runtime.
pub fn bind(path: &Path, access: Access) -> Result<UnixListener, BindError> {
    let named = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(named)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {
            if let Ok(stream) = UnixStream::connect(path) {
                return Err(BindError::InUse { path: path.to_owned(), owner: peer(&stream) });
            }
            fs::remove_file(path).map_err(named)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(named(e)),
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode)).map_err(named)?;
    std::os::unix::fs::chown(path, Some(access.uid), Some(access.gid)).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    Ok(listener)
}

/// The process that made the socket at `path` listen; usually the one that answers there.
pub fn owner(path: &Path) -> io::Result<u32> {
    peer_pid(&UnixStream::connect(path)?)
}

fn peer_pid(stream: &UnixStream) -> io::Result<u32> {
    let credentials = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    // 0: a process that can't be seen from here.
    u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Who is at the other end: `containerd (pid 812)`.
fn peer(stream: &UnixStream) -> String {
    let Ok(pid) = peer_pid(stream) else {
        return "another process".into();
    };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim()),
        Err(_) => format!("pid {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine() -> Access {
        Access { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), mode: 0o600 }
    }

    #[test]
    fn a_live_socket_is_refused_by_name_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/s.sock");
        let first = bind(&path, mine()).unwrap();
        let refused = bind(&path, mine()).unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        assert_eq!(owner(&path).unwrap(), std::process::id());
        drop(first);
        bind(&path, mine()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, mine()), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
