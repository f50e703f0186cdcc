//! Many pods, some of them failing on purpose, and calls that are repeated: nothing may be left over, no name reserved.

use std::time::{Duration, Instant};

use e2e::cri::{Cri, image};
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{container, script, sleeper};
use e2e::{Wiring, World, eventually, faulty_world, logs, world};
use futures::StreamExt as _;
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(
    fifty_pods_ten_of_them_failing,
    thirty_at_a_time,
    a_retry_joins,
    a_retry_succeeds,
    a_teardown_that_fails_is_finished_later,
);

/// How a pod of the churn is meant to fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    BadImage,
    BadCommand,
    CniFailure,
    RuncFailureOfSandbox,
    RuncFailureOfContainer,
}

fn fate(index: usize) -> Fate {
    match index {
        3 | 23 => Fate::BadImage,
        7 | 27 => Fate::BadCommand,
        12 | 32 => Fate::CniFailure,
        16 | 36 => Fate::RuncFailureOfSandbox,
        19 | 39 => Fate::RuncFailureOfContainer,
        _ => Fate::Good,
    }
}

async fn fifty_pods_ten_of_them_failing(wiring: Wiring) {
    let world = faulty_world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    // The first pod opens connections that stay.
    one_pod(&world, &cri, 100).await;
    let descriptors = world.descriptors();
    futures::stream::iter(0..50).for_each_concurrent(6, |i| one_pod(&world, &cri, i)).await;
    world.assert_as_before(&before).await;

    // Each failing pod would leave a few; a handful may come and go with idle connections.
    eventually("descriptors are closed", Duration::from_secs(10), || {
        let now = world.descriptors();
        let fine = now.0 <= descriptors.0 + 8 && now.1 <= descriptors.1 + 8;
        std::future::ready(if fine { Ok(()) } else { Err(format!("{descriptors:?} before, {now:?} after")) })
    })
    .await;
    let calls = std::fs::read_to_string(world.paths.gate.join("calls")).expect("read the calls of CNI");
    let count = |verb: &str| calls.lines().filter(|l| l.starts_with(verb)).count();
    assert!(count("DEL ") >= count("ADD "), "each ADD has its DEL:\n{calls}");
}

async fn one_pod(world: &World, cri: &Cri, index: usize) {
    let fate = fate(index);
    let name = match fate {
        Fate::CniFailure => format!("churn-{index}-cni-fail"),
        Fate::RuncFailureOfSandbox => format!("churn-{index}-runc-fail"),
        _ => format!("churn-{index}"),
    };
    let config = world.pod(&name);
    let pod = match (fate, cri.try_run_pod(&config).await) {
        (Fate::CniFailure, Err(e)) => return assert!(e.message().contains("asked for a failure"), "{name}: {e:?}"),
        (Fate::RuncFailureOfSandbox, Err(e)) => {
            return assert!(e.message().contains("asked for a failure"), "{name}: {e:?}");
        }
        (Fate::CniFailure | Fate::RuncFailureOfSandbox, Ok(id)) => panic!("{name} should have failed, and is {id}"),
        (_, result) => result.unwrap_or_else(|e| panic!("{name}: {e:?}")),
    };
    match fate {
        Fate::BadImage => {
            let mut main = sleeper("main");
            main.image = Some(image("registry.k8s.io/e2e/no-such-image:1"));
            let error = cri.try_create(&pod, &config, &main).await.expect_err("there is no such image");
            assert_eq!(error.code(), Code::NotFound, "{name}: {error:?}");
            assert!(error.message().contains("no-such-image"), "{name}: {error:?}");
        }
        Fate::BadCommand => {
            let id = cri.create(&pod, &config, &container("main", &["/no/such/command"])).await;
            cri.try_start(&id).await.expect_err("there is no such command");
        }
        Fate::RuncFailureOfContainer => {
            let id = cri.create(&pod, &config, &container("runc-fail", &["true"])).await;
            let error = cri.try_start(&id).await.expect_err("the runtime fails");
            assert!(error.message().contains("asked for a failure"), "{name}: {error:?}");
        }
        _ => {
            let id = cri.run(&pod, &config, &script("main", &format!("echo {index}; exec sleep 1000"))).await;
            assert_eq!(cri.container(&id).await.state(), ContainerState::ContainerRunning, "{name}");
            if index.is_multiple_of(3) {
                cri.try_stop(&id, 0).await.unwrap_or_else(|e| panic!("{name}: stop: {e:?}"));
                cri.try_remove(&id).await.unwrap_or_else(|e| panic!("{name}: remove: {e:?}"));
            }
        }
    }
    cri.end_pod(&pod).await;
}

async fn thirty_at_a_time(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let started = Instant::now();
    let pods = (0..30).map(|i| {
        let (cri, config) = (cri.clone(), world.pod(&format!("crowd-{i}")));
        async move {
            let pod = cri.run_pod(&config).await;
            let id = cri.run(&pod, &config, &script("main", &format!("echo {i}; exec sleep 1000"))).await;
            (pod, id)
        }
    });
    let pods = futures::future::join_all(pods).await;
    println!("{}: 30 pods at a time in {:?}", wiring.name(), started.elapsed());
    let mut addresses = std::collections::BTreeSet::new();
    for (i, (pod, id)) in pods.iter().enumerate() {
        assert_eq!(cri.container(id).await.state(), ContainerState::ContainerRunning);
        assert!(addresses.insert(cri.pod_ip(pod).await), "no two pods have one address");
        let log = world.log(&format!("crowd-{i}"), "main");
        eventually("its own line is in its own log", Duration::from_secs(5), || {
            let text = logs::text(&logs::read_live(&log), "stdout");
            std::future::ready(if text == format!("{i}\n") { Ok(()) } else { Err(text) })
        })
        .await;
    }
    assert_eq!(cri.list_pods(ListPodSandboxRequest::default()).await.len(), 30);
    let started = Instant::now();
    futures::future::join_all(pods.iter().map(|(pod, _)| cri.end_pod(pod))).await;
    println!("{}: and gone in {:?}", wiring.name(), started.elapsed());
    world.assert_as_before(&before).await;
}

