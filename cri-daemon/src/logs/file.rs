//! The log file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A log file, open for appending.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    pub device: u64,
    pub inode: u64,
}

impl LogFile {
    /// Opens or makes it (0640), its folder as well (0755).
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("open log {}: {e}", path.display()));
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(named)?;
        }
        let file = File::options().append(true).read(true).create(true).mode(0o640).open(path).map_err(named)?;
        let meta = file.metadata().map_err(named)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino(), file })
    }

    /// Opens a new file at the same path.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Appends some of `text`; how much.
    pub fn append(&mut self, text: &[u8]) -> io::Result<usize> {
        self.file.write(text)
    }

    /// Takes back what was appended after `length`.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// The file that was at this path before: itself, or one that was renamed within the folder. `None`: it is gone.
    pub fn find(&self, device: u64, inode: u64) -> Option<Self> {
        let is = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && (m.dev(), m.ino()) == (device, inode));
        let siblings = fs::read_dir(self.path.parent()?).ok()?.flatten().map(|entry| entry.path());
        let found = [self.path.clone()].into_iter().chain(siblings).find(|path| is(path))?;
        Self::open(&found).ok()
    }
}
