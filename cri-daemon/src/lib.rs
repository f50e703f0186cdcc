//! The kubelet's side: turns CRI calls into calls on the core's ports.
//!
//! The library knows the core only as [`Core`], the bundle of ports, so it is the same whether the core is another
//! process (`split`), this one over gRPC (`loopback`) or this one by plain calls (`merged`). Records live in the core
//! (container extensions); what this process keeps in memory and in its small status files can be rebuilt from there.
//!
//! Where a call goes: `server` maps a gRPC method onto the method of [`Cri`] of the same name, which has a file of its
//! own below [`runtime`] (pods and containers) or [`image`].
//!
//! - [`pod`], [`container`]: records, states, stores; what a failed or removed one leaves to clean up.
//! - [`events`]: exits, and what clients are told.       - [`recover`]: what a restart finds.
//! - [`spec`], [`network`], [`logs`], [`host`]: the OCI spec, CNI, container logs, the machine.
//! - [`stats`]: what containers and pods use.
//! - [`streaming`]: exec over SPDY and WebSocket; `command`: an exec process.
//! - [`instrument`]: where a start's time went.     - [`metrics`]: what Prometheus is told.
//! - [`store`], [`names`]: look-up by id prefix; one request under a name at a time.
//! - [`server`]: CRI over gRPC, v1 and v1alpha2.
//! - [`call`]: deadlines and patience for calls on the core.    - [`rootfs`]: files of an image.

#![forbid(unsafe_code)]

pub mod call;
mod command;
pub mod container;
pub mod events;
pub mod host;
pub mod image;
pub mod instrument;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod network;
pub mod paths;
pub mod pod;
pub mod recover;
pub mod rootfs;
pub mod runtime;
pub mod selinux;
pub mod server;
mod signal;
pub mod spec;
pub mod stats;
pub mod store;
pub mod streaming;
#[cfg(test)]
mod testing;
mod versioned;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use shared_config::Config;
use shared_proto::core::Wiring;
use shared_proto::meter::Meter;
use shared_proto::{Context, Core, Error, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use names::Names;

/// The namespace of everything that CRI owns in the core.
pub const NAMESPACE: &str = "k8s.io";

/// The CRI service, for any server. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Cri(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub core: Core,
    /// The surroundings of every call on the core.
    pub cx: Context,
    pub meter: Meter,
    pub metrics: metrics::Metrics,
    pub wiring: Wiring,
    pub config: Config,
    pub host: Arc<dyn host::Host>,
    pub images: image::Images,
    pub network: network::Network,
    /// Networks of runtime handlers that have a configuration folder of their own.
    pub networks: BTreeMap<String, network::Network>,
    pub logs: logs::Logs,
    /// Read at the start.
    pub bases: OnceLock<spec::Bases>,
    pub accounts: rootfs::Known,
    pub sandbox_names: Names<runtime::SandboxRequest, String>,
    /// Held while a pod's SELinux label is chosen.
    pub labels: Mutex<()>,
    pub container_names: Names<runtime::ContainerRequest, String>,
    /// What the last pods' starts were made of.
    pub starts: instrument::Starts,
    pub exits: events::Handlers,
    pub feed: Arc<events::Feed>,
    pub stats: Arc<stats::Stats>,
    pub streams: streaming::Streams,
    pub sandboxes: pod::Store,
    pub containers: container::Store,
    /// Work that outlives its caller; drained at the end.
    pub work: TaskTracker,
    /// Ends the event loop and everything that waits for the core to come back.
    pub shutdown: CancellationToken,
    /// Whether recovery is done: until then calls are `Unavailable`.
    pub ready: watch::Sender<bool>,
}

impl Cri {
    /// A CRI service over these ports, which [`Cri::start`] makes ready. `meter` is the one behind `core`.
    pub fn new(core: Core, meter: Meter, wiring: Wiring, config: Config, host: Arc<dyn host::Host>) -> Self {
        Self::with_cni_cache(core, meter, wiring, config, host, Path::new(network::CACHE_DIR))
    }

