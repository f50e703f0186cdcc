//! `LinuxContainerSecurityContext`: who a process is, and what it may do.

use e2e::Wiring;
use e2e::cases::{Cases, namespace};
use e2e::cri::image;
use e2e::fixtures::{DOCKER, STRANGER, VOLUMES};
use e2e::pod::security as of;
use shared_proto::cri::v1::security_profile::ProfileType;
use shared_proto::cri::v1::*;
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, Unimplemented};

pub async fn security(wiring: Wiring) {
    let mut cases = Cases::start(wiring, "security", &[DOCKER, VOLUMES, STRANGER]).await;
    users(&mut cases).await;
    groups(&mut cases).await;
    capabilities(&mut cases).await;
    seccomp(&mut cases).await;
    old_seccomp(&mut cases).await;
    apparmor(&mut cases).await;
    selinux(&mut cases).await;
    flags_and_paths(&mut cases).await;
    namespaces(&mut cases).await;
    privileged(&mut cases).await;
    cases.end().await;
}

const IDS: &str = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; echo";

pub fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

async fn users(cases: &mut Cases) {
    let root = cases.prints("image-without-user", IDS, |_| ()).await;
    assert_eq!(root, "0\n0\n0 \n");
    let known = cases.prints("run-as-user", IDS, |c| of(c).run_as_user = id(1000)).await;
    assert_eq!(known, "1000\n1001\n1001 2000 \n", "the account's groups come along");
    let unknown = cases.prints("run-as-user-in-no-file", IDS, |c| of(c).run_as_user = id(77)).await;
    assert_eq!(unknown, "77\n0\n0 \n");
    let group = |c: &mut ContainerConfig| (of(c).run_as_user, of(c).run_as_group) = (id(77), id(88));
    assert_eq!(cases.prints("run-as-group", IDS, group).await, "77\n88\n88 \n");
    let name = cases.prints("run-as-username", IDS, |c| of(c).run_as_username = "app".into()).await;
    assert_eq!(name, "1000\n1001\n1001 2000 \n");
    let by_name = cases.prints("image-user-by-name", IDS, |c| c.image = Some(image(DOCKER))).await;
    assert!(by_name.starts_with("1000\n1001\n"), "{by_name}");
    if !cases.peer_lacks("image-user-s-groups", "1.6 leaves out the groups of the image's user") {
        cases.case("image-user-s-groups");
        assert_eq!(by_name, "1000\n1001\n1001 2000 \n");
    }
    let by_number = cases.prints("image-user-by-uid-and-gid", IDS, |c| c.image = Some(image(VOLUMES))).await;
    assert_eq!(by_number, "1000\n2000\n2000 \n");
    let over = |c: &mut ContainerConfig| {
        c.image = Some(image(DOCKER));
        of(c).run_as_user = id(0);
    };
    assert_eq!(cases.prints("run-as-user-over-the-image", IDS, over).await, "0\n0\n0 \n");

    let container = cases.runs("exec-as-user", |c| of(c).run_as_user = id(1000)).await;
    assert_eq!(cases.cri.exec_ok(&container, &["sh", "-c", IDS]).await, "1000\n1001\n1001 2000 \n");
    if !cases.peer_lacks("status-tells-the-user", "1.6 has no ContainerStatus.user") {
        cases.case("status-tells-the-user");
        let told = cases.cri.container(&container).await.user.and_then(|user| user.linux).expect("the user");
        assert_eq!((told.uid, told.gid, told.supplemental_groups), (1000, 1001, vec![1001, 2000]));
    }
    cases.cri.try_remove(&container).await.expect("remove");

    let stranger = |c: &mut ContainerConfig| c.image = Some(image(STRANGER));
    cases.refused("image-user-unknown", InvalidArgument, "\"stranger\"", stranger).await;
    let nobody = |c: &mut ContainerConfig| of(c).run_as_username = "nobody-knows-me".into();
    cases.refused("run-as-username-unknown", InvalidArgument, "\"nobody-knows-me\"", nobody).await;
    let alone = |c: &mut ContainerConfig| of(c).run_as_group = id(5);
    cases.refused("run-as-group-alone", InvalidArgument, "run_as_group", alone).await;
    let negative = |c: &mut ContainerConfig| of(c).run_as_user = id(-7);
    cases.refused("run-as-user-negative", InvalidArgument, "run_as_user: -7", negative).await;
}

