//! Whole pulls: into the store, unpacked, and clean whatever happens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use shared_proto::{Code, Error};
use tokio_util::sync::CancellationToken;

use super::auth::Given;
use super::fake::Answer;
use super::local::{self, DockerRegistry, Image, noise};
use super::node::{Events, Node, OVERLAY, SNAPSHOTTER, serve};
use crate::domain::Digest;
use crate::images::manifest::{OCI_INDEX, Platform, chain_id};

fn sample() -> Image {
    Image::of(&[
        &[("bin/", b""), ("bin/sh", &noise(1, 200_000)), ("etc/", b""), ("etc/gone", b"x")],
        &[("etc/.wh.gone", b""), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n")],
        &[("big", &noise(2, 400_000))],
    ])
}

fn code_of(e: crate::images::ImageError) -> (Code, String) {
    let e = Error::from(e);
    (e.code, e.message)
}

#[tokio::test]
async fn from_a_real_registry_by_an_index_through_a_mirror() {
    let server = DockerRegistry::start(true).await;
    let image = sample();
    server.push("pause", "main", &image).await;
    let other = Image::of_tars(&[local::tar(&[("other", b"")])], "riscv64");
    server.push("pause", "other", &other).await;
    let index = local::index(&[("riscv64", &other.manifest), (std::env::consts::ARCH, &image.manifest)]);
    server.push_manifest("pause", "3.9", OCI_INDEX, &index).await;

    let node = Node::new().await;
    let name = "registry.k8s.io/pause:3.9";
    // The registry itself must not be asked: its place is taken by a port that nobody listens on.
    node.hosts("registry.k8s.io", &format!("server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n", server.name()));
    let mut request = node.request(name);
    request.credentials = Given::password("pw");
    let mut listener = node.exchange.subscribe();
    let events = Events::default();
    let stored = node.pull_with(request, &events, CancellationToken::new()).await.unwrap();
    assert_eq!(stored[0].target.digest, Digest::of(&index));

    let chain = chain_id(&image.diff_ids).unwrap();
    assert_eq!(node.file(&chain, "etc/passwd").await.unwrap(), b"root:x:0:0::/:/bin/sh\n");
    assert_eq!(node.file(&chain, "big").await.unwrap(), noise(2, 400_000));
    assert_eq!(node.file(&chain, "etc/gone").await, None);
    assert_eq!(node.snapshot_names().await.len(), 3);
    assert_eq!(node.images().await, [name]);
    assert!(node.query("SELECT id FROM leases").await.is_empty());
    assert!(node.query("SELECT ref FROM ingests").await.is_empty());
    assert_eq!(listener.recv().await.unwrap().topic, "/images/create");

    // The image record holds it all.
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.blobs, report.snapshots), (0, 0), "{report:?}");
    assert_eq!(node.query("SELECT digest FROM blobs").await.len(), 6);
    assert_eq!(node.file(&chain, "big").await.unwrap(), noise(2, 400_000));

    let labels = |bytes: Vec<u8>| {
        let (content, scope) = (node.content.clone(), node.scope.clone());
        async move { content.info(&scope, &Digest::of(&bytes)).await.unwrap().labels }
    };
    assert_eq!(labels(index.clone()).await["containerd.io/gc.ref.content.m.1"], image.digest().to_string());
    let manifest = labels(image.manifest.clone()).await;
    assert_eq!(manifest["containerd.io/gc.ref.content.config"], Digest::of(&image.config).to_string());
    assert_eq!(manifest["containerd.io/gc.ref.content.l.2"], Digest::of(&image.layers[2]).to_string());
    assert_eq!(manifest["containerd.io/distribution.source.registry.k8s.io"], "pause");
    let config = labels(image.config.clone()).await;
    assert_eq!(config[&format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}")], chain.to_string());
    assert_eq!(labels(image.layers[0].clone()).await["containerd.io/uncompressed"], image.diff_ids[0].to_string());

    let events = events.lock().unwrap();
    let all: Vec<&str> = events.iter().map(|p| p.event.as_str()).collect();
    assert!(all[0].starts_with("Resolving from") && all.last().unwrap().starts_with("Completed pull"), "{all:?}");
    let layer = format!("layer-{}", Digest::of(&image.layers[2]));
    let about: Vec<&str> = events.iter().filter(|p| p.name == layer).map(|p| p.event.as_str()).collect();
    assert_eq!(about.first(), Some(&"waiting"));
    assert!(about.contains(&"complete") && about.contains(&"extracted"), "{about:?}");
}

