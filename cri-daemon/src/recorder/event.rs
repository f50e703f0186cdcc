//! What the side of the calls tells the side of the file.

use super::format::Cut;
use super::frames::Frame;

/// What happened to a call.
pub enum Event {
    /// A call that answers a stream, and its request.
    Opened(Ended, Frame),
    /// One message of it.
    Answered {
        seq: u64,
        at_ns: u64,
        frame: Frame,
    },
    Ended(Ended),
}

/// A call as far as it was seen.
#[derive(Default)]
pub struct Ended {
    pub seq: u64,
    pub method: String,
    pub start_ns: u64,
    pub took_ns: u64,
    pub deadline_ms: Option<u64>,
    pub status: Option<(tonic::Code, String)>,
    pub cut: Option<Cut>,
    pub request: Option<Frame>,
    pub response: Option<Frame>,
    pub responses: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl Ended {
    /// The same call at its begin.
    pub fn without_answer(&self) -> Self {
        let Self { seq, start_ns, deadline_ms, request_bytes, .. } = *self;
        Self { seq, method: self.method.clone(), start_ns, deadline_ms, request_bytes, ..Default::default() }
    }
}

impl Event {
    /// The bytes of the messages in it.
    pub fn bytes(&self) -> u64 {
        let length = |frame: &Option<Frame>| frame.as_ref().map_or(0, |frame| frame.length as u64);
        match self {
            Self::Opened(_, frame) | Self::Answered { frame, .. } => frame.length as u64,
            Self::Ended(call) => length(&call.request) + length(&call.response),
        }
    }
}
