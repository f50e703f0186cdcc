//! Images over CRI: identity, lists, removal, and that layers come out as they went in.

use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, DOCKER, LAYERED, PAUSE, fixtures};
use e2e::pod::script;
use e2e::{Wiring, World, config::Options, logs, world};
use futures::TryStreamExt as _;
use shared_proto::Context;
use shared_proto::containerd::content::DeleteContentRequest;
use shared_proto::containerd::snapshots::{Kind, ListSnapshotsRequest};
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(an_image_has_many_names, layers_are_applied, pulls_at_the_same_time, each_handler_has_its_snapshotter,);

async fn an_image_has_many_names(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    assert!(cri.list_images(ListImagesRequest::default()).await.images.is_empty());
    let before = world.inventory().await;
    let pulled = world.pull(DOCKER).await;
    let (id, repo) = (fixtures().docker.id(), DOCKER.rsplit_once(':').expect("a tag").0);
    let by_digest = format!("{repo}@{}", fixtures().docker.manifest.digest);
    assert_eq!(pulled, id, "the answer of a pull is the image's id");
    for name in [DOCKER, &by_digest, id, &id["sha256:".len()..], &id["sha256:".len()..][..12]] {
        let found = cri.find_image(name).await.unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!(found.id, id);
        assert_eq!(found.repo_tags, [DOCKER]);
        assert_eq!(found.repo_digests, std::slice::from_ref(&by_digest));
        assert!(found.size > 0);
        assert_eq!((found.uid, found.username.as_str()), (None, "app"));
    }
    // In the core it has three names, all with the mark that CRI knows it.
    let cx = Context::new("k8s.io");
    let mut names = [DOCKER.to_owned(), by_digest.clone(), id.to_owned()];
    names.sort();
    if e2e::world::peer().is_none() {
        let mut records = world.core().images.list(&cx, Default::default()).await.expect("list images").images;
        records.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(records.iter().map(|record| &record.name).eq(&names), "{records:?}");
        assert!(records.iter().all(|r| r.labels["io.cri-containerd.image"] == "managed"), "{records:?}");
    }
    let verbose = ImageStatusRequest { image: Some(image(DOCKER)), verbose: true };
    assert!(cri.image_status(verbose).await.info["info"].contains("FROM_IMAGE=yes"));
    assert!(cri.find_image("registry.k8s.io/e2e/unknown:1").await.is_none(), "unknown is an answer, not an error");

    // The same content under a second name, short as people write it.
    world.registry.add("library/same", "latest", &fixtures().docker);
    assert_eq!(world.pull("same").await, id);
    let mut tags = cri.find_image("docker.io/library/same:latest").await.expect("the second name").repo_tags;
    tags.sort();
    assert_eq!(tags, ["docker.io/library/same:latest", DOCKER]);
    assert_eq!(cri.list_images(ListImagesRequest::default()).await.images.len(), 1);

    world.pull(PAUSE).await;
    if e2e::world::peer().is_none() {
        assert!(cri.find_image(PAUSE).await.expect("pause").pinned, "the sandbox image is kept by image collection");
        assert!(!cri.find_image(DOCKER).await.expect("docker").pinned);
    }
    cri.remove_image(RemoveImageRequest { image: Some(image(PAUSE)) }).await;

    // Removing one name removes them all, and what only they held is gone when the call returns.
    cri.remove_image(RemoveImageRequest { image: Some(image(DOCKER)) }).await;
    assert!(cri.find_image(id).await.is_none());
    assert!(cri.list_images(ListImagesRequest::default()).await.images.is_empty());
    cri.remove_image(RemoveImageRequest { image: Some(image(DOCKER)) }).await;
    world.assert_as_before(&before).await;

    // Whichever name is given for that: here a beginning of the id, and the digest.
    for given in [&id["sha256:".len()..][..16], by_digest.as_str()] {
        world.pull(DOCKER).await;
        cri.remove_image(RemoveImageRequest { image: Some(image(given)) }).await;
        assert!(cri.list_images(ListImagesRequest::default()).await.images.is_empty(), "removed by {given}");
        world.assert_as_before(&before).await;
    }

    // By digest alone, without a tag.
    assert_eq!(world.pull(&by_digest).await, id);
    let found = cri.find_image(id).await.expect("pulled by digest");
    assert!(found.repo_tags.is_empty(), "{found:?}");
    assert_eq!(found.repo_digests, [by_digest]);
}

