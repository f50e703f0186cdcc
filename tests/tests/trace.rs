//! `cri-daemon trace`: who asked whom for what, in each wiring, with the messages of starts that are watched.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::daemon::binary;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{ready, sleeper};
use e2e::{Wiring, World, eventually, world};
use shared_proto::cri::v1::{KeyValue, PodSandboxState};

e2e::wirings!(the_pod_of_a_manifest, the_pod_of_a_kubelet, a_pod_that_nobody_watched, step_by_step);

/// The value of a variable that must not be shown.
const SECRET: &str = "hunter2-hunter2";

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(binary("cri-daemon"));
    command.arg("-c").arg(&world.paths.config).arg("trace").args(args);
    command
}

#[track_caller]
fn trace(world: &World, args: &[&str]) -> String {
    let output = command(world, args).output().expect("run trace");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "trace {args:?}: {}", text(&output.stderr));
    let out = text(&output.stdout);
    // Seen only when the test fails.
    println!("{out}");
    assert!(!out.contains(SECRET), "a secret is shown");
    out
}

/// Each part comes after the one before it.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut at = 0;
    for part in parts {
        let found = text[at..].find(part).unwrap_or_else(|| panic!("no {part:?} where it belongs in\n{text}"));
        at += found + part.len();
    }
}

/// Every hop of CRI to the core is of this wiring, and there are some.
#[track_caller]
fn hops_are_of(wiring: Wiring, mermaid: &str) {
    let hops: Vec<&str> = mermaid.lines().filter_map(|line| line.trim().strip_prefix("CRI->>core: ")).collect();
    assert!(hops.len() > 5, "{mermaid}");
    let fits = |hop: &&&str| match wiring {
        Wiring::Split => hop.starts_with("gRPC ") && !hop.contains("pipe"),
        Wiring::Loopback => hop.starts_with("gRPC over a pipe "),
        Wiring::Merged => !hop.contains("gRPC") && !hop.contains(" B)"),
    };
    assert_eq!(hops.iter().filter(fits).count(), hops.len(), "{hops:#?}");
    assert_eq!(mermaid.contains("on the way"), wiring != Wiring::Merged, "{mermaid}");
}

/// A document with one root, whose tags are closed in their order and whose text holds no markup.
#[track_caller]
fn is_well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml.trim_end();
    let mut roots = 0;
    while let Some(tag) = rest.find('<') {
        let (text, from) = rest.split_at(tag);
        entities(text);
        assert!(!open.is_empty() || text.trim().is_empty(), "text outside of the root: {text}");
        let end = from.find('>').expect("a tag ends");
        let tag = &from[1..end];
        rest = &from[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "a tag is closed that is not the last one");
            continue;
        }
        let name = tag.split([' ', '/', '\n']).next().expect("a name");
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
        assert!(tag.matches('"').count() % 2 == 0 && !tag.contains('\''), "<{tag}>");
        entities(tag);
        roots += usize::from(open.is_empty());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && roots == 1 && rest.is_empty(), "{open:?} {roots} {rest}");
}

/// Every `&` begins an entity, and there are no characters that XML does not have.
#[track_caller]
fn entities(text: &str) {
    for after in text.split('&').skip(1) {
        assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| after.starts_with(entity)), "&{after}");
    }
    assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{text:?}");
}

/// A pod `shop/NAME` with one container, which has a secret.
fn manifest(world: &World, name: &str) -> String {
    let path = world.paths.dir.join(format!("{name}.yaml"));
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  restartPolicy: Never\n  \
         containers:\n  - name: main\n    image: '{BUSYBOX}'\n    command: [sleep, '1000']\n    env: [{{name: TOKEN, \
         value: {SECRET}}}]\n"
    );
    std::fs::write(&path, yaml).expect("write the manifest");
    path.display().to_string()
}

