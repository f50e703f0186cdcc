//! Copies of trees and files with all that belongs to them: owners, modes, times, extended attributes, holes, hard
//! links, devices. Data is shared with the original where the file system can.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    ftruncate, ioctl_ficlone, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, seek,
    statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{MAX_DEPTH, names, open_dir, too_deep};

/// Copies one tree, keeping hard links inside it.
#[derive(Default)]
pub struct Copier {
    /// Where the first name of a file with several went, below the copy's root.
    links: HashMap<(u64, u64), PathBuf>,
}

struct Level {
    from: OwnedFd,
    to: OwnedFd,
    names: std::vec::IntoIter<CString>,
    /// Below the root.
    path: PathBuf,
    stat: Stat,
}

impl Copier {
    /// Copies what is in `from` to the existing folder `to`, which gets the attributes of `from`.
    pub fn tree(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = rustix::fs::open(from, flags, Mode::empty())?;
        let root = rustix::fs::open(to, flags, Mode::empty())?;
        let mut levels = vec![Level::enter(from, root.try_clone()?, PathBuf::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                level.finish()?;
                levels.pop();
                continue;
            };
            let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
            if let Some((from, to)) = self.entry(root.as_fd(), level, &name, &path).map_err(named)? {
                if levels.len() == MAX_DEPTH {
                    return Err(too_deep());
                }
                levels.push(Level::enter(from, to, path)?);
            }
        }
        Ok(())
    }

    /// Copies one entry; a folder is made and given back for its content to be copied.
    fn entry(
        &mut self,
        root: BorrowedFd<'_>,
        level: &Level,
        name: &CStr,
        path: &Path,
    ) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        let (from, to) = (level.from.as_fd(), level.to.as_fd());
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mkdirat(to, name, Mode::RWXU)?;
            return Ok(Some((open_dir(from, name)?, open_dir(to, name)?)));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                linkat(root, first, to, name, AtFlags::empty())?;
                return Ok(None);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        copy_file(from, name, to, name, &stat, &|_| true)?;
        Ok(None)
    }
}

impl Level {
    fn enter(from: OwnedFd, to: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&from)?;
        Ok(Self { names: names(from.as_fd())?.into_iter(), from, to, path, stat })
    }

    /// Last, because adding entries changes a folder's times.
    fn finish(&self) -> io::Result<()> {
        copy_attributes(self.from.as_fd(), c".", self.to.as_fd(), c".", &self.stat, &|_| true)
    }
}

/// Copies anything but a folder to a new name. `keep` chooses among the extended attributes.
pub fn copy_file(
    from: BorrowedFd<'_>,
    from_name: &CStr,
    to: BorrowedFd<'_>,
    to_name: &CStr,
    stat: &Stat,
    keep: &dyn Fn(&[u8]) -> bool,
) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let source = openat(from, from_name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = openat(to, to_name, flags, Mode::RUSR | Mode::WUSR)?;
            copy_data(&File::from(source), &File::from(copy), stat.st_size as u64)?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, from_name, Vec::new())?;
            symlinkat(&target, to, to_name)?;
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket) => {
            mknodat(to, to_name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
        }
        FileType::Directory | FileType::Unknown => return Err(io::Error::other("not a file")),
    }
    copy_attributes(from, from_name, to, to_name, stat, keep)
}

/// Gives the file `to_name` owner, mode, extended attributes and times of another; links are not followed.
pub fn copy_attributes(
    from: BorrowedFd<'_>,
    from_name: &CStr,
    to: BorrowedFd<'_>,
    to_name: &CStr,
    stat: &Stat,
    keep: &dyn Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, to_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // A change of owner takes these bits off.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, to_name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    copy_xattrs(&in_folder(from, from_name), &in_folder(to, to_name), keep)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(utimensat(to, to_name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A path to `name` in an open folder, for calls that know no descriptors.
pub fn in_folder(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(OsStr::from_bytes(name.to_bytes()))
}

/// The extended attributes of a file, links not followed, that `keep` chooses.
pub fn xattrs(path: &Path, keep: &dyn Fn(&[u8]) -> bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = [0u8; 1024];
    let names = match llistxattr(path, &mut list) {
        Ok(length) => list[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut list = vec![0; 65536];
            let length = llistxattr(path, &mut list)?;
            list.truncate(length);
            list
        }
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && keep(name)) {
        let mut value = vec![0; 65536];
        let length = match lgetxattr(path, name, &mut value) {
            Err(Errno::NODATA) => continue,
            outcome => outcome?,
        };
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

fn copy_xattrs(from: &Path, to: &Path, keep: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
    for (name, value) in xattrs(from, keep)? {
        lsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Copies `size` bytes, leaving holes where the original has them.
fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    if size == 0 || ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut position = 0;
    while position < size {
        let start = match seek(from, SeekFrom::Data(position)) {
            Err(Errno::NXIO) => break,
            // The file system knows nothing of holes.
            Err(Errno::INVAL | Errno::NOTSUP) => position,
            outcome => outcome?,
        };
        let end = seek(from, SeekFrom::Hole(start)).unwrap_or(size);
        seek(from, SeekFrom::Start(start))?;
        seek(to, SeekFrom::Start(start))?;
        let copied = io::copy(&mut io::Read::take(from, end - start), &mut &*to)?;
        if copied < end - start {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was copied"));
        }
        position = end;
    }
    Ok(ftruncate(to, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, makedev};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_copy_has_all_that_belongs_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/suid"), "program").unwrap();
        std::os::unix::fs::chown(from.join("sub/suid"), Some(7), Some(8)).unwrap();
        fs::set_permissions(from.join("sub/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(from.join("sub/suid"), from.join("again")).unwrap();
        lsetxattr(from.join("again"), "user.x", b"y", XattrFlags::empty()).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("link")).unwrap();
        mknodat(CWD, from.join("null"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 3)).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 32 << 20).unwrap();
        let past = Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
        let times = Timestamps { last_access: past, last_modification: past };
        for path in ["sub/suid", "sub", "link"] {
            utimensat(CWD, from.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1755)).unwrap();

        Copier::default().tree(&from, &to).unwrap();

        let suid = fs::metadata(to.join("sub/suid")).unwrap();
        assert_eq!((suid.uid(), suid.gid(), suid.mode() & 0o7777, suid.mtime()), (7, 8, 0o4755, 1_000_000));
        assert_eq!(suid.ino(), fs::metadata(to.join("again")).unwrap().ino());
        let mut value = [0; 8];
        assert_eq!(lgetxattr(to.join("sub/suid"), "user.x", &mut value), Ok(1));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::symlink_metadata(to.join("link")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::metadata(to.join("null")).unwrap().rdev(), makedev(1, 3));
        assert_eq!(fs::metadata(to.join("sub")).unwrap().mtime_nsec(), 5);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o1755);
        let sparse = fs::metadata(to.join("sparse")).unwrap();
        assert!(sparse.len() == 64 << 20 && sparse.blocks() < 1000, "{} blocks", sparse.blocks());
        assert!(fs::read(to.join("sparse")).unwrap() == fs::read(from.join("sparse")).unwrap());
    }
}
