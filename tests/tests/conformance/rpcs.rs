//! Every RPC of CRI, from its first use to its second, which must do no harm.
//!
//! Exec, Attach, PortForward, stats, metrics and UpdateContainerResources have suites of their own.

use std::time::Duration;

use e2e::Wiring;
use e2e::cases::Cases;
use e2e::cri::image;
use e2e::fixtures::{BUSYBOX, DOCKER, PAUSE};
use e2e::pod::{script, sleeper};
use e2e::world::peer;
use shared_proto::cri::v1::*;
use tonic::Code;

pub async fn runtime_service(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "runtime-service", &[]).await;
    about_the_runtime(&mut cases).await;
    sandboxes(&mut cases).await;
    containers(&mut cases).await;
    commands_and_logs(&mut cases).await;
    events(&mut cases).await;
    cases.end().await;
}

async fn about_the_runtime(cases: &mut Cases) {
    cases.case("Version");
    let version = cases.cri.version().await.expect("version");
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty(), "{version:?}");
    cases.case("Status");
    let status = cases.cri.status(StatusRequest { verbose: true }).await;
    let conditions = status.status.expect("a status").conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        assert!(conditions.iter().any(|c| c.r#type == kind && c.status), "{kind}: {conditions:?}");
    }
    assert!(status.info.contains_key("config"), "{:?}", status.info.keys());
    cases.case("UpdateRuntimeConfig");
    let network = Some(NetworkConfig { pod_cidr: "10.1.2.0/24".into() });
    let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config: network }) };
    cases.cri.update_runtime_config(request).await;
    if !cases.peer_lacks("RuntimeConfig", "1.6 has no such call") {
        cases.case("RuntimeConfig");
        let config = cases.cri.runtime_config(RuntimeConfigRequest {}).await.linux.expect("a driver");
        assert_eq!(config.cgroup_driver(), CgroupDriver::Cgroupfs);
    }
}

async fn sandboxes(cases: &mut Cases) {
    cases.case("RunPodSandbox");
    let config = cases.world.pod("second");
    let id = cases.cri.run_pod(&config).await;
    assert_eq!(id.len(), 64, "{id}");
    if peer().is_none() {
        assert_eq!(cases.cri.run_pod(&config).await, id, "the same request once more has the same answer");
    }
    cases.case("PodSandboxStatus");
    let status = cases.cri.pod_status(&id[..12]).await;
    assert_eq!((status.id.as_str(), status.state()), (id.as_str(), PodSandboxState::SandboxReady), "by prefix as well");
    cases.case("ListPodSandbox");
    let cri = cases.cri.clone();
    let list = async |filter: Option<PodSandboxFilter>| {
        let found = cri.list_pods(ListPodSandboxRequest { filter }).await;
        let mut ids: Vec<_> = found.into_iter().map(|pod| pod.id).collect();
        ids.sort();
        ids
    };
    let mut both = vec![cases.pod.clone(), id.clone()];
    both.sort();
    assert_eq!(list(None).await, both);
    let by = |id: &str, state: Option<PodSandboxState>, app: &str| {
        let label_selector = if app.is_empty() { Default::default() } else { [("app".into(), app.into())].into() };
        let state = state.map(|state| PodSandboxStateValue { state: state.into() });
        Some(PodSandboxFilter { id: id.into(), state, label_selector })
    };
    assert_eq!(list(by(&id, None, "")).await, std::slice::from_ref(&id));
    assert_eq!(list(by("", None, "second")).await, std::slice::from_ref(&id));
    assert_eq!(list(by("", Some(PodSandboxState::SandboxReady), "")).await, both);
    update_sandbox(cases, &id).await;
    cases.cri.try_stop_pod(&id).await.expect("stop");
    cases.cri.try_stop_pod(&id).await.expect("stop once more");
    assert_eq!(list(by("", Some(PodSandboxState::SandboxNotready), "")).await, std::slice::from_ref(&id));
    assert!(list(by(&id, Some(PodSandboxState::SandboxReady), "second")).await.is_empty());
    cases.case("StopPodSandbox");
    assert_eq!(cases.cri.pod_status(&id).await.state(), PodSandboxState::SandboxNotready);
    cases.case("RemovePodSandbox");
    cases.cri.try_remove_pod(&id).await.expect("remove");
    cases.cri.try_remove_pod(&id).await.expect("remove once more");
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    let gone = cases.cri.try_pod_sandbox_status(request).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(list(None).await, std::slice::from_ref(&cases.pod));
}

