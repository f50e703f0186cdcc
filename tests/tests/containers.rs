//! What a container sees of what was asked for, and what is told of how it ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::cri::{Cri, image};
use e2e::fixtures::DOCKER;
use e2e::pod::{container, ready, resources, script, security, sleeper};
use e2e::{Wiring, World, slot};
use shared_proto::cri::v1::*;
use tonic::Code;

e2e::wirings!(the_environment_is_as_asked, users_and_rights, resources_are_set, ends_are_told, exec_sync, stop_signals);

/// A world with its images, and one pod that the containers of a test share.
async fn pod(wiring: Wiring, name: &str) -> (World, Cri, PodSandboxConfig, String) {
    let made = ready(wiring, name).await;
    made.0.pull(DOCKER).await;
    made
}

async fn the_environment_is_as_asked(wiring: Wiring) {
    let (world, cri, config, pod) = pod(wiring, "environment").await;
    let host = world.paths.dir.join("host");
    std::fs::create_dir_all(host.join("sub")).expect("make the host's folder");
    std::fs::write(host.join("file"), "from the host\n").expect("write the host's file");

    let mut asked = sleeper("asked");
    asked.envs = vec![
        KeyValue { key: "ONE".into(), value: "1".into() },
        KeyValue { key: "BYTES".into(), value: b"a=b c".to_vec() },
    ];
    asked.working_dir = "/made/on/demand".into();
    let mount = |path: &str, host_path: PathBuf, readonly: bool| Mount {
        container_path: path.into(),
        host_path: host_path.display().to_string(),
        readonly,
        ..Default::default()
    };
    asked.mounts = vec![
        mount("/rw", host.clone(), false),
        mount("/ro", host.clone(), true),
        mount("/one-file", host.join("file"), false),
        mount("/not-there-yet", host.join("missing"), false),
    ];
    let id = cri.run(&pod, &config, &asked).await;
    let environment = cri.exec_ok(&id, &["env"]).await;
    for line in ["ONE=1", "BYTES=a=b c", "PATH=/bin", "HOSTNAME=environment"] {
        assert!(environment.lines().any(|l| l == line), "no {line} in {environment}");
    }
    assert_eq!(cri.exec_ok(&id, &["pwd"]).await, "/made/on/demand\n");
    assert_eq!(cri.exec_ok(&id, &["hostname"]).await, "environment\n");
    assert_eq!(cri.exec_ok(&id, &["cat", "/etc/hostname"]).await, "environment\n");
    let resolv = cri.exec_ok(&id, &["cat", "/etc/resolv.conf"]).await;
    for line in ["nameserver 10.0.0.10", "search e2e.svc.cluster.local", "options ndots:5"] {
        assert!(resolv.lines().any(|l| l == line), "no {line} in {resolv}");
    }
    let hosts = std::fs::read_to_string("/etc/hosts").expect("read /etc/hosts");
    assert_eq!(cri.exec_ok(&id, &["cat", "/etc/hosts"]).await, hosts);

    assert_eq!(cri.exec_ok(&id, &["cat", "/rw/file", "/ro/file", "/one-file"]).await, "from the host\n".repeat(3));
    cri.exec_ok(&id, &["touch", "/rw/sub/written", "/not-there-yet/written"]).await;
    assert!(host.join("sub/written").exists() && host.join("missing/written").exists());
    let denied = cri.try_exec_in(&id, &["touch", "/ro/denied"], 10).await.expect("exec");
    assert!(denied.exit_code != 0 && String::from_utf8_lossy(&denied.stderr).contains("Read-only"), "{denied:?}");
    let told = cri.container(&id).await.mounts;
    let paths = |mounts: &[Mount]| -> Vec<(String, String, bool)> {
        mounts.iter().map(|m| (m.container_path.clone(), m.host_path.clone(), m.readonly)).collect()
    };
    assert_eq!(paths(&told), paths(&asked.mounts));

    let mounts = cri.exec_ok(&id, &["cat", "/proc/mounts"]).await;
    let shm = mounts.lines().find(|l| l.contains(" /dev/shm ")).unwrap_or_else(|| panic!("no /dev/shm in {mounts}"));
    assert!(shm.starts_with("shm tmpfs") || shm.contains(" tmpfs "), "{shm}");
    assert!(shm.contains("size=65536k"), "{shm}");
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts")] {
        assert!(mounts.contains(&format!(" {path} {kind} ")), "no {kind} on {path}: {mounts}");
    }

    // Command and arguments of the image, and what replaces them.
    let mut from_image = container("from-image", &[]);
    from_image.image = Some(image(DOCKER));
    assert_output(&world, &cri, &pod, &config, from_image, |out| {
        out.contains("uid=1000(app)") && out.contains("FROM_IMAGE=yes") && out.contains("/work/dir\n")
    })
    .await;
    let mut args = container("args", &[]);
    args.image = Some(image(DOCKER));
    args.args = vec!["echo only the arguments".into()];
    assert_output(&world, &cri, &pod, &config, args, |out| out == "only the arguments\n").await;
    let mut command = container("command", &["echo", "only"]);
    command.image = Some(image(DOCKER));
    command.args = vec!["the command".into()];
    assert_output(&world, &cri, &pod, &config, command, |out| out == "only the command\n").await;
    cri.end_pod(&pod).await;
}

