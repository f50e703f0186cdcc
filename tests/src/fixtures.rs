//! The images of the suites, made once a process: a pause image from a C file of ours, the rest from Debian's busybox.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::image::{Compression, Format, Image, Layer};

/// The sandbox image.
pub const PAUSE: &str = "registry.k8s.io/pause:3.9";
/// One gzip layer with busybox; OCI manifest.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.36";
/// Several layers of every compression, with whiteouts, links and users; behind an index.
pub const LAYERED: &str = "registry.k8s.io/e2e/layered:1";
/// Docker media types, a default user, entry point and environment.
pub const DOCKER: &str = "registry.k8s.io/e2e/docker:1";
/// A user by number with a group, two declared volumes of which one has content, links that lead out.
pub const VOLUMES: &str = "registry.k8s.io/e2e/volumes:1";
/// A default user that is in no file of the image.
pub const STRANGER: &str = "registry.k8s.io/e2e/stranger:1";

pub struct Fixtures {
    pub pause: Image,
    pub busybox: Image,
    pub layered: Image,
    pub docker: Image,
    pub volumes: Image,
    pub stranger: Image,
}

/// All fixtures.
pub fn fixtures() -> &'static Fixtures {
    static FIXTURES: OnceLock<Fixtures> = OnceLock::new();
    FIXTURES.get_or_init(|| Fixtures {
        pause: pause(),
        busybox: busybox(),
        layered: layered(),
        docker: docker(),
        volumes: volumes(),
        stranger: stranger(),
    })
}

fn pause() -> Image {
    let dir = tempfile::tempdir().expect("make a folder for the pause binary");
    let binary = dir.path().join("pause");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images/pause.c");
    let output = Command::new("cc").args(["-static", "-Os", "-o"]).arg(&binary).arg(&source).output();
    let output = output.expect("run cc");
    assert!(output.status.success(), "compile {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    let data = std::fs::read(&binary).expect("read the pause binary");
    let layer = Layer::default().file("pause", 0o755, &data).finish();
    let config = json!({"Entrypoint": ["/pause"], "Env": ["PATH=/"], "User": "65535:65535", "WorkingDir": "/"});
    Image::new(Format::DockerSchema2, config, &[(Compression::Gzip, layer)])
}

/// Busybox with a link for each applet that the suites call.
fn busybox_layer() -> Layer {
    let data = std::fs::read("/bin/busybox").expect("read /bin/busybox: install busybox-static");
    let mut layer = Layer::default().dir("bin", 0o755).file("bin/busybox", 0o755, &data);
    for applet in [
        "sh",
        "ash",
        "cat",
        "echo",
        "ls",
        "sleep",
        "true",
        "false",
        "id",
        "env",
        "hostname",
        "mount",
        "ps",
        "kill",
        "nc",
        "wget",
        "httpd",
        "ip",
        "ping",
        "touch",
        "rm",
        "mkdir",
        "stat",
        "grep",
        "seq",
        "yes",
        "head",
        "wc",
        "dd",
        "date",
        "printf",
        "pwd",
        "test",
        "usleep",
        "readlink",
        "sha256sum",
        "tail",
        "tr",
        "cut",
        "sort",
        "find",
        "chmod",
        "ulimit",
        "chown",
        "umount",
        "mknod",
        "tty",
    ] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    for (dir, mode) in [("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("dev", 0o755)] {
        layer = layer.dir(dir, mode);
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n").file(
        "etc/group",
        0o644,
        b"root:x:0:\napp:x:1001:\nextra:x:2000:app\n",
    )
}

fn busybox() -> Image {
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
    Image::new(Format::Oci, config, &[(Compression::Gzip, busybox_layer().finish())])
}

fn layered() -> Image {
    let second = Layer::default()
        .dir("data", 0o755)
        .file("data/one", 0o644, b"one\n")
        .hard_link("data/one-again", "data/one")
        .file("data/gone", 0o644, b"never seen\n")
        .dir("data/hidden", 0o755)
        .file("data/hidden/below", 0o644, b"never seen\n")
        .owned_file("data/mine", 0o640, 1000, 1001, b"mine\n")
        .symlink("data/link", "/data/one")
        .file("data/replaced", 0o644, b"old\n")
        .finish();
    let third = Layer::default()
        .removed("data/gone")
        .opaque("data/hidden")
        .file("data/hidden/above", 0o644, b"above\n")
        .file("data/replaced", 0o4755, b"new\n")
        .finish();
    let filler: Vec<u8> = (0..2_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let fourth = Layer::default().file("data/filler", 0o644, &filler).finish();
    let layers = [
        (Compression::Gzip, busybox_layer().finish()),
        (Compression::Zstd, second),
        (Compression::None, third),
        (Compression::Gzip, fourth),
    ];
    Image::new(Format::Oci, json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}), &layers)
}

fn docker() -> Image {
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; env; pwd"], "User": "app",
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/work/dir",
        "Labels": {"e2e": "docker"}, "StopSignal": "SIGINT",
    });
    Image::new(Format::DockerSchema2, config, &[(Compression::Gzip, busybox_layer().finish())])
}

fn volumes() -> Image {
    let layer = busybox_layer()
        .dir("vol", 0o755)
        .owned_dir("vol/data", 0o750, 1000, 2000)
        .owned_file("vol/data/file", 0o640, 1000, 2000, b"from the image\n")
        .symlink("vol/data/link", "file")
        .symlink("into-tmp", "/tmp")
        .symlink("out", "../../../../../../tmp")
        .finish();
    let config = json!({
        "Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "1000:2000", "Volumes": {"/vol/data": {}, "/vol/empty": {}},
    });
    Image::new(Format::Oci, config, &[(Compression::Gzip, layer)])
}

fn stranger() -> Image {
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "stranger"});
    Image::new(Format::Oci, config, &[(Compression::Gzip, busybox_layer().finish())])
}
