//! The few facts of an OCI spec that the core itself needs. Everything else of it is passed on unread.

use std::collections::HashMap;

use serde::Deserialize;

/// Annotation with which the runc shim groups containers of its own accord; the value is any name.
const GROUP: &str = "io.containerd.runc.v2.group";
/// Annotation that names the sandbox of a container; the runc shim groups by it as well.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// What is read of a spec.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The sandbox that the container shares a shim with, by the rule of the runc shim.
    pub sandbox: Option<String>,
    /// The group that is root inside the container's user namespace; 0 without one.
    pub root_gid: u32,
    /// `linux.cgroupsPath`, if the spec names one.
    pub cgroup: Option<String>,
}

#[derive(Deserialize)]
struct Spec {
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "gidMappings")]
    gid_mappings: Option<Vec<Mapping>>,
    #[serde(rename = "cgroupsPath")]
    cgroup: Option<String>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
}

/// Reads a spec in JSON.
pub(super) fn read(spec: &[u8]) -> Result<Facts, serde_json::Error> {
    let spec: Spec = serde_json::from_slice(spec)?;
    let annotations = spec.annotations.unwrap_or_default();
    let sandbox = if annotations.contains_key(GROUP) { None } else { annotations.get(SANDBOX).cloned() };
    let (mappings, cgroup) = spec.linux.map(|linux| (linux.gid_mappings, linux.cgroup)).unwrap_or_default();
    let mappings = mappings.unwrap_or_default();
    let root_gid = mappings.iter().find(|m| m.container == 0).map_or(0, |m| m.host);
    Ok(Facts { sandbox, root_gid, cgroup })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_and_skips_the_rest() {
        let spec = br#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.sandbox-id":"pod"},
            "linux":{"gidMappings":[{"containerID":1,"hostID":5,"size":1},{"containerID":0,"hostID":100000,"size":1}]}}"#;
        assert_eq!(read(spec).unwrap(), Facts { sandbox: Some("pod".into()), root_gid: 100_000, cgroup: None });
        assert_eq!(read(br#"{"annotations":null,"linux":{}}"#).unwrap(), Facts::default());
        let grouped = br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(read(grouped).unwrap().sandbox, None);
        assert!(read(b"[]").is_err());
    }
}
