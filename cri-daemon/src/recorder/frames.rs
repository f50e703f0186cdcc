//! Cuts the body of a gRPC call into its messages: a byte of flags, four bytes of length, the message.
//!
//! What is seen here is a copy of what goes through; nothing is held up. A message above [`MAX_MESSAGE`] and one for
//! which there is no room (see [`Room`]) are counted and not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared_proto::transport::MAX_MESSAGE;

const PREFIX: usize = 5;

/// The memory that recorded bytes may take until they are written.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    taken: AtomicUsize,
}

impl Room {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, taken: AtomicUsize::new(0) }))
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= self.0.limit);
        self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A message that went through. Its room is free again when it is dropped.
#[derive(Debug)]
pub struct Frame {
    pub compressed: bool,
    pub length: usize,
    /// None when it was not kept.
    bytes: Option<Vec<u8>>,
    room: Room,
}

impl Frame {
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.bytes.is_some() {
            self.room.give_back(self.length);
        }
    }
}

/// The messages of one direction of a call.
#[derive(Debug)]
pub struct Frames {
    room: Room,
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    seen: usize,
    open: Option<Frame>,
    /// Bytes of the open message that are still to come.
    missing: usize,
}

impl Frames {
    pub fn new(room: Room) -> Self {
        Self { room, prefix: [0; PREFIX], seen: 0, open: None, missing: 0 }
    }

    /// Takes the next bytes of the body; gives the messages that they end.
    pub fn push(&mut self, mut data: &[u8], mut ended: impl FnMut(Frame)) {
        loop {
            match self.open.take() {
                None => {
                    let now = data.len().min(PREFIX - self.seen);
                    self.prefix[self.seen..self.seen + now].copy_from_slice(&data[..now]);
                    (self.seen, data) = (self.seen + now, &data[now..]);
                    if self.seen < PREFIX {
                        return;
                    }
                    self.seen = 0;
                    self.begin();
                }
                Some(mut frame) => {
                    let now = data.len().min(self.missing);
                    if let Some(bytes) = &mut frame.bytes {
                        bytes.extend_from_slice(&data[..now]);
                    }
                    (self.missing, data) = (self.missing - now, &data[now..]);
                    if self.missing > 0 {
                        self.open = Some(frame);
                        return;
                    }
                    ended(frame);
                }
            }
        }
    }

    fn begin(&mut self) {
        let [flags, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length) as usize;
        let kept = length <= MAX_MESSAGE && self.room.take(length);
        // No more than what has come is allocated: the length is only what the other side says.
        let bytes = kept.then(Vec::new);
        self.missing = length;
        self.open = Some(Frame { compressed: flags & 1 == 1, length, bytes, room: self.room.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(messages: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for message in messages {
            body.push(0);
            body.extend_from_slice(&(message.len() as u32).to_be_bytes());
            body.extend_from_slice(message);
        }
        body
    }

    #[test]
    fn however_the_bytes_come() {
        let body = body(&[b"one", b"", b"three"]);
        for step in 1..=body.len() {
            let (mut frames, mut seen) = (Frames::new(Room::new(100)), Vec::new());
            for chunk in body.chunks(step) {
                frames.push(chunk, |frame| seen.push(frame.bytes().unwrap().to_vec()));
            }
            assert_eq!(seen, [&b"one"[..], b"", b"three"], "by {step}");
        }
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let room = Room::new(6);
        let (mut frames, mut seen) = (Frames::new(room.clone()), Vec::new());
        frames.push(&body(&[b"four", b"four", b"2b"]), |frame| seen.push(frame));
        let kept: Vec<_> = seen.iter().map(|frame| (frame.length, frame.bytes().is_some())).collect();
        assert_eq!(kept, [(4, true), (4, false), (2, true)]);
        drop(seen);
        frames.push(&body(&[b"6bytes"]), |frame| assert!(frame.bytes().is_some(), "the room is free again"));
        // A length that nobody can mean.
        let mut frames = Frames::new(Room::new(usize::MAX));
        frames.push(&[1, 255, 255, 255, 255, 0], |_| panic!("it has not ended"));
        let open = frames.open.as_ref().unwrap();
        assert!(open.compressed && open.bytes().is_none());
        drop(frames);
        assert_eq!(room.0.taken.load(Ordering::Relaxed), 0);
    }
}