async fn layers_are_applied(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let id = world.pull(LAYERED).await;
    assert_eq!(id, fixtures().layered.id(), "the index leads to our platform");
    let config = world.pod("layers");
    // The sandbox image is fetched when it is needed.
    let pod = cri.run_pod(&config).await;
    let script_text = "cd /data; ls; echo --; ls hidden; echo --; cat one one-again link replaced; echo --; \
                       stat -c '%n %a %u:%g %h' mine one one-again replaced; echo --; sha256sum filler | cut -d' ' -f1";
    let mut look = script("look", script_text);
    // Kubelets name images by id after the pull.
    look.image = Some(image(&id));
    let container = cri.run(&pod, &config, &look).await;
    assert_eq!(cri.exited(&container).await.exit_code, 0);
    let told = logs::text(&logs::read(&world.log("layers", "look")), "stdout");
    let filler: Vec<u8> = (0..2_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let filler = e2e::image::digest(&filler);
    let wanted = format!(
        "filler\nhidden\nlink\nmine\none\none-again\nreplaced\n--\nabove\n--\none\none\none\nnew\n--\n\
         mine 640 1000:1001 1\none 644 0:0 2\none-again 644 0:0 2\nreplaced 4755 0:0 1\n--\n{}\n",
        &filler["sha256:".len()..]
    );
    assert_eq!(told, wanted);
    let status = cri.container(&container).await;
    assert!(status.image_ref.starts_with("registry.k8s.io/e2e/layered@sha256:"), "{status:?}");
    if e2e::world::peer().is_none() {
        assert_eq!(status.image_id, id);
        let listed = cri.list_containers(ListContainersRequest::default()).await.containers;
        let listed = listed.into_iter().find(|c| c.id == container).expect("the container is listed");
        assert_eq!((listed.image_id, listed.image_ref), (id.clone(), id.clone()));
    }

    // An image in use: its record may go, its container runs on and is removed like any other.
    let mut user = e2e::pod::sleeper("user");
    user.image = Some(image(&id));
    let container = cri.run(&pod, &config, &user).await;
    cri.remove_image(RemoveImageRequest { image: Some(image(LAYERED)) }).await;
    assert_eq!(cri.exec_ok(&container, &["cat", "/data/one"]).await, "one\n");
    let mut late = script("late", "true");
    late.image = Some(image(LAYERED));
    let error = cri.try_create(&pod, &config, &late).await.expect_err("the image is gone");
    assert_eq!(error.code(), Code::NotFound, "{error:?}");
    assert!(error.message().contains(LAYERED), "the message names it: {error:?}");
    cri.end_pod(&pod).await;
}

async fn pulls_at_the_same_time(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let before = world.inventory().await;
    let pulls = [LAYERED, BUSYBOX, LAYERED, DOCKER, LAYERED, BUSYBOX, LAYERED, DOCKER, LAYERED].map(|name| {
        let cri = cri.clone();
        async move { cri.pull(name).await }
    });
    let ids = futures::future::join_all(pulls).await;
    assert!(ids.iter().step_by(2).all(|id| id == &ids[0]) && ids[1] == ids[5], "{ids:?}");
    assert_eq!(cri.list_images(ListImagesRequest::default()).await.images.len(), 3);
    let removals = [LAYERED, BUSYBOX, DOCKER, LAYERED, BUSYBOX].map(|name| {
        let cri = cri.clone();
        async move { cri.remove_image(RemoveImageRequest { image: Some(image(name)) }).await }
    });
    futures::future::join_all(removals).await;
    world.assert_as_before(&before).await;
}

/// The committed snapshots of a snapshotter: what is unpacked.
async fn unpacked(world: &World, snapshotter: &str) -> usize {
    let request = ListSnapshotsRequest { snapshotter: snapshotter.into(), ..Default::default() };
    let pages = world.core().snapshots.list(&Context::new("k8s.io"), request).await.expect("list snapshots");
    let pages: Vec<_> = pages.try_collect().await.expect("list snapshots");
    pages.into_iter().flat_map(|page| page.info).filter(|info| info.kind() == Kind::Committed).count()
}

async fn each_handler_has_its_snapshotter(wiring: Wiring) {
    let mut options = Options::new(wiring);
    options.handlers = vec![("plain", "snapshotter = \"native\"".into())];
    let world = World::start(wiring, options).await;
    let (cri, before) = (world.cri(), world.inventory().await);
    let layers = fixtures().layered.layers.len();

    // A pull is for the handler that it names, by the field or by the older annotation.
    let named = |handler: &str| PullImageRequest {
        image: Some(ImageSpec { runtime_handler: handler.into(), ..image(LAYERED) }),
        ..Default::default()
    };
    let annotated = PullImageRequest {
        sandbox_config: Some(PodSandboxConfig {
            annotations: [("io.containerd.cri.runtime-handler".to_owned(), "plain".to_owned())].into(),
            ..world.pod("annotated")
        }),
        ..named("")
    };
    for request in [named("plain"), annotated] {
        let id = cri.pull_image(request).await.image_ref;
        assert_eq!((unpacked(&world, "native").await, unpacked(&world, "overlayfs").await), (layers, 0));
        cri.remove_image(RemoveImageRequest { image: Some(image(&id)) }).await;
        world.assert_as_before(&before).await;
    }
    let refused = cri.try_pull_image(named("other")).await.expect_err("an unknown handler");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("\"other\""), "{refused:?}");

    // Pulled for the default handler, used by another one: the sandbox image comes as it must, the container's is
    // unpacked once more, for all that ask at the same time.
    let id = cri.pull_image(named("")).await.image_ref;
    assert_eq!((unpacked(&world, "native").await, unpacked(&world, "overlayfs").await), (0, layers));
    let config = world.pod("plain");
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "plain".into() };
    let pod = cri.run_pod_sandbox(request).await.pod_sandbox_id;
    assert_eq!((unpacked(&world, "native").await, unpacked(&world, "overlayfs").await), (1, layers));

    // What can't be unpacked is said by name; another pull brings it.
    let layer = &fixtures().layered.layers[1].digest;
    let request = DeleteContentRequest { digest: layer.clone() };
    world.core().content.delete(&Context::new("k8s.io"), request).await.expect("delete a layer");
    let mut lacking = script("lacking", "true");
    lacking.image = Some(image(&id));
    let refused = cri.try_create(&pod, &config, &lacking).await.expect_err("a layer is missing");
    assert!(refused.message().contains(LAYERED) && refused.message().contains(layer), "{refused:?}");
    assert!(refused.message().contains("\"native\""), "{refused:?}");
    assert!(cri.list_containers(ListContainersRequest::default()).await.containers.is_empty());
    assert_eq!(cri.pull_image(named("")).await.image_ref, id);

    let containers = ["one", "two", "three"].map(|name| {
        let mut looks = script(name, "cat /data/one; stat -c '%a %u:%g' /data/mine; sleep 1000");
        looks.image = Some(image(&id));
        let (cri, pod, config) = (&cri, &pod, &config);
        async move { cri.run(pod, config, &looks).await }
    });
    let containers = futures::future::join_all(containers).await;
    assert_eq!((unpacked(&world, "native").await, unpacked(&world, "overlayfs").await), (1 + layers, layers));
    for container in &containers {
        assert_eq!(cri.exec_ok(container, &["cat", "/data/one"]).await, "one\n");
        assert_eq!(cri.exec_ok(container, &["stat", "-c", "%a %u:%g", "/data/mine"]).await, "640 1000:1001\n");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", cri.pid(&containers[0]).await)).expect("read");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("the root file system");
    assert!(root.contains("snapshotter.v1.native"), "{root}");

    // Both are told with what they take, the default one first.
    let told = cri.image_fs_info(ImageFsInfoRequest {}).await;
    let folder = |fs: &FilesystemUsage| fs.fs_id.clone().expect("fs_id").mountpoint;
    assert_eq!((told.image_filesystems.len(), told.container_filesystems.len()), (2, 1));
    for (filesystem, name) in told.image_filesystems.iter().zip(["overlayfs", "native"]) {
        let folder = folder(filesystem);
        assert!(folder.ends_with(&format!("io.containerd.snapshotter.v1.{name}")), "{folder}");
        assert!(std::path::Path::new(&folder).is_dir(), "{folder} is no folder");
        assert!(filesystem.used_bytes.is_some_and(|bytes| bytes.value > 8_000_000), "{name}: {filesystem:?}");
        assert!(filesystem.inodes_used.is_some_and(|inodes| inodes.value > 5), "{name}: {filesystem:?}");
    }
    assert_eq!(folder(&told.container_filesystems[0]), folder(&told.image_filesystems[0]));

    // Nothing keeps what was unpacked but the image and its containers.
    cri.end_pod(&pod).await;
    for name in [LAYERED, PAUSE] {
        cri.remove_image(RemoveImageRequest { image: Some(image(name)) }).await;
    }
    world.assert_as_before(&before).await;
}
