//! The core's gRPC socket.

use std::os::unix::net::UnixListener;

use shared_proto::authority;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// Calls that one connection may have in flight. The default of the HTTP/2 server, 200, is less than the waits of a
/// full node.
const MAX_STREAMS: u32 = 1 << 20;
/// Flow-control windows, bytes: content goes over this socket.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A server with the limits that every gRPC connection of ours has.
pub fn builder() -> Server {
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .initial_stream_window_size(Some(STREAM_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
}

/// Serves `routes` on `listener` until `shutdown`; running calls are answered, long streams are cut.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let incoming = authority::incoming(listener);
    builder().add_routes(routes).serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await?;
    Ok(())
}
