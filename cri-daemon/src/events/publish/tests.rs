//! What is told of whole lives, over a core in memory.

use std::time::Duration;

use futures::StreamExt as _;
use shared_proto::api::Items;
use shared_proto::cri::v1::{ContainerState, GetEventsRequest, PodSandboxState};

use super::*;
use crate::NAMESPACE;
use crate::testing::World;

type Events = Items<ContainerEventResponse>;

async fn follow(world: &World) -> Events {
    world.cri.get_container_events(GetEventsRequest {}).await.unwrap()
}

async fn next(events: &mut Events) -> ContainerEventResponse {
    let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    next.expect("in time").expect("no end").expect("no error")
}

/// `WHO KIND` of the next events: the first letter of each says enough.
async fn heard(events: &mut Events, count: usize, names: &[(&str, &str)]) -> String {
    let mut heard = Vec::new();
    while heard.len() < count {
        let event = next(events).await;
        let name = names.iter().find(|(id, _)| *id == event.container_id).map_or("?", |(_, name)| name);
        let kind = event.container_event_type().as_str_name().trim_start_matches("CONTAINER_");
        heard.push(format!("{name} {}", kind.trim_end_matches("_EVENT").to_lowercase()));
    }
    heard.join(", ")
}

async fn silent(events: &mut Events) {
    let next = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn everything_is_told_once_with_the_states_of_its_time() {
    let world = World::new().await;
    let mut events = follow(&world).await;
    let pod = world.run("web").await.unwrap();
    let id = world.create(&pod, "main").await.unwrap();
    world.start(&id).await.unwrap();
    world.fake.exit(NAMESPACE, &id, "", 3);
    world.ended(&id).await;
    world.remove_pod(&pod).await.unwrap();
    world.remove_pod(&pod).await.unwrap();
    let (up, down) = (PodSandboxState::SandboxReady, PodSandboxState::SandboxNotready);
    for (who, kind, state, container) in [
        (&pod, Type::ContainerCreatedEvent, up, None),
        (&pod, Type::ContainerStartedEvent, up, None),
        (&id, Type::ContainerCreatedEvent, up, Some(ContainerState::ContainerCreated)),
        (&id, Type::ContainerStartedEvent, up, Some(ContainerState::ContainerRunning)),
        (&id, Type::ContainerStoppedEvent, up, Some(ContainerState::ContainerExited)),
        (&pod, Type::ContainerStoppedEvent, down, Some(ContainerState::ContainerExited)),
        (&id, Type::ContainerDeletedEvent, down, None),
        (&pod, Type::ContainerDeletedEvent, down, None),
    ] {
        let event = next(&mut events).await;
        assert_eq!((&event.container_id, event.container_event_type()), (who, kind), "{event:?}");
        assert_eq!(event.pod_sandbox_status.as_ref().map(|pod| pod.state()), Some(state), "{event:?}");
        let states: Vec<_> = event.containers_statuses.iter().map(|status| status.state()).collect();
        assert_eq!(states, Vec::from_iter(container), "{event:?}");
        assert!(event.created_at > 0);
    }
    silent(&mut events).await;
}

#[tokio::test]
async fn a_pod_that_fails_is_told_only_if_something_is_left_of_it() {
    let world = World::new().await;
    let mut events = follow(&world).await;
    world.plugin("fail", true);
    world.run("web").await.unwrap_err();
    silent(&mut events).await;
    world.host.fail("remove_netns", true);
    world.run("web").await.unwrap_err();
    let left = next(&mut events).await;
    assert_eq!(left.container_event_type(), Type::ContainerCreatedEvent);
    let status = left.pod_sandbox_status.unwrap();
    assert_eq!((status.state(), status.metadata.unwrap().name), (PodSandboxState::SandboxNotready, "web".into()));
    world.host.fail("remove_netns", false);
    world.remove_pod(&left.container_id).await.unwrap();
    assert_eq!(heard(&mut events, 2, &[(&left.container_id, "pod")]).await, "pod stopped, pod deleted");
    silent(&mut events).await;
}

#[tokio::test]
async fn a_new_daemon_tells_the_ends_that_it_finds_when_it_knows_everybody() {
    let mut world = World::new().await;
    let (pod, gone) = (world.run("web").await.unwrap(), world.run("gone").await.unwrap());
    let mut ids = Vec::new();
    for (sandbox, name) in [(&pod, "goes-on"), (&pod, "ends"), (&pod, "ended"), (&gone, "with-it")] {
        let id = world.create(sandbox, name).await.unwrap();
        world.start(&id).await.unwrap();
        ids.push(id);
    }
    world.fake.exit(NAMESPACE, &ids[2], "", 4);
    world.ended(&ids[2]).await;
    world.cri.stop(Duration::from_secs(5)).await;
    for id in [&ids[1], &ids[3], &gone] {
        world.fake.exit(NAMESPACE, id, "", 5);
    }
    world.restart().await;

    let mut events = follow(&world).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let event = next(&mut events).await;
        assert_eq!(event.container_event_type(), Type::ContainerStoppedEvent);
        let of_gone = event.pod_sandbox_status.as_ref().unwrap().id == gone;
        let (state, count) =
            if of_gone { (PodSandboxState::SandboxNotready, 1) } else { (PodSandboxState::SandboxReady, 3) };
        assert_eq!(event.pod_sandbox_status.as_ref().unwrap().state(), state);
        assert_eq!(event.containers_statuses.len(), count, "all of the pod's: {event:?}");
        told.push(event.container_id);
    }
    told.sort();
    let mut expected = vec![ids[1].clone(), ids[2].clone(), ids[3].clone(), gone.clone()];
    expected.sort();
    assert_eq!(told, expected);
    silent(&mut events).await;
    world.fake.exit(NAMESPACE, &ids[0], "", 6);
    assert_eq!(heard(&mut events, 1, &[(&ids[0], "main")]).await, "main stopped");
}

#[tokio::test]
async fn an_end_of_long_ago_is_not_told_again() {
    let world = World::new().await;
    let pod = world.run("web").await.unwrap();
    let id = world.create(&pod, "main").await.unwrap();
    let mut events = follow(&world).await;
    assert_eq!(heard(&mut events, 3, &[(&pod, "p"), (&id, "c")]).await, "p created, p started, c created");
    let container = world.cri.0.containers.exact(&id).unwrap();
    let now = world.cri.0.host.now();
    for (ago, told) in [(AGE * 2, false), (Duration::from_secs(1), true)] {
        let exit = Exit::of(1, now - ago.as_nanos() as i64, 0, false);
        world.cri.0.container_found_exited(&container, &exit);
        match told {
            true => assert_eq!(heard(&mut events, 1, &[(&id, "c")]).await, "c stopped"),
            false => silent(&mut events).await,
        }
    }
}