async fn groups(cases: &mut Cases) {
    let more = |c: &mut ContainerConfig| {
        of(c).run_as_user = id(1000);
        of(c).supplemental_groups = vec![4000, 3000];
    };
    let merged = cases.prints("supplemental-groups", IDS, more).await;
    assert_eq!(merged, "1000\n1001\n1001 2000 3000 4000 \n");
    if !cases.peer_lacks("supplemental-groups-strict", "1.6 has no supplemental_groups_policy") {
        let strict = |c: &mut ContainerConfig| {
            more(c);
            of(c).set_supplemental_groups_policy(SupplementalGroupsPolicy::Strict);
        };
        assert_eq!(cases.prints("supplemental-groups-strict", IDS, strict).await, "1000\n1001\n1001 3000 4000 \n");
        let unknown = |c: &mut ContainerConfig| of(c).supplemental_groups_policy = 9;
        let name = "supplemental-groups-policy-unknown";
        cases.refused(name, InvalidArgument, "supplemental_groups_policy", unknown).await;
    }
}

fn rights(add: &[&str], drop: &[&str], ambient: &[&str]) -> Option<Capability> {
    let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect();
    Some(Capability {
        add_capabilities: words(add),
        drop_capabilities: words(drop),
        add_ambient_capabilities: words(ambient),
    })
}

async fn capabilities(cases: &mut Cases) {
    let sets = "for s in CapInh CapPrm CapEff CapBnd CapAmb; do grep $s /proc/self/status | cut -f2; done";
    let same = |mask: u64| format!("{:016x}\n{mask:016x}\n{mask:016x}\n{mask:016x}\n{:016x}\n", 0, 0);
    const DEFAULT: u64 = 0xa804_25fb;
    let (chown, net_bind, net_admin) = (1 << 0, 1 << 10, 1 << 12);
    assert_eq!(cases.prints("capabilities-default", sets, |_| ()).await, same(DEFAULT));
    let changed = |c: &mut ContainerConfig| of(c).capabilities = rights(&["NET_ADMIN"], &["CHOWN"], &[]);
    let out = cases.prints("capabilities-add-and-drop", sets, changed).await;
    assert_eq!(out, same(DEFAULT & !chown | net_admin));
    let none = |c: &mut ContainerConfig| of(c).capabilities = rights(&[], &["ALL"], &[]);
    assert_eq!(cases.prints("capabilities-drop-all", sets, none).await, same(0));
    let one = |c: &mut ContainerConfig| of(c).capabilities = rights(&["NET_BIND_SERVICE"], &["ALL"], &[]);
    assert_eq!(cases.prints("capabilities-only-one", sets, one).await, same(net_bind));
    // All that the daemon may give: what we have ourselves.
    let own = e2e::cases::status_line(i32::try_from(std::process::id()).expect("a pid"), "CapBnd");
    let all = u64::from_str_radix(&own, 16).expect("a mask");
    let most = |c: &mut ContainerConfig| of(c).capabilities = rights(&["ALL"], &["CHOWN"], &[]);
    assert_eq!(cases.prints("capabilities-all-but-one", sets, most).await, same(all & !chown));
    let chowns = "touch /x && chown 5 /x 2>/dev/null && echo may || echo may not";
    assert_eq!(cases.prints("capabilities-have-an-effect", chowns, changed).await, "may not\n");

    let user = |c: &mut ContainerConfig| {
        of(c).run_as_user = id(1000);
        of(c).capabilities = rights(&["NET_BIND_SERVICE"], &["ALL"], &[]);
    };
    let lost = cases.prints("capabilities-of-others-than-root", sets, user).await;
    assert_eq!(lost, format!("{0:016x}\n{0:016x}\n{0:016x}\n{net_bind:016x}\n{0:016x}\n", 0));
    if !cases.peer_lacks("ambient-capabilities", "1.6 ignores add_ambient_capabilities") {
        let ambient = |c: &mut ContainerConfig| {
            of(c).run_as_user = id(1000);
            of(c).capabilities = rights(&[], &["ALL"], &["NET_BIND_SERVICE"]);
        };
        let kept = cases.prints("ambient-capabilities", sets, ambient).await;
        assert_eq!(kept, format!("{net_bind:016x}\n").repeat(5));
        let both = |c: &mut ContainerConfig| of(c).capabilities = rights(&[], &["CHOWN"], &["CHOWN"]);
        cases.refused("ambient-and-dropped", InvalidArgument, "add_ambient_capabilities", both).await;
    }
    if !cases.peer_lacks("capability-unknown", "1.6 hands any name on, and runc leaves it out") {
        let unknown = |c: &mut ContainerConfig| of(c).capabilities = rights(&["KILL", "FLY"], &[], &[]);
        cases.refused("capability-unknown", InvalidArgument, "\"FLY\"", unknown).await;
        let unknown = |c: &mut ContainerConfig| of(c).capabilities = rights(&[], &["SWIM"], &[]);
        cases.refused("dropped-capability-unknown", InvalidArgument, "\"SWIM\"", unknown).await;
    }
}

