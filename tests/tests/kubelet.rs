//! A real kubelet runs static pods on each wiring, over CRI v1alpha2.
//!
//! These tests need a kubelet and take minutes, so `cargo test` counts them as ignored; `make test-kubelet` builds
//! the kubelet, keeps it outside the tree and runs them. `make test` runs them where it is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::config::Options;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::kubectl::{self, Front, Route};
use e2e::kubelet::{Kubelet, container, is_ready};
use e2e::recorder::{self, Recorder, calls, explained};
use e2e::{Wiring, World, eventually, logs, world};
use serde_json::{Value, json};
use shared_proto::cri::v1::*;

/// One test a wiring, each ignored by default.
macro_rules! wirings {
    ($($script:ident),+ $(,)?) => { $(
        mod $script {
            use e2e::Wiring;
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a kubelet: make test-kubelet"]
            async fn split() { super::$script(Wiring::Split).await }
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a kubelet: make test-kubelet"]
            async fn loopback() { super::$script(Wiring::Loopback).await }
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a kubelet: make test-kubelet"]
            async fn merged() { super::$script(Wiring::Merged).await }
        }
    )+ };
}

wirings!(
    a_node_full_of_pods,
    probes_volumes_and_ports,
    restarts_and_ends,
    the_kubelets_own_api,
    kubectl_through_the_kubelet,
    restarts_under_running_pods,
    garbage_is_collected,
    its_traffic_is_replayed,
);

/// A world with the images that pods name, and nothing else.
async fn node(wiring: Wiring) -> World {
    let world = world(wiring).await;
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    world
}

fn shell(name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
    })
}

/// A script that runs until SIGTERM and ends at once then.
const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

fn one(container: Value) -> Value {
    json!({"containers": [container], "terminationGracePeriodSeconds": 2})
}

async fn a_node_full_of_pods(wiring: Wiring) {
    const PODS: usize = 105;
    let world = node(wiring).await;
    let before = world.inventory().await;
    let kubelet = Kubelet::start(&world, &[]).await;
    let started = Instant::now();
    for i in 0..PODS {
        kubelet.add(&format!("p{i}"), one(shell("main", FOREVER)));
    }
    eventually("105 pods are ready", Duration::from_secs(240), || async {
        let pods = kubelet.pods().await;
        let ready = pods.iter().filter(|pod| is_ready(&pod["status"])).count();
        if ready == PODS { Ok(()) } else { Err(format!("{ready} of {}", pods.len())) }
    })
    .await;
    println!("{}: {PODS} pods ready in {:.1} s", wiring.name(), started.elapsed().as_secs_f64());

    // Every pod has an address of its own, and the runtime agrees with the kubelet.
    let pods = kubelet.pods().await;
    let ips: std::collections::BTreeSet<_> = pods.iter().filter_map(|p| p["status"]["podIP"].as_str()).collect();
    assert_eq!(ips.len(), PODS, "each pod has an address of its own");
    assert_eq!(world.cri().list_pods(Default::default()).await.len(), PODS);
    let summary = kubelet.summary().await;
    assert_eq!(summary["pods"].as_array().map(Vec::len), Some(PODS), "the summary has every pod");

    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(240)).await;
    println!("{}: all gone after {:.1} s", wiring.name(), started.elapsed().as_secs_f64());
    ended(kubelet, &world, &before).await;
}

async fn kubectl_through_the_kubelet(wiring: Wiring) {
    let world = node(wiring).await;
    let before = world.inventory().await;
    let kubelet = Arc::new(Kubelet::start(&world, &[]).await);
    let text = "mkdir /tmp/www; echo page >/tmp/www/index.html; httpd -p 8080 -h /tmp/www; \
                while read -r line; do echo \"got $line\"; done; exit 3";
    let mut main = shell("main", text);
    main["stdin"] = true.into();
    kubelet.add("streams", one(main));
    kubelet.ready("streams").await;
    let at = kubelet.clone();
    let route: Route = Arc::new(move |what, query| {
        let address = at.stream(what, "streams", "main", &query);
        Box::pin(async move { address })
    });
    let front = Front::start(route).await;
    for websockets in [false, true] {
        kubectl::exercise(&front, &world.paths.dir, websockets).await;
    }
    drop(front);
    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(60)).await;
    let kubelet = Arc::into_inner(kubelet).expect("nobody else has it");
    ended(kubelet, &world, &before).await;
}

/// Stops the kubelet, and looks for what was left behind.
async fn ended(kubelet: Kubelet, world: &World, before: &e2e::inventory::Inventory) {
    kubelet.end(world);
    world.assert_as_before(before).await;
}

