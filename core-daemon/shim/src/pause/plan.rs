//! What a bundle's spec asks for, if that is a plain pause process.
//!
//! Every field of the spec is either known here and done, or makes the spec one for the engine: nothing is ignored.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use rustix::thread::{CapabilitySet, UnshareFlags};
use serde::Deserialize;

/// Of the annotation that says what a container is for.
const KIND: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "sandbox";
/// The kinds of mount that [`super::root`] makes.
const MOUNTS: [&str; 6] = ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "bind"];
/// More than this is not the name of a host.
const MAX_HOSTNAME: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces of its own.
    pub namespaces: UnshareFlags,
    /// The network namespace to join; `None`: the machine's.
    pub network: Option<PathBuf>,
    pub cgroup: PathBuf,
    pub shares: Option<u64>,
    pub hostname: Option<String>,
    pub sysctls: BTreeMap<String, String>,
    pub mounts: Vec<MountSpec>,
    pub read_only_root: bool,
    pub masked: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
    pub process: Process,
    pub capabilities: Capabilities,
}

#[derive(Debug)]
pub struct Capabilities {
    pub bounding: CapabilitySet,
    pub effective: CapabilitySet,
    pub permitted: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub ambient: CapabilitySet,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(rename = "ociVersion")]
    _version: String,
    root: Root,
    process: Process,
    hostname: Option<String>,
    #[serde(default)]
    mounts: Vec<MountSpec>,
    #[serde(default)]
    annotations: HashMap<String, String>,
    linux: Linux,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    path: PathBuf,
    #[serde(default)]
    readonly: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    #[serde(default)]
    terminal: bool,
    pub user: User,
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub cwd: PathBuf,
    #[serde(default)]
    capabilities: CapabilityNames,
    #[serde(default)]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CapabilityNames {
    bounding: Vec<String>,
    effective: Vec<String>,
    permitted: Vec<String>,
    inheritable: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    #[serde(default)]
    pub options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: PathBuf,
    resources: Option<Resources>,
    #[serde(default)]
    sysctl: BTreeMap<String, String>,
    #[serde(default)]
    masked_paths: Vec<PathBuf>,
    #[serde(default)]
    readonly_paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    cpu: Option<Cpu>,
    #[serde(default)]
    devices: Vec<DeviceRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cpu {
    shares: Option<u64>,
}

/// Without a device it is about all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRule {
    allow: bool,
    access: Option<String>,
}

impl Plan {
    /// That of a bundle, or why it is for the engine.
    pub fn read(bundle: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(bundle.join("config.json")).map_err(|e| e.to_string())?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let spec: Spec = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let refuse = |what: &str| Err(what.to_owned());
        if spec.annotations.get(KIND).map(String::as_str) != Some(SANDBOX) {
            return refuse("not a pod's own process");
        }
        if spec.process.terminal || spec.process.args.is_empty() || spec.root.path != Path::new("rootfs") {
            return refuse("a terminal, no program, or a root filesystem elsewhere");
        }
        if !is_plain(&spec.linux.cgroups_path) || spec.linux.cgroups_path.file_name().is_none() {
            return refuse("no cgroup of its own by an absolute path");
        }
        if spec.hostname.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_HOSTNAME) {
            return refuse("a host name of no possible length");
        }
        let dev = spec.mounts.iter().any(|mount| mount.kind == "tmpfs" && mount.destination == Path::new("/dev"));
        let known = |mount: &MountSpec| MOUNTS.contains(&mount.kind.as_str()) && is_plain(&mount.destination);
        if !dev || !spec.mounts.iter().all(known) {
            return refuse("no /dev of its own, or a mount of another kind");
        }
        let hidden = spec.linux.masked_paths.iter().chain(&spec.linux.readonly_paths);
        if !hidden.into_iter().all(|path| is_plain(path)) {
            return refuse("a path to be hidden that is not absolute");
        }
        let plain = |key: &String| key.split('.').all(|part| !part.is_empty() && !part.contains('/'));
        if !spec.linux.sysctl.keys().all(plain) {
            return refuse("a sysctl with a strange name");
        }
        let resources = spec.linux.resources.unwrap_or(Resources { cpu: None, devices: Vec::new() });
        let denies = |rule: &DeviceRule| !rule.allow && rule.access.as_deref().is_none_or(|access| access == "rwm");
        if resources.devices.is_empty() || !resources.devices.iter().all(denies) {
            return refuse("devices that are allowed");
        }
        let (namespaces, network) = namespaces(&spec.linux.namespaces)?;
        Ok(Self {
            namespaces,
            network,
            cgroup: spec.linux.cgroups_path,
            shares: resources.cpu.and_then(|cpu| cpu.shares),
            hostname: spec.hostname,
            sysctls: spec.linux.sysctl,
            mounts: spec.mounts,
            read_only_root: spec.root.readonly,
            masked: spec.linux.masked_paths,
            read_only: spec.linux.readonly_paths,
            capabilities: capabilities(&spec.process.capabilities)?,
            process: spec.process,
        })
    }
}

