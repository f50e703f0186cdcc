//! Prometheus metrics over HTTP, as text in the OpenMetrics format.
//!
//! `GET /metrics`, and `/v1/metrics` where containerd's users look for them. Anything else is 404 or 405. Requests are
//! answered one after the other a connection, with a bound on how long a client may take to ask.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

pub use prometheus_client::registry::Registry;

const PATHS: [&str; 2] = ["/metrics", "/v1/metrics"];
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Listens on `address`; `key` is the setting that is named when that can't be done.
pub fn bind(address: &str, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("{key} = {address:?}: listen"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `registry` until it is dropped.
pub async fn serve(listener: TcpListener, registry: Registry) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let registry = Arc::new(registry);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of descriptors, most of the time: it passes.
                tracing::warn!(error = %e, "metrics: accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| std::future::ready(answer(&request, &registry)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(e) = connection.await {
                tracing::debug!(error = %e, "metrics: a client's connection broke");
            }
        });
    }
}

/// Where a listener is, for the log.
pub fn address(listener: &TcpListener) -> String {
    listener.local_addr().map(|address: SocketAddr| address.to_string()).unwrap_or_default()
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Result<Response<Full<Bytes>>, std::fmt::Error> {
    let mut response = Response::new(Full::default());
    if !PATHS.contains(&request.uri().path()) {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry)?;
        response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        *response.body_mut() = Full::new(text.into());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("tries", "How often", counter.clone());
        let listener = bind("127.0.0.1:0", "[metrics] address").unwrap();
        let address = address(&listener);
        let taken = bind(&address, "[metrics] address").unwrap_err().to_string();
        assert!(taken.contains(&address) && taken.contains("[metrics] address"), "{taken}");
        tokio::spawn(serve(listener, registry));
        counter.inc();
        for (request, parts) in [
            ("GET /v1/metrics", ["200 OK", "tries_total 1\n# EOF"]),
            ("GET /metrics", ["openmetrics-text", "# HELP tries How often."]),
            ("GET /", ["404 Not Found", ""]),
            ("POST /metrics", ["405 Method Not Allowed", "GET, HEAD"]),
        ] {
            let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
            client
                .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            for part in parts {
                assert!(text.to_lowercase().contains(&part.to_lowercase()), "{request}: {part:?} is not in {text}");
            }
        }
    }
}
