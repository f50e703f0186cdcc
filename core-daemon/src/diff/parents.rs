//! Finds the folder that an entry goes into, one component at a time.
//!
//! The way from the root is kept open as a stack of real folders, so that the usual next entry costs no lookup. Links
//! on the way are followed as a process with the layer as its root would; in an overlay they may lie in the layers
//! below. A folder that only exists there is made with the same attributes, for the merged tree must not change.
//!
//! No lookup leaves the stack: every component is opened below the one before, never through a link, and `..` stops
//! at the root.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::target::{Style, Target, is_opaque, is_whiteout, open_path, set_opaque, steers_overlay};
use crate::snapshots::tree::{copy_attributes, names};

/// The longest name, bytes, and the most components.
pub(super) const MAX_PATH: usize = 4096;
pub(super) const MAX_DEPTH: usize = 256;
/// Links that may be followed on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// A name taken apart: no empty components, no `.`, no `..`.
pub(super) fn components(path: &[u8]) -> Result<Vec<CString>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("the name is longer than 4096 bytes");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(CString::new(part).map_err(|_| "the name has a zero byte")?),
        }
    }
    if parts.len() > MAX_DEPTH { Err("the name has more than 256 components") } else { Ok(parts) }
}

/// How a way is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Links are followed, and folders that are missing made.
    Make,
    /// The name is a real one, found before. Where it no longer is, that is an error.
    Real,
}

/// One folder on the way.
pub(super) struct Level {
    name: CString,
    pub dir: OwnedFd,
    /// New entries get the folder's group.
    pub passes_group_on: bool,
    /// The folders of this name in the layers below that show through, top first; `None` = not looked up yet.
    lower: Option<Vec<OwnedFd>>,
}

pub(super) struct Parents {
    pub style: Style,
    stack: Vec<Level>,
    /// The name that led to the top of the stack. It holds until the next [`Parents::enter`]: in between, only what is
    /// in the top folder changes.
    last: Option<Vec<CString>>,
    /// Folders made on the way, with the times that they had below.
    pub made: Vec<(Vec<CString>, (i64, u32))>,
}

/// What a step found.
enum Step {
    Entered(Level),
    Link(Vec<u8>),
}

/// What the layers below have under a name.
pub(super) enum Below {
    Nothing,
    Dirs(Vec<OwnedFd>),
    /// Anything else, in this folder.
    Other(OwnedFd),
}

impl Parents {
    pub fn new(target: Target) -> io::Result<Self> {
        let root = Level::enter(CString::default(), target.root)?;
        Ok(Self { style: target.style, stack: vec![root], last: Some(Vec::new()), made: Vec::new() })
    }

    /// The folder found last.
    pub fn top(&self) -> &Level {
        self.stack.last().expect("the root stays")
    }

    /// Whether that is the root, by whatever name it was found.
    pub fn is_at_root(&self) -> bool {
        self.stack.len() == 1
    }

    /// The real name of `name` in the folder found last.
    pub fn real(&self, name: &CStr) -> Vec<CString> {
        self.stack[1..].iter().map(|level| level.name.clone()).chain([name.to_owned()]).collect()
    }