async fn probes_volumes_and_ports(wiring: Wiring) {
    let world = node(wiring).await;
    let before = world.inventory().await;
    let kubelet = Kubelet::start(&world, &[]).await;
    let shared = world.paths.dir.join("shared");
    let port = world.slot.host_port(0);
    let quick = |kind: &str, probe: Value| {
        let mut all = json!({"periodSeconds": 1, "failureThreshold": 60});
        all[kind] = probe;
        all
    };

    let mut web = shell("web", "echo hello >/tmp/index.html; exec httpd -f -p 8080 -h /tmp");
    web["ports"] = json!([{"containerPort": 8080, "hostPort": port}]);
    web["readinessProbe"] = quick("httpGet", json!({"path": "/index.html", "port": 8080}));
    web["livenessProbe"] = quick("tcpSocket", json!({"port": 8080}));
    kubelet.add("web", one(web));

    let mut asked = shell("asked", &format!("sleep 2; touch /tmp/up; {FOREVER}"));
    asked["readinessProbe"] = quick("exec", json!({"command": ["test", "-e", "/tmp/up"]}));
    kubelet.add("asked", one(asked));

    let mut writer = shell("writer", &format!("echo from-writer >/empty/file; cp /empty/file /host/out; {FOREVER}"));
    writer["volumeMounts"] = json!([{"name": "e", "mountPath": "/empty"}, {"name": "h", "mountPath": "/host"}]);
    let mut reader = shell("reader", &format!("until cat /empty/file; do usleep 100000; done; {FOREVER}"));
    reader["volumeMounts"] = json!([{"name": "e", "mountPath": "/empty", "readOnly": true}]);
    let mut first = shell("first", "echo first >/empty/order");
    first["volumeMounts"] = json!([{"name": "e", "mountPath": "/empty"}]);
    let mut second = shell("second", "grep first /empty/order && echo second >>/empty/order");
    second["volumeMounts"] = json!([{"name": "e", "mountPath": "/empty"}]);
    kubelet.add(
        "volumes",
        json!({
            "containers": [writer, reader], "initContainers": [first, second], "terminationGracePeriodSeconds": 2,
            "volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "h", "hostPath": {"path": shared, "type": "DirectoryOrCreate"}},
            ],
        }),
    );

    let ip = kubelet.ready("web").await;
    let get = |address: String| async move {
        let answer = reqwest::get(format!("http://{address}/index.html")).await.map_err(|e| e.to_string())?;
        answer.text().await.map_err(|e| e.to_string())
    };
    assert_eq!(get(format!("{ip}:8080")).await.as_deref(), Ok("hello\n"), "through the pod's address");
    // Loopback is left out by the network's `snat: false`; the gateway's address is one of the host's own.
    let gateway = world.slot.subnet().replace(".0/24", ".1");
    assert_eq!(get(format!("{gateway}:{port}")).await.as_deref(), Ok("hello\n"), "through the host port");
    kubelet.ready("asked").await;
    kubelet.ready("volumes").await;
    assert_eq!(std::fs::read_to_string(shared.join("out")).expect("read hostPath"), "from-writer\n");
    assert_eq!(kubelet.container_log("volumes", "reader", "").await.lines().last(), Some("from-writer"));
    let order = kubelet.run_command("volumes", "reader", "cat%20/empty/order").await;
    assert_eq!(order.as_deref(), Ok("first\nsecond\n"), "init containers ran one after the other");

    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(60)).await;
    let _ = std::fs::remove_dir_all(&shared);
    ended(kubelet, &world, &before).await;
}

async fn restarts_and_ends(wiring: Wiring) {
    let world = node(wiring).await;
    let before = world.inventory().await;
    let kubelet = Kubelet::start(&world, &[]).await;
    let minute = Duration::from_secs(60);

    let policy = |mut spec: Value, policy: &str| {
        spec["restartPolicy"] = policy.into();
        spec
    };
    kubelet.add("crash", one(shell("main", "echo dying; exit 3")));
    kubelet.add("done", policy(one(shell("main", "exit 0")), "OnFailure"));
    kubelet.add("never", policy(one(shell("main", "exit 4")), "Never"));
    let mut said = shell("main", "echo why I died >/dev/termination-log; exit 1");
    said["terminationMessagePath"] = "/dev/termination-log".into();
    kubelet.add("said", policy(one(said), "Never"));
    let mut hungry = shell("main", "tail /dev/zero");
    hungry["resources"] = json!({"limits": {"memory": "16Mi"}});
    kubelet.add("hungry", policy(one(hungry), "Never"));
    let mut sick = shell("main", FOREVER);
    sick["livenessProbe"] = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    sick["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    kubelet.add("sick", one(sick));

    let ended_with = |what: &'static str| {
        move |status: &Value| {
            container(status, "main").map(|c| c.state["terminated"].clone()).filter(|t| t["reason"] == what)
        }
    };
    let end = kubelet.wait("done", "completed", minute, ended_with("Completed")).await;
    assert_eq!(end["exitCode"], 0);
    let end = kubelet.wait("never", "failed", minute, ended_with("Error")).await;
    assert_eq!(end["exitCode"], 4);
    let end = kubelet.wait("said", "left a message", minute, ended_with("Error")).await;
    assert_eq!(end["message"], "why I died\n");
    let end = kubelet.wait("hungry", "out of memory", minute, ended_with("OOMKilled")).await;
    assert_eq!(end["exitCode"], 137);
    kubelet
        .wait("crash", "in back-off", minute, |status| {
            let main = container(status, "main")?;
            (main.restarts >= 1
                && main.state["waiting"]["reason"] == "CrashLoopBackOff"
                && main.last["terminated"]["exitCode"] == 3)
                .then_some(())
        })
        .await;
    kubelet
        .wait("sick", "restarted by its probe", minute, |status| {
            container(status, "main").filter(|c| c.restarts >= 1).map(drop)
        })
        .await;

    kubelet.remove_all();
    kubelet.gone(&world, minute).await;
    ended(kubelet, &world, &before).await;
}

