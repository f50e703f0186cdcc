//! The daemon: CRI in a process of its own, connected to the core by its socket.
//!
//! The socket is there at once and answers `Unavailable` until the core has been reached and the pods of the last run
//! are known; then systemd is told. SIGTERM ends it: running calls are let through, pods go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cri_daemon::host::RealHost;
use cri_daemon::{Cri, server};
use sd_notify::NotifyState;
use shared_config::{Config, Warning, Wiring};
use shared_proto::meter::Meter;
use shared_proto::{Core, core, transport};
use shared_sys::signals::Signals;
use shared_sys::socket;
use shared_telemetry::metrics;
use tokio_util::sync::CancellationToken;

/// How long running calls and begun work may take after SIGTERM, each. A second SIGTERM cuts them.
const DRAIN: Duration = Duration::from_secs(10);

/// Threads of the async runtime. Blocking work has its own pool.
const WORKERS: usize = 2;

/// Serves until a signal comes. `file` is named where the configuration is at fault.
pub fn run(config: Config, file: &Path, warnings: &[Warning]) -> anyhow::Result<()> {
    let wiring = config.cri.wiring;
    match wiring {
        Wiring::Split => {}
        Wiring::Loopback | Wiring::Merged => anyhow::bail!(
            "{} sets [cri] wiring = {:?}, in which core-daemon serves CRI by itself; start only core-daemon",
            file.display(),
            wiring.name()
        ),
    }
    shared_sys::memory::set_up();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let outcome = runtime.block_on(serve(config, warnings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: Config, warnings: &[Warning]) -> anyhow::Result<()> {
    let settings = shared_telemetry::Settings {
        level: &config.log.level,
        format: &config.log.format,
        traces: &config.tracing.endpoint,
        sampling: config.tracing.sampling_ratio,
    };
    let _telemetry = shared_telemetry::init("cri-daemon", settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let listener = socket::bind(&config.cri.address, socket::Access::default())?;
    let core_address = config.grpc.address.clone();
    let metrics = match config.cri.metrics_address.as_str() {
        "" => None,
        address => Some(metrics::bind(address, "[cri] metrics_address")?),
    };

    let meter = Meter::default();
    let core = Core::remote(transport::unix(&core_address)).metered(&meter, true);
    let host = Arc::new(RealHost::new().context("look at the machine")?);
    let cri = Cri::new(core, meter, core::Wiring::Split, config, host);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), core = %core_address.display(), "starting");

    if let Some(listener) = metrics {
        let mut registry = metrics::Registry::default();
        cri.register_metrics(&mut registry);
        tracing::info!(address = metrics::address(&listener), "metrics are served");
        tokio::spawn(metrics::serve(listener, registry));
    }

    let mut signals = Signals::listen().context("listen to signals")?;
    let stop = CancellationToken::new();
    let mut server = tokio::spawn(server::serve(listener, cri.clone(), stop.clone().cancelled_owned()));
    let outcome = tokio::select! {
        // Recovery waits for the core as long as it takes.
        started = cri.start() => match started {
            Ok(()) => {
                notify(&[NotifyState::Ready]);
                let _small = shared_sys::memory::keep_small();
                tracing::info!("ready");
                signals.next().await;
                Ok(())
            }
            Err(e) => Err(anyhow::Error::new(e).context("recover")),
        },
        _ = signals.next() => Ok(()),
    };
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    // Kills the commands of clients that are connected.
    cri.end_streams(DRAIN).await;
    stop.cancel();
    match signals.let_finish(DRAIN, &mut server).await {
        Ok(served) => served.context("the server failed")?.context("serve CRI")?,
        Err(why) => tracing::warn!(%why, "calls that still run are cut off"),
    }
    if let Err(why) = signals.let_finish(DRAIN, cri.drain()).await {
        tracing::warn!(left = cri.left(), %why, "work under way is left to the next start");
    }
    cri.leave().await;
    outcome
}

/// Nobody to tell, without systemd, is fine.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "can't tell systemd");
    }
}
