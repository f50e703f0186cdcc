//! Where a layer is written to: the upper folder of an overlay, or a folder in place.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, Stat, XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;
use shared_sys::mount::{Detached, Mount};

use super::DiffError;

/// The place that a layer is written to.
pub(super) struct Target {
    pub root: OwnedFd,
    pub style: Style,
}

/// How what is below shows through, and is taken away.
pub(super) enum Style {
    /// Nothing is below: the folder is the whole tree.
    InPlace,
    /// The kernel merges the folder with these, top first.
    Overlay { lower: Vec<PathBuf>, opaque: &'static str },
}

impl Target {
    /// The place that these mounts, mounted, would be written to.
    pub fn of(mounts: &[Mount]) -> Result<Self, DiffError> {
        let refused = |what: &dyn std::fmt::Display| DiffError::Mounts(what.to_string());
        let [mount] = mounts else {
            return Err(refused(&format_args!("there must be one, not {}", mounts.len())));
        };
        let has = |option: &str| mount.options.iter().any(|o| o == option);
        let value = |key: &str| mount.options.iter().find_map(|o| o.strip_prefix(key)?.strip_prefix('='));
        let in_place = |root| Self { root, style: Style::InPlace };
        if has("ro") {
            return Err(refused(&"they are read-only"));
        }
        match mount.kind.as_str() {
            "overlay" => {
                let upper = value("upperdir").ok_or_else(|| refused(&"the overlay has no upper folder"))?;
                let lower = value("lowerdir").unwrap_or_default();
                let opaque = if has("userxattr") { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
                let lower = lower.split(':').filter(|l| !l.is_empty()).map(PathBuf::from).collect();
                Ok(Self { root: open_root(upper)?, style: Style::Overlay { lower, opaque } })
            }
            "bind" | "rbind" => Ok(in_place(open_root(&mount.source)?)),
            _ => {
                let tree = Detached::of(mounts).map_err(|e| refused(&e))?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(in_place(rustix::fs::openat(&tree, ".", flags, Mode::empty()).map_err(|e| refused(&e))?))
            }
        }
    }
}

fn open_root(path: &str) -> Result<OwnedFd, DiffError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| DiffError::Mounts(format!("{path}: {e}")))
}

/// A folder for looking things up in, not through a link.
pub(super) fn open_path(parent: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Whether this is how an overlay marks a name as deleted.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an attribute steers the overlay, which no layer may.
pub(super) fn steers_overlay(attribute: &[u8]) -> bool {
    attribute.starts_with(b"trusted.overlay.") || attribute.starts_with(b"user.overlay.")
}

/// The path of an open folder, for calls that know no descriptors.
fn itself(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()))
}

/// Whether a folder hides those of its name below.
pub(super) fn is_opaque(dir: impl AsFd, attribute: &str) -> rustix::io::Result<bool> {
    let mut value = [0; 8];
    match lgetxattr(itself(dir.as_fd()), attribute, &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Makes a folder hide those of its name below.
pub(super) fn set_opaque(dir: impl AsFd, attribute: &str) -> rustix::io::Result<()> {
    lsetxattr(itself(dir.as_fd()), attribute, b"y", XattrFlags::empty())
}
