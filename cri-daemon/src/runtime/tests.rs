//! Whole lives of pods over a core in memory: what the kubelet is told, and that nothing is left.

use std::time::Duration;

use shared_proto::containerd::events;
use shared_proto::containerd::events_service::PublishRequest;
use shared_proto::cri::v1::{self, ContainerState, PodSandboxState};
use shared_proto::seam::v1 as seam;
use shared_proto::{Code, Context};

use crate::NAMESPACE;
use crate::testing::{World, container, fifos, pod};

#[tokio::test]
async fn a_pod_lives_and_leaves_nothing() {
    let world = World::new().await;
    let id = world.run("web").await.unwrap();
    assert_eq!(id.len(), 64);
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id[..10].into(), verbose: true };
    let answer = world.cri.pod_sandbox_status(request).await.unwrap();
    let status = answer.status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.network.unwrap().ip, "10.9.0.2");
    let stages: Vec<serde_json::Value> = serde_json::from_str(&answer.info["timeline"]).unwrap();
    let names: Vec<_> = stages.iter().filter_map(|s| s["stage"].as_str()).collect();
    for stage in ["record", "netns", "cni", "files", "snapshot", "task-create", "task-start", "RunPodSandbox"] {
        assert!(names.contains(&stage), "{stage} in {names:?}");
    }

    let container = world.create(&id, "main").await.unwrap();
    assert_eq!(world.status(&container).await.state(), ContainerState::ContainerCreated);
    world.start(&container).await.unwrap();
    let status = world.status(&container).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at && status.finished_at == 0);
    assert_eq!(status.image.unwrap().image, "docker.io/library/app:1");

    world.remove_pod(&id).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
    assert_eq!(world.plugin_calls(), ["ADD", "DEL"]);
    world.remove_pod(&id).await.unwrap();
}

/// The stages of a pod's request at `at`, as `why` is told them: name, detail, whether it is under way.
async fn stages(world: &World, pod: &str, at: usize) -> Vec<(String, String, bool)> {
    let answer = world.cri.explain(seam::ExplainRequest { pod: pod.into() }).await.unwrap();
    answer.requests[at].stages.iter().map(|s| (s.name.clone(), s.detail.clone(), s.running)).collect()
}

