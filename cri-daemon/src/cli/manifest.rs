//! A Kubernetes Pod manifest, as far as it can be run without a kubelet.
//!
//! Every field that is not written here is refused by its place in the document: a manifest that asks for something
//! that nobody would do must not look as if it ran. Fields that the API server fills in (`status`,
//! `metadata.creationTimestamp`) are refused like the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why a manifest can't be run. Names the file, and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Syntax { path: PathBuf, source: serde_yaml::Error },
    #[error("{path}: `cri-daemon run` knows nothing of {}", fields.join(", "))]
    Unsupported { path: PathBuf, fields: Vec<String> },
    #[error("{path}: {field}: {reason}")]
    Invalid { path: PathBuf, field: String, reason: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Made up when it is absent.
    pub uid: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    "default".into()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    restart_policy: Option<String>,
    pub containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub security_context: PodSecurity,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    pub image: String,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<Env>,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(default)]
    pub security_context: Security,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Env {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    #[serde(rename = "name")]
    _name: Option<String>,
    pub container_port: u16,
    #[serde(default)]
    pub host_port: u16,
    #[serde(rename = "hostIP", default)]
    pub host_ip: String,
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub limits: Amounts,
    pub requests: Amounts,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Amounts {
    pub cpu: Option<Amount>,
    pub memory: Option<Amount>,
}

/// YAML reads `cpu: 1` as a number and `cpu: 100m` as text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    Text(String),
    Integer(u64),
    Float(f64),
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Amount::Text(text) => f.write_str(text),
            Amount::Integer(n) => n.fmt(f),
            Amount::Float(n) => n.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub host_path: Option<HostPath>,
    pub empty_dir: Option<EmptyDir>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct HostPath {
    pub path: PathBuf,
    #[serde(rename = "type", default)]
    pub kind: HostPathType,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
pub enum HostPathType {
    #[default]
    #[serde(rename = "")]
    Unchecked,
    Directory,
    DirectoryOrCreate,
    File,
    FileOrCreate,
}

#[derive(Debug, Clone, Deserialize)]
pub struct EmptyDir {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurity {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub supplemental_groups: Vec<i64>,
    pub seccomp_profile: Option<Seccomp>,
    pub sysctls: Vec<Sysctl>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub privileged: bool,
    pub read_only_root_filesystem: bool,
    pub allow_privilege_escalation: Option<bool>,
    pub capabilities: Capabilities,
    pub seccomp_profile: Option<Seccomp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    #[serde(rename = "type")]
    pub kind: SeccompType,
    #[serde(default)]
    pub localhost_profile: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SeccompType {
    RuntimeDefault,
    Unconfined,
    Localhost,
}

/// Reads the manifest at `path`.
pub fn load(path: &Path) -> Result<Pod, ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads `text`; `path` is only named in messages.
pub fn parse(text: &str, path: &Path) -> Result<Pod, ManifestError> {
    let syntax = |source| ManifestError::Syntax { path: path.to_owned(), source };
    let invalid =
        |field: &str, reason: String| ManifestError::Invalid { path: path.to_owned(), field: field.to_owned(), reason };
    // What it is comes before what is in it: a Deployment is no broken Pod.
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "apiVersion", default)]
        api_version: String,
        #[serde(default)]
        kind: String,
    }
    let kind: Kind = serde_yaml::from_str(text).map_err(syntax)?;
    if (kind.api_version.as_str(), kind.kind.as_str()) != ("v1", "Pod") {
        let found = format!("{:?} of {:?}", kind.kind, kind.api_version);
        return Err(invalid("kind", format!("this is a {found}; only a \"Pod\" of \"v1\" can be run")));
    }
    let mut unknown = Vec::new();
    let pod: Pod = serde_ignored::deserialize(serde_yaml::Deserializer::from_str(text), |field| {
        unknown.push(place(&field.to_string()));
    })
    .map_err(syntax)?;
    if !unknown.is_empty() {
        return Err(ManifestError::Unsupported { path: path.to_owned(), fields: unknown });
    }
    check(&pod).map_err(|(field, reason)| invalid(&field, reason))?;
    Ok(pod)
}

/// `spec.containers.0.tty` as people write it: `spec.containers[0].tty`.
fn place(field: &str) -> String {
    let mut place = String::new();
    for part in field.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            place.push_str(&format!("[{part}]"));
        } else {
            place.push_str(if place.is_empty() { "" } else { "." });
            place.push_str(part);
        }
    }
    place
}

