//! Files that are whole or absent after a crash: write, fsync, rename, fsync the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a record must survive a power cut, or can be rebuilt when it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to disk before the call returns.
    Durable,
    /// Whole or absent, but maybe an older version after a power cut. No fsync.
    Rebuildable,
}

/// Replaces `path` by `content` in one step. Mode 0600 unless the umask takes more.
pub fn write_atomic(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    write_atomic_as(path, content, durability, 0o600)
}

/// The same with another mode.
pub fn write_atomic_as(path: &Path, content: &[u8], durability: Durability, mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other(format!("{} has no folder", path.display())))?;
    let name = path.file_name().ok_or_else(|| io::Error::other(format!("{} is no file", path.display())))?;
    let temporary = dir.join(format!(".{}.tmp", name.to_string_lossy()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durability == Durability::Durable {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status");
        write_atomic(&path, b"one", Durability::Durable).unwrap();
        write_atomic(&path, b"two", Durability::Rebuildable).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
