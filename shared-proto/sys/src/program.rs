//! A program in memory: a sealed copy of its file, which nobody can change, and which other processes may run as well.
//!
//! runc and crun protect their own file from the containers that they enter: each run copies or remounts it, and starts
//! over from there. A sealed memory file needs no protection, they see that, and save the work.
//!
//! A copy is told to another process by a line of text: `/proc/PID/fd/N`, what the file was when it was copied (device,
//! inode, size, time of change), and the file's path.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags};

/// The environment variable in which a shim is told of the copy of its engine.
pub const ENGINE: &str = "SEAM_ENGINE";
/// Larger files are not copied, bytes.
const MAX_SIZE: u64 = 64 << 20;
/// What all programs of the kernel's own format begin with. Scripts are not copied: their interpreter opens them by path.
const ELF: [u8; 4] = *b"\x7fELF";

/// See the module.
#[derive(Debug)]
pub struct Program {
    copy: File,
    path: PathBuf,
    identity: Identity,
}

/// Which version of a file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

impl Program {
    /// Copies a file. Blocks.
    pub fn copy(path: &Path) -> io::Result<Self> {
        let mut source = File::open(path)?;
        let meta = source.metadata()?;
        if !meta.is_file() || meta.len() > MAX_SIZE {
            return Err(io::Error::other(format!("{} is no file of a program's size", path.display())));
        }
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC);
        // Kernels before 6.3 don't know the flag.
        let memory = memory.or_else(|_| rustix::fs::memfd_create(name, flags))?;
        let mut memory = File::from(memory);
        io::copy(&mut source, &mut memory)?;
        let mut start = [0; ELF.len()];
        if rustix::io::pread(&memory, &mut start, 0)? != ELF.len() || start != ELF {
            return Err(io::Error::other(format!("{} is no program in the kernel's own format", path.display())));
        }
        rustix::fs::fcntl_add_seals(&memory, seals())?;
        // What is open to write can't be run.
        let copy = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
        Ok(Self { copy, path: path.to_owned(), identity: Identity::of(&meta) })
    }

    /// Whether the file is still what it was.
    pub fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| Identity::of(&meta) == self.identity)
    }

    /// What it is a copy of.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path by which this process, and the child that it makes, runs the copy.
    pub fn executable(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.copy.as_raw_fd()).into()
    }

    /// For [`Program::open`] in another process, while this one lives.
    pub fn describe(&self) -> String {
        let Identity { device, inode, size, changed } = self.identity;
        let (process, number) = (std::process::id(), self.copy.as_raw_fd());
        let path = self.path.display();
        format!("/proc/{process}/fd/{number} {device} {inode} {size} {} {} {path}", changed.0, changed.1)
    }

    /// The copy of another process.
    pub fn open(description: &str) -> io::Result<Self> {
        let place = description.split(' ').next().unwrap_or_default();
        Self::told(description, File::open(place)?)
    }

    /// One that this process was given: a descriptor, and what was said of it.
    pub fn given(description: &str, descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        Self::told(description, File::from(descriptor.try_clone_to_owned()?))
    }

    fn told(description: &str, copy: File) -> io::Result<Self> {
        if rustix::fs::fcntl_get_seals(&copy)? != seals() {
            return Err(io::Error::other("it is not sealed"));
        }
        let malformed = || io::Error::other(format!("malformed description {description:?}"));
        let parts: Vec<&str> = description.splitn(7, ' ').collect();
        let [_, device, inode, size, seconds, nanos, path] = parts[..] else { return Err(malformed()) };
        let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
        let time = |text: &str| text.parse::<i64>().map_err(|_| malformed());
        let identity = Identity {
            device: number(device)?,
            inode: number(inode)?,
            size: number(size)?,
            changed: (time(seconds)?, time(nanos)?),
        };
        Ok(Self { copy, path: path.into(), identity })
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.copy.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    #[test]
    fn a_copy_runs_and_knows_when_its_file_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a true one");
        fs::copy("/bin/true", &file).unwrap();
        let program = Program::copy(&file).unwrap();
        let other = Program::open(&program.describe()).unwrap();
        let given = Program::given(&program.describe(), program.as_fd()).unwrap();
        for program in [&program, &other, &given] {
            assert_eq!(program.path(), file);
            assert!(program.is_current());
            assert!(Command::new(program.executable()).status().unwrap().success());
        }
        let mut opened = fs::OpenOptions::new().write(true).open(program.executable()).unwrap();
        assert!(opened.write(b"x").is_err(), "sealed");
        drop(opened);
        fs::remove_file(&file).unwrap();
        assert!(!other.is_current());
        fs::copy("/bin/false", &file).unwrap();
        assert!(!program.is_current());
        assert!(Command::new(program.executable()).status().unwrap().success(), "it is still the old one");
    }

    #[test]
    fn scripts_folders_and_files_that_are_not_sealed_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        for (path, part) in
            [(script.as_path(), "own format"), (dir.path(), "no file"), (Path::new("/no/such"), "No such")]
        {
            let e = Program::copy(path).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
        let loose = File::open("/bin/true").unwrap();
        assert!(Program::given("/proc/1/fd/1 1 2 3 4 5 /bin/true", loose.as_fd()).is_err());
        let sealed = Program::copy(Path::new("/bin/true")).unwrap();
        let e = Program::given("/proc/1/fd/1 1 2 x 4 5 /bin/true", sealed.as_fd()).unwrap_err();
        assert!(e.to_string().contains("malformed"), "{e}");
    }
}
