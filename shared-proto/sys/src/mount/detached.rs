//! A mounted tree that is attached nowhere, for reading files of an image without anybody seeing a mount.
//!
//! Names are looked up as a process with this tree as its root would: absolute links and `..` stay inside. Devices of
//! the image can't be opened, and a FIFO doesn't block.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

use super::{Mount, tree};

/// The largest file that [`Detached::read`] reads, bytes.
pub const MAX_READ: u64 = 16 << 20;
/// How often a lookup that met a concurrent rename is tried again.
const TRIES: usize = 16;

/// A mounted tree that goes away when this value does.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Mounts these on top of each other. More than one needs Linux 6.15.
    pub fn of(mounts: &[Mount]) -> io::Result<Self> {
        let (first, others) = mounts.split_first().ok_or_else(|| io::Error::other("no mounts"))?;
        let root = tree::build(first, libc::MOUNT_ATTR_NODEV)?;
        for mount in others {
            let top = tree::build(mount, libc::MOUNT_ATTR_NODEV)?;
            let place = open_in(root.as_fd(), Path::new(&mount.target), OFlags::PATH)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(top.as_fd(), "", place.as_fd(), "", flags)?;
        }
        Ok(Self(root))
    }

    #[cfg(test)]
    pub(super) fn from_tree(tree: OwnedFd) -> Self {
        Self(tree)
    }

    /// Opens a regular file or a folder for reading.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let file = File::from(open_in(self.0.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_dir() {
            Ok(file)
        } else {
            Err(io::Error::other(format!("{} is neither a file nor a folder", path.display())))
        }
    }

    /// Reads a regular file whole. One larger than [`MAX_READ`] is an error.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open(path)?.take(MAX_READ + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_READ {
            return Err(io::Error::other(format!("{} is larger than {MAX_READ} bytes", path.display())));
        }
        Ok(content)
    }
}

impl AsFd for Detached {
    /// The root folder, to start lookups at.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens `path` with `root` as the root folder. An empty path is the root itself.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(Errno::AGAIN.into())
}
