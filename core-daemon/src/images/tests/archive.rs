//! Archives: what skopeo writes, what others write, and what is meant to do harm.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use shared_proto::{Code, Error};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::local::{self, DockerRegistry, Image, noise};
use super::node::{Node, SNAPSHOTTER};
use crate::domain::Digest;
use crate::images::ImageError;
use crate::images::manifest::{OCI_MANIFEST, Platform, chain_id};
use crate::images::target::{ExtraReference, IMAGE_NAME, REF_NAME, Stored, Target};

fn sample(seed: u64) -> Image {
    Image::of(&[&[("bin/", b""), ("bin/sh", &noise(seed, 150_000))], &[("etc/", b""), ("etc/id", &noise(seed, 16))]])
}

fn unpacked() -> Target {
    Target { unpacks: vec![(SNAPSHOTTER.to_owned(), Platform::host())], ..Target::default() }
}

async fn import(node: &Node, archive: Vec<u8>, target: Target) -> Result<Vec<Stored>, ImageError> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        for chunk in archive.chunks(10_000) {
            if sender.send(Ok(Bytes::copy_from_slice(chunk))).await.is_err() {
                return;
            }
        }
    });
    node.puller.import(&node.scope, receiver, target, Arc::new(|_| {}), CancellationToken::new()).await
}

fn code_of(e: ImageError) -> (Code, String) {
    let e = Error::from(e);
    (e.code, e.message)
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

/// An OCI layout of these images with these annotations.
pub fn layout(images: &[(&Image, &[(&str, &str)])]) -> Vec<u8> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for (image, annotations) in images {
        for bytes in image.layers.iter().chain([&image.config, &image.manifest]) {
            files.push((blob(bytes), bytes.clone()));
        }
        let mut entry = local::descriptor(OCI_MANIFEST, &image.manifest);
        entry.annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        entries.push(entry);
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
    files.push(("index.json".into(), index.into_bytes()));
    pack(&files)
}

fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    local::tar(&files)
}

async fn is_unpacked(node: &Node, image: &Image, seed: u64) {
    let chain = chain_id(&image.diff_ids).unwrap();
    assert_eq!(node.file(&chain, "etc/id").await.unwrap(), noise(seed, 16));
    assert!(node.query("SELECT id FROM leases").await.is_empty());
    assert!(node.query("SELECT ref FROM ingests").await.is_empty());
}

#[tokio::test]
async fn what_skopeo_writes() {
    let server = DockerRegistry::start(false).await;
    let image = sample(1);
    server.push("x/y", "1", &image).await;
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [("docker-archive", "docker.io/x/y:1"), ("oci-archive", "docker.io/x/y:1")] {
        let path = dir.path().join(kind);
        let from = format!("docker://{}/x/y:1", server.name());
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &from])
            .arg(format!("{kind}:{}:{name}", path.display()))
            .env("TMPDIR", dir.path())
            .status()
            .unwrap();
        assert!(copied.success());
        for (number, bytes) in compressions(&path).into_iter().enumerate() {
            let node = Node::new().await;
            let stored = import(&node, bytes, unpacked()).await.unwrap_or_else(|e| panic!("{kind} {number}: {e}"));
            assert_eq!(stored.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), [name], "{kind}");
            is_unpacked(&node, &image, 1).await;
        }
    }
}

/// The file as it is, with gzip, and with zstd.
fn compressions(path: &Path) -> [Vec<u8>; 3] {
    let plain = std::fs::read(path).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    [plain.clone(), local::gzip(&plain), zstd]
}

#[tokio::test]
async fn several_images_and_several_names() {
    let (one, two) = (sample(1), sample(2));
    let archive = layout(&[
        (&one, &[(IMAGE_NAME, "a.b/one:1"), (REF_NAME, "1")]),
        (&one, &[(IMAGE_NAME, "a.b/one:latest"), (REF_NAME, "latest")]),
        (&two, &[(REF_NAME, "a.b/two:1")]),
    ]);
    let node = Node::new().await;
    import(&node, archive.clone(), unpacked()).await.unwrap();
    assert_eq!(node.images().await, ["a.b/one:1", "a.b/one:latest", "a.b/two:1"]);
    is_unpacked(&node, &one, 1).await;
    is_unpacked(&node, &two, 2).await;

    // A name for the whole is a name for the index of them all.
    let node = Node::new().await;
    let stored = import(&node, archive, Target { name: "all:1".into(), ..unpacked() }).await.unwrap();
    assert_eq!(stored.len(), 1);
    let labels = node.content.info(&node.scope, &stored[0].target.digest).await.unwrap().labels;
    assert_eq!(labels["containerd.io/gc.ref.content.m.2"], two.digest().to_string());
}

#[tokio::test]
async fn what_can_not_run_here_is_left_out() {
    let (ours, foreign) = (sample(1), Image::of_tars(&[local::tar(&[("x", b"")])], "riscv64"));
    let node = Node::new().await;
    let both = layout(&[(&foreign, &[(IMAGE_NAME, "a.b/foreign:1")]), (&ours, &[(IMAGE_NAME, "a.b/ours:1")])]);
    import(&node, both, unpacked()).await.unwrap();
    assert_eq!(node.images().await, ["a.b/ours:1"]);

    let node = Node::new().await;
    let alone = layout(&[(&foreign, &[(IMAGE_NAME, "a.b/foreign:1")])]);
    let (code, message) = code_of(import(&node, alone, unpacked()).await.unwrap_err());
    assert!(code == Code::NotFound && message.contains("linux/riscv64"), "{message}");
    node.assert_clean().await;
}

