//! The far end of a port-forward: connections to ports on a pod's loopback.
//!
//! Over SPDY a client opens two streams for each connection, `data` and `error`, which name the port and have a
//! `requestid` in common (older clients: the ids of the two follow each other). Over WebSocket the request names the
//! ports; each has one connection, with channel 2n for its data and 2n+1 for its errors, both of which begin with the
//! port's number in two bytes, little-endian.
//!
//! The socket is made inside the pod's network namespace, which stays its own; nothing runs there. 127.0.0.1 is tried
//! first, then ::1. The end of what the client says is told to the pod, which may still answer; the pod's end is the
//! end of the connection, as it is with containerd. What goes wrong with one connection is told on its error channel,
//! in text, and the others go on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared_proto::cri::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::activity::Activity;
use super::channel::{Outgoing, PIECE, Sink, Source};
use super::remote::OPENING;
use super::spdy::headers::value;
use super::spdy::{self, NewStream, frame};
use super::websocket;
use crate::Cri;

/// How long a port inside a pod may take to answer.
const DIAL: Duration = Duration::from_secs(30);
/// How long a client may go on after the pod has said its last: clients wait for the end of the error channel before
/// they end theirs.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The two channels of one connection.
struct Pair {
    port: u16,
    data: (Source, Sink),
    error: Sink,
}

/// A pod whose ports are reached.
#[derive(Debug, Clone)]
struct Target {
    id: String,
    /// `None`: the machine's own network.
    netns: Option<PathBuf>,
}

impl Cri {
    /// The pod, if it is still there and ready.
    async fn target(&self, request: &v1::PortForwardRequest) -> shared_proto::Result<Target> {
        let sandbox = self.0.sandboxes.get(&request.pod_sandbox_id)?;
        let _admitted = sandbox.life.admit()?;
        let record = sandbox.record();
        let netns = (!record.host_network()).then(|| record.netns.clone());
        Ok(Target { id: record.id.clone(), netns })
    }

    /// Serves pairs of streams until the client goes.
    pub(super) async fn forward_spdy(
        &self,
        request: v1::PortForwardRequest,
        connection: spdy::Connection,
        activity: Arc<Activity>,
    ) {
        let spdy::Connection { streams, out, done } = connection;
        let serving = self.serve_pairs(&request, streams, &out);
        let watch = activity.watch(self.0.config.runtime.stream_idle_timeout);
        tokio::select! {
            () = serving => {}
            () = watch => {}
        }
        let _ = out.send(Outgoing::End { reason: String::new() }).await;
        // A writer that panicked has nothing more to write.
        let _ = done.await;
    }

    async fn serve_pairs(
        &self,
        request: &v1::PortForwardRequest,
        mut streams: mpsc::Receiver<NewStream>,
        out: &mpsc::Sender<Outgoing>,
    ) {
        let mut half = Halves::default();
        // Dropping it ends what is left.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = streams.recv() => {
                    let Some(stream) = stream else { return };
                    let id = stream.id;
                    match half.add(stream) {
                        Ok(Some(pair)) => {
                            let target = self.target(request).await;
                            connections.spawn(forward(target, pair));
                        }
                        Ok(None) => {}
                        Err(error) => {
                            tracing::debug!(%error, "a stream of a port-forward is refused");
                            let _ = out.send(Outgoing::Raw(frame::reset(id, frame::Reset::Refused))).await;
                        }
                    }
                }
                Some(_) = connections.join_next() => {}
                () = half.expire() => {}
            }
        }
    }

    /// Serves one connection for each port of the request.
    pub(super) async fn forward_websocket(
        &self,
        request: v1::PortForwardRequest,
        connection: websocket::Connection,
        activity: Arc<Activity>,
    ) {
        let websocket::Connection { sources, out, done } = connection;
        let mut sources = sources.into_iter();
        let mut connections = JoinSet::new();
        let ports = request.port.iter().filter_map(|port| u16::try_from(*port).ok());
        for (port, number) in ports.zip((0..).step_by(2)) {
            let (data, error) = (Sink::new(number, out.clone(), None), Sink::new(number + 1, out.clone(), None));
            let Some(source) = sources.next() else { break };
            for sink in [&data, &error] {
                // Whoever is gone needs no word of it.
                let _ = sink.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
            }
            connections.spawn(forward(self.target(&request).await, Pair { port, data: (source, data), error }));
        }
        let all = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = activity.watch(self.0.config.runtime.stream_idle_timeout) => {}
        }
        let _ = out.send(Outgoing::End { reason: String::new() }).await;
        // A writer that panicked has nothing more to write.
        let _ = done.await;
    }
}

/// Streams whose other half has not come yet.
#[derive(Default)]
struct Halves(HashMap<String, Half>);

struct Half {
    since: Instant,
    port: u16,
    data: Option<(Source, Sink)>,
    error: Option<Sink>,
}

