//! Exec and attach, as seen by a connection: which channels they have, and how they end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared_proto::{Code, Error};
use tokio::sync::mpsc;

use super::activity::Activity;
use super::channel::{Outgoing, Sink, Source};
use super::negotiate::Chosen;
use super::spdy::headers::value;
use super::spdy::{self, NewStream};
use super::status::{Form, Outcome};
use super::tokens::Allowed;
use super::websocket;
use crate::Cri;

/// How long a client may take to open its streams.
pub const OPENING: Duration = Duration::from_secs(30);
/// How long the end may take to be sent to a client that reads slowly.
const FAREWELL: Duration = Duration::from_secs(10);

/// What a client sends over WebSocket.
pub const INCOMING: [u32; 2] = [websocket::STDIN, websocket::RESIZE];

/// Which channels a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    pub fn of(allowed: &Allowed) -> Self {
        match allowed {
            Allowed::Exec(r) => Self { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
            Allowed::Attach(r) => Self { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
            Allowed::PortForward(_) => Self { stdin: false, stdout: false, stderr: false, tty: false },
        }
    }
}

/// The channels of one exec or attach.
pub struct Channels {
    pub stdin: Option<Source>,
    pub stdout: Option<Sink>,
    pub stderr: Option<Sink>,
    pub resize: Option<Source>,
    pub activity: Arc<Activity>,
}

/// The rest of the connection: where the end is told.
pub struct End {
    pub error: Sink,
    pub form: Form,
    pub out: mpsc::Sender<Outgoing>,
}

/// Runs an exec or attach and tells the client how it ended.
pub async fn serve(cri: &Cri, allowed: Allowed, channels: Channels, end: End) {
    let activity = channels.activity.clone();
    let outputs = [channels.stdout.clone(), channels.stderr.clone()];
    let work = async {
        match allowed {
            Allowed::Exec(request) => cri.serve_exec(request, channels).await,
            Allowed::Attach(request) => cri.serve_attach(request, channels).await,
            Allowed::PortForward(_) => Outcome::Failed(Error::internal("a port-forward has other channels")),
        }
    };
    let limit = cri.0.config.runtime.stream_idle_timeout;
    let watch = async {
        activity.watch(limit).await;
        // The work ends by itself then.
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = watch => return,
    };
    if let Outcome::Failed(error) = &outcome {
        tracing::debug!(%error, "a stream ended");
    }
    let told = tokio::time::timeout(FAREWELL, end.tell(outputs, &outcome)).await;
    if told.is_err() {
        tracing::debug!("the client does not read the end of its stream");
        activity.end();
    }
}

impl End {
    async fn tell(self, outputs: [Option<Sink>; 2], outcome: &Outcome) {
        for output in outputs.into_iter().flatten() {
            output.close().await;
        }
        let text = outcome.encode(self.form);
        let reason = if let Outcome::Failed(e) = outcome { e.message.clone() } else { String::new() };
        // Whoever is gone needs no word of it.
        let _ = self.error.send(text.into()).await;
        self.error.close().await;
        let _ = self.out.send(Outgoing::End { reason }).await;
    }
}

/// The same over SPDY, where the client opens a stream for each channel.
pub async fn serve_spdy(
    cri: &Cri,
    allowed: Allowed,
    chosen: &Chosen,
    connection: spdy::Connection,
    activity: Arc<Activity>,
) {
    let spdy::Connection { mut streams, out, done } = connection;
    let wanted = Wanted::of(&allowed);
    let named = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", wanted.tty && chosen.resizes()),
    ];
    let missing: Vec<&str> = named.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect();
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPENING, collect(&missing, &mut streams)) => opened.ok().flatten(),
        () = activity.gone().cancelled() => None,
    };
    let Some(mut opened) = opened else {
        tracing::debug!(?missing, "the client has not opened its streams");
        let _ = out.send(Outgoing::End { reason: String::new() }).await;
        let _ = done.await;
        return;
    };
    let mut take = |name| opened.remove(name);
    let Some((_, error)) = take("error") else { return };
    let channels = Channels {
        stdin: take("stdin").map(|(source, _)| source),
        stdout: take("stdout").map(|(_, sink)| sink),
        stderr: take("stderr").map(|(_, sink)| sink),
        resize: take("resize").map(|(source, _)| source),
        activity,
    };
    serve(cri, allowed, channels, End { error, form: chosen.form(), out }).await;
    // A writer that panicked has nothing more to write.
    let _ = done.await;
}

/// Waits for all of these streams; others are closed. `None`: the connection has ended.
async fn collect(
    names: &[&'static str],
    streams: &mut mpsc::Receiver<NewStream>,
) -> Option<HashMap<&'static str, (Source, Sink)>> {
    let mut opened = HashMap::new();
    while opened.len() < names.len() {
        let stream = streams.recv().await?;
        let kind = value(&stream.headers, "streamtype");
        match names.iter().find(|name| **name == kind && !opened.contains_key(*name)) {
            Some(name) => {
                opened.insert(*name, (stream.source, stream.sink));
            }
            None => {
                tracing::debug!(kind, "a stream that nobody asked for is closed");
                stream.sink.close().await;
            }
        }
    }
    Some(opened)
}

/// The error of work that ends because its connection has.
pub fn ended(activity: &Activity) -> Error {
    Error::new(Code::Canceled, activity.why())
}

/// The same over WebSocket, where the channels ([`INCOMING`]) are there from the beginning.
pub async fn serve_websocket(
    cri: &Cri,
    allowed: Allowed,
    chosen: &Chosen,
    connection: websocket::Connection,
    activity: Arc<Activity>,
) {
    let websocket::Connection { sources, out, done } = connection;
    let mut sources = sources.into_iter();
    let (stdin, resize) = (sources.next(), sources.next());
    let wanted = Wanted::of(&allowed);
    let sink = |channel| Sink::new(channel, out.clone(), None);
    let channels = Channels {
        stdin: stdin.filter(|_| wanted.stdin),
        stdout: wanted.stdout.then(|| sink(websocket::STDOUT)),
        stderr: wanted.stderr.then(|| sink(websocket::STDERR)),
        resize: resize.filter(|_| wanted.tty),
        activity,
    };
    let error = sink(websocket::ERROR);
    // Clients wait for a first message, which says that the connection stands. Whoever is gone needs none.
    let _ = channels.stdout.as_ref().or(channels.stderr.as_ref()).unwrap_or(&error).hello().await;
    serve(cri, allowed, channels, End { error, form: chosen.form(), out }).await;
    // A writer that panicked has nothing more to write.
    let _ = done.await;
}