#[tokio::test]
async fn names_that_the_client_gives() {
    let image = sample(1);
    let archive = layout(&[(&image, &[(REF_NAME, "latest")])]);
    let node = Node::new().await;
    let (code, message) = code_of(import(&node, archive.clone(), unpacked()).await.unwrap_err());
    assert!(
        code == Code::InvalidArgument && message.contains("latest") && message.contains("give a name"),
        "{message}"
    );
    node.assert_clean().await;
    let prefix = ExtraReference { name: "a.b/c".into(), is_prefix: true, ..Default::default() };
    import(&node, archive.clone(), Target { references: vec![prefix], ..unpacked() }).await.unwrap();
    let stored = import(&node, archive, Target { name: "a.b/d:2".into(), ..unpacked() }).await.unwrap();
    assert_eq!(stored[0].target.digest, image.digest(), "one image: the name is that image's");
    assert_eq!(node.images().await, ["a.b/c:latest", "a.b/d:2"]);
}

/// What `docker save` wrote before version 25: folders with a layer each, links for those that are the same.
fn docker_save(image: &Image, tars: &[Vec<u8>], tags: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", &image.config);
    for (n, tar) in tars.iter().enumerate() {
        add(&format!("{n}/layer.tar"), tar);
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "again/layer.tar", "../1/layer.tar").unwrap();
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":{tags},"Layers":["0/layer.tar","again/layer.tar"]}}]"#);
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    builder.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn what_docker_save_writes() {
    let tars =
        [local::tar(&[("bin/", b""), ("bin/sh", b"#!")]), local::tar(&[("etc/", b""), ("etc/id", &noise(3, 16))])];
    let image = Image::of_tars(&tars, std::env::consts::ARCH);
    let node = Node::new().await;
    import(&node, docker_save(&image, &tars, r#"["busybox:1","x.y/z:2"]"#), unpacked()).await.unwrap();
    assert_eq!(node.images().await, ["docker.io/library/busybox:1", "x.y/z:2"]);
    is_unpacked(&node, &image, 3).await;

    let node = Node::new().await;
    let unnamed = docker_save(&image, &tars, "null");
    assert_eq!(code_of(import(&node, unnamed.clone(), unpacked()).await.unwrap_err()).0, Code::InvalidArgument);
    import(&node, unnamed, Target { name: "a.b/c:1".into(), ..unpacked() }).await.unwrap();
    assert_eq!(node.images().await, ["a.b/c:1"]);
}

#[tokio::test]
async fn what_is_broken_or_malicious_is_refused_and_leaves_nothing() {
    let image = sample(1);
    let good = layout(&[(&image, &[(IMAGE_NAME, "a.b/c:1")])]);
    let oci = ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    let lie = pack(&[oci.clone(), (blob(b"this"), b"that".to_vec())]);
    let huge = pack(&[oci.clone(), ("index.json".into(), vec![b' '; 5 << 20])]);
    let future = pack(&[("oci-layout".into(), br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec())]);
    let bare = pack(std::slice::from_ref(&oci));
    let missing = pack(&[
        oci,
        ("index.json".into(), {
            let entry = local::descriptor(OCI_MANIFEST, &image.manifest);
            serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes()
        }),
    ]);
    for (archive, why) in [
        (good[..good.len() / 2].to_vec(), "read the archive"),
        (Vec::new(), "empty"),
        (b"this is no archive at all".repeat(100), "archive"),
        (lie, "has digest"),
        (huge, "limit"),
        (future, "2.0.0"),
        (bare, "without index.json"),
        (missing, "has no blob"),
        (pack(&[("readme".into(), b"x".to_vec())]), "neither an OCI layout nor"),
    ] {
        let node = Node::new().await;
        let e = import(&node, archive, unpacked()).await.unwrap_err();
        let (code, message) = code_of(e);
        assert!(matches!(code, Code::InvalidArgument | Code::FailedPrecondition), "{code:?} {message}");
        assert!(message.contains(why), "{why}: {message}");
        node.assert_clean().await;
        assert!(node.query("SELECT ref FROM ingests").await.is_empty(), "{why}");
    }
}

#[tokio::test]
async fn paths_that_lead_out_are_ignored() {
    let image = sample(1);
    let mut archive = std::io::Cursor::new(Vec::new());
    // Written by hand: the library refuses to make such names.
    for (name, bytes) in [("../../escape", &b"x"[..]), ("/etc/../../escape", b"x")] {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&[bytes, &[0; 511]].concat()).unwrap();
    }
    archive.write_all(&layout(&[(&image, &[(IMAGE_NAME, "a.b/c:1")])])).unwrap();
    let node = Node::new().await;
    import(&node, archive.into_inner(), unpacked()).await.unwrap();
    is_unpacked(&node, &image, 1).await;
    assert!(!node.dir.path().join("../escape").exists() && !node.dir.path().join("escape").exists());
}

#[tokio::test]
async fn an_import_that_stops_half_way_cleans_up() {
    let node = Node::new().await;
    let archive = layout(&[(&sample(1), &[(IMAGE_NAME, "a.b/c:1")])]);
    let (sender, receiver) = mpsc::channel(4);
    sender.send(Ok(Bytes::from(archive[..archive.len() / 2].to_vec()))).await.unwrap();
    let cancel = CancellationToken::new();
    let import = node.puller.import(&node.scope, receiver, unpacked(), Arc::new(|_| {}), cancel.clone());
    let (ended, ()) = tokio::join!(import, async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        cancel.cancel();
    });
    assert!(ended.is_err());
    node.assert_clean().await;
    assert!(node.query("SELECT ref FROM ingests").await.is_empty());
}
