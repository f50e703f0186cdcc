//! GetContainerEvents: the order of things, to everybody, again after a reconnection, and to an end.

use std::time::{Duration, Instant};

use e2e::cri::Cri;
use e2e::pod::{container, ready, script, sleeper};
use e2e::{Wiring, eventually};
use shared_proto::cri::v1::ContainerEventType::{
    ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
    ContainerStoppedEvent as Stopped,
};
use shared_proto::cri::v1::*;
use tonic::{Code, Streaming};

e2e::wirings!(
    a_life_in_order,
    short_lives,
    everybody_hears_everything,
    coming_and_going,
    streams_end_with_the_daemon,
    ends_while_nobody_looked
);

const SOON: Duration = Duration::from_secs(20);

async fn subscribe(cri: &Cri) -> Streaming<ContainerEventResponse> {
    cri.runtime().get_container_events(GetEventsRequest {}).await.expect("subscribe").into_inner()
}

async fn next(events: &mut Streaming<ContainerEventResponse>) -> ContainerEventResponse {
    let next = tokio::time::timeout(SOON, events.message()).await.expect("an event in time");
    next.expect("no error").expect("no end")
}

/// The next `count` events: whose, and what.
async fn heard(events: &mut Streaming<ContainerEventResponse>, count: usize) -> Vec<(String, ContainerEventType)> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let event = next(events).await;
        heard.push((event.container_id.clone(), event.container_event_type()));
    }
    heard
}

/// Each event shows the pod and all of its containers, as they were when it happened.
async fn a_life_in_order(wiring: Wiring) {
    let (_world, cri, config, pod) = ready(wiring, "life").await;
    let mut events = subscribe(&cri).await;
    let id = cri.create(&pod, &config, &sleeper("main")).await;
    cri.try_start(&id).await.expect("start");
    cri.try_stop(&id, 5).await.expect("stop");
    cri.try_stop(&id, 5).await.expect("stop once more");
    cri.try_remove(&id).await.expect("remove");
    cri.try_remove(&id).await.expect("remove once more");
    cri.try_stop_pod(&pod).await.expect("stop");
    cri.end_pod(&pod).await;

    let (created, started) = (ContainerState::ContainerCreated, ContainerState::ContainerRunning);
    let exited = ContainerState::ContainerExited;
    let (up, down) = (PodSandboxState::SandboxReady, PodSandboxState::SandboxNotready);
    let expected = [
        (&pod, Created, up, None),
        (&pod, Started, up, None),
        (&id, Created, up, Some(created)),
        (&id, Started, up, Some(started)),
        (&id, Stopped, up, Some(exited)),
        (&id, Deleted, up, None),
        (&pod, Stopped, down, None),
        (&pod, Deleted, down, None),
    ];
    let mut last = 0;
    for (whose, kind, sandbox, container) in expected {
        let event = next(&mut events).await;
        assert_eq!((&event.container_id, event.container_event_type()), (whose, kind), "{event:?}");
        let status = event.pod_sandbox_status.as_ref().expect("the pod's status");
        assert_eq!((&status.id, status.state()), (&pod, sandbox), "{event:?}");
        assert_eq!((&status.metadata, &status.labels), (&config.metadata, &config.labels));
        assert!(status.network.as_ref().is_some_and(|network| !network.ip.is_empty()), "{event:?}");
        let states: Vec<_> = event.containers_statuses.iter().map(ContainerStatus::state).collect();
        assert_eq!(states, Vec::from_iter(container), "{event:?}");
        assert!(event.created_at >= last, "{event:?}");
        last = event.created_at;
        if kind == Stopped && whose == &id {
            let status = &event.containers_statuses[0];
            assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
            assert!(status.finished_at >= status.started_at && status.started_at > 0, "{status:?}");
        }
    }
}

