//! Pods in `k8s.io` and Docker's containers in `moby` on one core: neither sees or harms the other's.

use e2e::Wiring;
use e2e::cri::Cri;
use e2e::docker::{Docker, IMAGE};
use e2e::fixtures::{BUSYBOX, PAUSE, fixtures};
use e2e::pod::sleeper;
use shared_proto::cri::v1::*;

use crate::Node;

e2e::wirings!(pods_live_beside_containers);

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
        assert_eq!(of("moby", what), [mine.clone()], "{what}");
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
    for reference in [BUSYBOX, PAUSE] {
        cri.remove_image(RemoveImageRequest { image: Some(e2e::cri::image(reference)) }).await;
    }
    docker.docker(&["exec", &again, "true"]);
    assert_eq!(docker.inspect(IMAGE, ".Id"), fixtures().busybox.id());
    let (_, err) = docker.ends(1, &["inspect", &container]);
    assert!(err.contains("No such object"), "{err}");
    node.end().await;
}

async fn the_pods_side_harms_nothing(cri: &Cri, docker: &Docker, mine: &str) {
    for all in [ListContainersRequest::default()] {
        assert!(cri.list_containers(all).await.containers.iter().all(|c| c.id != mine));
    }
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
