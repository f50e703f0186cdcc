//! Overlays on kernels that take the lower layers only as one string of at most a page.
//!
//! The overlay is mounted with `mount(2)` in a mount namespace that one thread makes for itself, and cloned from there,
//! so that nothing stays behind whatever happens. When the layers' paths are too long together, each is opened and
//! named by its file descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree};
use rustix::thread::UnshareFlags;

use super::Mount;
use super::options::Options;

/// The most that `mount(2)` takes as options, bytes without the terminator.
const PAGE: usize = 4095;

/// `MOUNT_ATTR_*` and what they are called in `mount(2)`.
const FLAGS: [(u64, MountFlags); 7] = [
    (libc::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
    (libc::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
    (libc::MOUNT_ATTR_NODEV, MountFlags::NODEV),
    (libc::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    (libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
    (libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
    (libc::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
];

/// The overlay as a tree that is attached nowhere.
pub(super) fn overlay(request: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let flags =
        FLAGS.iter().filter(|(bit, _)| options.set & bit != 0).fold(MountFlags::empty(), |all, (_, f)| all | *f);
    let mounting = || {
        // SAFETY: only the mount namespace (and with it the working directory) is unshared, on a thread that ends here.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // Opened only now: layers of another mount namespace are refused.
        let layers = Layers::of(&options.data)?;
        // Any folder will do as the place: nobody else looks at this namespace.
        let place = layers.first;
        mount(request.source.as_str(), place, "overlay", flags, layers.data.as_c_str())?;
        Ok(open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
    };
    let outcome = std::thread::scope(|scope| scope.spawn(mounting).join());
    outcome
        .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        .map_err(|e: io::Error| io::Error::new(e.kind(), format!("mount overlay: {e}")))
}

/// The options as one string.
struct Layers<'a> {
    data: CString,
    first: &'a str,
    /// Keeps the layers open that the string names by descriptor.
    _open: Vec<OwnedFd>,
}

impl<'a> Layers<'a> {
    fn of(options: &'a [String]) -> io::Result<Self> {
        let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap_or_default();
        let first = lower.split(':').next().unwrap_or_default();
        let mut data = options.join(",");
        let mut open = Vec::new();
        if data.len() > PAGE {
            let mut names = Vec::new();
            for layer in lower.split(':') {
                let fd = rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                names.push(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                open.push(fd);
            }
            let short = format!("lowerdir={}", names.join(":"));
            let renamed = options.iter().map(|o| if o.starts_with("lowerdir=") { short.as_str() } else { o.as_str() });
            data = renamed.collect::<Vec<_>>().join(",");
        }
        let data = CString::new(data).map_err(|_| io::Error::other("a mount option contains a zero byte"))?;
        Ok(Self { data, first, _open: open })
    }
}
