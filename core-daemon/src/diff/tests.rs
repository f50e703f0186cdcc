//! Layers as others make them, and as attackers would: these need root.

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

#[test]
fn what_gnu_tar_writes_is_read_back() {
    let source = tempfile::tempdir().unwrap();
    zoo(source.path());
    // Whole seconds, for formats that know no others.
    let touch = ["-exec", "touch", "-h", "-d", "@1234567890", "{}", "+"];
    assert!(Command::new("find").arg(source.path()).args(touch).status().unwrap().success());
    let truth = listing(source.path());

    let formats: [(&str, &[&str]); 4] = [
        ("gnu", &["--sparse"]),
        ("pax", &["--xattrs", "--xattrs-include=*"]),
        ("pax", &["--xattrs", "--xattrs-include=*", "--sparse"]),
        ("pax", &["--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"]),
    ];
    for (format, options) in formats {
        let archive = source.path().with_extension(format);
        let mut command = Command::new("tar");
        command.arg(format!("--format={format}")).args(options).args(["--numeric-owner", "-cf"]).arg(&archive);
        assert!(command.arg("-C").arg(source.path()).arg(".").status().unwrap().success());

        let stack = Stack::new();
        let bytes = fs::read(&archive).unwrap();
        let applied = run(&bytes, &stack.bind()).unwrap();
        assert_eq!(applied, Applied { digest: crate::domain::Digest::of(&bytes), size: bytes.len() as u64 });
        let found = listing(&stack.at("place"));

        // GNU tar itself, as the judge of what the format can carry.
        let judge = Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(&archive)
            .arg("-C")
            .arg(stack.at("outside"))
            .status();
        assert!(judge.unwrap().success());
        fs::remove_file(stack.at("outside/precious")).unwrap();
        assert_eq!(found, listing(&stack.at("outside")), "{format} {options:?}");
        if format == "pax" {
            assert_eq!(found, truth, "{format} {options:?}");
        }
        if options.contains(&"--sparse") {
            assert!(fs::metadata(stack.at("place/sparse")).unwrap().blocks() < 2000, "{format} {options:?}");
        }
        fs::remove_file(&archive).unwrap();
    }
}

#[test]
fn whiteouts_take_away_what_is_below_and_nothing_else() {
    let stack = Stack::new();
    for dir in ["d/sub", "o/old", "gone/deep", "stays"] {
        fs::create_dir_all(stack.lower(dir)).unwrap();
    }
    for file in ["d/a", "d/sub/b", "o/old/x", "o/y", "gone/deep/z", "stays/f", "file"] {
        fs::write(stack.lower(file), "below").unwrap();
    }
    let archive = Tar::default()
        .file(".wh.gone", "")
        .file(".wh.file", "")
        .file("d/.wh.a", "")
        // The layer's own entries survive, on either side of the mark.
        .dir("o/")
        .file("o/before", "new")
        .file("o/.wh..wh..opq", "")
        .file("o/after", "new")
        .dir("d/sub/")
        .file("d/sub/new", "new")
        .file("d/.wh.sub", "")
        .file(".wh..wh.plnk", "")
        .file(".wh..wh.orph/x", "")
        .file(".wh.never-there", "")
        .end();
    let tree = stack.both(&archive);
    assert_eq!(names(&tree), ["d", "d/sub", "d/sub/new", "o", "o/after", "o/before", "stays", "stays/f"]);
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let stack = Stack::new();
    fs::create_dir_all(stack.lower("etc/old")).unwrap();
    fs::write(stack.lower("file"), "below").unwrap();
    let archive = Tar::default().dir("etc/").file(".wh..wh..opq", "").file("etc/new", "").file("file", "new").end();
    assert_eq!(names(&stack.both(&archive)), ["etc", "etc/new", "file"]);
}

