//! `cri-daemon why`: what a pod's start was made of, what it waits for, and why it failed, in every wiring.

use std::process::Command;
use std::time::Duration;

use e2e::daemon::binary;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{ready, ready_in, script, sleeper};
use e2e::{Wiring, World, eventually, faulty_world, world};
use shared_proto::cri::v1::{KeyValue, PullImageRequest};

e2e::wirings!(a_pod_that_runs, a_pod_that_is_stuck, pods_that_failed, the_core_away);

/// `cri-daemon why POD`: what it prints, or complains.
fn try_why(world: &World, pod: &str) -> Result<String, String> {
    let config = world.paths.config.display().to_string();
    let output = Command::new(binary("cri-daemon")).args(["-c", &config, "why", pod]).output().expect("run why");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn why(world: &World, pod: &str) -> String {
    let text = try_why(world, pod).unwrap_or_else(|e| panic!("why {pod}: {e}"));
    // Seen only when the test fails.
    println!("{text}");
    text
}

/// The request that begins with `title`, with its stages.
#[track_caller]
fn request<'a>(text: &'a str, title: &str) -> &'a str {
    let found = text.split("\n\n").find(|part| part.trim_start().starts_with(title));
    found.unwrap_or_else(|| panic!("no {title} in\n{text}"))
}

/// The last line: the sentence.
fn sentence(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

/// A stage of the side `side`.
#[track_caller]
fn has(text: &str, side: &str, stage: &str) {
    let is_it = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(&format!("{side} {stage}"));
    assert!(text.lines().any(is_it), "no {stage} of {side} in\n{text}");
}

async fn a_pod_that_runs(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "fast").await;
    // A kubelet says for which pod it pulls.
    let (image, sandbox_config) = (Some(e2e::cri::image(BUSYBOX)), Some(config.clone()));
    cri.pull_image(PullImageRequest { image, sandbox_config, ..Default::default() }).await;
    let container = cri.run(&pod, &config, &sleeper("main")).await;
    let text = why(&world, "e2e/fast");
    assert!(text.starts_with(&format!("e2e/fast, ready\n{pod}\n")), "{text}");

    let run = request(&text, "RunPodSandbox");
    for stage in ["queue", &format!("image {PAUSE}"), "snapshot overlayfs", "netns", "files", "record"] {
        has(run, "cri", stage);
    }
    for plugin in ["bridge", "cni-gate"] {
        has(run, "cri", &format!("cni-plugin {}/{plugin}", world.slot.name()));
    }
    for call in ["Containers.create", "Snapshots.prepare", "Tasks.create", "Tasks.start"] {
        has(run, "seam", call);
        has(run, "core", call);
    }
    for stage in ["database", "bundle", "shim", "runtime-create", "runtime-start"] {
        has(run, "core", stage);
    }
    has(request(&text, &format!("PullImage {BUSYBOX}")), "cri", "pull");
    let create = request(&text, "CreateContainer main");
    has(create, "core", "database");
    let start = request(&text, "StartContainer main");
    has(start, "core", "runtime-create");
    has(start, "core", "runtime-start");
    assert!(sentence(&text).starts_with("The longest was "), "{text}");
    assert!(!text.contains("under way") && !text.contains("Without the core"), "{text}");

    // By the beginning of an id, and after the pod is gone.
    assert!(why(&world, &pod[..16]).contains(&pod));
    cri.end_pod(&pod).await;
    let text = why(&world, &pod);
    assert!(text.starts_with("e2e/fast, removed\n") && text.contains("StartContainer main"), "{text}");
    for unknown in ["e2e/nobody", &container] {
        let complaint = try_why(&world, unknown).expect_err("there is no such pod");
        assert!(complaint.contains(unknown) && !complaint.contains("panicked"), "{complaint}");
    }
}

async fn a_pod_that_is_stuck(wiring: Wiring) {
    let world = world(wiring).await;
    world.pull(PAUSE).await;
    let (cri, config) = (world.cri(), world.pod("cni-slow"));
    let starting = tokio::spawn(async move { cri.run_pod(&config).await });
    let plugin = format!("{}/cni-gate", world.slot.name());
    let text = eventually("the plugin is named while it runs", Duration::from_secs(10), || async {
        let text = try_why(&world, "e2e/cni-slow")?;
        if sentence(&text).contains(&plugin) { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(sentence(&text).starts_with(&format!("RunPodSandbox waits for the CNI plugin {plugin}, for ")), "{text}");
    assert!(text.starts_with("e2e/cni-slow, being created\n"), "{text}");
    let line = text.lines().find(|line| line.contains(&format!("cni-plugin {plugin}"))).unwrap_or_default();
    assert!(line.ends_with("under way"), "{text}");

    let pod = starting.await.expect("the pod is made in the end");
    let text = why(&world, "e2e/cni-slow");
    let said = format!("The longest was the CNI plugin {plugin} in RunPodSandbox: 1.5");
    assert!(sentence(&text).starts_with(&said) && !text.contains("under way"), "{text}");
    world.cri().end_pod(&pod).await;
}

async fn pods_that_failed(wiring: Wiring) {
    let (world, cri, config, pod) = ready_in(faulty_world(wiring).await, "half").await;
    cri.try_run_pod(&world.pod("cni-fail")).await.expect_err("the gate is closed");
    cri.try_run_pod(&world.pod("cni-fail")).await.expect_err("the gate is closed");
    let text = why(&world, "e2e/cni-fail");
    assert!(text.starts_with("e2e/cni-fail, failed\n") && text.contains("Other tries at this pod: "), "{text}");
    let run = request(&text, "RunPodSandbox");
    assert!(run.contains("failed: ") && run.contains("asked for a failure"), "{text}");
    has(run, "cri", &format!("cni-plugin {}/cni-gate DEL", world.slot.name()));
    assert!(sentence(&text).starts_with("RunPodSandbox failed after "), "{text}");

    // A runtime that fails, and a command that is not there: the pod runs on.
    let mut bad = script("bad", "true");
    bad.envs.push(KeyValue { key: "WHAT".into(), value: "runc-fail".into() });
    let id = cri.create(&pod, &config, &bad).await;
    cri.try_start(&id).await.expect_err("the runtime refuses");
    let text = why(&world, "e2e/half");
    let start = request(&text, "StartContainer bad");
    assert!(start.contains("failed: ") && start.contains("this bundle asked for a failure"), "{text}");
    let call = start.lines().find(|line| line.contains("seam") && line.contains("Tasks.create")).unwrap_or_default();
    assert!(call.ends_with("failed"), "{text}");
    assert!(text.starts_with("e2e/half, ready\n"), "{text}");
    assert!(sentence(&text).starts_with("StartContainer bad failed after "), "{text}");
    cri.end_pod(&pod).await;
}

/// What CRI knows by itself is told without the core, which only in `split` can be away alone.
async fn the_core_away(wiring: Wiring) {
    let (mut world, cri, _, pod) = ready(wiring, "alone").await;
    if wiring == Wiring::Split {
        world.kill_core();
        let text = why(&world, "e2e/alone");
        has(&text, "seam", "Tasks.create");
        assert!(text.contains("Without the core's own stages: ask the core"), "{text}");
    } else {
        world.restart().await;
        let text = why(&world, "e2e/alone");
        assert!(sentence(&text).contains("before this daemon was started"), "{text}");
    }
    world.run().await;
    cri.end_pod(&pod).await;
}
