//! Makes the layer that turns one tree into another.
//!
//! Both trees are mounted read-only, attached nowhere, and walked side by side in the order of names. What changed is
//! written with the folders on its way; what is gone becomes a whiteout. Times are cut to seconds, as containerd does,
//! so that the same change gives the same layer everywhere.
//!
//! A file counts as the same when all its attributes, its size and its time are; where times are whole seconds, its
//! content must be the same too. Sockets are left out: archives have none.
//!
//! Limits: folders nested at most 256 deep; of extended attributes only `user.*` and `security.capability`.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use shared_sys::mount::{Detached, Mount};

use super::DiffError;
use super::compare::{is_kept, kind, open, same};
use super::parents::MAX_DEPTH;
use super::record::{Body, Record};
use crate::snapshots::tree::{in_folder, names, open_dir, xattrs};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// Writes the plain archive of what `right` has changed since `left` (none = an empty tree). No time in it is later
/// than `latest`, seconds since the epoch, which whiteouts carry as their own.
pub fn create(left: &[Mount], right: &[Mount], latest: Option<i64>, out: &mut dyn Write) -> Result<(), DiffError> {
    let open = |mounts: &[Mount]| {
        let tree = Detached::of(&read_only(mounts)).map_err(|e| DiffError::Mounts(e.to_string()))?;
        open_dir(&tree, c".").map_err(|e| DiffError::Mounts(e.to_string()))
    };
    let left = if left.is_empty() { None } else { Some(open(left)?) };
    let right = open(right)?;
    let root =
        Level { stat: fstat(&right).map_err(DiffError::entry(b"/"))?, dir: right, path: Vec::new(), written: true };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let mut walk = Walk {
        out,
        way: vec![root],
        linked: HashMap::new(),
        unchanged: HashMap::new(),
        latest: latest.unwrap_or(i64::MAX),
        gone_at: latest.unwrap_or(now),
        buffer: vec![0; BUFFER],
    };
    walk.folder(left.as_ref())?;
    // The end of an archive.
    walk.out.write_all(&[0; 1024]).map_err(DiffError::Write)
}

/// The same trees for looking at only: an upper folder must not be that of two overlays.
fn read_only(mounts: &[Mount]) -> Vec<Mount> {
    let look_at = |mount: &Mount| {
        let mut mount = mount.clone();
        let upper = mount.options.iter().find_map(|o| o.strip_prefix("upperdir=")).map(str::to_owned);
        mount.options.retain(|o| !o.starts_with("upperdir=") && !o.starts_with("workdir=") && o != "rw" && o != "ro");
        if let (Some(upper), "overlay") = (upper, mount.kind.as_str()) {
            for option in &mut mount.options {
                if let Some(lower) = option.strip_prefix("lowerdir=") {
                    *option = format!("lowerdir={upper}:{lower}");
                }
            }
        }
        mount.options.push("ro".into());
        mount
    };
    mounts.iter().map(look_at).collect()
}

/// A folder on the way to what is looked at.
struct Level {
    dir: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
    written: bool,
}

