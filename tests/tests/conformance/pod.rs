//! `PodSandboxConfig` and `LinuxSandboxSecurityContext`: looked at from outside, at the pod's pause process, and from
//! inside of a container.

use e2e::Wiring;
use e2e::cases::{Cases, namespace, status_line};
use e2e::pod::{namespaces, security};
use e2e::world::peer;
use shared_proto::cri::v1::security_profile::ProfileType;
use shared_proto::cri::v1::*;
use tonic::Code::{InvalidArgument, Unimplemented};

use super::security::{id, profile};

pub async fn pod(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "pod", &[]).await;
    told_again(&mut cases).await;
    files(&mut cases).await;
    sysctls_and_resources(&mut cases).await;
    users(&mut cases).await;
    profiles(&mut cases).await;
    the_machine_is_shared(&mut cases).await;
    one_process_namespace(&mut cases).await;
    cgroup_parents(&mut cases).await;
    refusals(&mut cases).await;
    cases.end().await;
}

fn context(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

async fn told_again(cases: &mut Cases) {
    let status = cases.cri.pod_status(&cases.pod).await;
    cases.case("pod-metadata");
    assert_eq!(status.metadata, cases.config.metadata);
    cases.case("pod-labels");
    assert_eq!(status.labels, cases.config.labels);
    cases.case("pod-annotations");
    assert_eq!(status.annotations, cases.config.annotations);
    let ip = status.network.expect("a network").ip;
    let net = cases.world.slot.subnet().trim_end_matches("0/24").to_owned();
    assert!(ip.starts_with(&net), "{ip} is not in {net}0/24");
    let addresses = cases.prints("pod-network", "ip -4 addr show dev eth0", |_| ()).await;
    assert!(addresses.contains(&format!("inet {ip}/")), "{ip} is not in {addresses}");

    cases.case("pod-defaults");
    let pause = cases.pause_pid(&cases.pod).await;
    let own = i32::try_from(std::process::id()).expect("a pid");
    for kind in ["net", "pid", "ipc", "uts", "mnt"] {
        assert_ne!(namespace(pause, kind), namespace(own, kind), "{kind}");
    }
    assert_eq!(status_line(pause, "CapEff"), "0000000000000000", "the image's user is not root");
    assert_eq!(status_line(pause, "NoNewPrivs"), "1");
    cases.case("pod-readonly-rootfs");
    let mounts = std::fs::read_to_string(format!("/proc/{pause}/mountinfo")).expect("the pause process runs");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(5).is_some_and(|options| options.starts_with("ro")), "always: {root}");
    let score = std::fs::read_to_string(format!("/proc/{pause}/oom_score_adj")).expect("the pause process runs");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("a score");
    assert!(["-998", own.trim()].contains(&score.trim()), "{score}");
}

async fn files(cases: &mut Cases) {
    let hostname = "hostname; cat /etc/hostname";
    assert_eq!(cases.prints("pod-hostname", hostname, |_| ()).await, "pod\npod\n");
    let resolv = cases.prints("pod-dns-config", "cat /etc/resolv.conf", |_| ()).await;
    for line in ["nameserver 10.0.0.10", "search e2e.svc.cluster.local", "options ndots:5"] {
        assert!(resolv.lines().any(|l| l == line), "no {line} in {resolv}");
    }
    let logged = cases.prints("pod-log-directory", "echo logged", |_| ()).await;
    assert_eq!(logged, "logged\n", "read from the log, below log_directory");
    let shm = cases.prints("pod-shm", "grep ' /dev/shm ' /proc/mounts; echo x >/dev/shm/shared", |_| ()).await;
    assert!(shm.contains("size=65536k"), "{shm}");
    assert_eq!(cases.prints("pod-shm-is-shared", "cat /dev/shm/shared", |_| ()).await, "x\n");

    let mut config = cases.world.pod("plain");
    config.dns_config = None;
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 8080,
        host_port: cases.world.slot.host_port(1).into(),
        ..Default::default()
    }];
    let pod = cases.cri.run_pod(&config).await;
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let out = cases.prints_in("pod-without-dns-config", &config, &pod, "cat /etc/resolv.conf", |_| ()).await;
    assert_eq!(out, own);
    cases.case("pod-port-mappings");
    let rules = std::process::Command::new("iptables").args(["-t", "nat", "-S"]).output().expect("run iptables");
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let port = format!("--dport {} -j DNAT", cases.world.slot.host_port(1));
    assert!(rules.contains(&port), "no {port:?} in {rules}");
    cases.cri.end_pod(&pod).await;
}

