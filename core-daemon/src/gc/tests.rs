//! What is kept and what goes, on real stores.

use std::collections::HashSet;

use super::*;
use crate::content::ContentError;
use crate::domain::{Descriptor, Digest, Labels, LeaseId, Scope};
use crate::metadata::containers::{self, Container};
use crate::metadata::images::{self, Image};
use crate::metadata::leases;
use crate::testing::{Node, map, scope};

const CONTENT: &str = "containerd.io/gc.ref.content";
const PAST: &str = "2001-01-01T00:00:00Z";

impl Node {
    async fn has(&self, digest: &Digest) -> bool {
        let known = self.content.info(&self.scope, digest).await.is_ok();
        assert_eq!(known, self.on_disk(digest), "record and file of {digest}");
        known
    }

    async fn image(&self, name: &str, target: &Digest, labels: &[(&str, &str)]) {
        let target = Descriptor { media_type: "m".into(), digest: target.clone(), size: 1, annotations: Labels::new() };
        let new = Image { name: name.into(), labels: map(labels), target, created_at: 0, updated_at: 0 };
        let scope = self.scope.clone();
        self.write(move |c| images::create(c, &scope, new)).await.unwrap();
    }

    async fn container(&self, id: &str, snapshot: &str, labels: &[(&str, &str)]) {
        let new = Container {
            id: id.into(),
            runtime_name: "r".into(),
            snapshotter: "native".into(),
            snapshot_key: snapshot.into(),
            labels: map(labels),
            ..Container::default()
        };
        let ns = self.scope.ns.clone();
        self.write(move |c| containers::create(c, &ns, new)).await.unwrap();
    }

    /// Commits an empty layer on top of `parent`.
    async fn layer(&self, name: &str, parent: &str, labels: &[(&str, &str)]) {
        let key = format!("{name}-work");
        self.snapshots.prepare(&self.scope, "native", &key, parent, Labels::new()).await.unwrap();
        self.snapshots.commit(&self.scope, "native", name, &key, map(labels)).await.unwrap();
    }

    async fn layers(&self) -> Vec<String> {
        let all = self.snapshots.list(&self.scope, "native").await.unwrap();
        all.into_iter().map(|snapshot| snapshot.name).collect()
    }
}

#[tokio::test]
async fn an_image_keeps_all_below_it() {
    let node = Node::new().await;
    node.layer("base", "", &[]).await;
    node.layer("top", "base", &[]).await;
    node.layer("loose", "base", &[]).await;
    let layer = node.put(b"layer", &[]).await;
    let config = node.put(b"config", &[("containerd.io/gc.ref.snapshot.native", "top")]).await;
    let (l, c) = (layer.to_string(), config.to_string());
    let refs = [(format!("{CONTENT}.l.0"), l.as_str()), (format!("{CONTENT}/config"), c.as_str())];
    let manifest = node.put(b"manifest", &[(&refs[0].0, refs[0].1), (&refs[1].0, refs[1].1)]).await;
    let loose = node.put(b"loose", &[(CONTENT, layer.as_str())]).await;
    node.image("img", &manifest, &[]).await;

    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.blobs, report.snapshots, report.files, report.layers), (1, 1, 1, 1), "{report:?}");
    for kept in [&layer, &config, &manifest] {
        assert!(node.has(kept).await);
    }
    assert!(!node.has(&loose).await);
    assert_eq!(node.layers().await, ["base", "top"]);

    let ns = node.scope.ns.clone();
    node.write(move |c| images::delete(c, &ns, "img", None)).await.unwrap();
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.blobs, report.snapshots, report.files, report.layers), (3, 2, 3, 2), "{report:?}");
    assert!(node.layers().await.is_empty());
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.blobs, report.files, report.errors.len()), (0, 0, 0));
}

#[tokio::test]
async fn labels_that_only_look_alike_keep_nothing() {
    let node = Node::new().await;
    let kept = node.put(b"kept", &[("containerd.io/gc.root", "2024-01-01T00:00:00Z")]).await;
    let named = node.put(b"named", &[]).await;
    let name = named.to_string();
    let other = "containerd.io/gc.ref.contents.l.0";
    let root =
        node.put(b"root", &[("containerd.io/gc.root.x", "1"), (other, &name), ("x/gc.ref.content", &name)]).await;
    node.gc.collect().await.unwrap();
    assert!(node.has(&kept).await && node.has(&root).await && !node.has(&named).await);
}

