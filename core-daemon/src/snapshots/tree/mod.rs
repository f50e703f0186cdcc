//! Work on trees of files that somebody else may be changing: by descriptor, never through a link, never in recursion
//! that the tree's depth could exhaust.

mod copy;
mod remove;
mod usage;

use std::ffi::CStr;
use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Dir, Mode, OFlags};

pub use copy::{Copier, copy_attributes, copy_file, in_folder, xattrs};
pub use remove::{remove_at, remove_deep};
pub use usage::usage;

/// How deep a tree may be that is measured or copied.
pub const MAX_DEPTH: usize = 1000;

/// Opens a folder below `parent` for reading, not through a link.
pub fn open_dir(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The names in a folder, without `.` and `..`. The descriptor may be one for lookups only.
pub fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::new(open_dir(dir, c".")?)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn too_deep() -> io::Error {
    io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}"))
}