async fn sysctls_and_resources(cases: &mut Cases) {
    let mut config = cases.world.pod("tuned");
    let linux = config.linux.get_or_insert_default();
    let sysctls = [
        // Safe by the kubelet's list, unsafe by it, and one of another namespace.
        ("net.ipv4.ip_unprivileged_port_start", "77"),
        ("net.core.somaxconn", "321"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "11"),
    ];
    linux.sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let limits = |shares| Some(LinuxContainerResources { cpu_shares: shares, ..Default::default() });
    (linux.resources, linux.overhead) = (limits(256), limits(10));
    let pod = cases.cri.run_pod(&config).await;
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/core/somaxconn \
                  /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max";
    let out = cases.prints_in("pod-sysctls", &config, &pod, script, |_| ()).await;
    assert_eq!(out, "77\n321\n1\n11\n");
    // Shims for virtual machines size them by these.
    cases.case("pod-resources-and-overhead");
    let info = cases.pod_info(&pod).await;
    let annotations = &info["runtimeSpec"]["annotations"];
    assert_eq!(annotations["io.kubernetes.cri.sandbox-cpu-shares"], "256", "{annotations}");
    cases.cri.end_pod(&pod).await;
    if !cases.peer_lacks("pod-unprivileged-ports", "1.6 has enable_unprivileged_ports off") {
        let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(cases.prints("pod-unprivileged-ports", script, |_| ()).await, "0\n");
    }
}

async fn users(cases: &mut Cases) {
    let mut config = cases.world.pod("users");
    (context(&mut config).run_as_user, context(&mut config).run_as_group) = (id(1234), id(2345));
    context(&mut config).supplemental_groups = vec![4000, 3000];
    let pod = cases.cri.run_pod(&config).await;
    let pause = cases.pause_pid(&pod).await;
    cases.case("pod-run-as-user-and-group");
    assert_eq!(status_line(pause, "Uid"), "1234\t1234\t1234\t1234");
    assert_eq!(status_line(pause, "Gid"), "2345\t2345\t2345\t2345");
    if !cases.peer_lacks("pod-supplemental-groups", "1.6 forgets them when it sets the user") {
        cases.case("pod-supplemental-groups");
        let groups = status_line(pause, "Groups");
        let mut groups: Vec<&str> = groups.split_whitespace().filter(|group| *group != "2345").collect();
        groups.sort_unstable();
        assert_eq!(groups, ["3000", "4000"]);
    }
    cases.cri.end_pod(&pod).await;
    if cases.peer_lacks("pod-supplemental-groups-strict", "1.6 has no supplemental_groups_policy") {
        return;
    }
    cases.case("pod-supplemental-groups-strict");
    context(&mut config).set_supplemental_groups_policy(SupplementalGroupsPolicy::Strict);
    let pod = cases.cri.run_pod(&config).await;
    let groups = status_line(cases.pause_pid(&pod).await, "Groups");
    assert_eq!(groups, "2345 3000 4000");
    cases.cri.end_pod(&pod).await;
    let alone = |c: &mut PodSandboxConfig| context(c).run_as_group = id(5);
    cases.pod_refused("pod-run-as-group-alone", InvalidArgument, "run_as_group", alone).await;
}

