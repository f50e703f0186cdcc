//! Debian's `ctr`, unchanged, against our records, content, snapshots and diff.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::domain::Digest;
use crate::testing::{Node, map, scope};

pub(super) struct Ctr {
    pub socket: PathBuf,
}

impl Ctr {
    /// What it prints on success.
    pub async fn run(&self, args: &[&str]) -> String {
        self.attempt(args).await.unwrap_or_else(|e| panic!("ctr {args:?}: {e}"))
    }

    pub async fn attempt(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(args).kill_on_drop(true);
        let done = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("ctr ends").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }
}

/// An archive with one image of one layer, and the digests of its blobs: layer, configuration, manifest.
fn archive() -> (Vec<u8>, [Digest; 3]) {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "etc/motd", b"hello from the layer");
    let layer = layer.into_inner().unwrap();
    let layer_digest = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}},"config":{{}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    );
    let descriptor = |kind: &str, bytes: &[u8]| {
        let (digest, size) = (Digest::of(bytes), bytes.len());
        format!(r#""mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{{}}},"layers":[{{{}}}]}}"#,
        descriptor("config.v1+json", config.as_bytes()),
        descriptor("layer.v1.tar", &layer),
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{{},"annotations":{{"io.containerd.image.name":"example.org/tiny:1"}}}}]}}"#,
        descriptor("manifest.v1+json", manifest.as_bytes()),
    );
    let digests = [layer_digest, Digest::of(config.as_bytes()), Digest::of(manifest.as_bytes())];
    let mut all = tar::Builder::new(Vec::new());
    add(&mut all, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add(&mut all, "index.json", index.as_bytes());
    for (digest, bytes) in digests.iter().zip([&layer[..], config.as_bytes(), manifest.as_bytes()]) {
        add(&mut all, &format!("blobs/sha256/{}", digest.hex()), bytes);
    }
    (all.into_inner().unwrap(), digests)
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_asks_who_we_are() {
    let node = Node::new().await;
    let (socket, _server) = node.over_socket();
    let ctr = Ctr { socket };
    assert!(ctr.run(&["version"]).await.contains(super::version::VERSION));
    let plugins = ctr.run(&["plugins", "ls"]).await;
    let row = plugins.lines().find(|line| line.contains("io.containerd.snapshotter.v1")).unwrap();
    assert!(row.contains("native") && row.contains("linux/") && row.trim_end().ends_with("ok"), "{row}");
    assert!(!plugins.contains("error"), "{plugins}");
    assert!(ctr.run(&["plugins", "ls", "-d", "id==native"]).await.contains("native"));

    ctr.run(&["namespaces", "create", "made", "a=1"]).await;
    ctr.run(&["namespaces", "label", "made", "b=2", "a="]).await;
    let namespaces = ctr.run(&["namespaces", "ls"]).await;
    assert!(
        namespaces.lines().any(|line| line.starts_with("made") && line.trim_end().ends_with("b=2")),
        "{namespaces}"
    );
    ctr.run(&["namespaces", "rm", "made"]).await;
    assert!(!ctr.run(&["namespaces", "ls"]).await.contains("made"));
    let lease = ctr.run(&["leases", "create", "--id", "moby-image-sha256:00", "k=v"]).await;
    assert_eq!(lease.trim(), "moby-image-sha256:00");
    assert!(ctr.run(&["leases", "ls"]).await.contains("k=v"));
    ctr.run(&["leases", "rm", "--sync", "moby-image-sha256:00"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_imports_unpacks_exports_and_removes_an_image() {
    let node = Node::new().await;
    let (socket, _server) = node.over_socket();
    let ctr = Ctr { socket };
    let (bytes, digests) = archive();
    let file = node.dir.path().join("image.tar");
    std::fs::write(&file, bytes).unwrap();
    let file = file.to_str().unwrap();
    ctr.run(&["images", "import", "--snapshotter", "native", file]).await;

    let images = ctr.run(&["images", "ls"]).await;
    assert!(images.contains("example.org/tiny:1") && images.contains(digests[2].as_str()), "{images}");
    let check = ctr.run(&["images", "check", "--snapshotter", "native"]).await;
    assert!(check.contains("complete (2/2)") && check.trim_end().ends_with("true"), "{check}");
    let content = ctr.run(&["content", "ls"]).await;
    assert!(digests.iter().all(|digest| content.contains(digest.as_str())), "{content}");
    assert!(ctr.run(&["content", "get", digests[1].as_str()]).await.contains("diff_ids"));
    // The chain of one layer has the name of its diff id.
    assert!(ctr.run(&["snapshots", "--snapshotter", "native", "ls"]).await.contains(digests[0].as_str()));
    assert!(ctr.run(&["leases", "ls"]).await.lines().count() == 1, "no lease stays");
    node.gc.collect().await.unwrap();
    assert!(digests.iter().all(|digest| node.on_disk(digest)));

    let copy = node.dir.path().join("copy.tar");
    ctr.run(&["images", "export", copy.to_str().unwrap(), "example.org/tiny:1"]).await;
    assert!(copy.metadata().unwrap().len() > 2048);
    // Another namespace adopts the blobs by their digests.
    ctr.run(&["-n", "second", "images", "import", "--snapshotter", "native", copy.to_str().unwrap()]).await;

    ctr.run(&["images", "tag", "example.org/tiny:1", "example.org/tiny:2"]).await;
    ctr.run(&["images", "label", "example.org/tiny:2", "x=y"]).await;
    ctr.run(&["images", "rm", "--sync", "example.org/tiny:1"]).await;
    assert!(node.content.info(&scope("default"), &digests[2]).await.is_ok());
    ctr.run(&["images", "rm", "--sync", "example.org/tiny:2"]).await;
    assert!(node.content.info(&scope("default"), &digests[2]).await.is_err());
    assert!(digests.iter().all(|digest| node.on_disk(digest)));
    ctr.run(&["-n", "second", "images", "rm", "--sync", "example.org/tiny:1"]).await;
    assert!(!digests.iter().any(|digest| node.on_disk(digest)));
    assert_eq!(ctr.run(&["snapshots", "--snapshotter", "native", "ls"]).await.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ingests_and_labels_content() {
    let node = Node::new().await;
    let (socket, _server) = node.over_socket();
    let ctr = Ctr { socket };
    let root = [("containerd.io/gc.root", "1")];
    let digest = node.put_as(&scope("default"), b"text", &root).await.to_string();
    ctr.run(&["content", "label", &digest, "k=v", "long.key/with.dots=1"]).await;
    assert!(ctr.run(&["content", "ls"]).await.contains("long.key/with.dots=1"));
    ctr.run(&["content", "label", &digest, "k="]).await;
    let info = node.content.info(&scope("default"), &Digest::of(b"text")).await.unwrap();
    let mut expected = map(&root);
    expected.insert("long.key/with.dots".into(), "1".into());
    assert_eq!(info.labels, expected);
    assert!(ctr.run(&["content", "active"]).await.lines().count() == 1);
    ctr.run(&["content", "rm", &digest]).await;
    assert!(ctr.attempt(&["content", "get", &digest]).await.unwrap_err().contains("not found"));
}
