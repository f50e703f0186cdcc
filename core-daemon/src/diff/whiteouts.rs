//! Taking away what lies below, or was there before.
//!
//! A layer's whiteouts are about the layers below it, never about its own entries, in whatever order they come.
//! [`Written`] tells the two apart.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::io;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, mknodat, statat, unlinkat};
use rustix::io::Errno;

use super::parents::{Below, Parents, Way};
use super::target::{Style, is_whiteout};
use crate::snapshots::tree::{names, open_dir, remove_at};

/// What this layer has written: the keyed hash of each real name. `false` = only something below it.
#[derive(Default)]
pub(super) struct Written {
    names: HashMap<u64, bool>,
    key: RandomState,
}

impl Written {
    pub fn add(&mut self, path: &[CString]) {
        let mut way = path;
        while let [above @ .., _] = way {
            let hash = self.key.hash_one(above);
            if above.is_empty() || self.names.contains_key(&hash) {
                break;
            }
            self.names.insert(hash, false);
            way = above;
        }
        self.names.insert(self.key.hash_one(path), true);
    }

    /// Whether the layer has neither this nor anything below it.
    fn has_nothing_of(&self, path: &[CString]) -> bool {
        !self.names.contains_key(&self.key.hash_one(path))
    }
}

/// What a name in a layer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    Entry,
    /// This name is gone.
    Whiteout(&'a CStr),
    /// Everything below its folder is gone.
    Opaque,
    /// Left by an old storage driver; means nothing here.
    Ignored,
}

/// Tells what the last component of a name means, or why it is refused.
pub(super) fn meaning(name: &CStr) -> Result<Meaning<'_>, &'static str> {
    let bytes = name.to_bytes();
    if bytes == b".wh..wh..opq" {
        return Ok(Meaning::Opaque);
    }
    if bytes.starts_with(b".wh..wh.") {
        return Ok(Meaning::Ignored);
    }
    if !bytes.starts_with(b".wh.") {
        return Ok(Meaning::Entry);
    }
    let hidden = CStr::from_bytes_with_nul(&name.to_bytes_with_nul()[4..]).expect("a tail of a C string is one");
    match hidden.to_bytes() {
        b"" | b"." | b".." => Err("a whiteout must be of a name"),
        _ => Ok(Meaning::Whiteout(hidden)),
    }
}

/// Takes `name` in the folder `path` away.
pub(super) fn whiteout(parents: &mut Parents, written: &Written, path: &[CString], name: &CStr) -> io::Result<()> {
    parents.enter(path, Way::Make)?;
    let real = parents.real(name);
    let dir = parents.top().dir.as_fd();
    let there = stat(dir, name)?;
    if matches!(parents.style, Style::InPlace) {
        return prune(dir, name, &real, written).map(drop);
    }
    let Some(there) = there else { return hide(parents, name) };
    if is_whiteout(&there) {
        return Ok(());
    }
    if prune(dir, name, &real, written)? {
        return hide(parents, name);
    }
    // The layer's own file hides what is below by itself, a folder only when it says so.
    if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
        parents.enter(&real, Way::Real)?;
        parents.hide_below()?;
    }
    Ok(())
}

/// Marks a name that is not there as gone, if it is below: a mark on nothing would show as a broken entry.
fn hide(parents: &mut Parents, name: &CStr) -> io::Result<()> {
    match parents.below(name)? {
        Below::Nothing => Ok(()),
        Below::Dirs(_) | Below::Other(_) => {
            let dir = parents.top().dir.as_fd();
            Ok(mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
        }
    }
}

/// Takes everything below the folder `path` away.
pub(super) fn opaque(parents: &mut Parents, written: &Written, path: &[CString]) -> io::Result<()> {
    parents.enter(path, Way::Make)?;
    let dir = parents.top().dir.as_fd();
    for name in names(dir)? {
        prune(dir, &name, &parents.real(&name), written)?;
    }
    if parents.is_at_root() {
        return hide_in_root(parents, written);
    }
    parents.hide_below()
}

/// The kernel never takes an overlay's root for opaque: each name in it is taken away by itself.
fn hide_in_root(parents: &mut Parents, written: &Written) -> io::Result<()> {
    let mut below = HashSet::new();
    for lower in parents.lower_dirs()? {
        below.extend(names(lower.as_fd())?);
    }
    for name in below {
        whiteout(parents, written, &[], &name)?;
    }
    Ok(())
}

/// Removes what `name` was before this layer; answers whether nothing is left of it.
fn prune(dir: BorrowedFd<'_>, name: &CStr, real: &[CString], written: &Written) -> io::Result<bool> {
    let Some(there) = stat(dir, name)? else { return Ok(true) };
    let gone = written.has_nothing_of(real);
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        if gone {
            unlinkat(dir, name, AtFlags::empty())?;
        }
        return Ok(gone);
    }
    // A folder stays for the sake of what the layer wrote into it.
    if gone {
        remove_at(dir, name)?;
        return Ok(true);
    }
    let inner = open_dir(dir, name)?;
    for child in names(inner.as_fd())? {
        let path = [real, std::slice::from_ref(&child)].concat();
        prune(inner.as_fd(), &child, &path, written)?;
    }
    Ok(false)
}

fn stat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<rustix::fs::Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