async fn profiles(cases: &mut Cases) {
    let modes = async |cases: &mut Cases, name: &str, change: &dyn Fn(&mut LinuxSandboxSecurityContext)| {
        cases.case(name);
        let mut config = cases.world.pod(name);
        change(context(&mut config));
        let pod = cases.cri.run_pod(&config).await;
        let mode = status_line(cases.pause_pid(&pod).await, "Seccomp");
        cases.cri.end_pod(&pod).await;
        mode
    };
    let default = profile(ProfileType::RuntimeDefault, "");
    assert_eq!(modes(cases, "pod-seccomp", &|c| c.seccomp = default.clone()).await, "2");
    let old = "runtime/default";
    assert_eq!(modes(cases, "pod-seccomp-profile-path", &|c| c.seccomp_profile_path = old.into()).await, "2");
    let trusted = |c: &mut LinuxSandboxSecurityContext| (c.privileged, c.seccomp) = (true, default.clone());
    assert_eq!(modes(cases, "pod-privileged", &trusted).await, "0", "never confined");
    let unconfined = profile(ProfileType::Unconfined, "");
    let open = |c: &mut LinuxSandboxSecurityContext| {
        (c.seccomp, c.apparmor) = (unconfined.clone(), unconfined.clone());
    };
    assert_eq!(modes(cases, "pod-unconfined", &open).await, "0");
    let words = ["system_u", "system_r", "container_t", "s0:c1,c2"].map(String::from);
    let [user, role, r#type, level] = words;
    let label = Some(SeLinuxOption { user, role, r#type, level });
    assert_eq!(modes(cases, "pod-selinux-options", &|c| c.selinux_options = label.clone()).await, "0");

    let missing = profile(ProfileType::Localhost, "/no/such/profile.json");
    let local = |c: &mut PodSandboxConfig| context(c).seccomp = missing;
    cases.pod_refused("pod-seccomp-localhost-missing", InvalidArgument, "/no/such/profile.json", local).await;
    if !cases.peer_lacks("pod-apparmor", "1.6 does not look at the sandbox's") {
        let missing = profile(ProfileType::Localhost, "no-such-profile");
        let local = |c: &mut PodSandboxConfig| context(c).apparmor = missing;
        cases.pod_refused("pod-apparmor", InvalidArgument, "\"no-such-profile\"", local).await;
    }
}

async fn the_machine_is_shared(cases: &mut Cases) {
    let mut config = cases.world.pod("node");
    let node = NamespaceMode::Node.into();
    *namespaces(&mut config) = NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
    config.hostname = String::new();
    let pod = cases.cri.run_pod(&config).await;
    let pause = cases.pause_pid(&pod).await;
    let own = i32::try_from(std::process::id()).expect("a pid");
    for (name, kind) in [("pod-network-node", "net"), ("pod-pid-node", "pid"), ("pod-ipc-node", "ipc")] {
        cases.case(name);
        assert_eq!(namespace(pause, kind), namespace(own, kind));
    }
    assert_eq!(cases.cri.pod_ip(&pod).await, "");
    let options = namespaces(&mut config).clone();
    let told = cases.cri.pod_status(&pod).await.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
    assert_eq!(told.as_ref(), Some(&options));
    let script = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; hostname; \
                  grep ' /dev/shm ' /proc/mounts | wc -l";
    let same = |c: &mut ContainerConfig| security(c).namespace_options = Some(options);
    let out = cases.prints_in("container-of-a-node-pod", &config, &pod, script, same).await;
    let machine = nix::unistd::gethostname().expect("a host name");
    let names: Vec<_> = ["net", "pid", "ipc", "uts"].map(|kind| namespace(own, kind)).into();
    assert_eq!(out, format!("{}\n{}\n1\n", names.join("\n"), machine.to_string_lossy()));
    cases.cri.end_pod(&pod).await;
}

async fn one_process_namespace(cases: &mut Cases) {
    let mut config = cases.world.pod("shared");
    namespaces(&mut config).set_pid(NamespaceMode::Pod);
    let pod = cases.cri.run_pod(&config).await;
    let pause = cases.pause_pid(&pod).await;
    let own = "readlink /proc/self/ns/pid; cat /proc/1/cmdline | tr '\\0' ' '";
    let shared = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let shared = |c: &mut ContainerConfig| security(c).namespace_options = Some(shared);
    let out = cases.prints_in("pod-pid-pod", &config, &pod, own, shared).await;
    assert_eq!(out.trim_end(), format!("{}\n/pause", namespace(pause, "pid")));
    cases.cri.end_pod(&pod).await;
}

/// As kubelets name them: with cgroupfs by folders, with systemd by slices. The runtime here is told `cgroupfs`.
async fn cgroup_parents(cases: &mut Cases) {
    let uid = "pod0a1b2c3d-0000-4000-8000-00000000cafe";
    for (name, below) in [
        ("cgroup-parent-guaranteed", format!("kubepods/{uid}")),
        ("cgroup-parent-burstable", format!("kubepods/burstable/{uid}")),
        ("cgroup-parent-besteffort", format!("kubepods/besteffort/{uid}")),
    ] {
        cases.case(name);
        let mut config = cases.world.pod(name);
        let parent = format!("/{}/{below}", cases.world.slot.name());
        config.linux.get_or_insert_default().cgroup_parent = parent.clone();
        let pod = cases.cri.run_pod(&config).await;
        let container = cases.cri.run(&pod, &config, &e2e::pod::sleeper("main")).await;
        for (pid, id) in [(cases.pause_pid(&pod).await, &pod), (cases.cri.pid(&container).await, &container)] {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
            let leaf = format!("{parent}/{id}");
            let memory = cgroups.lines().find(|line| line.contains(":memory:") || line.starts_with("0::/seam"));
            assert!(memory.is_some_and(|line| line.ends_with(&leaf)), "{leaf} is not in {cgroups}");
        }
        cases.cri.end_pod(&pod).await;
        for root in e2e::slot::cgroup_roots() {
            let _ = std::fs::remove_dir_all(root.join(parent.trim_start_matches('/')));
        }
    }
    // The kubelet owns these: we leave them, and the next test does not want them.
    for root in e2e::slot::cgroup_roots() {
        let top = root.join(cases.world.slot.name()).join("kubepods");
        for below in ["kubepods/burstable", "kubepods/besteffort", "kubepods"] {
            let dir = top.parent().expect("a parent").join(below);
            let inner = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            inner.filter(|e| e.path().is_dir()).for_each(|entry| drop(std::fs::remove_dir(entry.path())));
            let _ = std::fs::remove_dir(dir);
        }
    }
    if peer().is_none() {
        let up = |c: &mut PodSandboxConfig| c.linux.get_or_insert_default().cgroup_parent = "/a/../../b".into();
        cases.pod_refused("cgroup-parent-that-leads-out", InvalidArgument, "cgroup_parent", up).await;
    } else {
        cases.skip("cgroup-parent-that-leads-out", "1.6 takes it");
    }
}

async fn refusals(cases: &mut Cases) {
    cases.pod_refused("pod-metadata-missing", InvalidArgument, "metadata", |c| c.metadata = None).await;
    let sysctl = |name: &str| {
        let pair = (name.to_owned(), "1".to_owned());
        move |c: &mut PodSandboxConfig| c.linux.get_or_insert_default().sysctls = [pair].into()
    };
    let whole = sysctl("vm.swappiness");
    cases.pod_refused("pod-sysctl-of-the-machine", InvalidArgument, "\"vm.swappiness\"", whole).await;
    let shared = |c: &mut PodSandboxConfig| {
        namespaces(c).set_network(NamespaceMode::Node);
        sysctl("net.core.somaxconn")(c);
    };
    cases.pod_refused("pod-sysctl-of-a-shared-network", InvalidArgument, "\"net.core.somaxconn\"", shared).await;
    let shared = |c: &mut PodSandboxConfig| {
        namespaces(c).set_ipc(NamespaceMode::Node);
        sysctl("kernel.shmmax")(c);
    };
    cases.pod_refused("pod-sysctl-of-a-shared-ipc", InvalidArgument, "\"kernel.shmmax\"", shared).await;
    let long = |c: &mut PodSandboxConfig| c.hostname = "x".repeat(65);
    cases.pod_refused("pod-hostname-too-long", InvalidArgument, "hostname", long).await;
    if cases.peer_lacks("pod-refusals", "1.6 does not look at these, or has no such field") {
        return;
    }
    let wrong = |c: &mut PodSandboxConfig| namespaces(c).network = 9;
    cases.pod_refused("pod-namespace-mode-unknown", InvalidArgument, "namespace_options.network", wrong).await;
    let wrong = |c: &mut PodSandboxConfig| namespaces(c).set_ipc(NamespaceMode::Target);
    cases.pod_refused("pod-ipc-target", InvalidArgument, "namespace_options.ipc", wrong).await;
    let user = UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() };
    let user = |c: &mut PodSandboxConfig| namespaces(c).userns_options = Some(user);
    cases.pod_refused("pod-userns-options", Unimplemented, "user namespace", user).await;
    let bad = |c: &mut PodSandboxConfig| {
        c.dns_config = Some(DnsConfig { servers: vec!["1.1.1.1\nx".into()], ..Default::default() });
    };
    cases.pod_refused("pod-dns-config-wrong", InvalidArgument, "dns_config.servers[0]", bad).await;
    let wrong = |c: &mut PodSandboxConfig| {
        let options = SeLinuxOption { level: "top-secret".into(), ..Default::default() };
        context(c).selinux_options = Some(options);
    };
    cases.pod_refused("pod-selinux-level-wrong", InvalidArgument, "top-secret", wrong).await;
    // The handler is no field of the configuration, but of its request.
    cases.case("runtime-handler-unknown");
    let config = Some(cases.world.pod("handler"));
    let request = RunPodSandboxRequest { config, runtime_handler: "no-such-handler".into() };
    let status = cases.cri.try_run_pod_sandbox(request).await.expect_err("there is no such handler");
    assert!(status.code() == InvalidArgument && status.message().contains("no-such-handler"), "{status:?}");
}
