//! Specs on machines that differ from this one, and under other settings of the runtime handler.

use super::*;

fn trusted(config: &mut v1::PodSandboxConfig) {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context = Some(v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
}

#[test]
fn a_version_2_machine_gives_a_view_of_the_own_cgroup() {
    let mut pod = Pod::start("v2", trusted);
    pod.facts.cgroups = crate::host::CgroupMode::V2;
    let spec = |privileged: bool, unified: bool| {
        let security = v1::LinuxContainerSecurityContext { privileged, ..Default::default() };
        let mut limits = v1::LinuxContainerResources::default();
        if unified {
            limits.unified = [("memory.oom.group".to_owned(), "1".to_owned())].into();
        }
        let linux = v1::LinuxContainerConfig { security_context: Some(security), resources: Some(limits) };
        let config = v1::ContainerConfig { command: vec!["x".into()], linux: Some(linux), ..Default::default() };
        serde_json::to_value(pod.spec(&config, &User::default()).unwrap()).unwrap()
    };
    let kinds = |spec: &serde_json::Value| {
        let list = spec["linux"]["namespaces"].as_array().unwrap();
        list.iter().map(|n| n["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let plain = spec(false, true);
    assert!(kinds(&plain).contains(&"cgroup".to_owned()), "{plain}");
    assert_eq!(plain["linux"]["resources"]["unified"]["memory.oom.group"], "1");
    assert_eq!(plain["ociVersion"], "1.0.2-dev", "`unified` came after 1.0.2");
    let privileged = spec(true, false);
    assert!(!kinds(&privileged).contains(&"cgroup".to_owned()), "{privileged}");
    assert_eq!(privileged["ociVersion"], "1.0.2");
}

#[test]
fn labels_are_set_on_processes_and_on_what_asks_for_them() {
    let mut pod = Pod::start("label", trusted);
    pod.label = Label { process: "u:r:t:s0:c1,c2".into(), mount: "u:object_r:f:s0:c1,c2".into() };
    let (asks, other) = (pod.dir.path().join("asks"), pod.dir.path().join("other"));
    let spec = |privileged: bool, mounts: Vec<v1::Mount>| {
        let security = v1::LinuxContainerSecurityContext { privileged, ..Default::default() };
        let linux = v1::LinuxContainerConfig { security_context: Some(security), resources: None };
        let config =
            v1::ContainerConfig { command: vec!["x".into()], linux: Some(linux), mounts, ..Default::default() };
        pod.spec(&config, &User::default())
    };
    let mount = |path: &Path, selinux_relabel: bool| v1::Mount {
        host_path: path.display().to_string(),
        container_path: format!("/{}", path.file_name().unwrap_or_default().display()),
        selinux_relabel,
        ..Default::default()
    };
    let value = serde_json::to_value(spec(false, vec![mount(&asks, true), mount(&other, false)]).unwrap()).unwrap();
    assert_eq!(value["process"]["selinuxLabel"], "u:r:t:s0:c1,c2");
    assert_eq!(value["linux"]["mountLabel"], "u:object_r:f:s0:c1,c2");
    let label = |path: &Path| {
        let mut text = [0u8; 64];
        let size = rustix::fs::lgetxattr(path, c"security.selinux", &mut text[..]).unwrap_or(0);
        String::from_utf8_lossy(&text[..size]).into_owned()
    };
    assert_eq!((label(&asks).as_str(), label(&other).as_str()), ("u:object_r:f:s0:c1,c2", ""));
    assert_eq!(label(&pod.dirs.hosts()), "u:object_r:f:s0:c1,c2", "the pod's own files");

    let value = serde_json::to_value(spec(true, Vec::new()).unwrap()).unwrap();
    assert!(value["process"]["selinuxLabel"].is_null(), "a privileged process has none");
    let refused = shared_proto::Error::from(spec(false, vec![mount(Path::new("/etc"), true)]).unwrap_err());
    assert_eq!(refused.code, shared_proto::errdefs::Code::InvalidArgument);
    assert!(refused.message.contains("/etc"), "{refused:?}");
}

#[test]
fn a_handler_may_keep_the_machine_s_devices_from_privileged_containers() {
    let mut pod = Pod::start("devices", trusted);
    let mut of = |without: bool, all_allowed: bool| {
        pod.runtime.privileged_without_host_devices = without;
        pod.runtime.privileged_without_host_devices_all_devices_allowed = all_allowed;
        let security = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        let linux = v1::LinuxContainerConfig { security_context: Some(security), resources: None };
        let config = v1::ContainerConfig { command: vec!["x".into()], linux: Some(linux), ..Default::default() };
        let spec = serde_json::to_value(pod.spec(&config, &User::default()).unwrap()).unwrap();
        let nodes = spec["linux"]["devices"].as_array().map_or(0, Vec::len);
        (nodes > 0, spec["linux"]["resources"]["devices"][0]["allow"].as_bool().unwrap())
    };
    assert_eq!(of(false, false), (true, true));
    assert_eq!(of(true, false), (false, false));
    assert_eq!(of(true, true), (false, true));
}
