//! Debian's `ctr`, unchanged, on the core socket: while a pod runs, and on its own.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::fixtures::{BUSYBOX, PAUSE, fixtures};
use e2e::pod::sleeper;
use e2e::{Wiring, World, world};

/// The rows of a table that `ctr` prints, header left out, each split into its words.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

pub async fn ctr_sees_the_pod(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let config = world.pod("seen");
    let pod = cri.run_pod(&config).await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let pid = cri.pid(&id).await.to_string();

    let version = world.ctr(&["version"]);
    assert!(version.contains("Server:") && version.contains("Version:"), "{version}");
    let server = version.split("Server:").nth(1).expect("the server's part");
    assert!(server.contains("UUID:"), "{version}");

    let plugins = world.ctr(&["plugins", "ls"]);
    for (kind, name) in [
        ("io.containerd.snapshotter.v1", "overlayfs"),
        ("io.containerd.snapshotter.v1", "native"),
        ("io.containerd.content.v1", "content"),
        ("io.containerd.grpc.v1", "tasks"),
        ("io.containerd.grpc.v1", "images"),
    ] {
        let row = rows(&plugins).into_iter().find(|r| r.len() >= 4 && r[0] == kind && r[1] == name);
        let row = row.unwrap_or_else(|| panic!("no {kind} {name} in\n{plugins}"));
        assert_eq!(row.last(), Some(&"ok"), "{row:?}");
    }

    let namespaces = world.ctr(&["namespaces", "ls"]);
    assert!(rows(&namespaces).iter().any(|r| r[0] == "k8s.io"), "{namespaces}");
    assert_eq!(world.ctr(&["containers", "ls", "-q"]), "", "the default namespace is empty");

    let containers = world.ctr(&["-n", "k8s.io", "containers", "ls"]);
    let found = rows(&containers);
    let row = |wanted: &str| found.iter().find(|r| r[0] == wanted).unwrap_or_else(|| panic!("{wanted}\n{containers}"));
    assert_eq!(row(&id)[1..], [BUSYBOX, "io.containerd.runc.v2"]);
    assert_eq!(row(&pod)[1..], [PAUSE, "io.containerd.runc.v2"]);
    assert_eq!(found.len(), 2, "{containers}");
    let info = world.ctr(&["-n", "k8s.io", "containers", "info", &id]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("the record as JSON");
    assert_eq!(info["Labels"]["io.cri-containerd.kind"], "container");
    assert_eq!(info["Labels"]["container"], "main");
    assert!(info["Extensions"]["io.cri-containerd.container.metadata"].is_object(), "{info}");
    assert_eq!(info["Spec"]["annotations"]["io.kubernetes.cri.sandbox-id"], pod.as_str());

    let tasks = world.ctr(&["-n", "k8s.io", "tasks", "ls"]);
    assert!(rows(&tasks).contains(&vec![id.as_str(), pid.as_str(), "RUNNING"]), "{tasks}");
    assert!(world.ctr(&["-n", "k8s.io", "tasks", "ps", &id]).contains(&pid));
    let metrics = world.ctr(&["-n", "k8s.io", "tasks", "metrics", &id]);
    assert!(metrics.contains("memory.usage_in_bytes") || metrics.contains("memory"), "{metrics}");
    let said = world.ctr(&["-n", "k8s.io", "tasks", "exec", "--exec-id", "from-ctr", &id, "hostname"]);
    assert_eq!(said, "seen\n");

    let images = world.ctr(&["-n", "k8s.io", "images", "ls"]);
    assert!(rows(&images).iter().any(|r| r[0] == BUSYBOX && r[2] == fixtures().busybox.manifest.digest), "{images}");
    assert!(world.ctr(&["-n", "k8s.io", "images", "check"]).contains("complete"));
    let snapshots = world.ctr(&["-n", "k8s.io", "snapshots", "ls"]);
    let active = rows(&snapshots).into_iter().filter(|r| r.last() == Some(&"Active")).count();
    assert_eq!(active, 2, "one of the pause container, one of ours\n{snapshots}");
    assert!(rows(&snapshots).iter().any(|r| r[0] == id && r.len() == 3), "{snapshots}");
    let content = world.ctr(&["-n", "k8s.io", "content", "ls"]);
    for digest in [&fixtures().busybox.manifest.digest, &fixtures().busybox.config.digest] {
        assert!(rows(&content).iter().any(|r| r[0] == digest.as_str()), "no {digest} in\n{content}");
    }
    let manifest = world.ctr(&["-n", "k8s.io", "content", "get", &fixtures().busybox.manifest.digest]);
    assert_eq!(manifest.as_bytes(), fixtures().busybox.manifest.data);
    let missing = world.try_ctr(&["-n", "k8s.io", "containers", "info", "no-such-container"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("not found"), "{missing:?}");
    cri.end_pod(&pod).await;
}

pub async fn ctr_sees_events(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let mut watcher = world.ctr_spawn(&["events"]);
    let output = watcher.stdout.take().expect("a pipe");
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    // The subscription stands when an event arrives: publish until one does.
    let started = Instant::now();
    let mut n = 0;
    while lines.try_recv().is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "no event of a label change within 10 s");
        n += 1;
        world.ctr(&["namespaces", "create", &format!("probe{n}")]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let config = world.pod("events");
    let pod = cri.run_pod(&config).await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    cri.exec_ok(&id, &["true"]).await;
    cri.end_pod(&pod).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    watcher.kill().expect("end ctr");
    watcher.wait().expect("end ctr");
    reader.join().expect("the reader ends");
    let seen: Vec<String> = lines.try_iter().collect();
    for topic in [
        "/snapshot/prepare",
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/delete",
        "/snapshot/remove",
        "/containers/delete",
    ] {
        // The namespace and the payload are decoded by ctr itself.
        let hit = seen.iter().find(|l| l.contains(&format!(" k8s.io {topic} {{")));
        assert!(hit.is_some(), "no {topic} in\n{}", seen.join("\n"));
    }
    let exits = seen.iter().filter(|l| l.contains("/tasks/exit") && l.contains(&format!("\"id\":\"{id}\"")));
    assert_eq!(exits.count(), 1, "one exit is told once:\n{}", seen.join("\n"));
}

pub async fn ctr_runs_its_own_containers(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let archive = world.paths.dir.join("image.tar");
    std::fs::write(&archive, fixtures().docker.docker_archive(&["example.com/tool:1"])).expect("write the archive");
    world.ctr(&["images", "import", &archive.display().to_string()]);
    let images = world.ctr(&["images", "ls", "-q"]);
    assert_eq!(images, "example.com/tool:1\n");
    run_and_remove(&world);

    // Export gives back what import took.
    let exported = world.paths.dir.join("exported.tar");
    world.ctr(&["images", "export", &exported.display().to_string(), "example.com/tool:1"]);
    world.ctr(&["images", "rm", "--sync", "example.com/tool:1"]);
    // What is left is the namespace's own: nothing.
    world.assert_as_before(&before).await;
    world.ctr(&["images", "import", &exported.display().to_string()]);
    assert_eq!(world.ctr(&["images", "ls", "-q"]), "example.com/tool:1\n");
    world.ctr(&["images", "rm", "--sync", "example.com/tool:1"]);

    let oci = world.paths.dir.join("oci.tar");
    std::fs::write(&oci, fixtures().layered.oci_archive("example.com/layers:1")).expect("write the archive");
    world.ctr(&["images", "import", "--snapshotter", "native", &oci.display().to_string()]);
    let out = world.ctr(&["run", "--rm", "--snapshotter", "native", "example.com/layers:1", "n1", "cat", "/data/one"]);
    assert_eq!(out, "one\n");
    world.ctr(&["images", "rm", "--sync", "example.com/layers:1"]);

    // Straight from a registry, by the client's own pull.
    let address = world.registry.address();
    let name = format!("{address}/e2e/layered:1");
    world.ctr(&["images", "pull", "--plain-http", &name]);
    let out = world.ctr(&["run", "--rm", &name, "p1", "sh", "-c", "ls /data/hidden"]);
    assert_eq!(out, "above\n");
    world.ctr(&["images", "rm", "--sync", &name]);
    world.assert_as_before(&before).await;
}

fn run_and_remove(world: &World) {
    let out = world.ctr(&["run", "--rm", "example.com/tool:1", "c1", "/bin/sh", "-c", "echo from ctr"]);
    assert_eq!(out, "from ctr\n");
    let failed = world.try_ctr(&["run", "--rm", "example.com/tool:1", "c2", "/bin/sh", "-c", "exit 9"]);
    assert_eq!(failed.status.code(), Some(9), "{failed:?}");

    let fifos = world.paths.dir.join("fifos").display().to_string();
    world.ctr(&["run", "--detach", "--fifo-dir", &fifos, "example.com/tool:1", "c3", "/bin/sleep", "1000"]);
    let tasks = world.ctr(&["tasks", "ls"]);
    assert!(rows(&tasks).iter().any(|r| r[0] == "c3" && r[2] == "RUNNING"), "{tasks}");
    let running = world.try_ctr(&["tasks", "rm", "c3"]);
    assert!(!running.status.success(), "a running task is not deleted");
    world.ctr(&["tasks", "pause", "c3"]);
    assert!(world.ctr(&["tasks", "ls"]).contains("PAUSED"));
    world.ctr(&["tasks", "resume", "c3"]);
    world.ctr(&["tasks", "kill", "--signal", "SIGKILL", "c3"]);
    let started = Instant::now();
    while !world.ctr(&["tasks", "ls"]).contains("STOPPED") {
        assert!(started.elapsed() < Duration::from_secs(5), "killed, but not stopped");
        std::thread::sleep(Duration::from_millis(50));
    }
    world.try_ctr(&["tasks", "rm", "c3"]);
    world.ctr(&["containers", "rm", "c3"]);
    assert_eq!(world.ctr(&["containers", "ls", "-q"]), "");
    assert_eq!(world.ctr(&["tasks", "ls", "-q"]), "");
}