/// Containers that end before their start is answered: their end never comes before their start.
async fn short_lives(wiring: Wiring) {
    let (_world, cri, config, pod) = ready(wiring, "short").await;
    let mut events = subscribe(&cri).await;
    assert_eq!(heard(&mut events, 2).await, [(pod.clone(), Created), (pod.clone(), Started)], "what was before");
    let mut all = Vec::new();
    for number in 0..8 {
        all.push(cri.create(&pod, &config, &script(&format!("c{number}"), "exit 3")).await);
    }
    let missing = cri.create(&pod, &config, &container("missing", &["/no/such/command"])).await;
    futures::future::join_all(all.iter().map(|id| async { cri.try_start(id).await.expect("start") })).await;
    cri.try_start(&missing).await.expect_err("there is no such command");

    let heard = heard(&mut events, 9 + 2 * 8 + 1).await;
    let of = |id: &String| -> Vec<_> { heard.iter().filter(|(whose, _)| whose == id).map(|(_, kind)| *kind).collect() };
    for id in &all {
        assert_eq!(of(id), [Created, Started, Stopped], "{heard:?}");
    }
    assert_eq!(of(&missing), [Created, Stopped], "it never ran");
    cri.end_pod(&pod).await;
}

/// Several at a time, one that does not read, and one that comes again after its connection broke.
async fn everybody_hears_everything(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "many").await;
    let mut idle = subscribe(&world.cri()).await;
    let (mut one, mut other) = (subscribe(&cri).await, subscribe(&world.cri()).await);
    assert_eq!(heard(&mut one, 2).await, [(pod.clone(), Created), (pod.clone(), Started)]);
    drop(one);
    let mut expected = vec![(pod.clone(), Created), (pod.clone(), Started)];
    for name in ["a", "b"] {
        let id = cri.run(&pod, &config, &sleeper(name)).await;
        cri.try_stop(&id, 5).await.expect("stop");
        expected.extend([Created, Started, Stopped].map(|kind| (id.clone(), kind)));
    }
    let mut again = subscribe(&world.cri()).await;
    assert_eq!(heard(&mut again, expected.len()).await, expected, "nothing that happened meanwhile is lost");
    assert_eq!(heard(&mut other, expected.len()).await, expected);
    assert_eq!(heard(&mut idle, expected.len()).await, expected);
    cri.end_pod(&pod).await;
    let mut end: Vec<_> = expected.iter().map(|(whose, _)| whose.clone()).collect();
    end.sort();
    end.dedup();
    for events in [&mut again, &mut other, &mut idle] {
        let heard = heard(events, 4).await;
        assert_eq!(heard[0], (pod.clone(), Stopped));
        assert_eq!(heard[3], (pod.clone(), Deleted));
        let mut deleted: Vec<_> = heard[1..].iter().map(|(whose, _)| whose.clone()).collect();
        deleted.sort();
        assert_eq!(deleted, end, "the containers, and their pod");
        assert!(heard[1..].iter().all(|(_, kind)| *kind == Deleted), "{heard:?}");
    }
}