/// What types can't say. The error is the field, and what is wrong with it.
fn check(pod: &Pod) -> Result<(), (String, String)> {
    let fail = |field: String, reason: &str| Err((field, reason.to_owned()));
    for (field, name) in [("metadata.name", &pod.metadata.name), ("metadata.namespace", &pod.metadata.namespace)] {
        if !is_label(name) {
            return fail(field.into(), &format!("{name:?} is not a lower-case DNS name"));
        }
    }
    match pod.spec.restart_policy.as_deref() {
        Some("Never") => {}
        Some(other) => {
            return fail(
                "spec.restartPolicy".into(),
                &format!("{other:?}: nobody restarts containers here; use Never"),
            );
        }
        None => {
            return fail(
                "spec.restartPolicy".into(),
                "it means Always unless it is given; nobody restarts containers here, so write Never",
            );
        }
    }
    if pod.spec.containers.is_empty() {
        return fail("spec.containers".into(), "there are none");
    }
    for (at, volume) in pod.spec.volumes.iter().enumerate() {
        let field = format!("spec.volumes[{at}]");
        if !is_label(&volume.name) {
            return fail(field + ".name", &format!("{:?} is not a lower-case DNS name", volume.name));
        }
        if pod.spec.volumes[..at].iter().any(|other| other.name == volume.name) {
            return fail(field + ".name", &format!("{:?} is used twice", volume.name));
        }
        match (&volume.host_path, &volume.empty_dir) {
            (Some(host), None) if host.path.is_absolute() => {}
            (Some(host), None) => {
                return fail(field + ".hostPath.path", &format!("{} is not absolute", host.path.display()));
            }
            (None, Some(_)) => {}
            (None, None) => return fail(field, "it is neither a hostPath nor an emptyDir"),
            (Some(_), Some(_)) => return fail(field, "it is both a hostPath and an emptyDir"),
        }
    }
    for (at, container) in pod.spec.containers.iter().enumerate() {
        let field = format!("spec.containers[{at}]");
        if !is_label(&container.name) {
            return fail(field + ".name", &format!("{:?} is not a lower-case DNS name", container.name));
        }
        if pod.spec.containers[..at].iter().any(|other| other.name == container.name) {
            return fail(field + ".name", &format!("{:?} is used twice", container.name));
        }
        for (at, mount) in container.volume_mounts.iter().enumerate() {
            let field = format!("{field}.volumeMounts[{at}]");
            if !mount.mount_path.starts_with('/') {
                return fail(field + ".mountPath", &format!("{:?} is not absolute", mount.mount_path));
            }
            if !pod.spec.volumes.iter().any(|volume| volume.name == mount.name) {
                return fail(field + ".name", &format!("there is no volume {:?}", mount.name));
            }
        }
        for (kind, amounts) in [("limits", &container.resources.limits), ("requests", &container.resources.requests)] {
            for (resource, amount) in [("cpu", &amounts.cpu), ("memory", &amounts.memory)] {
                let Some(amount) = amount else { continue };
                if let Err(reason) = super::quantity::thousandths(&amount.to_string()) {
                    return fail(format!("{field}.resources.{kind}.{resource}"), &reason);
                }
            }
        }
    }
    Ok(())
}

/// RFC 1123: what names of pods, containers and volumes are made of. Dots are fine in names of pods.
fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 253 && bytes.iter().all(|b| inner(*b)) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  restartPolicy: Never
  volumes:
  - {name: v, emptyDir: {}}
  containers:
  - name: c
    image: busybox
    env: [{name: A, value: b}]
    resources: {limits: {cpu: 1, memory: 64Mi}}
    volumeMounts: [{name: v, mountPath: /v}]
";

    fn refused(text: &str) -> String {
        parse(text, Path::new("pod.yaml")).unwrap_err().to_string()
    }

    #[test]
    fn a_small_pod_is_read() {
        let pod = parse(GOOD, Path::new("pod.yaml")).unwrap();
        assert_eq!((pod.metadata.namespace.as_str(), pod.spec.containers.len()), ("default", 1));
        assert_eq!(pod.spec.containers[0].resources.limits.cpu.as_ref().unwrap().to_string(), "1");
    }

    #[test]
    fn unknown_fields_are_named_by_their_place() {
        let text = GOOD.replace("image: busybox", "image: busybox\n    livenessProbe: {exec: {command: [a]}}");
        let text = text.replace("spec:\n", "spec:\n  nodeName: x\n").replace("{cpu: 1,", "{gpu: 1,");
        let message = refused(&text);
        for field in ["spec.nodeName", "spec.containers[0].livenessProbe", "spec.containers[0].resources.limits.gpu"] {
            assert!(message.contains(field), "{message}");
        }
        let message = refused(&GOOD.replace("emptyDir: {}", "configMap: {name: x}"));
        assert!(message.contains("spec.volumes[0].configMap"), "{message}");
        let message = refused(&GOOD.replace("emptyDir: {}", "emptyDir: {medium: Memory}"));
        assert!(message.contains("spec.volumes[0].emptyDir.medium"), "{message}");
    }

    #[test]
    fn what_can_not_work_is_explained() {
        for (from, to, field, why) in [
            ("kind: Pod", "kind: Deployment", "kind", "Deployment"),
            ("restartPolicy: Never", "restartPolicy: Always", "spec.restartPolicy", "Always"),
            ("  restartPolicy: Never\n", "", "spec.restartPolicy", "Never"),
            ("{name: a}", "{name: A_b}", "metadata.name", "A_b"),
            ("memory: 64Mi", "memory: lots", "spec.containers[0].resources.limits.memory", "lots"),
            ("{name: v, mountPath", "{name: w, mountPath", "spec.containers[0].volumeMounts[0].name", "\"w\""),
            ("emptyDir: {}", "hostPath: {path: a/b}", "spec.volumes[0].hostPath.path", "a/b"),
            (", emptyDir: {}", "", "spec.volumes[0]", "neither"),
        ] {
            let message = refused(&GOOD.replace(from, to));
            assert!(message.starts_with("pod.yaml: ") && message.contains(field) && message.contains(why), "{message}");
        }
        assert!(refused("{").starts_with("pod.yaml: "));
        assert!(refused(&GOOD.replace("image: busybox", "image: [1]")).contains("line"), "types are named by line");
    }
}
