//! A pod whose surroundings fail: each failure names what failed, nothing of the pod is left, and the same request
//! succeeds once the cause is gone. What CNI's own plugins say is in `network.rs`, retries are in `churn.rs`.

use std::os::unix::fs::PermissionsExt as _;

use e2e::config::Options;
use e2e::cri::Answer;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::sleeper;
use e2e::{Wiring, World};
use serde_json::{Value, json};
use shared_proto::cri::v1::*;
use tonic::Code::{self, Internal, InvalidArgument, NotFound, Unavailable, Unknown};

use crate::refused;

fn script(path: &std::path::Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
}

/// Puts these plugins behind the world's own bridge.
fn chain(world: &World, more: &[Value]) {
    let path = world.paths.cni_conf.join("10-seam.conflist");
    let text = std::fs::read_to_string(world.paths.dir.join("good.conflist")).expect("read the network");
    let mut list: Value = serde_json::from_str(&text).expect("it is JSON");
    let plugins = list["plugins"].as_array_mut().expect("plugins");
    plugins.extend(more.iter().cloned());
    let temporary = world.paths.cni_conf.join("new.tmp");
    std::fs::write(&temporary, list.to_string()).expect("write the network");
    std::fs::rename(temporary, path).expect("put the network in place");
}

pub async fn networks_that_fail(wiring: Wiring) {
    let world = e2e::world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    let before = world.inventory().await;
    let good = world.paths.cni_conf.join("10-seam.conflist");
    std::fs::copy(&good, world.paths.dir.join("good.conflist")).expect("keep the network");
    // A pod without an address comes of a chain that answers none, and of one that answers nothing.
    for (name, text) in [
        ("babbles", "cat >/dev/null; echo 'no JSON at all'"),
        (
            "forgets",
            r#"cat >/dev/null; [ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"0.4.0","interfaces":[],"ips":[]}' || :"#,
        ),
        ("dies", "cat >/dev/null; echo 'not today' >&2; [ \"$CNI_COMMAND\" = ADD ] && kill -9 $$ || :"),
    ] {
        script(&world.paths.cni_bin.join(name), text);
    }
    std::fs::write(world.paths.cni_bin.join("plain"), "").expect("write a file that is no program");
    let network = world.slot.name();
    let cases: [(&str, Code, [&str; 2]); 5] = [
        ("missing", Internal, ["\"missing\"", &world.paths.cni_bin.display().to_string()]),
        ("plain", Internal, ["\"plain\"", &world.paths.cni_bin.display().to_string()]),
        ("babbles", Internal, ["\"babbles\" (ADD", "no JSON at all"]),
        ("forgets", Internal, [&network, "eth0"]),
        ("dies", Internal, ["\"dies\" (ADD", "not today"]),
    ]
    .map(|(name, code, names)| (name, code, names.map(str::to_owned)))
    .map(|(name, code, names)| (name, code, names.map(|n| &*Box::leak(n.into_boxed_str()))));
    for (plugin, code, names) in cases {
        chain(&world, &[json!({"type": plugin})]);
        let answer = cri.try_run_pod(&world.pod("failing")).await;
        for name in names {
            refused(plugin, answer.clone(), code, name);
        }
        world.assert_as_before(&before).await;
    }

    // Configurations that are none: the node is not ready, and says which file.
    for (what, text) in [
        ("no JSON", "{ \"name\": "),
        ("no name", r#"{"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}"#),
        ("no plugins", r#"{"cniVersion": "1.0.0", "name": "empty", "plugins": []}"#),
        ("a plugin without a type", r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{}]}"#),
    ] {
        std::fs::write(&good, text).expect("write a broken network");
        refused(what, cri.try_run_pod(&world.pod("failing")).await, Internal, "10-seam.conflist");
        let conditions = cri.status(StatusRequest::default()).await.status.expect("status").conditions;
        let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady").expect("NetworkReady");
        assert!(!network.status && network.message.contains("10-seam.conflist"), "{what}: {network:?}");
        world.assert_as_before(&before).await;
    }

    // All is well with the next call.
    chain(&world, &[]);
    let pod = cri.run_pod(&world.pod("failing")).await;
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

pub async fn shims_that_fail(wiring: Wiring) {
    let mut options = Options::new(wiring);
    let own = tempfile::tempdir().expect("make a folder");
    let path = |name: &str| own.path().join(name).display().to_string();
    script(&own.path().join("fails"), "cat >/dev/null; echo 'no more shims' >&2; exit 3");
    script(&own.path().join("babbles"), "cat >/dev/null; echo 'at home'");
    script(&own.path().join("lies"), &format!("cat >/dev/null; echo unix://{}", path("nobody-listens")));
    let of = |name: &str| format!("runtime_path = \"{}\"", path(name));
    options.handlers = vec![
        ("absent", of("absent")),
        ("fails", of("fails")),
        ("babbles", of("babbles")),
        ("lies", of("lies")),
        ("relative", "runtime_path = \"shim\"".into()),
    ];
    options.faulty_engine = true;
    // Another engine for the same shim: there is no such program.
    options.handlers.push(("engineless", String::new()));
    let mut world = World::prepare(wiring, options);
    let text = std::fs::read_to_string(&world.paths.config).expect("read the configuration");
    let at = text.find(".engineless.options]").expect("the handler's options");
    let (head, tail) = text.split_at(at);
    let engine = world.paths.gate.join("runc").display().to_string();
    let text = head.to_owned() + &tail.replacen(&engine, "/no/such/engine", 1);
    std::fs::write(&world.paths.config, text).expect("write the configuration");
    world.run().await;
    let cri = world.cri();
    for reference in [PAUSE, BUSYBOX] {
        world.pull(reference).await;
    }
    let before = world.inventory().await;
    let run = async |handler: &str| -> Answer<RunPodSandboxResponse> {
        let config = Some(world.pod("shimless"));
        cri.try_run_pod_sandbox(RunPodSandboxRequest { config, runtime_handler: handler.into() }).await
    };
    for (handler, code, names) in [
        ("absent", InvalidArgument, path("absent").as_str()),
        ("relative", InvalidArgument, "\"shim\""),
        ("fails", Unknown, "no more shims"),
        ("babbles", Unknown, "at home"),
        ("lies", Unavailable, "nobody-listens"),
        ("engineless", Unknown, "/no/such/engine"),
    ] {
        let answer = run(handler).await;
        refused(handler, answer.clone(), code, names);
        refused(handler, answer, code, "shimless_e2e_uid-shimless_0");
        world.assert_as_before(&before).await;
    }

    // The engine fails on the pause container, on a container's creation, and on its start.
    let config = world.pod("runc-fail");
    refused("the pause container", cri.try_run_pod(&config).await, Unknown, "asked for a failure");
    world.assert_as_before(&before).await;
    let config = world.pod("fine");
    let pod = cri.run_pod(&config).await;
    let with_pod = world.inventory().await;
    for (container, why) in [
        (e2e::pod::container("runc-fail", &["true"]), "asked for a failure"),
        (e2e::pod::container("commandless", &["/no/such/command"]), "/no/such/command"),
    ] {
        let id = cri.create(&pod, &config, &container).await;
        let answer = cri.try_start(&id).await;
        for names in [why, &id] {
            refused("a start that fails", answer.clone(), Unknown, names);
        }
        let status = cri.container(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
        assert!(status.message.contains(why), "{status:?}");
        cri.try_remove(&id).await.expect("remove");
        world.assert_as_before(&with_pod).await;
    }
    cri.end_pod(&pod).await;

    // The sandbox image can't be had: told before anything is made.
    cri.remove_image(RemoveImageRequest { image: Some(e2e::cri::image(PAUSE)) }).await;
    let without = world.inventory().await;
    std::fs::remove_dir_all(world.paths.dir.join("storage/docker/registry/v2/repositories/pause")).expect("empty");
    let answer = cri.try_run_pod(&world.pod("imageless")).await;
    for names in [PAUSE, "imageless_e2e_uid-imageless_0"] {
        // The mirror has none, and the registry itself, whose word counts, can't be reached from a test.
        refused("no sandbox image", answer.clone(), Unavailable, names);
    }
    world.assert_as_before(&without).await;
    let create = cri.try_create("none", &config, &sleeper("main")).await;
    refused("and no pod", create, NotFound, "none");
}
