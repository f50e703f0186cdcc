//! The record of a container: JSON in the container extension [`EXTENSION`], in containerd's own format.
//!
//! It is written before the container's snapshot is made. Keys that containerd does not know (`CreatedAt`, `ImageName`,
//! `RepoDigest`, `Resources`, `User`) it ignores; keys that we don't know are ignored by us.

use prost_types::Any;
use serde::{Deserialize, Serialize};
use shared_proto::cri::v1;
use shared_proto::{Error, Result};

use crate::versioned::{self, RecordError};

/// The extension's key.
pub const EXTENSION: &str = "io.cri-containerd.container.metadata";
/// The type of its value, as containerd registers it.
const TYPE: &str = "github.com/containerd/cri/pkg/store/container/Metadata";

/// Everything about a container but its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    #[serde(rename = "ID")]
    pub id: String,
    /// `name_podname_namespace_uid_attempt`: unique among containers.
    pub name: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub config: v1::ContainerConfig,
    /// Id of the image: the digest of its configuration.
    pub image_ref: String,
    /// Absolute path of the log; empty = none is kept.
    #[serde(default)]
    pub log_path: String,
    /// The signal that asks it to end, by name or number; empty = SIGTERM.
    #[serde(default)]
    pub stop_signal: String,
    #[serde(default)]
    pub process_label: String,
    /// A tag of the image, and the digest under which its registry knows it.
    #[serde(default)]
    pub image_name: String,
    #[serde(default)]
    pub repo_digest: String,
    /// Who the process runs as. Absent in records of containerd.
    #[serde(default)]
    pub user: Option<RecordUser>,
    /// Unix time, nanoseconds. 0: take that of the core's record.
    #[serde(default)]
    pub created_at: i64,
    /// The resources that count now, when they were changed. `config` stays as it was asked for: a request that is sent
    /// again must find itself there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<v1::LinuxContainerResources>,
}

/// A resolved identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RecordUser {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

impl Record {
    pub fn to_any(&self) -> Result<Any, RecordError> {
        versioned::encode(TYPE, self)
    }

    pub fn from_any(any: &Any) -> Result<Self, RecordError> {
        versioned::decode(any)
    }

    /// Whether the container's processes are alone in their pid namespace, so that they all end with the first.
    pub fn own_pid_namespace(&self) -> bool {
        let context = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let mode = context.and_then(|c| c.namespace_options.as_ref()).map_or(v1::NamespaceMode::Container, |o| o.pid());
        mode == v1::NamespaceMode::Container
    }
}

/// The unique name of a container. `InvalidArgument` without the metadata that it is made of.
pub fn name(config: &v1::ContainerConfig, sandbox: &v1::PodSandboxConfig) -> Result<String> {
    let m = config.metadata.as_ref().filter(|m| !m.name.is_empty());
    let m = m.ok_or_else(|| Error::invalid("config.metadata.name: a container needs it"))?;
    let pod = sandbox.metadata.clone().unwrap_or_default();
    Ok(format!("{}_{}_{}_{}_{}", m.name, pod.name, pod.namespace, pod.uid, m.attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as containerd 1.6 writes it.
    #[test]
    fn reads_version_1() {
        let any = Any { type_url: TYPE.into(), value: include_bytes!("fixtures/container-v1.json").to_vec() };
        let record = Record::from_any(&any).unwrap();
        assert_eq!(record.name, "nginx_web-0_shop_5f0e_0");
        assert_eq!((record.stop_signal.as_str(), record.user.as_ref()), ("SIGQUIT", None));
        let config = &record.config;
        assert_eq!((config.envs[0].key.as_str(), config.envs[0].value.as_slice()), ("PORT", b"80".as_slice()));
        assert_eq!(config.mounts[0].container_path, "/etc/hosts");
        assert_eq!(config.linux.as_ref().unwrap().resources.as_ref().unwrap().cpu_shares, 102);
        assert!(!record.own_pid_namespace());
    }

    #[test]
    fn survives_the_way_to_the_core_and_back() {
        let any = Any { type_url: TYPE.into(), value: include_bytes!("fixtures/container-v1.json").to_vec() };
        let mut record = Record::from_any(&any).unwrap();
        record.user = Some(RecordUser { uid: 1, gid: 2, additional_gids: vec![2, 3] });
        record.config.labels.insert("empty".into(), String::new());
        assert!(!String::from_utf8(record.to_any().unwrap().value).unwrap().contains("Resources"), "none were changed");
        record.resources = Some(v1::LinuxContainerResources { cpu_shares: 5, ..Default::default() });
        assert_eq!(Record::from_any(&record.to_any().unwrap()).unwrap(), record);
    }

    #[test]
    fn a_name_needs_the_containers() {
        let sandbox = v1::PodSandboxConfig::default();
        let mut config = v1::ContainerConfig::default();
        assert!(name(&config, &sandbox).unwrap_err().message.contains("metadata.name"));
        config.metadata = Some(v1::ContainerMetadata { name: "a".into(), attempt: 3 });
        assert_eq!(name(&config, &sandbox).unwrap(), "a____3");
    }
}