    /// The same, with the results of CNI plugins in a folder of their own.
    fn with_cni_cache(
        core: Core,
        meter: Meter,
        wiring: Wiring,
        config: Config,
        host: Arc<dyn host::Host>,
        cni_cache: &Path,
    ) -> Self {
        let metrics = metrics::Metrics::default();
        let network = network::Network::new(&config.runtime.cni, cni_cache, metrics.clone());
        let own = config.runtime.runtimes.iter().filter(|(_, runtime)| !runtime.cni_conf_dir.is_empty());
        Self(Arc::new(Inner {
            images: image::Images::new(core.clone(), &config),
            core,
            cx: Context::new(NAMESPACE),
            meter,
            metrics,
            wiring,
            networks: own.map(|(name, runtime)| (name.clone(), network.for_runtime(runtime))).collect(),
            network,
            bases: OnceLock::new(),
            logs: logs::Logs::keeping(&paths::keeper(&config)),
            config,
            host,
            accounts: rootfs::Known::default(),
            sandboxes: pod::Store::default(),
            containers: container::Store::default(),
            sandbox_names: Names::new("sandbox"),
            labels: Mutex::default(),
            container_names: Names::new("container"),
            starts: instrument::Starts::default(),
            exits: events::Handlers::default(),
            feed: Arc::default(),
            stats: Arc::default(),
            streams: streaming::Streams::default(),
            work: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            ready: watch::Sender::new(false),
        }))
    }

    /// Waits for the core, finds out what runs, and is ready then. Ends early, with an error, when it is stopped.
    pub async fn start(&self) -> Result<()> {
        let runtimes = self.0.config.runtime.runtimes.clone();
        let bases = shared_sys::blocking(move || spec::load_bases(&runtimes)).await?;
        // Once, as this is.
        let _ = self.0.bases.set(bases);
        let config = self.0.config.clone();
        let made = shared_sys::blocking(move || paths::prepare(&config)).await;
        made.map_err(|e| Error::internal(format!("make the folders of pods: {e}")))?;
        self.0.logs.start().await;
        let events = self.subscribe().await?;
        self.0.images.start(&self.0.work, self.0.shutdown.clone()).await?;
        self.recover().await?;
        self.start_streaming().await?;
        self.0.tell_from_now_on();
        self.0.ready.send_replace(true);
        self.0.work.spawn(self.clone().follow(events));
        self.0.work.spawn(self.clone().follow_stats());
        Ok(())
    }

    /// Adds what is counted here to what a metrics server shows.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.0.metrics.register(self.0.meter.clone(), registry);
    }

    /// Waits for [`Cri::start`] to be through: it takes a moment. `Unavailable` when it takes longer.
    pub async fn check_ready(&self) -> Result<()> {
        const MOMENT: Duration = Duration::from_secs(5);
        let mut ready = self.0.ready.subscribe();
        match tokio::time::timeout(MOMENT, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Error::unavailable("not ready yet: waiting for the core, or looking at the pods of the last run"))
            }
        }
    }

    /// [`Cri::end_streams`] and [`Cri::drain`], neither for longer than `limit`, then [`Cri::leave`].
    pub async fn stop(&self, limit: Duration) {
        self.end_streams(limit).await;
        if tokio::time::timeout(limit, self.drain()).await.is_err() {
            tracing::warn!(left = self.left(), "stopped with work under way; the next start finishes it");
        }
        self.leave().await;
    }

    /// Ends the event loop and waits until work that was begun is done.
    pub async fn drain(&self) {
        self.0.shutdown.cancel();
        self.0.work.close();
        self.0.work.wait().await;
    }

    /// How much work is still under way.
    pub fn left(&self) -> usize {
        self.0.work.len()
    }

    /// Lets go of the logs of containers, which go on.
    pub async fn leave(&self) {
        let logs = self.0.containers.list().into_iter().filter_map(|container| container.take_log());
        for log in logs.filter_map(Arc::into_inner) {
            log.detach().await;
        }
    }

    /// Runs `work` to its end even when the caller goes away.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.0.work.spawn(work.in_current_span()).await {
            Ok(answer) => answer,
            Err(e) => Err(Error::internal(format!("the handler failed: {e}"))),
        }
    }
}

impl Inner {
    /// A runtime handler's settings; `""` is the default handler.
    pub fn runtime(&self, handler: &str) -> Result<&shared_config::Runtime> {
        let name = if handler.is_empty() { &self.config.runtime.default_runtime_name } else { handler };
        let found = self.config.runtime.runtimes.get(name);
        found.ok_or_else(|| Error::invalid(format!("runtime handler {name:?} is not configured")))
    }

    /// What a runtime handler's `base_runtime_spec` says.
    pub fn base_spec(&self, runtime: &shared_config::Runtime) -> Option<Arc<oci_spec::runtime::Spec>> {
        self.bases.get()?.get(&runtime.base_runtime_spec).cloned()
    }

    /// The networks of a runtime handler.
    pub fn network_of(&self, handler: &str) -> &network::Network {
        self.networks.get(handler).unwrap_or(&self.network)
    }
}