async fn the_pod_of_a_manifest(wiring: Wiring) {
    let world = world(wiring).await;
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let manifest = manifest(&world, "drawn");
    let drawing = world.paths.dir.join("drawn.mmd");
    let file = drawing.display().to_string();
    let printed = trace(&world, &["--manifest", &manifest, "--rm", "--output", &file]);
    assert!(printed.is_empty(), "it goes to the file: {printed}");
    world.assert_as_before(&before).await;

    let mermaid = std::fs::read_to_string(&drawing).expect("read the drawing");
    assert!(mermaid.starts_with("sequenceDiagram\n") && !mermaid.contains(SECRET), "{mermaid}");
    let participants: Vec<&str> = mermaid.lines().filter_map(|line| line.trim().strip_prefix("participant ")).collect();
    assert_eq!(participants, ["kubelet", "CRI", "core", "shim", "runc", "CNI as CNI plugins"]);
    let bridge = format!("CRI->>CNI: exec {}/bridge", world.slot.name());
    let way = |call: &str| match wiring {
        Wiring::Split => format!("CRI->>core: gRPC {call}"),
        Wiring::Loopback => format!("CRI->>core: gRPC over a pipe {call}"),
        Wiring::Merged => format!("CRI->>core: {call}"),
    };
    let (create, task, start) = (way("Containers.create"), way("Tasks.create"), way("Tasks.start"));
    let run = ["core->>shim: exec the shim's start", "core->>shim: ttrpc Task.Create", "shim--)runc: exec runc create"];
    let [shim, made, runc] = run;
    in_order(&mermaid, &["kubelet->>CRI: gRPC RunPodSandbox (", &create, &task, shim, made, runc]);
    in_order(
        &mermaid,
        &["kubelet->>CRI: gRPC RunPodSandbox (", &bridge, "CNI-->>CRI: ", "CRI-->>kubelet: RunPodSandbox"],
    );
    in_order(&mermaid, &[runc, &start, "core->>shim: ttrpc Task.Start", "CRI-->>kubelet: RunPodSandbox took "]);
    in_order(
        &mermaid,
        &[
            "CRI-->>kubelet: RunPodSandbox took ",
            "kubelet->>CRI: gRPC CreateContainer main (",
            &create,
            "CRI-->>kubelet: CreateContainer took ",
            "kubelet->>CRI: gRPC StartContainer main (",
            &task,
            made,
            &start,
            "CRI-->>kubelet: StartContainer took ",
        ],
    );
    hops_are_of(wiring, &mermaid);
    assert_eq!(mermaid.contains("box transparent core-daemon, one process"), wiring != Wiring::Split, "{mermaid}");
    assert!(mermaid.contains("Note over CRI,core: {"), "{mermaid}");

    // The messages stay with what is known of the start, decoded, without secrets.
    let text = trace(&world, &["shop/drawn"]);
    assert!(text.starts_with(&format!("shop/drawn, removed, wiring {}\n", wiring.name())), "{text}");
    for part in
        ["\"CNI_COMMAND\": \"ADD\"", "\"ociVersion\"", "TOKEN=[redacted]", "\"key\": \"TOKEN\"", "-id ", "\"pid\""]
    {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let svg = trace(&world, &["shop/drawn", "--format", "svg"]);
    is_well_formed(&svg);
    assert!(svg.starts_with("<svg ") && svg.contains("prefers-color-scheme: dark"), "{svg}");
    for part in ["kubelet", "CNI plugins", "Tasks.create", "[redacted]", wiring.name()] {
        assert!(svg.contains(part), "no {part} in\n{svg}");
    }
    assert_eq!(svg.contains("one process"), wiring != Wiring::Split);
}

/// The pod that somebody else starts while it is waited for.
async fn the_pod_of_a_kubelet(wiring: Wiring) {
    let (world, cri, ..) = ready(wiring, "other").await;
    let errors = world.paths.dir.join("trace.log");
    let file = std::fs::File::create(&errors).expect("make a log");
    let drawing = world.paths.dir.join("live.txt").display().to_string();
    let mut waiting = command(&world, &["e2e/live", "--wait", "--output", &drawing]).stderr(file).spawn();
    let waiting = waiting.as_mut().expect("run trace");
    eventually("it waits", Duration::from_secs(10), || async {
        let said = std::fs::read_to_string(&errors).unwrap_or_default();
        if said.contains("waiting for a start of e2e/live") { Ok(()) } else { Err(said) }
    })
    .await;
    let config = world.pod("live");
    let pod = cri.run_pod(&config).await;
    let mut container = sleeper("main");
    container.envs.push(KeyValue { key: "TOKEN".into(), value: SECRET.into() });
    cri.run(&pod, &config, &container).await;
    // Not watched: it has another name.
    let other = cri.run_pod(&world.pod("unseen")).await;
    let ended = eventually("it ends by itself", Duration::from_secs(20), || {
        let ended = waiting.try_wait().expect("look after trace");
        async move { ended.ok_or_else(|| "it still waits".to_owned()) }
    })
    .await;
    let text = std::fs::read_to_string(&drawing).unwrap_or_default();
    assert!(ended.success() && text.starts_with(&format!("e2e/live, ready, wiring {}", wiring.name())), "{text}");
    in_order(
        &text,
        &["RunPodSandbox", "\"hostname\": \"live\"", "CreateContainer main", "TOKEN", "StartContainer main"],
    );
    assert!(!text.contains(SECRET) && text.contains("\"value\": \"[redacted]\""), "{text}");
    let unseen = trace(&world, &[&other]);
    assert!(unseen.contains("nobody watched this start"), "{unseen}");

    // The watch has ended with the command.
    let again = cri.run(&pod, &config, &sleeper("later")).await;
    let text = trace(&world, &["e2e/live"]);
    let later = &text[text.find("CreateContainer later").expect("the later container")..];
    assert!(!later.contains('│') && !later.contains(&again), "{later}");
    for pod in [pod, other] {
        cri.end_pod(&pod).await;
    }
}

async fn a_pod_that_nobody_watched(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "plain").await;
    cri.run(&pod, &config, &sleeper("main")).await;
    let text = trace(&world, &["e2e/plain", "--format", "text"]);
    assert!(text.contains("Without messages: nobody watched this start") && !text.contains('│'), "{text}");
    let mermaid = trace(&world, &[&pod, "--format", "mermaid"]);
    hops_are_of(wiring, &mermaid);
    in_order(
        &mermaid,
        &["RunPodSandbox", "Tasks.create", "exec the shim's start", "ttrpc Task.Create", "StartContainer main"],
    );
    is_well_formed(&trace(&world, &["plain", "--format", "svg"]));
    let unknown = command(&world, &["e2e/nobody"]).output().expect("run trace");
    let complaint = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && complaint.contains("e2e/nobody"), "{complaint}");
    cri.end_pod(&pod).await;
}