#[test]
fn folders_without_an_entry_keep_what_they_are_below() {
    let stack = Stack::new();
    fs::create_dir_all(stack.lower("usr/lib/x")).unwrap();
    fs::write(stack.lower("usr/lib/x/old"), "below").unwrap();
    std::os::unix::fs::chown(stack.lower("usr/lib"), Some(5), Some(6)).unwrap();
    fs::set_permissions(stack.lower("usr/lib"), fs::Permissions::from_mode(0o2750)).unwrap();
    lsetxattr(stack.lower("usr/lib"), "user.k", b"v", XattrFlags::empty()).unwrap();
    symlink("usr/lib", stack.lower("lib")).unwrap();
    symlink("/lib/x/../../lib", stack.lower("usr/around")).unwrap();
    let archive = Tar::default()
        .file("usr/lib/x/new", "new")
        .file("lib/through-a-link", "new")
        .file("usr/around/x/round", "new")
        .file("unknown/deep/f", "new")
        .end();
    let tree = stack.both(&archive);
    let of = |name: &str| tree.iter().find(|l| l.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
    assert!(of("usr/lib").contains(" dir 2750 5:6 ") && of("usr/lib").ends_with(" user.k=76"), "{tree:#?}");
    for name in ["usr/lib/x/old", "usr/lib/x/new", "usr/lib/through-a-link", "usr/lib/x/round"] {
        of(name);
    }
    assert!(of("lib").contains("-> usr/lib") && of("unknown/deep").contains(" dir 755 0:0 "));
    assert!(of("usr/lib/x/new").contains(" 0:0 "), "the group of a set-group-id folder is not inherited");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let stack = Stack::new();
    fs::create_dir_all(stack.lower("dir-to-file/x")).unwrap();
    fs::create_dir_all(stack.lower("link-then-dir")).unwrap();
    fs::write(stack.lower("link-then-dir/below"), "").unwrap();
    fs::write(stack.lower("file-to-dir"), "").unwrap();
    let archive = Tar::default()
        .file("dir-to-file", "now a file")
        .dir("file-to-dir/")
        .file("file-to-dir/f", "")
        .file("twice", "first")
        .file("twice", "second")
        .link("was-link", "/etc")
        .dir("was-link/")
        .file("was-link/inside", "")
        .dir("was-dir/")
        .file("was-dir/x", "")
        .link("was-dir", "twice")
        .link("link-then-dir", "elsewhere")
        .dir("link-then-dir/")
        .hard("same", "twice")
        .hard("same", "twice")
        .hard("twice", "twice")
        .end();
    let tree = stack.both(&archive);
    let expected = [
        "dir-to-file",
        "file-to-dir",
        "file-to-dir/f",
        "link-then-dir",
        "same",
        "twice",
        "was-dir",
        "was-link",
        "was-link/inside",
    ];
    assert_eq!(names(&tree), expected);
    assert_eq!(fs::read_to_string(stack.at("upper/same")).unwrap(), "second");
    assert_eq!(fs::read_link(stack.at("upper/was-dir")).unwrap(), Path::new("twice"));
}

#[test]
fn a_hard_link_may_name_a_file_of_a_layer_below() {
    let stack = Stack::new();
    fs::create_dir(stack.lower("bin")).unwrap();
    fs::write(stack.lower("bin/tool"), "program").unwrap();
    fs::set_permissions(stack.lower("bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    let archive = Tar::default().hard("other/name", "bin/tool").hard("third", "/bin/tool").end();
    let tree = stack.both(&archive);
    assert!(tree.iter().filter(|line| line.contains("file 7 ") && line.contains(" 4711 ")).count() == 3, "{tree:#?}");
    let missing = run(&Tar::default().hard("x", "bin/no").end(), &stack.overlay()).unwrap_err().to_string();
    assert_eq!(missing, "layer entry \"x\": the link's target is missing");
}

#[test]
fn nothing_is_written_outside() {
    let outside = |stack: &Stack| stack.at("outside").display().to_string();
    type Attack = fn(&str) -> Tar;
    let attacks: [(&str, Attack); 9] = [
        ("climbing name", |_| Tar::default().file("../../outside/evil", "x").file("a/../../../outside/evil", "x")),
        ("absolute name", |out| Tar::default().file(&format!("{out}/evil"), "x")),
        ("link as a way", |out| Tar::default().link("l", out).file("l/evil", "x").dir("l/").file("l/evil", "x")),
        ("chain of links", |out| Tar::default().link("a", "b").link("b", out).file("a/evil", "x")),
        ("climbing link", |_| Tar::default().link("l", "../outside").file("l/evil", "x")),
        ("hard link to outside", |out| {
            Tar::default().link("l", out).hard("got", "l/precious").hard("got2", "../outside/precious")
        }),
        ("write through a hard link to a link", |out| {
            Tar::default().link("l", &format!("{out}/precious")).hard("h", "l").file("h", "overwritten")
        }),
        ("whiteout outside", |out| Tar::default().link("l", out).file("l/.wh.precious", "").file("l/.wh..wh..opq", "")),
        ("name of a link that climbs", |out| {
            Tar::default().dir("d/").link("d/l", &format!("../../../../../../..{out}")).file("d/l/evil", "x")
        }),
    ];
    for (name, attack) in attacks {
        for overlay in [true, false] {
            let stack = Stack::new();
            symlink(stack.at("outside"), stack.lower("lower-link")).unwrap();
            let mounts = if overlay { stack.overlay() } else { stack.bind() };
            let archive = attack(&outside(&stack)).file("lower-link/evil", "x").end();
            // Some succeed inside the layer, some fail: none gets out.
            let _ = run(&archive, &mounts);
            stack.assert_contained();
            assert!(!stack.at("evil").exists(), "{name}");
        }
    }
}

#[test]
fn attributes_that_steer_the_overlay_are_left_out() {
    let stack = Stack::new();
    fs::create_dir(stack.lower("d")).unwrap();
    fs::write(stack.lower("d/kept"), "").unwrap();
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.fine", b"1"),
    ];
    run(&Tar::default().pax(records).dir("d/").end(), &stack.overlay()).unwrap();
    assert_eq!(xattrs(&stack.at("upper/d")), " user.fine=31");
    assert_eq!(names(&stack.merged()), ["d", "d/kept"]);
}

#[test]
fn broken_archives_are_named_and_harmless() {
    let good = Tar::default().file("f", &"x".repeat(2000)).end();
    let mut wrong_sum = good.clone();
    wrong_sum[0] = b'g';
    let deep = format!("{}f", "d/".repeat(40));
    let very_deep = "d/".repeat(300);
    let long = "n".repeat(300);
    let cases: [(&str, Vec<u8>); 11] = [
        ("inside an entry", good[..1500].to_vec()),
        ("inside a header", good[..300].to_vec()),
        ("checksum", wrong_sum),
        ("checksum", b"not an archive, but a text ".repeat(40)),
        ("must be of a name", Tar::default().file("d/.wh...", "").end()),
        ("must be of a name", Tar::default().file(".wh.", "").end()),
        ("entries of type", Tar::default().add(EntryType::new(b'V'), "v", "", b"", |_| {}).end()),
        ("is missing", Tar::default().pax(&[("path", b"x")]).end()),
        ("too long", Tar::default().add(EntryType::XHeader, "p", "", &[], |h| h.set_size(1 << 30)).end()),
        ("256 components", Tar::default().pax(&[("path", very_deep.as_bytes())]).file("x", "").end()),
        ("zero byte", Tar::default().pax(&[("path", b"a\0b")]).file("x", "").end()),
    ];
    for (reason, archive) in cases {
        let stack = Stack::new();
        let error = run(&archive, &stack.bind()).unwrap_err();
        assert!(
            matches!(error, DiffError::Malformed { .. }) && error.to_string().contains(reason),
            "{reason}: {error}"
        );
    }
    let stack = Stack::new();
    let error = run(&Tar::default().pax(&[("path", long.as_bytes())]).file("x", "").end(), &stack.bind()).unwrap_err();
    assert!(matches!(&error, DiffError::Entry { path, .. } if *path == long), "{error}");
    run(&Tar::default().file(&deep, "").end(), &stack.bind()).unwrap();
    assert!(stack.at("place").join(&deep).exists());
}

#[test]
fn the_digest_covers_what_is_behind_the_end() {
    let stack = Stack::new();
    let archive = [Tar::default().file("f", "x").end(), b"anything".repeat(300_000)].concat();
    let applied = run(&archive, &stack.bind()).unwrap();
    assert_eq!(applied, Applied { digest: crate::domain::Digest::of(&archive), size: archive.len() as u64 });
    let empty = run(b"", &Stack::new().overlay()).unwrap();
    assert_eq!((empty.digest, empty.size), (crate::domain::Digest::of(b""), 0));
}

#[test]
fn a_reader_that_fails_is_told_from_a_bad_archive() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the disk is on fire"));
            }
            let length = self.0.min(buffer.len());
            buffer[..length].fill(0);
            self.0 -= length;
            Ok(length)
        }
    }
    let error = apply(&mut Failing(4 << 20), &Stack::new().bind()).unwrap_err();
    assert!(matches!(error, DiffError::Read(_)) && error.to_string().contains("on fire"), "{error}");
}

