//! Writes the headers of a layer's archive: ustar, with PAX records for what that can't hold.

use std::io::{self, Write};

use rustix::fs::{FileType, Stat, major, minor};
use tar::{EntryType, Header};

/// One entry. A regular file's data is written by the caller, padded to 512 bytes.
pub(super) struct Record<'a> {
    /// With a slash at the end for folders.
    pub path: &'a [u8],
    pub stat: &'a Stat,
    /// Seconds since the epoch.
    pub mtime: i64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry refers to.
pub(super) enum Body<'a> {
    /// Data behind it, or nothing.
    None,
    HardLink(&'a [u8]),
    Symlink(&'a [u8]),
}

impl Record<'_> {
    pub fn write(&self, body: Body<'_>, out: &mut dyn Write) -> io::Result<()> {
        let (kind, link, size) = match (&body, FileType::from_raw_mode(self.stat.st_mode)) {
            (Body::HardLink(target), _) => (EntryType::Link, *target, 0),
            (Body::Symlink(target), _) => (EntryType::Symlink, *target, 0),
            (Body::None, FileType::RegularFile) => (EntryType::Regular, &[][..], self.stat.st_size as u64),
            (Body::None, FileType::Directory) => (EntryType::Directory, &[][..], 0),
            (Body::None, FileType::Fifo) => (EntryType::Fifo, &[][..], 0),
            (Body::None, FileType::CharacterDevice) => (EntryType::Char, &[][..], 0),
            (Body::None, FileType::BlockDevice) => (EntryType::Block, &[][..], 0),
            (Body::None, FileType::Symlink | FileType::Socket | FileType::Unknown) => {
                return Err(io::Error::other("an archive can't hold this kind of file"));
            }
        };
        let mut pax = Pax::default();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(self.stat.st_mode & 0o7777);
        pax.number("uid", self.stat.st_uid.into(), 0o777_7777, |n| header.set_uid(n));
        pax.number("gid", self.stat.st_gid.into(), 0o777_7777, |n| header.set_gid(n));
        pax.number("size", size, 0o777_7777_7777, |n| header.set_size(n));
        match u64::try_from(self.mtime) {
            Ok(mtime) => pax.number("mtime", mtime, 0o777_7777_7777, |n| header.set_mtime(n)),
            Err(_) => pax.add(b"mtime", self.mtime.to_string().as_bytes()),
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(major(self.stat.st_rdev))?;
            header.set_device_minor(minor(self.stat.st_rdev))?;
        }
        let ustar = header.as_ustar_mut().expect("made as one");
        pax.text("path", self.path, &mut ustar.name);
        pax.text("linkpath", link, &mut ustar.linkname);
        for (key, value) in &self.xattrs {
            pax.add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        pax.write(out)?;
        header.set_cksum();
        out.write_all(header.as_bytes())
    }

    /// An empty file whose name says that another is gone.
    pub fn whiteout(path: &[u8], mtime: i64, out: &mut dyn Write) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(u64::try_from(mtime).unwrap_or(0).min(0o777_7777_7777));
        let mut pax = Pax::default();
        pax.text("path", path, &mut header.as_ustar_mut().expect("made as one").name);
        pax.write(out)?;
        header.set_cksum();
        out.write_all(header.as_bytes())
    }
}

/// The records of an extended header.
#[derive(Default)]
struct Pax(Vec<u8>);

impl Pax {
    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = [b" ", key, b"=", value, b"\n"].concat();
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.extend_from_slice(&rest);
    }

    fn number(&mut self, key: &str, value: u64, most: u64, set: impl FnOnce(u64)) {
        if value > most {
            self.add(key.as_bytes(), value.to_string().as_bytes());
        }
        set(if value > most { 0 } else { value });
    }

    fn text(&mut self, key: &str, value: &[u8], field: &mut [u8; 100]) {
        if value.len() > field.len() || !value.is_ascii() {
            self.add(key.as_bytes(), value);
        }
        let fits = value.len().min(field.len());
        field[..fits].copy_from_slice(&value[..fits]);
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.0.len() as u64);
        header.as_ustar_mut().expect("made as one").name[..3].copy_from_slice(b"pax");
        header.set_cksum();
        out.write_all(header.as_bytes())?;
        out.write_all(&self.0)?;
        out.write_all(&[0; 512][..(512 - self.0.len() % 512) % 512])
    }
}
