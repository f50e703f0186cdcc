//! Mounts as containerd describes them, made with the kernel's mount API.
//!
//! Every mount is first built as a tree that is attached nowhere ([`tree`]) and then moved to its place: a mount that
//! fails half-way leaves nothing behind, and a tree that is only read ([`Detached`]) is never visible to anybody.
//!
//! Limits: Linux 5.12 or later (`mount_setattr`); no `remount`, no loop devices, no id-mapped mounts. Overlays with
//! more lower layers than fit a page of options work on every such kernel.

mod detached;
mod legacy;
mod options;
mod tree;

use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags};

pub use detached::{Detached, MAX_READ};

/// One mount, with containerd's fields: used verbatim by whoever gets it, in their own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// A file system type, or `bind`.
    pub kind: String,
    /// What is mounted; for many types only a name.
    pub source: String,
    /// Where below the common target; empty = the target itself.
    pub target: String,
    /// As in fstab: `ro`, `rbind`, `lowerdir=…`.
    pub options: Vec<String>,
}

/// Mounts all at `target`, in order. When one fails, those before it are taken off again.
pub fn mount_all(mounts: &[Mount], target: &Path) -> io::Result<()> {
    for (done, mount) in mounts.iter().enumerate() {
        if let Err(e) = mount_one(mount, target) {
            for mount in mounts[..done].iter().rev() {
                // The first error is the one that is reported; a place that can't be resolved has no mount of ours.
                if let Ok(place) = place(mount, target) {
                    let _ = unmount_fd(&place);
                }
            }
            return Err(e);
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, target: &Path) -> io::Result<()> {
    let named = |e: io::Error| {
        let place = target.join(mount.target.trim_start_matches('/'));
        io::Error::new(e.kind(), format!("mount {} at {}: {e}", mount.kind, place.display()))
    };
    let tree = tree::build(mount, 0)?;
    let place = place(mount, target).map_err(named)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree.as_fd(), "", place.as_fd(), "", flags).map_err(|e| named(e.into()))
}

/// Where `mount` goes: below `target`, out of which no symlink leads.
fn place(mount: &Mount, target: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let inner = Path::new(&mount.target);
    if !inner.components().any(|part| matches!(part, Component::Normal(_) | Component::ParentDir)) {
        return Ok(root);
    }
    detached::open_in(root.as_fd(), inner, OFlags::PATH)
}

/// What [`make_place`] makes where there is nothing to mount on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Folder,
    File,
}

/// Makes `inner` below `root`, out of which no symlink leads, with the folders above it (0755); what is there stays.
pub fn make_place(root: &Path, inner: &Path, kind: Place) -> io::Result<()> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut parent = PathBuf::new();
    let parts: Vec<_> = inner.components().filter(|part| !matches!(part, Component::RootDir)).collect();
    for (done, part) in parts.iter().enumerate() {
        let path = parent.join(part);
        match detached::open_in(root.as_fd(), &path, OFlags::PATH) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = detached::open_in(root.as_fd(), &parent, OFlags::PATH)?;
                if kind == Place::File && done + 1 == parts.len() {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(&dir, part.as_os_str(), flags, Mode::from_raw_mode(0o644))?;
                } else {
                    rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                }
            }
            Err(e) => return Err(e),
        }
        parent = path;
    }
    Ok(())
}

/// Makes the mount at `target` read-only, and leaves its other attributes.
pub fn read_only(target: &Path) -> io::Result<()> {
    let place = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    tree::set_attributes(place.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)
}

fn unmount_fd(place: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    unmount_once(Path::new(&format!("/proc/self/fd/{}", place.as_raw_fd())), UnmountFlags::DETACH).map(drop)
}

/// Takes off everything that is mounted at `target`, lazily: open files keep working. Nothing mounted there, or no such
/// path, is success.
pub fn unmount(target: &Path) -> io::Result<()> {
    while unmount_once(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)? {}
    Ok(())
}

/// Whether something was taken off.
fn unmount_once(target: &Path, flags: UnmountFlags) -> io::Result<bool> {
    match rustix::mount::unmount(target, flags) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(io::Error::new(
            io::Error::from(e).kind(),
            format!("unmount {}: {}", target.display(), io::Error::from(e)),
        )),
    }
}

/// Writes everything that is dirty on the file system of `path` to its disk.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let dir = rustix::fs::openat2(
        CWD,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::empty(),
    )?;
    Ok(rustix::fs::syncfs(dir)?)
}

#[cfg(test)]
mod tests;
