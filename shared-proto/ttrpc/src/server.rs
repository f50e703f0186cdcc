//! The answering end: a listener, its connections, and a task for every request.
//!
//! A request reserves its place in the connection's queue of answers before it starts. So an answer never waits for
//! room, a handler that panics is still answered, and a connection is drained when the last place is given back.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use shared_proto::containerd::rpc::Status;
use shared_proto::{Code, Error};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::frame::{self, Frame, Kind, MAX_MESSAGE, REMOTE_OPEN, Reader};
use crate::message::{Context, Request, Response};

/// Requests at a time on one connection; the next ones wait unread.
pub const MAX_IN_FLIGHT: usize = 4096;

/// What a handler gives back: an encoded message, or an error.
pub type Answer = Result<Vec<u8>, Error>;

/// One service: decides by method name.
pub trait Service: Send + Sync + 'static {
    /// Handles one request. An unknown method is answered `Unimplemented` (see [`Error::unimplemented`]).
    fn call(&self, cx: Context, method: &str, payload: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

/// Decodes a request, or says why not (`InvalidArgument`).
pub fn decode<M: Message + Default>(payload: Bytes) -> Result<M, Error> {
    M::decode(payload).map_err(|e| Error::invalid(format!("malformed request: {e}")))
}

/// Encodes an answer.
pub fn encode(message: &impl Message) -> Answer {
    Ok(message.encode_to_vec())
}

/// A set of services; cheap to clone.
#[derive(Clone, Default)]
pub struct Server {
    services: HashMap<&'static str, Arc<dyn Service>>,
}

impl Server {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service under its full name, for example `containerd.task.v2.Task`.
    pub fn service(mut self, name: &'static str, service: Arc<dyn Service>) -> Self {
        self.services.insert(name, service);
        self
    }

    /// Serves until `shutdown` is ready, then answers what has begun and returns. The caller limits that time.
    /// Dropping the future closes the connections, but cancels no handler.
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let (stop, stopping) = watch::channel(false);
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(server.clone().connection(stream, stopping.clone()));
                    }
                    Err(e) => {
                        // Most likely out of file descriptors: others must finish first.
                        tracing::warn!(error = %e, "ttrpc server: accept");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        stop.send_replace(true);
        while connections.join_next().await.is_some() {}
    }

    /// One connection: reads requests until the peer goes or the server stops, then waits for the answers.
    async fn connection(self: Arc<Self>, stream: UnixStream, mut stopping: watch::Receiver<bool>) {
        let (input, output) = stream.into_split();
        let (answers, queued) = mpsc::channel(MAX_IN_FLIGHT);
        let writer = tokio::spawn(write(output, queued));
        let mut reader = Reader::new(input);
        loop {
            let frame = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(e) => {
                        tracing::debug!(error = %e, "ttrpc server: read");
                        break;
                    }
                },
            };
            // Data belongs to a stream, and those were refused when they were opened.
            if frame.kind == Kind::Request {
                let Ok(place) = answers.clone().reserve_owned().await else { break };
                self.dispatch(frame, Reply { stream: 0, place: Some(place) });
            }
        }
        drop(answers);
        // Ends when every handler has given back its place.
        let _ = writer.await;
    }

    /// Starts the handler of one request.
    fn dispatch(&self, frame: Frame, mut reply: Reply) {
        reply.stream = frame.stream;
        if frame.stream.is_multiple_of(2) {
            return reply.send(Err(Error::invalid(format!("stream id {} is not odd", frame.stream))));
        }
        let request = match frame.data {
            Ok(data) => Request::decode(data).map_err(|e| Error::invalid(format!("malformed request: {e}"))),
            Err(length) => Err(Error::new(
                Code::ResourceExhausted,
                format!("a message of {length} bytes is larger than {MAX_MESSAGE}"),
            )),
        };
        let request = match request {
            Ok(request) => request,
            Err(e) => return reply.send(Err(e)),
        };
        let name = format!("/{}/{}", request.service, request.method);
        if frame.flags & REMOTE_OPEN != 0 {
            return reply.send(Err(Error::unimplemented(format!("{name}: streams are not offered"))));
        }
        let Some(service) = self.services.get(request.service.as_str()).cloned() else {
            return reply.send(Err(Error::unimplemented(format!("service {} is not offered", request.service))));
        };
        let cx = Context::of(request.metadata, request.timeout_nano);
        tokio::spawn(async move {
            let answer = service.call(cx, &request.method, request.payload).await;
            reply.send(answer);
        });
    }
}

/// The place of one answer. Dropped without an answer (a handler that panicked), it sends an error.
struct Reply {
    stream: u32,
    place: Option<mpsc::OwnedPermit<Bytes>>,
}

impl Reply {
    fn send(mut self, answer: Answer) {
        self.fill(answer);
    }

    fn fill(&mut self, answer: Answer) {
        let Some(place) = self.place.take() else { return };
        let response = match answer {
            Ok(payload) => Response { status: None, payload: payload.into() },
            Err(e) => refusal(e),
        };
        let frame = frame::encode(self.stream, Kind::Response, &response).unwrap_or_else(|length| {
            let message = format!("the answer of {length} bytes is larger than {MAX_MESSAGE}");
            frame::encode(self.stream, Kind::Response, &refusal(Error::new(Code::ResourceExhausted, message)))
                .expect("an error message fits")
        });
        place.send(frame);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.fill(Err(Error::internal("the handler failed")));
    }
}

fn refusal(e: Error) -> Response {
    let mut message = e.message;
    if message.len() > MAX_MESSAGE / 2 {
        let mut cut = MAX_MESSAGE / 2;
        while !message.is_char_boundary(cut) {
            cut -= 1;
        }
        message.truncate(cut);
    }
    let status = Status { code: e.code.number(), message, details: Vec::new() };
    Response { status: Some(status), payload: Bytes::new() }
}

/// Writes answers until all places are given back; goes on taking them when the peer is gone.
async fn write(mut output: OwnedWriteHalf, mut queued: mpsc::Receiver<Bytes>) {
    let mut alive = true;
    while let Some(frame) = queued.recv().await {
        if alive && let Err(e) = output.write_all(&frame).await {
            tracing::debug!(error = %e, "ttrpc server: write");
            alive = false;
        }
    }
}