    /// Finds the folder with this name.
    pub fn enter(&mut self, path: &[CString], way: Way) -> io::Result<()> {
        if self.last.as_deref() == Some(path) {
            return Ok(());
        }
        self.last = None;
        let same = self.stack[1..].iter().zip(path).take_while(|(level, part)| level.name == **part).count();
        self.stack.truncate(1 + same);
        let mut rest: VecDeque<CString> = path[same..].iter().cloned().collect();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part.as_bytes() == b".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
                continue;
            }
            if self.stack.len() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            match self.step(&part, way)? {
                Step::Entered(level) => self.stack.push(level),
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        self.stack.truncate(1);
                    }
                    let parts = target.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b"."));
                    for part in parts.rev() {
                        rest.push_front(CString::new(part).map_err(io::Error::other)?);
                    }
                }
            }
        }
        self.last = Some(path.to_vec());
        Ok(())
    }

    fn step(&mut self, name: &CStr, way: Way) -> io::Result<Step> {
        let dir = self.top().dir.as_fd();
        match open_path(dir, name) {
            Ok(dir) => return Ok(Step::Entered(Level::enter(name.to_owned(), dir)?)),
            Err(Errno::NOENT) => return self.missing(name, way),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(e.into()),
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink && way == Way::Make {
            return Ok(Step::Link(readlinkat(dir, name, Vec::new())?.into_bytes()));
        }
        match &self.style {
            // Deleted before, and now a folder with nothing of what was there.
            Style::Overlay { opaque, .. } if is_whiteout(&stat) && way == Way::Make => {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                let made = make(dir, name)?;
                set_opaque(&made, opaque)?;
                Ok(Step::Entered(Level { lower: Some(Vec::new()), ..Level::enter(name.to_owned(), made)? }))
            }
            Style::Overlay { .. } | Style::InPlace => Err(Errno::NOTDIR.into()),
        }
    }

    fn missing(&mut self, name: &CStr, way: Way) -> io::Result<Step> {
        if way == Way::Real {
            return Err(Errno::NOENT.into());
        }
        let below = self.below(name)?;
        let dir = self.top().dir.as_fd();
        match below {
            Below::Other(lower) => {
                let stat = statat(&lower, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    return Ok(Step::Link(readlinkat(&lower, name, Vec::new())?.into_bytes()));
                }
                Err(Errno::NOTDIR.into())
            }
            Below::Nothing => Ok(Step::Entered(Level::enter(name.to_owned(), make(dir, name)?)?)),
            Below::Dirs(lower) => {
                let made = make(dir, name)?;
                let stat = fstat(&lower[0])?;
                let keep = |attribute: &[u8]| !steers_overlay(attribute);
                copy_attributes(lower[0].as_fd(), c".", made.as_fd(), c".", &stat, &keep)?;
                self.made.push((self.real(name), (stat.st_mtime, stat.st_mtime_nsec as u32)));
                Ok(Step::Entered(Level { lower: Some(lower), ..Level::enter(name.to_owned(), made)? }))
            }
        }
    }

    /// What shows through under `name` in the folder found last.
    pub fn below(&mut self, name: &CStr) -> io::Result<Below> {
        self.look_below(self.stack.len() - 1)?;
        let Style::Overlay { opaque, .. } = self.style else { return Ok(Below::Nothing) };
        merged(self.top().lower.as_deref().unwrap_or_default(), name, opaque)
    }

    /// The folders that show through the one found last, top first.
    pub fn lower_dirs(&mut self) -> io::Result<&[OwnedFd]> {
        self.look_below(self.stack.len() - 1)?;
        Ok(self.top().lower.as_deref().unwrap_or_default())
    }

    /// Makes the folder found last hide everything below. Marks on single names in it mean nothing then, and go.
    pub fn hide_below(&mut self) -> io::Result<()> {
        let Style::Overlay { opaque, .. } = self.style else { return Ok(()) };
        let top = self.stack.last_mut().expect("the root stays");
        set_opaque(&top.dir, opaque)?;
        top.lower = Some(Vec::new());
        for name in names(top.dir.as_fd())? {
            if is_whiteout(&statat(&top.dir, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                rustix::fs::unlinkat(&top.dir, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Sees to it that `lower` of a level is known.
    fn look_below(&mut self, index: usize) -> io::Result<()> {
        if self.stack[index].lower.is_some() {
            return Ok(());
        }
        let Style::Overlay { lower, opaque } = &self.style else {
            self.stack[index].lower = Some(Vec::new());
            return Ok(());
        };
        let opaque = *opaque;
        let found = if index == 0 {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            lower.iter().map(|dir| openat(CWD, dir, flags, Mode::empty())).collect::<rustix::io::Result<_>>()?
        } else if is_opaque(&self.stack[index].dir, opaque)? {
            Vec::new()
        } else {
            self.look_below(index - 1)?;
            let parents = self.stack[index - 1].lower.as_deref().unwrap_or_default();
            match merged(parents, &self.stack[index].name, opaque)? {
                Below::Dirs(dirs) => dirs,
                Below::Nothing | Below::Other(_) => Vec::new(),
            }
        };
        self.stack[index].lower = Some(found);
        Ok(())
    }
}

impl Level {
    fn enter(name: CString, dir: OwnedFd) -> io::Result<Self> {
        let passes_group_on = fstat(&dir)?.st_mode & Mode::SGID.bits() != 0;
        Ok(Self { name, dir, passes_group_on, lower: None })
    }
}

/// A folder that no entry describes.
fn make(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    mkdirat(dir, name, Mode::RWXU)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    Ok(open_path(dir, name)?)
}

/// What the kernel would show under `name` of these folders merged.
fn merged(dirs: &[OwnedFd], name: &CStr, opaque: &str) -> io::Result<Below> {
    let mut found = Vec::new();
    for dir in dirs {
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            outcome => outcome?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if found.is_empty() && !is_whiteout(&stat) {
                return Ok(Below::Other(dir.try_clone()?));
            }
            break;
        }
        let child = open_path(dir, name)?;
        let hides = is_opaque(&child, opaque)?;
        found.push(child);
        if hides {
            break;
        }
    }
    Ok(if found.is_empty() { Below::Nothing } else { Below::Dirs(found) })
}
