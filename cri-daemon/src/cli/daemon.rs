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
use shared_sys::socket;
use tokio_util::sync::CancellationToken;

/// How long running calls and begun work may take after SIGTERM, each.
const DRAIN: Duration = Duration::from_secs(10);

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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let outcome = runtime.block_on(serve(config, warnings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: Config, warnings: &[Warning]) -> anyhow::Result<()> {
    let _telemetry = shared_telemetry::init("cri-daemon", &config.log.level, &config.log.format)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let listener = socket::bind(&config.cri.address, socket::Access::default())?;
    let core_address = config.grpc.address.clone();

    let meter = Meter::default();
    let core = Core::remote(transport::unix(&core_address)).metered(&meter, true);
    let host = Arc::new(RealHost::new().context("look at the machine")?);
    let cri = Cri::new(core, meter, core::Wiring::Split, config, host);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), core = %core_address.display(), "starting");

    let stop = CancellationToken::new();
    let mut server = tokio::spawn(server::serve(listener, cri.clone(), stop.clone().cancelled_owned()));
    let outcome = tokio::select! {
        // Recovery waits for the core as long as it takes.
        started = cri.start() => match started {
            Ok(()) => {
                notify(&[NotifyState::Ready]);
                tracing::info!("ready");
                super::interrupted().await;
                Ok(())
            }
            Err(e) => Err(anyhow::Error::new(e).context("recover")),
        },
        () = super::interrupted() => Ok(()),
    };
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    stop.cancel();
    match tokio::time::timeout(DRAIN, &mut server).await {
        Ok(served) => served.context("the server failed")?.context("serve CRI")?,
        Err(_) => tracing::warn!("calls that ran for another {DRAIN:?} are cut off"),
    }
    cri.stop(DRAIN).await;
    outcome
}

/// Nobody to tell, without systemd, is fine.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "can't tell systemd");
    }
}
