//! Images, registries, volumes, copies, commits, and what is pruned.

use e2e::Wiring;
use e2e::docker::IMAGE;
use e2e::fixtures::fixtures;

use crate::Node;

e2e::wirings!(files_and_images, images_come_from_a_registry_and_go_there);

async fn files_and_images(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    docker.docker(&["volume", "create", "kept"]);
    docker.docker(&["run", "--rm", "-v", "kept:/data", IMAGE, "sh", "-c", "echo kept >/data/file"]);
    let read = ["run", "--rm", "-v", "kept:/data:ro", IMAGE, "sh", "-c", "cat /data/file; ! touch /data/more"];
    assert_eq!(docker.docker(&read), "kept");

    let dir = &node.world.paths.dir;
    let (there, back) = (dir.join("there"), dir.join("back"));
    std::fs::write(&there, "copied").expect("write a file");
    docker.docker(&["run", "-d", "--name", "copies", IMAGE, "sleep", "1000"]);
    docker.docker(&["cp", &there.display().to_string(), "copies:/tmp/file"]);
    assert_eq!(docker.docker(&["exec", "copies", "cat", "/tmp/file"]), "copied");
    docker.docker(&["exec", "copies", "sh", "-c", "echo more >>/tmp/file"]);
    docker.docker(&["cp", "copies:/tmp/file", &back.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&back).expect("read the copy"), "copiedmore\n");
    assert!(docker.docker(&["diff", "copies"]).contains("A /tmp/file"));

    // A running container is paused for it.
    docker.docker(&["commit", "--change", r#"CMD ["cat", "/tmp/file"]"#, "copies", "made:1"]);
    assert_eq!(docker.inspect("copies", ".State.Status"), "running");
    assert_eq!(docker.docker(&["run", "--rm", "made:1"]), "copiedmore");
    let saved = docker.try_docker(&["save", "made:1"]);
    assert!(saved.status.success());
    docker.docker(&["rm", "--force", "copies"]);
    docker.docker(&["image", "rm", "made:1"]);
    assert!(docker.fed(&["load"], &saved.stdout).contains("Loaded image: made:1"));
    assert_eq!(docker.docker(&["run", "--name", "again", "made:1"]), "copiedmore");

    let pruned = docker.docker(&["system", "prune", "--all", "--force", "--volumes"]);
    assert!(pruned.contains("Deleted Containers") && pruned.contains("untagged: made:1"), "{pruned}");
    let left = ["ps", "image", "volume"].map(|what| match what {
        "ps" => docker.docker(&["ps", "--all", "--quiet"]),
        what => docker.docker(&[what, "ls", "--quiet"]),
    });
    assert_eq!(left, ["", "", ""]);
    node.end().await;
}

/// Docker puts manifests into the core's content store on the way, and keeps them by leases.
async fn images_come_from_a_registry_and_go_there(wiring: Wiring) {
    let Some(mut node) = Node::start(wiring).await else { return };
    let registry = node.docker.serve_registry(&node.world).await;
    let docker = &node.docker;
    let (pulled, made) = (format!("{registry}/e2e/docker:1"), format!("{registry}/e2e/made:1"));
    docker.docker(&["pull", &pulled]);
    assert_eq!(docker.inspect(&pulled, ".Id"), fixtures().docker.id());
    docker.docker(&["tag", IMAGE, &made]);
    docker.docker(&["push", &made]);
    docker.docker(&["image", "rm", &made, IMAGE]);
    docker.docker(&["pull", &made]);
    assert_eq!(docker.docker(&["run", "--rm", &made, "echo", "pulled"]), "pulled");
    let (_, err) = docker.ends(1, &["pull", &format!("{registry}/e2e/no-such-image:1")]);
    assert!(err.contains("not found") || err.contains("unknown"), "{err}");
    docker.docker(&["image", "rm", &pulled, &made]);
    node.end().await;
}