#[tokio::test]
async fn a_start_is_explained_while_it_lasts_and_after_it_has_failed() {
    let world = World::new().await;
    world.plugin("hold", true);
    let cri = world.cri.clone();
    let request = v1::RunPodSandboxRequest { config: Some(pod("web")), runtime_handler: String::new() };
    let run = tokio::spawn(async move { cri.run_pod_sandbox(request).await });
    let plugin = |running| ("cni-plugin".to_owned(), "test/script".to_owned(), running);
    let mut tries = 0;
    while world.cri.explain(seam::ExplainRequest { pod: "n/web".into() }).await.is_err()
        || !stages(&world, "n/web", 0).await.contains(&plugin(true))
        || !stages(&world, "n/web", 0).await.iter().any(|(name, _, running)| name == "Tasks.create" && !running)
    {
        tries += 1;
        assert!(tries < 500, "{:?}", stages(&world, "n/web", 0).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = world.cri.explain(seam::ExplainRequest { pod: "web".into() }).await.unwrap();
    assert_eq!((answer.state.as_str(), answer.requests[0].running), ("being created", true));

    world.plugin("fail", true);
    world.plugin("hold", false);
    run.await.unwrap().unwrap_err();
    let answer = world.cri.explain(seam::ExplainRequest { pod: answer.id[..12].into() }).await.unwrap();
    assert_eq!((answer.state.as_str(), answer.requests[0].running), ("failed", false));
    assert!(answer.requests[0].error.contains("no address left"), "{:?}", answer.requests[0].error);
    let all = stages(&world, &answer.id, 0).await;
    assert!(all.contains(&plugin(false)) && all.iter().all(|(.., running)| !running), "{all:?}");
    assert!(all.contains(&("cni-plugin".into(), "test/script DEL".into(), false)), "what was taken back: {all:?}");

    // The next try is another start, which is meant from now on; the pod's containers belong to it.
    world.plugin("fail", false);
    let id = world.run("web").await.unwrap();
    let container = world.create(&id, "main").await.unwrap();
    world.start(&container).await.unwrap();
    let now = world.cri.explain(seam::ExplainRequest { pod: "n/web".into() }).await.unwrap();
    assert_eq!((&now.id, now.state.as_str(), now.other_tries), (&id, "ready", vec![answer.id]));
    let rpcs: Vec<_> = now.requests.iter().map(|r| (r.rpc.as_str(), r.subject.as_str())).collect();
    assert_eq!(rpcs, [("RunPodSandbox", ""), ("CreateContainer", "main"), ("StartContainer", "main")]);
    world.remove_pod(&id).await.unwrap();
    let gone = world.cri.explain(seam::ExplainRequest { pod: id.clone() }).await.unwrap();
    assert_eq!((gone.state.as_str(), gone.requests.len()), ("removed", 3));
}

#[tokio::test]
async fn the_same_request_again_is_the_same_pod() {
    let world = World::new().await;
    let id = world.run("web").await.unwrap();
    assert_eq!(world.run("web").await.unwrap(), id);
    let mut other = pod("web");
    other.hostname = "another".into();
    let request = v1::RunPodSandboxRequest { config: Some(other), runtime_handler: String::new() };
    let e = world.cri.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(e.code, Code::AlreadyExists);
    assert!(e.message.contains(&id) && e.message.contains("web_n_u_0"), "{e}");

    let container = world.create(&id, "main").await.unwrap();
    assert_eq!(world.create(&id, "main").await.unwrap(), container);
    world.start(&container).await.unwrap();
    assert_eq!(world.create(&id, "main").await.unwrap_err().code, Code::AlreadyExists);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing_and_the_next_joins() {
    let world = World::new().await;
    world.plugin("hold", true);
    let impatient = tokio::time::timeout(Duration::from_millis(100), world.run("web")).await;
    assert!(impatient.is_err());
    let open = std::thread::spawn({
        let hold = world.dir.path().join("hold");
        move || {
            std::thread::sleep(Duration::from_millis(200));
            std::fs::remove_file(hold).unwrap();
        }
    });
    let (one, two) = tokio::join!(world.run("web"), world.run("web"));
    assert_eq!(one.unwrap(), two.unwrap());
    open.join().unwrap();
    assert_eq!(world.plugin_calls(), ["ADD"]);
}

#[tokio::test]
async fn a_failed_pod_leaves_nothing_and_its_name_is_free() {
    let world = World::new().await;
    world.plugin("fail", true);
    let e = world.run("web").await.unwrap_err();
    assert!(e.message.contains("no address left"), "{e}");
    assert_eq!(world.left().await, Vec::<String>::new());
    assert!(world.plugin_calls().contains(&"DEL".to_owned()));
    world.plugin("fail", false);
    world.run("web").await.unwrap();
}

#[tokio::test]
async fn the_task_is_made_beside_the_network_and_taken_back_when_that_fails() {
    let world = World::new().await;
    for fails in [false, true] {
        for file in ["hold", "fail"].iter().take(1 + usize::from(fails)) {
            world.plugin(file, true);
        }
        let look = async {
            let made = |left: &[String]| ["task ", "snapshot "].map(|kind| left.iter().any(|l| l.starts_with(kind)));
            for _ in 0..500 {
                if made(&world.left().await) == [true, true] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let seen = made(&world.left().await);
            world.plugin("hold", false);
            seen
        };
        let (pod, seen) = tokio::join!(world.run("web"), look);
        assert_eq!(seen, [true, true], "both are there while the plugin works");
        match fails {
            false => world.remove_pod(&pod.unwrap()).await.unwrap(),
            true => assert!(pod.unwrap_err().message.contains("no address left")),
        }
        assert_eq!(world.left().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_network_is_taken_back_when_something_beside_it_fails() {
    let world = World::new().await;
    world.host.fail("mount_shm", true);
    world.run("web").await.unwrap_err();
    assert_eq!(world.plugin_calls(), ["ADD", "DEL"]);
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_cleaned_waits_for_removal_and_holds_no_name() {
    let mut world = World::new().await;
    world.plugin("fail", true);
    world.host.fail("remove_netns", true);
    world.run("web").await.unwrap_err();
    let list = world.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap().items;
    let failed = &list[0];
    assert_eq!((list.len(), failed.state()), (1, PodSandboxState::SandboxNotready));
    assert!(world.remove_pod(&failed.id).await.is_err());
    world.plugin("fail", false);
    let good = world.run("web").await.unwrap();

    world.restart().await;
    assert_eq!(world.pod_state(&failed.id).await, Some(PodSandboxState::SandboxNotready));
    assert_eq!(world.pod_state(&good).await, Some(PodSandboxState::SandboxReady));
    world.host.fail("remove_netns", false);
    world.remove_pod(&failed.id).await.unwrap();
    assert_eq!(world.pod_state(&failed.id).await, None);
    assert_eq!(world.run("web").await.unwrap(), good, "the name still belongs to the good one");
    world.remove_pod(&good).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn exits_are_told_with_their_codes() {
    let world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let (ends, killed, stopped) = (
        world.create(&pod, "ends").await.unwrap(),
        world.create(&pod, "killed").await.unwrap(),
        world.create(&pod, "stopped").await.unwrap(),
    );
    for id in [&ends, &killed, &stopped] {
        world.start(id).await.unwrap();
    }
    world.fake.exit(NAMESPACE, &ends, "", 3);
    let status = world.ended(&ends).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.finished_at >= status.started_at && status.started_at > 0);
    assert_eq!(fifos(&world, &ends), None);

    let stop = |id: &str, timeout| v1::StopContainerRequest { container_id: id.into(), timeout };
    world.cri.stop_container(stop(&killed, 0)).await.unwrap();
    assert_eq!(world.ended(&killed).await.exit_code, 128 + 9);
    world.cri.stop_container(stop(&stopped, 10)).await.unwrap();
    assert_eq!(world.ended(&stopped).await.exit_code, 128 + 15);
    world.cri.stop_container(stop(&stopped, 10)).await.unwrap();
    world.cri.stop_container(stop("none", 10)).await.unwrap();
    assert_eq!(world.start(&stopped).await.unwrap_err().code, Code::FailedPrecondition);

    world.fake.exit(NAMESPACE, &pod, "", 0);
    for _ in 0..500 {
        if world.pod_state(&pod).await == Some(PodSandboxState::SandboxNotready) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let e = world.create(&pod, "late").await.unwrap_err();
    assert_eq!(e.code, Code::FailedPrecondition, "{e}");
    assert!(e.message.contains(&pod));
    world.remove_pod(&pod).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_exit_while_the_event_stream_is_broken_is_found() {
    let world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let id = world.create(&pod, "main").await.unwrap();
    world.start(&id).await.unwrap();
    world.fake.break_subscriptions();
    world.fake.exit(NAMESPACE, &id, "", 7);
    assert_eq!(world.ended(&id).await.exit_code, 7);
    assert_eq!(world.pod_state(&pod).await, Some(PodSandboxState::SandboxReady), "a broken stream is no exit");
}

#[tokio::test]
async fn an_exit_of_an_earlier_process_is_not_taken_for_the_running_ones() {
    let world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let id = world.create(&pod, "main").await.unwrap();
    world.start(&id).await.unwrap();
    for container_id in [&id, &pod] {
        let (exit_status, exited_at) = (137, Some(std::time::SystemTime::now().into()));
        let late = events::TaskExit {
            container_id: container_id.clone(),
            id: container_id.clone(),
            pid: 1,
            exit_status,
            exited_at,
        };
        let request = PublishRequest { topic: "/tasks/exit".into(), event: Some(shared_proto::any::pack(&late)) };
        world.fake.core().events.publish(&Context::new(NAMESPACE), request).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.status(&id).await.state(), ContainerState::ContainerRunning);
    assert_eq!(world.pod_state(&pod).await, Some(PodSandboxState::SandboxReady));
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let mut world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let mut ids = Vec::new();
    for name in ["created", "running", "ends", "ended"] {
        let id = world.create(&pod, name).await.unwrap();
        if name != "created" {
            world.start(&id).await.unwrap();
        }
        ids.push(id);
    }
    world.fake.exit(NAMESPACE, &ids[3], "", 4);
    let ended = world.ended(&ids[3]).await;
    let before = world.status(&ids[1]).await;
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let pod_before = world.cri.pod_sandbox_status(request.clone()).await.unwrap().status;

    world.cri.stop(Duration::from_secs(5)).await;
    world.fake.exit(NAMESPACE, &ids[2], "", 5);
    world.restart().await;

    assert_eq!(world.status(&ids[0]).await.state(), ContainerState::ContainerCreated);
    assert_eq!(world.status(&ids[1]).await, before);
    assert_eq!(world.ended(&ids[2]).await.exit_code, 5);
    assert_eq!(world.ended(&ids[3]).await, ended);
    assert_eq!(world.cri.pod_sandbox_status(request).await.unwrap().status, pod_before);
    assert_eq!(world.run("web").await.unwrap(), pod, "names are taken again");
    world.start(&ids[0]).await.unwrap();
    world.fake.exit(NAMESPACE, &ids[1], "", 6);
    assert_eq!(world.ended(&ids[1]).await.exit_code, 6);
    world.remove_pod(&pod).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn containers_are_found_by_what_the_kubelet_filters_by() {
    let world = World::new().await;
    let (one, two) = (world.run("one").await.unwrap(), world.run("two").await.unwrap());
    let a = world.create(&one, "a").await.unwrap();
    let b = world.create(&two, "b").await.unwrap();
    world.start(&b).await.unwrap();
    let list = |filter| {
        let cri = world.cri.clone();
        async move {
            let request = v1::ListContainersRequest { filter: Some(filter) };
            let answer = cri.list_containers(request).await.unwrap();
            answer.containers.into_iter().map(|c| c.id).collect::<Vec<_>>()
        }
    };
    let filter = v1::ContainerFilter::default;
    assert_eq!(
        list(v1::ContainerFilter { pod_sandbox_id: one[..12].into(), ..filter() }).await,
        std::slice::from_ref(&a)
    );
    assert_eq!(list(v1::ContainerFilter { id: b[..12].into(), ..filter() }).await, std::slice::from_ref(&b));
    let running = Some(v1::ContainerStateValue { state: ContainerState::ContainerRunning.into() });
    assert_eq!(list(v1::ContainerFilter { state: running, ..filter() }).await, std::slice::from_ref(&b));
    assert!(list(v1::ContainerFilter { id: "nothing".into(), ..filter() }).await.is_empty());

    let request = v1::ContainerStatusRequest { container_id: "nothing".into(), verbose: false };
    assert_eq!(world.cri.container_status(request).await.unwrap_err().code, Code::NotFound);
    let mut config = container("c");
    config.image.as_mut().unwrap().image = "not-there:9".into();
    let request =
        v1::CreateContainerRequest { pod_sandbox_id: one.clone(), config: Some(config), sandbox_config: None };
    let e = world.cri.create_container(request).await.unwrap_err();
    assert_eq!(e.code, Code::NotFound);
    assert!(e.message.contains("not-there:9"), "{e}");
}

#[tokio::test]
async fn a_command_whose_time_is_up_is_killed_and_leaves_nothing() {
    let world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let id = world.create(&pod, "main").await.unwrap();
    let exec = |cmd: &[&str]| v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: cmd.iter().map(|arg| (*arg).to_owned()).collect(),
        timeout: 1,
    };
    assert_eq!(world.cri.exec_sync(exec(&["true"])).await.unwrap_err().code, Code::FailedPrecondition);
    world.start(&id).await.unwrap();
    assert_eq!(world.cri.exec_sync(exec(&[])).await.unwrap_err().code, Code::InvalidArgument);
    let e = world.cri.exec_sync(exec(&["sleep", "9"])).await.unwrap_err();
    assert_eq!(e.code, Code::DeadlineExceeded);
    assert!(e.message.contains("sleep 9"), "{e}");
    let names = std::fs::read_dir(fifos(&world, &id).unwrap()).unwrap().flatten().map(|entry| entry.file_name());
    assert!(names.into_iter().all(|name| name.to_string_lossy().starts_with(&id)), "only the container's own");
}
