//! What a daemon finds broken: files and records that were damaged while it was away, and a core that is away itself.
//! One bad thing delays or hides no other; what can't be read can still be removed.

use std::time::Duration;

use e2e::Wiring;
use e2e::cri::Answer;
use e2e::fixtures::DOCKER;
use e2e::pod::{ready, script, sleeper};
use shared_proto::containerd::containers as c;
use shared_proto::cri::v1::*;
use shared_proto::{Context, any};
use tonic::Code::{FailedPrecondition, Unavailable};

use crate::refused;

pub async fn damaged_files(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "sound").await;
    let before = world.inventory().await;
    let sound = cri.run(&pod, &config, &sleeper("sound")).await;
    let statusless = cri.run(&pod, &config, &sleeper("statusless")).await;
    let ended = cri.run(&pod, &config, &script("ended", "exit 5")).await;
    cri.exited(&ended).await;
    let created = cri.create(&pod, &config, &sleeper("created")).await;
    let recordless = cri.run(&pod, &config, &sleeper("recordless")).await;
    let other_config = world.pod("other");
    let other = cri.run_pod(&other_config).await;
    let inside = cri.run(&other, &other_config, &sleeper("inside")).await;

    // CRI's own files, and the records that it keeps in the core.
    let cx = Context::new("k8s.io");
    for (id, kind) in [(&recordless, "container"), (&other, "sandbox")] {
        let key = format!("io.cri-containerd.{kind}.metadata");
        let url = format!("github.com/containerd/cri/pkg/store/{kind}/Metadata");
        let mut container = c::Container { id: id.clone(), ..Default::default() };
        container.extensions.insert(key.clone(), any::raw(&url, b"{ no JSON".to_vec()));
        let update_mask = Some(prost_types::FieldMask { paths: vec![format!("extensions.{key}")] });
        let request = c::UpdateContainerRequest { container: Some(container), update_mask };
        world.core().containers.update(&cx, request).await.expect("damage a record");
    }
    world.stop();
    let status = |id: &str| world.paths.root.join("io.containerd.grpc.v1.cri/containers").join(id).join("status");
    for id in [&statusless, &ended, &created] {
        assert!(status(id).exists(), "{}", status(id).display());
        std::fs::write(status(id), "{ no JSON").expect("damage a status");
    }
    world.run().await;

    // What the core and the shim know is not lost with a file.
    for (id, state) in [
        (&sound, ContainerState::ContainerRunning),
        (&statusless, ContainerState::ContainerRunning),
        (&inside, ContainerState::ContainerRunning),
        (&recordless, ContainerState::ContainerUnknown),
    ] {
        assert_eq!(cri.container(id).await.state(), state, "{:?}", cri.container(id).await);
    }
    assert_eq!(cri.exec_ok(&statusless, &["echo", "here"]).await, "here\n");
    assert_eq!(cri.pod_status(&pod).await.state(), PodSandboxState::SandboxReady);
    assert_eq!(cri.pod_status(&other).await.state(), PodSandboxState::SandboxNotready);
    // How it ended nobody knows any more, and nobody makes it up; one that never ran may run yet.
    assert_eq!(cri.container(&created).await.state(), ContainerState::ContainerCreated);
    cri.try_start(&created).await.expect("start");
    assert_ne!(cri.container(&ended).await.state(), ContainerState::ContainerRunning);

    // In an unknown state nothing is done but stopping and removing.
    refused("start", cri.try_start(&recordless).await, FailedPrecondition, &recordless);
    refused("a command", cri.try_exec_in(&recordless, &["true"], 1).await, FailedPrecondition, &recordless);
    let attach = AttachRequest { container_id: recordless.clone(), stdout: true, ..Default::default() };
    refused("attach", cri.try_attach(attach).await, FailedPrecondition, &recordless);
    let create = cri.try_create(&other, &other_config, &sleeper("more")).await;
    refused("create in a pod without a record", create, FailedPrecondition, &other);
    let listed = cri.list_pods(ListPodSandboxRequest::default()).await;
    assert!(listed.iter().any(|listed| listed.id == other), "a kubelet must see it to remove it");
    cri.try_stop(&recordless, 1).await.expect("stop");
    for id in [&sound, &statusless, &ended, &created, &recordless] {
        cri.try_remove(id).await.unwrap_or_else(|e| panic!("remove {id}: {e:?}"));
    }
    cri.end_pod(&other).await;
    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

/// How long a call may take that can't succeed.
const LIMIT: Duration = Duration::from_secs(110);

async fn in_time<T>(call: impl Future<Output = Answer<T>>) -> Answer<T> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or_else(|_| panic!("no answer in {LIMIT:?}"))
}

/// Only in two processes can one be away without the other.
pub async fn the_core_is_away(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "alone").await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    cri.asleep(&id).await;
    let created = cri.create(&pod, &config, &sleeper("created")).await;
    let before = world.inventory().await;
    if wiring != Wiring::Split {
        world.kill_core();
        // The client says so itself.
        cri.try_status(StatusRequest::default()).await.expect_err("nobody is there");
        world.run().await;
        world.assert_as_before(&before).await;
        cri.end_pod(&pod).await;
        return;
    }
    world.kill_core();
    let pull = PullImageRequest { image: Some(e2e::cri::image(DOCKER)), ..Default::default() };
    let late = world.pod("late");
    let (run, exec, pull) = tokio::join!(
        in_time(cri.try_run_pod(&late)),
        in_time(cri.try_exec_in(&id, &["true"], 5)),
        in_time(cri.try_pull_image(pull)),
    );
    let socket = world.paths.core_socket.display().to_string();
    for (what, answer, names) in [
        ("a pod", run.map(drop), "late_e2e_uid-late_0"),
        ("a command", exec.map(drop), &id),
        ("a pull", pull.map(drop), DOCKER),
    ] {
        refused(what, answer.clone(), Unavailable, names);
        refused(what, answer, Unavailable, &socket);
    }
    let conditions = cri.status(StatusRequest::default()).await.status.expect("status").conditions;
    let runtime = conditions.into_iter().find(|c| c.r#type == "RuntimeReady").expect("RuntimeReady");
    assert!(!runtime.status && runtime.message.contains(&socket), "{runtime:?}");
    // What is known is still told, and nothing that runs is said to have ended.
    assert_eq!(cri.container(&id).await.state(), ContainerState::ContainerRunning);
    assert_eq!(cri.container(&created).await.state(), ContainerState::ContainerCreated);
    assert_eq!(cri.pod_status(&pod).await.state(), PodSandboxState::SandboxReady);
    world.run().await;
    // What could not be cleaned up without the core is listed, for a kubelet to remove.
    for listed in cri.list_pods(ListPodSandboxRequest::default()).await {
        if listed.id != pod {
            assert_eq!(listed.state(), PodSandboxState::SandboxNotready, "{listed:?}");
            cri.end_pod(&listed.id).await;
        }
    }
    world.assert_as_before(&before).await;
    cri.try_start(&created).await.expect("start");
    cri.end_pod(&pod).await;
}
