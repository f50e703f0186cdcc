//! The composition root: what the core is made of, in which order it starts, and how it ends.
//!
//! Start: the sockets (refused while somebody else owns them), folders, the lock on the root, database and stores, the
//! shims' event socket, the tasks that outlived an earlier core, then the services. Nothing is served before those
//! tasks are known again, and the service manager is told only when CRI, where it is inside, is through with its own
//! recovery; if that can't be, the daemon ends, as cri-daemon does. End (SIGTERM, SIGINT): no new calls, running ones are answered, background work drains, each
//! within a limit; a second signal cuts them. Shims and containers go on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use shared_config::{Config, Warning, Wiring};
use shared_proto::Core;
use shared_proto::meter::{Meter, Side};
use shared_sys::signals::Signals;
use shared_sys::socket::{self, Access};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::Exchange;
use crate::gc::Gc;
use crate::images::{Puller, Settings};
use crate::metadata::Db;
use crate::metrics::Steps;
use crate::runtime::{self, Recovered, RuntimeConfig, Tasks, publish, serve_ttrpc};
use crate::services::{
    containers::ContainersService, content::ContentService, diff::DiffService, events::EventsService,
    images::ImagesService, introspection, introspection::IntrospectionService, leases::LeasesService,
    namespaces::NamespacesService, sandboxes::SandboxesService, snapshots::SnapshotsService, streaming::StreamManager,
    tasks::TasksService, transfer::TransferService, version::VersionService,
};
use crate::snapshots::{Native, Overlay, SnapshotError, Snapshots, Snapshotter};
use crate::stages::Stages;
use crate::{content, server};

/// Threads of the async runtime. Blocking work has its own pool.
const WORKERS: usize = 2;
/// How long running calls and background work, each, may go on after a signal to end. A second signal cuts it.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the core until it is told to stop.
pub fn run(config: Config, warnings: &[Warning]) -> anyhow::Result<()> {
    on_runtime(async {
        let settings = shared_telemetry::Settings {
            level: &config.log.level,
            format: &config.log.format,
            traces: &config.tracing.endpoint,
            sampling: config.tracing.sampling_ratio,
        };
        let telemetry = shared_telemetry::init("core-daemon", settings)?;
        warnings.iter().for_each(|warning| tracing::warn!("configuration: {warning}"));
        serve(config, telemetry.traces()).await
    })
}

