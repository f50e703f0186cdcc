//! Taking away what lies below, or was there before.
//!
//! A layer's whiteouts are about the layers below it, never about its own entries, in whatever order they come. In a
//! fresh folder everything is the layer's own; in one that had content before, [`Written`] tells the two apart.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, mknodat, statat, unlinkat};
use rustix::io::Errno;

use super::parents::{Missing, Parents};
use super::target::{Style, is_whiteout};
use crate::snapshots::tree::{names, open_dir, remove_at};

/// What this layer has written, by real name. `false` = only something below it.
#[derive(Default)]
pub(super) struct Written(HashMap<Vec<CString>, bool>);

impl Written {
    pub fn add(&mut self, path: Vec<CString>) {
        let mut way = path.as_slice();
        while let [above @ .., _] = way {
            if above.is_empty() || self.0.contains_key(above) {
                break;
            }
            self.0.insert(above.to_vec(), false);
            way = above;
        }
        self.0.insert(path, true);
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
pub(super) fn whiteout(
    parents: &mut Parents,
    written: Option<&Written>,
    path: &[CString],
    name: &CStr,
) -> io::Result<()> {
    parents.enter(path, Missing::Make)?;
    let real = parents.real(name);
    let dir = parents.top().dir.as_fd();
    let there = stat(dir, name)?;
    if matches!(parents.style, Style::InPlace) {
        return match written {
            Some(written) if there.is_some() => {
                prune(dir, name, &real, written)?;
                Ok(())
            }
            // Nothing was below.
            Some(_) | None => Ok(()),
        };
    }
    let device = || mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0);
    let Some(there) = there else { return Ok(device()?) };
    if is_whiteout(&there) {
        return Ok(());
    }
    let gone = match written {
        Some(written) => prune(dir, name, &real, written)?,
        None => false,
    };
    if gone {
        device()?;
        return Ok(());
    }
    // The layer's own file hides what is below by itself, a folder only when it says so.
    if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
        parents.enter(&real, Missing::Fail)?;
        parents.hide_below()?;
    }
    Ok(())
}

/// Takes everything below the folder `path` away.
pub(super) fn opaque(parents: &mut Parents, written: Option<&Written>, path: &[CString]) -> io::Result<()> {
    parents.enter(path, Missing::Make)?;
    if let Some(written) = written {
        let dir = parents.top().dir.as_fd();
        for name in names(dir)? {
            prune(dir, &name, &parents.real(&name), written)?;
        }
    }
    if path.is_empty() {
        return hide_in_root(parents);
    }
    parents.hide_below()
}

/// The kernel never takes an overlay's root for opaque: each name in it is taken away by itself.
fn hide_in_root(parents: &mut Parents) -> io::Result<()> {
    let mut below = HashSet::new();
    for lower in parents.lower_dirs()? {
        below.extend(names(lower.as_fd())?);
    }
    for name in below {
        whiteout(parents, None, &[], &name)?;
    }
    Ok(())
}

/// Removes what `name` was before this layer; answers whether nothing is left of it.
fn prune(dir: BorrowedFd<'_>, name: &CStr, real: &[CString], written: &Written) -> io::Result<bool> {
    let Some(there) = stat(dir, name)? else { return Ok(true) };
    let wrote = written.0.get(real).copied();
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        if wrote.is_none() {
            unlinkat(dir, name, AtFlags::empty())?;
        }
        return Ok(wrote.is_none());
    }
    // A folder stays for the sake of what the layer wrote into it.
    if wrote.is_none() {
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