/// Runs a container to its end, which must be a good one, and checks what it printed.
async fn assert_output(
    world: &World,
    cri: &Cri,
    pod: &str,
    sandbox: &PodSandboxConfig,
    config: ContainerConfig,
    wanted: impl Fn(&str) -> bool,
) {
    let name = config.metadata.as_ref().expect("metadata").name.clone();
    let id = cri.run(pod, sandbox, &config).await;
    let status = cri.exited(&id).await;
    let pod_name = &sandbox.metadata.as_ref().expect("metadata").name;
    let lines = e2e::logs::read(&world.log(pod_name, &name));
    assert_eq!(status.exit_code, 0, "{name}: {lines:?}");
    let out = e2e::logs::text(&lines, "stdout");
    assert!(wanted(&out), "{name} printed {out:?}");
    cri.try_remove(&id).await.expect("remove");
}

async fn users_and_rights(wiring: Wiring) {
    let (world, cri, config, pod) = pod(wiring, "rights").await;
    let check = async |name: &str, change: &dyn Fn(&mut LinuxContainerSecurityContext), argv: &str, wanted: &str| {
        let mut container = script(name, argv);
        change(security(&mut container));
        assert_output(&world, &cri, &pod, &config, container, |out| out == wanted).await;
    };
    let uid = |value| Some(Int64Value { value });
    check("root", &|_| (), "id -u; id -g; id -G", "0\n0\n0\n").await;
    check("uid", &|s| s.run_as_user = uid(1000), "id -u; id -g", "1000\n1001\n").await;
    check("uid-gid", &|s| (s.run_as_user, s.run_as_group) = (uid(7), uid(8)), "id -u; id -g", "7\n8\n").await;
    check("name", &|s| s.run_as_username = "app".into(), "id -u; id -g; id -G", "1000\n1001\n1001 2000\n").await;
    let groups = |s: &mut LinuxContainerSecurityContext| {
        s.run_as_user = uid(1000);
        s.supplemental_groups = vec![3000, 4000];
    };
    check("groups", &groups, "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '", "1001 2000 3000 4000 ").await;

    let caps = "grep CapEff /proc/self/status | cut -f2";
    check("caps", &|_| (), caps, "00000000a80425fb\n").await;
    let dropped = |s: &mut LinuxContainerSecurityContext| {
        s.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        });
    };
    check("dropped", &dropped, caps, "0000000000000400\n").await;
    check("no-new", &|s| s.no_new_privs = true, "grep NoNewPrivs /proc/self/status | cut -f2", "1\n").await;
    check("may-new", &|_| (), "grep NoNewPrivs /proc/self/status | cut -f2", "0\n").await;

    check("readonly", &|s| s.readonly_rootfs = true, "touch /x 2>/dev/null; echo $?", "1\n").await;
    let masked = |s: &mut LinuxContainerSecurityContext| {
        s.masked_paths = vec!["/proc/timer_list".into(), "/proc/keys".into()];
        s.readonly_paths = vec!["/proc/sys".into()];
    };
    check("masked", &masked, "cat /proc/keys | wc -c; touch /proc/sys/kernel/hostname 2>/dev/null; echo $?", "0\n1\n")
        .await;

    let seccomp = "grep Seccomp: /proc/self/status | cut -f2";
    let profile = |kind: security_profile::ProfileType| {
        move |s: &mut LinuxContainerSecurityContext| {
            s.seccomp = Some(SecurityProfile { profile_type: kind.into(), ..Default::default() });
        }
    };
    check("default", &profile(security_profile::ProfileType::RuntimeDefault), seccomp, "2\n").await;
    check("unconfined", &profile(security_profile::ProfileType::Unconfined), seccomp, "0\n").await;
    check("unset", &|_| (), seccomp, "0\n").await;
    cri.end_pod(&pod).await;

    let mut trusted = world.pod("trusted");
    let linux = trusted.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().privileged = true;
    let pod = cri.run_pod(&trusted).await;
    // All that the daemon may give: what we have ourselves.
    let own = std::fs::read_to_string("/proc/self/status").expect("read our own status");
    let own = own.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).expect("CapBnd").to_owned();
    let mut privileged = script("privileged", &format!("{caps}; test -c /dev/kmsg && echo devices"));
    security(&mut privileged).privileged = true;
    assert_output(&world, &cri, &pod, &trusted, privileged, |out| out == format!("{own}\ndevices\n")).await;
    cri.end_pod(&pod).await;

    let mut tuned = world.pod("tuned");
    let sysctl = ("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned());
    tuned.linux.get_or_insert_default().sysctls = [sysctl].into();
    let pod = cri.run_pod(&tuned).await;
    let reader = script("reader", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    assert_output(&world, &cri, &pod, &tuned, reader, |out| out == "77\n").await;
    cri.end_pod(&pod).await;
}

async fn resources_are_set(wiring: Wiring) {
    let (world, cri, config, pod) = pod(wiring, "resources").await;
    let mut limited = sleeper("limited");
    *resources(&mut limited) = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 900,
        ..Default::default()
    };
    let id = cri.run(&pod, &config, &limited).await;
    let read = |controller: &str, file: &str| {
        let roots = slot::cgroup_roots();
        let root = roots.iter().find(|r| r.ends_with(controller)).or(roots.first()).expect("a cgroup hierarchy");
        let path = root.join(world.slot.name()).join(&id).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())).trim().to_owned()
    };
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(read("", "cpu.max"), "50000 100000");
        assert_eq!(read("", "memory.max"), (64 << 20).to_string());
    } else {
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    }
    let pid = cri.pid(&id).await;
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("the process runs");
    assert_eq!(score.trim(), "900");
    cri.end_pod(&pod).await;
}

