//! Whether a file of one tree is that of another.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};

use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};

use super::target::steers_overlay;
use crate::snapshots::tree::{in_folder, xattrs};

/// Bytes compared at a time.
const BUFFER: usize = 256 << 10;

/// Whether nothing about `name` changed; of folders, nothing about themselves.
pub(super) fn same(
    left: BorrowedFd<'_>,
    old: &Stat,
    right: BorrowedFd<'_>,
    new: &Stat,
    name: &CStr,
) -> io::Result<bool> {
    let about = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if about(old) != about(new) {
        return Ok(false);
    }
    if xattrs(&in_folder(left, name), &is_kept)? != xattrs(&in_folder(right, name), &is_kept)? {
        return Ok(false);
    }
    let data = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    match kind(new) {
        FileType::Directory => Ok(true),
        FileType::Symlink => Ok(readlinkat(left, name, Vec::new())? == readlinkat(right, name, Vec::new())?),
        _ if data(old) != data(new) => Ok(false),
        FileType::RegularFile if new.st_mtime_nsec == 0 => same_content(open(left, name)?, open(right, name)?),
        _ => Ok(true),
    }
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether an attribute belongs into a layer.
pub(super) fn is_kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability" || (attribute.starts_with(b"user.") && !steers_overlay(attribute))
}

/// Opens a file for reading, not through a link.
pub(super) fn open(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(dir, name, flags, Mode::empty())?))
}

/// Of two files of the same size.
fn same_content(mut one: File, mut other: File) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let length = one.read(&mut a)?;
        if length == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut b[..length]) {
            Ok(()) if a[..length] == b[..length] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}
