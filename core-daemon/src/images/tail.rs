//! A blob that can be read while it is still being fetched.
//!
//! The one who fetches says how far the file has grown; readers follow, and wait at its end. Nothing is kept in
//! memory: a slow reader delays nobody, and one that comes late reads from the beginning. Bytes that turn out wrong
//! start a new generation: readers of the old one fail, and begin again.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The shared state of a blob on its way; cheap to clone.
#[derive(Clone)]
pub struct Tail(Arc<watch::Sender<State>>);

#[derive(Clone)]
struct State {
    generation: u32,
    file: Option<Arc<File>>,
    /// Bytes of the file that are there.
    written: u64,
    phase: Phase,
}

/// How far a generation of the blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Growing,
    /// All there, and its digest is right.
    Complete,
    /// Will never be complete.
    Stopped,
}

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was read is right.
    Complete,
    /// What was read is worthless; a new generation has begun.
    Restarted,
    Stopped,
}

impl Default for Tail {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State { generation: 0, file: None, written: 0, phase: Phase::Growing })))
    }
}

impl Tail {
    /// The file has this many bytes so far.
    pub fn grow(&self, file: &Arc<File>, written: u64) {
        self.0.send_modify(|state| {
            state.file.get_or_insert_with(|| file.clone());
            state.written = written;
        });
    }

    /// The bytes so far are wrong.
    pub fn restart(&self) {
        self.0.send_modify(|state| {
            *state = State { generation: state.generation + 1, file: None, written: 0, phase: Phase::Growing };
        });
    }

    /// The blob is all there, and right.
    pub fn complete(&self, file: &Arc<File>, size: u64) {
        self.0.send_modify(|state| {
            state.file.get_or_insert_with(|| file.clone());
            (state.written, state.phase) = (size, Phase::Complete);
        });
    }

    /// Nothing more will come. A blob that is complete stays so.
    pub fn stop(&self) {
        self.0.send_modify(|state| {
            if state.phase != Phase::Complete {
                state.phase = Phase::Stopped;
            }
        });
    }

    /// Waits for the first bytes.
    pub async fn started(&self) {
        let begun = |state: &State| state.file.is_some() || state.phase != Phase::Growing;
        // Can't fail: we hold the sender.
        let _ = self.0.subscribe().wait_for(begun).await;
    }

    /// Reads the current generation from its beginning, until `stop` is cancelled. For blocking threads.
    pub fn reader(&self, stop: &CancellationToken) -> TailReader {
        let states = self.0.subscribe();
        let generation = states.borrow().generation;
        TailReader { states, generation, position: 0, stop: stop.clone(), runtime: Handle::current() }
    }

    /// Waits until it is known what became of this generation.
    pub async fn outcome(&self, generation: u32) -> Outcome {
        let settled = |state: &State| state.generation != generation || state.phase != Phase::Growing;
        match self.0.subscribe().wait_for(settled).await {
            Ok(state) if state.generation != generation => Outcome::Restarted,
            Ok(state) if state.phase == Phase::Complete => Outcome::Complete,
            Ok(_) | Err(_) => Outcome::Stopped,
        }
    }
}

/// See [`Tail::reader`].
pub struct TailReader {
    states: watch::Receiver<State>,
    generation: u32,
    position: u64,
    stop: CancellationToken,
    runtime: Handle,
}

impl TailReader {
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

impl Read for TailReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            let state = self.states.borrow_and_update().clone();
            if state.generation != self.generation {
                return Err(io::Error::other("the blob's bytes were wrong and are fetched again"));
            }
            match (&state.file, state.phase) {
                (_, Phase::Stopped) => return Err(io::Error::other("the blob is not fetched any more")),
                (Some(file), _) if self.position < state.written => {
                    let most = (state.written - self.position).min(buffer.len() as u64) as usize;
                    let read = file.read_at(&mut buffer[..most], self.position)?;
                    self.position += read as u64;
                    return Ok(read);
                }
                (_, Phase::Complete) => return Ok(0),
                (_, Phase::Growing) => {}
            }
            let (runtime, states, stop) = (&self.runtime, &mut self.states, &self.stop);
            let more = runtime.block_on(async {
                tokio::select! {
                    more = states.changed() => more.map_err(|_| io::Error::other("the blob was given up")),
                    () = stop.cancelled() => Ok(()),
                }
            });
            more?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_reader_follows_the_writer() {
        let tail = Tail::default();
        let mut reader = tail.reader(&CancellationToken::new());
        let read = tokio::spawn(shared_sys::blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        }));
        let mut writer = tempfile::tempfile().unwrap();
        let file = Arc::new(writer.try_clone().unwrap());
        for n in 1..=100u64 {
            writer.write_all(&[n as u8]).unwrap();
            tail.grow(&file, n);
            tokio::task::yield_now().await;
        }
        tail.complete(&file, 100);
        assert_eq!(read.await.unwrap().unwrap(), (1..=100).collect::<Vec<u8>>());
        assert_eq!(tail.outcome(0).await, Outcome::Complete);
    }

    #[tokio::test]
    async fn readers_of_wrong_bytes_begin_again() {
        let tail = Tail::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        (&*file).write_all(b"wrong").unwrap();
        tail.grow(&file, 5);
        let mut old = tail.reader(&CancellationToken::new());
        tail.restart();
        let old = tokio::spawn(shared_sys::blocking(move || old.read(&mut [0; 8])));
        assert!(old.await.unwrap().is_err());
        assert_eq!(tail.outcome(0).await, Outcome::Restarted);
        tail.stop();
        assert_eq!(tail.outcome(1).await, Outcome::Stopped);

        // A reader that waits is woken, and one that has all there is stops as well.
        let (waiting, stop) = (Tail::default(), CancellationToken::new());
        let mut reader = waiting.reader(&stop);
        let woken = tokio::spawn(shared_sys::blocking(move || reader.read(&mut [0; 8])));
        stop.cancel();
        assert!(woken.await.unwrap().is_err());
    }
}
