//! Results of plugins, of every version of the CNI format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The network of a pod, in the shape in which containerd keeps it in a sandbox's metadata (`CNIResult`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CniResult {
    /// By name: `eth0` for the pod's own, others as the plugins named them.
    pub interfaces: BTreeMap<String, Interface>,
    #[serde(rename = "DNS")]
    pub dns: Vec<serde_json::Value>,
    pub routes: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    #[serde(rename = "IPConfigs")]
    pub ip_configs: Vec<IpConfig>,
    pub mac: String,
    pub sandbox: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpConfig {
    #[serde(rename = "IP")]
    pub ip: String,
    #[serde(rename = "Gateway")]
    pub gateway: String,
}
