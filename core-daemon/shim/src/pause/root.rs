//! The root filesystem of a pause process, in a mount namespace of its own.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use shared_sys::mount::{self, Mount, Place};

use super::plan::MountSpec;

/// Character devices that every container has, by name and number.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links in `/dev`, and where they lead.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Nothing that is mounted from here on is seen outside of this namespace.
pub fn keep_to_ourselves() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Mounts what the spec asks for below `root`, out of which no link of the image leads.
pub fn mount_below(root: &Path, wanted: &[MountSpec]) -> io::Result<()> {
    for wanted in wanted {
        let is_file = wanted.kind == "bind" && !fs::metadata(&wanted.source)?.is_dir();
        let place = if is_file { Place::File } else { Place::Folder };
        mount::make_place(root, &wanted.destination, place)?;
        let mount = Mount {
            kind: wanted.kind.clone(),
            source: wanted.source.clone(),
            target: wanted.destination.to_string_lossy().into_owned(),
            options: wanted.options.clone(),
        };
        mount::mount_all(&[mount], root)?;
    }
    Ok(())
}

/// Makes `root` the root of all, and lets the node's go.
pub fn enter(root: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty())?;
    let new = rustix::fs::open(root, flags, Mode::empty())?;
    rustix::process::fchdir(&new)?;
    // The old root comes to lie on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Fills `/dev`.
pub fn make_devices() -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let (path, mode) = (Path::new("/dev").join(name), Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, rustix::fs::makedev(major, minor))?;
    }
    LINKS.iter().try_for_each(|(name, target)| std::os::unix::fs::symlink(target, Path::new("/dev").join(name)))
}

/// Makes a path read-only; one that is not there needs nothing.
pub fn make_read_only(path: &Path) -> io::Result<()> {
    on_itself("bind", &path.to_string_lossy(), path, &["rbind", "ro"])
}

/// Hides a path: a file becomes empty, and a folder, too.
pub fn hide(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => on_itself("tmpfs", "tmpfs", path, &["ro"]),
        Ok(_) => on_itself("bind", "/dev/null", path, &["bind"]),
        Err(e) => absent(e),
    }
}

fn on_itself(kind: &str, source: &str, path: &Path, options: &[&str]) -> io::Result<()> {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = Mount { kind: kind.into(), source: source.into(), target: String::new(), options };
    mount::mount_all(&[mount], path).or_else(absent)
}

fn absent(e: io::Error) -> io::Result<()> {
    match e.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    }
}
