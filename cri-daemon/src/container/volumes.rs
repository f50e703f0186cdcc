//! Volumes that an image declares: a folder of the container's own each, filled with what the image has there.
//!
//! Names inside the image are looked up with the image as the root, and the copy follows no link: nothing outside of
//! the volume's folder is read or written. Owners, modes, times, links, device nodes and extended attributes are kept;
//! hard links become files of their own, sockets are left out.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use shared_proto::containerd::types;
use shared_proto::cri::v1;
use shared_sys::mount::Detached;

use crate::rootfs;
use crate::selinux::{self, LabelError};

/// Why a volume can't be filled.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("look into the image: {0}")]
    Rootfs(io::Error),
    #[error("fill volume {volume} from the image: {source}")]
    Copy { volume: PathBuf, source: io::Error },
    #[error(transparent)]
    Label(#[from] LabelError),
}

impl From<VolumeError> for shared_proto::Error {
    fn from(e: VolumeError) -> Self {
        match e {
            VolumeError::Label(e) => e.into(),
            VolumeError::Rootfs(_) | VolumeError::Copy { .. } => shared_proto::Error::internal(e.to_string()),
        }
    }
}

/// Fills the volumes' folders (`host_path`) from the fresh snapshot with these mounts, and gives them an SELinux label
/// (empty: none). Blocks.
pub fn fill(volumes: &[v1::Mount], mounts: &[types::Mount], label: &str) -> Result<(), VolumeError> {
    let root = if mounts.is_empty() { None } else { Some(rootfs::open(mounts).map_err(VolumeError::Rootfs)?) };
    for volume in volumes {
        let outcome = fill_one(root.as_ref(), Path::new(&volume.container_path), Path::new(&volume.host_path));
        outcome.map_err(|source| VolumeError::Copy { volume: volume.container_path.clone().into(), source })?;
        if !label.is_empty() {
            selinux::relabel(Path::new(&volume.host_path), label)?;
        }
    }
    Ok(())
}

fn fill_one(root: Option<&Detached>, inside: &Path, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let Some(root) = root else { return Ok(()) };
    let source = match root.open(inside) {
        Ok(source) => source,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !source.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let target = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    copy_folder(source.as_fd(), target.as_fd())
}

/// Copies the content of a folder, and then its own owner, mode, times and attributes.
fn copy_folder(source: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(source, target, name)?;
        }
    }
    copy_attributes(source, target)?;
    dress(target, &rustix::fs::fstat(source)?)
}

fn copy_entry(source: BorrowedFd, target: BorrowedFd, name: &CStr) -> io::Result<()> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            copy_folder(open(source, name, flags)?.as_fd(), open(target, name, flags)?.as_fd())
        }
        FileType::RegularFile => {
            let mut from = File::from(open(source, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut to = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut from, &mut to)?;
            dress(to.as_fd(), &stat)?;
            // After the owner: a change of it takes the file's capabilities away.
            copy_attributes(from.as_fd(), to.as_fd())
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(link, target, name)?;
            let (uid, gid) = owner(&stat);
            Ok(rustix::fs::chownat(target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            let (uid, gid) = owner(&stat);
            rustix::fs::chownat(target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?)
        }
        FileType::Socket | FileType::Unknown => Ok(()),
    }
}

fn open(folder: BorrowedFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// Owner, mode and times.
fn dress(file: BorrowedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(file, uid, gid)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode))?;
    let time = |tv_sec, nanos| Timespec { tv_sec, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Extended attributes, as far as the target's file system has them.
fn copy_attributes(from: BorrowedFd, to: BorrowedFd) -> io::Result<()> {
    let unsupported = |e| matches!(e, rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM);
    let size = match rustix::fs::flistxattr(from, &mut [0u8; 0][..]) {
        Err(e) if unsupported(e) => return Ok(()),
        size => size?,
    };
    let mut names = vec![0u8; size];
    let size = rustix::fs::flistxattr(from, &mut names[..])?;
    for name in names[..size].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let size = rustix::fs::fgetxattr(from, name, &mut [0u8; 0][..])?;
        let mut value = vec![0u8; size];
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Err(e) if unsupported(e) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_volume_begins_with_what_the_image_has() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let data = image.join("data");
        std::fs::create_dir_all(data.join("sub")).unwrap();
        std::fs::write(data.join("sub/file"), "hello").unwrap();
        std::fs::set_permissions(data.join("sub/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(data.join("sub/file"), Some(7), Some(8)).unwrap();
        std::os::unix::fs::chown(&data, Some(9), Some(9)).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        rustix::fs::mknodat(CWD, data.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // A volume behind an absolute link is the image's, not the machine's.
        symlink("/data", image.join("alias")).unwrap();

        let mount = types::Mount {
            r#type: "bind".into(),
            source: image.to_string_lossy().into_owned(),
            options: vec!["rbind".into(), "rw".into()],
            ..Default::default()
        };
        let volume = |name: &str| v1::Mount {
            container_path: format!("/{name}"),
            host_path: dir.path().join("volumes").join(name).to_string_lossy().into_owned(),
            ..Default::default()
        };
        fill(&[volume("alias"), volume("absent")], &[mount], "u:r:t:s0:c1,c2").unwrap();
        let mut label = [0u8; 32];
        let copied = dir.path().join("volumes/alias/sub/file");
        let size = rustix::fs::lgetxattr(&copied, c"security.selinux", &mut label[..]).unwrap();
        assert_eq!(&label[..size], b"u:r:t:s0:c1,c2");

        let copy = dir.path().join("volumes/alias");
        let meta = std::fs::metadata(copy.join("sub/file")).unwrap();
        assert_eq!(std::fs::read_to_string(copy.join("sub/file")).unwrap(), "hello");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o640));
        assert_eq!(meta.mtime_nsec(), std::fs::metadata(data.join("sub/file")).unwrap().mtime_nsec());
        assert_eq!(std::fs::metadata(&copy).unwrap().uid(), 9);
        assert_eq!(std::fs::read_link(copy.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(shared_sys::fifo::is_fifo(&copy.join("pipe")));
        assert_eq!(std::fs::read_dir(dir.path().join("volumes/absent")).unwrap().count(), 0);
    }
}
