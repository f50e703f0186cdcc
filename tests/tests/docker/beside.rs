//! Pods in `k8s.io` and Docker's containers in `moby` on one core: neither sees or harms the other's.

use std::time::Duration;

use e2e::Wiring;
use e2e::cri::Cri;
use e2e::docker::{Docker, IMAGE};
use e2e::fixtures::{BUSYBOX, PAUSE, fixtures};
use e2e::kubelet::{self, Kubelet};
use e2e::pod::sleeper;
use serde_json::json;
use shared_proto::cri::v1::*;

use crate::Node;

e2e::wirings!(pods_live_beside_containers);

/// The same with a real kubelet; see the suite `kubelet` for how these are run.
mod a_kubelets_pods_live_beside_containers {
    use e2e::Wiring;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a kubelet: make test-kubelet"]
    async fn split() {
        super::a_kubelets_pods_live_beside_containers(Wiring::Split).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a kubelet: make test-kubelet"]
    async fn loopback() {
        super::a_kubelets_pods_live_beside_containers(Wiring::Loopback).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a kubelet: make test-kubelet"]
    async fn merged() {
        super::a_kubelets_pods_live_beside_containers(Wiring::Merged).await;
    }
}

async fn pods_live_beside_containers(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let (world, docker, cri) = (&node.world, &node.docker, node.world.cri());
    let mine = docker.docker(&["run", "-d", "--name", "mine", IMAGE, "sleep", "1000"]);
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let config = world.pod("pod");
    let pod = cri.run_pod(&config).await;
    let container = cri.run(&pod, &config, &sleeper("main")).await;

    let names = world.ctr(&["namespaces", "ls", "-q"]);
    assert!(["k8s.io", "moby"].iter().all(|name| names.lines().any(|line| line == *name)), "{names}");
    let of = |ns: &str, what: &str| {
        let mut all: Vec<String> = world.ctr(&["-n", ns, what, "ls", "-q"]).lines().map(str::to_owned).collect();
        all.sort();
        all
    };
    let mut pods = vec![pod.clone(), container.clone()];
    pods.sort();
    for what in ["containers", "tasks"] {
        assert_eq!(of("moby", what), std::slice::from_ref(&mine), "{what}");
        assert_eq!(of("k8s.io", what), pods, "{what}");
    }
    assert_eq!(of("moby", "images"), Vec::<String>::new(), "Docker keeps images itself");
    assert_eq!(docker.docker(&["ps", "--all", "--quiet", "--no-trunc"]), mine);

    the_pods_side_harms_nothing(&cri, docker, &mine).await;
    dockers_side_harms_nothing(docker, &container);
    for (ns, id) in [("k8s.io", &mine), ("moby", &container), ("default", &mine)] {
        for args in [&["tasks", "kill", "-s", "KILL"][..], &["tasks", "rm", "-f"], &["containers", "rm"]] {
            let mut all = vec!["-n", ns];
            all.extend(args);
            all.push(id);
            let done = world.try_ctr(&all);
            let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
            assert!(said.contains("not found"), "ctr {all:?}: {said}");
        }
    }
    docker.docker(&["system", "prune", "--all", "--force", "--volumes"]);
    docker.docker(&["exec", "mine", "true"]);
    cri.exec_ok(&container, &["true"]).await;
    assert!(cri.list_images(Default::default()).await.images.len() >= 2, "a prune of Docker's is Docker's");

    // The same names and the same content once more on the other side, and each goes by itself.
    let again = docker.docker(&["run", "-d", "--name", "pod", IMAGE, "sleep", "1000"]);
    cri.end_pod(&pod).await;
    remove_images(&cri).await;
    docker.docker(&["exec", &again, "true"]);
    assert_eq!(docker.inspect(IMAGE, ".Id"), fixtures().busybox.id());
    let (_, err) = docker.ends(1, &["inspect", &container]);
    assert!(err.contains("No such object"), "{err}");
    node.end().await;
}

async fn remove_images(cri: &Cri) {
    for reference in [BUSYBOX, PAUSE] {
        cri.remove_image(RemoveImageRequest { image: Some(e2e::cri::image(reference)) }).await;
    }
}

async fn the_pods_side_harms_nothing(cri: &Cri, docker: &Docker, mine: &str) {
    let listed = cri.list_containers(ListContainersRequest::default()).await.containers;
    assert!(listed.iter().all(|container| container.id != mine));
    let status = ContainerStatusRequest { container_id: mine.into(), verbose: false };
    assert_eq!(cri.try_container_status(status).await.expect_err("it is no pod's").code(), tonic::Code::NotFound);
    let exec = ExecSyncRequest { container_id: mine.into(), cmd: vec!["true".into()], timeout: 5 };
    cri.try_exec_sync(exec).await.expect_err("it is no pod's");
    // What is not there is stopped and removed already.
    let _ = cri.try_stop_container(StopContainerRequest { container_id: mine.into(), timeout: 0 }).await;
    let _ = cri.try_remove_container(RemoveContainerRequest { container_id: mine.into() }).await;
    let _ = cri.try_stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: mine.into() }).await;
    let _ = cri.try_remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: mine.into() }).await;
    assert_eq!(docker.inspect(mine, ".State.Status"), "running");
    docker.docker(&["exec", mine, "true"]);
}

