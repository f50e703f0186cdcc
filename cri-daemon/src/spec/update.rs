//! New resources for a container that is there: its spec with other limits.

use serde_json::{Map, Value};
use shared_config::CriRuntime;
use shared_proto::cri::v1::LinuxContainerResources;

use super::{SpecError, VERSION_UNIFIED, resources};
use crate::host::HostFacts;

/// A spec with its new resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    pub spec: Vec<u8>,
    /// `linux.resources` of it, as JSON.
    pub resources: Vec<u8>,
}

/// The resources that follow from a change: what it does not name, zero or empty, stays.
///
/// A new limit of memory alone is one of memory and swap together, as for a new container. The OOM score is given to a
/// process at its start and stays as well.
pub fn merge(current: &LinuxContainerResources, change: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = current.unified.clone();
    unified.extend(change.unified.clone());
    LinuxContainerResources {
        cpu_period: number(change.cpu_period, current.cpu_period),
        cpu_quota: number(change.cpu_quota, current.cpu_quota),
        cpu_shares: number(change.cpu_shares, current.cpu_shares),
        memory_limit_in_bytes: number(change.memory_limit_in_bytes, current.memory_limit_in_bytes),
        oom_score_adj: current.oom_score_adj,
        cpuset_cpus: text(&change.cpuset_cpus, &current.cpuset_cpus),
        cpuset_mems: text(&change.cpuset_mems, &current.cpuset_mems),
        hugepage_limits: match change.hugepage_limits.is_empty() {
            true => current.hugepage_limits.clone(),
            false => change.hugepage_limits.clone(),
        },
        unified,
        memory_swap_limit_in_bytes: match change.memory_limit_in_bytes {
            0 => number(change.memory_swap_limit_in_bytes, current.memory_swap_limit_in_bytes),
            _ => change.memory_swap_limit_in_bytes,
        },
    }
}

/// Whether there can be such limits at all; `field` is their name in the request.
pub fn check_limits(
    field: &str,
    limits: &LinuxContainerResources,
    settings: &CriRuntime,
    host: &HostFacts,
) -> Result<(), SpecError> {
    match resources::container(limits, settings, host, Vec::new()) {
        Ok(_) => Ok(()),
        Err(SpecError::Invalid { field: inner, problem }) => {
            Err(SpecError::Invalid { field: inner.replacen("linux.resources", field, 1), problem })
        }
        Err(e) => Err(e),
    }
}

/// Puts limits into a stored spec. What else it has among the resources (devices, pids) stays, and so does everything
/// that another daemon wrote.
pub fn update(
    spec: &[u8],
    limits: &LinuxContainerResources,
    settings: &CriRuntime,
    host: &HostFacts,
) -> Result<Updated, SpecError> {
    let new = resources::container(limits, settings, host, Vec::new())?;
    let mut new = match serde_json::to_value(new).map_err(SpecError::Encode)? {
        Value::Object(new) => new,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    new.remove("devices");
    let mut spec: Value = serde_json::from_slice(spec).map_err(SpecError::Stored)?;
    if !limits.unified.is_empty() {
        object(&mut spec)?.insert("ociVersion".into(), VERSION_UNIFIED.into());
    }
    let linux = object(&mut spec)?.entry("linux").or_insert_with(|| Map::new().into());
    let resources = object(linux)?.entry("resources").or_insert_with(|| Map::new().into());
    let fields = object(resources)?;
    for (name, value) in new {
        match (fields.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(value)) => old.extend(value),
            (_, value) => {
                fields.insert(name, value);
            }
        }
    }
    let resources = serde_json::to_vec(resources).map_err(SpecError::Encode)?;
    Ok(Updated { spec: serde_json::to_vec(&spec).map_err(SpecError::Encode)?, resources })
}

/// `linux.resources` of a stored spec, as JSON; empty limits when there are none.
pub fn resources_of(spec: &[u8]) -> Vec<u8> {
    let spec: Value = serde_json::from_slice(spec).unwrap_or_default();
    spec.pointer("/linux/resources").map_or_else(|| b"{}".to_vec(), |resources| resources.to_string().into_bytes())
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>, SpecError> {
    let malformed = || SpecError::Stored(serde::de::Error::custom("not an object"));
    value.as_object_mut().ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FakeHost, Host as _};
    use serde_json::json;

    fn limits(memory: i64, swap: i64) -> LinuxContainerResources {
        LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let current = LinuxContainerResources {
            cpu_quota: 50_000,
            cpuset_cpus: "0".into(),
            oom_score_adj: 900,
            unified: [("a.b".to_owned(), "1".to_owned())].into(),
            ..limits(64, 128)
        };
        assert_eq!(merge(&current, &LinuxContainerResources::default()), current);
        let change = LinuxContainerResources {
            cpu_shares: 512,
            oom_score_adj: 5,
            unified: [("c.d".to_owned(), "2".to_owned())].into(),
            ..Default::default()
        };
        let merged = merge(&current, &change);
        assert_eq!((merged.cpu_quota, merged.cpu_shares, merged.oom_score_adj), (50_000, 512, 900));
        assert_eq!((merged.unified.len(), merged.cpuset_cpus.as_str()), (2, "0"));
    }

    #[test]
    fn swap_follows_a_new_limit_of_memory() {
        let swap = |change| merge(&limits(64, 128), &change).memory_swap_limit_in_bytes;
        assert_eq!(swap(limits(0, 0)), 128);
        assert_eq!(swap(limits(0, 256)), 256);
        assert_eq!(swap(limits(256, 0)), 0, "which means: that of memory");
        assert_eq!(swap(limits(256, 300)), 300);
    }

    #[test]
    fn the_rest_of_the_spec_stays() {
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": { "args": ["a"] },
            "linux": { "resources": {
                "devices": [{ "allow": false }],
                "cpu": { "burst": 7, "quota": 1000 },
                "pids": { "limit": 5 },
            } },
        });
        let limits = LinuxContainerResources { cpu_quota: 2000, ..limits(4096, 0) };
        let facts = FakeHost::default().facts().clone();
        let settings = CriRuntime::default();
        let updated = update(spec.to_string().as_bytes(), &limits, &settings, &facts).unwrap();
        let resources = json!({
            "devices": [{ "allow": false }],
            "cpu": { "burst": 7, "quota": 2000 },
            "memory": { "limit": 4096, "swap": 4096 },
            "pids": { "limit": 5 },
        });
        assert_eq!(serde_json::from_slice::<Value>(&updated.resources).unwrap(), resources);
        let mut expected = spec;
        expected["linux"]["resources"] = resources;
        assert_eq!(serde_json::from_slice::<Value>(&updated.spec).unwrap(), expected);
        let bad = LinuxContainerResources { cpu_quota: 5, ..Default::default() };
        let refused = update(b"{}", &bad, &settings, &facts).unwrap_err().to_string();
        assert!(refused.starts_with("linux.resources.cpu_quota: 5"), "{refused}");
        assert!(matches!(update(b"[]", &limits, &settings, &facts), Err(SpecError::Stored(_))));
    }
}
