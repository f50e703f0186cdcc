//! Pod networks by CNI: plugins are executed, results cached in libcni's format.
//!
//! - [`config`]: the files of `conf_dir`; read again when the folder looks different. Bad ones are left out, and named.
//! - [`plugin`]: one execution, with a deadline. [`args`]: what a plugin is told.
//! - [`cache`]: what was set up, with its configuration: taken back with it even when the configuration has changed.
//! - [`result`]: addresses from results. [`pod_cidr`], [`template`]: the configuration from a kubelet's pod CIDR.
//!
//! Each network's first plugin runs after the intent is on disk; a failed set-up is taken back by `DEL` of every
//! network. The namespace comes with `lo` up, so no plugin is needed for that.
//! Limits: `CHECK`, `STATUS` and `GC` of CNI are not used.

mod args;
mod cache;
mod chain;
mod config;
mod error;
mod plugin;
mod pod_cidr;
mod result;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shared_proto::cri::v1;

pub use error::NetworkError;
pub use result::{CniResult, Interface, IpConfig};

use crate::metrics::Metrics;
use config::{List, Loaded};

/// Where libcni keeps its results, and so where other runtimes find ours.
pub const CACHE_DIR: &str = "/var/lib/cni";
/// How long one plugin may take to add a pod: less than a kubelet waits for it.
const ADD_LIMIT: Duration = Duration::from_secs(90);
/// How long one plugin may take to take a pod back.
const DEL_LIMIT: Duration = Duration::from_secs(50);
/// How long taking a pod's networks back may take in all: two plugins that hang are both killed, and named, before.
pub const TEARDOWN_LIMIT: Duration = Duration::from_secs(120);

/// The networks of one configuration folder.
pub struct Network {
    cni: shared_config::Cni,
    cache_dir: PathBuf,
    limits: Limits,
    metrics: Metrics,
    /// The files as last read.
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// Pods whose failed set-up was taken back: who cleans up after it has nothing to do here.
    taken_back: Mutex<BTreeSet<String>>,
}

/// How long one plugin may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    add: Duration,
    del: Duration,
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

/// What [`Network::setup`] made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Addresses of the pod, the one that the kubelet is told first.
    pub ips: Vec<IpAddr>,
    /// What goes into the sandbox's record.
    pub result: CniResult,
}

/// Whether pods can get a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkStatus {
    /// The names of the networks in use, and what is wrong with the files that are left out.
    Ready { networks: Vec<String>, left_out: Vec<String> },
    /// Why not, in one sentence.
    NotReady(String),
}

/// Refuses what no plugin could be told rightly. For a pod with a network of its own, before anything of it is made.
pub fn check(pod: &PodNetwork) -> Result<(), NetworkError> {
    args::check(pod)
}

impl Network {
    /// `cache_dir` is [`CACHE_DIR`] outside of tests; results go to its `results` folder.
    pub fn new(cni: &shared_config::Cni, cache_dir: &Path, metrics: Metrics) -> Self {
        let cache_dir = cache_dir.join("results");
        let limits = Limits { add: ADD_LIMIT, del: DEL_LIMIT };
        Self { cni: cni.clone(), cache_dir, limits, metrics, loaded: Mutex::default(), taken_back: Mutex::default() }
    }

    /// The same, with the folder and the limit that a runtime handler overrides.
    pub fn for_runtime(&self, runtime: &shared_config::Runtime) -> Self {
        let mut cni = self.cni.clone();
        if !runtime.cni_conf_dir.is_empty() {
            cni.conf_dir = runtime.cni_conf_dir.clone().into();
            // Unlike in the section of CNI itself, 0 does not mean all.
            if runtime.cni_max_conf_num != 0 {
                cni.max_conf_num = runtime.cni_max_conf_num;
            }
        }
        let (cache_dir, metrics) = (self.cache_dir.clone(), self.metrics.clone());
        Self { cni, cache_dir, limits: self.limits, metrics, loaded: Mutex::default(), taken_back: Mutex::default() }
    }

