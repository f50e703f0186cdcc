//! CRI over gRPC: thin adapters from tonic's services to the methods of [`Cri`].
//!
//! - [`runtime`], [`image`]: one line an RPC; those of later versions answer `Unimplemented` and name themselves.
//! - [`call`]: what every call goes through: is recovery done, how long did it take, what went wrong.
//! - [`starts`]: why a pod's start takes so long, and what is said meanwhile: our own, for `cri-daemon why` and `trace`.
//! - [`v1alpha2`]: kubelets up to 1.25 speak an older version of the same protocol.
//!
//! The same [`routes`] are served on CRI's own socket and, where the core links CRI in, on the core's.

mod call;
mod image;
mod runtime;
mod starts;
mod v1alpha2;

use std::future::Future;
use std::path::Path;

use shared_proto::authority;
use shared_proto::cri::v1::image_service_server::ImageServiceServer;
use shared_proto::cri::v1::runtime_service_server::RuntimeServiceServer;
use shared_proto::transport::MAX_MESSAGE;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;

use crate::Cri;

/// A kubelet sends everything over one connection, and each exec probe is a stream of its own.
const MAX_STREAMS: u32 = u32::MAX >> 1;

/// The services of both versions of CRI.
pub fn routes(cri: &Cri) -> Routes {
    add_to(RoutesBuilder::default().routes(), cri)
}

/// Adds CRI to the other services of a server.
pub fn add_to(routes: Routes, cri: &Cri) -> Routes {
    let runtime = RuntimeServiceServer::new(runtime::Service(cri.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let image = ImageServiceServer::new(image::Service(cri.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    routes
        .add_service(v1alpha2::Old(runtime.clone()))
        .add_service(v1alpha2::Old(image.clone()))
        .add_service(runtime)
        .add_service(image)
        .add_service(starts::service(cri))
}

/// Serves CRI, with gRPC's health service, until `shutdown`; then removes the socket and lets running calls end.
///
/// The listener is what `shared_sys::socket::bind` gives.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    cri: Cri,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RuntimeServiceServer<runtime::Service>>().await;
    health.set_serving::<ImageServiceServer<image::Service>>().await;
    let socket = listener.local_addr()?.as_pathname().map(Path::to_owned);
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let this = cri.clone();
    let shutdown = async move {
        shutdown.await;
        // Calls that never end by themselves.
        this.0.feed.close();
        this.0.starts.watches.close();
        // Who comes now finds nobody, instead of a daemon that is about to go.
        if let Some(Err(error)) = socket.map(std::fs::remove_file) {
            tracing::debug!(%error, "the socket was gone already");
        }
    };
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes(&cri).add_service(health_service))
        .serve_with_incoming_shutdown(authority::incoming(listener), shutdown)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