pub fn profile(kind: ProfileType, file: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: file.into() })
}

const MODE: &str = "grep Seccomp: /proc/self/status | cut -f2";
/// Making a user namespace needs no right, only a filter forbids it.
const UNSHARE: &str = "busybox unshare -U true 2>/dev/null; echo $?";

/// A filter that forbids `mkdir` and nothing else.
fn no_mkdir(cases: &Cases) -> String {
    let file = cases.world.paths.dir.join("no-mkdir.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "none"}]}"#;
    std::fs::write(&file, text).expect("write the profile");
    file.display().to_string()
}

const MKDIR: &str = "mkdir /tmp/d 2>/dev/null && echo made || echo not made; echo x >/tmp/f && echo written";

async fn seccomp(cases: &mut Cases) {
    assert_eq!(cases.prints("seccomp-unset", MODE, |_| ()).await, "0\n");
    let default = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::RuntimeDefault, "");
    let script = format!("{MODE}; {UNSHARE}");
    assert_eq!(cases.prints("seccomp-default", &script, default).await, "2\n1\n");
    let unconfined = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::Unconfined, "");
    assert_eq!(cases.prints("seccomp-unconfined", &script, unconfined).await, "0\n0\n");
    // The default filter is made for the capabilities: who may mount is let through to the call.
    let admin = |c: &mut ContainerConfig| {
        default(c);
        of(c).capabilities = rights(&["SYS_ADMIN"], &[], &[]);
    };
    let script = format!("{MODE}; mount -t tmpfs t /tmp && echo mounted");
    assert_eq!(cases.prints("seccomp-default-with-capability", &script, admin).await, "2\nmounted\n");
    let file = no_mkdir(cases);
    let local = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::Localhost, &file);
    assert_eq!(cases.prints("seccomp-localhost", MKDIR, local).await, "not made\nwritten\n");

    let missing = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::Localhost, "/no/such/profile.json");
    cases.refused("seccomp-localhost-missing", InvalidArgument, "/no/such/profile.json", missing).await;
    let broken = cases.world.paths.dir.join("broken.json");
    std::fs::write(&broken, "{\"defaultAction\": ").expect("write the broken profile");
    let broken = broken.display().to_string();
    let bad = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::Localhost, &broken);
    cases.refused("seccomp-localhost-invalid", InvalidArgument, &broken, bad).await;
    let nameless = |c: &mut ContainerConfig| of(c).seccomp = profile(ProfileType::Localhost, "");
    cases.refused("seccomp-localhost-nameless", InvalidArgument, "localhost_ref", nameless).await;
}

async fn old_seccomp(cases: &mut Cases) {
    for (name, path, mode) in [
        ("seccomp-path-runtime-default", "runtime/default", "2\n"),
        ("seccomp-path-docker-default", "docker/default", "2\n"),
        ("seccomp-path-unconfined", "unconfined", "0\n"),
    ] {
        assert_eq!(cases.prints(name, MODE, |c| of(c).seccomp_profile_path = path.into()).await, mode);
    }
    let file = format!("localhost/{}", no_mkdir(cases));
    let local = |c: &mut ContainerConfig| of(c).seccomp_profile_path = file.clone();
    assert_eq!(cases.prints("seccomp-path-localhost", MKDIR, local).await, "not made\nwritten\n");
    let unknown = |c: &mut ContainerConfig| of(c).seccomp_profile_path = "strict".into();
    cases.refused("seccomp-path-unknown", InvalidArgument, "\"strict\"", unknown).await;
}

