//! Annotations that shims, cAdvisor and others read from a spec.
//!
//! The runc shim groups the containers of a pod by `sandbox-id`. Annotations of the pod and of the container pass
//! through when the runtime handler's globs name them.

use std::collections::{BTreeMap, HashMap};

use shared_proto::cri::v1;

use super::{ContainerInput, SandboxInput};

const PREFIX: &str = "io.kubernetes.cri.";

type Annotations = HashMap<String, String>;

pub(super) fn sandbox(input: &SandboxInput) -> Annotations {
    let config = input.config;
    let mut out = passed(&input.runtime.pod_annotations, &config.annotations);
    pod(&mut out, "sandbox", input.id, config);
    set(&mut out, "sandbox-log-directory", &config.log_directory);
    set(&mut out, "podsandbox.image-name", input.image_name);
    let linux = config.linux.as_ref();
    if let Some(resources) = linux.and_then(|linux| linux.resources.as_ref()) {
        set(&mut out, "sandbox-cpu-period", resources.cpu_period);
        set(&mut out, "sandbox-cpu-quota", resources.cpu_quota);
        set(&mut out, "sandbox-cpu-shares", resources.cpu_shares);
        set(&mut out, "sandbox-memory", resources.memory_limit_in_bytes);
    }
    out
}

pub(super) fn container(input: &ContainerInput) -> Annotations {
    let mut out = passed(&input.runtime.pod_annotations, &input.sandbox.annotations);
    out.extend(passed(&input.runtime.container_annotations, &input.config.annotations));
    pod(&mut out, "container", input.sandbox_id, input.sandbox);
    set(&mut out, "container-name", input.name);
    set(&mut out, "image-name", input.image_name);
    out
}

fn pod(out: &mut Annotations, kind: &str, sandbox_id: &str, config: &v1::PodSandboxConfig) {
    set(out, "container-type", kind);
    set(out, "sandbox-id", sandbox_id);
    let none = v1::PodSandboxMetadata::default();
    let metadata = config.metadata.as_ref().unwrap_or(&none);
    set(out, "sandbox-name", &metadata.name);
    set(out, "sandbox-namespace", &metadata.namespace);
    set(out, "sandbox-uid", &metadata.uid);
}

fn set(out: &mut Annotations, key: &str, value: impl ToString) {
    out.insert(format!("{PREFIX}{key}"), value.to_string());
}

fn passed(globs: &[String], annotations: &BTreeMap<String, String>) -> Annotations {
    let wanted = |key: &str| globs.iter().any(|glob| matches(glob.as_bytes(), key.as_bytes()));
    annotations.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Shell globs as containerd reads them: `*` and `?` match anything but `/`; `\` quotes. Character classes (`[…]`)
/// match nothing here.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text) || text.split_first().is_some_and(|(c, tail)| *c != b'/' && matches(glob, tail))
        }
        (Some((b'?', rest)), Some((c, tail))) => *c != b'/' && matches(rest, tail),
        (Some((b'\\', rest)), Some((c, tail))) => {
            rest.split_first().is_some_and(|(quoted, rest)| quoted == c && matches(rest, tail))
        }
        (Some((b'[', _)), _) => false,
        (Some((expected, rest)), Some((c, tail))) => expected == c && matches(rest, tail),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_choose_what_passes() {
        let annotations = BTreeMap::from(["a.b/c", "a.b/d", "x", "x/y"].map(|key| (key.to_owned(), "v".to_owned())));
        let keys = |globs: &[&str]| {
            let globs: Vec<_> = globs.iter().map(|g| g.to_string()).collect();
            let mut keys: Vec<_> = passed(&globs, &annotations).into_keys().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(keys(&[]), "");
        assert_eq!(keys(&["a.b/*"]), "a.b/c a.b/d");
        assert_eq!(keys(&["*"]), "x");
        assert_eq!(keys(&["a.b/?", "x/*"]), "a.b/c a.b/d x/y");
        assert_eq!(keys(&["a.*/c"]), "a.b/c");
        assert_eq!(keys(&["\\x"]), "x");
    }
}
