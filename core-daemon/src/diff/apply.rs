//! Writes the entries of a layer's archive.
//!
//! Later entries replace earlier ones of the same name. A folder's time is set at the end, when nothing more goes into
//! it. The root folder itself keeps its attributes, as under containerd. Nothing is synced: whoever commits does that.

use std::ffi::{CStr, CString};
use std::io::{self, Read};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, ftruncate, linkat, makedev, mkdirat, mknodat, openat, seek, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;
use shared_sys::mount::Mount;

use super::archive::{Archive, Entry, Kind, Piece};
use super::flush::Flush;
use super::parents::{Below, Parents, Way, components};
use super::target::{Style, Target, is_whiteout, set_opaque, steers_overlay};
use super::whiteouts::{Meaning, Written, meaning, opaque, whiteout};
use super::{Applied, DiffError, attributes, chunks, flush};
use crate::snapshots::tree::{copy_file, open_dir, remove_at};

/// Writes a plain archive to where these mounts would be written to. Reads `reader` to its end, on a thread of its own.
pub fn apply(reader: &mut (dyn Read + Send), mounts: &[Mount]) -> Result<Applied, DiffError> {
    let target = Target::of(mounts)?;
    let folder = open_dir(&target.root, c".").map_err(DiffError::entry(b"/"))?;
    let parents = Parents::new(target).map_err(DiffError::entry(b"/"))?;
    std::thread::scope(|scope| {
        let mut writer =
            Writer { parents, written: Written::default(), dirs: Vec::new(), flush: flush::start(scope, folder) };
        let (chunks, whole) = chunks::start(scope, reader);
        let mut archive = Archive::new(chunks);
        while let Some(entry) = archive.next()? {
            writer.entry(&mut archive, &entry)?;
        }
        writer.finish()?;
        archive.drain()?;
        let whole = whole.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        whole.ok_or_else(|| DiffError::Read(io::ErrorKind::UnexpectedEof.into()))
    })
}

/// Writes what was applied to these mounts to the disk, and everything else on their file system.
pub fn sync(mounts: &[Mount]) -> Result<(), DiffError> {
    let root = open_dir(&Target::of(mounts)?.root, c".").map_err(|e| DiffError::Sync(e.into()))?;
    rustix::fs::syncfs(root).map_err(|e| DiffError::Sync(e.into()))
}

struct Writer {
    parents: Parents,
    written: Written,
    /// Folders whose times are to be set, by real name.
    dirs: Vec<(Vec<CString>, (i64, u32))>,
    flush: Flush,
}

impl Writer {
    fn entry(&mut self, archive: &mut Archive, entry: &Entry) -> Result<(), DiffError> {
        let refused = |reason: &str| {
            let shown = String::from_utf8_lossy(&entry.path[..entry.path.len().min(256)]);
            archive.malformed(format!("{reason}: {shown:?}"))
        };
        let parts = components(&entry.path).map_err(refused)?;
        let Some((name, path)) = parts.split_last() else { return Ok(()) };
        if path.first().is_some_and(|first| first.as_bytes().starts_with(b".wh..wh.")) {
            return Ok(());
        }
        let named = DiffError::entry::<io::Error>;
        match meaning(name).map_err(refused)? {
            Meaning::Ignored => Ok(()),
            Meaning::Opaque => opaque(&mut self.parents, &self.written, path).map_err(named(&entry.path)),
            Meaning::Whiteout(hidden) => {
                whiteout(&mut self.parents, &self.written, path, hidden).map_err(named(&entry.path))
            }
            Meaning::Entry => {
                self.write(archive, entry, path, name)?;
                self.written.add(&self.parents.real(name));
                Ok(())
            }
        }
    }

    fn write(&mut self, archive: &mut Archive, entry: &Entry, path: &[CString], name: &CStr) -> Result<(), DiffError> {
        let named = DiffError::entry::<io::Error>;
        let failed = |e| named(&entry.path)(e);
        if let Kind::HardLink(target) = &entry.kind {
            let target = components(target).map_err(|reason| archive.malformed(reason))?;
            return self.hard_link(path, name, &target).map_err(failed);
        }
        self.parents.enter(path, Way::Make).map_err(failed)?;
        match &entry.kind {
            Kind::File => {
                let file = self.file(name).map_err(failed)?;
                archive.data(|bytes| {
                    self.flush.wrote(bytes.len());
                    write_all(&file, bytes).map_err(failed)
                })?;
                attributes::set_of_file(self.parents.top(), &file, entry).map_err(failed)
            }
            Kind::Sparse { pieces, size } => {
                let file = self.file(name).map_err(failed)?;
                for Piece { offset, length } in pieces {
                    seek(&file, SeekFrom::Start(*offset)).map_err(|e| failed(e.into()))?;
                    archive.some_data(*length, &mut |bytes| write_all(&file, bytes).map_err(failed))?;
                }
                ftruncate(&file, *size).map_err(|e| failed(e.into()))?;
                attributes::set_of_file(self.parents.top(), &file, entry).map_err(failed)
            }
            Kind::Dir => self.dir(name, entry).map_err(failed),
            Kind::Symlink(target) => {
                self.bare(name, entry, |dir| symlinkat(target.as_slice(), dir, name)).map_err(failed)
            }
            Kind::Fifo => self.node(name, entry, FileType::Fifo, 0).map_err(failed),
            Kind::CharDevice { major, minor } => {
                self.node(name, entry, FileType::CharacterDevice, makedev(*major, *minor)).map_err(failed)
            }
            Kind::BlockDevice { major, minor } => {
                self.node(name, entry, FileType::BlockDevice, makedev(*major, *minor)).map_err(failed)
            }
            Kind::HardLink(_) => Ok(()),
        }
    }