/// How often a plugin was asked to add `pod` to the network.
fn adds(world: &World, pod: &str) -> usize {
    let calls = std::fs::read_to_string(world.paths.gate.join("calls")).unwrap_or_default();
    calls.lines().filter(|line| line.starts_with(&format!("ADD {pod} "))).count()
}

async fn a_retry_joins(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;

    // The same request five times at once is one pod.
    let config = world.pod("join-cni-slow");
    let ids = futures::future::join_all((0..5).map(|_| cri.run_pod(&config))).await;
    assert!(ids.iter().all(|id| id == &ids[0]), "{ids:?}");
    assert_eq!(adds(&world, "join-cni-slow"), 1);
    assert_eq!(cri.run_pod(&config).await, ids[0], "and so is a late one");

    // Another configuration under the same name is a conflict, and says so.
    let mut other = config.clone();
    other.hostname = "other".into();
    let error = cri.try_run_pod(&other).await.expect_err("the name is taken");
    assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");
    assert!(error.message().contains("join-cni-slow"), "{error:?}");

    let main = sleeper("main");
    let containers = futures::future::join_all((0..5).map(|_| cri.create(&ids[0], &config, &main))).await;
    assert!(containers.iter().all(|id| id == &containers[0]), "{containers:?}");
    cri.try_start(&containers[0]).await.expect("start");
    let different = script("main", "true");
    let error = cri.try_create(&ids[0], &config, &different).await.expect_err("the name is taken");
    assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");

    // A caller that gives up, and comes back: its pod is still being made, or made already.
    let config2 = world.pod("again-cni-slow");
    let gave_up = tokio::time::timeout(Duration::from_millis(400), cri.try_run_pod(&config2)).await;
    assert!(gave_up.is_err(), "the plugin is slow");
    let id = cri.run_pod(&config2).await;
    assert_eq!(adds(&world, "again-cni-slow"), 1, "the second call joined the first");
    assert_eq!(cri.list_pods(ListPodSandboxRequest::default()).await.len(), 2);

    // Once stopped, the name's pod is another one: a kubelet counts the attempt up, but a new pod of the name may come.
    cri.end_pod(&id).await;
    let next = cri.run_pod(&config2).await;
    assert_ne!(next, id);
    // Stop and remove, both asked for by many at the same time.
    for pod in [&ids[0], &next] {
        futures::future::join_all((0..4).map(|_| cri.try_stop_pod(pod)))
            .await
            .into_iter()
            .for_each(|r| r.expect("stop"));
        let removed = futures::future::join_all((0..4).map(|_| cri.try_remove_pod(pod))).await;
        removed.into_iter().for_each(|r| r.expect("remove"));
    }
    world.assert_as_before(&before).await;
}

async fn a_retry_succeeds(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let config = world.pod("cni-once");
    let error = cri.try_run_pod(&config).await.expect_err("the first try fails");
    assert!(error.message().contains("asked for a failure"), "{error:?}");
    // At once, while the failed try may still be cleaned up.
    let pod = cri.run_pod(&config).await;
    assert_eq!(cri.pod_status(&pod).await.state(), PodSandboxState::SandboxReady);
    let ready = PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() }),
        ..Default::default()
    };
    assert_eq!(cri.list_pods(ListPodSandboxRequest { filter: Some(ready) }).await.len(), 1);

    // A container that failed to start leaves its name when it is removed, or a new attempt takes its own.
    let bad = container("main", &["/no/such/command"]);
    let id = cri.create(&pod, &config, &bad).await;
    cri.try_start(&id).await.expect_err("there is no such command");
    let mut next = sleeper("main");
    next.metadata = Some(ContainerMetadata { name: "main".into(), attempt: 1 });
    cri.run(&pod, &config, &next).await;
    cri.try_remove(&id).await.expect("remove");
    cri.run(&pod, &config, &sleeper("main")).await;
    for pod in cri.list_pods(ListPodSandboxRequest::default()).await {
        cri.end_pod(&pod.id).await;
    }
    world.assert_as_before(&before).await;
}

async fn a_teardown_that_fails_is_finished_later(wiring: Wiring) {
    let world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let before = world.inventory().await;
    // ADD and the first DEL fail: the pod can't be made, and can't be unmade at once either.
    let config = world.pod("cni-fail-cni-stuck");
    cri.try_run_pod(&config).await.expect_err("the network fails");
    // What a kubelet does with whatever is listed.
    for pod in cri.list_pods(ListPodSandboxRequest::default()).await {
        assert_eq!(pod.state(), PodSandboxState::SandboxNotready, "half a pod is not ready");
        cri.end_pod(&pod.id).await;
    }
    world.no_pods().await;

    let config = world.pod("cni-stuck");
    let pod = cri.run_pod(&config).await;
    if let Err(e) = cri.try_stop_pod(&pod).await {
        assert!(e.message().contains("asked for a failure"), "{e:?}");
        cri.try_stop_pod(&pod).await.expect("the second stop");
    }
    cri.try_remove_pod(&pod).await.expect("remove");
    world.assert_as_before(&before).await;
}
