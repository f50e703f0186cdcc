//! Images over CRI: identity, lists, removal, and that layers come out as they went in.

use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, DOCKER, LAYERED, PAUSE, fixtures};
use e2e::pod::script;
use e2e::{Wiring, logs, world};
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(an_image_has_many_names, layers_are_applied, pulls_at_the_same_time);

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
