//! One pod from RunPodSandbox to RemovePodSandbox, as a kubelet goes through it.

use std::time::Duration;

use e2e::config::Options;
use e2e::cri::Cri;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{namespaces, script, sleeper};
use e2e::{Wiring, World, eventually, http, logs, world};
use shared_proto::cri::v1::*;

e2e::wirings!(a_pod_lives, containers_share_a_pod, the_host_reaches_a_port, a_host_network_pod, the_node_is_ready);

async fn a_pod_lives(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;

    let config = world.pod("life");
    let pod = cri.run_pod(&config).await;
    let status = cri.pod_status(&pod).await;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, config.metadata);
    assert_eq!(status.labels, config.labels);
    assert_eq!(status.annotations, config.annotations);
    assert!(status.created_at > 0);
    let ip = status.network.expect("network").ip;
    let net = world.slot.subnet().trim_end_matches("0/24").to_owned();
    assert!(ip.starts_with(&net), "{ip} is not in {net}0/24");

    let found = cri.list_pods(by_label("life")).await;
    assert_eq!(found.iter().map(|p| &p.id).collect::<Vec<_>>(), [&pod]);
    assert_eq!(found[0].state(), PodSandboxState::SandboxReady);
    assert!(cri.list_pods(by_label("other")).await.is_empty());

    let spec = script("main", "echo out; echo err >&2; exec sleep 1000");
    let id = cri.create(&pod, &config, &spec).await;
    let status = cri.container(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerCreated);
    assert!(status.created_at > 0 && status.started_at == 0 && status.finished_at == 0, "{status:?}");
    cri.try_start(&id).await.expect("start");
    let status = cri.container(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at, "{status:?}");
    assert_eq!(status.metadata, spec.metadata);
    assert_eq!(status.image.as_ref().expect("image").image, BUSYBOX);
    assert!(status.image_ref.contains("@sha256:"), "image_ref is a repo digest: {status:?}");
    assert_eq!(status.labels, spec.labels);
    let log = world.log("life", "main");
    assert_eq!(status.log_path, log.display().to_string());

    let listed = cri.list_containers(of_pod(&pod)).await.containers;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, id);
    assert_eq!(listed[0].pod_sandbox_id, pod);
    // A unique prefix of an id stands for the id.
    assert_eq!(cri.container(&id[..12]).await.id, id);
    assert_eq!(cri.pod_status(&pod[..12]).await.id, pod);

    eventually("both lines are logged", Duration::from_secs(5), || async {
        let lines = logs::read_live(&log);
        if lines.len() == 2 { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
    let lines = logs::read(&log);
    assert_eq!(logs::text(&lines, "stdout"), "out\n");
    assert_eq!(logs::text(&lines, "stderr"), "err\n");

    // The leak checker must see every kind of thing that a pod is made of, or its silence means nothing.
    let during = world.inventory().await;
    for kind in [
        "process ",
        "mount ",
        "cgroup ",
        "veth ",
        "address ",
        "CNI result ",
        "runc state ",
        "snapshot folder ",
        "FIFO ",
        "shim socket ",
        "container k8s.io/",
        "task k8s.io/",
        "snapshot k8s.io/",
        "CRI pod ",
        "CRI container ",
    ] {
        let new = during.difference(&before).filter(|item| item.starts_with(kind)).count();
        assert!(new > 0, "the inventory shows no {kind:?}: {during:#?}");
    }

    let answer = cri.try_exec_in(&id, &["sh", "-c", "echo hello; echo oops >&2; exit 3"], 10).await.expect("exec");
    assert_eq!((answer.stdout.as_slice(), answer.stderr.as_slice()), (&b"hello\n"[..], &b"oops\n"[..]));
    assert_eq!(answer.exit_code, 3);

    // `sleep` as init ignores SIGTERM, so this takes the whole second and a SIGKILL.
    cri.try_stop(&id, 1).await.expect("stop");
    let status = cri.container(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert!(status.finished_at >= status.started_at);
    cri.try_stop(&id, 1).await.expect("stop again");
    cri.try_remove(&id).await.expect("remove");
    assert_eq!(cri.try_container(&id).await.expect_err("it is gone").code(), tonic::Code::NotFound);
    cri.try_remove(&id).await.expect("remove again");

    cri.try_stop_pod(&pod).await.expect("stop pod");
    let status = cri.pod_status(&pod).await;
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    cri.try_stop_pod(&pod).await.expect("stop pod again");
    cri.try_remove_pod(&pod).await.expect("remove pod");
    cri.try_remove_pod(&pod).await.expect("remove pod again");
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    assert_eq!(cri.try_pod_sandbox_status(request).await.expect_err("it is gone").code(), tonic::Code::NotFound);
    world.assert_as_before(&before).await;
}

/// The defaults that the other suites change: network namespaces in `/run/netns`, no cgroup parent; and the native
/// snapshotter.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_elsewhere() {
    let mut options = Options::new(Wiring::Split);
    options.private_netns = false;
    options.snapshotter = "native";
    let world = World::start(Wiring::Split, options).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let mut config = world.pod("elsewhere");
    config.linux.get_or_insert_default().cgroup_parent = String::new();
    let pod = cri.run_pod(&config).await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    assert_eq!(cri.exec_ok(&id, &["hostname"]).await, "elsewhere\n");
    let during = world.inventory().await;
    for kind in ["netns /run/netns/", "mount /run/netns/", "snapshot folder "] {
        assert!(during.difference(&before).any(|item| item.starts_with(kind)), "no {kind:?}: {during:#?}");
    }
    let cgroups = || e2e::slot::cgroup_roots().into_iter().map(|root| root.join("k8s.io").join(&id));
    assert!(cgroups().any(|dir| dir.exists()), "the container is in /k8s.io");
    cri.end_pod(&pod).await;
    assert!(!cgroups().any(|dir| dir.exists()), "its cgroups are gone");
    world.assert_as_before(&before).await;
}

async fn containers_share_a_pod(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;

    let mut config = world.pod("shared");
    namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod(&config).await;
    let ip = cri.pod_ip(&pod).await;
    let mut server =
        script("server", "mkdir /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www");
    let mut client = sleeper("client");
    for container in [&mut server, &mut client] {
        e2e::pod::security(container).namespace_options.get_or_insert_default().pid = NamespaceMode::Pod.into();
    }
    let server = cri.run(&pod, &config, &server).await;
    let client = cri.run(&pod, &config, &client).await;
    eventually("the page is served", Duration::from_secs(5), || async {
        let answer = cri.try_exec_in(&client, &["wget", "-q", "-O-", "http://127.0.0.1:8080/"], 5).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if answer.stdout == b"page\n" { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(http::get(&ip, 8080, PAGE).await, "page\n", "the host reaches the pod's address");

    let processes = cri.exec_ok(&client, &["ps"]).await;
    assert!(processes.contains("httpd"), "the pod shares its processes: {processes}");
    cri.exec_ok(&server, &["touch", "/dev/shm/seen"]).await;
    assert_eq!(cri.exec_ok(&client, &["ls", "/dev/shm"]).await, "seen\n");
    assert_eq!(cri.exec_ok(&client, &["hostname"]).await, "shared\n");
    assert_eq!(
        cri.exec_ok(&server, &["readlink", "/proc/self/ns/ipc"]).await,
        cri.exec_ok(&client, &["readlink", "/proc/self/ns/ipc"]).await
    );

    // StopPodSandbox ends the containers, RemovePodSandbox removes them.
    cri.try_stop_pod(&pod).await.expect("stop pod");
    for id in [&server, &client] {
        assert_eq!(cri.container(id).await.state(), ContainerState::ContainerExited);
    }
    cri.try_remove_pod(&pod).await.expect("remove pod");
    assert!(cri.list_containers(of_pod(&pod)).await.containers.is_empty());
    world.assert_as_before(&before).await;
}

async fn the_host_reaches_a_port(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let port = world.slot.host_port(0);
    let mut config = world.pod("port");
    config.port_mappings = vec![PortMapping { container_port: 8080, host_port: port.into(), ..Default::default() }];
    let pod = cri.run_pod(&config).await;
    let server =
        script("server", "mkdir /tmp/www; echo mapped >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www");
    cri.run(&pod, &config, &server).await;
    // Loopback is left out by `snat: false`: the gateway's address is one of the host's own.
    let host = world.slot.subnet().replace("0/24", "1");
    assert_eq!(http::get(&host, port, PAGE).await, "mapped\n");
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

async fn a_host_network_pod(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let mut config = world.pod("host");
    config.hostname = String::new();
    let node = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    *namespaces(&mut config) = node.clone();
    let pod = cri.run_pod(&config).await;
    assert_eq!(cri.pod_ip(&pod).await, "", "a pod on the host's network has no address of its own");
    let mut inside = sleeper("inside");
    e2e::pod::security(&mut inside).namespace_options = Some(node);
    let id = cri.run(&pod, &config, &inside).await;
    for kind in ["net", "pid", "ipc"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("our namespace");
        let theirs = cri.exec_ok(&id, &["readlink", &format!("/proc/self/ns/{kind}")]).await;
        assert_eq!(theirs.trim(), ours.display().to_string());
    }
    let hostname = nix::unistd::gethostname().expect("hostname").into_string().expect("a printable hostname");
    assert_eq!(cri.exec_ok(&id, &["hostname"]).await.trim(), hostname);
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

async fn the_node_is_ready(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    let version = cri.version().await.expect("Version");
    assert_eq!(version.version, "0.1.0");
    assert_eq!(version.runtime_api_version, "v1");
    assert!(!version.runtime_name.is_empty());
    assert!(version.runtime_version.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{version:?}");
    let status = cri.status(StatusRequest { verbose: true }).await;
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let conditions = &status.status.as_ref().expect("status").conditions;
        let condition = conditions.iter().find(|c| c.r#type == wanted).unwrap_or_else(|| panic!("no {wanted}"));
        assert!(condition.status, "{condition:?}");
    }
    if e2e::world::peer().is_some() {
        return; // Debian's containerd is older than the rest.
    }
    let seam: serde_json::Value = serde_json::from_str(&status.info["seam"]).expect("info[seam] is JSON");
    assert_eq!(seam["wiring"], wiring.name());
    let driver = cri.runtime_config(RuntimeConfigRequest::default()).await.linux.expect("linux").cgroup_driver();
    assert_eq!(driver, CgroupDriver::Cgroupfs);
    let handlers: Vec<String> = status.runtime_handlers.iter().map(|h| h.name.clone()).collect();
    assert!(handlers.contains(&String::new()) && handlers.contains(&"runc".to_owned()), "{handlers:?}");
    let filesystems = cri.image_fs_info(ImageFsInfoRequest::default()).await.image_filesystems;
    let mountpoint = filesystems[0].fs_id.as_ref().expect("fs_id").mountpoint.clone();
    assert!(std::path::Path::new(&mountpoint).is_dir(), "{mountpoint} is no folder");
    cri.update_runtime_config(UpdateRuntimeConfigRequest {
        runtime_config: Some(RuntimeConfig { network_config: Some(NetworkConfig { pod_cidr: "10.9.0.0/24".into() }) }),
    })
    .await;
    let later = CheckpointContainerRequest { container_id: "x".into(), ..Default::default() };
    assert_eq!(
        cri.try_checkpoint_container(later).await.expect_err("not offered yet").code(),
        tonic::Code::Unimplemented
    );
    network_lost_and_found(&world, &cri).await;
}

/// Without a CNI configuration the node is not ready, and pods fail; it comes back without a restart.
async fn network_lost_and_found(world: &World, cri: &Cri) {
    let conf = world.paths.dir.join("cni/10-seam.conflist");
    let aside = world.paths.dir.join("aside");
    std::fs::rename(&conf, &aside).expect("take the network away");
    network_is(cri, false).await;
    std::fs::rename(&aside, &conf).expect("bring the network back");
    network_is(cri, true).await;
}

async fn network_is(cri: &Cri, wanted: bool) {
    eventually(format!("NetworkReady is {wanted}"), Duration::from_secs(10), || async {
        let status = cri.status(StatusRequest::default()).await.status.expect("status");
        let ready = status.conditions.iter().find(|c| c.r#type == "NetworkReady").expect("NetworkReady");
        if ready.status == wanted { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

/// How long a page may take to be there.
const PAGE: Duration = Duration::from_secs(5);

fn by_label(app: &str) -> ListPodSandboxRequest {
    let filter = PodSandboxFilter { label_selector: [("app".to_owned(), app.to_owned())].into(), ..Default::default() };
    ListPodSandboxRequest { filter: Some(filter) }
}

fn of_pod(pod: &str) -> ListContainersRequest {
    let filter = ContainerFilter { pod_sandbox_id: pod.into(), ..Default::default() };
    ListContainersRequest { filter: Some(filter) }
}
