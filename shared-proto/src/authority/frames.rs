//! The client's bytes, frame by frame: finds header blocks and has them judged.
//!
//! ```text
//! Preface ──▶ Frame ──other frame──▶ Skip ──▶ Frame
//!    │          └──HEADERS──▶ Block ──mended──▶ Frame         (and so on, for as long as the connection lasts)
//!    │                          └──first block fine──▶ Through
//!    └──not HTTP/2──▶ Through                                  (bytes pass unread from here on)
//! ```
//!
//! A client whose first request is readable is never looked at again. The others stay watched: even when the bad value
//! went into HPACK's dynamic table, the client sends it anew once other entries have driven it out (a Go client with
//! deadlines, whose `grpc-timeout` is a new entry in each call, does so every 75 calls or so).

use super::block::{Block, HEAD, HEADERS, Head, Parsed};
use super::hpack::{self, Verdict};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Header blocks beyond this are passed on unjudged: servers refuse far smaller ones.
const MAX_BLOCK: usize = 128 << 10;

/// Turns what the client sent into what the server may read.
pub(super) struct Filter {
    state: State,
    /// A bad value was seen: later blocks are judged too.
    watched: bool,
    /// Bytes received that are not decided on.
    undecided: Vec<u8>,
}

enum State {
    Preface,
    Frame,
    /// Inside a frame that is no header block, with so many bytes to go.
    Skip(usize),
    Block,
    Through,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self { state: State::Preface, watched: false, undecided: Vec::new() }
    }

    /// Whether nothing that follows needs to be looked at.
    pub(super) fn is_through(&self) -> bool {
        matches!(self.state, State::Through)
    }

    /// Takes received bytes and appends to `out` what can be passed on.
    pub(super) fn push(&mut self, received: &[u8], out: &mut Vec<u8>) {
        self.undecided.extend_from_slice(received);
        while self.step(out) {}
    }

    /// The client has closed its side: gives out what is left, cut as it is.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.state = State::Through;
        out.append(&mut self.undecided);
    }

    /// One transition; `false` when more bytes are needed.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        let available = self.undecided.len();
        match self.state {
            State::Preface => {
                let known = available.min(PREFACE.len());
                if self.undecided[..known] != PREFACE[..known] {
                    self.state = State::Through;
                    return true;
                }
                if known < PREFACE.len() {
                    return false;
                }
                self.pass(known, out);
                self.state = State::Frame;
                true
            }
            State::Frame => {
                let Some(head) = Head::parse(&self.undecided) else { return false };
                self.state = if head.kind == HEADERS { State::Block } else { State::Skip(HEAD + head.length) };
                true
            }
            State::Skip(left) => {
                let now = left.min(available);
                self.pass(now, out);
                self.state = if now == left { State::Frame } else { State::Skip(left - now) };
                now == left
            }
            State::Block => match Block::parse(&self.undecided) {
                Parsed::NeedMore if available > MAX_BLOCK => {
                    self.state = State::Through;
                    true
                }
                Parsed::NeedMore => false,
                Parsed::Malformed => {
                    self.state = State::Through;
                    true
                }
                Parsed::Whole(block) => {
                    match hpack::mend(&block.fragments) {
                        Verdict::Fine if self.watched => {
                            self.pass(block.length, out);
                            self.state = State::Frame;
                        }
                        Verdict::Fine => self.state = State::Through,
                        Verdict::Mended(fragments) => {
                            block.write(&fragments, out);
                            self.undecided.drain(..block.length);
                            self.watched = true;
                            self.state = State::Frame;
                        }
                    }
                    true
                }
            },
            State::Through => {
                out.append(&mut self.undecided);
                false
            }
        }
    }

    fn pass(&mut self, bytes: usize, out: &mut Vec<u8>) {
        out.extend(self.undecided.drain(..bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{CONTINUATION, END_HEADERS, END_STREAM, PADDED, PRIORITY};
    use super::*;

    const GOOD: &[u8] = b"\x83\x86\x41\x09localhost\x84";
    const RAW: &[u8] = b"\x83\x86\x41\x0b/run/x.sock\x84";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Head { length: payload.len(), kind, flags, stream: [0, 0, 0, 1] }.write(&mut out);
        out.extend_from_slice(payload);
        out
    }

    /// Preface, SETTINGS, WINDOW_UPDATE, PING, PRIORITY: whatever may come before the first request.
    fn opening() -> Vec<u8> {
        let frames = [frame(4, 0, &[0; 6]), frame(8, 0, &[0, 0, 1, 0]), frame(6, 0, &[0; 8]), frame(2, 0, &[0; 5])];
        [PREFACE, &frames.concat()].concat()
    }

    /// Feeds `input` in pieces of each size: the result must not depend on how reads cut it.
    fn filter(input: &[u8]) -> (Vec<u8>, bool) {
        let mut results = [1, 2, 7, 9, 24, 1 << 20].map(|size| {
            let (mut filter, mut out) = (Filter::new(), Vec::new());
            input.chunks(size).for_each(|piece| filter.push(piece, &mut out));
            let through = filter.is_through();
            filter.finish(&mut out);
            (out, through)
        });
        results.iter().for_each(|result| assert_eq!(*result, results[0]));
        std::mem::take(&mut results[0])
    }

    #[test]
    fn a_good_first_request_ends_the_watch() {
        let input = [opening(), frame(HEADERS, END_HEADERS, GOOD), frame(HEADERS, END_HEADERS, RAW)].concat();
        assert_eq!(filter(&input), (input, true));
    }

    #[test]
    fn a_bad_one_is_mended_and_so_are_those_that_follow() {
        let data = frame(0, 1, &[7; 300]);
        let request = |fields| [frame(HEADERS, END_HEADERS, fields), data.clone()].concat();
        let input = [opening(), request(RAW), request(GOOD), request(RAW)].concat();
        assert_eq!(filter(&input), ([opening(), request(GOOD), request(GOOD), request(GOOD)].concat(), false));
    }

    #[test]
    fn padding_priority_and_continuations_are_understood() {
        let padded = [&[3][..], &[0, 0, 0, 0, 15], &RAW[..4], &[0; 3]].concat();
        let input = [
            opening(),
            frame(HEADERS, PADDED | PRIORITY | END_STREAM, &padded),
            frame(CONTINUATION, 0, &RAW[4..9]),
            frame(CONTINUATION, END_HEADERS, &RAW[9..]),
        ];
        let mended = [&[0, 0, 0, 0, 15], GOOD].concat();
        let mended = frame(HEADERS, PRIORITY | END_STREAM | END_HEADERS, &mended);
        assert_eq!(filter(&input.concat()), ([opening(), mended].concat(), false));
    }

    #[test]
    fn anything_else_passes() {
        for input in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1", PREFACE, b"", &opening()[..40]] {
            assert_eq!(filter(input).0, input);
        }
        let malformed = [opening(), frame(HEADERS, PADDED, &[200, 1]), frame(HEADERS, 0, RAW), frame(0, 0, b"x")];
        for end in 2..=malformed.len() {
            let input = malformed[..end].concat();
            assert_eq!(filter(&input).0, input);
        }
    }

    #[test]
    fn a_block_without_end_is_not_collected_for_ever() {
        let mut filter = Filter::new();
        let mut out = Vec::new();
        filter.push(&[opening(), frame(HEADERS, 0, RAW)].concat(), &mut out);
        while !filter.is_through() {
            filter.push(&frame(CONTINUATION, 0, &[0x82; 1000]), &mut out);
            assert!(filter.undecided.len() < MAX_BLOCK + 2000);
        }
    }
}