/// A start that waits at each boundary, and shows what each has changed.
async fn step_by_step(wiring: Wiring) {
    let world = world(wiring).await;
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let (cri, before) = (world.cri(), world.inventory().await);
    let manifest = manifest(&world, "steps");

    // Nobody there to press Enter: it goes through by itself.
    let args = ["--manifest", &manifest, "--rm", "--step"];
    let output = command(&world, &args).stdin(Stdio::null()).output().expect("run trace");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout.is_empty() && !text.contains(SECRET), "{text}");
    in_order(
        &text,
        &[
            "── 1 ── kubelet ──▶ CRI: RunPodSandbox (",
            "CRI ──▶ core: Containers.create in RunPodSandbox (",
            "CRI ◀── core: Containers.create in RunPodSandbox (",
            "CRI ──▶ core: Tasks.create in RunPodSandbox (",
            "CRI ◀── core: Tasks.start in RunPodSandbox (",
            "kubelet ◀── CRI: RunPodSandbox (",
            "kubelet ──▶ CRI: CreateContainer main (",
            "kubelet ──▶ CRI: StartContainer main (",
            "kubelet ◀── CRI: StartContainer main",
        ],
    );
    let plugin = format!("cni-plugin {}/bridge in RunPodSandbox (", world.slot.name());
    in_order(&text, &[&format!("CRI ──▶ CNI plugin: {plugin}"), &format!("CRI ◀── CNI plugin: {plugin}")]);
    world.assert_as_before(&before).await;

    // It waits for Enter, and what it has done meanwhile is told.
    let errors = world.paths.dir.join("step.log");
    let said = || std::fs::read_to_string(&errors).unwrap_or_default();
    let file = std::fs::File::create(&errors).expect("make a log");
    let mut child = command(&world, &args).stdin(Stdio::piped()).stderr(file).spawn().expect("run trace");
    let mut keyboard = child.stdin.take().expect("its standard input");
    let prompts = |text: &str| text.matches("Enter goes on").count();
    for stops in 1.. {
        eventually(format!("stop {stops}"), Duration::from_secs(20), || async {
            let text = said();
            if prompts(&text) == stops { Ok(()) } else { Err(text) }
        })
        .await;
        if stops == 1 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(prompts(&said()), 1, "it waits");
            assert!(cri.list_pods(Default::default()).await.is_empty(), "nothing is done before");
        }
        if said().contains("CRI ◀── core: Tasks.create in RunPodSandbox") {
            break;
        }
        keyboard.write_all(b"\n").expect("press Enter");
    }
    let text = said();
    // Seen only when the test fails.
    println!("{text}");
    for change in
        ["+ process ", "containerd-shim-runc-v2 ", "+ mount ", "+ network namespace cni-", "+ link veth", "+ cgroup "]
    {
        assert!(text.contains(change), "no {change:?} in\n{text}");
    }

    // Whoever leaves in the middle leaves a pod that goes on.
    child.kill().expect("end trace");
    child.wait().expect("trace ends");
    let pod = eventually("the pod is ready", Duration::from_secs(10), || async {
        let pods = cri.list_pods(Default::default()).await;
        let ready = pods.into_iter().find(|pod| pod.state() == PodSandboxState::SandboxReady);
        ready.ok_or_else(|| "it is not".to_owned())
    })
    .await;
    cri.end_pod(&pod.id).await;
    world.assert_as_before(&before).await;
}

/// The way of a request through the tree is told by files that are there.
#[test]
fn the_lifecycle_names_files_of_the_tree() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/request-lifecycle.md")).expect("read the document");
    let words = text.split('`').skip(1).step_by(2);
    let files: Vec<&str> = words.filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        assert!(root.join(file).exists(), "docs/request-lifecycle.md names {file}, which is not there");
    }
}
