//! The command lines: configuration, `run`, `load`, `rm`, and errors that read as if somebody cared.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::config::Options;
use e2e::daemon::binary;
use e2e::fixtures::{PAUSE, fixtures};
use e2e::{Wiring, World, world};
use shared_proto::cri::v1::*;

e2e::wirings!(
    run_shows_a_pod_from_start_to_end,
    run_refuses_what_it_does_not_know,
    images_are_loaded,
    a_socket_in_use_is_refused,
);

fn output(program: &str, args: &[&str]) -> Output {
    Command::new(binary(program)).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `cri-daemon -c CONFIG ARGS`
fn cri_daemon(world: &World, args: &[&str]) -> Output {
    let config = world.paths.config.display().to_string();
    output("cri-daemon", &[&["-c", &config], args].concat())
}

#[track_caller]
fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}\nstdout: {}\nstderr: {}", output.status, out(&output), err(&output));
    out(&output)
}

/// It must fail, without a backtrace, and its complaint must name all of `names`.
#[track_caller]
fn fails(output: Output, names: &[&str]) -> String {
    assert!(!output.status.success(), "it should fail: {}", out(&output));
    assert!(output.status.code().is_some(), "it fails, it does not crash: {}", output.status);
    let complaint = err(&output);
    for name in names {
        assert!(complaint.contains(name), "the complaint does not name {name:?}: {complaint}");
    }
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Imports the images of `make run`, made the way it makes them.
fn load_demo_images(world: &World) {
    let archive = world.paths.dir.join("demo.tar").display().to_string();
    let built = Command::new(deploy("images/build")).arg(&archive).output().expect("run deploy/images/build");
    assert!(built.status.success(), "{}", err(&built));
    let text = succeeds(cri_daemon(world, &["load", &archive]));
    for name in ["seam.test/pause:1", "seam.test/hello:1"] {
        assert!(text.contains(name), "{text}");
    }
}

async fn run_shows_a_pod_from_start_to_end(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    load_demo_images(&world);
    world.pull(PAUSE).await;
    let before = world.inventory().await;
    let hello = deploy("examples/hello-pod.yaml").display().to_string();

    let text = succeeds(cri_daemon(&world, &["run", "--rm", "--report", &hello]));
    let net = world.slot.subnet().trim_end_matches("0/24").to_owned();
    for wanted in ["Hello from hello, a pod without a kubelet.", "I am nobody", "I can write to /scratch.", &net] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    assert!(text.contains("I can't write anywhere else."), "{text}");
    // The report: stages of the start, and what the seam cost.
    for wanted in ["cni", "snapshot", "tasks", "containers"] {
        assert!(text.to_lowercase().contains(wanted), "no {wanted:?} in the report\n{text}");
    }
    world.assert_as_before(&before).await;

    // Left running, and removed by name.
    let lasting = world.paths.dir.join("lasting.yaml");
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: lasting}\nspec:\n  restartPolicy: Never\n  containers:\n  \
                    - {name: main, image: 'seam.test/hello:1', command: [sleep, '1000']}\n";
    std::fs::write(&lasting, manifest).expect("write the manifest");
    let text = succeeds(cri_daemon(&world, &["run", "--detach", &lasting.display().to_string()]));
    assert!(text.contains("lasting") && text.contains(&net), "{text}");
    let pods = cri.list_pods(ListPodSandboxRequest::default()).await;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].metadata.as_ref().expect("metadata").namespace, "default");
    assert_eq!(pods[0].state(), PodSandboxState::SandboxReady);
    succeeds(cri_daemon(&world, &["rm", "lasting"]));
    world.assert_as_before(&before).await;

    // The exit status of a container is the command's.
    std::fs::write(&lasting, manifest.replace("[sleep, '1000']", "[sh, -c, 'echo bad; exit 23']")).expect("write");
    let failed = cri_daemon(&world, &["run", "--rm", &lasting.display().to_string()]);
    assert_eq!(failed.status.code(), Some(23), "{}{}", out(&failed), err(&failed));
    assert!(out(&failed).contains("bad"), "{}", out(&failed));
    world.assert_as_before(&before).await;

    // A start that fails takes the pod with it.
    std::fs::write(&lasting, manifest.replace("[sleep, '1000']", "[/no/such/command]")).expect("write");
    fails(cri_daemon(&world, &["run", "--rm", &lasting.display().to_string()]), &["/no/such/command"]);
    std::fs::write(&lasting, manifest.replace("seam.test/hello:1", "registry.k8s.io/no/such:1")).expect("write");
    fails(cri_daemon(&world, &["run", "--rm", &lasting.display().to_string()]), &["registry.k8s.io/no/such:1"]);
    world.assert_as_before(&before).await;
}