#[tokio::test]
async fn layers_of_an_overlay_cover_each_other() {
    let image = sample();
    let chain = chain_id(&image.diff_ids).unwrap();
    let server = serve(image, |_| None).await;
    let node = Node::new().await;
    let mut request = node.request(&format!("{}/a/b:1", server.addr));
    request.target.unpacks = vec![(OVERLAY.to_owned(), Platform::host())];
    node.pull_with(request, &Events::default(), CancellationToken::new()).await.unwrap();
    let view = node.snapshots.view(&node.scope, OVERLAY, "look", chain.as_str(), Default::default()).await.unwrap();
    let root = shared_sys::mount::Detached::of(&view).unwrap();
    assert_eq!(root.read(Path::new("bin/sh")).unwrap(), noise(1, 200_000));
    assert_eq!(root.read(Path::new("etc/passwd")).unwrap(), b"root:x:0:0::/:/bin/sh\n");
    assert!(root.read(Path::new("etc/gone")).is_err());
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let server = serve(sample(), |_| None).await;
    let node = Node::new().await;
    let reference = format!("{}/a/b:1", server.addr);
    node.pull(&reference).await.unwrap();
    let before = server.lines().len();
    let again = node.pull(&reference).await.unwrap();
    assert_eq!(again[0].name, reference);
    assert_eq!(server.lines()[before..], ["HEAD /v2/a/b/manifests/1"]);

    // Another repository with the same layers: they are known, and so is from where.
    node.pull(&format!("{}/c/d:1", server.addr)).await.unwrap();
    assert_eq!(server.lines().len(), before + 2);
    let info = node.content.info(&node.scope, &Digest::of(&sample().layers[0])).await.unwrap();
    assert_eq!(info.labels["containerd.io/distribution.source.127.0.0.1"], "a/b,c/d");
}

#[tokio::test]
async fn many_pulls_at_once_fetch_and_unpack_once() {
    let server = serve(sample(), |_| None).await;
    let node = Arc::new(Node::new().await);
    let reference = format!("{}/a/b:1", server.addr);
    let pulls: Vec<_> = (0..6)
        .map(|_| {
            let (node, reference) = (node.clone(), reference.clone());
            tokio::spawn(async move { node.pull(&reference).await.map(drop) })
        })
        .collect();
    for pull in pulls {
        pull.await.unwrap().unwrap();
    }
    let blobs: Vec<_> = server.lines().into_iter().filter(|line| line.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    assert_eq!(node.snapshot_names().await.len(), 3);
    assert!(node.query("SELECT id FROM leases").await.is_empty());
}

#[tokio::test]
async fn a_pull_that_was_cut_leaves_only_what_it_can_go_on_with() {
    let image = sample();
    let big = Digest::of(&image.layers[2]).to_string();
    let (healed, tries) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let (served, broken, name) = (image.layers[2].clone(), healed.clone(), big.clone());
    let server = serve(image, move |seen| {
        if broken.load(Ordering::SeqCst) || !seen.target.contains(&name) {
            return None;
        }
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Some(Answer::blob(&served, seen).cut(100_000)),
            _ => Some(Answer::status(502)),
        }
    })
    .await;
    let node = Node::new().await;
    let reference = format!("{}/a/b:1", server.addr);
    let (code, message) = code_of(node.pull(&reference).await.unwrap_err());
    assert_eq!(code, Code::Unavailable);
    assert!(message.contains("502") && message.contains(&server.addr.to_string()), "{message}");
    node.assert_clean().await;
    assert_eq!(node.query("SELECT ref FROM ingests").await, [format!("layer-{big}")]);

    healed.store(true, Ordering::SeqCst);
    let before = server.seen().len();
    node.pull(&reference).await.unwrap();
    let seen = server.seen();
    let resumed: Vec<_> = seen[before..].iter().filter(|s| s.target.contains(&big)).collect();
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].header("range"), "bytes=100000-");
    assert!(node.query("SELECT ref FROM ingests").await.is_empty());
}

