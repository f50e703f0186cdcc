//! Our shim in trouble: killed, stopped, its file removed, its disk full. No exit code is lost, and nobody else waits.
//!
//! What every shim must do is shown by the other suites, which run with any (`SEAM_SHIM`).

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::config::Options;
use e2e::fixtures::{BUSYBOX, PAUSE};
use e2e::pod::{ready, ready_in, script, sleeper};
use e2e::{Wiring, World, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(
    an_exit_outlives_its_shim,
    a_stopped_shim_delays_nobody_else,
    a_shim_outlives_its_file,
    an_engine_runs_from_a_copy_until_its_file_changes,
    a_full_disk_loses_no_exit,
);

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}

/// The shim of a pod.
fn shim(world: &World, pod: &str) -> i32 {
    let all = world.processes();
    let found = all.iter().find(|(_, line)| line.contains("containerd-shim-runc-v2") && line.contains(pod));
    found.unwrap_or_else(|| panic!("no shim of {pod}: {all:?}")).0
}

async fn an_exit_outlives_its_shim(wiring: Wiring) {
    let (mut world, cri, config, pod) = ready(wiring, "outlived").await;
    let id = cri.run(&pod, &config, &script("main", "sleep 1; exit 7")).await;
    let (shim, main) = (shim(&world, &pod), cri.pid(&id).await);
    world.stop();
    eventually("the container ends", Duration::from_secs(20), || async {
        if Path::new(&format!("/proc/{main}")).exists() { Err(format!("{main} is there")) } else { Ok(()) }
    })
    .await;
    // Reaped is not yet on record; both are the shim's next steps.
    tokio::time::sleep(Duration::from_millis(300)).await;
    send(shim, Signal::SIGKILL);
    world.run().await;
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"), "{status:?}");
    cri.end_pod(&pod).await;
    world.no_pods().await;
}

async fn a_stopped_shim_delays_nobody_else(wiring: Wiring) {
    let (world, cri, config, pod) = ready(wiring, "stopped").await;
    let main = cri.run(&pod, &config, &sleeper("main")).await;
    let stopped = shim(&world, &pod);
    send(stopped, Signal::SIGSTOP);

    let began = Instant::now();
    let other_config = world.pod("other");
    let other = cri.run_pod(&other_config).await;
    let id = cri.run(&other, &other_config, &sleeper("main")).await;
    assert_eq!(cri.exec_ok(&id, &["echo", "here"]).await, "here\n");
    assert_eq!(cri.list_pods(ListPodSandboxRequest::default()).await.len(), 2);
    assert_eq!(cri.container(&main).await.state(), ContainerState::ContainerRunning);
    cri.list_container_stats(ListContainerStatsRequest::default()).await;
    cri.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
    cri.end_pod(&other).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "waited for a shim of another pod: {took:?}");

    // An exec has its error in time, and leaves nothing when its shim is back.
    let began = Instant::now();
    let late = cri.try_exec_in(&main, &["sleep", "1000"], 1).await.expect_err("the shim is stopped");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "an exec waited for its shim: {took:?}");

    send(stopped, Signal::SIGCONT);
    assert_eq!(cri.exec_ok(&main, &["echo", "again"]).await, "again\n");
    cri.end_pod(&pod).await;
    world.no_pods().await;
}

async fn a_shim_outlives_its_file(wiring: Wiring) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("containerd-shim-runc-v2");
    let ours = e2e::daemon::binary("containerd-shim-runc-v2");
    std::fs::copy(&ours, &file).unwrap_or_else(|e| panic!("copy {}: {e}", ours.display()));
    let world = World::start(wiring, Options { shim: Some(file.clone()), ..Options::new(wiring) }).await;
    let (mut world, cri, config, pod) = ready_in(world, "upgraded").await;
    let first = cri.run(&pod, &config, &script("first", "sleep 1; exit 5")).await;
    std::fs::remove_file(&file).expect("remove the shim's file");
    world.restart().await;
    assert_eq!(cri.exited(&first).await.exit_code, 5);
    // The pod's shim takes another container and its execs.
    let second = cri.run(&pod, &config, &sleeper("second")).await;
    assert_eq!(cri.exec_ok(&second, &["echo", "here"]).await, "here\n");
    // A new pod needs the file, and the error says so.
    let refused = cri.try_run_pod(&world.pod("next")).await.expect_err("there is no shim");
    assert!(refused.message().contains(&file.display().to_string()), "{refused:?}");
    std::fs::copy(&ours, &file).expect("an upgrade");
    let next = cri.run_pod(&world.pod("next")).await;
    cri.end_pod(&next).await;
    cri.end_pod(&pod).await;
    world.no_pods().await;
}

async fn an_engine_runs_from_a_copy_until_its_file_changes(wiring: Wiring) {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("runc");
    std::fs::copy("/usr/sbin/runc", &engine).expect("copy runc");
    let world = World::start(wiring, Options { engine: Some(engine.clone()), ..Options::new(wiring) }).await;
    let (world, cri, config, pod) = ready_in(world, "copied").await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    let given = std::fs::read_link(format!("/proc/{}/fd/1", shim(&world, &pod))).expect("the shim's standard output");
    assert!(given.to_string_lossy().starts_with("/memfd:runc"), "{given:?}");
    assert_eq!(cri.exec_ok(&id, &["echo", "here"]).await, "here\n");

    // An upgrade is used at once.
    let (next, used) = (dir.path().join("next"), dir.path().join("used"));
    std::fs::write(&next, format!("#!/bin/sh\n>{}\nexec /usr/sbin/runc \"$@\"\n", used.display())).expect("write");
    std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("make it executable");
    std::fs::rename(&next, &engine).expect("replace the engine");
    assert_eq!(cri.exec_ok(&id, &["echo", "again"]).await, "again\n");
    assert!(used.exists(), "the old engine was run");
    cri.end_pod(&pod).await;
    world.no_pods().await;
}

/// A file system of its own for the state folder.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("small"), at, Some("tmpfs"), flags, Some("size=4m,mode=0711")).expect("mount a tmpfs");
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

async fn a_full_disk_loses_no_exit(wiring: Wiring) {
    let mut world = e2e::world(wiring).await;
    let cri = world.cri();
    world.pull(PAUSE).await;
    world.pull(BUSYBOX).await;
    world.stop();
    let state = world.paths.state.clone();
    let small = Small::mount(&state);
    world.run().await;
    let config = world.pod("full");
    let pod = cri.run_pod(&config).await;
    let id = cri.run(&pod, &config, &script("main", "sleep 2; exit 9")).await;
    let filler = state.join("filler");
    let fill = || {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&filler);
        let full = std::io::copy(&mut std::io::repeat(7), &mut file.expect("a file"));
        assert_eq!(full.expect_err("it is small").kind(), std::io::ErrorKind::StorageFull);
    };
    fill();
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"), "{status:?}");
    // What can't be done says why, and leaves nothing. The end of the container has made some room.
    fill();
    let refused = cri.try_run_pod(&world.pod("next")).await.expect_err("the disk is full");
    assert!(refused.message().contains("No space left"), "{refused:?}");
    std::fs::remove_file(&filler).expect("make room");
    cri.end_pod(&pod).await;
    world.no_pods().await;
    world.stop();
    drop(small);
    world.run().await;
}