async fn apparmor(cases: &mut Cases) {
    if std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y')) {
        let current = "cat /proc/self/attr/current";
        let out = cases.prints("apparmor-default", current, |_| ()).await;
        assert!(out.starts_with("cri-containerd.apparmor.d"), "{out}");
        let unconfined = |c: &mut ContainerConfig| of(c).apparmor = profile(ProfileType::Unconfined, "");
        assert!(cases.prints("apparmor-unconfined", current, unconfined).await.starts_with("unconfined"));
    } else {
        let unconfined = |c: &mut ContainerConfig| of(c).apparmor = profile(ProfileType::Unconfined, "");
        assert_eq!(cases.prints("apparmor-unconfined", "echo ran", unconfined).await, "ran\n");
        let unconfined = |c: &mut ContainerConfig| of(c).apparmor_profile = "unconfined".into();
        assert_eq!(cases.prints("apparmor-profile-unconfined", "echo ran", unconfined).await, "ran\n");
        if !cases.peer_lacks("apparmor-default", "1.6 refuses it where the machine has no AppArmor") {
            let default = |c: &mut ContainerConfig| of(c).apparmor = profile(ProfileType::RuntimeDefault, "");
            assert_eq!(cases.prints("apparmor-default", "echo ran", default).await, "ran\n");
            let default = |c: &mut ContainerConfig| of(c).apparmor_profile = "runtime/default".into();
            assert_eq!(cases.prints("apparmor-profile-default", "echo ran", default).await, "ran\n");
        }
    }
    let local = |c: &mut ContainerConfig| of(c).apparmor = profile(ProfileType::Localhost, "no-such-profile");
    cases.refused("apparmor-localhost", InvalidArgument, "\"no-such-profile\"", local).await;
    let local = |c: &mut ContainerConfig| of(c).apparmor_profile = "localhost/no-such-profile".into();
    cases.refused("apparmor-profile-localhost", InvalidArgument, "\"no-such-profile\"", local).await;
}

async fn selinux(cases: &mut Cases) {
    let label = |level: &str| {
        let words = ["system_u", "system_r", "container_t"].map(String::from);
        let [user, role, r#type] = words;
        Some(SeLinuxOption { user, role, r#type, level: level.into() })
    };
    // Without `enable_selinux` labels are read and not set.
    let script = "cat /proc/self/attr/current 2>/dev/null | grep -c container_t; echo ran";
    let out = cases.prints("selinux-options", script, |c| of(c).selinux_options = label("s0:c1,c2")).await;
    assert_eq!(out, "0\nran\n");
    let wrong = |c: &mut ContainerConfig| of(c).selinux_options = label("top-secret");
    cases.refused("selinux-level-wrong", InvalidArgument, "top-secret", wrong).await;
}

async fn flags_and_paths(cases: &mut Cases) {
    let privileges = "grep NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(cases.prints("new-privileges", privileges, |_| ()).await, "0\n");
    assert_eq!(cases.prints("no-new-privs", privileges, |c| of(c).no_new_privs = true).await, "1\n");
    let write = "touch /x 2>/dev/null; echo $?; touch /dev/shm/x; echo $?";
    assert_eq!(cases.prints("rootfs-writable", write, |_| ()).await, "0\n0\n");
    assert_eq!(cases.prints("readonly-rootfs", write, |c| of(c).readonly_rootfs = true).await, "1\n0\n");

    let masked = |c: &mut ContainerConfig| of(c).masked_paths = vec!["/proc/keys".into(), "/proc/scsi".into()];
    let script = "cat /proc/keys | wc -c; ls /proc/scsi 2>/dev/null | wc -l; \
                  touch /proc/sys/kernel/domainname && echo writable";
    assert_eq!(cases.prints("masked-paths", script, masked).await, "0\n0\nwritable\n");
    let readonly = |c: &mut ContainerConfig| of(c).readonly_paths = vec!["/proc/sys".into()];
    let script = "touch /proc/sys/kernel/domainname 2>/dev/null || echo read-only; cat /proc/sys/kernel/ostype";
    assert_eq!(cases.prints("readonly-paths", script, readonly).await, "read-only\nLinux\n");
    // Empty lists hide nothing: that is how a kubelet says `procMount: Unmasked`.
    let covered = cases.prints("masked-and-readonly-paths-empty", "cat /proc/self/mountinfo", |_| ()).await;
    assert!(!covered.lines().any(|line| line.contains(" /proc/")), "{covered}");
}

fn pid_mode(mode: NamespaceMode, target: &str) -> Option<NamespaceOption> {
    Some(NamespaceOption { pid: mode.into(), target_id: target.into(), ..Default::default() })
}

async fn namespaces(cases: &mut Cases) {
    let pause = cases.pause_pid(&cases.pod).await;
    let own = "echo $$; readlink /proc/self/ns/pid; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; \
               readlink /proc/self/ns/uts";
    let lines = |text: String| text.lines().map(String::from).collect::<Vec<_>>();
    let alone = lines(cases.prints("pid-mode-container", own, |_| ()).await);
    assert_eq!(alone[0], "1");
    assert_ne!(alone[1], namespace(pause, "pid"));
    let pods: Vec<_> = ["net", "ipc", "uts"].map(|kind| namespace(pause, kind)).into();
    assert_eq!(alone[2..], pods, "these are always the pod's");
    let shared = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Pod, "");
    let shared = lines(cases.prints("pid-mode-pod", own, shared).await);
    assert_eq!(shared[1], namespace(pause, "pid"));
    assert_ne!(shared[0], "1");

    let target = cases.runs("target", |_| ()).await;
    let pid = cases.cri.pid(&target).await;
    let joined = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Target, &target);
    let joined = lines(cases.prints("pid-mode-target", own, joined).await);
    assert_eq!(joined[1], namespace(pid, "pid"));
    cases.cri.try_stop(&target, 5).await.expect("stop");
    let stopped = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Target, &target);
    cases.refused("pid-target-stopped", FailedPrecondition, &target, stopped).await;
    cases.cri.try_remove(&target).await.expect("remove");
    let unknown = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Target, "0123abcd");
    cases.refused("pid-target-unknown", NotFound, "0123abcd", unknown).await;
    target_of_another_pod(cases).await;

    if !cases.peer_lacks("pid-mode-node-in-a-pod-without", "1.6 gives the pod's namespace instead") {
        let node = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Node, "");
        cases.refused("pid-mode-node-in-a-pod-without", InvalidArgument, "namespace_options.pid", node).await;
    }
    if !cases.peer_lacks("userns-options", "1.6 has no user namespaces") {
        let user = UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() };
        let user = NamespaceOption { userns_options: Some(user), ..Default::default() };
        let user = |c: &mut ContainerConfig| of(c).namespace_options = Some(user.clone());
        cases.refused("userns-options", Unimplemented, "user namespace", user).await;
    }
}

