//! The HTTP server behind the addresses that Exec, Attach and PortForward answer.
//!
//! A connection carries one request, which upgrades it; everything else is refused. A token is used up only by a client
//! that speaks a protocol that is known here. The server begins with the daemon and ends before it: connections that
//! are open then are told so.
//!
//! Limits: [`CONNECTIONS`] at a time (more wait in the kernel's backlog); [`HEADERS`] for the request to arrive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::activity::Activity;
use super::negotiate::{self, ACCEPTED, Chosen, Purpose, Refused, STREAM_PROTOCOL, Upgrade};
use super::tokens::Allowed;
use super::{StreamError, remote, spdy, tls, tunnel, websocket};
use crate::Cri;

/// Connections at a time.
pub const CONNECTIONS: usize = 1000;
/// How long a request may take to arrive.
pub const HEADERS: Duration = Duration::from_secs(30);

type Answer = Response<Full<Bytes>>;

impl Cri {
    /// Listens, and serves beside. From now on there are addresses to answer.
    pub(crate) async fn start_streaming(&self) -> Result<(), StreamError> {
        let runtime = &self.0.config.runtime;
        let host = if runtime.stream_server_address.is_empty() { "127.0.0.1" } else { &runtime.stream_server_address };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", runtime.stream_server_port),
            false => format!("{host}:{}", runtime.stream_server_port),
        };
        let failed = |source| StreamError::Listen { address: address.clone(), source };
        let tls = tls::acceptor(runtime).await?;
        let listener = TcpListener::bind(&address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "streams are served");
        // A second start of the same service would be a mistake; the first address stays.
        let scheme = if tls.is_some() { "https" } else { "http" };
        let _ = self.0.streams.base.set(format!("{scheme}://{bound}"));
        self.0.streams.work.spawn(self.clone().accept(listener, tls));
        Ok(())
    }

    /// Ends the server and its connections, and waits for both, but not longer than `limit`. Commands of clients that
    /// are connected are killed, so the core must still answer.
    pub async fn end_streams(&self, limit: Duration) {
        let streams = &self.0.streams;
        streams.shutdown.cancel();
        streams.work.close();
        if tokio::time::timeout(limit, streams.work.wait()).await.is_err() {
            tracing::warn!(left = streams.work.len(), "streams that do not end are cut");
        }
    }

    async fn accept(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let streams = &self.0.streams;
        let accepting = async {
            loop {
                // Never closed.
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        streams.work.spawn(self.clone().connection(stream, tls.clone(), Arc::new(place)));
                    }
                    Err(error) => {
                        // Out of files, most likely: some must be closed first.
                        tracing::warn!(%error, "a connection for streams could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        streams.shutdown.run_until_cancelled(accepting).await;
    }

    async fn connection(self, stream: TcpStream, tls: Option<TlsAcceptor>, place: Arc<OwnedSemaphorePermit>) {
        // What a user types goes out at once.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.serve(stream, place).await };
        let accepted = tokio::time::timeout(HEADERS, tls.accept(stream));
        match self.0.streams.shutdown.run_until_cancelled(accepted).await {
            Some(Ok(Ok(stream))) => self.serve(stream, place).await,
            Some(Ok(Err(error))) => tracing::debug!(%error, "a client of streams does not get through TLS"),
            Some(Err(_)) => tracing::debug!("a client of streams does not begin TLS"),
            None => {}
        }
    }

    async fn serve<T>(self, stream: T, place: Arc<OwnedSemaphorePermit>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |request| {
            let answer = self.answer(request, &place);
            async { Ok::<_, Infallible>(answer) }
        };
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        if let Some(Err(error)) = self.0.streams.shutdown.run_until_cancelled(served).await {
            tracing::debug!(%error, "a connection for streams broke");
        }
    }

    fn answer(&self, mut request: Request<Incoming>, place: &Arc<OwnedSemaphorePermit>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET or POST".into());
        }
        let path = request.uri().path().to_owned();
        let found = path.trim_start_matches('/').split_once('/');
        let Some((what @ ("exec" | "attach" | "portforward"), token)) = found else {
            return text(StatusCode::NOT_FOUND, format!("{path}: there is no such address"));
        };
        let purpose = if what == "portforward" { Purpose::Forward } else { Purpose::Remote };
        let chosen = negotiate::upgrade(request.headers())
            .and_then(|upgrade| Ok((upgrade, negotiate::choose(request.headers(), upgrade, purpose)?)));
        let (upgrade, chosen) = match chosen {
            Ok(chosen) => chosen,
            Err(why) => return refuse(&why, purpose),
        };
        let answer = switch(&request, upgrade, &chosen);
        let Some(allowed) = self.0.streams.tokens.take(what, token) else {
            return text(StatusCode::NOT_FOUND, "this address was used already, is too old, or never existed".into());
        };
        let (cri, place, upgraded) = (self.clone(), place.clone(), hyper::upgrade::on(&mut request));
        self.0.streams.work.spawn(async move {
            let _place = place;
            match upgraded.await {
                Ok(io) => cri.upgraded(TokioIo::new(io), upgrade, allowed, &chosen).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        answer
    }

    async fn upgraded(
        self,
        io: TokioIo<hyper::upgrade::Upgraded>,
        upgrade: Upgrade,
        allowed: Allowed,
        chosen: &Chosen,
    ) {
        let activity = Arc::new(Activity::new(&self.0.streams.shutdown));
        match (upgrade, allowed) {
            (Upgrade::Spdy, Allowed::PortForward(request)) => {
                let connection = spdy::open(io, activity.clone());
                self.forward_spdy(request, connection, activity).await;
            }
            (Upgrade::WebSocket, Allowed::PortForward(request)) if chosen.tunnel => {
                let connection = spdy::open(tunnel::open(io).await, activity.clone());
                self.forward_spdy(request, connection, activity).await;
            }
            (Upgrade::WebSocket, Allowed::PortForward(request)) => {
                // Data and errors of each port; only data comes from the client.
                let channels: Vec<u32> = (0..).step_by(2).take(request.port.len()).collect();
                let connection = websocket::open(io, chosen, &channels, activity.clone()).await;
                self.forward_websocket(request, connection, activity).await;
            }
            (Upgrade::Spdy, allowed @ (Allowed::Exec(_) | Allowed::Attach(_))) => {
                let connection = spdy::open(io, activity.clone());
                remote::serve_spdy(&self, allowed, chosen, connection, activity).await;
            }
            (Upgrade::WebSocket, allowed @ (Allowed::Exec(_) | Allowed::Attach(_))) => {
                let connection = websocket::open(io, chosen, &remote::INCOMING, activity.clone()).await;
                remote::serve_websocket(&self, allowed, chosen, connection, activity).await;
            }
        }
    }
}

/// What agrees to the upgrade.
fn switch(request: &Request<Incoming>, upgrade: Upgrade, chosen: &Chosen) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let named = match upgrade {
        Upgrade::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            HeaderName::from_static(STREAM_PROTOCOL)
        }
        Upgrade::WebSocket => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            SEC_WEBSOCKET_PROTOCOL
        }
    };
    if !chosen.name.is_empty()
        && let Ok(name) = HeaderValue::from_str(&chosen.name)
    {
        headers.insert(named, name);
    }
    answer
}

fn refuse(why: &Refused, purpose: Purpose) -> Answer {
    let status = match why {
        Refused::NoUpgrade | Refused::BadWebSocket => StatusCode::BAD_REQUEST,
        Refused::NothingKnown { .. } => StatusCode::FORBIDDEN,
    };
    let mut answer = text(status, why.to_string());
    if status == StatusCode::FORBIDDEN {
        for known in negotiate::accepted(purpose) {
            answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
        }
    }
    answer
}

fn text(status: StatusCode, why: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(why + "\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