    /// Gives the pod its network. On an error everything is taken back first.
    pub async fn setup(&self, pod: &PodNetwork) -> Result<Setup, NetworkError> {
        let loaded = match self.prepare(pod).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // No plugin has run, so none has anything to take back.
                self.taken_back().insert(pod.id.clone());
                return Err(error);
            }
        };
        match self.add_all(pod, &loaded.lists).await {
            Ok((result, ips)) => Ok(Setup { ips, result }),
            Err(error) => match self.teardown(pod).await {
                Ok(()) => {
                    self.taken_back().insert(pod.id.clone());
                    Err(error)
                }
                Err(also) => Err(NetworkError::Several(vec![error, also])),
            },
        }
    }

    /// The networks for a pod, with every plugin that it needs in place.
    async fn prepare(&self, pod: &PodNetwork) -> Result<Arc<Loaded>, NetworkError> {
        check(pod)?;
        let loaded = self.load().await?;
        let (lists, bin_dirs, all) = (loaded.clone(), self.cni.bin_dirs.clone(), args::capabilities(pod));
        let look = move || {
            let plugins = lists.lists.iter().flat_map(|list| &list.plugins);
            let mut needed = plugins.filter(|plugin| args::runtime_config(plugin, &all).is_some());
            needed.try_for_each(|plugin| plugin::find(config::kind(plugin), &bin_dirs).map(drop))
        };
        shared_sys::blocking(look).await?;
        Ok(loaded)
    }

    /// Several networks are set up side by side, unless they are to be set up one after the other. All have ended,
    /// well or not, when this returns.
    async fn add_all(&self, pod: &PodNetwork, lists: &[List]) -> Result<(CniResult, Vec<IpAddr>), NetworkError> {
        let chain = self.chain(pod);
        let one = async |(index, list): (usize, &List)| {
            let interface = interface(index);
            let raw = chain.add(list, &interface).await;
            (interface, raw)
        };
        let outcomes = match self.cni.setup_serially {
            false => futures::future::join_all(lists.iter().enumerate().map(one)).await,
            true => {
                let mut outcomes = Vec::new();
                for next in lists.iter().enumerate() {
                    outcomes.push(one(next).await);
                    if outcomes.last().is_some_and(|(_, raw)| raw.is_err()) {
                        break;
                    }
                }
                outcomes
            }
        };
        let (mut result, mut errors) = (CniResult::default(), Vec::new());
        for (interface, raw) in outcomes {
            match raw {
                Ok(raw) => result.add(&raw, &interface),
                Err(e) => errors.push(e),
            }
        }
        NetworkError::all(errors)?;
        let own = interface(0);
        let ips = result.ips(&own, &self.cni.ip_pref);
        if ips.is_empty() {
            let network = lists.first().map(|list| list.name.clone()).unwrap_or_default();
            return Err(NetworkError::NoAddress { network, interface: own });
        }
        Ok((result, ips))
    }

    /// Takes the pod's network back: every network that was set up, even if the configuration changed since.
    ///
    /// Idempotent. Goes on after an error; what failed can be tried again.
    pub async fn teardown(&self, pod: &PodNetwork) -> Result<(), NetworkError> {
        let (dir, id) = (self.cache_dir.clone(), pod.id.clone());
        let mut entries = shared_sys::blocking(move || cache::of(&dir, &id)).await?;
        if entries.is_empty() && self.taken_back().remove(&pod.id) {
            return Ok(());
        }
        if entries.is_empty() {
            // Made by somebody who kept no record, or not at all: the present configuration is the best guess.
            let loaded = self.load().await.unwrap_or_default();
            let guess = |(index, list): (usize, &List)| cache::Entry::new(list, pod, &interface(index));
            entries = loaded.lists.iter().enumerate().map(guess).collect();
        }
        let mut errors = Vec::new();
        for entry in entries.iter().rev() {
            errors.extend(self.chain(pod).del(entry).await);
        }
        NetworkError::all(errors)
    }

    fn chain<'a>(&'a self, pod: &'a PodNetwork) -> chain::Chain<'a> {
        chain::Chain {
            pod,
            bin_dirs: &self.cni.bin_dirs,
            cache_dir: &self.cache_dir,
            limits: self.limits,
            metrics: &self.metrics,
        }
    }

    /// Reads the configuration again if the folder changed; ready if every plugin is there, too.
    pub async fn status(&self) -> NetworkStatus {
        let loaded = match self.load().await {
            Ok(loaded) => loaded,
            Err(e) => return NetworkStatus::NotReady(format!("cni plugin not initialized: {e}")),
        };
        let bin_dirs = self.cni.bin_dirs.clone();
        shared_sys::blocking(move || {
            for plugin in loaded.lists.iter().flat_map(|list| &list.plugins) {
                if let Err(e) = plugin::find(config::kind(plugin), &bin_dirs) {
                    return NetworkStatus::NotReady(e.to_string());
                }
            }
            NetworkStatus::Ready {
                networks: loaded.lists.iter().map(|list| list.name.clone()).collect(),
                left_out: loaded.problems().iter().map(ToString::to_string).collect(),
            }
        })
        .await
    }

    /// The configuration in use, for verbose status.
    pub async fn describe(&self) -> Value {
        let loaded = self.load().await.unwrap_or_default();
        let networks: Vec<_> = loaded.lists.iter().map(|list| &list.source).collect();
        json!({
            "PluginDirs": self.cni.bin_dirs,
            "PluginConfDir": self.cni.conf_dir,
            "PluginMaxConfNum": self.cni.max_conf_num,
            "Prefix": "eth",
            "Networks": networks,
        })
    }

    /// The networks to set up; never none.
    async fn load(&self) -> Result<Arc<Loaded>, NetworkError> {
        let known = self.loaded().clone();
        let (dir, max) = (self.cni.conf_dir.clone(), self.cni.max_conf_num);
        let loaded = shared_sys::blocking(move || {
            let look =
                config::look(&dir).map_err(|e| NetworkError::Config { file: dir.clone(), problem: e.to_string() })?;
            Ok(match known {
                Some(known) if known.look == look => known,
                Some(_) | None => {
                    let loaded = config::load(look, max);
                    let networks: Vec<_> = loaded.lists.iter().map(|list| list.name.as_str()).collect();
                    tracing::info!(dir = %dir.display(), ?networks, "network configuration read");
                    loaded.problems().iter().for_each(|problem| tracing::warn!("left out: {problem}"));
                    Arc::new(loaded)
                }
            })
        })
        .await?;
        *self.loaded() = Some(loaded.clone());
        if loaded.lists.is_empty() {
            NetworkError::all(loaded.problems())?;
            return Err(NetworkError::NoConfig { dir: self.cni.conf_dir.clone() });
        }
        Ok(loaded)
    }

    fn taken_back(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.taken_back.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Option<Arc<Loaded>>> {
        self.loaded.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The interface of the network at `index`.
fn interface(index: usize) -> String {
    format!("eth{index}")
}
