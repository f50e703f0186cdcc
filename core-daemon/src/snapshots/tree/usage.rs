//! What a tree takes on disk.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::{MAX_DEPTH, open_dir, too_deep};
use crate::metadata::snapshots::Usage;

/// Disk blocks and inodes of the tree at `root`, the root included. Hard links count once; what vanishes meanwhile is
/// left out.
pub fn usage(root: &Path) -> io::Result<Usage> {
    let top = rustix::fs::open(
        root,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut total = Usage { size: rustix::fs::fstat(&top)?.st_blocks as u64 * 512, inodes: 1 };
    let mut linked = HashSet::new();
    let mut open = vec![Dir::new(top)?];
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            outcome => outcome?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        total.size += stat.st_blocks as u64 * 512;
        total.inodes += 1;
        if is_dir {
            let child = match open_dir(dir.fd()?, name) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                outcome => outcome?,
            };
            if open.len() == MAX_DEPTH {
                return Err(too_deep());
            }
            open.push(Dir::new(child)?);
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn counts_hard_links_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = usage(dir.path()).unwrap();
        assert_eq!(empty.inodes, 1);
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let full = usage(dir.path()).unwrap();
        assert_eq!(full.inodes, 4);
        assert!((1 << 20..(1 << 20) + 65536).contains(&(full.size - empty.size)), "{full:?}");
    }
}