async fn ends_are_told(wiring: Wiring) {
    let (world, cri, config, pod) = pod(wiring, "ends").await;
    let before = world.inventory().await;
    let end = async |container: ContainerConfig| {
        let id = cri.run(&pod, &config, &container).await;
        let status = cri.exited(&id).await;
        // Debian's containerd takes the time of the start after the start, and so ends short containers before it.
        let ordered = status.finished_at >= status.started_at || e2e::world::peer().is_some();
        assert!(ordered && status.started_at > 0 && status.finished_at > 0, "{status:?}");
        cri.try_remove(&id).await.expect("remove");
        (status.exit_code, status.reason)
    };
    assert_eq!(end(script("good", "exit 0")).await, (0, "Completed".into()));
    assert_eq!(end(script("bad", "exit 42")).await, (42, "Error".into()));
    let killed = cri.run(&pod, &config, &sleeper("killed")).await;
    let pid = nix::unistd::Pid::from_raw(cri.pid(&killed).await);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the container's process");
    let status = cri.exited(&killed).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    cri.try_remove(&killed).await.expect("remove");

    let mut hungry = script("hungry", "tail /dev/zero");
    resources(&mut hungry).memory_limit_in_bytes = 16 << 20;
    assert_eq!(end(hungry).await, (137, "OOMKilled".into()));

    let missing = cri.create(&pod, &config, &container("missing", &["/no/such/command"])).await;
    let error = cri.try_start(&missing).await.expect_err("there is no such command");
    assert!(error.message().contains("/no/such/command"), "the message names it: {error:?}");
    let status = cri.container(&missing).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.message.contains("/no/such/command"), "{status:?}");
    assert!(status.finished_at > 0, "{status:?}");
    let again = cri.try_start(&missing).await.expect_err("it has exited");
    assert!(matches!(again.code(), Code::FailedPrecondition | Code::Unknown), "{again:?}");
    cri.try_remove(&missing).await.expect("remove");
    world.assert_as_before(&before).await;

    // A container is started once.
    let id = cri.run(&pod, &config, &sleeper("once")).await;
    cri.try_start(&id).await.expect_err("it runs already");
    assert_eq!(cri.container(&id).await.state(), ContainerState::ContainerRunning);
    // A running container may be removed: that stops it.
    cri.try_remove(&id).await.expect("remove a running container");
    world.assert_as_before(&before).await;
    cri.end_pod(&pod).await;
}

