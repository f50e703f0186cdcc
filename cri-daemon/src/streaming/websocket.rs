//! Channels over WebSocket messages: each begins with the number of its channel.
//!
//! Binary messages begin with the number as a byte; in the `base64.` protocols messages are text, with the number as a
//! digit and base64 after it. In v5, the byte 255 and a number say that the client's channel has ended; before v5 there
//! is no way to end one but to go.
//!
//! WebSocket has no flow control of its own: a full channel makes the reader wait, and TCP with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::activity::Activity;
use super::channel::{Inbox, Outgoing, PIECE, QUEUE, Source, incoming};
use super::negotiate::Chosen;

pub const STDIN: u32 = 0;
pub const STDOUT: u32 = 1;
pub const STDERR: u32 = 2;
pub const ERROR: u32 = 3;
pub const RESIZE: u32 = 4;
/// v5: the channel whose number follows has ended.
const ENDED: u8 = 255;
/// The largest message that is taken. Some clients send all of their input as one.
const LARGEST: usize = 16 << 20;
/// How long a client may take to go away, once all is said.
const LINGER: Duration = Duration::from_secs(5);

/// A connection that is served.
#[derive(Debug)]
pub struct Connection {
    /// The channels that the client may send on, in the order in which they were asked for.
    pub sources: Vec<Source>,
    pub out: mpsc::Sender<Outgoing>,
    /// Ends with the connection.
    pub done: JoinHandle<()>,
}

/// How messages look.
#[derive(Debug, Clone, Copy)]
struct Form {
    base64: bool,
    /// Channels can end.
    ends: bool,
}

/// Serves a connection that HTTP has handed over, until [`Outgoing::End`]. `channels`: those that the client sends on;
/// what it sends on others is dropped.
pub async fn open<T>(io: T, chosen: &Chosen, channels: &[u32], activity: Arc<Activity>) -> Connection
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (write, read) = accept(io).await.split();
    let (out, queue) = mpsc::channel(QUEUE);
    let form = Form { base64: chosen.base64, ends: chosen.version >= 5 };
    let (inboxes, sources) = channels
        .iter()
        .map(|channel| {
            let (inbox, source) = incoming(*channel, out.clone());
            ((*channel, inbox), source)
        })
        .unzip();
    let mut reading = tokio::spawn(read_all(read, inboxes, form, activity.clone()));
    let done = tokio::spawn(async move {
        let written = write_all(write, queue, form, &activity).await;
        // The client goes first: closing before it has read everything could take the last of it away.
        if written.is_err() || tokio::time::timeout(LINGER, &mut reading).await.is_err() {
            reading.abort();
        }
        activity.end();
    });
    Connection { sources, out, done }
}

/// The server's side of a connection that HTTP has handed over.
pub(super) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

async fn read_all<T>(
    mut socket: SplitStream<WebSocketStream<T>>,
    mut inboxes: HashMap<u32, Inbox>,
    form: Form,
    activity: Arc<Activity>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        let message = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) => break,
            Err(Error::ConnectionClosed) => break,
            Err(error) => {
                activity.fail(format!("the WebSocket broke: {error}"));
                break;
            }
        };
        activity.touch();
        match form.decode(&message) {
            Ok(Incoming::Data(channel, data)) => {
                let Some(inbox) = inboxes.get(&channel) else { continue };
                for piece in data.chunks(PIECE) {
                    while !inbox.push(piece) {
                        inbox.room(piece.len()).await;
                    }
                }
            }
            Ok(Incoming::End(channel)) => drop(inboxes.remove(&channel)),
            Err(BadMessage) => {
                activity.fail(BadMessage.to_string());
                break;
            }
        }
    }
    activity.end();
}

async fn write_all<T>(
    mut socket: SplitSink<WebSocketStream<T>, Message>,
    mut queue: mpsc::Receiver<Outgoing>,
    form: Form,
    activity: &Activity,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(next) = queue.recv().await {
        match next {
            Outgoing::Data { channel, data } => {
                activity.touch();
                socket.send(form.encode(channel, &data)).await?;
            }
            Outgoing::End { .. } => {
                let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return socket.send(Message::Close(Some(close))).await;
            }
            // There is no word for these: a client learns of the end from the status.
            Outgoing::Close { .. } | Outgoing::Taken { .. } | Outgoing::Raw(_) => {}
        }
    }
    Ok(())
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
enum Incoming {
    Data(u32, Bytes),
    End(u32),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WebSocket message without a channel, or with bad base64")]
struct BadMessage;

impl Form {
    fn decode(self, message: &Bytes) -> Result<Incoming, BadMessage> {
        // Nothing about nothing; some clients send it to keep the connection alive.
        let Some(first) = message.first().copied() else { return Ok(Incoming::Data(u32::MAX, Bytes::new())) };
        let data = message.slice(1..);
        if self.base64 {
            let channel = (first as char).to_digit(10).ok_or(BadMessage)?;
            let data = STANDARD.decode(&data).map_err(|_| BadMessage)?;
            return Ok(Incoming::Data(channel, data.into()));
        }
        if self.ends && first == ENDED {
            return data.first().map(|channel| Incoming::End(u32::from(*channel))).ok_or(BadMessage);
        }
        Ok(Incoming::Data(u32::from(first), data))
    }

    fn encode(self, channel: u32, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let number = u8::try_from(channel).unwrap_or(ENDED);
        Message::binary([&[number][..], data].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_three_forms() {
        let data = |channel, data: &'static str| Ok(Incoming::Data(channel, Bytes::from_static(data.as_bytes())));
        let bytes = |data: &'static [u8]| Bytes::from_static(data);
        let (old, five) = (Form { base64: false, ends: false }, Form { base64: false, ends: true });
        let base64 = Form { base64: true, ends: true };
        assert_eq!(old.decode(&bytes(b"\0in")), data(0, "in"));
        assert_eq!(old.decode(&bytes(&[255, 0])), data(255, "\0"));
        assert_eq!(five.decode(&bytes(&[255, 0])), Ok(Incoming::End(0)));
        assert_eq!(five.decode(&bytes(&[255])), Err(BadMessage));
        assert_eq!(five.decode(&Bytes::new()), data(u32::MAX, ""));
        assert_eq!(base64.decode(&bytes(b"0aW4=")), data(0, "in"));
        assert_eq!(base64.decode(&bytes(b"0?")), Err(BadMessage));
        assert_eq!(base64.decode(&bytes(b"xaW4=")), Err(BadMessage));
        assert_eq!(old.encode(1, b"out"), Message::binary(&b"\x01out"[..]));
        assert_eq!(base64.encode(1, b"out"), Message::text("1b3V0"));
    }
}
