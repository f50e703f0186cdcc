//! Layers as others make them.

use super::*;

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
