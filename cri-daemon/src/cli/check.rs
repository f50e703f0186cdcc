//! Reading a manifest, and refusing what would not be done: each complaint names the file and the place in it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::manifest::{Container, Pod, Volume};
use super::quantity;

/// Why a manifest can't be run. Names the file, and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}")]
    Syntax { path: PathBuf, source: serde_yaml::Error },
    #[error("{path}: `cri-daemon run` knows nothing of {}", fields.join(", "))]
    Unsupported { path: PathBuf, fields: Vec<String> },
    #[error("{path}: {field}: {reason}")]
    Invalid { path: PathBuf, field: String, reason: String },
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
    check(&pod).map_err(|Complaint(field, reason)| invalid(&field, reason))?;
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

/// What is wrong, and where.
struct Complaint(String, String);

fn complain<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint(field.into(), reason.into()))
}

/// What types can't say.
fn check(pod: &Pod) -> Result<(), Complaint> {
    label("metadata.name", &pod.metadata.name)?;
    label("metadata.namespace", &pod.metadata.namespace)?;
    match pod.spec.restart_policy.as_deref() {
        Some("Never") => {}
        Some(other) => {
            return complain("spec.restartPolicy", format!("{other:?}: nobody restarts containers here; use Never"));
        }
        None => {
            return complain(
                "spec.restartPolicy",
                "absent, it means Always; nobody restarts containers here: use Never",
            );
        }
    }
    if pod.spec.containers.is_empty() {
        return complain("spec.containers", "there are none");
    }
    for (at, one) in pod.spec.volumes.iter().enumerate() {
        let field = format!("spec.volumes[{at}]");
        unique(&field, &one.name, pod.spec.volumes[..at].iter().map(|volume| &volume.name))?;
        volume(&field, one)?;
    }
    for (at, one) in pod.spec.containers.iter().enumerate() {
        let field = format!("spec.containers[{at}]");
        unique(&field, &one.name, pod.spec.containers[..at].iter().map(|container| &container.name))?;
        container(&field, one, &pod.spec.volumes)?;
    }
    Ok(())
}

fn volume(field: &str, volume: &Volume) -> Result<(), Complaint> {
    match (&volume.host_path, &volume.empty_dir) {
        (Some(host), None) if host.path.is_absolute() => Ok(()),
        (Some(host), None) => {
            complain(format!("{field}.hostPath.path"), format!("{} is not absolute", host.path.display()))
        }
        (None, Some(_)) => Ok(()),
        (None, None) => complain(field, "it is neither a hostPath nor an emptyDir"),
        (Some(_), Some(_)) => complain(field, "it is both a hostPath and an emptyDir"),
    }
}

fn container(field: &str, container: &Container, volumes: &[Volume]) -> Result<(), Complaint> {
    for (at, mount) in container.volume_mounts.iter().enumerate() {
        let field = format!("{field}.volumeMounts[{at}]");
        if !mount.mount_path.starts_with('/') {
            return complain(format!("{field}.mountPath"), format!("{:?} is not absolute", mount.mount_path));
        }
        if !volumes.iter().any(|volume| volume.name == mount.name) {
            return complain(format!("{field}.name"), format!("there is no volume {:?}", mount.name));
        }
    }
    for (kind, amounts) in [("limits", &container.resources.limits), ("requests", &container.resources.requests)] {
        for (resource, amount) in [("cpu", &amounts.cpu), ("memory", &amounts.memory)] {
            let Some(amount) = amount else { continue };
            if let Err(reason) = quantity::thousandths(&amount.to_string()) {
                return complain(format!("{field}.resources.{kind}.{resource}"), reason);
            }
        }
    }
    Ok(())
}

fn label(field: &str, name: &str) -> Result<(), Complaint> {
    if is_label(name) { Ok(()) } else { complain(field, format!("{name:?} is not a lower-case DNS name")) }
}

fn unique<'a>(field: &str, name: &String, mut others: impl Iterator<Item = &'a String>) -> Result<(), Complaint> {
    let field = format!("{field}.name");
    label(&field, name)?;
    if others.any(|other| other == name) { complain(field, format!("{name:?} is used twice")) } else { Ok(()) }
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
        format!("{:#}", anyhow::Error::new(parse(text, Path::new("pod.yaml")).unwrap_err()))
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