async fn update_sandbox(cases: &mut Cases, id: &str) {
    if cases.peer_lacks("UpdatePodSandboxResources", "1.6 has no such call") {
        return;
    }
    cases.case("UpdatePodSandboxResources");
    let resources = Some(LinuxContainerResources { cpu_shares: 333, ..Default::default() });
    let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id: id.into(), resources, ..Default::default() };
    cases.cri.update_pod_sandbox_resources(request.clone()).await;
    cases.cri.update_pod_sandbox_resources(request).await;
    assert_eq!(cases.pod_info(id).await["resources"]["cpu_shares"], 333);
}

async fn containers(cases: &mut Cases) {
    let cri = cases.cri.clone();
    cases.case("CreateContainer");
    let id = cri.create(&cases.pod, &cases.config, &sleeper("life")).await;
    assert_eq!(id.len(), 64, "{id}");
    cases.case("ContainerStatus");
    let status = cri.container(&id[..12]).await;
    assert_eq!((status.id.as_str(), status.state()), (id.as_str(), ContainerState::ContainerCreated));
    assert!(status.created_at > 0 && status.started_at == 0 && status.finished_at == 0, "{status:?}");
    cases.case("StartContainer");
    cri.try_start(&id).await.expect("start");
    let status = cri.container(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at && status.finished_at == 0, "{status:?}");
    cri.try_start(&id).await.expect_err("it runs already");
    cases.case("ListContainers");
    let list = async |state: ContainerState, pod: &str| {
        let filter = ContainerFilter {
            state: Some(ContainerStateValue { state: state.into() }),
            pod_sandbox_id: pod.into(),
            ..Default::default()
        };
        let request = ListContainersRequest { filter: Some(filter) };
        cri.list_containers(request).await.containers.into_iter().map(|c| c.id).collect::<Vec<_>>()
    };
    assert_eq!(list(ContainerState::ContainerRunning, &cases.pod).await, std::slice::from_ref(&id));
    assert!(list(ContainerState::ContainerExited, &cases.pod).await.is_empty());
    assert!(list(ContainerState::ContainerRunning, "no-such-pod").await.is_empty());
    cases.case("StopContainer");
    cri.try_stop(&id, 10).await.expect("stop");
    cri.try_stop(&id, 10).await.expect("stop once more");
    let status = cri.container(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(status.finished_at > 0, "{status:?}");
    cases.case("RemoveContainer");
    cri.try_remove(&id).await.expect("remove");
    cri.try_remove(&id).await.expect("remove once more");
    assert_eq!(cri.try_container(&id).await.expect_err("it is gone").code(), Code::NotFound);
}

async fn commands_and_logs(cases: &mut Cases) {
    let cri = cases.cri.clone();
    cases.case("ExecSync");
    let id = cri.run(&cases.pod, &cases.config, &script("ticks", "while :; do echo tick; usleep 50000; done")).await;
    let answer = cri.try_exec_in(&id, &["sh", "-c", "echo out; echo err >&2; exit 3"], 10).await.expect("exec");
    assert_eq!((answer.stdout, answer.stderr, answer.exit_code), (b"out\n".to_vec(), b"err\n".to_vec(), 3));
    let late = cri.try_exec_in(&id, &["sleep", "100"], 1).await.expect_err("too slow");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    cases.case("ReopenContainerLog");
    let log = cases.world.log("runtime-service", "ticks");
    let rotated = log.with_extension("old");
    std::fs::rename(&log, &rotated).expect("rotate");
    cri.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await;
    e2e::eventually("the log goes on in a new file", Duration::from_secs(5), || async {
        let lines = if log.exists() { e2e::logs::read_live(&log).len() } else { 0 };
        if lines > 2 { Ok(()) } else { Err(format!("{lines} lines")) }
    })
    .await;
    cri.try_stop(&id, 0).await.expect("stop");
    let request = ReopenContainerLogRequest { container_id: id.clone() };
    cri.try_reopen_container_log(request).await.expect_err("it does not run");
    cri.try_remove(&id).await.expect("remove");
}

/// A container's life, as it is told: `tests/events.rs` has the rest.
async fn events(cases: &mut Cases) {
    if cases.peer_lacks("GetContainerEvents", "1.6 has no such call") {
        return;
    }
    cases.case("GetContainerEvents");
    let cri = cases.cri.clone();
    let mut events = cri.runtime().get_container_events(GetEventsRequest {}).await.expect("follow").into_inner();
    let id = cri.run(&cases.pod, &cases.config, &sleeper("followed")).await;
    cri.try_stop(&id, 10).await.expect("stop");
    cri.try_remove(&id).await.expect("remove");
    let mut told = Vec::new();
    while told.last() != Some(&ContainerEventType::ContainerDeletedEvent) {
        let next = tokio::time::timeout(Duration::from_secs(20), events.message()).await.expect("in time");
        let event = next.expect("no error").expect("no end");
        // Those of before come first.
        if event.container_id == id {
            assert_eq!(event.pod_sandbox_status.as_ref().map(|pod| &pod.id), Some(&cases.pod), "{event:?}");
            told.push(event.container_event_type());
        }
    }
    let names: Vec<_> = told.iter().map(|kind| kind.as_str_name()).collect();
    let expected = ["CREATED", "STARTED", "STOPPED", "DELETED"].map(|kind| format!("CONTAINER_{kind}_EVENT"));
    assert_eq!(names, expected);
}

pub async fn image_service(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "image-service", &[]).await;
    let cri = cases.cri.clone();
    cases.case("PullImage");
    let id = cri.pull(DOCKER).await;
    assert_eq!(cri.pull(DOCKER).await, id, "once more");
    let absent = PullImageRequest { image: Some(image("registry.k8s.io/no/such:1")), ..Default::default() };
    cri.try_pull_image(absent).await.expect_err("the registry has no such image");
    cases.case("ImageStatus");
    let found = cri.find_image(DOCKER).await.expect("it was pulled");
    assert_eq!((found.id.as_str(), found.repo_tags.as_slice()), (id.as_str(), &[DOCKER.to_owned()][..]));
    assert!(found.size > 0 && found.repo_digests.len() == 1, "{found:?}");
    assert_eq!(cri.find_image(&id).await.expect("by its id").id, id);
    assert!(cri.find_image("registry.k8s.io/no/such:1").await.is_none(), "no error");
    cases.case("ListImages");
    let list = cri.list_images(ListImagesRequest::default()).await.images;
    for reference in [PAUSE, BUSYBOX, DOCKER] {
        assert_eq!(list.iter().filter(|i| i.repo_tags.iter().any(|tag| tag == reference)).count(), 1, "{list:?}");
    }
    cases.case("ImageFsInfo");
    let info = cri.image_fs_info(ImageFsInfoRequest {}).await;
    let filesystem = info.image_filesystems.first().expect("one, always");
    let mount_point = &filesystem.fs_id.as_ref().expect("an id").mountpoint;
    assert!(std::path::Path::new(mount_point).is_dir(), "{mount_point}");
    cases.case("RemoveImage");
    cri.remove_image(RemoveImageRequest { image: Some(image(&id)) }).await;
    cri.remove_image(RemoveImageRequest { image: Some(image(&id)) }).await;
    assert!(cri.find_image(DOCKER).await.is_none());
    cases.end().await;
}

/// What comes later is refused by its name.
pub async fn not_offered(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "not-offered", &[]).await;
    if !cases.peer_lacks("CheckpointContainer", "1.6 has no such call") {
        cases.case("CheckpointContainer");
        let id = cases.cri.run(&cases.pod, &cases.config, &sleeper("main")).await;
        let request = CheckpointContainerRequest { container_id: id, location: "/tmp/x".into(), timeout: 1 };
        let status = cases.cri.try_checkpoint_container(request).await.expect_err("not offered");
        assert!(status.code() == Code::Unimplemented && status.message().contains("CheckpointContainer"), "{status:?}");
    }
    cases.end().await;
}
