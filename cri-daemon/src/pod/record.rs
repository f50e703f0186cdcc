//! The record of a sandbox: JSON in the container extension [`EXTENSION`], in containerd's own format.
//!
//! It is written before anything else of the sandbox exists ([`Phase::Creating`]) and holds all that is needed to
//! clean up: the path of the network namespace, the runtime, the configuration. Once the sandbox runs it is written
//! again, with its addresses. Keys that containerd does not know (`CreatedAt`, `Phase`) it ignores; keys that we don't
//! know are ignored by us.

use std::path::PathBuf;

use prost_types::Any;
use serde::{Deserialize, Serialize};
use shared_proto::cri::v1;

use crate::network::{CniResult, PodNetwork};
use crate::versioned::{self, RecordError};

/// The extension's key.
pub const EXTENSION: &str = "io.cri-containerd.sandbox.metadata";
/// The type of its value, as containerd registers it.
const TYPE: &str = "github.com/containerd/cri/pkg/store/sandbox/Metadata";

/// Everything about a sandbox that does not change while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    #[serde(rename = "ID")]
    pub id: String,
    /// `name_namespace_uid_attempt`: unique among sandboxes.
    pub name: String,
    pub config: v1::PodSandboxConfig,
    /// Path of the network namespace; empty in the machine's network.
    #[serde(rename = "NetNSPath", default)]
    pub netns: PathBuf,
    /// The address that the kubelet is told first; empty in the machine's network.
    #[serde(rename = "IP", default)]
    pub ip: String,
    #[serde(rename = "AdditionalIPs", default)]
    pub additional_ips: Vec<String>,
    /// The runtime handler of the request; empty = the default.
    #[serde(default)]
    pub runtime_handler: String,
    #[serde(rename = "CNIResult", default)]
    pub cni_result: Option<CniResult>,
    #[serde(default)]
    pub process_label: String,
    /// Unix time, nanoseconds. 0: take that of the core's record.
    #[serde(default)]
    pub created_at: i64,
    #[serde(default)]
    pub phase: Phase,
    /// What the kubelet has changed the pod's resources to; `config` stays as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_resources: Option<PodResources>,
}

/// What a pod may use, and what of that is not for its containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PodResources {
    #[serde(default)]
    pub overhead: Option<v1::LinuxContainerResources>,
    #[serde(default)]
    pub resources: Option<v1::LinuxContainerResources>,
}

/// Whether RunPodSandbox got to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// It is at work, or was when the daemon ended: nobody was told of the sandbox.
    Creating,
    /// It is through. Records of containerd say nothing, and are written at the end.
    #[default]
    Made,
    /// It failed and something could not be cleaned up: the name is free, the rest waits for stop and remove.
    Failed,
}

impl Record {
    pub fn to_any(&self) -> Result<Any, RecordError> {
        versioned::encode(TYPE, self)
    }

    pub fn from_any(any: &Any) -> Result<Self, RecordError> {
        versioned::decode(any)
    }

    /// What the pod may use now, as far as the kubelet has said.
    pub fn resources_now(&self) -> PodResources {
        let asked = || {
            let linux = self.config.linux.as_ref();
            PodResources {
                overhead: linux.and_then(|linux| linux.overhead.clone()),
                resources: linux.and_then(|linux| linux.resources.clone()),
            }
        };
        self.updated_resources.clone().unwrap_or_else(asked)
    }

    /// Whether the pod has the machine's network.
    pub fn host_network(&self) -> bool {
        self.netns.as_os_str().is_empty()
    }

    /// The pod as CNI plugins see it.
    pub fn network(&self) -> PodNetwork {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        PodNetwork {
            id: self.id.clone(),
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            netns: self.netns.clone(),
            port_mappings: self.config.port_mappings.clone(),
            annotations: self.config.annotations.clone(),
            dns: self.config.dns_config.clone(),
            cgroup_parent: self.config.linux.as_ref().map(|l| l.cgroup_parent.clone()).unwrap_or_default(),
        }
    }
}

