//! With real mounts: these need root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

fn mount(kind: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        kind: kind.into(),
        source: source.to_str().unwrap().into(),
        target: String::new(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    }
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|l| l.split(' ').nth(4) == path.to_str())
}

/// `count` layers, each with one file of its own and one that all have.
fn layers(dir: &Path, count: usize) -> Vec<PathBuf> {
    let make = |n: usize| {
        let layer = dir.join(format!("a-rather-long-name-for-the-folder-of-a-layer-{n}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("file-{n}")), "").unwrap();
        fs::write(layer.join("all"), n.to_string()).unwrap();
        layer
    };
    (0..count).map(make).collect()
}

fn overlay(layers: &[PathBuf]) -> Mount {
    let names: Vec<_> = layers.iter().map(|l| l.to_str().unwrap()).collect();
    mount("overlay", Path::new("overlay"), &["index=off", &format!("lowerdir={}", names.join(":"))])
}

#[test]
fn binds_and_takes_off() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("f"), "x").unwrap();

    mount_all(&[mount("bind", &source, &["rbind", "ro", "nosuid", "rprivate"])], &target).unwrap();
    assert!(target.join("f").exists());
    let denied = fs::write(target.join("g"), "").unwrap_err();
    assert_eq!(denied.kind(), io::ErrorKind::ReadOnlyFilesystem);
    mount_all(&[mount("tmpfs", Path::new("tmpfs"), &["size=1m", "mode=711"])], &target).unwrap();
    assert!(!target.join("f").exists());

    unmount(&target).unwrap();
    unmount(&target).unwrap();
    assert!(!is_mounted(&target));
    unmount(&dir.path().join("absent")).unwrap();
}

#[test]
fn a_failing_mount_takes_back_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let bad = mount("bind", &dir.path().join("absent"), &["rbind"]);
    let error = mount_all(&[mount("tmpfs", Path::new("tmpfs"), &[]), bad], dir.path()).unwrap_err();
    assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("absent"), "{error}");
    assert!(!is_mounted(dir.path()));
    let error = mount_all(&[mount("tmpfs", Path::new("tmpfs"), &["no-such-option"])], dir.path()).unwrap_err();
    assert!(error.to_string().contains("no-such-option"), "{error}");
}

#[test]
fn a_target_below_stays_below() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    let at = |target: &str| Mount { target: target.into(), ..mount("tmpfs", Path::new("tmpfs"), &[]) };
    mount_all(&[at("/etc")], dir.path()).unwrap();
    assert!(is_mounted(&dir.path().join("etc")));
    unmount(&dir.path().join("etc")).unwrap();
    mount_all(&[at("link")], dir.path()).unwrap_err();
    assert!(!is_mounted(outside.path()));
}

#[test]
fn an_overlay_of_128_layers() {
    let dir = tempfile::tempdir().unwrap();
    let layers = layers(dir.path(), 128);
    let request = overlay(&layers);
    assert!(request.options[1].len() > 4096);
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    mount_all(std::slice::from_ref(&request), &target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 129);
    assert_eq!(fs::read_to_string(target.join("all")).unwrap(), "0");
    unmount(&target).unwrap();

    // As on older kernels, within a page and beyond.
    for request in [request, overlay(&layers[..3])] {
        let options = options::Options::parse("overlay", &request.options).unwrap();
        let tree = Detached::from_tree(legacy::overlay(&request, &options).unwrap());
        assert_eq!(tree.read(Path::new("all")).unwrap(), b"0");
        assert_eq!(tree.read(Path::new("file-2")).unwrap(), b"");
    }
}

#[test]
fn a_detached_tree_is_its_own_world() {
    let dir = tempfile::tempdir().unwrap();
    let layers = layers(dir.path(), 2);
    fs::create_dir(layers[1].join("etc")).unwrap();
    fs::write(layers[1].join("etc/passwd"), "of the image").unwrap();
    symlink("/etc/passwd", layers[0].join("absolute")).unwrap();
    symlink("../../../../etc/passwd", layers[0].join("climbing")).unwrap();
    rustix::fs::mknodat(CWD, layers[0].join("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(CWD, layers[0].join("zero"), rustix::fs::FileType::CharacterDevice, Mode::RWXU, zero).unwrap();

    let tree = Detached::of(&[overlay(&layers)]).unwrap();
    for path in ["etc/passwd", "/etc/passwd", "absolute", "climbing", "/../etc/passwd"] {
        assert_eq!(tree.read(Path::new(path)).unwrap(), b"of the image", "{path}");
    }
    assert_eq!(tree.read(Path::new("/etc/shadow")).unwrap_err().kind(), io::ErrorKind::NotFound);
    tree.read(Path::new("fifo")).unwrap_err();
    assert_eq!(tree.open(Path::new("zero")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    tree.open(Path::new("etc")).unwrap();
}

#[test]
fn places_are_made_below_their_root() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let at = |inner: &str| dir.path().join(inner);
    make_place(dir.path(), Path::new("/etc/a/file"), Place::File).unwrap();
    make_place(dir.path(), Path::new("/etc/b"), Place::Folder).unwrap();
    assert!(at("etc/a/file").is_file() && at("etc/b").is_dir());
    make_place(dir.path(), Path::new("/etc/a/file"), Place::Folder).unwrap();
    assert!(at("etc/a/file").is_file(), "what is there stays");
    symlink(outside.path(), at("link")).unwrap();
    make_place(dir.path(), Path::new("/link/x"), Place::File).unwrap_err();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_made_read_only_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    mount_all(&[mount("tmpfs", Path::new("tmpfs"), &["nosuid"])], dir.path()).unwrap();
    read_only(dir.path()).unwrap();
    let e = fs::write(dir.path().join("x"), "").unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::ReadOnlyFilesystem);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(dir.path().to_str().unwrap())).unwrap();
    assert!(line.contains(" ro,nosuid,"), "{line}");
    unmount(dir.path()).unwrap();
}
