//! A runtime handler's `base_runtime_spec`: a spec in a file, below the one that CRI's words make.
//!
//! As in containerd it counts for containers, not for pause containers, and CRI has the last word on all that it has a
//! word for. What the file says beyond that stays: hooks, rlimits, annotations, sysctls, devices and their rules, limits
//! that the request leaves out, more environment. Its mounts stand in for the default ones, its capabilities are those
//! that a request adds to and drops from, and its seccomp and AppArmor profiles are for containers that name none. What
//! the file leaves out is as without it.
//!
//! The two are merged as JSON: objects key by key, everything else as a whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{Capabilities, LinuxNamespaceType, Mount, Spec};
use serde_json::{Map, Value};
use shared_config::Runtime;

use super::SpecError;

/// By the path of their file.
pub type Bases = BTreeMap<String, Arc<Spec>>;

/// Reads the files that runtime handlers name. Blocks.
pub fn load(runtimes: &BTreeMap<String, Runtime>) -> Result<Bases, SpecError> {
    let mut bases = Bases::new();
    for (handler, runtime) in runtimes {
        let file = &runtime.base_runtime_spec;
        if !file.is_empty() && !bases.contains_key(file) {
            let failed = |problem| SpecError::Base { handler: handler.clone(), file: file.into(), problem };
            bases.insert(file.clone(), Arc::new(read(Path::new(file)).map_err(failed)?));
        }
    }
    Ok(bases)
}

fn read(file: &Path) -> Result<Spec, String> {
    let text = std::fs::read(file).map_err(|e| e.to_string())?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|e| format!("it is no OCI runtime spec: {e}"))?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    if namespaces.is_some_and(|all| all.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User)) {
        return Err("linux.namespaces: user namespaces are not supported".into());
    }
    Ok(spec)
}

/// The capabilities that a container starts with.
pub(super) fn capabilities(base: &Spec) -> Option<Capabilities> {
    base.process().as_ref()?.capabilities().as_ref()?.bounding().clone()
}

/// The mounts in place of the default ones. CRI makes the cgroups' mount itself, and wants none at `/run`.
pub(super) fn mounts(base: &Spec, privileged: bool) -> Option<Vec<Mount>> {
    let own =
        |mount: &&Mount| ![Path::new("/run"), Path::new("/sys/fs/cgroup")].contains(&mount.destination().as_path());
    let mut mounts: Vec<Mount> = base.mounts().as_ref()?.iter().filter(own).cloned().collect();
    for mount in mounts.iter_mut().filter(|mount| privileged && mount.typ().as_deref() == Some("sysfs")) {
        let writable = |option: &String| if option == "ro" { "rw".to_owned() } else { option.clone() };
        let options = mount.options().as_ref().map(|options| options.iter().map(writable).collect());
        mount.set_options(options);
    }
    Some(mounts)
}

/// What the request has decided by leaving it out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decided {
    pub seccomp: bool,
    pub apparmor: bool,
    pub selinux: bool,
}

/// `made` on top of `base`.
pub(super) fn onto(base: &Spec, made: &Spec, decided: Decided) -> Result<Spec, SpecError> {
    let value = |spec: &Spec| serde_json::to_value(spec).map_err(SpecError::Encode);
    let (mut below, mut above) = (value(base)?, value(made)?);
    let read_only = below.pointer("/root/readonly") == Some(&Value::Bool(true));
    for (object, key) in [("", "hostname"), ("", "mounts"), ("/process", "terminal"), ("/process", "consoleSize")] {
        remove(&mut below, object, key);
    }
    for (object, key, gone) in [
        ("/process", "capabilities", true),
        ("/process", "apparmorProfile", decided.apparmor),
        ("/process", "selinuxLabel", decided.selinux),
        ("/linux", "seccomp", decided.seccomp || made.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some())),
    ] {
        if gone {
            remove(&mut below, object, key);
        }
    }
    for key in ["uid", "gid", "additionalGids", "username"] {
        remove(&mut below, "/process/user", key);
    }
    merge_list(&mut below, &mut above, "/process/env", |variable| {
        Some(variable.as_str()?.split('=').next()?.to_owned())
    });
    merge_list(&mut below, &mut above, "/linux/devices", |device| Some(device["path"].as_str()?.to_owned()));
    rules(&below, &mut above);
    namespaces(&below, &mut above);
    overlay(&mut below, above);
    if read_only && let Some(root) = below.pointer_mut("/root").and_then(Value::as_object_mut) {
        root.insert("readonly".into(), true.into());
    }
    serde_json::from_value(below).map_err(SpecError::Encode)
}

fn remove(spec: &mut Value, object: &str, key: &str) {
    if let Some(object) = spec.pointer_mut(object).and_then(Value::as_object_mut) {
        object.remove(key);
    }
}

fn list<'a>(spec: &'a Value, path: &str) -> &'a [Value] {
    spec.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Lists whose entries have names: those of both, the upper one's where both have one.
fn merge_list(below: &mut Value, above: &mut Value, path: &str, name: impl Fn(&Value) -> Option<String>) {
    let upper: Vec<Value> = list(above, path).to_vec();
    let taken: Vec<_> = upper.iter().filter_map(&name).collect();
    let rest = list(below, path).iter().filter(|entry| name(entry).is_some_and(|name| !taken.contains(&name)));
    let both: Vec<Value> = rest.cloned().chain(upper).collect();
    if both.is_empty() {
        return;
    }
    let (object, key) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(object) = above.pointer_mut(object).and_then(Value::as_object_mut) {
        object.insert(key.to_owned(), both.into());
    }
}

/// Rules for devices: the file's come behind our first one, which forbids all. Where ours allows all they are idle.
fn rules(below: &Value, above: &mut Value) {
    const PATH: &str = "/linux/resources/devices";
    let more = list(below, PATH).to_vec();
    if let Some(rules) = above.pointer_mut(PATH).and_then(Value::as_array_mut)
        && rules.first().is_some_and(|first| first["allow"] == false)
    {
        rules.splice(1..1, more);
    }
}

/// Namespaces that CRI has no word for. Those that it has one for are as it says, even if it says none.
fn namespaces(below: &Value, above: &mut Value) {
    const PATH: &str = "/linux/namespaces";
    let more: Vec<Value> = list(below, PATH).iter().filter(|namespace| namespace["type"] == "time").cloned().collect();
    if let Some(all) = above.pointer_mut(PATH).and_then(Value::as_array_mut) {
        all.extend(more);
    }
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => merge(below, above),
        (below, above) => *below = above,
    }
}

fn merge(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (key, value) in above {
        match below.get_mut(&key) {
            Some(under) => overlay(under, value),
            None => drop(below.insert(key, value)),
        }
    }
}