#[test]
fn mounts_that_take_no_layer_are_refused() {
    let stack = Stack::new();
    let read_only = vec![Mount { options: vec!["ro".into()], ..stack.bind()[0].clone() }];
    let two = [stack.bind(), stack.bind()].concat();
    let absent = vec![Mount { source: "/no/such/folder".into(), ..stack.bind()[0].clone() }];
    for mounts in [vec![], read_only, two, absent] {
        assert!(matches!(run(b"", &mounts), Err(DiffError::Mounts(_))), "{mounts:?}");
    }
    // Any other file system is written to while it is mounted nowhere.
    let tmpfs = vec![Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Mount::default() }];
    run(&Tar::default().file("f", "").end(), &tmpfs).unwrap();
}

/// The layer that a container's changes make, applied elsewhere, must make the same changes.
#[test]
fn what_is_made_applies_to_the_same() {
    let stack = Stack::new();
    zoo(&stack.at("lower"));
    for dir in ["gone/deep", "replaced/old", "cleared", "kept/in/place"] {
        fs::create_dir_all(stack.lower(dir)).unwrap();
    }
    for file in ["gone/deep/f", "replaced/old/f", "cleared/f", "kept/in/place/f", "same-size", "whole-second"] {
        fs::write(stack.lower(file), "below").unwrap();
    }
    let whole = fs::File::options().write(true).open(stack.lower("whole-second")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    whole.set_modified(time).unwrap();

    let target = stack.at("merged");
    fs::create_dir(&target).unwrap();
    mount_all(&stack.overlay(), &target).unwrap();
    let at = |path: &str| target.join(path);
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_dir_all(at("replaced")).unwrap();
    fs::write(at("replaced"), "now a file").unwrap();
    fs::remove_dir_all(at("cleared")).unwrap();
    fs::create_dir(at("cleared")).unwrap();
    fs::write(at("cleared/new"), "").unwrap();
    fs::write(at("same-size"), "WORLD").unwrap();
    fs::write(at("whole-second"), "BELOW").unwrap();
    fs::File::options().write(true).open(at("whole-second")).unwrap().set_modified(time).unwrap();
    fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::remove_file(at("etc/again")).unwrap();
    fs::rename(at("suid"), at("moved")).unwrap();
    fs::hard_link(at("big"), at("big-again")).unwrap();
    std::os::unix::fs::chown(at("fifo"), Some(3_000_000), Some(4_000_000)).unwrap();
    fs::create_dir_all(at(&"n".repeat(200))).unwrap();
    fs::write(at(&format!("{}/ü", "n".repeat(200))), "new").unwrap();
    symlink("y".repeat(200), at("new-link")).unwrap();
    lsetxattr(at("etc/passwd"), "user.new", b"a\nb", XattrFlags::empty()).unwrap();
    mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 3)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    unmount(&target).unwrap();

    let lower = vec![Mount { source: stack.at("lower").display().to_string(), ..stack.bind()[0].clone() }];
    let mut archive = Vec::new();
    create(&lower, &stack.overlay(), None, &mut archive).unwrap();
    let mut mine: Vec<String> = stack.merged().into_iter().filter(|line| !line.starts_with("socket ")).collect();

    // GNU tar can read it as well.
    let list = stack.at("layer.tar");
    fs::write(&list, &archive).unwrap();
    let names = Command::new("tar").arg("-tf").arg(&list).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    for expected in [".wh.gone\n", "cleared/.wh.f\n", "replaced\n", "moved\n", "etc/\n", "etc/.wh.again\n"] {
        assert!(names.contains(expected), "{expected} is not in {names}");
    }
    for absent in ["kept", "sparse", "replaced/", ".wh.replaced", "socket", "sticky"] {
        assert!(!names.lines().any(|line| line.starts_with(absent)), "{absent} is in {names}");
    }

    for dir in ["upper", "work"] {
        fs::remove_dir_all(stack.at(dir)).unwrap();
        fs::create_dir(stack.at(dir)).unwrap();
    }
    let mut theirs = stack.both(&archive);
    // Times of files are whole seconds in layers.
    let seconds = |lines: &mut Vec<String>| {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let cut = |w: &&str| match w.split_once('.') {
                Some((whole, rest)) if whole.parse::<u64>().is_ok() && rest.parse::<u64>().is_ok() => whole.to_owned(),
                _ => (*w).to_owned(),
            };
            *line = words.iter().map(cut).collect::<Vec<_>>().join(" ");
        }
    };
    seconds(&mut mine);
    seconds(&mut theirs);
    assert_eq!(mine, theirs);
}