/// A client whose connection breaks again and again, while much happens: all of it is heard, in order.
async fn coming_and_going(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "flood").await;
    let others = ["x", "y"].map(|name| world.pod(name));
    let lives = async |pod: String, config: PodSandboxConfig| {
        let mut ids = Vec::new();
        for round in 0..6 {
            let id = cri.run(&pod, &config, &script(&format!("c{round}"), "exit 0")).await;
            cri.exited(&id).await;
            cri.try_remove(&id).await.expect("remove");
            ids.push(id);
        }
        cri.end_pod(&pod).await;
        ids.push(pod);
        ids
    };
    let all = async {
        let [x, y] = others;
        let other = async |config: PodSandboxConfig| lives(cri.run_pod(&config).await, config).await;
        let (a, b, c) = tokio::join!(lives(pod, config), other(x), other(y));
        [a, b, c].concat()
    };
    let mut heard: Vec<(i64, String, ContainerEventType)> = Vec::new();
    let mut connections = 0;
    let mut follow = async |until_silent: Duration, heard: &mut Vec<_>| {
        connections += 1;
        let mut events = subscribe(&world.cri()).await;
        while let Ok(event) = tokio::time::timeout(until_silent, events.message()).await {
            let event = event.expect("no error").expect("no end");
            let news = (event.created_at, event.container_id.clone(), event.container_event_type());
            if !heard.contains(&news) {
                heard.push(news);
            }
        }
    };
    tokio::pin!(all);
    let ids = loop {
        tokio::select! {
            ids = &mut all => break ids,
            // Silence for so short a time is common: it comes again.
            () = follow(Duration::from_millis(20), &mut heard) => {}
        }
    };
    follow(Duration::from_secs(2), &mut heard).await;
    assert_eq!(ids.len(), 21);
    for id in &ids {
        let told: Vec<_> = heard.iter().filter(|(_, whose, _)| whose == id).map(|(.., kind)| *kind).collect();
        assert_eq!(told, [Created, Started, Stopped, Deleted], "{id} of {} in {connections} connections", heard.len());
    }
    assert_eq!(heard.len(), 4 * ids.len());
    assert!(connections > 10, "it came again often: {connections}");
}

/// A daemon that is told to stop does not wait for its followers, on whichever socket they came.
async fn streams_end_with_the_daemon(wiring: Wiring) {
    let (mut world, cri, _, pod) = ready(wiring, "on").await;
    let mut followers = vec![subscribe(&cri).await];
    if wiring != Wiring::Split {
        followers.push(subscribe(&Cri::connect(&world.paths.core_socket)).await);
    }
    for events in &mut followers {
        heard(events, 2).await;
    }
    let began = Instant::now();
    world.stop();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "the stop took {took:?}");
    for mut events in followers {
        let end = tokio::time::timeout(SOON, events.message()).await.expect("an end");
        assert_eq!(end.expect_err("no good end").code(), Code::Unavailable);
    }
    world.run().await;
    cri.end_pod(&pod).await;
    let heard = heard(&mut subscribe(&cri).await, 2).await;
    assert_eq!(heard, [(pod.clone(), Stopped), (pod, Deleted)], "the same client again");
}

/// What ends while the daemons are away is told by the next ones.
async fn ends_while_nobody_looked(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "away").await;
    let wait = "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 7";
    let id = cri.run(&pod, &config, &script("main", wait)).await;
    let before = cri.run(&pod, &config, &script("before", "exit 4")).await;
    cri.exited(&before).await;
    let root = format!("/proc/{}/root", cri.pid(&id).await);
    world.kill_cri();
    std::fs::create_dir_all(format!("{root}/tmp")).expect("its /tmp");
    std::fs::write(format!("{root}/tmp/go"), "").expect("tell it to go");
    let gone = || async { if std::path::Path::new(&root).exists() { Err("it runs".into()) } else { Ok(()) } };
    eventually("it ends while the daemons are away", SOON, gone).await;
    world.run().await;
    let mut events = subscribe(&cri).await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        let event = next(&mut events).await;
        assert_eq!(event.container_event_type(), Stopped, "{event:?}");
        assert_eq!(event.pod_sandbox_status.as_ref().expect("the pod's status").state(), PodSandboxState::SandboxReady);
        let status = event.containers_statuses.iter().find(|status| status.id == event.container_id).expect("its own");
        codes.push((event.container_id.clone(), status.exit_code));
    }
    codes.sort();
    let mut expected = vec![(id.clone(), 7), (before.clone(), 4)];
    expected.sort();
    assert_eq!(codes, expected, "the one that ended meanwhile; the other may not have been heard of before");
    cri.end_pod(&pod).await;
    let rest: Vec<_> = heard(&mut events, 4).await.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(rest, [Stopped, Deleted, Deleted, Deleted]);
}