async fn run_refuses_what_it_does_not_know(wiring: Wiring) {
    let world = world(wiring).await;
    let before = world.inventory().await;
    let good = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: strange\nspec:\n  restartPolicy: Never\n  containers:\n  \
                - name: main\n    image: registry.k8s.io/pause:3.9\n";
    let path = world.paths.dir.join("strange.yaml");
    let shown = path.display().to_string();
    for (what, manifest, names) in [
        ("a field of the pod", good.replace("spec:\n", "spec:\n  nodeSelector: {a: b}\n"), "nodeSelector"),
        ("a field of a container", format!("{good}    livenessProbe: {{}}\n"), "livenessProbe"),
        (
            "a kind of volume",
            good.replace("spec:\n", "spec:\n  volumes: [{name: v, configMap: {name: c}}]\n"),
            "configMap",
        ),
        ("a restart policy", good.replace("Never", "Always"), "restartPolicy"),
        ("another kind", good.replace("kind: Pod", "kind: Deployment"), "Deployment"),
        ("an unknown volume", format!("{good}    volumeMounts: [{{name: nowhere, mountPath: /x}}]\n"), "nowhere"),
        ("a bad quantity", format!("{good}    resources: {{limits: {{memory: lots}}}}\n"), "lots"),
        ("no name", good.replace("  name: strange\n", "  labels: {}\n"), "name"),
        ("no containers", good[..good.find("  containers").expect("containers")].to_owned(), "containers"),
        ("no YAML", "{".to_owned(), "strange.yaml"),
    ] {
        std::fs::write(&path, manifest).expect("write the manifest");
        let complaint = fails(cri_daemon(&world, &["run", &shown]), &[names]);
        assert!(complaint.contains("strange.yaml"), "{what}: the complaint names the file: {complaint}");
    }
    fails(cri_daemon(&world, &["run", "/no/such/pod.yaml"]), &["/no/such/pod.yaml"]);
    world.assert_as_before(&before).await;
}

async fn images_are_loaded(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let before = world.inventory().await;
    let path = world.paths.dir.join("archive.tar");
    let shown = path.display().to_string();

    let docker = fixtures().docker.docker_archive(&["example.com/tool:1", "example.com/tool:latest"]);
    std::fs::write(&path, &docker).expect("write");
    let text = succeeds(cri_daemon(&world, &["load", &shown]));
    assert!(text.contains("example.com/tool:1") && text.contains("example.com/tool:latest"), "{text}");
    let found = cri.find_image("example.com/tool:1").await.expect("the kubelet sees it");
    assert_eq!(found.id, fixtures().docker.id(), "the same configuration, so the same id");
    assert_eq!(found.repo_tags.len(), 2, "{found:?}");
    cri.remove_image(RemoveImageRequest { image: Some(e2e::cri::image("example.com/tool:1")) }).await;
    world.assert_as_before(&before).await;

    std::fs::write(&path, fixtures().layered.oci_archive("example.com/layers:1")).expect("write");
    succeeds(cri_daemon(&world, &["load", &shown]));
    succeeds(cri_daemon(&world, &["load", &shown]));
    assert_eq!(cri.find_image("example.com/layers:1").await.expect("there").id, fixtures().layered.id());
    cri.remove_image(RemoveImageRequest { image: Some(e2e::cri::image("example.com/layers:1")) }).await;
    world.assert_as_before(&before).await;

    // What is no archive, what ends too soon, what lies about itself.
    std::fs::write(&path, b"not a tar at all, but long enough to be one".repeat(100)).expect("write");
    fails(cri_daemon(&world, &["load", &shown]), &["archive.tar"]);
    std::fs::write(&path, &docker[..docker.len() / 2]).expect("write");
    fails(cri_daemon(&world, &["load", &shown]), &["archive.tar"]);
    let mut lying = fixtures().layered.oci_archive("example.com/lie:1");
    let at = lying.windows(4).position(|w| w == b"\x7fELF").unwrap_or(lying.len() / 2);
    lying[at + 2000] ^= 1;
    std::fs::write(&path, lying).expect("write");
    fails(cri_daemon(&world, &["load", &shown]), &["archive.tar", "sha256:"]);
    fails(cri_daemon(&world, &["load", "/no/such/image.tar"]), &["/no/such/image.tar"]);
    world.assert_as_before(&before).await;
}

