//! The Streaming service: streams that other calls refer to by name.
//!
//! A client opens a stream and names it with its first message (`StreamInit`); the empty answer says that the name is
//! known. Then a call that mentions the name (a transfer) takes the stream with [`StreamManager::take`] and talks over
//! it. The name is free again when the stream ends, which is when the client closes its side of the connection or
//! the taker lets go of [`Stream`].
//!
//! Limits: [`FIRST`] for the first message; [`QUEUE`] messages wait for a slow client.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use prost_types::Any;
use shared_proto::api::{self, Items};
use shared_proto::containerd::streaming::StreamInit;
use shared_proto::{Context, Error, Result, any};
use tokio::sync::mpsc;

/// How long a client may take to say the name.
const FIRST: Duration = Duration::from_secs(10);
/// Messages that may wait for one client.
const QUEUE: usize = 64;
/// The longest name, bytes.
const MAX_NAME: usize = 256;

type Key = (String, String);
/// Open streams by namespace and name; `None` = taken.
type Streams = Arc<Mutex<HashMap<Key, Option<Stream>>>>;

/// The streams that are open; cheap to clone.
#[derive(Clone, Default)]
pub struct StreamManager(Streams);

/// One stream, from the side of the core. Dropping it ends the stream.
pub struct Stream {
    name: String,
    incoming: Items<Any>,
    outgoing: mpsc::Sender<Any>,
}

impl StreamManager {
    /// The stream `name` of this namespace. Each can be taken once.
    pub fn take(&self, ns: &str, name: &str) -> Result<Stream> {
        let mut streams = self.0.lock().expect("streams lock");
        match streams.get_mut(&(ns.to_owned(), name.to_owned())) {
            Some(stream) => {
                stream.take().ok_or_else(|| Error::precondition(format!("stream {name:?} is used by another call")))
            }
            None => Err(Error::not_found(format!("stream {name:?}"))),
        }
    }
}

impl Stream {
    /// The client's next message; `None` when it has said all.
    pub async fn receive(&mut self) -> Option<Result<Any>> {
        self.incoming.next().await
    }

    /// Sends a message; waits while too many wait already.
    pub async fn send(&mut self, message: Any) -> Result<()> {
        self.outgoing.send(message).await.map_err(|_| self.gone())
    }

    /// The error for a client that went away.
    fn gone(&self) -> Error {
        Error::new(shared_proto::Code::Canceled, format!("the client closed stream {:?}", self.name))
    }
}

#[async_trait::async_trait]
impl api::Streaming for StreamManager {
    async fn stream(&self, cx: &Context, mut req: Items<Any>) -> Result<Items<Any>> {
        let ns = cx.namespace()?.to_owned();
        let first = tokio::time::timeout(FIRST, req.next()).await;
        let first = first.map_err(|_| Error::deadline("no StreamInit came"))?;
        let first = first.ok_or_else(|| Error::invalid("the stream ended before its StreamInit"))??;
        let name = any::unpack::<StreamInit>(&first)?.id;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::invalid(format!("the name of a stream has 1 to {MAX_NAME} bytes, not {}", name.len())));
        }
        let (outgoing, queue) = mpsc::channel(QUEUE);
        // The queue is empty, so that this can't fail: the answer comes before anything else.
        let _ = outgoing.try_send(Any { type_url: "google.protobuf.Empty".into(), value: Vec::new() });
        let key = (ns, name.clone());
        {
            let mut streams = self.0.lock().expect("streams lock");
            if streams.contains_key(&key) {
                return Err(Error::exists(format!("stream {name:?}")));
            }
            streams.insert(key.clone(), Some(Stream { name, incoming: req, outgoing }));
        }
        Ok(Box::pin(Answers { queue, key, streams: self.0.clone() }))
    }
}

/// What the client receives. Gives the name free when it ends.
struct Answers {
    queue: mpsc::Receiver<Any>,
    key: Key,
    streams: Streams,
}

impl futures::Stream for Answers {
    type Item = Result<Any>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx).map(|message| message.map(Ok))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.streams.lock().expect("streams lock").remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use shared_proto::Code;
    use shared_proto::api::Streaming as _;

    use super::*;

    fn init(name: &str) -> Any {
        any::pack(&StreamInit { id: name.into() })
    }

    /// A client's stream: what it sends goes into the channel.
    fn client(first: Any) -> (mpsc::UnboundedSender<Any>, Items<Any>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(first).unwrap();
        (sender, tokio_stream::wrappers::UnboundedReceiverStream::new(receiver).map(Ok).boxed())
    }

    #[tokio::test]
    async fn a_stream_is_named_answered_taken_and_forgotten() {
        let manager = StreamManager::default();
        let cx = Context::new("default");
        let (sender, messages) = client(init("s"));
        let mut answers = manager.stream(&cx, messages).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().type_url, "google.protobuf.Empty");

        let (_other, messages) = client(init("s"));
        assert_eq!(manager.stream(&cx, messages).await.err().unwrap().code, Code::AlreadyExists);
        assert_eq!(manager.take("other", "s").err().unwrap().code, Code::NotFound);
        let mut stream = manager.take("default", "s").unwrap();
        assert_eq!(manager.take("default", "s").err().unwrap().code, Code::FailedPrecondition);

        sender.send(init("hello")).unwrap();
        assert_eq!(stream.receive().await.unwrap().unwrap(), init("hello"));
        stream.send(init("back")).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), init("back"));
        drop(sender);
        assert!(stream.receive().await.is_none());

        // The client hangs up.
        drop(answers);
        assert_eq!(stream.send(init("x")).await.unwrap_err().code, Code::Canceled);
        assert_eq!(manager.take("default", "s").err().unwrap().code, Code::NotFound);
    }

    #[tokio::test]
    async fn a_stream_that_is_let_go_ends_for_the_client() {
        let manager = StreamManager::default();
        let (_sender, messages) = client(init("s"));
        let mut answers = manager.stream(&Context::new("default"), messages).await.unwrap();
        answers.next().await;
        drop(manager.take("default", "s").unwrap());
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn refuses_what_is_no_name() {
        let manager = StreamManager::default();
        let cx = Context::new("default");
        for (first, code) in [
            (Any { type_url: "x".into(), value: vec![] }, Code::InvalidArgument),
            (init(""), Code::InvalidArgument),
            (init(&"x".repeat(MAX_NAME + 1)), Code::InvalidArgument),
        ] {
            let (_sender, messages) = client(first);
            assert_eq!(manager.stream(&cx, messages).await.err().unwrap().code, code);
        }
        let (_sender, messages) = client(init("s"));
        assert_eq!(manager.stream(&Context::default(), messages).await.err().unwrap().code, Code::FailedPrecondition);
    }
}