#[tokio::test]
async fn a_lease_protects_what_is_made_under_it() {
    let node = Node::new().await;
    let (full, flat) = (node.lease("full", &[]).await, node.lease("flat", &[("containerd.io/gc.flat", "1")]).await);
    let (a, b) = (node.put(b"a", &[]).await, node.put(b"b", &[]).await);
    let (an, bn) = (a.to_string(), b.to_string());
    let top = node.put_as(&full, b"top", &[(CONTENT, &an)]).await;
    let lone = node.put_as(&flat, b"lone", &[(CONTENT, &bn)]).await;
    node.snapshots.prepare(&flat, "native", "under", "", Labels::new()).await.unwrap();
    node.snapshots.commit(&flat, "native", "base", "under", Labels::new()).await.unwrap();
    node.snapshots.prepare(&flat, "native", "work", "base", Labels::new()).await.unwrap();
    node.gc.collect().await.unwrap();
    assert!(node.has(&top).await && node.has(&a).await && node.has(&lone).await && !node.has(&b).await);
    // A parent is no reference: without it the snapshot would be nothing.
    assert_eq!(node.layers().await, ["base", "work"]);

    let ns = node.scope.ns.clone();
    let both = move |c: &rusqlite::Connection| ["full", "flat"].iter().try_for_each(|id| leases::delete(c, &ns, id));
    node.write(both).await.unwrap();
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.blobs, report.snapshots), (3, 2), "{report:?}");
}

#[tokio::test]
async fn leases_and_images_expire() {
    let node = Node::new().await;
    let expire = "containerd.io/gc.expire";
    let mut kept = Vec::new();
    let mut gone = Vec::new();
    for (n, (at, lives)) in [
        (PAST, false),
        ("2001-01-01T00:00:00.123456789+02:00", false),
        ("2999-12-31T23:59:59Z", true),
        ("2999-12-31T23:59:59.5-07:00", true),
        ("tomorrow", true),
    ]
    .into_iter()
    .enumerate()
    {
        let lease = node.lease(&format!("l{n}"), &[(expire, at)]).await;
        let leased = node.put_as(&lease, format!("leased {n}").into_bytes().leak(), &[]).await;
        let target = node.put(format!("target {n}").into_bytes().leak(), &[]).await;
        node.image(&format!("i{n}"), &target, &[(expire, at)]).await;
        if lives { &mut kept } else { &mut gone }.extend([leased, target]);
    }
    let mut events = node.exchange.subscribe();
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.leases, report.images, report.blobs), (2, 2, 4), "{report:?}");
    for digest in kept {
        assert!(node.has(&digest).await);
    }
    for digest in gone {
        assert!(!node.has(&digest).await);
    }
    let mut topics = Vec::new();
    while let Ok(event) = events.try_recv() {
        topics.push(event.topic.clone());
    }
    assert_eq!(topics, [vec!["/images/delete"; 2], vec!["/content/delete"; 4]].concat());
}

#[tokio::test]
async fn a_container_keeps_its_snapshot_and_who_is_attached() {
    let node = Node::new().await;
    node.layer("base", "", &[]).await;
    let named = node.put(b"named", &[]).await;
    let guest = node.put(b"guest", &[("containerd.io/gc.bref.container", "c")]).await;
    let guest_of_guest = node.put(b"guest2", &[("containerd.io/gc.bref.content.x", guest.as_str())]).await;
    let stranger = node.put(b"stranger", &[("containerd.io/gc.bref.container/y", "other")]).await;
    // The record comes first; its snapshot is made after that, without a lease.
    node.container("c", "c", &[("containerd.io/gc.ref.content.x", named.as_str())]).await;
    node.snapshots.prepare(&node.scope, "native", "c", "base", Labels::new()).await.unwrap();
    node.gc.collect().await.unwrap();
    assert_eq!(node.layers().await, ["base", "c"]);
    assert!(node.has(&named).await && node.has(&guest).await && node.has(&guest_of_guest).await);
    assert!(!node.has(&stranger).await);

    let ns = node.scope.ns.clone();
    node.write(move |c| containers::delete(c, &ns, "c")).await.unwrap();
    node.gc.collect().await.unwrap();
    assert!(node.layers().await.is_empty() && !node.has(&guest).await && !node.has(&named).await);
}

#[tokio::test]
async fn an_expired_image_lives_while_something_names_it() {
    let node = Node::new().await;
    let (a, b) = (node.put(b"a", &[]).await, node.put(b"b", &[]).await);
    node.image("named", &a, &[("containerd.io/gc.expire", PAST)]).await;
    node.image("unnamed", &b, &[("containerd.io/gc.expire", PAST)]).await;
    node.container("c", "", &[("containerd.io/gc.ref.image", "named")]).await;
    node.gc.collect().await.unwrap();
    assert!(node.has(&a).await && !node.has(&b).await);
}