    fn file(&self, name: &CStr) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.instead(name, |dir| openat(dir, name, flags, Mode::RUSR | Mode::WUSR))
    }

    fn node(&self, name: &CStr, entry: &Entry, kind: FileType, device: u64) -> io::Result<()> {
        self.bare(name, entry, |dir| mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device))
    }

    /// Makes anything that has no data and gives it its attributes.
    fn bare(
        &self,
        name: &CStr,
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        self.instead(name, make)?;
        attributes::set(self.parents.top(), name, entry)?;
        let dir = &self.parents.top().dir;
        Ok(utimensat(dir, name, &attributes::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes `name` in the folder found last, removing what has it already.
    fn instead<T>(&self, name: &CStr, make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>) -> io::Result<T> {
        let dir = self.parents.top().dir.as_fd();
        match make(dir) {
            Err(Errno::EXIST) => {
                remove_at(dir, name)?;
                Ok(make(dir)?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// A folder that exists stays, with new attributes. In place of anything else it hides what lies below.
    fn dir(&mut self, name: &CStr, entry: &Entry) -> io::Result<()> {
        let dir = self.parents.top().dir.as_fd();
        match mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    remove_at(dir, name)?;
                    mkdirat(dir, name, Mode::RWXU)?;
                    if let Style::Overlay { opaque, .. } = self.parents.style {
                        set_opaque(super::target::open_path(dir, name)?, opaque)?;
                    }
                }
            }
            outcome => outcome?,
        }
        attributes::set(self.parents.top(), name, entry)?;
        self.dirs.push((self.parents.real(name), entry.mtime));
        Ok(())
    }

    /// The target may lie below, in an overlay: then it is copied up first, as the kernel would.
    fn hard_link(&mut self, path: &[CString], name: &CStr, target: &[CString]) -> io::Result<()> {
        let Some((target_name, target_path)) = target.split_last() else { return Err(Errno::PERM.into()) };
        self.parents.enter(target_path, Way::Make)?;
        let from = self.parents.top().dir.try_clone()?;
        match statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if is_whiteout(&there) => return Err(Errno::NOENT.into()),
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                return Err(Errno::PERM.into());
            }
            Ok(_) => {}
            Err(Errno::NOENT) => match self.parents.below(target_name)? {
                Below::Other(lower) => {
                    let stat = statat(&lower, target_name, AtFlags::SYMLINK_NOFOLLOW)?;
                    let keep = |attribute: &[u8]| !steers_overlay(attribute);
                    copy_file(lower.as_fd(), target_name, from.as_fd(), target_name, &stat, &keep)?;
                }
                Below::Nothing => return Err(io::Error::new(io::ErrorKind::NotFound, "the link's target is missing")),
                Below::Dirs(_) => return Err(Errno::PERM.into()),
            },
            Err(e) => return Err(e.into()),
        }
        self.parents.enter(path, Way::Make)?;
        let dir = self.parents.top().dir.as_fd();
        match linkat(&from, target_name, dir, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let inode = |dir: BorrowedFd<'_>, name: &CStr| {
                    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino))
                };
                if inode(from.as_fd(), target_name)? == inode(dir, name)? {
                    return Ok(());
                }
                remove_at(dir, name)?;
                Ok(linkat(&from, target_name, dir, name, AtFlags::empty())?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Sets the times of folders, those made on the way first.
    fn finish(&mut self) -> Result<(), DiffError> {
        let made = std::mem::take(&mut self.parents.made);
        for (real, mtime) in made.into_iter().chain(std::mem::take(&mut self.dirs)) {
            let Some((name, path)) = real.split_last() else { continue };
            self.dir_time(name, path, mtime).map_err(|e| {
                let shown: Vec<_> = real.iter().map(|part| part.as_bytes()).collect();
                DiffError::entry(&shown.join(&b'/'))(e)
            })?;
        }
        Ok(())
    }

    fn dir_time(&mut self, name: &CStr, path: &[CString], mtime: (i64, u32)) -> io::Result<()> {
        // A later entry may have replaced it.
        if self.parents.enter(path, Way::Real).is_err() {
            return Ok(());
        }
        let dir = &self.parents.top().dir;
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(utimensat(dir, name, &attributes::times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
