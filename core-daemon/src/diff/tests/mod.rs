//! Layers as others make them, and as attackers would: these need root.

mod applied;
mod hostile;
mod made;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat};
use shared_sys::mount::{Mount, mount_all, unmount};
use tar::{EntryType, Header};

use super::*;

/// Writes archives entry by entry, good or bad ones.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// An entry with any name, link and data.
    fn add(mut self, kind: EntryType, path: &str, link: &str, data: &[u8], tune: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        tune(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(EntryType::Regular, path, "", data.as_bytes(), |_| {})
    }

    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", b"", |_| {})
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, b"", |_| {})
    }

    fn hard(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path, target, b"", |_| {})
    }

    /// Extended records for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = [b" ", key.as_bytes(), b"=", *value, b"\n"].concat();
            let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
            data.extend_from_slice(length.to_string().as_bytes());
            data.extend_from_slice(&rest);
        }
        self.add(EntryType::XHeader, "pax", "", &data, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// An overlay of `upper` over `lower`, each a folder of its own.
struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["lower", "upper", "work", "place", "outside"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("outside/precious"), "untouched").unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.at("lower").join(path)
    }

    fn overlay(&self) -> Vec<Mount> {
        let at = |sub: &str| self.at(sub).display().to_string();
        let options = vec![
            "index=off".into(),
            format!("workdir={}", at("work")),
            format!("upperdir={}", at("upper")),
            format!("lowerdir={}", at("lower")),
        ];
        vec![Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
    }

    fn bind(&self) -> Vec<Mount> {
        let source = self.at("place").display().to_string();
        vec![Mount { kind: "bind".into(), source, target: String::new(), options: vec!["rw".into(), "rbind".into()] }]
    }

    /// The merged tree as lines.
    fn merged(&self) -> Vec<String> {
        let target = self.at("merged");
        let _ = fs::create_dir(&target);
        mount_all(&self.overlay(), &target).unwrap();
        let tree = listing(&target);
        unmount(&target).unwrap();
        tree
    }

    /// Applies to the overlay, and to a copy of the lower folder in place: both must come out alike.
    fn both(&self, archive: &[u8]) -> Vec<String> {
        crate::snapshots::tree::Copier::default().tree(&self.at("lower"), &self.at("place")).unwrap();
        run(archive, &self.overlay()).unwrap();
        run(archive, &self.bind()).unwrap();
        let merged = self.merged();
        assert_eq!(merged, listing(&self.at("place")), "overlay and in place differ");
        merged
    }

    fn assert_contained(&self) {
        let outside: Vec<_> = fs::read_dir(self.at("outside")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["precious"]);
        let precious = fs::metadata(self.at("outside/precious")).unwrap();
        assert_eq!(fs::read_to_string(self.at("outside/precious")).unwrap(), "untouched");
        assert_eq!((precious.nlink(), precious.uid()), (1, 0));
    }
}

fn run(archive: &[u8], mounts: &[Mount]) -> Result<Applied, DiffError> {
    apply(&mut &archive[..], mounts)
}

/// Every file below `root` with all that can be seen of it. Of a folder's time only the year, or it would differ where
/// no entry sets it.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut linked: BTreeMap<_, String> = BTreeMap::new();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "dir".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                format!("file {} {}", meta.len(), crate::domain::Digest::of(&fs::read(&path).unwrap()).hex())
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("device {:x}", meta.rdev())
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let inode = (meta.nlink() > 1 && !kind.is_dir()).then_some((meta.dev(), meta.ino()));
            if let Some(inode) = inode {
                let first = linked.entry(inode).or_insert_with(|| name.clone());
                *first = name.clone().min(first.clone());
            }
            let time = match kind.is_dir() {
                true => format!("{}y", meta.mtime() / 31_556_952),
                false => format!("{}.{}", meta.mtime(), meta.mtime_nsec()),
            };
            let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            let line = format!("{name} {what} {mode:o} {uid}:{gid} {time}{}", xattrs(&path));
            lines.insert(name, (line, inode));
        }
    }
    let same = |inode| format!(" = {}", linked[&inode]);
    lines.into_values().map(|(line, inode)| line + &inode.map_or_else(String::new, same)).collect()
}

fn xattrs(path: &Path) -> String {
    let mut list = [0u8; 1024];
    let length = llistxattr(path, &mut list).unwrap();
    let mut text: Vec<String> = list[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0u8; 256];
            let length = lgetxattr(path, name, &mut value).unwrap();
            format!(" {}={}", String::from_utf8_lossy(name), hex::encode(&value[..length]))
        })
        .collect();
    text.sort();
    text.concat()
}

/// The names alone.
fn names(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(' ').next().unwrap()).collect()
}

/// A tree with everything that a layer can hold.
fn zoo(root: &Path) {
    let long = "a-name-of-some-length/".repeat(9);
    for dir in ["etc", "empty", "sticky", "setgid", &long] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join(&long).join("f".repeat(200)), "long").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::hard_link(root.join("etc/passwd"), root.join("etc/again")).unwrap();
    fs::write(root.join("größe \n\\ \"x\""), "odd name").unwrap();
    fs::write(root.join("big"), vec![0xa5; 3_000_001]).unwrap();
    fs::write(root.join("suid"), "program").unwrap();
    std::os::unix::fs::chown(root.join("suid"), Some(1234), Some(3_000_000_000)).unwrap();
    fs::set_permissions(root.join("suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(root.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(root.join("setgid"), Some(0), Some(50)).unwrap();
    fs::set_permissions(root.join("setgid"), fs::Permissions::from_mode(0o2755)).unwrap();
    fs::write(root.join("setgid/of-root"), "").unwrap();
    std::os::unix::fs::chown(root.join("setgid/of-root"), Some(0), Some(0)).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    std::os::unix::fs::lchown(root.join("absolute"), Some(7), Some(7)).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    mknodat(CWD, root.join("tty"), FileType::CharacterDevice, Mode::RWXU, makedev(5, 300)).unwrap();
    mknodat(CWD, root.join("disk"), FileType::BlockDevice, Mode::RWXU, makedev(8, 1)).unwrap();
    lsetxattr(root.join("etc"), "user.on-a-folder", b"yes", XattrFlags::empty()).unwrap();
    // cap_net_raw=ep, with a newline and a zero among its bytes.
    let capability = b"\x01\0\0\x02\0\x20\0\0\x0a\0\0\0\0\0\0\0\0\0\0\0";
    lsetxattr(root.join("suid"), "security.capability", capability, XattrFlags::empty()).unwrap();
    lsetxattr(root.join("etc/passwd"), "user.a\u{e9}b", b"a=b\n1", XattrFlags::empty()).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for n in 0..40 {
        std::os::unix::fs::FileExt::write_at(&sparse, b"data", n << 20).unwrap();
    }
    sparse.set_len(50 << 20).unwrap();
}
