//! Device nodes in a container, and the rules of its device cgroup.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use shared_proto::cri::v1;

use super::{ContainerInput, SpecError};

/// Nodes and rules that belong together.
#[derive(Default)]
pub(super) struct Devices {
    pub nodes: Vec<LinuxDevice>,
    pub rules: Vec<LinuxDeviceCgroup>,
}

/// Rules of a container without devices of its own: nothing, apart from what the OCI runtime always allows.
pub(super) fn none() -> Vec<LinuxDeviceCgroup> {
    vec![everything(false)]
}

/// The request's devices; for a privileged container all of the machine's, unless the handler says no.
pub(super) fn container(input: &ContainerInput) -> Result<Devices, SpecError> {
    let mut out = Devices { nodes: Vec::new(), rules: none() };
    let runtime = input.runtime;
    if super::privileged(input) {
        let without = runtime.privileged_without_host_devices;
        if !without {
            add_folder(&mut out.nodes, Path::new("/dev"), Path::new("/dev"))?;
        }
        if !without || runtime.privileged_without_host_devices_all_devices_allowed {
            out.rules = vec![everything(true)];
        }
    }
    for (index, device) in input.config.devices.iter().enumerate() {
        add(&mut out, input, index, device)?;
    }
    Ok(out)
}

fn add(out: &mut Devices, input: &ContainerInput, index: usize, device: &v1::Device) -> Result<(), SpecError> {
    let field = |name: &str| format!("devices[{index}].{name}");
    let access = if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
    if access.chars().any(|c| !"rwm".contains(c)) {
        let problem = format!("{access:?} has other letters than r, w and m");
        return Err(SpecError::invalid(field("permissions"), problem));
    }
    // A link may be given; its target is the device.
    let source = fs::canonicalize(&device.host_path)
        .map_err(|e| SpecError::invalid(field("host_path"), format!("{:?}: {e}", device.host_path)))?;
    let target = match device.container_path.as_str() {
        "" => PathBuf::from(&device.host_path),
        path => PathBuf::from(path),
    };
    if !target.is_absolute() {
        return Err(SpecError::invalid(field("container_path"), format!("{target:?} is not absolute")));
    }
    let mut nodes = Vec::new();
    if source.is_dir() {
        add_folder(&mut nodes, &source, &target)?;
    } else {
        nodes.extend(node(&source, &target)?);
    }
    if nodes.is_empty() {
        return Err(SpecError::invalid(field("host_path"), format!("{} is no device", source.display())));
    }
    let allowed_anyway = out.rules.last().is_some_and(|rule| rule.allow() && rule.typ().is_none());
    for mut node in nodes {
        if input.settings.device_ownership_from_security_context {
            own(&mut node, input);
        }
        if !allowed_anyway {
            let mut rule = LinuxDeviceCgroup::from(&node);
            rule.set_allow(true).set_access(Some(access.to_owned()));
            out.rules.push(rule);
        }
        out.nodes.retain(|old| old.path() != node.path());
        out.nodes.push(node);
    }
    Ok(())
}

/// Gives the node to the user and group that the request names.
fn own(node: &mut LinuxDevice, input: &ContainerInput) {
    let Some(security) = super::security(input.config) else { return };
    if security.run_as_user.is_some() {
        node.set_uid(Some(input.user.uid));
    }
    if security.run_as_group.is_some() {
        node.set_gid(Some(input.user.gid));
    }
}

/// All devices in a folder and below it. Folders of other file systems' own (`/dev/pts`, `/dev/shm`, …), and nodes
/// that every container gets anew, are left out.
fn add_folder(out: &mut Vec<LinuxDevice>, source: &Path, target: &Path) -> Result<(), SpecError> {
    let failed =
        |source_error| SpecError::Io { what: "read devices in", path: source.to_owned(), source: source_error };
    let mut entries = fs::read_dir(source).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let target = target.join(&name);
        let Ok(kind) = entry.file_type() else { continue };
        let skipped = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"];
        if skipped.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            add_folder(out, &path, &target)?;
        } else {
            out.extend(node(&path, &target)?);
        }
    }
    Ok(())
}

/// `None` when `source` is no device (or went away meanwhile).
fn node(source: &Path, target: &Path) -> Result<Option<LinuxDevice>, SpecError> {
    let meta = match fs::symlink_metadata(source) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(SpecError::Io { what: "look at device", path: source.to_owned(), source: e }),
    };
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Ok(None),
    };
    let number = meta.rdev();
    let mut node = LinuxDevice::default();
    node.set_path(target.to_owned())
        .set_typ(kind)
        .set_major(i64::from(rustix::fs::major(number)))
        .set_minor(i64::from(rustix::fs::minor(number)))
        .set_file_mode(Some(meta.mode() & 0o777))
        .set_uid(Some(meta.uid()))
        .set_gid(Some(meta.gid()));
    Ok(Some(node))
}

/// The rule for all devices.
fn everything(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(None).set_access(Some("rwm".into()));
    rule
}
