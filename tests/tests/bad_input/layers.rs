//! Images that mean harm, through `ctr images import`: nothing is written outside of their own file system, what is
//! refused is refused with a reason, and when the image is removed nothing of it is left.
//!
//! `core-daemon/src/diff/tests/hostile.rs` looks at more kinds of archives, without a daemon around them.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::image::{Compression, Format, Image, compress, digest};
use e2e::{Wiring, World, world};
use serde_json::json;

/// Entries of an archive, written by hand: libraries refuse to make such names.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, size: u64, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_device_major(7).expect("a number");
        header.set_device_minor(0).expect("a number");
        let fields = header.as_gnu_mut().expect("a GNU header");
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", data.len() as u64, data)
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, 0, b"")
    }

    /// The name of the next entry, however long.
    fn named(self, path: &str) -> Self {
        let rest = format!(" path={path}\n");
        let mut length = rest.len();
        while format!("{length}{rest}").len() != length {
            length += 1;
        }
        let record = format!("{length}{rest}");
        self.entry(tar::EntryType::XHeader, "pax", "", record.len() as u64, record.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An image of one layer, of which the bytes are `sent` and which says that they are `plain` without compression.
fn image(sent: Vec<u8>, how: Compression, plain: &str) -> Image {
    let config = json!({
        "architecture": e2e::image::architecture(), "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [plain]},
    });
    Image::sent(Format::Oci, config.to_string().into_bytes(), &[(how, sent)])
}

fn plain(layer: Vec<u8>) -> Image {
    let digest = digest(&layer);
    image(layer, Compression::None, &digest)
}

const NAME: &str = "example.com/evil:1";

/// Imports an archive; what `ctr` said if it was refused.
fn import(world: &World, archive: &[u8]) -> Result<(), String> {
    let path = world.paths.dir.join("evil.tar");
    std::fs::write(&path, archive).expect("write the archive");
    let done = world.try_ctr(&["images", "import", &path.display().to_string()]);
    std::fs::remove_file(&path).expect("remove the archive");
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// Removes the image, which `ctr` records before it unpacks it, and collects what else there is.
fn remove(world: &World) {
    world.ctr(&["images", "rm", "--sync", NAME]);
    let lease = world.ctr(&["leases", "create"]);
    world.ctr(&["leases", "rm", "--sync", lease.trim()]);
}

/// Everything of a folder outside of the core's: names and contents.
fn outside(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).expect("read the folder outside");
    let mut all: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

pub async fn layers_that_lead_out(wiring: Wiring) {
    let world = world(wiring).await;
    let dir = world.paths.dir.join("outside");
    std::fs::create_dir(&dir).expect("make the folder outside");
    std::fs::write(dir.join("precious"), "as it was").expect("write what is precious");
    let (as_it_was, before) = (outside(&dir), world.inventory().await);
    let out = dir.display().to_string();
    // From a layer's folder to the world's: snapshots/N/fs of a snapshotter below the root.
    let up = "../../../../../outside";
    let precious = format!("{out}/precious");
    let attacks: [(&str, Tar); 8] = [
        ("a name that climbs", Tar::default().file(&format!("{up}/evil"), b"x").file("../evil", b"x")),
        ("an absolute name", Tar::default().file(&format!("{out}/evil"), b"x")),
        ("a link as a way", Tar::default().link("l", &out).file("l/evil", b"x")),
        ("a link that climbs", Tar::default().link("l", up).file("l/evil", b"x")),
        ("a chain of links", Tar::default().link("a", "b").link("b", &out).file("a/evil", b"x")),
        (
            "a hard link",
            Tar::default().link("l", &out).entry(tar::EntryType::Link, "got", "l/precious", 0, b"").file("got", b"x"),
        ),
        (
            "a hard link to a link",
            Tar::default().link("l", &precious).entry(tar::EntryType::Link, "h", "l", 0, b"").file("h", b"x"),
        ),
        ("a whiteout", Tar::default().link("l", &out).file("l/.wh.precious", b"").file("l/.wh..wh..opq", b"")),
    ];
    for (what, layer) in attacks {
        // Some are taken for what they are inside of the layer, some are refused.
        let taken = import(&world, &plain(layer.end()).oci_archive(NAME));
        assert_eq!(outside(&dir), as_it_was, "{what}: {taken:?}");
        if let Err(reason) = taken {
            assert!(reason.contains("sha256:"), "{what}: the layer is not named: {reason}");
        }
        remove(&world);
        world.assert_as_before(&before).await;
    }
}

pub async fn layers_that_are_refused(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let good = Tar::default().file("f", b"good").end();
    let other = digest(b"other");
    let mut short = good.clone();
    short.truncate(512);
    let endless = Tar::default().entry(tar::EntryType::Regular, "f", "", 1 << 60, b"x").0;
    let component = "n".repeat(4096);
    let path = "d/".repeat(2048);
    // One frame of zstd that asks for a window of 2 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x15 << 3, 0x01, 0x00, 0x00];
    let cases = [
        ("another diff id", image(good.clone(), Compression::None, &other), "diff"),
        ("a cut archive", plain(short), "inside an entry"),
        ("an entry without an end", plain(endless), "inside an entry"),
        ("a name of 4 KiB", plain(Tar::default().named(&component).file("x", b"x").end()), "File name too long"),
        ("a path of 4 KiB", plain(Tar::default().named(&path).file("x", b"x").end()), "256 components"),
        ("no archive", plain(b"this is no archive".repeat(100)), "checksum"),
        (
            "damaged gzip",
            image(compress(Compression::Gzip, &good)[..40].to_vec(), Compression::Gzip, &other),
            "sha256:",
        ),
        ("a window of 2 GiB", image(window.to_vec(), Compression::Zstd, &other), "sha256:"),
    ];
    for (what, image, reason) in cases {
        let refused = import(&world, &image.oci_archive(NAME)).expect_err(what);
        assert!(refused.contains(reason), "{what}: {refused}");
        remove(&world);
        world.assert_as_before(&before).await;
    }

    // Blobs that are not what the archive says.
    let image = plain(good);
    let archive = image.oci_archive(NAME);
    let manifest = &image.manifest.digest["sha256:".len()..];
    let lies = String::from_utf8(image.manifest.data.clone()).expect("JSON").replace("\"size\":", "\"size\":9");
    for (what, archive) in [
        ("a manifest with another digest", replaced(&archive, manifest, lies.as_bytes())),
        ("a layer with another digest", replaced(&archive, &image.layers[0].digest["sha256:".len()..], &[1; 2048])),
    ] {
        import(&world, &archive).expect_err(what);
        // What was written of the wrong blob stays for whoever goes on with it; it goes with the namespace.
        remove(&world);
        world.ctr(&["namespaces", "rm", "default"]);
        world.assert_as_before(&before).await;
    }
}

/// The archive with other bytes in the entry whose name ends like this.
fn replaced(archive: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut from = tar::Archive::new(archive);
    let mut to = tar::Builder::new(Vec::new());
    for entry in from.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut header = entry.header().clone();
        let path = entry.path().expect("a path").into_owned();
        if path.to_string_lossy().ends_with(name) {
            header.set_size(bytes.len() as u64);
            to.append_data(&mut header, path, bytes).expect("write an entry");
        } else {
            to.append_data(&mut header, path, &mut entry).expect("copy an entry");
        }
    }
    to.into_inner().expect("the archive")
}

/// Megabytes of a process that were in memory at once.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of the core");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
}

pub async fn layers_that_grow(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let core = world.core_daemon_pid();
    let zeros = vec![0; 256 << 20];
    let bomb = Tar::default().file("zeros", &zeros).end();
    drop(zeros);
    let mut many = Tar::default();
    for n in 0..20_000 {
        many = many.file(&format!("{}/{n}", n % 100), b"");
    }
    for (what, layer) in [("256 MiB of zeros", bomb), ("20,000 files", many.end())] {
        for how in [Compression::Gzip, Compression::Zstd] {
            let sent = compress(how, &layer);
            let image = image(sent, how, &digest(&layer));
            let began = Instant::now();
            import(&world, &image.oci_archive(NAME)).unwrap_or_else(|e| panic!("{what}, {how:?}: {e}"));
            assert!(began.elapsed() < Duration::from_secs(60), "{what}, {how:?}: {:?}", began.elapsed());
            let peak = peak(core);
            assert!(peak < 150, "{what}, {how:?}: the core had {peak} MiB");
            remove(&world);
            world.assert_as_before(&before).await;
        }
    }
}

/// A node in a layer is a file like others; the container must not get at the device behind it.
pub async fn device_nodes_are_no_way_out(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let archive = world.paths.dir.join("busybox.tar");
    std::fs::write(&archive, e2e::fixtures::fixtures().busybox.oci_archive("example.com/box:1")).expect("write");
    world.ctr(&["images", "import", &archive.display().to_string()]);
    std::fs::remove_file(&archive).expect("remove the archive");
    let busybox = std::fs::read("/bin/busybox").expect("read /bin/busybox");
    let layer = Tar::default()
        .entry(tar::EntryType::Block, "disk", "", 0, b"")
        .entry(tar::EntryType::Char, "char", "", 0, b"")
        .file("busybox", &busybox)
        .end();
    import(&world, &plain(layer).oci_archive(NAME)).expect("nodes are taken");
    let read = world.try_ctr(&["run", "--rm", NAME, "c1", "/busybox", "head", "-c", "1", "/disk"]);
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(!read.status.success() && said.contains("Operation not permitted"), "{read:?}");
    world.ctr(&["images", "rm", "example.com/box:1"]);
    remove(&world);
    world.assert_as_before(&before).await;
}