async fn the_kubelets_own_api(wiring: Wiring) {
    let world = node(wiring).await;
    let before = world.inventory().await;
    let kubelet = Kubelet::start(&world, &["--container-log-max-size=16Ki", "--container-log-max-files=3"]).await;
    kubelet.add(
        "talks",
        one(shell("main", "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 1000; done")),
    );
    kubelet.add("quiet", one(shell("main", "echo only this; exec nc -ll -p 7777 -e cat")));
    kubelet.ready("talks").await;
    kubelet.ready("quiet").await;

    // Logs and commands.
    assert_eq!(kubelet.container_log("quiet", "main", "").await, "only this\n");
    assert_eq!(kubelet.container_log("talks", "main", "limitBytes=2").await, "1\n");
    assert_eq!(kubelet.run_command("quiet", "main", "echo%20hello").await.as_deref(), Ok("hello\n"));
    let failed = kubelet.run_command("quiet", "main", "false").await;
    assert!(failed.as_ref().is_err_and(|e| e.contains("exit")), "a failing command: {failed:?}");

    // Rotation: the log is cut into files, and no line is missing between the oldest and the newest.
    let dir = eventually("the log is rotated", Duration::from_secs(60), || async {
        let pods = std::fs::read_dir(e2e::kubelet::POD_LOGS).map_err(|e| e.to_string())?;
        let name = format!("default_{}_", kubelet.full_name("talks"));
        let pod = pods.flatten().find(|e| e.file_name().to_string_lossy().starts_with(&name)).ok_or("no folder")?;
        let dir = pod.path().join("main");
        let files = std::fs::read_dir(&dir).map_err(|e| e.to_string())?.count();
        if files >= 2 { Ok(dir) } else { Err(format!("{files} files in {}", dir.display())) }
    })
    .await;
    let current = dir.join("0.log");
    eventually("the new log grows", Duration::from_secs(10), || async {
        let length = std::fs::metadata(&current).map_err(|e| e.to_string())?.len();
        if length > 0 { Ok(()) } else { Err("it is empty".into()) }
    })
    .await;
    let mut rotated: Vec<_> = std::fs::read_dir(&dir).expect("list logs").flatten().map(|e| e.path()).collect();
    rotated.retain(|path| *path != current && path.extension().is_none_or(|e| e != "gz" && e != "tmp"));
    rotated.sort();
    let last = rotated.last().expect("a rotated file");
    let number = |line: &logs::Line| line.text.trim().parse::<u64>().expect("a number");
    let old = logs::read(last);
    let new = logs::read_live(&current);
    if let (Some(end), Some(start)) = (old.last(), new.first()) {
        assert_eq!(number(end) + 1, number(start), "no line is lost between {} and the new log", last.display());
    }

    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(60)).await;
    ended(kubelet, &world, &before).await;
}

