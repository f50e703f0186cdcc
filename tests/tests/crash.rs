//! SIGKILL for either daemon, at any time: pods go on, nothing that happened meanwhile is lost, nothing is left over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::cri::Cri;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{counter, script, sleeper};
use e2e::random::Random;
use e2e::{Wiring, World, eventually, logs, world};
use shared_proto::cri::v1::*;

e2e::wirings!(running_pods_go_on, killed_in_the_middle, shims_that_died_meanwhile);

/// Kills whichever daemon the dice say, and starts it again after a while. In one process it is always the same one.
async fn kill_one(world: &mut World, random: &mut Random) {
    match random.below(3) {
        0 => world.kill_core(),
        1 => world.kill_cri(),
        _ => {
            world.kill_cri();
            if world.wiring() == Wiring::Split && e2e::world::peer().is_none() {
                world.kill_core();
            }
        }
    }
    tokio::time::sleep(random.millis(0, 400)).await;
    world.spawn();
}

async fn running_pods_go_on(wiring: Wiring) {
    let mut random = Random::new();
    let mut world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;

    // Some count slowly and end one after the other; one writes as fast as it can, so that pipes are full at the kill.
    let config = world.pod("counting");
    let pod = cri.run_pod(&config).await;
    let mut counters = Vec::new();
    for i in 0..4u64 {
        let (last, code) = (600 + 500 * i, 30 + i as i32);
        let id = cri.run(&pod, &config, &counter(&format!("slow{i}"), last, code)).await;
        counters.push((format!("slow{i}"), id, last, code));
    }
    let fast = script("fast", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); echo $i; done; exit 40");
    counters.push(("fast".into(), cri.run(&pod, &config, &fast).await, 300_000, 40));
    let lasting = cri.run(&pod, &config, &counter("lasting", 1_000_000, 0)).await;
    let pid = cri.pid(&lasting).await;

    for _ in 0..8 {
        tokio::time::sleep(random.millis(20, 500)).await;
        kill_one(&mut world, &mut random).await;
    }
    world.ready().await;
    for (name, id, last, code) in &counters {
        let status = eventually(format!("{name} ends"), Duration::from_secs(60), || async {
            match cri.try_container(id).await {
                Ok(status) if status.state() == ContainerState::ContainerExited => Ok(status),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!((status.exit_code, status.reason.as_str()), (*code, "Error"), "{name}");
        assert_eq!(logs::assert_sequence(&logs::read(&world.log("counting", name))), *last, "{name}");
    }
    assert_eq!(cri.pid(&lasting).await, pid);
    assert_eq!(cri.exec_ok(&lasting, &["hostname"]).await, "counting\n");
    cri.try_stop(&lasting, 0).await.expect("stop");
    assert!(logs::assert_sequence(&logs::read(&world.log("counting", "lasting"))) > 500);
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}

/// A kubelet that wants pods, one after the other, and does not give up on an error.
async fn insist(cri: Cri, configs: Vec<PodSandboxConfig>, done: Arc<Mutex<Vec<String>>>) {
    for config in configs {
        let name = config.metadata.as_ref().expect("metadata").name.clone();
        let pod = retry(format!("run pod {name}"), || async { cri.try_run_pod(&config).await }).await;
        let main = script("main", "echo 1; exit 3");
        let id = retry(format!("create in {name}"), || async { cri.try_create(&pod, &config, &main).await }).await;
        retry(format!("start in {name}"), || async {
            match cri.try_start(&id).await {
                // The start before the crash went through.
                Err(_) if cri.try_container(&id).await?.state() != ContainerState::ContainerCreated => Ok(()),
                other => other,
            }
        })
        .await;
        let status = retry(format!("the end of {name}"), || async {
            let status = cri.try_container(&id).await?;
            match status.state() {
                ContainerState::ContainerExited => Ok(status),
                state => Err(tonic::Status::unavailable(format!("{state:?}"))),
            }
        })
        .await;
        // A start that was cut off may count as failed, but an exit code is never made up.
        assert!(
            (status.exit_code, status.reason.as_str()) == (3, "Error") || status.reason == "StartError",
            "{name}: {status:?}"
        );
        retry(format!("stop {name}"), || async { cri.try_stop_pod(&pod).await }).await;
        retry(format!("remove {name}"), || async { cri.try_remove_pod(&pod).await }).await;
        done.lock().expect("lock").push(name);
    }
}

async fn retry<T, F: Future<Output = Result<T, tonic::Status>>>(what: String, call: impl Fn() -> F) -> T {
    let started = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), call()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(e)) if started.elapsed() > Duration::from_secs(40) => panic!("{what}: still {e:?}"),
            Err(_) => panic!("{what}: no answer in 20 s"),
            Ok(Err(e)) => {
                assert!(!e.message().contains("is reserved"), "{what}: {e:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn killed_in_the_middle(wiring: Wiring) {
    let mut random = Random::new();
    let mut world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let configs = (0..4).map(|i| world.pod(&format!("insist-{worker}-{i}"))).collect();
            tokio::spawn(insist(cri.clone(), configs, done.clone()))
        })
        .collect();
    let finished = Arc::new(AtomicBool::new(false));
    let watch = finished.clone();
    let all = tokio::spawn(async move {
        let results = futures::future::join_all(workers).await;
        watch.store(true, Ordering::Relaxed);
        results
    });
    // Kills until the work is done, but leaves longer and longer breaks, so that it gets done.
    let mut pause = 300;
    while !finished.load(Ordering::Relaxed) {
        tokio::time::sleep(random.millis(50, pause)).await;
        if pause < 3000 {
            kill_one(&mut world, &mut random).await;
            pause += 200;
        }
    }
    for result in all.await.expect("join") {
        result.expect("a worker gave up");
    }
    assert_eq!(done.lock().expect("lock").len(), 12);
    world.ready().await;
    // Tries that a crash cut off may have left pods that nobody asks for any more: a kubelet removes those.
    for pod in cri.list_pods(ListPodSandboxRequest::default()).await {
        cri.end_pod(&pod.id).await;
    }
    world.assert_as_before(&before).await;
}

async fn shims_that_died_meanwhile(wiring: Wiring) {
    let mut world = world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let config = world.pod("bereft");
    let pod = cri.run_pod(&config).await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let other_config = world.pod("pauseless");
    let other = cri.run_pod(&other_config).await;
    let other_main = cri.run(&other, &other_config, &sleeper("main")).await;

    let kill = |pid: i32| {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap_or_else(|e| panic!("kill {pid}: {e}"));
    };
    let shim = world.processes().into_iter().find(|(_, line)| line.contains("shim") && line.contains(&pod));
    let (shim, _) = shim.unwrap_or_else(|| panic!("no shim of {pod}: {:?}", world.processes()));
    let main_pid = cri.pid(&id).await;
    let pause = world.ctr(&["-n", "k8s.io", "tasks", "ls"]);
    let pause = pause.lines().find(|l| l.starts_with(&other)).unwrap_or_else(|| panic!("no pause task in {pause}"));
    let pause: i32 = pause.split_whitespace().nth(1).expect("a pid").parse().expect("a pid");
    world.stop();
    kill(shim);
    kill(main_pid);
    kill(pause);
    world.run().await;

    // The shim took the exit status with it: the container has ended, and nobody claims that it ended well.
    let status = cri.exited(&id).await;
    assert_ne!(status.exit_code, 0, "{status:?}");
    for pod in [&pod, &other] {
        eventually("the pod is not ready", Duration::from_secs(5), || async {
            let state = cri.pod_status(pod).await.state();
            if state == PodSandboxState::SandboxNotready { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
    }
    // Its pid namespace was its own, so the container of the pod without pause still runs.
    assert_eq!(cri.container(&other_main).await.state(), ContainerState::ContainerRunning);

    // The same with the daemons up: a dead shim is noticed.
    let live_config = world.pod("live");
    let live = cri.run_pod(&live_config).await;
    let live_main = cri.run(&live, &live_config, &sleeper("main")).await;
    let shim = world.processes().into_iter().find(|(_, line)| line.contains("shim") && line.contains(&live));
    kill(shim.expect("a shim").0);
    let status = cri.exited(&live_main).await;
    assert_ne!(status.exit_code, 0, "{status:?}");
    for pod in [&pod, &other, &live] {
        cri.end_pod(pod).await;
    }
    world.assert_as_before(&before).await;
}

/// In two processes, the core may restart under a CRI daemon that lives on.
#[tokio::test(flavor = "multi_thread")]
async fn the_core_restarts_under_a_live_cri_daemon() {
    let mut world = world(Wiring::Split).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    let before = world.inventory().await;
    let config = world.pod("through");
    let pod = cri.run_pod(&config).await;
    let main = cri.run(&pod, &config, &counter("main", 1_000_000, 0)).await;
    let pid = cri.pid(&main).await;
    let daemon = world.cri_daemon().pid();

    for round in 0..4 {
        let code = 50 + round;
        let name = format!("short{round}");
        let short = cri.run(&pod, &config, &script(&name, &format!("sleep 1; echo bye; exit {code}"))).await;
        world.kill_core();
        let exec = tokio::spawn({
            let (cri, main) = (cri.clone(), main.clone());
            async move { cri.try_exec_in(&main, &["true"], 20).await }
        });
        tokio::time::sleep(Duration::from_millis(if round % 2 == 0 { 1300 } else { 200 })).await;
        // What CRI knows it answers from memory, core or no core.
        assert_eq!(cri.list_containers(ListContainersRequest::default()).await.containers.len(), 2 + round as usize);
        assert_eq!(cri.list_pods(ListPodSandboxRequest::default()).await[0].state(), PodSandboxState::SandboxReady);
        assert_eq!(cri.container(&main).await.state(), ContainerState::ContainerRunning);
        world.spawn();
        world.ready().await;
        // Called while the core was away: an answer or an error, but an end.
        let _ = tokio::time::timeout(Duration::from_secs(20), exec).await.expect("the call ends").expect("join");
        let status = cri.exited(&short).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, "Error"), "round {round}");
        assert_eq!(logs::text(&logs::read(&world.log("through", &name)), "stdout"), "bye\n");
        assert_eq!(cri.pid(&main).await, pid);
        eventually("exec works again", Duration::from_secs(5), || async {
            let answer = cri.try_exec_in(&main, &["hostname"], 5).await.map_err(|e| e.to_string())?;
            if answer.stdout == b"through\n" { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    assert_eq!(world.cri_daemon().pid(), daemon);
    assert!(world.cri_daemon().ended().is_none(), "the CRI daemon lives on");
    assert!(logs::assert_sequence(&logs::read_live(&world.log("through", "main"))) > 1000);
    cri.end_pod(&pod).await;
    world.assert_as_before(&before).await;
}
