//! How a client reaches a core: over a Unix socket, or over a pipe inside one process.
//!
//! Both give an ordinary gRPC channel, so that the wirings `split` and `loopback` differ in nothing but the transport.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::errdefs::{Error, Result};

/// The largest message that either side accepts: containerd's limit, 16 MiB.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Buffer of the in-memory pipe in each direction, bytes.
const PIPE_BUFFER: usize = 256 << 10;

/// A lazy channel to the socket at `path`: it connects at the first call and again after the peer was restarted.
pub fn unix(path: impl AsRef<Path>) -> Channel {
    let path: PathBuf = path.as_ref().to_owned();
    endpoint().connect_with_connector_lazy(service_fn(move |_| {
        let path = path.clone();
        async move {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("connect to {}: {e}", path.display()));
            Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(&path).await.map_err(named)?))
        }
    }))
}

/// Connects to the socket at `path` now, or says why not.
pub async fn unix_now(path: impl AsRef<Path>) -> Result<Channel> {
    let shown = path.as_ref().display().to_string();
    let stream =
        UnixStream::connect(path.as_ref()).await.map_err(|e| Error::unavailable(format!("connect to {shown}: {e}")))?;
    drop(stream);
    Ok(unix(path))
}

/// A channel over a pipe inside the process. The second value is the server's end: serve it as one connection.
pub async fn pipe() -> Result<(Channel, tokio::io::DuplexStream)> {
    let (client, server) = tokio::io::duplex(PIPE_BUFFER);
    let client = Mutex::new(Some(client));
    let connector = service_fn(move |_| {
        let end = client.lock().expect("pipe lock").take();
        async move { end.map(TokioIo::new).ok_or_else(|| io::Error::other("the in-process pipe is closed")) }
    });
    Ok((endpoint().connect_with_connector_lazy(connector), server))
}

fn endpoint() -> Endpoint {
    // The URI is never resolved: the connectors above decide where the bytes go.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}