#[tokio::test]
async fn wrong_bytes_are_never_stored_and_the_next_host_is_asked() {
    let image = sample();
    let layer = Digest::of(&image.layers[0]);
    let mut bad = image.layers[0].clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let name = layer.to_string();
    let evil = serve(sample(), move |seen| seen.target.contains(&name).then(|| Answer::blob(&bad, seen))).await;
    let honest = serve(sample(), |_| None).await;

    let alone = Node::new().await;
    let (code, message) = code_of(alone.pull(&format!("{}/a/b:1", evil.addr)).await.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains(layer.as_str()) && message.contains("has digest"), "{message}");
    alone.assert_clean().await;
    assert!(alone.content.info(&alone.scope, &layer).await.is_err());

    let node = Node::new().await;
    node.hosts("x.test", &format!("server = \"{}\"\n[host.\"{}\"]\n", honest.url(), evil.url()));
    node.pull("x.test/a/b:1").await.unwrap();
    let chain = chain_id(&image.diff_ids).unwrap();
    assert_eq!(node.file(&chain, "bin/sh").await.unwrap(), noise(1, 200_000));
    assert_eq!(node.snapshot_names().await.len(), 3);
}

#[tokio::test]
async fn a_layer_is_unpacked_while_it_comes_and_a_cancelled_pull_cleans_up() {
    let image = sample();
    let first = Digest::of(&image.layers[0]).to_string();
    let (served, name) = (image.layers[0].clone(), first.clone());
    let server = serve(image, move |seen| {
        seen.target.contains(&name).then(|| Answer { hang: true, ..Answer::blob(&served, seen) })
    })
    .await;
    let node = Arc::new(Node::new().await);
    let (events, cancel) = (Events::default(), CancellationToken::new());
    let pull = {
        let (node, events, cancel) = (node.clone(), events.clone(), cancel.clone());
        let request = node.request(&format!("{}/a/b:1", server.addr));
        tokio::spawn(async move { node.pull_with(request, &events, cancel).await })
    };
    let layer = format!("layer-{first}");
    let extracting = || events.lock().unwrap().iter().any(|p| p.name == layer && p.event == "extracting");
    while !extracting() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.gc.collect().await.unwrap();
    assert!(node.snapshot_names().await[0].starts_with("extract-"), "the lease holds what is being made");
    assert_eq!(node.query("SELECT id FROM leases").await.len(), 1);
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), pull).await.expect("the pull does not end");
    assert_eq!(code_of(ended.unwrap().unwrap_err()).0, Code::Canceled);
    node.assert_clean().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let image = sample();
    let config = String::from_utf8(image.config.clone()).unwrap();
    let lie = config.replace(image.diff_ids[1].as_str(), Digest::of(b"lie").as_str()).into_bytes();
    let manifest = local::manifest(&lie, &image.layers);
    let wrong = Image { config: lie, manifest, ..sample() };
    let fewer = Image { manifest: local::manifest(&image.config, &image.layers[..2]), ..sample() };
    let foreign = Image::of_tars(&[local::tar(&[("x", b"")])], "riscv64");
    for (image, code, why) in [
        (wrong, Code::FailedPrecondition, "wrong diff id"),
        (fewer, Code::InvalidArgument, "2 layers, but the config names 3"),
        (foreign, Code::NotFound, "linux/riscv64"),
    ] {
        let server = serve(image, |_| None).await;
        let node = Node::new().await;
        let (found, message) = code_of(node.pull(&format!("{}/a/b:1", server.addr)).await.unwrap_err());
        assert!(found == code && message.contains(why), "{found:?} {message}");
        node.assert_clean().await;
    }

    let index = local::index(&[("riscv64", &sample().manifest)]);
    let server = super::fake::Fake::start(move |_| Answer::ok(index.clone()).with("Content-Type", OCI_INDEX)).await;
    let node = Node::new().await;
    let (code, message) = code_of(node.pull(&format!("{}/a/b:1", server.addr)).await.unwrap_err());
    assert!(code == Code::NotFound && message.contains("it has: linux/riscv64"), "{message}");
    node.assert_clean().await;
}

#[tokio::test]
async fn errors_of_the_registry_reach_the_caller_and_leave_nothing() {
    for (status, code) in [
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (429, Code::ResourceExhausted),
    ] {
        let server = serve(sample(), move |seen| seen.target.contains("/blobs/").then(|| Answer::status(status))).await;
        let node = Node::new().await;
        let (found, message) = code_of(node.pull(&format!("{}/a/b:1", server.addr)).await.unwrap_err());
        assert_eq!(found, code, "{message}");
        assert!(message.contains(&format!("pull {}/a/b:1", server.addr)), "{message}");
        node.assert_clean().await;
    }
}
