//! Byte channels of one connection, whatever protocol carries them.
//!
//! A connection has one reader and one writer task. The reader puts what arrives into an [`Inbox`]; whoever serves
//! the channel takes it out of the [`Source`]. What is to be sent goes through a [`Sink`] into one bounded queue, from
//! which the writer takes it in order.
//!
//! Invariants: an inbox holds at most [`INBOX`] bytes, in one piece, however small the frames were that brought them.
//! The queue to the writer holds at most [`QUEUE`] messages of at most [`PIECE`] bytes. So a connection's memory is
//! bounded by its number of channels, and a slow peer slows down nobody but its own sender.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use super::spdy::flow::Flow;

/// Bytes that wait to be taken, at most.
pub const INBOX: usize = 256 << 10;
/// Messages that wait to be written, at most.
pub const QUEUE: usize = 16;
/// Bytes of one message, at most.
pub const PIECE: usize = 16 << 10;

/// What the writer of a connection is to do.
#[derive(Debug)]
pub enum Outgoing {
    Data {
        channel: u32,
        data: Bytes,
    },
    /// Nothing more comes on this channel.
    Close {
        channel: u32,
    },
    /// So many bytes of this channel were used: the peer may send as many again.
    Taken {
        channel: u32,
        bytes: usize,
    },
    /// Something that the protocol's own code has encoded.
    Raw(Bytes),
    /// All is said; `reason` is for the peer, where its protocol has a place for it.
    End {
        reason: String,
    },
}

/// The other side is gone, or has closed the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has closed the channel")]
pub struct Closed;

#[derive(Debug, Default)]
struct Waiting {
    data: BytesMut,
    ended: bool,
    /// Nobody takes anything any more.
    abandoned: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end of an incoming channel. Dropping it ends the channel.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

/// The taker's end.
#[derive(Debug)]
pub struct Source {
    channel: u32,
    shared: Arc<Shared>,
    taken: usize,
    out: mpsc::Sender<Outgoing>,
}

/// An incoming channel.
pub fn incoming(channel: u32, out: mpsc::Sender<Outgoing>) -> (Inbox, Source) {
    let shared = Arc::<Shared>::default();
    (Inbox(shared.clone()), Source { channel, shared, taken: 0, out })
}

impl Inbox {
    /// Adds what has arrived. `false`: it does not fit. What nobody wants any more always fits.
    pub fn push(&self, data: &[u8]) -> bool {
        let mut waiting = self.0.lock();
        if waiting.abandoned || waiting.ended {
            return true;
        }
        if waiting.data.len() + data.len() > INBOX {
            return false;
        }
        waiting.data.extend_from_slice(data);
        drop(waiting);
        self.0.changed.notify_waiters();
        true
    }

    /// Bytes that wait to be taken.
    pub fn held(&self) -> usize {
        self.0.lock().data.len()
    }

    /// Waits until something was taken since the last `push` that did not fit.
    pub async fn room(&self, wanted: usize) {
        loop {
            let changed = self.0.changed.notified();
            {
                let waiting = self.0.lock();
                if waiting.abandoned || waiting.data.is_empty() || waiting.data.len() + wanted <= INBOX {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.0.lock().ended = true;
        self.0.changed.notify_waiters();
    }

    /// Whether somebody still takes what comes.
    pub fn wanted(&self) -> bool {
        !self.0.lock().abandoned
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl Source {
    /// Everything that waits; `None`: the peer has closed the channel, or is gone. Nothing is lost when the future is
    /// dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.taken > 0 {
            // A connection that is gone needs no word of it.
            let _ = self.out.send(Outgoing::Taken { channel: self.channel, bytes: self.taken }).await;
            self.taken = 0;
        }
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut waiting = self.shared.lock();
                if !waiting.data.is_empty() {
                    let data = waiting.data.split().freeze();
                    self.taken = data.len();
                    drop(waiting);
                    self.shared.changed.notify_waiters();
                    return Some(data);
                }
                if waiting.ended {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.abandoned = true;
        waiting.data = BytesMut::new();
        drop(waiting);
        self.shared.changed.notify_waiters();
    }
}

/// An outgoing channel.
#[derive(Debug, Clone)]
pub struct Sink {
    channel: u32,
    out: mpsc::Sender<Outgoing>,
    /// What the peer is ready to take, in protocols that know it.
    flow: Option<Arc<Flow>>,
}

impl Sink {
    pub fn new(channel: u32, out: mpsc::Sender<Outgoing>, flow: Option<Arc<Flow>>) -> Self {
        Self { channel, out, flow }
    }

    /// Sends all of it, in order, as fast as the peer takes it.
    pub async fn send(&self, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let wanted = data.len().min(PIECE);
            let room = match &self.flow {
                Some(flow) => flow.reserve(self.channel, wanted).await?,
                None => wanted,
            };
            let data = data.split_to(room);
            self.out.send(Outgoing::Data { channel: self.channel, data }).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// A message without content: some protocols use it to say that a channel is there.
    pub async fn hello(&self) -> Result<(), Closed> {
        self.out.send(Outgoing::Data { channel: self.channel, data: Bytes::new() }).await.map_err(|_| Closed)
    }

    /// Says that nothing more comes.
    pub async fn close(self) {
        // Whoever is gone needs no word of it.
        let _ = self.out.send(Outgoing::Close { channel: self.channel }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inbox_is_bounded_and_loses_nothing() {
        let (out, mut sent) = mpsc::channel(QUEUE);
        let (inbox, mut source) = incoming(7, out);
        for _ in 0..INBOX {
            assert!(inbox.push(b"x"));
        }
        assert!(!inbox.push(b"y"), "it is full");
        assert!(futures::FutureExt::now_or_never(inbox.room(1)).is_none());
        assert_eq!(source.next().await.unwrap().len(), INBOX);
        inbox.room(1).await;
        assert!(inbox.push(b"y"));
        inbox.end();
        assert!(inbox.push(b"after the end"));
        assert_eq!(source.next().await.unwrap(), "y");
        assert_eq!(source.next().await, None);
        assert!(matches!(sent.recv().await, Some(Outgoing::Taken { channel: 7, bytes: INBOX })));
    }

    #[tokio::test]
    async fn what_nobody_wants_blocks_nobody() {
        let (out, _sent) = mpsc::channel(QUEUE);
        let (inbox, source) = incoming(1, out);
        assert!(inbox.push(&[0; INBOX]));
        drop(source);
        inbox.room(INBOX).await;
        assert!(inbox.push(&[0; INBOX]) && !inbox.wanted());
    }

    #[tokio::test]
    async fn a_sink_ends_with_its_connection() {
        let (out, mut sent) = mpsc::channel(QUEUE);
        let sink = Sink::new(1, out, None);
        sink.send(Bytes::from(vec![0; PIECE + 1])).await.unwrap();
        for expected in [PIECE, 1] {
            assert!(matches!(sent.recv().await, Some(Outgoing::Data { data, .. }) if data.len() == expected));
        }
        drop(sent);
        assert_eq!(sink.send(Bytes::from_static(b"x")).await, Err(Closed));
    }
}