/// The unique name of a sandbox. `InvalidArgument` without the metadata that it is made of.
pub fn name(config: &v1::PodSandboxConfig) -> shared_proto::Result<String> {
    use shared_proto::Error;
    let m = config.metadata.as_ref().ok_or_else(|| Error::invalid("config.metadata: a sandbox needs it"))?;
    for (field, value) in [("name", &m.name), ("namespace", &m.namespace), ("uid", &m.uid)] {
        if value.is_empty() {
            return Err(Error::invalid(format!("config.metadata.{field}: a sandbox needs it")));
        }
    }
    Ok(format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_proto::cri::v1::*;

    fn record() -> Record {
        let metadata =
            PodSandboxMetadata { name: "web".into(), uid: "u1".into(), namespace: "shop".into(), attempt: 2 };
        let labels = [("app".to_owned(), String::new())].into();
        let config = PodSandboxConfig { metadata: Some(metadata), labels, ..Default::default() };
        Record {
            id: "ab".repeat(32),
            name: name(&config).unwrap(),
            config,
            netns: "/var/run/netns/cni-1".into(),
            ip: "10.1.0.2".into(),
            additional_ips: vec!["fd00::2".into()],
            runtime_handler: String::new(),
            cni_result: None,
            process_label: String::new(),
            created_at: 17,
            phase: Phase::Made,
            updated_resources: None,
        }
    }

    #[test]
    fn survives_the_way_to_the_core_and_back() {
        let any = record().to_any().unwrap();
        assert_eq!(any.type_url, "github.com/containerd/cri/pkg/store/sandbox/Metadata");
        assert_eq!(Record::from_any(&any).unwrap(), record());
        let json: serde_json::Value = serde_json::from_slice(&any.value).unwrap();
        assert_eq!(json["Version"], "v1");
        assert_eq!(json["Metadata"]["Config"]["labels"]["app"], "");
        assert!(json["Metadata"].get("UpdatedResources").is_none(), "nothing was changed");
    }

    #[test]
    fn changed_resources_go_before_those_asked_for() {
        let limits = |bytes| Some(v1::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() });
        let mut record = record();
        assert_eq!(record.resources_now(), PodResources::default());
        let linux = v1::LinuxPodSandboxConfig { overhead: limits(1), resources: limits(2), ..Default::default() };
        record.config.linux = Some(linux);
        assert_eq!(record.resources_now(), PodResources { overhead: limits(1), resources: limits(2) });
        let changed = PodResources { overhead: limits(1), resources: limits(3) };
        record.updated_resources = Some(changed.clone());
        let read = Record::from_any(&record.to_any().unwrap()).unwrap();
        assert_eq!((read.resources_now(), &read.config), (changed, &record.config));
    }

    /// A record as containerd 1.6 writes it.
    #[test]
    fn reads_version_1() {
        let any = Any { type_url: TYPE.into(), value: include_bytes!("fixtures/sandbox-v1.json").to_vec() };
        let record = Record::from_any(&any).unwrap();
        assert_eq!(record.name, "web-0_shop_5f0e_1");
        assert_eq!((record.ip.as_str(), record.phase), ("10.1.0.2", Phase::Made));
        assert_eq!(record.netns.to_str(), Some("/var/run/netns/cni-2d"));
        let config = &record.config;
        assert_eq!(config.port_mappings[0].host_port, 8080);
        assert_eq!(config.linux.as_ref().unwrap().cgroup_parent, "/kubepods/pod5f0e");
        assert_eq!(record.cni_result.unwrap().interfaces["eth0"].ip_configs[0].ip, "10.1.0.2");
    }

    #[test]
    fn another_version_is_refused_by_its_name() {
        let any = Any { type_url: TYPE.into(), value: br#"{"Version":"v9","Metadata":{}}"#.to_vec() };
        assert!(Record::from_any(&any).unwrap_err().to_string().contains("v9"));
        let any = Any { type_url: TYPE.into(), value: b"{".to_vec() };
        assert!(Record::from_any(&any).is_err());
    }

    #[test]
    fn a_name_needs_all_its_parts() {
        let mut config = record().config;
        assert_eq!(name(&config).unwrap(), "web_shop_u1_2");
        config.metadata.as_mut().unwrap().uid.clear();
        assert!(name(&config).unwrap_err().message.contains("metadata.uid"));
        config.metadata = None;
        assert!(name(&config).is_err());
    }
}
