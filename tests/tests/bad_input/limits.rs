//! What is not offered is refused by its name, never ignored: `Unimplemented`. And Status promises none of it.

use e2e::Wiring;
use e2e::cri::image;
use e2e::fixtures::BUSYBOX;
use e2e::pod::{namespaces, ready, security, sleeper};
use e2e::world;
use shared_proto::Context;
use shared_proto::containerd::{tasks as t, transfer, transfer_types as tt, types};
use shared_proto::cri::v1::*;
use shared_proto::{Code, any};
use tonic::Code::Unimplemented;

use crate::{fails, refused};

pub async fn not_offered(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "offered").await;
    let before = world.inventory().await;
    let all = |mode: NamespaceMode| {
        let mapping = IdMapping { host_id: 100_000, container_id: 0, length: 65_536 };
        UserNamespace { mode: mode.into(), uids: vec![mapping], gids: vec![mapping] }
    };

    // User namespaces, in each mode that asks for one.
    for mode in [NamespaceMode::Pod, NamespaceMode::Container, NamespaceMode::Target] {
        let mut user = world.pod("user");
        namespaces(&mut user).userns_options = Some(all(mode));
        refused("a user namespace", cri.try_run_pod(&user).await, Unimplemented, "userns_options");
        let mut user = sleeper("user");
        security(&mut user).namespace_options.get_or_insert_default().userns_options = Some(all(mode));
        refused("a user namespace", cri.try_create(&pod, &config, &user).await, Unimplemented, "userns_options");
    }
    world.assert_as_before(&before).await;

    let mapping = IdMapping { host_id: 1000, container_id: 0, length: 1 };
    let mount = Mount { container_path: "/x".into(), host_path: "/tmp".into(), ..Default::default() };
    let mounts = [
        ("mounts[0].image", Mount { image: Some(image(BUSYBOX)), host_path: String::new(), ..mount.clone() }),
        ("mounts[0].image", Mount { image_sub_path: "etc".into(), ..mount.clone() }),
        ("mounts[0].recursive_read_only", Mount { recursive_read_only: true, readonly: true, ..mount.clone() }),
        ("mounts[0].uidMappings", Mount { uid_mappings: vec![mapping], ..mount.clone() }),
        ("mounts[0].uidMappings and gidMappings", Mount { gid_mappings: vec![mapping], ..mount }),
    ];
    for (name, mount) in mounts {
        let wrong = ContainerConfig { mounts: vec![mount], ..sleeper("mount") };
        refused(name, cri.try_create(&pod, &config, &wrong).await, Unimplemented, name);
        world.assert_as_before(&before).await;
    }

    // Devices of CDI: by the field, and by the annotations that came before it.
    let mut cdi = sleeper("cdi");
    cdi.cdi_devices = vec![CdiDevice { name: "vendor.com/gpu=0".into() }];
    refused("a device of CDI", cri.try_create(&pod, &config, &cdi).await, Unimplemented, "vendor.com/gpu=0");
    for key in ["cdi.k8s.io/vendor_gpu", "io.kubernetes.cri.blockio-class", "io.kubernetes.cri.rdt-class"] {
        let annotation = || [(key.to_owned(), "gold".to_owned())].into();
        let classed = ContainerConfig { annotations: annotation(), ..sleeper("classed") };
        refused(key, cri.try_create(&pod, &config, &classed).await, Unimplemented, key);
        world.assert_as_before(&before).await;
    }
    // The pod's own classes count for its containers.
    let classes = [
        ("blockio.resources.beta.kubernetes.io/pod", true),
        ("rdt.resources.beta.kubernetes.io/container.main", true),
        ("rdt.resources.beta.kubernetes.io/container.other", false),
        ("cdi.k8s.io/vendor_gpu", false),
    ];
    for (index, (key, counts)) in classes.into_iter().enumerate() {
        let mut classed = world.pod(&format!("classed{index}"));
        classed.annotations.insert(key.into(), "gold".into());
        let other = cri.run_pod(&classed).await;
        let made = cri.try_create(&other, &classed, &sleeper("main")).await;
        match counts {
            true => refused(key, made, Unimplemented, key),
            false => drop(made.expect("it is nothing to this container")),
        }
        cri.end_pod(&other).await;
        world.assert_as_before(&before).await;
    }

    let id = cri.run(&pod, &config, &sleeper("main")).await;
    cri.asleep(&id).await;
    let with_main = world.inventory().await;
    let location = world.paths.dir.join("checkpoint.tar");
    let request =
        CheckpointContainerRequest { container_id: id.clone(), location: location.display().to_string(), timeout: 5 };
    refused("a checkpoint", cri.try_checkpoint_container(request).await, Unimplemented, "CheckpointContainer");
    assert!(!location.exists() && cri.container(&id).await.state() == ContainerState::ContainerRunning);
    over_the_core(&world, &id).await;
    world.assert_as_before(&with_main).await;
    cri.end_pod(&pod).await;
}

async fn over_the_core(world: &e2e::World, id: &str) {
    let (core, cx) = (world.core(), Context::new("k8s.io"));
    let checkpoint = t::CheckpointTaskRequest { container_id: id.to_owned(), ..Default::default() };
    let answer = core.tasks.checkpoint(&cx, checkpoint).await;
    fails("a checkpoint as an image", answer, Code::Unimplemented, "checkpoints as images");
    let restore = t::CreateTaskRequest {
        container_id: id.to_owned(),
        checkpoint: Some(types::Descriptor::default()),
        ..Default::default()
    };
    fails("a task of one", core.tasks.create(&cx, restore).await, Code::Unimplemented, "checkpoint image");
    let elsewhere = t::CreateTaskRequest {
        container_id: id.to_owned(),
        task_api_address: "unix:///x".into(),
        ..Default::default()
    };
    fails("a task elsewhere", core.tasks.create(&cx, elsewhere).await, Code::Unimplemented, "sandbox");
    let source = Some(any::pack(&tt::ImageStore::default()));
    let push = |destination: prost_types::Any| transfer::TransferRequest {
        source: source.clone(),
        destination: Some(destination),
        ..Default::default()
    };
    for (what, destination) in [
        ("a push", any::pack(&tt::OciRegistry::default())),
        ("an export", any::pack(&tt::ImageExportStream::default())),
        ("a tag", any::pack(&tt::ImageStore::default())),
    ] {
        let names = any::name(&destination).to_owned();
        fails(what, core.transfer.transfer(&cx, push(destination)).await, Code::Unimplemented, &names);
    }
}

/// A kubelet sends pods by these: what is said must be kept, and what is not said must be refused.
pub async fn features(wiring: Wiring) {
    let world = world(wiring).await;
    let status = world.cri().status(StatusRequest { verbose: true }).await;
    let features = status.features.expect("features");
    assert!(features.supplemental_groups_policy, "the suite of conformance shows Strict at work");
    assert!(!features.user_namespaces_host_network);
    assert!(!status.runtime_handlers.is_empty());
    for handler in status.runtime_handlers {
        let features = handler.features.expect("features");
        assert!(!features.recursive_read_only_mounts && !features.user_namespaces, "{:?}", handler.name);
    }
}