#[test]
fn a_layer_from_nothing_is_the_whole_tree_and_always_the_same() {
    let stack = Stack::new();
    zoo(&stack.at("place"));
    let make = || {
        let mut archive = Vec::new();
        create(&[], &stack.bind(), Some(1_000_000), &mut archive).unwrap();
        archive
    };
    let archive = make();
    assert_eq!(archive, make());
    run(&archive, &stack.overlay()).unwrap();
    let place: Vec<String> = listing(&stack.at("place"));
    let merged = stack.merged();
    assert_eq!(names(&place), names(&merged));
    assert!(
        merged.iter().filter(|line| !line.contains(" dir ")).all(|line| line.contains(" 1000000.0")),
        "{merged:#?}"
    );
}

#[test]
fn layers_are_packed_as_their_type_says() {
    for (suffix, magic) in [("", &b"hello"[..]), ("+gzip", &[0x1f, 0x8b]), ("+zstd", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let mut layer = Layer::new(&media_type, Vec::new()).unwrap();
        std::io::Write::write_all(&mut layer, b"hello").unwrap();
        let (digest, packed) = layer.finish().unwrap();
        assert_eq!(digest, crate::domain::Digest::of(b"hello"));
        assert!(packed.starts_with(magic));
        let mut plain = Vec::new();
        let mut reader = decompress(&media_type, Box::new(packed.as_slice())).unwrap();
        std::io::Read::read_to_end(&mut reader, &mut plain).unwrap();
        assert_eq!(plain, b"hello");
    }
    assert!(matches!(Layer::new("text/plain", Vec::new()), Err(DiffError::MediaType(_))));
}
