//! Decompression and hashing on one thread, writing on another.
//!
//! The reading thread fills chunks and hashes them; the writing thread takes entries out of them without another copy.
//! Chunks go round, so that memory stays at [`DEPTH`] + 2 of them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use super::Applied;
use crate::domain::Digest;

/// Bytes of a chunk.
const CHUNK: usize = 1 << 20;
/// Chunks that may wait for the writing thread.
const DEPTH: usize = 4;

/// The writing thread's end.
pub(super) struct Chunks {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    /// Read so far of the chunk.
    at: usize,
    /// Read so far of the stream, bytes.
    position: u64,
}

/// The reading thread's answer: what went through, if it went to the end.
pub(super) type Whole<'scope> = ScopedJoinHandle<'scope, Option<Applied>>;

/// Starts the reading thread.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    reader: &'scope mut (dyn Read + Send),
) -> (Chunks, Whole<'scope>) {
    let (send_full, full) = sync_channel(DEPTH);
    let (empty, take_empty) = channel();
    let thread = scope.spawn(move || read_all(reader, &send_full, &take_empty));
    (Chunks { full, empty, chunk: Vec::new(), at: 0, position: 0 }, thread)
}

fn read_all(
    reader: &mut (dyn Read + Send),
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Option<Applied> {
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        chunk.resize(CHUNK, 0);
        let mut length = 0;
        // A pipe or a decoder gives little at a time.
        while length < CHUNK {
            match reader.read(&mut chunk[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let _ = full.send(Err(e));
                    return None;
                }
            }
        }
        if length == 0 {
            return Some(Applied { digest: Digest::from_hash(&hash.finalize()), size });
        }
        chunk.truncate(length);
        hash.update(&chunk);
        size += length as u64;
        // The writer has given up.
        full.send(Ok(chunk)).ok()?;
    }
}

impl Chunks {
    /// Bytes of the stream before what [`Chunks::peek`] gives.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is at hand; empty only at the end.
    pub fn peek(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            let next = match self.full.recv() {
                Ok(next) => next?,
                Err(_) => Vec::new(),
            };
            // The reader may be gone.
            let _ = self.empty.send(std::mem::replace(&mut self.chunk, next));
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    /// Goes on by `length` bytes of what was given.
    pub fn consume(&mut self, length: usize) {
        self.at += length;
        self.position += length as u64;
    }

    /// Fills `buffer`; answers how much of it, which is less only at the end.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at_hand = self.peek()?;
            if at_hand.is_empty() {
                break;
            }
            let length = at_hand.len().min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&at_hand[..length]);
            self.consume(length);
            filled += length;
        }
        Ok(filled)
    }

    /// Reads to the end.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let length = self.peek()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }
}
