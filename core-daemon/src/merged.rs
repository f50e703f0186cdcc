//! The CRI side inside the core's process: the wirings `merged` and `loopback`.
//!
//! This is the only file of the core that knows the CRI library, and it is compiled with the feature `merged` alone.
//! `merged` hands the core's services to CRI as they are. `loopback` puts gRPC over an in-memory pipe between the two.
//! Apart from that the wirings are the same: same socket for the kubelet, same files, same behaviour.

use std::sync::Arc;

use anyhow::Context as _;
use cri_daemon::{Cri, host::RealHost};
use shared_config::{Config, Wiring};
use shared_proto::Core;
use shared_proto::meter::Meter;
use shared_sys::socket::{self, Access};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::server;

/// Wires CRI to this process's core and serves it on its own socket, as the configuration says; `None` for `split`.
/// It is of use only after [`recover`].
pub async fn start(
    core: &Core,
    config: &Config,
    stop: &CancellationToken,
    background: &TaskTracker,
) -> anyhow::Result<Option<Cri>> {
    let meter = Meter::default();
    let (ports, wiring, wire) = match config.cri.wiring {
        Wiring::Split => return Ok(None),
        Wiring::Merged => (core.clone(), shared_proto::core::Wiring::Merged, false),
        Wiring::Loopback => (over_pipe(core.routes(), background).await?, shared_proto::core::Wiring::Loopback, true),
    };
    let listener = socket::bind(&config.cri.address, Access::default())?;
    let host = Arc::new(RealHost::new()?);
    let cri = Cri::new(ports.metered(&meter, wire), meter, wiring, config.clone(), host);

    let (served, shutdown) = (cri.clone(), stop.clone());
    background.spawn(async move {
        if let Err(e) = cri_daemon::server::serve(listener, served, shutdown.cancelled_owned()).await {
            tracing::error!(error = %e, "the CRI server ended");
        }
    });
    Ok(Some(cri))
}

/// CRI's recovery; until it is done, CRI calls are answered `Unavailable`. An error means that there will be no CRI.
pub async fn recover(cri: Option<&Cri>) -> anyhow::Result<()> {
    match cri {
        Some(cri) => cri.start().await.context("start CRI"),
        None => Ok(()),
    }
}

/// CRI also answers on the core's socket, as in containerd 1.1.
pub fn add_routes(routes: Routes, cri: Option<&Cri>) -> Routes {
    match cri {
        Some(cri) => cri_daemon::server::add_to(routes, cri),
        None => routes,
    }
}

/// The core's ports at the other end of an in-memory pipe. The connection ends with the process.
async fn over_pipe(routes: Routes, background: &TaskTracker) -> anyhow::Result<Core> {
    let (channel, end) = shared_proto::transport::pipe().await.context("open the in-process pipe")?;
    tokio::spawn(background.track_future(async move {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(end));
        if let Err(e) = server::builder().add_routes(routes).serve_with_incoming(incoming).await {
            tracing::error!(error = %e, "the in-process connection broke");
        }
    }));
    Ok(Core::remote(channel))
}
