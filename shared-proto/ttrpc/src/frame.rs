//! Frames: a header of ten bytes and the data.
//!
//! ```text
//! length of the data  u32, big endian
//! stream id           u32, big endian; odd, as only clients open streams
//! type                u8: 1 request, 2 response, 3 data of a stream
//! flags               u8: 1 the sender sends no more, 2 it will, 4 there is no data
//! ```
//!
//! A frame that is too large is skipped, not read: its stream fails, the connection goes on.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::FrameError;

/// The largest data of one frame, bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Length of the header, bytes.
pub const HEADER: usize = 10;

/// Flag: the sender will send more on this stream. In a request it asks for a stream.
pub const REMOTE_OPEN: u8 = 2;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Data,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
        }
    }

    fn from_number(number: u8) -> Result<Self, FrameError> {
        match number {
            1 => Ok(Kind::Request),
            2 => Ok(Kind::Response),
            3 => Ok(Kind::Data),
            _ => Err(FrameError::UnknownType(number)),
        }
    }
}

/// One frame as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: Kind,
    pub flags: u8,
    /// The data, or its length when that was beyond [`MAX_MESSAGE`] and was skipped.
    pub data: Result<Bytes, usize>,
}

/// Writes a frame around a message; `Err` is the length of one that is too large.
pub(crate) fn encode(stream: u32, kind: Kind, message: &impl prost::Message) -> Result<Bytes, usize> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE {
        return Err(length);
    }
    let mut frame = BytesMut::with_capacity(HEADER + length);
    frame.put_u32(length as u32);
    frame.put_u32(stream);
    frame.put_u8(kind.number());
    frame.put_u8(0);
    message.encode(&mut frame).expect("the buffer has the encoded length");
    Ok(frame.freeze())
}

/// Sets the stream of an encoded frame: it is known only when the frame is queued.
pub(crate) fn with_stream(frame: Bytes, stream: u32) -> Bytes {
    let mut frame = BytesMut::from(frame);
    frame[4..8].copy_from_slice(&stream.to_be_bytes());
    frame.freeze()
}

/// Takes frames off a connection. [`Reader::next`] may be dropped at any await: what was read is kept.
pub(crate) struct Reader<R> {
    input: R,
    buffer: BytesMut,
    /// A header that was read, with its length; its data is still coming.
    header: Option<(usize, Frame)>,
    /// Bytes of a too large frame that are still to be skipped.
    skip: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new(), header: None, skip: 0 }
    }

    /// The next frame; `None` when the peer closed the connection between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            let missing = match &self.header {
                Some((length, _)) => (*length).min(64 << 10),
                None => 512,
            };
            self.buffer.reserve(missing);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                let clean = self.buffer.is_empty() && self.header.is_none() && self.skip == 0;
                return if clean { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// A frame out of what is in the buffer, if it is whole.
    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        if self.header.is_none() {
            if self.buffer.len() < HEADER {
                return Ok(None);
            }
            let length = self.buffer.get_u32() as usize;
            let stream = self.buffer.get_u32();
            let kind = Kind::from_number(self.buffer.get_u8())?;
            let flags = self.buffer.get_u8();
            if length > MAX_MESSAGE {
                self.skip = length;
                return Ok(Some(Frame { stream, kind, flags, data: Err(length) }));
            }
            self.header = Some((length, Frame { stream, kind, flags, data: Ok(Bytes::new()) }));
        }
        match self.header.take() {
            Some((length, mut frame)) if self.buffer.len() >= length => {
                frame.data = Ok(self.buffer.split_to(length).freeze());
                Ok(Some(frame))
            }
            unfinished => {
                self.header = unfinished;
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::message::Request;

    fn request(payload: usize) -> Request {
        Request { service: "s".into(), method: "m".into(), payload: vec![7; payload].into(), ..Request::default() }
    }

    #[tokio::test]
    async fn frames_survive_any_split() {
        let (mut sender, receiver) = tokio::io::duplex(1);
        let mut bytes = Vec::new();
        for stream in [1, 3, 5] {
            bytes.extend_from_slice(&encode(stream, Kind::Request, &request(300)).unwrap());
        }
        tokio::spawn(async move { sender.write_all(&bytes).await });
        let mut reader = Reader::new(receiver);
        for stream in [1, 3, 5] {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!((frame.stream, frame.kind, frame.flags), (stream, Kind::Request, 0));
            let decoded: Request = prost::Message::decode(frame.data.unwrap()).unwrap();
            assert_eq!(decoded, request(300));
        }
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_that_is_too_large_costs_only_itself() {
        let (mut sender, receiver) = tokio::io::duplex(64 << 10);
        let next = encode(3, Kind::Request, &request(1)).unwrap();
        tokio::spawn(async move {
            let mut header = Vec::new();
            header.extend_from_slice(&(MAX_MESSAGE as u32 + 1).to_be_bytes());
            header.extend_from_slice(&[0, 0, 0, 1, 1, 0]);
            sender.write_all(&header).await.unwrap();
            sender.write_all(&vec![0; MAX_MESSAGE + 1]).await.unwrap();
            sender.write_all(&next).await.unwrap();
        });
        let mut reader = Reader::new(receiver);
        assert_eq!(reader.next().await.unwrap().unwrap().data, Err(MAX_MESSAGE + 1));
        assert_eq!(reader.next().await.unwrap().unwrap().stream, 3);
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        let frame = encode(1, Kind::Request, &request(10)).unwrap();
        for cut in [1, HEADER, frame.len() - 1] {
            let mut reader = Reader::new(&frame[..cut]);
            assert!(matches!(reader.next().await, Err(FrameError::Truncated)), "{cut}");
        }
        assert!(encode(1, Kind::Request, &request(MAX_MESSAGE)).is_err());
    }
}
