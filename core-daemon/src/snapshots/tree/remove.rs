//! Removing trees.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{names, open_dir};

/// How deep one pass goes before it moves a folder up instead of entering it.
const PASS: usize = 32;

/// Removes `name` in `parent`, whatever it is, with all below. Absent is success.
pub fn remove_at(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    remove_deep(parent, name, &AtomicBool::new(false))
}

/// As [`remove_at`]; gives up early (an `Interrupted` error) once `stop` is set.
///
/// A tree of any depth goes: folders deeper than a pass are moved up beside its root first.
pub fn remove_deep(parent: impl AsFd, name: &CStr, stop: &AtomicBool) -> io::Result<()> {
    let parent = parent.as_fd();
    let root = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => match open_dir(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        },
        Err(e) => return Err(e.into()),
    };
    let mut pass = Pass { root: root.as_fd(), moved: VecDeque::new(), count: 0, stop };
    pass.empty(root.as_fd(), PASS)?;
    while let Some(moved) = pass.moved.pop_front() {
        pass.empty_child(root.as_fd(), &moved, PASS)?;
    }
    remove_empty(parent, name)
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

struct Pass<'a> {
    root: BorrowedFd<'a>,
    /// Folders that were moved into the root, by their new names.
    moved: VecDeque<CString>,
    count: usize,
    stop: &'a AtomicBool,
}

impl Pass<'_> {
    /// Removes what is in `dir`, entering at most `depth` levels.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for name in names(dir)? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Errno::INTR.into());
            }
            match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) if depth == 0 => self.move_up(dir, &name)?,
                Err(Errno::ISDIR | Errno::PERM) => self.empty_child(dir, &name, depth - 1)?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn empty_child(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let child = match open_dir(dir, name) {
            // Somebody else removes the same tree.
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        self.empty(child.as_fd(), depth)?;
        drop(child);
        remove_empty(dir, name)
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        loop {
            self.count += 1;
            let new = CString::new(format!(".deep-{}", self.count)).expect("no zero byte");
            match rustix::fs::renameat_with(dir, name, self.root, &new, rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.moved.push_back(new);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, open};
    use std::fs;

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = open(dir.path(), flags, Mode::empty()).unwrap();
        mkdirat(&top, "t", Mode::RWXU).unwrap();
        let mut inner = open_dir(&top, c"t").unwrap();
        for _ in 0..3000 {
            mkdirat(&inner, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(outside.path(), &inner, "link").unwrap();
            inner = open_dir(&inner, c"d").unwrap();
        }
        remove_at(&top, c"t").unwrap();
        remove_at(&top, c"t").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
        remove_at(CWD, &CString::new(outside.path().to_str().unwrap()).unwrap()).unwrap();
    }
}
