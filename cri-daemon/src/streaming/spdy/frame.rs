//! Frames of SPDY/3.1: read from bytes as they come, and written.
//!
//! ```text
//!  control:  1 | version 15 | type 16 | flags 8 | length 24 | …      data:  0 | stream 31 | flags 8 | length 24 | …
//! ```
//!
//! A control frame is held whole, up to [`LARGEST`]; data is handed on in pieces of at most [`PIECE`] bytes, whatever
//! length its frame announces; frames of unknown types are skipped. So what is held at a time is bounded, and nothing
//! is allocated because a peer has announced it. After an error the decoder must not be used again: header blocks
//! build on each other.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::headers::{self, HeaderError, Headers};
use crate::streaming::channel::PIECE;

/// Bytes of a control frame, at most.
pub const LARGEST: usize = 16 << 10;
const VERSION: u16 = 3;
const HEADER: usize = 8;
const FIN: u8 = 1;
const STREAM: u32 = 0x7fff_ffff;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW: u32 = 7;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    FlowControl = 7,
    InUse = 8,
}

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    /// Id and value.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        by: u32,
    },
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
}

/// Bytes that are no SPDY/3.1. The connection ends then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a control frame of SPDY version {0}; this is version 3")]
    Version(u16),
    #[error("a control frame of type {kind} with {length} bytes; {LARGEST} are the most")]
    TooLarge { kind: u16, length: usize },
    #[error("a control frame of type {kind} with {length} bytes is too short or too long for what it says")]
    Length { kind: u16, length: usize },
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

#[derive(Debug, Clone, Copy)]
enum Rest {
    Data { stream: u32, fin: bool, left: usize },
    Skip(usize),
}

/// Reads frames.
#[derive(Default)]
pub struct Decoder {
    headers: headers::Reader,
    rest: Option<Rest>,
}

impl Decoder {
    /// Takes the next frame out of `buffer`; `None`: more bytes are needed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.rest.take() {
                Some(Rest::Skip(left)) => {
                    let skipped = left.min(buffer.len());
                    buffer.advance(skipped);
                    if skipped < left {
                        self.rest = Some(Rest::Skip(left - skipped));
                        return Ok(None);
                    }
                }
                Some(Rest::Data { stream, fin, left }) => return Ok(self.data(buffer, stream, fin, left)),
                None => {}
            }
            let Some((header, body)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
            let word = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            let flags = header[4];
            let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
            if word & !STREAM == 0 {
                buffer.advance(HEADER);
                self.rest = Some(Rest::Data { stream: word, fin: flags & FIN != 0, left: length });
                continue;
            }
            let (version, kind) = (((word >> 16) & 0x7fff) as u16, (word & 0xffff) as u16);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if !(kind::SYN_STREAM..=kind::WINDOW_UPDATE).contains(&kind) || kind == 5 {
                buffer.advance(HEADER);
                self.rest = Some(Rest::Skip(length));
                continue;
            }
            if length > LARGEST {
                return Err(FrameError::TooLarge { kind, length });
            }
            if body.len() < length {
                return Ok(None);
            }
            buffer.advance(HEADER);
            let body = buffer.split_to(length);
            return self.control(kind, flags & FIN != 0, &body).map(Some);
        }
    }

    /// The next piece of a data frame. Its last one carries the frame's end-of-stream flag.
    fn data(&mut self, buffer: &mut BytesMut, stream: u32, fin: bool, left: usize) -> Option<Frame> {
        if left > 0 && buffer.is_empty() {
            self.rest = Some(Rest::Data { stream, fin, left });
            return None;
        }
        let data = buffer.split_to(left.min(buffer.len()).min(PIECE)).freeze();
        let left = left - data.len();
        if left > 0 {
            self.rest = Some(Rest::Data { stream, fin, left });
        }
        Some(Frame::Data { stream, fin: fin && left == 0, data })
    }

    fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> Result<Frame, FrameError> {
        let wrong = || FrameError::Length { kind, length: body.len() };
        let number = |at: usize| {
            let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(wrong)?;
            Ok::<u32, FrameError>(u32::from_be_bytes(*bytes))
        };
        let exactly = |length: usize| if body.len() == length { Ok(()) } else { Err(wrong()) };
        let stream = || Ok::<u32, FrameError>(number(0)? & STREAM);
        match kind {
            kind::SYN_STREAM => {
                let block = body.get(10..).ok_or_else(wrong)?;
                Ok(Frame::SynStream { stream: stream()?, fin, headers: self.headers.read(block)? })
            }
            kind::SYN_REPLY | kind::HEADERS => {
                let stream = stream()?;
                let headers = self.headers.read(&body[4..])?;
                Ok(match kind {
                    kind::SYN_REPLY => Frame::SynReply { stream, fin, headers },
                    _ => Frame::Headers { stream, fin, headers },
                })
            }
            kind::RST_STREAM => exactly(8).and_then(|()| Ok(Frame::Reset { stream: stream()?, status: number(4)? })),
            kind::SETTINGS => {
                let count = number(0)? as usize;
                exactly(count.checked_mul(8).and_then(|n| n.checked_add(4)).ok_or_else(wrong)?)?;
                let entry = |index: usize| Ok((number(4 + index * 8)? & 0x00ff_ffff, number(8 + index * 8)?));
                Ok(Frame::Settings((0..count).map(entry).collect::<Result<_, FrameError>>()?))
            }
            kind::PING => exactly(4).and_then(|()| Ok(Frame::Ping(number(0)?))),
            kind::GOAWAY => exactly(8).and_then(|()| Ok(Frame::GoAway { last: stream()?, status: number(4)? })),
            kind::WINDOW_UPDATE => {
                exactly(8).and_then(|()| Ok(Frame::WindowUpdate { stream: stream()?, by: number(4)? & STREAM }))
            }
            // Skipped before.
            _ => Err(wrong()),
        }
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + body.len());
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | body.len() as u32 & 0x00ff_ffff);
    out.put_slice(body);
    out.freeze()
}

fn two(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
}

/// The header of a data frame; its `length` bytes follow.
pub fn data_header(stream: u32, fin: bool, length: usize) -> [u8; HEADER] {
    two(stream & STREAM, u32::from(fin) << 24 | length as u32 & 0x00ff_ffff)
}

pub fn syn_reply(stream: u32, block: &[u8]) -> Bytes {
    control(kind::SYN_REPLY, 0, &[&stream.to_be_bytes()[..], block].concat())
}

pub fn reset(stream: u32, why: Reset) -> Bytes {
    control(kind::RST_STREAM, 0, &two(stream, why as u32))
}

pub fn ping(id: u32) -> Bytes {
    control(kind::PING, 0, &id.to_be_bytes())
}

/// `last`: the last stream of the peer that was looked at. `broken`: the peer has broken the protocol.
pub fn go_away(last: u32, broken: bool) -> Bytes {
    control(kind::GOAWAY, 0, &two(last, u32::from(broken)))
}

pub fn window_update(stream: u32, by: u32) -> Bytes {
    control(kind::WINDOW_UPDATE, 0, &two(stream, by & STREAM))
}

#[cfg(test)]
mod tests;