async fn exec_sync(wiring: Wiring) {
    let (world, cri, config, pod) = pod(wiring, "exec").await;
    let id = cri.run(&pod, &config, &sleeper("main")).await;
    // Its shell has started its sleep, so that no process is still to come.
    cri.asleep(&id).await;
    let before = world.inventory().await;

    let megabyte = cri.exec_ok(&id, &["sh", "-c", "yes 0123456789abcde | head -c 1000000"]).await;
    assert_eq!(megabyte.len(), 1_000_000);
    let failed = cri.try_exec_in(&id, &["sh", "-c", "exit 7"], 10).await.expect("exec");
    assert_eq!(failed.exit_code, 7);

    let started = std::time::Instant::now();
    let error = cri.try_exec_in(&id, &["sleep", "777"], 1).await.expect_err("too slow");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(6), "it took {:?}", started.elapsed());
    // The command is killed, not just forgotten.
    world.assert_as_before(&before).await;

    let error = cri.try_exec_in(&id, &["/no/such/command"], 5).await.expect_err("there is no such command");
    assert!(error.message().contains("/no/such/command"), "the message names it: {error:?}");

    // Many at a time, each with its own answer.
    let calls = (0..20).map(|i| {
        let (cri, id) = (cri.clone(), id.clone());
        async move {
            let answer = cri.try_exec_in(&id, &["sh", "-c", &format!("echo {i}; exit {i}")], 20).await.expect("exec");
            assert_eq!((answer.stdout, answer.exit_code), (format!("{i}\n").into_bytes(), i));
        }
    });
    futures::future::join_all(calls).await;
    assert_eq!(cri.container(&id).await.state(), ContainerState::ContainerRunning);
    world.assert_as_before(&before).await;

    let created = cri.create(&pod, &config, &sleeper("created")).await;
    cri.try_exec_in(&created, &["true"], 5).await.expect_err("it does not run");
    cri.end_pod(&pod).await;
}

async fn stop_signals(wiring: Wiring) {
    let (_world, cri, config, pod) = pod(wiring, "signals").await;
    let waiting = "while :; do sleep 1000 & wait $!; done";
    let stop = async |name: &str, change: &dyn Fn(&mut ContainerConfig), trap: &str, timeout: i64| {
        let mut container = script(name, &format!("{trap}; echo ready; {waiting}"));
        change(&mut container);
        let id = cri.run(&pod, &config, &container).await;
        // The trap must be set before the signal comes.
        cri.exec_ok(&id, &["usleep", "200000"]).await;
        let started = std::time::Instant::now();
        cri.try_stop(&id, timeout).await.expect("stop");
        let status = cri.container(&id).await;
        assert_eq!(status.state(), ContainerState::ContainerExited);
        (status.exit_code, started.elapsed())
    };
    let (code, took) = stop("term", &|_| (), "trap 'exit 11' TERM", 10).await;
    assert_eq!(code, 11);
    assert!(took < Duration::from_secs(3), "it took {took:?}");

    let from_image = |config: &mut ContainerConfig| config.image = Some(image(DOCKER));
    let (code, _) = stop("image", &from_image, "trap 'exit 12' INT", 10).await;
    assert_eq!(code, 12, "the image asks for SIGINT");

    let (code, took) = stop("deaf", &|_| (), "trap '' TERM", 1).await;
    assert_eq!(code, 137);
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "it took {took:?}");

    let (code, took) = stop("at-once", &|_| (), "trap '' TERM", 0).await;
    assert_eq!(code, 137);
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    if e2e::world::peer().is_none() {
        let own = |config: &mut ContainerConfig| config.set_stop_signal(Signal::Sigusr1);
        let (code, _) = stop("own", &own, "trap 'exit 13' USR1", 10).await;
        assert_eq!(code, 13, "the container asks for SIGUSR1");
    }
    cri.end_pod(&pod).await;
}
