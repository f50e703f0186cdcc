//! The wiring is changed under running pods: nothing that a kubelet or a container can see may change.

use std::time::Duration;

use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{counter, script, sleeper};
use e2e::{Wiring, World, logs, world};
use shared_proto::cri::v1::*;

use Wiring::{Loopback, Merged, Split};

/// Every change from one wiring to another, in one walk.
const WALK: [Wiring; 7] = [Split, Merged, Split, Loopback, Merged, Loopback, Split];

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_every_change_of_wiring() {
    let mut world = world(WALK[0]).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let empty = world.inventory().await;

    let config = world.pod("kept");
    let pod = cri.run_pod(&config).await;
    let main = cri.run(&pod, &config, &counter("main", 1_000_000, 0)).await;
    let ended = cri.run(&pod, &config, &script("ended", "echo last words; exit 5")).await;
    assert_eq!(cri.exited(&ended).await.exit_code, 5);
    let created = cri.create(&pod, &config, &sleeper("created")).await;
    let (pid, ip) = (cri.pid(&main).await, cri.pod_ip(&pod).await);
    let status = (cri.pod_status(&pod).await, cri.container(&main).await, cri.container(&ended).await);
    let log = world.log("kept", "main");
    // What a container runs may change at any time.
    let things = |mut inventory: e2e::inventory::Inventory| {
        inventory.retain(|item| !item.contains(" in cgroup "));
        inventory
    };
    let before = things(world.inventory().await);

    let mut seen = 0;
    for (step, &wiring) in WALK.iter().enumerate().skip(1) {
        // One container per step ends while nobody watches.
        let code = 20 + step as i32;
        let name = format!("unwatched{step}");
        let unwatched = cri.run(&pod, &config, &script(&name, &format!("sleep 1; echo bye; exit {code}"))).await;
        world.stop();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        world.switch(wiring).await;

        let seam = cri.status(StatusRequest { verbose: true }).await.info["seam"].clone();
        assert!(seam.contains(wiring.name()), "step {step}: the wiring is told: {seam}");
        assert_eq!(cri.pid(&main).await, pid, "step {step}: the same process");
        assert_eq!(cri.pod_ip(&pod).await, ip);
        let now = (cri.pod_status(&pod).await, cri.container(&main).await, cri.container(&ended).await);
        assert_eq!(now, status, "step {step}: nothing that is told has changed");
        assert_eq!(cri.container(&created).await.state(), ContainerState::ContainerCreated);
        assert_eq!(cri.exec_ok(&main, &["cat", "/proc/sys/kernel/hostname"]).await, "kept\n");
        let end = cri.exited(&unwatched).await;
        assert_eq!((end.exit_code, end.reason.as_str()), (code, "Error"), "step {step}");
        assert_eq!(logs::text(&logs::read(&world.log("kept", &name)), "stdout"), "bye\n");
        cri.try_remove(&unwatched).await.expect("remove");

        let last = e2e::eventually(format!("step {step}: the log goes on"), Duration::from_secs(5), || async {
            let last = logs::assert_sequence(&logs::read_live(&log));
            if last > seen { Ok(last) } else { Err(format!("it is at {last} since before")) }
        })
        .await;
        seen = last;
        // Restarts leave nothing behind, and take nothing away.
        let after = things(world.inventory().await);
        let changed: Vec<_> = after.symmetric_difference(&before).collect();
        assert!(changed.is_empty(), "step {step}: {changed:#?}");
    }

    cri.try_start(&created).await.expect("a container created five wirings ago starts");
    cri.try_stop(&main, 0).await.expect("stop");
    logs::assert_sequence(&logs::read(&log));
    cri.end_pod(&pod).await;
    world.assert_as_before(&empty).await;
}

/// What `ctr` shows of a pod's records, with this run's own names taken out.
async fn records(wiring: Wiring) -> Vec<serde_json::Value> {
    // One form of the configuration for all, so that only the wiring differs.
    let options = e2e::config::Options { version: 3, ..e2e::config::Options::new(wiring) };
    let world = World::start(wiring, options).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let config = world.pod("recorded");
    let pod = cri.run_pod(&config).await;
    let main = cri.run(&pod, &config, &sleeper("main")).await;
    let pause = world.ctr(&["-n", "k8s.io", "tasks", "ls"]);
    let pause = pause.lines().find(|l| l.starts_with(&pod)).expect("the pause task");
    let pause = pause.split_whitespace().nth(1).expect("a pid").to_owned();
    let (ip, dir, slot) = (cri.pod_ip(&pod).await, world.paths.dir.display().to_string(), world.slot.name());
    let clean = |id: &str| {
        let mut text = world.ctr(&["-n", "k8s.io", "containers", "info", id]);
        for (own, general) in [
            (pod.as_str(), "POD"),
            (main.as_str(), "MAIN"),
            (dir.as_str(), "DIR"),
            (ip.as_str(), "IP"),
            (slot.as_str(), "SLOT"),
            (&format!("/proc/{pause}/"), "/proc/PAUSE/"),
        ] {
            text = text.replace(own, general);
        }
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for time in ["CreatedAt", "UpdatedAt"] {
            value[time] = "TIME".into();
        }
        scrub(&mut value);
        value
    };
    let records = vec![clean(&pod), clean(&main)];
    cri.end_pod(&pod).await;
    records
}

/// Takes out what is random: the name of the network namespace, and options and extensions, which are bytes to `ctr`.
fn scrub(value: &mut serde_json::Value) {
    value["Runtime"]["Options"]["value"] = "BYTES".into();
    for extension in value["Extensions"].as_object_mut().expect("extensions").values_mut() {
        extension["value"] = "BYTES".into();
    }
    let namespaces = value["Spec"]["linux"]["namespaces"].as_array_mut().expect("namespaces");
    for namespace in namespaces {
        if namespace["type"] == "network" {
            let path = namespace["path"].as_str().unwrap_or_default().to_owned();
            namespace["path"] = path.rsplit_once('/').map_or("", |(dir, _)| dir).into();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_the_same_in_every_wiring() {
    let split = records(Split).await;
    assert_eq!(records(Loopback).await, split);
    assert_eq!(records(Merged).await, split);
}
