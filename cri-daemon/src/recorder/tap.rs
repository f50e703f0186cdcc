//! Looks at one call while it goes through: copies its bytes, notes its times and how it ended.
//!
//! [`begin`](Call::begin) makes the two ends of a call: [`Tapped`] bodies that pass on every frame as it is, and tell
//! what they saw. A call has ended when its trailers have been seen, or when whoever held the response let go of it:
//! the client then, unless the target's connection broke or the recording ended. It is told once, and whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame as HttpFrame, SizeHint};
use tonic::Status;

use super::event::{Ended, Event};
use super::format::Cut;
use super::frames::{Frame, Frames};
use super::journal::Journal;
use super::messages;

/// A call that is under way. Dropping it ends it.
pub struct Call(Arc<Mutex<State>>);

struct State {
    journal: Journal,
    streams: bool,
    started: Instant,
    request: Frames,
    response: Frames,
    /// What is known so far; gone when it was told.
    open: Option<Ended>,
}

/// What the request and the answer go through.
pub struct Tapped<B> {
    inner: B,
    tap: Tap,
}

enum Tap {
    Request(Arc<Mutex<State>>),
    Response(Call),
}

impl Call {
    /// A call of `method` begins now.
    pub fn begin<B>(journal: &Journal, method: &str, headers: &HeaderMap, body: B) -> (Self, Tapped<B>) {
        let (seq, start_ns) = journal.next();
        let open =
            Ended { seq, method: method.to_owned(), start_ns, deadline_ms: deadline_ms(headers), ..Default::default() };
        let state = State {
            streams: messages::method(method).is_some_and(|method| method.streams),
            started: Instant::now(),
            request: Frames::new(journal.room()),
            response: Frames::new(journal.room()),
            journal: journal.clone(),
            open: Some(open),
        };
        let shared = Arc::new(Mutex::new(state));
        (Self(shared.clone()), Tapped { inner: body, tap: Tap::Request(shared) })
    }

    /// The answer begins. One without a body has its status here.
    pub fn answers<B: Body>(self, status: http::StatusCode, headers: &HeaderMap, body: B) -> Tapped<B> {
        if let Some(status) = Status::from_header_map(headers) {
            self.end(Ok(&status));
        } else if status != http::StatusCode::OK {
            self.end(Ok(&Status::unknown(format!("HTTP status {}", status.as_u16()))));
        }
        Tapped { inner: body, tap: Tap::Response(self) }
    }

    /// The target can't be asked any more.
    pub fn target_is_gone(self) {
        self.end(Err(Cut::Target));
    }

    fn end(&self, how: Result<&Status, Cut>) {
        locked(&self.0).end(how);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = locked(&self.0);
        let cut = if state.journal.is_ending() { Cut::Recorder } else { Cut::Client };
        state.end(Err(cut));
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing in here panics half-way.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    fn request_bytes(&mut self, data: &[u8]) {
        let Some(open) = &mut self.open else { return };
        let (journal, streams) = (&self.journal, self.streams);
        self.request.push(data, |frame| {
            open.request_bytes += frame.length as u64;
            if streams {
                journal.tell(Event::Opened(open.without_answer(), frame));
            } else if open.request.is_none() {
                open.request = Some(frame);
            }
        });
    }

    fn response_bytes(&mut self, data: &[u8]) {
        let Some(open) = &mut self.open else { return };
        let (journal, streams) = (&self.journal, self.streams);
        self.response.push(data, |frame: Frame| {
            open.responses += 1;
            open.response_bytes += frame.length as u64;
            if streams {
                journal.tell(Event::Answered { seq: open.seq, at_ns: journal.now(), frame });
            } else if open.response.is_none() {
                open.response = Some(frame);
            }
        });
    }

    fn end(&mut self, how: Result<&Status, Cut>) {
        let Some(mut open) = self.open.take() else { return };
        open.took_ns = self.started.elapsed().as_nanos() as u64;
        match how {
            Ok(status) => open.status = Some((status.code(), status.message().to_owned())),
            Err(cut) => open.cut = Some(cut),
        }
        self.journal.tell(Event::Ended(open));
    }
}

/// `grpc-timeout`: digits and a unit.
fn deadline_ms(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => value.checked_mul(3_600_000),
        "M" => value.checked_mul(60_000),
        "S" => value.checked_mul(1000),
        "m" => Some(value),
        "u" => Some(value.div_ceil(1000)),
        "n" => Some(value.div_ceil(1_000_000)),
        _ => None,
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tapped<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match (&self.tap, &frame) {
            (Tap::Request(state), Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    locked(state).request_bytes(data);
                }
            }
            (Tap::Response(call), Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    locked(&call.0).response_bytes(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    let missing = || Status::unknown("the target answered no status");
                    call.end(Ok(&Status::from_header_map(trailers).unwrap_or_else(missing)));
                }
            }
            (Tap::Response(call), Some(Err(_)) | None) => call.end(Err(Cut::Target)),
            (Tap::Request(_), Some(Err(_)) | None) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_in_every_unit() {
        let of =
            |text: &str| deadline_ms(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]));
        let known = [("2M", 120_000), ("3S", 3000), ("250m", 250), ("1500u", 2), ("1n", 1), ("1H", 3_600_000)];
        for (text, ms) in known {
            assert_eq!(of(text), Some(ms), "{text}");
        }
        for odd in ["", "5", "M", "xS", "99999999999999999999S"] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(deadline_ms(&HeaderMap::new()), None);
    }
}
