//! The index against a core in memory, which others change too.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use shared_proto::containerd::{Descriptor, images as i};
use shared_proto::fake::FakeCore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

/// A core with images in it, and our view of them.
struct World {
    fake: FakeCore,
    core: Core,
    images: Images,
    work: TaskTracker,
    shutdown: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let fake = FakeCore::default();
        let core = fake.core();
        let images = Images::new(core.clone(), &shared_config::Config::default());
        Self { fake, core, images, work: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    async fn started() -> Self {
        let world = Self::new().await;
        world.images.start(&world.work, world.shutdown.clone()).await.unwrap();
        world
    }

    fn put(&self, blob: &serde_json::Value) -> String {
        let bytes = blob.to_string().into_bytes();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        self.fake.put_blob("k8s.io", &digest, bytes);
        digest
    }

    /// Puts the content of an image in place; answers its id and its manifest's digest.
    fn content(&self, seed: &str, architecture: &str) -> (String, String) {
        let config = self.put(&serde_json::json!({
            "os": "linux", "architecture": architecture, "config": { "User": "65534", "Env": [format!("S={seed}")] },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:a", "sha256:b"] },
        }));
        let manifest = self.put(&serde_json::json!({
            "schemaVersion": 2, "config": { "digest": config, "size": 100 },
            "layers": [{ "digest": "sha256:l1", "size": 1000 }, { "digest": "sha256:l2", "size": 2000 }],
        }));
        (config, manifest)
    }

    async fn create(&self, name: &str, target: &str) {
        let target = Descriptor { digest: target.into(), ..Default::default() };
        let image = i::Image { name: name.into(), target: Some(target), ..Default::default() };
        let request = i::CreateImageRequest { image: Some(image), source_date_epoch: None };
        self.core.images.create(&Context::new("k8s.io"), request).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let list = self.core.images.list(&Context::new("k8s.io"), i::ListImagesRequest::default()).await.unwrap();
        list.images.into_iter().map(|image| image.name).collect()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.work.close();
        self.work.wait().await;
    }
}

/// Waits until `done` answers true.
async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s");
}

const NAME: &str = "docker.io/library/a:1";

fn here() -> String {
    Platform::host().architecture
}

