//! Streams that a transfer refers to by name: progress, credentials, bytes of an archive.

use futures::StreamExt as _;
use prost_types::Any;
use shared_proto::api::Items;
use shared_proto::containerd::streaming::StreamInit;
use shared_proto::{Context, Core, Error, Result, any};
use tokio::sync::mpsc;

use crate::call;

/// Messages on their way to the core. What is behind it applies its own flow control.
const BUFFER: usize = 16;

/// Our end of a named stream. Dropping it closes the stream.
pub struct Named {
    pub id: String,
    /// Gone when we have said all.
    to_core: Option<mpsc::Sender<Any>>,
    from_core: Items<Any>,
}

impl Named {
    /// Opens a stream under a new name, and returns when the core knows the name.
    pub async fn open(core: &Core, cx: &Context, purpose: &str) -> Result<Self> {
        let id = format!("{purpose}-{}", uuid::Uuid::new_v4());
        let (to_core, mut requests) = mpsc::channel(BUFFER);
        let init = any::pack(&StreamInit { id: id.clone() });
        let requests = futures::stream::once(std::future::ready(Ok(init)))
            .chain(futures::stream::poll_fn(move |cx| requests.poll_recv(cx).map(|item| item.map(Ok))));
        let opened = async {
            let mut from_core = core.streaming.stream(cx, requests.boxed()).await?;
            match from_core.next().await {
                Some(acknowledged) => acknowledged.map(|_| from_core),
                None => Err(Error::unavailable("the core closed the stream at once")),
            }
        };
        let from_core = call::within(format!("open stream {id}"), call::RECORD, opened).await?;
        Ok(Self { id, to_core: Some(to_core), from_core })
    }

    /// The core's next message; nothing once it has closed the stream.
    pub async fn next(&mut self) -> Option<Result<Any>> {
        self.from_core.next().await
    }

    /// Sends a message, waiting for room.
    pub async fn send(&mut self, message: Any) -> Result<()> {
        let closed = || Error::unavailable(format!("stream {} was closed", self.id));
        self.to_core.as_ref().ok_or_else(closed)?.send(message).await.map_err(|_| closed())
    }

    /// Says that nothing more comes from us. The core may go on.
    pub fn close(&mut self) {
        self.to_core = None;
    }
}
