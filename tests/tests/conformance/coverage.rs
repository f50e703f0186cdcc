//! That nothing was forgotten: every RPC and every field has its case.
//!
//! The table names a case for each field of the security and resource messages. The test reads the proto file and the
//! suite's own source: a field without a line here, and a line whose case is not in the source, fail.

const PROTO: &str = include_str!("../../../shared-proto/proto/cri/v1/api.proto");
const SOURCES: [&str; 7] = [
    include_str!("container.rs"),
    include_str!("devices.rs"),
    include_str!("mounts.rs"),
    include_str!("pod.rs"),
    include_str!("resources.rs"),
    include_str!("rpcs.rs"),
    include_str!("security.rs"),
];

/// RPCs that other suites look at.
const ELSEWHERE: &str = "Exec Attach PortForward UpdateContainerResources ContainerStats \
    ListContainerStats StreamContainerStats PodSandboxStats ListPodSandboxStats StreamPodSandboxStats \
    ListMetricDescriptors ListPodSandboxMetrics StreamPodSandboxMetrics StreamPodSandboxes \
    StreamContainers StreamImages";

/// `message: field=case …`. Fields for Windows are not looked at by anybody here.
const CASES: &str = "
LinuxSandboxSecurityContext: namespace_options=pod-network-node selinux_options=pod-selinux-options
    run_as_user=pod-run-as-user-and-group run_as_group=pod-run-as-user-and-group readonly_rootfs=pod-readonly-rootfs
    supplemental_groups=pod-supplemental-groups supplemental_groups_policy=pod-supplemental-groups-strict
    privileged=pod-privileged seccomp=pod-seccomp apparmor=pod-apparmor seccomp_profile_path=pod-seccomp-profile-path
LinuxContainerSecurityContext: capabilities=capabilities-add-and-drop privileged=privileged
    namespace_options=pid-mode-pod selinux_options=selinux-options run_as_user=run-as-user run_as_group=run-as-group
    run_as_username=run-as-username readonly_rootfs=readonly-rootfs supplemental_groups=supplemental-groups
    supplemental_groups_policy=supplemental-groups-strict no_new_privs=no-new-privs masked_paths=masked-paths
    readonly_paths=readonly-paths seccomp=seccomp-default apparmor=apparmor-localhost
    apparmor_profile=apparmor-profile-localhost seccomp_profile_path=seccomp-path-localhost
LinuxContainerResources: cpu_period=cpu-cpuset-and-memory cpu_quota=cpu-cpuset-and-memory
    cpu_shares=cpu-cpuset-and-memory memory_limit_in_bytes=cpu-cpuset-and-memory oom_score_adj=oom-score-adj
    cpuset_cpus=cpu-cpuset-and-memory cpuset_mems=cpu-cpuset-and-memory hugepage_limits=hugepage-limits
    unified=unified memory_swap_limit_in_bytes=memory-swap-limit
Mount: container_path=container-path-behind-links host_path=host-path-and-readonly readonly=host-path-and-readonly
    selinux_relabel=host-path-and-readonly propagation=propagation-bidirectional uidMappings=uid-mappings
    gidMappings=gid-mappings recursive_read_only=recursive-read-only image=image-as-a-volume
    image_sub_path=image-sub-path
Device: container_path=device-with-permissions host_path=device-with-permissions permissions=device-with-permissions
CDIDevice: name=cdi-devices
NamespaceOption: network=pod-network-node pid=pid-mode-container ipc=pod-ipc-node target_id=pid-mode-target
    userns_options=userns-options
Capability: add_capabilities=capabilities-add-and-drop drop_capabilities=capabilities-drop-all
    add_ambient_capabilities=ambient-capabilities
SecurityProfile: profile_type=seccomp-unconfined localhost_ref=seccomp-localhost
LinuxContainerConfig: resources=cpu-cpuset-and-memory security_context=run-as-user
LinuxPodSandboxConfig: cgroup_parent=cgroup-parent-burstable security_context=pod-privileged sysctls=pod-sysctls
    overhead=pod-resources-and-overhead resources=pod-resources-and-overhead
PodSandboxConfig: metadata=pod-metadata hostname=pod-hostname log_directory=pod-log-directory
    dns_config=pod-dns-config port_mappings=pod-port-mappings labels=pod-labels annotations=pod-annotations
    linux=pod-sysctls
ContainerConfig: metadata=metadata image=image command=command-and-args args=command-and-args
    working_dir=working-dir envs=envs mounts=host-path-and-readonly devices=device-with-permissions labels=labels
    annotations=annotations log_path=log-path stdin=stdin stdin_once=stdin-once tty=tty linux=run-as-user
    CDI_devices=cdi-devices stop_signal=stop-signal
";

/// The lines of a message's own fields.
fn fields(message: &str) -> Vec<&'static str> {
    let start = PROTO.find(&format!("\nmessage {message} {{")).unwrap_or_else(|| panic!("no message {message}"));
    let body = &PROTO[start + 1..];
    let body = &body[..body.find("\n}").expect("its end")];
    let own = body.lines().skip(1).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    own.filter_map(|line| line.trim().split_once(" = ")?.0.rsplit(' ').next()).collect()
}

fn has_case(name: &str) -> bool {
    SOURCES.iter().any(|source| source.contains(&format!("\"{name}\"")))
}

#[test]
fn every_field_has_a_case() {
    let mut messages: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for word in CASES.split_whitespace() {
        match (word.strip_suffix(':'), word.split_once('=')) {
            (Some(message), _) => messages.push((message, Vec::new())),
            (None, Some(pair)) => messages.last_mut().expect("a message first").1.push(pair),
            (None, None) => panic!("{word:?} is neither a message nor a field with its case"),
        }
    }
    for (message, table) in messages {
        let known = fields(message);
        assert!(!known.is_empty(), "{message} has no fields");
        for field in known.iter().filter(|field| **field != "windows") {
            assert!(table.iter().any(|(name, _)| name == field), "{message}.{field} has no case");
        }
        for (field, case) in table {
            assert!(known.contains(&field), "{message} has no field {field}");
            assert!(has_case(case), "{message}.{field}: there is no case {case:?}");
        }
    }
}

#[test]
fn every_rpc_has_a_case() {
    let rpcs: Vec<_> = PROTO.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
    assert_eq!(rpcs.len(), 41);
    for rpc in rpcs {
        let elsewhere = ELSEWHERE.split_whitespace().any(|name| name == rpc);
        assert!(elsewhere || has_case(rpc), "{rpc} has no case");
    }
}
