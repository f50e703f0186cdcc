//! The plugins of one network for one pod: `ADD` in order, each with its predecessor's result; `DEL` in reverse.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value};
use shared_proto::meter::Way;
use shared_proto::seam::v1::Message;
use tracing::Instrument as _;

use super::cache::Entry;
use super::config::{List, kind};
use super::plugin::Call;
use super::{Limits, NetworkError, PodNetwork, args};
use crate::instrument;
use crate::metrics::Metrics;

pub(super) struct Chain<'a> {
    pub pod: &'a PodNetwork,
    pub bin_dirs: &'a [PathBuf],
    pub cache_dir: &'a Path,
    pub limits: Limits,
    pub metrics: &'a Metrics,
}

impl Chain<'_> {
    /// The last plugin's result. The intent is on disk before the first plugin runs.
    pub async fn add(&self, list: &List, interface: &str) -> Result<Value, NetworkError> {
        let mut entry = Entry::new(list, self.pod, interface);
        self.save(&entry).await?;
        let mut result = Value::Null;
        for plugin in &list.plugins {
            if let Some(answer) = self.run("ADD", list, plugin, &entry, &result).await? {
                result = answer;
            }
        }
        entry.result = result.clone();
        self.save(&entry).await?;
        Ok(result)
    }

    /// Runs every plugin, whatever the ones before it did. The record goes when all have succeeded.
    pub async fn del(&self, entry: &Entry) -> Vec<NetworkError> {
        let list = match entry.list() {
            Ok(list) => list,
            Err(problem) => {
                let file = self.cache_dir.join(&entry.network_name);
                return vec![NetworkError::Config { file, problem }];
            }
        };
        // Plugins learned to use the result with 0.4.0.
        let result = if list.since(0, 4) { entry.result.clone() } else { Value::Null };
        let mut errors = Vec::new();
        for plugin in list.plugins.iter().rev() {
            errors.extend(self.run("DEL", &list, plugin, entry, &result).await.err());
        }
        if errors.is_empty() {
            let (entry, dir) = (entry.clone(), self.cache_dir.to_owned());
            errors.extend(shared_sys::blocking(move || entry.remove(&dir)).await.err());
        }
        errors
    }

    async fn save(&self, entry: &Entry) -> Result<(), NetworkError> {
        let (entry, dir) = (entry.clone(), self.cache_dir.to_owned());
        shared_sys::blocking(move || entry.save(&dir)).await
    }

    /// `None`: the plugin has nothing to do for this pod and was not run.
    async fn run(
        &self,
        command: &'static str,
        list: &List,
        plugin: &Map<String, Value>,
        entry: &Entry,
        previous: &Value,
    ) -> Result<Option<Value>, NetworkError> {
        let Some(runtime_config) = args::runtime_config(plugin, &entry.capability_args) else { return Ok(None) };
        // With its `capabilities`: CNI's text says without, but every plugin gets them from libcni.
        let mut config = plugin.clone();
        config.insert("name".into(), list.name.clone().into());
        config.insert("cniVersion".into(), list.version.clone().into());
        if !runtime_config.is_empty() {
            config.insert("runtimeConfig".into(), runtime_config.into());
        }
        if !previous.is_null() {
            config.insert("prevResult".into(), previous.clone());
        }
        let call = Call {
            network: &list.name,
            plugin: kind(plugin),
            command,
            container_id: &self.pod.id,
            netns: &self.pod.netns,
            interface: &entry.if_name,
            args: &entry.cni_args,
            bin_dirs: self.bin_dirs,
            deadline: if command == "DEL" { self.limits.del } else { self.limits.add },
        };
        let started = Instant::now();
        let span = shared_proto::trace::stage("cni-plugin", kind(plugin));
        let answer = {
            let taking_back = if command == "DEL" { " DEL" } else { "" };
            let stage = instrument::here("cni-plugin", || format!("{}/{}{taking_back}", list.name, kind(plugin)));
            if let Some(stage) = &stage {
                stage.message(Way::There, || call.shown(&config));
                stage.pause(Way::There).await;
            }
            let answer = call.run(&config).instrument(span).await;
            if let Some(stage) = &stage {
                if let Ok(result) = &answer {
                    stage.message(Way::Back, || Message::json(result.to_string()));
                }
                stage.pause(Way::Back).await;
            }
            answer
        };
        let took = started.elapsed();
        tracing::debug!(
            network = list.name,
            plugin = kind(plugin),
            command,
            ?took,
            ok = answer.is_ok(),
            "CNI plugin ran"
        );
        self.metrics.plugin(&list.name, kind(plugin), command, took, answer.is_err());
        answer.map(Some)
    }
}
