//! SELinux labels and AppArmor profiles of whole pods, on a machine in memory that says it has both.

use futures::future::join_all;
use serde_json::Value;
use shared_proto::Code;
use shared_proto::cri::v1;

use crate::host::{FakeHost, Host as _, HostFacts, SelinuxContexts};
use crate::testing::World;

async fn world(categories: u32) -> World {
    let contexts = SelinuxContexts {
        process: "system_u:system_r:container_t:s0".into(),
        file: "system_u:object_r:container_file_t:s0".into(),
    };
    let facts = HostFacts { selinux: Some(contexts), apparmor: true, ..FakeHost::default().facts().clone() };
    World::with(FakeHost::new(facts), |config| {
        config.runtime.enable_selinux = true;
        config.runtime.selinux_category_range = categories;
    })
    .await
}

async fn pod_spec(world: &World, id: &str) -> Value {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
    let info = world.cri.pod_sandbox_status(request).await.unwrap().info;
    serde_json::from_str::<Value>(&info["info"]).unwrap()["runtimeSpec"].take()
}

async fn container_spec(world: &World, id: &str) -> Value {
    let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.cri.container_status(request).await.unwrap().info;
    serde_json::from_str::<Value>(&info["info"]).unwrap()["runtimeSpec"].take()
}

#[tokio::test]
async fn pods_at_the_same_time_and_after_a_restart_have_labels_of_their_own() {
    let mut world = world(4).await;
    let made = join_all(["a", "b", "c", "d", "e"].map(|name| world.run(name))).await;
    let mut ids: Vec<String> = made.into_iter().map(Result::unwrap).collect();
    world.restart().await;
    // Four categories make six pairs: this is the last one.
    ids.push(world.run("f").await.unwrap());
    let mut labels = Vec::new();
    for id in &ids {
        let spec = pod_spec(&world, id).await;
        let label = spec["process"]["selinuxLabel"].as_str().unwrap().to_owned();
        assert!(label.starts_with("system_u:system_r:container_t:s0:c"), "{label}");
        let level = label.rsplit_once("container_t").unwrap().1;
        assert_eq!(spec["linux"]["mountLabel"], format!("system_u:object_r:container_file_t{level}"));
        labels.push(label);
    }
    let container = world.create(&ids[5], "main").await.unwrap();
    assert_eq!(container_spec(&world, &container).await["process"]["selinuxLabel"], labels[5].as_str());
    labels.sort();
    labels.dedup();
    assert_eq!(labels.len(), 6, "{labels:?}");

    let full = world.run("g").await.unwrap_err();
    assert_eq!(full.code, Code::ResourceExhausted, "{full:?}");
    world.remove_pod(&ids[2]).await.unwrap();
    ids[2] = world.run("g").await.unwrap();
    for id in &ids {
        world.remove_pod(id).await.unwrap();
    }
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_default_profile_confines_pods_and_containers() {
    let world = world(1024).await;
    let id = world.run("web").await.unwrap();
    let container = world.create(&id, "main").await.unwrap();
    for spec in [pod_spec(&world, &id).await, container_spec(&world, &container).await] {
        assert_eq!(spec["process"]["apparmorProfile"], "cri-containerd.apparmor.d");
    }
    assert_eq!(world.host.profiles_loaded(), 1);
    world.remove_pod(&id).await.unwrap();

    world.host.fail("load_apparmor", true);
    // The profile is loaded already, so nothing has to be.
    world.remove_pod(&world.run("again").await.unwrap()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}
