//! Owners, modes, times and extended attributes of what a layer writes.

use std::ffi::CStr;
use std::io;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens,
    lsetxattr,
};
use rustix::io::Errno;

use super::archive::{Entry, Kind};
use super::parents::Level;
use super::target::steers_overlay;
use crate::snapshots::tree::in_folder;

/// Owner, mode and extended attributes of what is no regular file.
pub(super) fn set(folder: &Level, name: &CStr, entry: &Entry) -> io::Result<()> {
    let dir = folder.dir.as_fd();
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(entry.kind, Kind::Symlink(_)) {
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    for (key, value) in kept(&entry.xattrs) {
        tolerate(key, lsetxattr(in_folder(dir, name), key, value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// The same and the time, of a file just made in the folder.
pub(super) fn set_of_file(folder: &Level, file: &OwnedFd, entry: &Entry) -> io::Result<()> {
    if entry.uid != 0 || entry.gid != 0 || folder.passes_group_on {
        fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    }
    // After the owner, whose change takes some bits off.
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (key, value) in kept(&entry.xattrs) {
        tolerate(key, fsetxattr(file, key, value, XattrFlags::empty()))?;
    }
    Ok(futimens(file, &times(entry.mtime))?)
}

/// Both times of a file.
pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn kept(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).filter(|(key, _)| !steers_overlay(key))
}

/// An attribute that the file system or the kind of file can't have is left out, as containerd does.
fn tolerate(key: &[u8], outcome: rustix::io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(Errno::NOTSUP) => {}
        Err(Errno::PERM) if key.starts_with(b"user.") => {}
        Err(e) => {
            let key = String::from_utf8_lossy(key);
            return Err(io::Error::new(
                io::Error::from(e).kind(),
                format!("set attribute {key}: {}", io::Error::from(e)),
            ));
        }
        Ok(()) => return Ok(()),
    }
    tracing::debug!(attribute = %String::from_utf8_lossy(key), "an extended attribute of a layer is left out");
    Ok(())
}