async fn target_of_another_pod(cases: &mut Cases) {
    let config = cases.world.pod("other");
    let pod = cases.cri.run_pod(&config).await;
    let foreign = cases.cri.run(&pod, &config, &e2e::pod::sleeper("foreign")).await;
    let target = |c: &mut ContainerConfig| of(c).namespace_options = pid_mode(NamespaceMode::Target, &foreign);
    cases.refused("pid-target-of-another-pod", InvalidArgument, &foreign, target).await;
    cases.cri.end_pod(&pod).await;
}

async fn privileged(cases: &mut Cases) {
    let want = |c: &mut ContainerConfig| of(c).privileged = true;
    cases.refused("privileged-in-a-pod-without", InvalidArgument, "privileged", want).await;

    let mut config = cases.world.pod("trusted");
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().privileged = true;
    let pod = cases.cri.run_pod(&config).await;
    let script = "grep CapEff /proc/self/status | cut -f2; grep Seccomp: /proc/self/status | cut -f2; \
                  test -c /dev/kmsg && echo devices; mount -t tmpfs t /tmp && echo mounted; \
                  touch /proc/sys/kernel/domainname && echo writable; grep -c ' /proc/' /proc/self/mountinfo; \
                  cat /sys/fs/cgroup/devices/devices.list 2>/dev/null || echo 'a *:* rwm'";
    let everything = |c: &mut ContainerConfig| {
        want(c);
        // All of these are overruled.
        of(c).seccomp = profile(ProfileType::RuntimeDefault, "");
        of(c).masked_paths = vec!["/proc/keys".into()];
        of(c).readonly_paths = vec!["/proc/sys".into()];
        of(c).capabilities = rights(&[], &["CHOWN"], &[]);
    };
    let out = cases.prints_in("privileged", &config, &pod, &format!("{script}; true"), everything).await;
    let own = e2e::cases::status_line(i32::try_from(std::process::id()).expect("a pid"), "CapBnd");
    assert_eq!(out, format!("{own}\n0\ndevices\nmounted\nwritable\n0\na *:* rwm\n"));
    // Its neighbour is as confined as ever.
    let plain = "grep CapEff /proc/self/status | cut -f2; ls /dev/kmsg 2>/dev/null || echo no devices";
    let out = cases.prints_in("beside-a-privileged-one", &config, &pod, plain, |_| ()).await;
    assert_eq!(out, "00000000a80425fb\nno devices\n");
    cases.cri.end_pod(&pod).await;
}
