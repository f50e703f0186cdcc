//! What was set up for a pod, in libcni's files: `results/<network>-<pod>-<interface>`.
//!
//! A file is written before the first plugin runs, without a result, so that a crash in the middle can be cleaned up
//! with the very configuration that made the mess. It goes when the network is taken back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared_sys::files::{Durability, write_atomic};

use super::NetworkError;
use super::config::List;

const KIND: &str = "cniCacheV1";

/// A file, with libcni's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    kind: String,
    container_id: String,
    /// The list of plugins, in base 64.
    config: String,
    pub if_name: String,
    pub network_name: String,
    #[serde(default)]
    netns: String,
    #[serde(default)]
    pub cni_args: Vec<[String; 2]>,
    #[serde(default)]
    pub capability_args: Map<String, Value>,
    /// The last plugin's; `null` until all have run.
    #[serde(default)]
    pub result: Value,
}

impl Entry {
    pub fn new(list: &List, pod: &super::PodNetwork, interface: &str) -> Self {
        Self {
            kind: KIND.into(),
            container_id: pod.id.clone(),
            config: STANDARD.encode(list.source.to_string()),
            if_name: interface.into(),
            network_name: list.name.clone(),
            netns: pod.netns.display().to_string(),
            cni_args: super::args::cni_args(pod),
            capability_args: super::args::capabilities(pod),
            result: Value::Null,
        }
    }

    /// The configuration that was used.
    pub fn list(&self) -> Result<List, String> {
        let text = STANDARD.decode(&self.config).map_err(|e| e.to_string())?;
        List::parse(serde_json::from_slice(&text).map_err(|e| e.to_string())?)
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}-{}-{}", self.network_name, self.container_id, self.if_name))
    }

    /// Blocks. A power cut takes the networks as well, so nothing is synced.
    pub fn save(&self, dir: &Path) -> Result<(), NetworkError> {
        let path = self.path(dir);
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        fs::create_dir_all(dir)
            .and(text)
            .and_then(|text| write_atomic(&path, &text, Durability::Rebuildable))
            .map_err(|source| NetworkError::Cache { path, source })
    }

    /// Blocks. Absent already: no error.
    pub fn remove(&self, dir: &Path) -> Result<(), NetworkError> {
        let path = self.path(dir);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(NetworkError::Cache { path, source }),
            _ => Ok(()),
        }
    }
}

/// The networks of a pod, in the order of their interfaces. Files that can't be read are reported and skipped. Blocks.
pub(super) fn of(dir: &Path, pod: &str) -> Result<Vec<Entry>, NetworkError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(NetworkError::Cache { path: dir.to_owned(), source }),
    };
    let part = format!("-{pod}-");
    let mut out = Vec::new();
    for file in entries.flatten().filter(|file| file.file_name().to_string_lossy().contains(&part)) {
        let entry = fs::read(file.path()).and_then(|text| Ok(serde_json::from_slice::<Entry>(&text)?));
        match entry {
            Ok(entry) if entry.kind == KIND && entry.container_id == pod => out.push(entry),
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(file = %file.path().display(), error = %e, "network result can't be read; skipped")
            }
        }
    }
    out.sort_by(|a, b| a.if_name.cmp(&b.if_name));
    Ok(out)
}