struct Walk<'a> {
    out: &'a mut dyn Write,
    /// From the root to the folder that is being walked.
    way: Vec<Level>,
    /// Where the first name of a file with several was written.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// Names of files with several that have not changed, so far.
    unchanged: HashMap<(u64, u64), Vec<Vec<u8>>>,
    latest: i64,
    gone_at: i64,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn top(&self) -> &Level {
        self.way.last().expect("the root stays")
    }

    fn path(&self, name: &CStr) -> Vec<u8> {
        match self.top().path.as_slice() {
            b"" => name.to_bytes().to_vec(),
            folder => [folder, b"/", name.to_bytes()].concat(),
        }
    }

    /// Compares the folder on top of the way with `left`.
    fn folder(&mut self, left: Option<&OwnedFd>) -> Result<(), DiffError> {
        let path = self.top().path.clone();
        let failed = |e: io::Error| DiffError::entry::<io::Error>(&path)(e);
        let mut all: BTreeSet<CString> = names(self.top().dir.as_fd()).map_err(failed)?.into_iter().collect();
        if let Some(left) = left {
            all.extend(names(left.as_fd()).map_err(failed)?);
        }
        for name in all {
            let path = self.path(&name);
            let failed = |e: io::Error| DiffError::entry::<io::Error>(&path)(e);
            let new = stat(self.top().dir.as_fd(), &name).map_err(failed)?;
            let old = match left {
                Some(left) => stat(left.as_fd(), &name).map_err(failed)?,
                None => None,
            };
            let Some(new) = new else {
                if old.is_some() {
                    self.whiteout(&name)?;
                }
                continue;
            };
            let same = match (left, &old) {
                (Some(left), Some(old)) => {
                    same(left.as_fd(), old, self.top().dir.as_fd(), &new, &name).map_err(failed)?
                }
                _ => false,
            };
            if kind(&new) != FileType::Directory {
                if !same || self.linked.contains_key(&(new.st_dev, new.st_ino)) {
                    self.file(&name, path, &new)?;
                } else if new.st_nlink > 1 {
                    self.unchanged.entry((new.st_dev, new.st_ino)).or_default().push(path);
                }
                continue;
            }
            if self.way.len() > MAX_DEPTH {
                return Err(failed(Errno::NAMETOOLONG.into()));
            }
            let below = match (left, &old) {
                (Some(left), Some(old)) if kind(old) == FileType::Directory => {
                    Some(open_dir(left, &name).map_err(|e| failed(e.into()))?)
                }
                _ => None,
            };
            let dir = open_dir(&self.top().dir, &name).map_err(|e| failed(e.into()))?;
            self.way.push(Level { dir, stat: new, path, written: false });
            if !same {
                self.folders()?;
            }
            self.folder(below.as_ref())?;
            self.way.pop();
        }
        Ok(())
    }

    /// Writes the folders on the way that are not yet.
    fn folders(&mut self) -> Result<(), DiffError> {
        for level in self.way.iter_mut().filter(|level| !level.written) {
            level.written = true;
            let name = [level.path.as_slice(), b"/"].concat();
            let xattrs =
                xattrs(&in_folder(level.dir.as_fd(), c"."), &is_kept).map_err(DiffError::entry(&level.path))?;
            let record = Record { path: &name, stat: &level.stat, mtime: level.stat.st_mtime.min(self.latest), xattrs };
            record.write(Body::None, self.out).map_err(DiffError::Write)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &CStr) -> Result<(), DiffError> {
        self.folders()?;
        let hidden = CString::new([b".wh.", name.to_bytes()].concat()).expect("no zero byte in two names");
        let path = self.path(&hidden);
        Record::whiteout(&path, self.gone_at, self.out).map_err(DiffError::Write)
    }

    fn file(&mut self, name: &CStr, path: Vec<u8>, stat: &Stat) -> Result<(), DiffError> {
        let failed = |e: io::Error| DiffError::entry::<io::Error>(&path)(e);
        if kind(stat) == FileType::Socket {
            return Ok(());
        }
        self.folders()?;
        let dir = self.way.last().expect("the root stays").dir.as_fd();
        let xattrs = xattrs(&in_folder(dir, name), &is_kept).map_err(failed)?;
        let record = Record { path: &path, stat, mtime: stat.st_mtime.min(self.latest), xattrs };
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.linked.get(&inode) {
            return record.write(Body::HardLink(first), self.out).map_err(DiffError::Write);
        }
        match kind(stat) {
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(|e| failed(e.into()))?;
                record.write(Body::Symlink(target.as_bytes()), self.out).map_err(DiffError::Write)?;
            }
            FileType::RegularFile => {
                let file = open(dir, name).map_err(failed)?;
                record.write(Body::None, self.out).map_err(DiffError::Write)?;
                copy(file, stat.st_size as u64, &mut self.buffer, self.out, &failed)?;
            }
            _ => record.write(Body::None, self.out).map_err(DiffError::Write)?,
        }
        if stat.st_nlink > 1 {
            // Names that had not changed by themselves are of this file now.
            for other in self.unchanged.remove(&inode).unwrap_or_default() {
                let link = Record { path: &other, stat, mtime: stat.st_mtime.min(self.latest), xattrs: Vec::new() };
                link.write(Body::HardLink(&path), self.out).map_err(DiffError::Write)?;
            }
            self.linked.insert(inode, path);
        }
        Ok(())
    }
}

/// Copies `size` bytes of a file, and the zeros up to the next block.
fn copy(
    mut file: File,
    size: u64,
    buffer: &mut [u8],
    out: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> DiffError,
) -> Result<(), DiffError> {
    let mut left = size;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = file.read(&mut buffer[..wanted]).map_err(failed)?;
        if length == 0 {
            return Err(failed(io::Error::other("it became shorter while it was read")));
        }
        out.write_all(&buffer[..length]).map_err(DiffError::Write)?;
        left -= length as u64;
    }
    let padding = (512 - size % 512) % 512;
    out.write_all(&[0; 512][..padding as usize]).map_err(DiffError::Write)
}

fn stat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