#[tokio::test]
async fn a_start_finds_what_is_there_and_leaves_out_what_can_not_be_read() {
    let world = World::new().await;
    let (id, manifest) = world.content("a", &here());
    let (_, foreign) = world.content("b", "sparc");
    world.create(NAME, &manifest).await;
    world.create("docker.io/library/foreign:1", &foreign).await;
    world.create("docker.io/library/absent:1", "sha256:nowhere").await;
    world.images.start(&world.work, world.shutdown.clone()).await.unwrap();

    let found = world.images.resolve("a:1").await.unwrap();
    assert_eq!((found.id.as_str(), found.reference.as_str()), (id.as_str(), NAME));
    assert_eq!(found.repo_digest, id, "it has no digest reference");
    assert!(found.size > 3100 && found.chain_id.starts_with("sha256:"));
    assert_eq!(world.images.list().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn images_of_others_show_up_adopted_move_and_go() {
    let world = World::started().await;
    let (id, manifest) = world.content("a", &here());
    let (other, moved) = world.content("b", &here());
    world.create(NAME, &manifest).await;
    until(|| world.images.index().names_of(&id).len() == 2).await;
    assert!(world.names().await.contains(&id), "a reference under its id");
    while world.images.record(NAME).await.unwrap().labels.get(MANAGED).is_none_or(|label| label != "managed") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let target = Descriptor { digest: moved, ..Default::default() };
    world.images.point(NAME, target, &Labels::new()).await.unwrap();
    until(|| world.images.index().find(NAME).is_ok_and(|l| l.image.id == other)).await;
    assert_eq!(
        world.images.index().names_of(&id).as_slice(),
        std::slice::from_ref(&id),
        "the old one is kept by its id"
    );

    let delete = i::DeleteImageRequest { name: NAME.into(), ..Default::default() };
    world.core.images.delete(&Context::new("k8s.io"), delete).await.unwrap();
    until(|| world.images.index().find(NAME).is_err()).await;
    world.stop().await;
}

#[tokio::test]
async fn what_happens_while_events_are_broken_is_found_out() {
    let world = World::started().await;
    let (id, manifest) = world.content("a", &here());
    world.create(NAME, &manifest).await;
    until(|| world.images.index().names_of(&id).len() == 2).await;
    world.fake.break_subscriptions();
    world.create("docker.io/library/b:1", &manifest).await;
    let delete = i::DeleteImageRequest { name: NAME.into(), ..Default::default() };
    world.core.images.delete(&Context::new("k8s.io"), delete).await.unwrap();
    until(|| world.images.index().names_of(&id) == ["docker.io/library/b:1", &id]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_name_whose_event_did_not_come_yet_is_asked_for() {
    let world = World::new().await;
    let (id, manifest) = world.content("a", &here());
    world.create(NAME, &manifest).await;
    assert_eq!(world.images.resolve("a:1").await.unwrap().id, id);
    assert!(world.images.resolve("b:1").await.unwrap_err().is_not_found());
    world.stop().await;
}

#[tokio::test]
async fn an_index_gives_the_part_for_this_machine() {
    let world = World::started().await;
    let (foreign, other) = world.content("a", "sparc");
    let (id, manifest) = world.content("b", &here());
    let index = world.put(&serde_json::json!({ "manifests": [
        { "digest": "sha256:gone", "size": 1, "platform": { "os": "linux", "architecture": here() } },
        { "digest": other, "size": 1, "platform": { "os": "linux", "architecture": "sparc" } },
        { "digest": manifest, "size": 1 },
    ]}));
    world.create(NAME, &index).await;
    until(|| world.images.index().find(NAME).is_ok()).await;
    assert_eq!(world.images.resolve(NAME).await.unwrap().id, id);
    assert!(world.images.resolve(&foreign).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn a_removal_takes_every_name_and_can_be_repeated_at_once() {
    let world = World::started().await;
    let (id, manifest) = world.content("a", &here());
    world.create(NAME, &manifest).await;
    world.create("docker.io/library/b:1", &manifest).await;
    until(|| world.images.index().names_of(&id).len() == 3).await;
    let removals = (0..5).map(|_| world.images.remove(id.clone()));
    for removed in futures::future::join_all(removals).await {
        removed.unwrap();
    }
    assert!(world.images.list().is_empty());
    assert!(world.names().await.is_empty());
    world.images.remove(id).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn the_sandbox_image_is_pinned_however_it_came() {
    let world = World::started().await;
    let (id, manifest) = world.content("pause", &here());
    let name = shared_config::Config::default().images.sandbox_image;
    world.create(&name, &manifest).await;
    until(|| world.images.index().names_of(&id).len() == 2).await;
    assert!(world.images.ensure(&name, "overlayfs").await.unwrap().pinned);
    while !world.images.record(&name).await.unwrap().labels.contains_key(PINNED) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn images_are_pinned_by_the_configuration_and_by_their_label() {
    let mut config = shared_config::Config::default();
    config.images.pinned_images.insert("agent".into(), "agent:2".into());
    let fake = FakeCore::default();
    let images = Images::new(fake.core(), &config);
    let world = World { core: fake.core(), fake, images, work: TaskTracker::new(), shutdown: CancellationToken::new() };
    let (_, agent) = world.content("agent", &here());
    let (_, other) = world.content("other", &here());
    world.create("docker.io/library/agent:2", &agent).await;
    world.create(NAME, &other).await;
    world.images.start(&world.work, world.shutdown.clone()).await.unwrap();
    assert!(world.images.resolve("agent:2").await.unwrap().pinned);
    for (value, pinned) in [("pinned", true), ("no", false), ("pinned", true), ("", false)] {
        let label = Labels::from([(PINNED.to_owned(), value.to_owned())]);
        world.images.label(NAME, label).await.unwrap();
        until(|| world.images.index().find(NAME).is_ok_and(|listed| listed.pinned == pinned)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_pull_is_for_the_handler_that_field_or_annotation_name() {
    let mut config = shared_config::Config::default();
    let own = shared_config::Runtime { snapshotter: "native".into(), ..Default::default() };
    config.runtime.runtimes.insert("own".into(), own);
    let images = Images::new(FakeCore::default().core(), &config);
    assert_eq!(images.snapshotters(), ["overlayfs", "native"]);
    assert_eq!(images.snapshotter("own").unwrap(), "native");
    let pod = |handler: &str| shared_proto::cri::v1::PodSandboxConfig {
        annotations: [("io.containerd.cri.runtime-handler".to_owned(), handler.to_owned())].into(),
        ..Default::default()
    };
    for (handler, expected) in [("own", "native"), ("runc", "overlayfs"), ("unknown", "overlayfs"), ("", "overlayfs")] {
        assert_eq!(images.snapshotter_of_pod(Some(&pod(handler))).unwrap(), expected, "{handler:?}");
    }
    assert_eq!(images.snapshotter_of_pod(None).unwrap(), "overlayfs");
}

#[tokio::test]
async fn a_start_gives_back_what_was_left_half_unpacked() {
    let world = World::new().await;
    let cx = Context::new("k8s.io");
    for (id, label) in [("ours", "io.seam.unpack"), ("theirs", "a/b")] {
        let labels = [(label.to_owned(), "true".to_owned())].into();
        let request = shared_proto::containerd::leases::CreateRequest { id: id.into(), labels };
        world.core.leases.create(&cx, request).await.unwrap();
    }
    world.images.start(&world.work, world.shutdown.clone()).await.unwrap();
    let left = world.core.leases.list(&cx, Default::default()).await.unwrap().leases;
    assert_eq!(left.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["theirs"]);
    world.stop().await;
}

#[tokio::test]
async fn handlers_have_their_snapshotter() {
    let world = World::started().await;
    assert_eq!(world.images.snapshotter("").unwrap(), "overlayfs");
    assert!(world.images.snapshotter("kata").is_err());
    world.stop().await;
}
