//! Layers as attackers and accidents make them.

use proptest::prelude::*;

use super::*;

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

/// Any few entries on names that get in each other's way.
fn entries() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    let part = prop::sample::select(vec!["a", "b", "l", "up", "..", ".wh.a", ".wh.b", ".wh.l", ".wh..wh..opq", "."]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target = prop::sample::select(vec!["a", "b/a", "/b", "..", "../outside", "l", "/", "a/b"]);
    prop::collection::vec((0u8..6, path, target.prop_map(str::to_owned)), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the entries: nothing gets out, and an overlay comes out as the same tree written in place.
    #[test]
    fn overlay_and_in_place_agree(entries in entries()) {
        let stack = Stack::new();
        for dir in ["a/b", "b"] {
            fs::create_dir_all(stack.lower(dir)).unwrap();
        }
        fs::write(stack.lower("a/b/a"), "below").unwrap();
        fs::write(stack.lower("b/a"), "below").unwrap();
        symlink("a", stack.lower("l")).unwrap();
        symlink(stack.at("outside"), stack.lower("up")).unwrap();
        crate::snapshots::tree::Copier::default().tree(&stack.at("lower"), &stack.at("place")).unwrap();

        let add = |tar: Tar, (kind, path, target): &(u8, String, String)| match kind {
            0 | 1 => tar.file(path, &format!("from {path}")),
            2 | 3 => tar.dir(path),
            4 => tar.link(path, target),
            _ => tar.hard(path, target),
        };
        let archive = entries.iter().fold(Tar::default(), add).end();
        let in_place = run(&archive, &stack.bind());
        let overlay = run(&archive, &stack.overlay());
        stack.assert_contained();
        prop_assert_eq!(in_place.is_ok(), overlay.is_ok(), "{:?} {:?}", in_place, overlay);
        if in_place.is_ok() {
            prop_assert_eq!(listing(&stack.at("place")), stack.merged());
        }
    }

    /// Damaged bytes are an error or another layer, never a panic.
    #[test]
    fn damage_is_survived(at in prop::collection::vec((0usize..6000, any::<u8>()), 1..6), cut in 0usize..7000) {
        let pax: &[(&str, &[u8])] = &[("path", b"long"), ("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"100")];
        let mut archive = Tar::default().dir("a/").file("a/f", "x").pax(pax).file("s", "1\n0\n3\n").hard("h", "a/f").end();
        for (at, byte) in at {
            let length = archive.len();
            archive[at % length] = byte;
        }
        archive.truncate(cut.max(1));
        let stack = Stack::new();
        let _ = run(&archive, &stack.bind());
        stack.assert_contained();
    }
}
