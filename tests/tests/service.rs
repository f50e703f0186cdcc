//! What a service manager sees of the daemons: when they are ready, that one which can't start ends, and their logs.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use e2e::config::Options;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{ready, sleeper};
use e2e::{Wiring, World, eventually};
use shared_proto::cri::v1::{RunPodSandboxRequest, StatusRequest};
use tokio::net::UnixDatagram;

e2e::wirings!(
    the_manager_is_told,
    what_can_not_start_ends,
    a_base_spec_that_is_none_ends_it,
    a_base_spec_is_used,
    journald_adds_the_time_itself,
    calls_under_way_are_answered
);

const SOON: Duration = Duration::from_secs(20);

/// A world whose daemons tell this socket, which is what systemd gives to a unit of type `notify`.
fn watched(wiring: Wiring) -> (World, UnixDatagram) {
    let mut world = World::prepare(wiring, Options::new(wiring));
    let path = world.paths.dir.join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind the manager's socket");
    world.options.environment.push(("NOTIFY_SOCKET", path.display().to_string()));
    (world, socket)
}

/// How many daemons there are.
fn daemons(wiring: Wiring) -> usize {
    match wiring {
        Wiring::Split => 2,
        Wiring::Loopback | Wiring::Merged => 1,
    }
}

async fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = tokio::time::timeout(SOON, socket.recv(&mut buffer)).await.expect("in time").expect("receive");
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

async fn the_manager_is_told(wiring: Wiring) {
    let (mut world, socket) = watched(wiring);
    world.spawn();
    for _ in 0..daemons(wiring) {
        assert_eq!(told(&socket).await, "READY=1");
    }
    // Whoever was ordered after them is served at once.
    let began = std::time::Instant::now();
    world.cri().status(StatusRequest::default()).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    world.stop();
    for _ in 0..daemons(wiring) {
        assert_eq!(told(&socket).await, "STOPPING=1");
    }
    let mut buffer = [0; 256];
    socket.try_recv(&mut buffer).expect_err("nothing more");
}

/// A daemon whose CRI side can't start is not ready and does not stay: the manager may try again, and says so.
async fn what_can_not_start_ends(wiring: Wiring) {
    let (mut world, socket) = watched(wiring);
    std::fs::create_dir_all(&world.paths.state).expect("make the state folder");
    File::create(world.paths.state.join("io.containerd.grpc.v1.cri")).expect("put a file where a folder belongs");
    world.spawn();
    let mut all = vec![told(&socket).await];
    if wiring == Wiring::Split {
        // The core is well; either may be the first.
        all.push(told(&socket).await);
        all.sort();
        assert_eq!(all.remove(0), "READY=1");
    }
    assert_eq!(all, ["STOPPING=1"]);
    let daemon = std::cell::RefCell::new(&mut world);
    let status = eventually("the daemon ends", SOON, || {
        let ended = daemon.borrow_mut().cri_daemon().ended();
        std::future::ready(ended.ok_or_else(|| "it runs".to_owned()))
    })
    .await;
    assert_eq!(status.code(), Some(1), "{status}");
    let log = world.logs();
    assert!(log.contains("make the folders of pods"), "{log}");
}

/// A world whose handler `based` has this text as its base spec, and the path of that.
fn based(wiring: Wiring, text: &str) -> (World, std::path::PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("make a folder");
    let file = dir.path().join("base.json");
    std::fs::write(&file, text).expect("write the base spec");
    let mut options = Options::new(wiring);
    options.handlers = vec![("based", format!("base_runtime_spec = \"{}\"", file.display()))];
    (World::prepare(wiring, options), file, dir)
}

async fn a_base_spec_that_is_none_ends_it(wiring: Wiring) {
    let (mut world, file, _dir) = based(wiring, "{ no JSON");
    world.spawn();
    let daemon = std::cell::RefCell::new(&mut world);
    let status = eventually("the daemon ends", SOON, || {
        let ended = daemon.borrow_mut().cri_daemon().ended();
        std::future::ready(ended.ok_or_else(|| "it runs".to_owned()))
    })
    .await;
    assert_eq!(status.code(), Some(1), "{status}");
    let log = world.logs();
    assert!(log.contains("\"based\"") && log.contains(&file.display().to_string()), "{log}");
}

async fn a_base_spec_is_used(wiring: Wiring) {
    let text = r#"{"ociVersion": "1.0.2", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["BASE=yes"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 777}]}}"#;
    let (mut world, _, _dir) = based(wiring, text);
    world.run().await;
    let cri = world.cri();
    for reference in [PAUSE, BUSYBOX] {
        world.pull(reference).await;
    }
    for (handler, told) in [("based", "777 yes\n"), ("runc", "other\n")] {
        let config = world.pod(handler);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        let pod = cri.run_pod_sandbox(request).await.pod_sandbox_id;
        let id = cri.run(&pod, &config, &sleeper("main")).await;
        // The hard limit: runc itself raises the soft one at times.
        let script = "[ -n \"$BASE\" ] && echo $(ulimit -Hn) $BASE || echo other";
        assert_eq!(cri.exec_ok(&id, &["sh", "-c", script]).await, told, "{handler}");
        cri.end_pod(&pod).await;
    }
}

/// A line has its priority then, and neither colours nor the time. A variable that was inherited from a service means
/// nothing to a process whose output goes elsewhere.
async fn journald_adds_the_time_itself(wiring: Wiring) {
    let mut world = World::prepare(wiring, Options::new(wiring));
    let log = world.paths.dir.join("core-daemon.log");
    let stream = File::create(&log).and_then(|file| file.metadata()).expect("make the log");
    world.options.environment.push(("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino())));
    world.run().await;
    world.stop();
    let text = std::fs::read_to_string(&log).expect("read the log");
    assert!(text.lines().count() > 2 && text.contains("core-daemon serves"), "{text}");
    for line in text.lines() {
        let (priority, rest) = line.split_at(3.min(line.len()));
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line}");
        assert!(!rest.contains('\u{1b}') && rest.trim_start().starts_with(char::is_uppercase), "{line}");
    }
    assert!(text.contains("<6> INFO"), "{text}");
    if wiring == Wiring::Split {
        let other = std::fs::read_to_string(world.paths.dir.join("cri-daemon.log")).expect("read the log");
        assert!(other.lines().count() > 1 && other.lines().all(|line| line.starts_with("20")), "{other}");
    }
}

/// A daemon that is told to stop takes no more calls, and answers those that it has.
async fn calls_under_way_are_answered(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "drain").await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let asked = tokio::spawn({
        let (cri, id) = (cri.clone(), id.clone());
        async move { cri.try_exec_in(&id, &["sh", "-c", "touch /begun; sleep 2; echo done"], 20).await }
    });
    let begun = format!("/proc/{}/root/begun", cri.pid(&id).await);
    let there = || async { if std::path::Path::new(&begun).exists() { Ok(()) } else { Err("not yet".to_owned()) } };
    eventually("the command runs", SOON, there).await;
    world.stop();
    let answer = asked.await.expect("the call's task").expect("an answer");
    assert_eq!((answer.stdout.as_slice(), answer.exit_code), (b"done\n".as_slice(), 0));
    cri.try_status(StatusRequest::default()).await.expect_err("nobody is there");
    world.run().await;
    assert_eq!(cri.exec_ok(&id, &["echo", "again"]).await, "again\n");
    cri.end_pod(&pod).await;
}