async fn a_socket_in_use_is_refused(wiring: Wiring) {
    let mut world = world(wiring).await;
    let config = world.paths.config.display().to_string();
    let pid = world.core_daemon_pid().to_string();
    let socket = world.paths.core_socket.display().to_string();
    let elsewhere = world.paths.dir.join("elsewhere").display().to_string();
    let second = output("core-daemon", &["-c", &config, "--root", &elsewhere, "--state", &elsewhere]);
    fails(second, &[&socket, &pid]);
    // The same root is refused even on another socket.
    let third = output("core-daemon", &["-c", &config, "-a", &format!("{elsewhere}.sock")]);
    fails(third, &[&world.paths.root.display().to_string()]);
    world.ready().await;

    // Without a daemon, clients say where they looked.
    world.stop();
    assert!(!world.paths.core_socket.exists(), "a socket goes with its daemon");
    let hello = deploy("examples/hello-pod.yaml").display().to_string();
    fails(cri_daemon(&world, &["run", &hello]), &[&world.paths.cri_socket.display().to_string()]);
}

#[test]
fn the_configuration_is_explained() {
    let defaults = succeeds(output("core-daemon", &["config", "default"]));
    for line in
        ["root = \"/var/lib/core-daemon\"", "address = \"/run/containerd/containerd.sock\"", "wiring = \"split\""]
    {
        assert!(defaults.contains(line), "no {line} in\n{defaults}");
    }
    let dir = tempfile::tempdir().expect("make a folder");
    let path = dir.path().join("config.toml");
    let shown = path.display().to_string();
    std::fs::write(&path, &defaults).expect("write");
    assert_eq!(
        succeeds(output("core-daemon", &["-c", &shown, "config", "dump"])),
        defaults,
        "the defaults are a fixed point"
    );

    std::fs::write(&path, "version = 2\n\nno_such_key = 1\n[cri]\nwiring = \"merged\"\n").expect("write");
    let dumped = output("core-daemon", &["-c", &shown, "config", "dump"]);
    assert!(dumped.status.success() && out(&dumped).contains("wiring = \"merged\""), "{dumped:?}");
    let warning = err(&dumped);
    assert!(warning.contains("no_such_key") && warning.contains(&format!("{shown}:3")), "{warning}");

    for (text, line, names) in [
        ("version = 2\nroot = 5\n", 2, "integer `5`"),
        ("[cri]\n\nwiring = \"sideways\"\n", 3, "sideways"),
        ("version = 2\n[cri\n", 2, "config.toml"),
    ] {
        std::fs::write(&path, text).expect("write");
        let complaint = fails(output("core-daemon", &["-c", &shown, "config", "dump"]), &[names]);
        assert!(complaint.contains(&format!("{shown}:{line}")), "file and line {line}: {complaint}");
        fails(output("core-daemon", &["-c", &shown]), &[names]);
        fails(output("cri-daemon", &["-c", &shown]), &[names]);
    }
    fails(output("core-daemon", &["-c", "/no/such/config.toml"]), &["/no/such/config.toml"]);
    for sample in ["config/split.toml", "config/merged.toml"] {
        let sample = deploy(sample).display().to_string();
        let dumped = output("core-daemon", &["-c", &sample, "config", "dump"]);
        assert!(dumped.status.success() && err(&dumped).is_empty(), "{sample}: {}", err(&dumped));
    }
    for program in ["core-daemon", "cri-daemon"] {
        let help = succeeds(output(program, &["--help"]));
        assert!(help.contains("Usage:") && help.contains("--config") && help.lines().count() > 8, "{help}");
    }
}

/// A core without the feature `merged` is a whole core, and says what it can't do.
#[tokio::test(flavor = "multi_thread")]
async fn a_core_without_cri() {
    let plain = binary("core-daemon-plain");
    let mut options = Options::new(Wiring::Split);
    options.core_binary = Some(plain.clone());
    let world = World::start(Wiring::Split, options).await;
    let cri = world.cri();
    load_demo_images(&world);
    world.pull(PAUSE).await;
    let before = world.inventory().await;
    let hello = deploy("examples/hello-pod.yaml").display().to_string();
    assert!(succeeds(cri_daemon(&world, &["run", "--rm", &hello])).contains("Hello from hello"));
    assert_eq!(cri.list_pods(ListPodSandboxRequest::default()).await.len(), 0);
    world.assert_as_before(&before).await;
    drop(world);

    for wiring in [Wiring::Merged, Wiring::Loopback] {
        let mut world = World::prepare(wiring, Options::new(wiring));
        let refused = Command::new(&plain).arg("-c").arg(&world.paths.config).output().expect("run the plain core");
        fails(refused, &[wiring.name(), "merged"]);
        assert!(!world.paths.root.exists(), "it looks before it makes anything");
        world.stop();
    }
}
