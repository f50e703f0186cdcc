//! Builds mounts that are attached nowhere.
//!
//! A bind mount is a clone of the tree at its source. Everything else is a new file system context; overlays name
//! their lower layers one by one there, so their number is not bounded by a page of options. Kernels before 6.7 can't
//! do that: there [`legacy`] mounts the overlay.

use std::io;
use std::os::fd::AsRawFd;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree};

use super::options::{Bind, Options};
use super::{Mount, legacy};

/// The longest value that a file system context takes in one piece, bytes.
const MAX_VALUE: usize = 255;

/// Builds `mount` with the `MOUNT_ATTR_*` of `extra` on top of its own options.
pub(super) fn build(mount: &Mount, extra: u64) -> io::Result<OwnedFd> {
    let mut options = Options::parse(&mount.kind, &mount.options)?;
    options.set |= extra;
    let tree = match options.bind {
        Bind::Plain => bind(&mount.source, false, &options),
        Bind::Recursive => bind(&mount.source, true, &options),
        Bind::No if mount.kind == "overlay" && !takes_layers_one_by_one(&options) => legacy::overlay(mount, &options),
        Bind::No => new(mount, &options),
    }?;
    if let Some((mode, recursive)) = options.propagation {
        set_attributes(tree.as_fd(), 0, 0, mode, recursive)?;
    }
    Ok(tree)
}

fn bind(source: &str, recursive: bool, options: &Options) -> io::Result<OwnedFd> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("bind {source}: {e}"));
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, flags).map_err(|e| named(e.into()))?;
    if options.set | options.clear != 0 {
        set_attributes(tree.as_fd(), options.set, options.clear, 0, false).map_err(named)?;
    }
    Ok(tree)
}

fn new(mount: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("mount {} {}: {e}", mount.kind, mount.source));
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| named(e.into()))?;
    configure(context.as_fd(), mount, options).map_err(|e| named(explained(context.as_fd(), e)))?;
    let attributes = MountAttrFlags::from_bits_retain(options.set as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| named(explained(context.as_fd(), e.into())))
}

fn configure(context: BorrowedFd<'_>, mount: &Mount, options: &Options) -> io::Result<()> {
    if !mount.source.is_empty() {
        fsconfig_set_string(context, "source", mount.source.as_str())?;
    }
    for flag in &options.flags {
        fsconfig_set_flag(context, *flag)?;
    }
    for option in &options.data {
        match option.split_once('=') {
            Some(("lowerdir", layers)) if mount.kind == "overlay" => {
                for layer in layers.split(':') {
                    fsconfig_set_string(context, "lowerdir+", layer)?;
                }
            }
            Some((key, value)) => fsconfig_set_string(context, key, value)?,
            None => fsconfig_set_flag(context, option.as_str())?,
        }
    }
    Ok(fsconfig_create(context)?)
}

/// Adds what the file system itself said about the failure.
fn explained(context: BorrowedFd<'_>, error: io::Error) -> io::Error {
    let mut said = Vec::new();
    let mut buffer = [0u8; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        said.push(line.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
    }
    if said.is_empty() { error } else { io::Error::new(error.kind(), format!("{error} ({})", said.join("; "))) }
}

/// Whether the kernel and these options allow the lower layers to be given one at a time.
fn takes_layers_one_by_one(options: &Options) -> bool {
    // Escapes mean something else there.
    let plain = |option: &String| match option.split_once('=') {
        Some(("lowerdir", layers)) => {
            !layers.contains('\\') && layers.split(':').all(|layer| !layer.is_empty() && layer.len() <= MAX_VALUE)
        }
        Some((_, value)) => value.len() <= MAX_VALUE,
        None => true,
    };
    kernel_is_at_least(6, 7) && options.data.iter().all(plain)
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// `mount_setattr(2)` on the mount at a descriptor.
pub(super) fn set_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: libc::c_ulong,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, the attributes live for the whole call, and their size is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
