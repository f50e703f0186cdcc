//! The calling end of a connection.
//!
//! One task writes, one reads. A call is queued whole, so dropping its future never leaves half a frame behind; an
//! answer that nobody waits for any more is thrown away. When the connection ends, all that wait learn it at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use shared_proto::{Code, Error};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::CallError;
use crate::frame::{self, Frame, Kind, MAX_MESSAGE, Reader};
use crate::message::{KeyValue, NAMESPACE, Request, Response};

/// Calls that may wait for the writer; more wait for room.
const QUEUE: usize = 64;

/// What a call carries beside its message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The longest time to wait for the answer. `None` is for calls that wait for something by nature.
    pub deadline: Option<Duration>,
    /// The namespace, sent as [`NAMESPACE`].
    pub namespace: Option<&'a str>,
}

impl<'a> Options<'a> {
    pub fn new(namespace: &'a str, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), namespace: Some(namespace) }
    }
}

/// A connection to a server; cheap to clone. It is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Bytes>,
    pending: Arc<Mutex<Pending>>,
    closed: watch::Receiver<bool>,
    reader: tokio::task::AbortHandle,
}

/// Calls without an answer so far, by stream id.
struct Pending {
    next: u32,
    closed: bool,
    calls: HashMap<u32, oneshot::Sender<Result<Bytes, Error>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Forgets a call when its future is dropped.
struct Waiting<'a> {
    pending: &'a Mutex<Pending>,
    stream: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.lock().expect("pending lock").calls.remove(&self.stream);
    }
}

impl Client {
    /// Connects to the socket at `path`.
    pub async fn connect(path: &Path) -> std::io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    /// A client on a connected socket.
    pub fn new(stream: UnixStream) -> Self {
        let (input, output) = stream.into_split();
        let (queue, queued) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(false);
        let pending = Arc::new(Mutex::new(Pending { next: 1, closed: false, calls: HashMap::new() }));
        tokio::spawn(write(output, queued));
        let reader = tokio::spawn(read(input, pending.clone(), closing)).abort_handle();
        Self(Arc::new(Inner { queue, pending, closed, reader }))
    }

    /// Ready once the connection has ended, by the peer or because the last clone of the client was dropped. The
    /// future itself does not keep it open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.0.closed.clone();
        async move {
            // An error means that the reader is gone, and with it the connection.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// Whether the peer is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.0.pending.lock().expect("pending lock").closed
    }

    /// Calls `service`/`method`. The future may be dropped at any time; the peer's handler goes on.
    pub async fn call<A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
        options: Options<'_>,
    ) -> Result<A, CallError> {
        let payload = self.call_raw(service, method, request.encode_to_vec().into(), options).await?;
        A::decode(payload).map_err(|e| CallError::Malformed { call: name(service, method), reason: e.to_string() })
    }

    /// [`Client::call`] with a message that is already encoded, and an answer that still is.
    pub async fn call_raw(
        &self,
        service: &str,
        method: &str,
        payload: Bytes,
        options: Options<'_>,
    ) -> Result<Bytes, CallError> {
        let metadata = options.namespace.map(|ns| KeyValue { key: NAMESPACE.to_owned(), value: ns.to_owned() });
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: options.deadline.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)),
            metadata: metadata.into_iter().collect(),
        };
        let frame = frame::encode(0, Kind::Request, &request).map_err(|length| CallError::TooLarge {
            call: name(service, method),
            length,
            limit: MAX_MESSAGE,
        })?;
        let exchange = async {
            let answer = self.exchange(frame).await.ok_or_else(|| CallError::Closed { call: name(service, method) })?;
            answer.map_err(CallError::Status)
        };
        match options.deadline {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange)
                .await
                .unwrap_or_else(|_| Err(CallError::Deadline { call: name(service, method), limit })),
        }
    }

    /// Sends a frame and waits for its answer; `None` when the connection ended.
    async fn exchange(&self, frame: Bytes) -> Option<Result<Bytes, Error>> {
        let permit = self.0.queue.reserve().await.ok()?;
        let (sender, receiver) = oneshot::channel();
        let stream = {
            // Streams must reach the wire in the order of their ids, so both steps share the lock.
            let mut pending = self.0.pending.lock().expect("pending lock");
            if pending.closed {
                return None;
            }
            let stream = pending.next;
            pending.next = stream.checked_add(2)?;
            pending.calls.insert(stream, sender);
            permit.send(frame::with_stream(frame, stream));
            stream
        };
        let _waiting = Waiting { pending: &self.0.pending, stream };
        receiver.await.ok()
    }
}

/// How errors name a call: `Task/Create`.
fn name(service: &str, method: &str) -> String {
    format!("{}/{method}", service.rsplit('.').next().unwrap_or(service))
}

/// Writes what is queued. A connection that takes no more is noticed by the reader, too.
async fn write(mut output: OwnedWriteHalf, mut queued: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queued.recv().await {
        if let Err(e) = output.write_all(&frame).await {
            tracing::debug!(error = %e, "ttrpc client: write");
            return;
        }
    }
}

/// Hands answers to their calls until the connection ends.
async fn read(input: OwnedReadHalf, pending: Arc<Mutex<Pending>>, closing: watch::Sender<bool>) {
    let mut reader = Reader::new(input);
    loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                let waiting = pending.lock().expect("pending lock").calls.remove(&frame.stream);
                if let Some(waiting) = waiting {
                    // The caller may have gone meanwhile.
                    let _ = waiting.send(answer(frame));
                }
            }
            Ok(None) => break,
            Err(e) => {
                tracing::debug!(error = %e, "ttrpc client: read");
                break;
            }
        }
    }
    {
        let mut pending = pending.lock().expect("pending lock");
        pending.closed = true;
        pending.calls.clear();
    }
    closing.send_replace(true);
}

fn answer(frame: Frame) -> Result<Bytes, Error> {
    let data = match (frame.kind, frame.data) {
        (Kind::Response, Ok(data)) => data,
        (Kind::Response, Err(length)) => {
            let message = format!("the answer of {length} bytes is larger than {MAX_MESSAGE}");
            return Err(Error::new(Code::ResourceExhausted, message));
        }
        (Kind::Request | Kind::Data, _) => return Err(Error::internal("the peer answered with a stream")),
    };
    let response = Response::decode(data).map_err(|e| Error::internal(format!("malformed response: {e}")))?;
    match response.status {
        Some(status) if status.code != 0 => Err(Error::new(Code::from_number(status.code), status.message)),
        Some(_) | None => Ok(response.payload),
    }
}