/// Absolute, and without `..`.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

fn namespaces(listed: &[Namespace]) -> Result<(UnshareFlags, Option<PathBuf>), String> {
    let (mut own, mut network) = (UnshareFlags::empty(), None);
    for Namespace { kind, path } in listed {
        match (kind.as_str(), path.as_os_str().is_empty()) {
            ("mount", true) => own |= UnshareFlags::NEWNS,
            ("uts", true) => own |= UnshareFlags::NEWUTS,
            ("ipc", true) => own |= UnshareFlags::NEWIPC,
            ("pid", true) => own |= UnshareFlags::NEWPID,
            ("network", false) => network = Some(path.clone()),
            (kind, _) => return Err(format!("a {kind} namespace of another kind")),
        }
    }
    if own.contains(UnshareFlags::NEWNS) { Ok((own, network)) } else { Err("the node's mounts".into()) }
}

fn capabilities(names: &CapabilityNames) -> Result<Capabilities, String> {
    let set = |names: &[String]| -> Result<CapabilitySet, String> {
        let one = |name: &String| name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
        names.iter().map(|name| one(name).ok_or_else(|| format!("capability {name:?}"))).collect()
    };
    Ok(Capabilities {
        bounding: set(&names.bounding)?,
        effective: set(&names.effective)?,
        permitted: set(&names.permitted)?,
        inheritable: set(&names.inheritable)?,
        ambient: set(&names.ambient)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> Value {
        json!({
            "ociVersion": "1.0.2", "hostname": "web", "root": {"path": "rootfs", "readonly": true},
            "annotations": {KIND: SANDBOX},
            "process": {
                "user": {"uid": 65535, "gid": 65535}, "args": ["/pause"], "env": ["PATH=/"], "cwd": "/",
                "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"]},
                "noNewPrivileges": true, "oomScoreAdj": -998,
            },
            "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}],
            "linux": {
                "namespaces": [
                    {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "pid"},
                    {"type": "network", "path": "/run/netns/cni-1"},
                ],
                "cgroupsPath": "/kubepods/pod1/box", "sysctl": {"net.ipv4.ip_forward": "1"},
                "resources": {"cpu": {"shares": 2}, "devices": [{"allow": false, "access": "rwm"}]},
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            },
        })
    }

    #[test]
    fn a_plain_pause_process_is_understood() {
        let plan = Plan::parse(spec().to_string().as_bytes()).unwrap();
        assert_eq!(plan.network.as_deref(), Some(Path::new("/run/netns/cni-1")));
        let own = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
        assert_eq!(plan.namespaces, own);
        assert_eq!((plan.shares, plan.process.user.uid, plan.process.oom_score_adj), (Some(2), 65535, Some(-998)));
        assert_eq!(plan.capabilities.bounding, CapabilitySet::CHOWN | CapabilitySet::KILL);
        assert_eq!(plan.capabilities.ambient, CapabilitySet::empty());
        assert!(plan.read_only_root && plan.process.no_new_privileges);
    }

    #[test]
    fn whatever_else_is_asked_for_is_for_the_engine() {
        for (at, value) in [
            ("/annotations", json!({KIND: "container"})),
            ("/hooks", json!({"poststart": []})),
            ("/process/terminal", json!(true)),
            ("/process/apparmorProfile", json!("x")),
            ("/process/selinuxLabel", json!("x")),
            ("/process/rlimits", json!([])),
            ("/process/capabilities/bounding", json!(["CAP_UNHEARD_OF"])),
            ("/process/args", json!([])),
            ("/root/path", json!("/elsewhere")),
            ("/hostname", json!("x".repeat(65))),
            ("/linux/seccomp", json!({})),
            ("/linux/uidMappings", json!([])),
            ("/linux/cgroupsPath", json!("pod.slice:cri:id")),
            ("/linux/cgroupsPath", json!("/a/../b")),
            ("/linux/sysctl", json!({"net/../x": "1"})),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "user"}])),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}])),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "network"}])),
            ("/linux/namespaces", json!([{"type": "pid"}])),
            ("/linux/resources/memory", json!({"limit": 1})),
            ("/linux/resources/devices", json!([{"allow": true}])),
            ("/linux/resources/devices", json!([{"allow": false, "major": 1}])),
            ("/linux/maskedPaths", json!(["proc"])),
            ("/mounts", json!([{"destination": "/x", "type": "cgroup", "source": "cgroup"}])),
            ("/mounts", json!([])),
        ] {
            let mut changed = spec();
            let (parent, key) = at.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[key] = value.clone();
            assert!(Plan::parse(changed.to_string().as_bytes()).is_err(), "{at} = {value}");
        }
    }
}