/// Hands the event on standard input, an encoded `Any`, to the core that runs.
pub fn publish(config: &Config, topic: &str, namespace: &str) -> anyhow::Result<()> {
    let mut event = Vec::new();
    std::io::stdin().read_to_end(&mut event).context("read the event from standard input")?;
    on_runtime(async { Ok(publish::publish(&config.grpc.address, namespace, topic, &event).await?) })
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What runs beside the services, in the order in which it ends.
struct Parts {
    core: Core,
    /// Counts the calls that the core serves.
    served: Meter,
    steps: Steps,
    tasks: Tasks,
    puller: Puller,
    exchange: Exchange,
}

async fn serve(config: Config, traced: bool) -> anyhow::Result<()> {
    check_wiring(&config)?;
    let access = Access { uid: config.grpc.uid, gid: config.grpc.gid, ..Access::default() };
    let grpc_socket = socket::bind(&config.grpc.address, access)?;
    let ttrpc_address = ttrpc_address(&config.grpc.address);
    let ttrpc_socket = socket::bind(&ttrpc_address, access)?;

    let metrics = match config.metrics.address.as_str() {
        "" => None,
        address => Some(shared_telemetry::metrics::bind(address, "[metrics] address")?),
    };

    // Only who owns the sockets may touch what is on disk.
    let _lock = lock(&config.root)?;
    for folder in [config.state.join(runtime::FOLDER), config.root.join(runtime::FOLDER)] {
        make_folder(&folder)?;
    }

    // `stop` ends what serves clients, `quiet` what they and the shims lean on.
    let (stop, quiet) = (CancellationToken::new(), CancellationToken::new());
    let background = TaskTracker::new();
    let mut parts = assemble(&config, ttrpc_address, &background, &stop, &quiet).await?;
    // Where nobody looks, calls do not pass through it.
    if metrics.is_some() || traced {
        parts.core = parts.core.metered(&parts.served, false);
    }
    background.spawn(serve_ttrpc(ttrpc_socket, parts.tasks.clone(), quiet.clone().cancelled_owned()));
    let found = parts.tasks.recover().await;
    if found == Recovered::default() {
        parts.exchange.nothing_was_missed();
    }
    tracing::info!(?found, "tasks of an earlier run");

    #[cfg(feature = "merged")]
    let cri = crate::merged::start(&parts.core, &config, &stop, &background).await?;
    #[cfg(feature = "merged")]
    let routes = crate::merged::add_routes(parts.core.routes(), cri.as_ref());
    #[cfg(not(feature = "merged"))]
    let routes = parts.core.routes();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let mut grpc = tokio::spawn(server::serve(grpc_socket, routes.add_service(health_service), stop.clone()));

    tracing::info!(address = %config.grpc.address.display(), wiring = config.cri.wiring.name(), "core-daemon serves");
    if let Some(listener) = metrics {
        #[allow(unused_mut)] // Nothing is added without CRI.
        let mut registry = crate::metrics::registry(parts.served.clone(), &parts.steps);
        #[cfg(feature = "merged")]
        if let Some(cri) = &cri {
            cri.register_metrics(&mut registry);
        }
        tracing::info!(address = shared_telemetry::metrics::address(&listener), "metrics are served");
        tokio::spawn(shared_telemetry::metrics::serve(listener, registry));
    }
    let mut signals = Signals::listen()?;
    #[cfg(feature = "merged")]
    let starting = crate::merged::recover(cri.as_ref());
    #[cfg(not(feature = "merged"))]
    let starting = std::future::ready(anyhow::Ok(()));
    let serving = async {
        starting.await?;
        ready();
        let _small = shared_sys::memory::keep_small();
        std::future::pending().await
    };
    let outcome = tokio::select! {
        // Only an error ends it.
        failed = serving => failed,
        signal = signals.next() => {
            tracing::info!(signal, "stopping; containers go on");
            Ok(())
        }
        ended = &mut grpc => bail!("the gRPC server ended: {ended:?}"),
    };

    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    parts.puller.stop();
    // Ends the streams while the core still answers: they have commands to kill.
    #[cfg(feature = "merged")]
    if let Some(cri) = &cri {
        cri.end_streams(DRAIN).await;
    }
    stop.cancel();
    if let Err(why) = signals.let_finish(DRAIN, grpc).await {
        tracing::warn!(%why, "calls that still run are cut");
    }
    #[cfg(feature = "merged")]
    if let Some(cri) = cri {
        if let Err(why) = signals.let_finish(DRAIN, cri.drain()).await {
            tracing::warn!(left = cri.left(), %why, "CRI's work under way is left to the next start");
        }
        cri.leave().await;
    }
    if let Err(why) = signals.let_finish(DRAIN, parts.tasks.drain()).await {
        tracing::warn!(%why, "clean-ups that still run are left to the next start");
    }
    quiet.cancel();
    background.close();
    let _ = signals.let_finish(DRAIN, background.wait()).await;
    for path in [&config.grpc.address, &self::ttrpc_address(&config.grpc.address)] {
        let _ = std::fs::remove_file(path);
    }
    outcome
}

/// Builds stores and services on what is on disk.
async fn assemble(
    config: &Config,
    ttrpc_address: PathBuf,
    background: &TaskTracker,
    stop: &CancellationToken,
    quiet: &CancellationToken,
) -> anyhow::Result<Parts> {
    let root = config.root.clone();
    let folder = |plugin: &str| root.join(plugin);
    let metadata = folder("io.containerd.metadata.v1.sqlite");
    make_folder(&metadata)?;
    let db = Db::open(&metadata.join("meta.db"))?;
    let exchange = Exchange::starting();

    let content_root = folder("io.containerd.content.v1.content");
    let store = content::Store::publishing(&content_root, db.clone(), exchange.clone())?;
    let sweep = store.recover().await?;
    if sweep.blobs + sweep.ingests + sweep.errors.len() > 0 {
        tracing::info!(?sweep, "content that no record knows");
    }

    let mut plugins = introspection::standard(&content_root);
    let overlay_root = folder("io.containerd.snapshotter.v1.overlayfs");
    let native_root = folder("io.containerd.snapshotter.v1.native");
    let mut backends: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
    // Overlay mounts need support of the kernel and of the file system; whatever lacks it still has the other.
    match Overlay::open(&overlay_root, db.clone()).await {
        Ok(overlay) => {
            backends.insert("overlayfs".into(), Arc::new(overlay));
            plugins.push(introspection::snapshotter("overlayfs", &overlay_root));
        }
        Err(e @ SnapshotError::Unusable { .. }) => {
            tracing::warn!(error = %e, "the snapshotter overlayfs is left out");
            plugins.push(introspection::failed("io.containerd.snapshotter.v1", "overlayfs", &e.into()));
        }
        Err(e) => return Err(e.into()),
    }
    backends.insert("native".into(), Arc::new(Native::open(&native_root, db.clone()).await?));
    plugins.push(introspection::snapshotter("native", &native_root));
    let snapshots = Snapshots::publishing(db.clone(), backends, exchange.clone());

    let gc = Gc::new(db.clone(), store.clone(), snapshots.clone(), exchange.clone());
    background.spawn(gc.clone().run(quiet.clone()));
    // What an earlier run left behind goes early.
    gc.schedule();

    let settings = Settings {
        max_concurrent_downloads: config.images.max_concurrent_downloads,
        progress_timeout: config.images.image_pull_progress_timeout,
        ..Settings::default()
    };
    let puller = Puller::new(store.clone(), snapshots.clone(), db.clone(), exchange.clone(), gc.clone(), settings);
    puller.recover().await?;
    let streams = StreamManager::default();

    let binary = std::env::current_exe().context("find this program's own file")?;
    let core_socket = config.grpc.address.clone();
    let steps = Steps::default();
    let shims = RuntimeConfig {
        state: config.state.clone(),
        root: root.clone(),
        core_socket,
        ttrpc_address,
        binary,
        steps: steps.clone(),
    };
    let tasks = Tasks::new(shims, exchange.clone());

    if cfg!(feature = "merged") && config.cri.wiring != Wiring::Split {
        plugins.push(introspection::cri());
    }
    let stages = Stages::default();
    let introspection = shared_sys::blocking(move || IntrospectionService::new(&root, plugins)).await?.telling(&stages);
    let transfer = TransferService::new(puller.clone(), streams.clone(), &config.images.snapshotter);
    let core = Core {
        containers: Arc::new(ContainersService::new(db.clone(), exchange.clone(), gc.clone()).recording(&stages)),
        content: Arc::new(ContentService::new(store.clone(), gc.clone())),
        diff: Arc::new(DiffService::new(store)),
        events: Arc::new(EventsService::new(exchange.clone()).until(stop.clone())),
        images: Arc::new(ImagesService::new(db.clone(), exchange.clone(), gc.clone())),
        introspection: Arc::new(introspection),
        leases: Arc::new(LeasesService::new(db.clone(), gc.clone())),
        namespaces: Arc::new(NamespacesService::new(db.clone(), exchange.clone(), gc)),
        sandboxes: Arc::new(SandboxesService::new(db.clone())),
        snapshots: Arc::new(SnapshotsService::new(snapshots).recording(&stages)),
        streaming: Arc::new(streams),
        tasks: Arc::new(TasksService::new(tasks.clone(), db).recording(&stages)),
        transfer: Arc::new(transfer),
        version: Arc::new(VersionService::new()),
    };
    Ok(Parts { core, served: Meter::at(Side::Core), steps, tasks, puller, exchange })
}

/// A build without CRI can't serve a wiring that needs it.
fn check_wiring(config: &Config) -> anyhow::Result<()> {
    if cfg!(feature = "merged") || config.cri.wiring == Wiring::Split {
        return Ok(());
    }
    bail!(
        "wiring {:?} needs CRI inside the core, and this build has none: build it with --features merged, or set \
         [cri] wiring = \"split\" and run cri-daemon beside it",
        config.cri.wiring.name()
    )
}

/// One core a root: holds the lock while the file is open.
fn lock(root: &Path) -> anyhow::Result<File> {
    make_folder(root)?;
    let path = root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("{} is in use by another core-daemon", root.display());
    }
    Ok(file)
}

/// Containers may have to pass through, but not to look around.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("make the folder {}", path.display()))
}

/// The shims' event socket lies beside the core's own.
fn ttrpc_address(grpc: &Path) -> PathBuf {
    let mut name = grpc.as_os_str().to_owned();
    name.push(".ttrpc");
    name.into()
}

/// Tells systemd, if it asked, that clients may come.
fn ready() {
    if let Err(e) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(error = %e, "could not notify the service manager");
    }
}