fn dockers_side_harms_nothing(docker: &Docker, container: &str) {
    for command in ["stop", "kill", "rm", "inspect", "pause", "top"] {
        let (_, err) = docker.ends(1, &[command, container]);
        assert!(err.contains("No such"), "docker {command}: {err}");
    }
}

/// The core is killed under both, too: each finds its own again.
async fn a_kubelets_pods_live_beside_containers(wiring: Wiring) {
    let Some(mut node) = Node::start(wiring).await else { return };
    for reference in [PAUSE, BUSYBOX] {
        node.world.pull(reference).await;
    }
    let kubelet = Kubelet::start(&node.world, &[]).await;
    let forever = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
    let container = json!({
        "name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", forever],
    });
    kubelet.add("pod", json!({"containers": [container], "terminationGracePeriodSeconds": 2}));
    let mine = node.docker.docker(&["run", "-d", "--restart", "always", IMAGE, "sleep", "1000"]);
    let main = || async {
        kubelet.ready("pod").await;
        let pod = kubelet.pod("pod").await.expect("it is there");
        kubelet::container(&pod["status"], "main").expect("it has one container")
    };
    let before = main().await;
    let pid = node.docker.inspect(&mine, ".State.Pid");

    node.world.kill_core();
    node.world.run().await;
    let docker = &node.docker;
    e2e::eventually("dockerd comes back", Duration::from_secs(10), || async {
        let output = docker.try_docker(&["exec", &mine, "true"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    docker.docker(&["system", "prune", "--all", "--force", "--volumes"]);
    // Two rounds of the kubelet's, in which it looks for pods that are not its own.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(docker.inspect(&mine, ".State.Status .State.Pid .RestartCount"), format!("running {pid} 0"));
    let after = main().await;
    assert_eq!((after.id, after.restarts), (before.id, 0), "the same container");
    assert_eq!(kubelet.pods().await.len(), 1);
    assert_eq!(docker.docker(&["ps", "--all", "--quiet", "--no-trunc"]), mine);

    // The kubelet collects what has ended once a minute; its pods are removed for it instead.
    kubelet.remove_all();
    let cri = node.world.cri();
    e2e::eventually("the pod has ended", Duration::from_secs(30), || async {
        let pods = cri.list_pods(Default::default()).await;
        let ready = pods.iter().filter(|pod| pod.state() == PodSandboxState::SandboxReady).count();
        if ready == 0 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
    docker.docker(&["exec", &mine, "true"]);
    kubelet.end(&node.world);
    for pod in cri.list_pods(Default::default()).await {
        cri.end_pod(&pod.id).await;
    }
    remove_images(&cri).await;
    node.end().await;
}
