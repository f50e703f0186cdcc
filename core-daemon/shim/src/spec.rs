//! The few facts of a bundle's OCI spec that a shim needs.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;

/// Annotations that name the pod whose shim a container joins; the first one found counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// What is read of `config.json`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub group: Option<String>,
    /// Without a PID namespace of its own the kernel doesn't end the container's other processes with the first.
    pub own_pids: bool,
    /// Programs to be run at points of the container's life: that is for the engine.
    pub hooks: bool,
}

#[derive(Deserialize)]
struct Spec {
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
    hooks: Option<HashMap<String, Option<Vec<IgnoredAny>>>>,
}

#[derive(Deserialize)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

/// Reads the spec of a bundle.
pub fn read(bundle: &Path) -> Result<Facts, Error> {
    let path = bundle.join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    parse(&bytes).map_err(|e| Error::Malformed { path, reason: e.to_string() })
}

fn parse(bytes: &[u8]) -> Result<Facts, serde_json::Error> {
    let spec: Spec = serde_json::from_slice(bytes)?;
    let annotations = spec.annotations.unwrap_or_default();
    let namespaces = spec.linux.and_then(|linux| linux.namespaces).unwrap_or_default();
    Ok(Facts {
        group: GROUPS.iter().find_map(|name| annotations.get(*name)).cloned(),
        own_pids: namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.as_deref().unwrap_or_default().is_empty()),
        hooks: spec.hooks.is_some_and(|hooks| hooks.values().flatten().any(|list| !list.is_empty())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups_and_pid_namespaces() {
        let facts = |json: &str| parse(json.as_bytes()).unwrap();
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"},"linux":{"namespaces":[{"type":"pid"}]}}"#;
        assert_eq!(facts(pod), Facts { group: Some("pod".into()), own_pids: true, hooks: false });
        let shared = r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"},{"type":"ipc"}]}}"#;
        assert_eq!(facts(shared), Facts { group: None, own_pids: false, hooks: false });
        assert_eq!(facts(r#"{"linux":{"namespaces":null}}"#), Facts::default());
        let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"a","io.containerd.runc.v2.group":"b"}}"#;
        assert_eq!(facts(both).group.as_deref(), Some("b"));
        assert!(facts(r#"{"hooks":{"poststop":[{"path":"/bin/true"}]}}"#).hooks);
        assert!(!facts(r#"{"hooks":{"poststop":[],"prestart":null}}"#).hooks);
        assert!(parse(b"[]").is_err());
    }
}
