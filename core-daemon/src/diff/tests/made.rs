//! Layers that we make.

use super::*;

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