#[tokio::test]
async fn an_ingest_lives_while_it_is_written_leased_or_young() {
    let node = Node::new().await;
    let lease = node.lease("l", &[]).await;
    let open = |of: Scope, name: &'static str| {
        let content = node.content.clone();
        async move { content.writer(&of, name, None, 0).await.unwrap() }
    };
    for (of, name) in [(&node.scope, "young"), (&node.scope, "old"), (&lease, "leased")] {
        drop(open(of.clone(), name).await);
    }
    let written = open(node.scope.clone(), "written").await;
    let age = |c: &rusqlite::Connection| Ok(c.execute("UPDATE ingests SET expires_at = 1 WHERE ref <> 'young'", [])?);
    node.write(age).await.unwrap();
    let left = || async {
        let all = node.content.statuses(&node.scope).await.unwrap();
        (all.into_iter().map(|status| status.reference).collect::<Vec<_>>(), node.ingest_dirs())
    };
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.ingests, report.files), (1, 1), "{report:?}");
    assert_eq!(left().await, (vec!["leased".to_owned(), "written".to_owned(), "young".to_owned()], 3));
    drop(written);
    let ns = node.scope.ns.clone();
    node.write(move |c| leases::delete(c, &ns, "l")).await.unwrap();
    node.gc.collect().await.unwrap();
    assert_eq!(left().await, (vec!["young".to_owned()], 1));
}

#[tokio::test]
async fn references_end_at_the_namespace() {
    let node = Node::new().await;
    let other = scope("other");
    let blob = node.put(b"blob", &[]).await;
    node.put_as(&other, b"blob", &[]).await;
    let root = [("containerd.io/gc.root", "1"), (CONTENT, blob.as_str())];
    node.put_as(&other, b"root", &root).await;
    node.gc.collect().await.unwrap();
    assert!(matches!(node.content.info(&node.scope, &blob).await, Err(ContentError::NotFound(_))));
    assert!(node.content.info(&other, &blob).await.is_ok() && node.on_disk(&blob));
}

#[tokio::test]
async fn what_cannot_be_removed_delays_only_itself() {
    let node = Node::new().await;
    let (stuck, free) = (node.put(b"stuck", &[]).await, node.put(b"free", &[]).await);
    let path = node.dir.path().join("content/blobs/sha256").join(stuck.hex());
    // A folder can't be removed as a file.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let report = node.gc.collect().await.unwrap();
    assert!(report.errors.len() == 1 && report.errors[0].contains(stuck.as_str()), "{report:?}");
    assert!(!node.on_disk(&free));
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"stuck").unwrap();
    let report = node.gc.collect().await.unwrap();
    assert_eq!((report.files, report.errors.len()), (1, 0), "{report:?}");
}

#[tokio::test]
async fn callers_that_wait_together_share_a_run() {
    let node = Node::new().await;
    let digest = node.put(b"x", &[]).await;
    let reports = futures::future::join_all((0..20).map(|_| node.gc.collect())).await;
    let runs: HashSet<Duration> = reports.into_iter().map(|report| report.unwrap().took).collect();
    assert!(runs.len() <= 2, "{runs:?}");
    assert!(!node.has(&digest).await);
}

#[tokio::test]
async fn scheduled_runs_come_soon_and_end_with_their_owner() {
    let node = Node::new().await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(node.gc.clone().run(stop.clone()));
    let digest = node.put(b"x", &[]).await;
    for _ in 0..100 {
        node.gc.schedule();
    }
    let gone = async {
        while node.on_disk(&digest) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("a run");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("the end").unwrap();
}

/// Committing, adopting and collecting the same few digests from all sides never loses a file that a record names.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collecting_never_takes_a_file_that_is_recorded() {
    let node = std::sync::Arc::new(Node::new().await);
    let work = (0..4).map(|n| {
        let node = node.clone();
        tokio::spawn(async move {
            // Each has a namespace of its own; half of them lease what they make.
            let mut under = scope(&format!("ns{n}"));
            if n % 2 == 0 {
                let (ns, lease) = (under.ns.clone(), LeaseId::random());
                under.lease = Some(lease.clone());
                node.write(move |c| leases::create(c, &ns, &lease, Labels::new())).await.unwrap();
            }
            for round in 0..40 {
                let data: &'static [u8] = [b"one" as &[u8], b"two", b"three"][(n + round) % 3];
                let name = format!("w{n}");
                let digest = Digest::of(data);
                let opened = node.content.writer(&under, &name, Some(&digest), 0).await;
                if let Ok(mut writer) = opened {
                    if writer.offset() == 0 {
                        writer.write(bytes::Bytes::from_static(data)).await.unwrap();
                    }
                    match writer.commit(None, Some(&digest), Labels::new()).await {
                        // Collected between look and commit: the client starts again.
                        Ok(_) | Err(ContentError::Exists(_) | ContentError::Aborted(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
                if n % 2 == 0 {
                    node.content.open_blob(&under, &digest).await.expect("what is leased stays");
                    if round % 5 == 0 {
                        node.content.delete(&under, &digest).await.unwrap();
                    }
                } else {
                    node.gc.collect().await.unwrap();
                }
            }
        })
    });
    for done in futures::future::join_all(work).await {
        done.unwrap();
    }
    let known = node.db.read(crate::metadata::content::all_digests).await.unwrap();
    for digest in known {
        assert!(node.on_disk(&Digest::parse(&digest).unwrap()), "{digest}");
    }
}
