//! The CRI side inside the core's process: the wirings `merged` and `loopback`.
//!
//! This is the only file of the core that knows the CRI library, and it is compiled with the feature `merged` alone.
//! `merged` hands the core's services to CRI as they are. `loopback` puts gRPC over an in-memory pipe between the two.
//! Apart from that the wirings are the same: same socket for the kubelet, same files, same behaviour.

use anyhow::Context as _;
use cri_daemon::{Cri, host::RealHost};
use shared_config::{Config, Wiring};
use shared_proto::Core;
use shared_proto::meter::Meter;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::server;

/// CRI, wired to this process's core. Not recovered yet.
pub async fn wire(core: &Core, config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Cri> {
    let meter = Meter::default();
    let (ports, wiring, wire) = match config.cri.wiring {
        Wiring::Merged => (core.clone(), shared_proto::core::Wiring::Merged, false),
        Wiring::Loopback => (over_pipe(core.routes(), shutdown).await?, shared_proto::core::Wiring::Loopback, true),
        Wiring::Split => unreachable!("split has a process of its own"),
    };
    let host = Arc::new(RealHost::new());
    Ok(Cri::new(ports.metered(&meter, wire), meter, wiring, config.clone(), host))
}

/// The core's ports at the other end of an in-memory pipe.
async fn over_pipe(routes: Routes, shutdown: &CancellationToken) -> anyhow::Result<Core> {
    let (channel, end) = shared_proto::transport::pipe().await.context("open the in-process pipe")?;
    let stop = shutdown.clone().cancelled_owned();
    tokio::spawn(async move {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(end));
        if let Err(e) = server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await {
            tracing::error!(error = %e, "the in-process connection broke");
        }
    });
    Ok(Core::remote(channel))
}
