//! A SPDY/3.1 server for one connection that HTTP has handed over.
//!
//! - [`frame`], [`headers`]: bytes to frames and back.   - [`flow`]: what the peer is ready to take.
//! - this file: one task that reads, one that writes.
//!
//! Only the peer opens streams. Each gets its reply at once and goes to whoever serves the connection as a
//! [`NewStream`]. A peer that breaks the protocol of the connection is told by GOAWAY, with the reason in our log; one
//! that breaks that of a stream by RST_STREAM.
//!
//! Flow control, what we take: a stream's window is [`INBOX`](super::channel::INBOX) wide for peers that know no windows, where the reader
//! waits (and with it the whole connection) when it is full; a peer that does flow control is held to its 64 KiB and
//! never makes the reader wait. What we send: see [`flow`].

pub mod flow;
pub mod frame;
pub mod headers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::activity::Activity;
use super::channel::{Inbox, Outgoing, QUEUE, Sink, Source, incoming};
use flow::{Flow, INITIAL, Overflow};
use frame::{Decoder, Frame, FrameError, INITIAL_WINDOW, Reset};
use headers::{HeaderError, Headers};

/// Streams of a connection that may be open at a time.
pub const STREAMS: usize = 256;
/// How long a peer may take to go away, once all is said.
const LINGER: Duration = Duration::from_secs(5);
/// The window for all streams together: they are bounded one by one.
const ALL: u32 = 64 << 20;

/// A stream that the peer has opened.
#[derive(Debug)]
pub struct NewStream {
    pub id: u32,
    pub headers: Headers,
    pub source: Source,
    pub sink: Sink,
}

/// A connection that is served.
#[derive(Debug)]
pub struct Connection {
    pub streams: mpsc::Receiver<NewStream>,
    pub out: mpsc::Sender<Outgoing>,
    /// Ends with the connection.
    pub done: JoinHandle<()>,
}

/// Why a connection ended. An orderly end is none of these.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("stream {0} was opened out of order")]
    Order(u32),
    #[error("data for stream {0}, which was never opened")]
    NeverOpened(u32),
    #[error("a window became wider than the protocol allows")]
    Window,
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

impl From<HeaderError> for Broken {
    fn from(e: HeaderError) -> Self {
        Broken::Frame(e.into())
    }
}

impl From<Overflow> for Broken {
    fn from(_: Overflow) -> Self {
        Broken::Window
    }
}

/// Serves a connection until it ends: the streams that are opened come out of `streams`; what is sent into `out` is
/// written, up to [`Outgoing::End`].
pub fn open<T>(io: T, activity: Arc<Activity>) -> Connection
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (out, queue) = mpsc::channel(QUEUE);
    let (opened, streams) = mpsc::channel(QUEUE);
    let flow = Arc::<Flow>::default();
    let reader = Reader {
        out: out.clone(),
        opened,
        flow: flow.clone(),
        activity: activity.clone(),
        decoder: Decoder::default(),
        streams: HashMap::new(),
        last: 0,
    };
    let reading = tokio::spawn(reader.run(read));
    let done = tokio::spawn(async move {
        let written = write_all(write, queue, &activity).await;
        flow.end();
        // The peer goes first: closing before it has read everything could take the last of it away.
        let mut reading = reading;
        if written.is_err() || tokio::time::timeout(LINGER, &mut reading).await.is_err() {
            reading.abort();
        }
        activity.end();
    });
    Connection { streams, out, done }
}

/// The writing half of a connection, which lives until [`Outgoing::End`].
async fn write_all(
    mut io: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
    activity: &Activity,
) -> std::io::Result<()> {
    io.write_all(&frame::window_update(0, ALL)).await?;
    let mut last = 0;
    while let Some(next) = queue.recv().await {
        match next {
            Outgoing::Data { data, .. } if data.is_empty() => {}
            Outgoing::Data { channel, data } => {
                activity.touch();
                last = last.max(channel);
                let header = frame::data_header(channel, false, data.len());
                io.write_all(&[&header[..], &data].concat()).await?;
            }
            Outgoing::Close { channel } => io.write_all(&frame::data_header(channel, true, 0)).await?,
            Outgoing::Taken { channel, bytes } => {
                let by = u32::try_from(bytes).unwrap_or(u32::MAX);
                let updates = [frame::window_update(channel, by), frame::window_update(0, by)].concat();
                io.write_all(&updates).await?;
            }
            Outgoing::Raw(bytes) => io.write_all(&bytes).await?,
            Outgoing::End { .. } => {
                io.write_all(&frame::go_away(last, false)).await?;
                io.flush().await?;
                return Ok(());
            }
        }
        if queue.is_empty() {
            io.flush().await?;
        }
    }
    Ok(())
}