async fn restarts_under_running_pods(wiring: Wiring) {
    let mut world = node(wiring).await;
    let before = world.inventory().await;
    let mut kubelet = Kubelet::start(&world, &[]).await;
    let names = ["a", "b", "c", "d"];
    for name in names {
        kubelet.add(name, one(shell("main", FOREVER)));
    }
    for name in names {
        kubelet.ready(name).await;
    }
    let ids = |pods: Vec<Value>| {
        let mut all: Vec<_> =
            pods.iter().filter_map(|p| container(&p["status"], "main")).map(|c| (c.id, c.restarts)).collect();
        all.sort();
        all
    };
    let first = ids(kubelet.pods().await);
    assert_eq!(first.len(), names.len());
    let same = async |kubelet: &Kubelet, what: &str| {
        assert_eq!(ids(kubelet.pods().await), first, "{what}: the same containers, none restarted");
    };
    // Long enough for the kubelet to look again and to act on what it sees.
    const LOOKS: Duration = Duration::from_secs(3);

    kubelet.stop();
    kubelet.run().await;
    for name in names {
        kubelet.ready(name).await;
    }
    same(&kubelet, "the kubelet was restarted").await;

    world.restart().await;
    tokio::time::sleep(LOOKS).await;
    same(&kubelet, "the runtime was restarted").await;

    world.kill_core();
    world.run().await;
    tokio::time::sleep(LOOKS).await;
    same(&kubelet, "the core was killed").await;

    world.kill_cri();
    world.run().await;
    tokio::time::sleep(LOOKS).await;
    same(&kubelet, "the CRI side was killed").await;

    // A container that ends while the runtime is down is seen with its own code, and started again.
    kubelet.add("brief", one(shell("main", "sleep 4; exit 9")));
    kubelet.ready("brief").await;
    world.stop();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.run().await;
    kubelet
        .wait("brief", "its end was seen", Duration::from_secs(60), |status| {
            let main = container(status, "main")?;
            (main.last["terminated"]["exitCode"] == 9 || main.state["terminated"]["exitCode"] == 9).then_some(())
        })
        .await;
    for name in names {
        kubelet.ready(name).await;
    }

    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(60)).await;
    ended(kubelet, &world, &before).await;
}

async fn garbage_is_collected(wiring: Wiring) {
    let world = node(wiring).await;
    let flags = [
        "--maximum-dead-containers-per-container=1",
        "--maximum-dead-containers=2",
        "--minimum-container-ttl-duration=0s",
    ];
    world.pull(e2e::fixtures::DOCKER).await;
    let mut kubelet = Kubelet::start(&world, &flags).await;
    kubelet.add("crash", one(shell("main", "exit 1")));
    kubelet
        .wait("crash", "restarted twice", Duration::from_secs(90), |status| {
            container(status, "main").filter(|c| c.restarts >= 2).map(drop)
        })
        .await;
    let cri = world.cri();
    eventually("dead containers are collected", Duration::from_secs(90), || async {
        let all = cri.list_containers(ListContainersRequest::default()).await.containers;
        if all.len() <= 3 { Ok(()) } else { Err(format!("{} containers", all.len())) }
    })
    .await;
    kubelet.remove_all();
    kubelet.gone(&world, Duration::from_secs(90)).await;

    // A disk that is always too full: the kubelet removes what no pod uses, the sandbox image apart.
    kubelet.restart_with(&["--eviction-hard=imagefs.available<99%", "--minimum-image-ttl-duration=0s"]).await;
    eventually("unused images are collected", Duration::from_secs(90), || async {
        let left = [cri.find_image(BUSYBOX).await, cri.find_image(e2e::fixtures::DOCKER).await];
        if left.iter().all(Option::is_none) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert!(cri.find_image(PAUSE).await.is_some(), "the sandbox image stays");
}

/// What a kubelet asks of one runtime is asked of others, with the same answers.
async fn its_traffic_is_replayed(wiring: Wiring) {
    let home = node(wiring).await;
    let recorder = Recorder::start(&home, "kubelet").await;
    let mut kubelet = Kubelet::start_at(&recorder.socket, &home, &[]).await;
    kubelet.add("steady", one(shell("main", FOREVER)));
    let mut probed = shell("main", FOREVER);
    probed["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    kubelet.add("probed", one(probed));
    kubelet.add("crash", one(shell("main", "sleep 1; exit 4")));
    kubelet.ready("steady").await;
    kubelet.ready("probed").await;
    let restarted = |status: &Value| container(status, "main").filter(|c| c.restarts >= 1).map(drop);
    kubelet.wait("crash", "restarted", Duration::from_secs(60), restarted).await;
    kubelet.remove_all();
    kubelet.gone(&home, Duration::from_secs(60)).await;
    kubelet.stop();
    let (file, lines) = recorder.stop();
    let asked = calls(&lines, "/runtime.v1alpha2.RuntimeService/ListPodSandbox").len();
    assert!(asked > 10, "a kubelet lists pods all the time: {asked}");

    let elsewhere = match wiring {
        Wiring::Split => Wiring::Merged,
        Wiring::Loopback => Wiring::Split,
        Wiring::Merged => Wiring::Loopback,
    };
    for wiring in [wiring, elsewhere] {
        let other = node(wiring).await;
        explained(&recorder::replay(&file, &home, &other, &["--speed", "4", "--make-paths"]));
    }
    let mut options = Options::new(wiring);
    options.peer = Some("containerd");
    let peer = World::start(wiring, options).await;
    peer.pull(PAUSE).await;
    peer.pull(BUSYBOX).await;
    explained(&recorder::replay(&file, &home, &peer, &["--speed", "4", "--make-paths"]));
}