/// Why a stream belongs to no connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadStream {
    #[error("streamtype {0:?}: it is neither data nor error")]
    Kind(String),
    #[error("port {0:?}: it is not between 1 and 65535")]
    Port(String),
    #[error("there is another {kind} stream with requestid {request:?}, or one to another port")]
    Twice { kind: String, request: String },
}

impl Halves {
    fn add(&mut self, stream: NewStream) -> Result<Option<Pair>, BadStream> {
        let field = |name| value(&stream.headers, name).to_owned();
        let (kind, port, mut request) = (field("streamtype"), field("port"), field("requestid"));
        let number = port.parse::<u16>().ok().filter(|port| *port > 0);
        let number = number.ok_or(BadStream::Port(port))?;
        let is_error = match kind.as_str() {
            "error" => true,
            "data" => false,
            _ => return Err(BadStream::Kind(kind)),
        };
        if request.is_empty() {
            // The error stream comes first.
            request = (if is_error { stream.id } else { stream.id.saturating_sub(2) }).to_string();
        }
        let half = self.0.entry(request.clone()).or_insert_with(|| Half {
            since: Instant::now(),
            port: number,
            data: None,
            error: None,
        });
        if half.port != number || if is_error { half.error.is_some() } else { half.data.is_some() } {
            return Err(BadStream::Twice { kind, request });
        }
        match is_error {
            true => half.error = Some(stream.sink),
            false => half.data = Some((stream.source, stream.sink)),
        }
        let (data, error) = (half.data.take(), half.error.take());
        match (data, error) {
            (Some(data), Some(error)) => {
                self.0.remove(&request);
                Ok(Some(Pair { port: number, data, error }))
            }
            (data, error) => {
                (half.data, half.error) = (data, error);
                Ok(None)
            }
        }
    }

    /// Gives up what has waited too long for its other half.
    async fn expire(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, half)| half.since).map(|(id, half)| (id.clone(), half.since));
        let Some((id, since)) = oldest else { return std::future::pending().await };
        tokio::time::sleep_until(since + OPENING).await;
        let Some(half) = self.0.remove(&id) else { return };
        tracing::debug!(request = id, port = half.port, "a port-forward has one of its two streams only");
        for sink in [half.error, half.data.map(|(_, sink)| sink)].into_iter().flatten() {
            sink.close().await;
        }
    }
}

/// Carries one connection to its end.
async fn forward(target: shared_proto::Result<Target>, pair: Pair) {
    let Pair { port, data: (source, sink), error } = pair;
    let failed = match target {
        Ok(target) => carry(&target, port, source, sink)
            .await
            .err()
            .map(|e| format!("port-forward to port {port} of pod {}: {e}", target.id)),
        Err(e) => {
            sink.close().await;
            Some(format!("port-forward to port {port}: {e}"))
        }
    };
    if let Some(why) = failed {
        tracing::debug!(why, "a connection of a port-forward failed");
        // Whoever is gone needs no word of it.
        let _ = error.send(why.into()).await;
    }
    error.close().await;
}

async fn carry(target: &Target, port: u16, mut source: Source, sink: Sink) -> io::Result<()> {
    let stream = match tokio::time::timeout(DIAL, dial(target, port)).await {
        Ok(Ok(stream)) => stream,
        refused => {
            sink.close().await;
            return Err(refused.map_or_else(|_| io::Error::other(format!("no answer in {DIAL:?}")), |e| e.unwrap_err()));
        }
    };
    let (mut from, mut to) = stream.into_split();
    let up = async {
        while let Some(data) = source.next().await {
            if to.write_all(&data).await.is_err() {
                // The pod has closed its end; what it said before is on its way down.
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; PIECE];
        let ended = loop {
            match from.read(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    if sink.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                        break Ok(());
                    }
                }
                Err(e) => break Err(e),
            }
        };
        sink.close().await;
        ended
    };
    tokio::pin!(up, down);
    let mut talking = true;
    loop {
        tokio::select! {
            () = &mut up, if talking => talking = false,
            ended = &mut down => {
                if talking {
                    let _ = tokio::time::timeout(LAST_WORDS, &mut up).await;
                }
                return ended;
            }
        }
    }
}

/// Connects to a port on the pod's loopback.
async fn dial(target: &Target, port: u16) -> io::Result<TcpStream> {
    let mut errors = Vec::new();
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(address, port);
        let (netns, v6) = (target.netns.clone(), address.is_ipv6());
        let connected = async {
            let socket = shared_sys::blocking(move || shared_sys::netns::tcp_socket(netns.as_deref(), v6)).await?;
            TcpSocket::from_std_stream(socket).connect(address).await
        };
        match connected.await {
            Ok(stream) => {
                // What a user types goes out at once.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) => errors.push(format!("{address}: {e}")),
        }
    }
    Err(io::Error::other(format!("failed to connect: {}", errors.join("; "))))
}