struct Reader {
    out: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<NewStream>,
    flow: Arc<Flow>,
    activity: Arc<Activity>,
    decoder: Decoder,
    streams: HashMap<u32, Inbox>,
    /// The last stream that was opened.
    last: u32,
}

impl Reader {
    async fn run(mut self, io: impl AsyncRead + Unpin) {
        let ended = self.read(io).await;
        if let Err(error) = &ended {
            tracing::debug!(%error, "a SPDY connection broke");
            let broken = match error {
                Broken::Io(_) => false,
                Broken::Frame(_) | Broken::Order(_) | Broken::NeverOpened(_) | Broken::Window => true,
            };
            if broken {
                self.activity.fail(error.to_string());
                self.raw(frame::go_away(self.last, true)).await;
            }
        }
        self.flow.end();
        // Every inbox ends with us.
        self.activity.end();
    }

    async fn read(&mut self, mut io: impl AsyncRead + Unpin) -> Result<(), Broken> {
        let mut headers = headers::Writer::new()?;
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = self.decoder.next(&mut buffer)? {
                self.handle(frame, &mut headers).await?;
            }
            buffer.reserve(frame::LARGEST);
            if io.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn handle(&mut self, frame: Frame, headers: &mut headers::Writer) -> Result<(), Broken> {
        match frame {
            Frame::SynStream { stream, fin, headers: given } => self.open(stream, fin, given, headers).await,
            Frame::Data { stream, fin, data } => self.data(stream, fin, &data).await,
            Frame::Headers { stream, fin: true, .. } => {
                self.streams.remove(&stream);
                Ok(())
            }
            Frame::Reset { stream, .. } => {
                self.flow.close(stream);
                self.streams.remove(&stream);
                Ok(())
            }
            Frame::Settings(settings) => {
                let announced = settings.into_iter().filter(|(id, _)| *id == INITIAL_WINDOW);
                announced.into_iter().try_for_each(|(_, value)| self.flow.announce(value)).map_err(Broken::from)
            }
            Frame::WindowUpdate { stream, by } => match self.flow.widen(stream, by) {
                Err(Overflow) if stream != 0 => {
                    self.reset(stream, Reset::FlowControl).await;
                    Ok(())
                }
                widened => widened.map_err(Broken::from),
            },
            // The peer's own pings have odd ids; we send none.
            Frame::Ping(id) => {
                if id % 2 == 1 {
                    self.raw(frame::ping(id)).await;
                }
                Ok(())
            }
            Frame::SynReply { .. } | Frame::GoAway { .. } | Frame::Headers { fin: false, .. } => Ok(()),
        }
    }

    async fn open(&mut self, id: u32, fin: bool, given: Headers, headers: &mut headers::Writer) -> Result<(), Broken> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(Broken::Order(id));
        }
        self.last = id;
        self.streams.retain(|_, stream| stream.wanted());
        if self.streams.len() >= STREAMS {
            self.reset(id, Reset::Refused).await;
            return Ok(());
        }
        self.activity.touch();
        self.flow.open(id);
        let (inbox, source) = incoming(id, self.out.clone());
        let sink = Sink::new(id, self.out.clone(), Some(self.flow.clone()));
        self.raw(frame::syn_reply(id, &headers.write(&[])?)).await;
        if !fin {
            self.streams.insert(id, inbox);
        }
        if self.opened.send(NewStream { id, headers: given, source, sink }).await.is_err() {
            self.reset(id, Reset::Refused).await;
        }
        Ok(())
    }

    async fn data(&mut self, id: u32, fin: bool, data: &[u8]) -> Result<(), Broken> {
        if id == 0 || id > self.last {
            return Err(Broken::NeverOpened(id));
        }
        self.activity.touch();
        // What was on its way when a stream ended is nothing to complain of.
        let Some(inbox) = self.streams.get(&id) else { return Ok(()) };
        // Only what was taken out of the inbox has been given back to the window.
        if self.flow.meant() && (inbox.held() + data.len()) as i64 > INITIAL {
            self.reset(id, Reset::FlowControl).await;
            return Ok(());
        }
        while !inbox.push(data) {
            inbox.room(data.len()).await;
        }
        if fin {
            self.streams.remove(&id);
        }
        Ok(())
    }

    async fn reset(&mut self, stream: u32, why: Reset) {
        self.flow.close(stream);
        self.streams.remove(&stream);
        self.raw(frame::reset(stream, why)).await;
    }

    /// A writer that is gone ends the reader by itself.
    async fn raw(&self, bytes: Bytes) {
        let _ = self.out.send(Outgoing::Raw(bytes)).await;
    }
}
