//! Ids and names that mean nothing, or more than one thing, on every call that takes one.

use e2e::Wiring;
use e2e::cri::{Answer, image};
use e2e::pod::{ready, sleeper};
use shared_proto::cri::v1::*;
use tonic::Code::{InvalidArgument, NotFound};

use crate::{UNKNOWN, refused};

pub async fn unknown_ids(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "known").await;
    let before = world.inventory().await;
    let id = || UNKNOWN.to_owned();

    // What is asked about, or done, needs the thing.
    let sandbox = cri.try_pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: id(), verbose: false }).await;
    refused("status of a pod", sandbox, NotFound, UNKNOWN);
    let stats = cri.try_pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: id() }).await;
    refused("stats of a pod", stats, NotFound, UNKNOWN);
    let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id: id(), ..Default::default() };
    refused("resources of a pod", cri.try_update_pod_sandbox_resources(request).await, NotFound, UNKNOWN);
    let forward = cri.try_port_forward(PortForwardRequest { pod_sandbox_id: id(), port: vec![80] }).await;
    refused("a port of a pod", forward, NotFound, UNKNOWN);
    let create = cri.try_create(UNKNOWN, &config, &sleeper("main")).await;
    refused("create in a pod", create, NotFound, UNKNOWN);

    refused("status of a container", cri.try_container(UNKNOWN).await, NotFound, UNKNOWN);
    refused("start of a container", cri.try_start(UNKNOWN).await, NotFound, UNKNOWN);
    refused("a command in a container", cri.try_exec_in(UNKNOWN, &["true"], 1).await, NotFound, UNKNOWN);
    let reopen = cri.try_reopen_container_log(ReopenContainerLogRequest { container_id: id() }).await;
    refused("log of a container", reopen, NotFound, UNKNOWN);
    let stats = cri.try_container_stats(ContainerStatsRequest { container_id: id() }).await;
    refused("stats of a container", stats, NotFound, UNKNOWN);
    let request = UpdateContainerResourcesRequest { container_id: id(), ..Default::default() };
    refused("resources of a container", cri.try_update_container_resources(request).await, NotFound, UNKNOWN);
    let exec = ExecRequest { container_id: id(), cmd: vec!["true".into()], stdout: true, ..Default::default() };
    refused("exec in a container", cri.try_exec(exec).await, NotFound, UNKNOWN);
    let attach = AttachRequest { container_id: id(), stdout: true, ..Default::default() };
    refused("attach to a container", cri.try_attach(attach).await, NotFound, UNKNOWN);

    // What is gone counts as stopped and removed.
    cri.try_stop(UNKNOWN, 1).await.expect("stop of a container");
    cri.try_remove(UNKNOWN).await.expect("remove of a container");
    cri.try_stop_pod(UNKNOWN).await.expect("stop of a pod");
    cri.try_remove_pod(UNKNOWN).await.expect("remove of a pod");
    cri.remove_image(RemoveImageRequest { image: Some(image(&format!("sha256:{UNKNOWN}"))) }).await;
    assert!(cri.find_image(&format!("sha256:{UNKNOWN}")).await.is_none());

    // Lists leave out what is not there.
    let filter = ContainerFilter { id: id(), ..Default::default() };
    assert!(cri.list_containers(ListContainersRequest { filter: Some(filter) }).await.containers.is_empty());
    let filter = PodSandboxFilter { id: id(), ..Default::default() };
    assert!(cri.list_pods(ListPodSandboxRequest { filter: Some(filter) }).await.is_empty());
    let filter = ContainerStatsFilter { pod_sandbox_id: id(), ..Default::default() };
    assert!(cri.list_container_stats(ListContainerStatsRequest { filter: Some(filter) }).await.stats.is_empty());
    let filter = PodSandboxStatsFilter { id: id(), ..Default::default() };
    assert!(cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter: Some(filter) }).await.stats.is_empty());
    world.assert_as_before(&before).await;

    // No id at all is the beginning of all of them, and means none.
    refused("status of no container", cri.try_container("").await, NotFound, "empty id");
    refused("start of no container", cri.try_start("").await, NotFound, "empty id");
    let none = cri.try_pod_sandbox_status(PodSandboxStatusRequest::default()).await;
    refused("status of no pod", none, NotFound, "empty id");
    ambiguous(&cri, &pod, &config).await;
    cri.end_pod(&pod).await;
}

/// Of seventeen ids two begin with the same digit.
async fn ambiguous(cri: &e2e::cri::Cri, pod: &str, config: &PodSandboxConfig) {
    let mut ids: Vec<String> = Vec::new();
    let (one, other) = loop {
        let id = cri.create(pod, config, &sleeper(&format!("c{}", ids.len()))).await;
        if let Some(twin) = ids.iter().find(|twin| twin[..1] == id[..1]) {
            break (twin.clone(), id);
        }
        ids.push(id);
    };
    let digit = &one[..1];
    let both = |what: &str, answer: Answer<()>| {
        for id in [digit, &one, &other] {
            refused(what, answer.clone(), InvalidArgument, id);
        }
    };
    both("status of two", cri.try_container(digit).await.map(drop));
    both("start of two", cri.try_start(digit).await);
    both("stop of two", cri.try_stop(digit, 1).await);
    both("remove of two", cri.try_remove(digit).await);
    for id in [&one, &other] {
        assert_eq!(cri.container(id).await.state(), ContainerState::ContainerCreated, "nothing was done to either");
    }
}
