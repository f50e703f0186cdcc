//! Which parts the core has, and who the core is.
//!
//! Clients find snapshotters, and where they keep their files, among the plugins; so the list uses containerd's types
//! and ids for what we have. It is made by the composition root, which alone knows the parts: [`standard`]
//! ones and others.
//!
//! The uuid names the installation, not the process: it lies in a file below the root folder.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use shared_proto::api;
use shared_proto::containerd::introspection::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use shared_proto::containerd::{rpc, types};
use shared_proto::seam::{CORE_STAGES, v1 as seam};
use shared_proto::{Context, Error, Result, any};
use shared_sys::clock;
use shared_sys::files::{self, Durability};

use crate::domain::Filters;
use crate::domain::filter::Fields;
use crate::images::manifest::Platform;
use crate::stages::{Kind, Stage, Stages};

/// Where the uuid lies below the root folder.
const UUID: &str = "io.containerd.grpc.v1.introspection/uuid";
/// The type of the parts that answer gRPC.
const GRPC: &str = "io.containerd.grpc.v1";

/// The introspection service.
pub struct IntrospectionService {
    uuid: String,
    pidns: u64,
    plugins: Vec<Plugin>,
    stages: Stages,
}

impl IntrospectionService {
    /// Reads the uuid below `root`, or makes one. Blocking.
    pub fn new(root: &Path, plugins: Vec<Plugin>) -> Result<Self> {
        let path = root.join(UUID);
        let uuid = uuid(&path).map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
        let pidns = std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino());
        Ok(Self { uuid, pidns, plugins, stages: Stages::default() })
    }

    /// The same; it tells what starts were made of from there.
    pub fn telling(self, stages: &Stages) -> Self {
        Self { stages: stages.clone(), ..self }
    }
}

/// The uuid in the file. A file without one is replaced.
fn uuid(path: &Path) -> std::io::Result<String> {
    let found = match std::fs::read_to_string(path) {
        Ok(text) => uuid::Uuid::parse_str(text.trim()).ok(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    if let Some(found) = found {
        return Ok(found.to_string());
    }
    let new = uuid::Uuid::new_v4().to_string();
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    files::write_atomic(path, new.as_bytes(), Durability::Durable)?;
    Ok(new)
}

/// A part that works, for the list.
pub fn plugin(kind: &str, id: &str) -> Plugin {
    Plugin { r#type: kind.to_owned(), id: id.to_owned(), ..Plugin::default() }
}

/// A part that could not be started, and why.
pub fn failed(kind: &str, id: &str, error: &Error) -> Plugin {
    let status = rpc::Status { code: error.code.number(), message: error.message.clone(), details: Vec::new() };
    Plugin { init_err: Some(status), ..plugin(kind, id) }
}

/// A snapshotter and the folder where it keeps everything.
pub fn snapshotter(id: &str, root: &Path) -> Plugin {
    let exports = [("root".to_owned(), root.display().to_string())].into();
    Plugin { exports, platforms: vec![platform()], ..plugin("io.containerd.snapshotter.v1", id) }
}

/// The parts that every core has. Snapshotters, and CRI where it is linked in, are added to these.
pub fn standard(content_root: &Path) -> Vec<Plugin> {
    let exports = [("root".to_owned(), content_root.display().to_string())].into();
    let mut all = vec![
        Plugin { exports, ..plugin("io.containerd.content.v1", "content") },
        Plugin { platforms: vec![platform()], ..plugin("io.containerd.differ.v1", "walking") },
        plugin("io.containerd.event.v1", "exchange"),
        plugin("io.containerd.gc.v1", "scheduler"),
        plugin("io.containerd.lease.v1", "manager"),
        plugin("io.containerd.metadata.v1", "sqlite"),
        Plugin { platforms: vec![platform()], ..plugin("io.containerd.runtime.v2", "task") },
        plugin("io.containerd.sandbox.store.v1", "local"),
        plugin("io.containerd.streaming.v1", "manager"),
        Plugin { platforms: vec![platform()], ..plugin("io.containerd.transfer.v1", "local") },
    ];
    for id in [
        "containers",
        "content",
        "diff",
        "events",
        "healthcheck",
        "images",
        "introspection",
        "leases",
        "namespaces",
        "sandboxes",
        "snapshots",
        "streaming",
        "tasks",
        "transfer",
        "version",
    ] {
        all.push(plugin(GRPC, id));
    }
    all
}

/// CRI, where it is linked in.
pub fn cri() -> Plugin {
    Plugin { platforms: vec![platform()], ..plugin(GRPC, "cri") }
}

fn platform() -> types::Platform {
    let Platform { os, architecture, variant } = Platform::host();
    types::Platform { os, architecture, variant, ..types::Platform::default() }
}

/// A plugin as filters see it.
struct Listed<'a>(&'a Plugin);

impl Fields for Listed<'_> {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["type"] => Some(self.0.r#type.as_str().into()),
            ["id"] => Some(self.0.id.as_str().into()),
            ["platforms"] => self.0.platforms.first().map(|p| format!("{}/{}", p.os, p.architecture).into()),
            ["capabilities"] => Some(self.0.capabilities.join(",").into()),
            _ => None,
        }
    }
}

#[async_trait]
impl api::Introspection for IntrospectionService {
    async fn plugins(&self, _: &Context, req: PluginsRequest) -> Result<PluginsResponse> {
        let filters = Filters::parse(&req.filters)?;
        let plugins = self.plugins.iter().filter(|plugin| filters.matches(&Listed(plugin))).cloned().collect();
        Ok(PluginsResponse { plugins })
    }

    async fn server(&self, _: &Context, (): ()) -> Result<ServerResponse> {
        let pid = u64::from(std::process::id());
        Ok(ServerResponse { uuid: self.uuid.clone(), pid, pidns: self.pidns, deprecations: Vec::new() })
    }

    /// The runtime says what it did for containers, to whoever asks with our options. No part says more about itself
    /// than the list does.
    async fn plugin_info(&self, cx: &Context, req: PluginInfoRequest) -> Result<PluginInfoResponse> {
        let found = self.plugins.iter().find(|plugin| (&plugin.r#type, &plugin.id) == (&req.r#type, &req.id));
        let found = found.ok_or_else(|| Error::not_found(format!("plugin {}.{}: not found", req.r#type, req.id)))?;
        let ours = req.options.as_ref().filter(|options| any::is::<seam::CoreStagesRequest>(options));
        let extra = match ours {
            Some(options) if (req.r#type.as_str(), req.id.as_str()) == CORE_STAGES => {
                let ns = cx.namespace()?;
                let ids = any::unpack::<seam::CoreStagesRequest>(options)?.ids;
                let stages = ids.iter().flat_map(|id| self.stages.of(ns, id).into_iter().map(|s| core_stage(id, s)));
                Some(any::pack(&seam::CoreStagesResponse { stages: stages.collect() }))
            }
            Some(_) | None => None,
        };
        Ok(PluginInfoResponse { plugin: Some(found.clone()), extra })
    }
}

fn core_stage(id: &str, stage: Stage) -> seam::CoreStage {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let place = match stage.kind {
        Kind::Call => seam::stage::Place::Core,
        Kind::Step => seam::stage::Place::CoreStep,
    };
    seam::CoreStage {
        id: id.to_owned(),
        place: place.into(),
        name: stage.name.to_owned(),
        began_us: micros(clock::monotonic_at(stage.began)),
        us: micros(stage.took.unwrap_or_else(|| stage.began.elapsed())),
        running: stage.took.is_none(),
        sent: stage.sent,
        received: stage.received,
    }
}
