//! Who reads a container's output beside its log.
//!
//! The log is never held up: a reader that is more than [`BEHIND`] bytes behind is cut off and told so, since bytes
//! that are missing in the middle would be worse. Nobody who listens costs one atomic load per piece of output.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of output that wait for one reader, at most.
pub const BEHIND: usize = 4 << 20;

/// One of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// The reader was cut off.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client reads too slowly: {BEHIND} bytes of output waited for it; the log has all of it")]
pub struct TooSlow;

/// All readers of one container's output. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Taps(Arc<Shared>);

/// Where the output comes from. When it is dropped, nothing more comes.
#[derive(Debug)]
pub(super) struct Feed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    anybody: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    readers: Vec<Reader>,
    /// Nothing more comes, for nobody.
    ended: bool,
}

#[derive(Debug)]
struct Reader {
    out: mpsc::UnboundedSender<(Output, Bytes)>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    too_slow: AtomicBool,
}

/// One reader. What a container writes from now on comes out of it, until nothing more can come.
#[derive(Debug)]
pub struct Tap {
    pieces: mpsc::UnboundedReceiver<(Output, Bytes)>,
    waiting: Arc<Waiting>,
}

impl Taps {
    pub fn feed(&self) -> Feed {
        Feed(self.0.clone())
    }

    pub fn tap(&self) -> Tap {
        let (out, pieces) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        let mut open = self.0.lock();
        if !open.ended {
            open.readers.push(Reader { out, waiting: waiting.clone() });
            self.0.anybody.store(true, Ordering::Release);
        }
        Tap { pieces, waiting }
    }
}

impl Feed {
    /// Gives every reader a piece, which is read only if there are any. What can't be read ends them all.
    pub fn give(&self, output: Output, read: impl FnOnce() -> io::Result<Vec<u8>>) {
        if !self.0.anybody.load(Ordering::Acquire) {
            return;
        }
        let piece = read().map(Bytes::from);
        let mut open = self.0.lock();
        match piece {
            Ok(piece) => open.readers.retain(|reader| reader.take(output, &piece)),
            Err(error) => {
                tracing::warn!(%error, "output can't be read again; whoever is attached to it is cut off");
                open.readers.clear();
            }
        }
        self.0.anybody.store(!open.readers.is_empty(), Ordering::Release);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        open.ended = true;
        open.readers.clear();
        self.0.anybody.store(false, Ordering::Release);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// `false`: it is gone, or is to go.
    fn take(&self, output: Output, piece: &Bytes) -> bool {
        let waiting = self.waiting.bytes.fetch_add(piece.len(), Ordering::Relaxed);
        if waiting + piece.len() > BEHIND {
            self.waiting.too_slow.store(true, Ordering::Release);
            return false;
        }
        self.out.send((output, piece.clone())).is_ok()
    }
}

impl Tap {
    /// The next piece, in the order in which the log has them; `None`: that was all.
    pub async fn next(&mut self) -> Option<Result<(Output, Bytes), TooSlow>> {
        match self.pieces.recv().await {
            Some((output, piece)) => {
                self.waiting.bytes.fetch_sub(piece.len(), Ordering::Relaxed);
                Some(Ok((output, piece)))
            }
            None if self.waiting.too_slow.swap(false, Ordering::Acquire) => Some(Err(TooSlow)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_cut_off_and_the_others_go_on() {
        let taps = Taps::default();
        let feed = taps.feed();
        feed.give(Output::Stdout, || panic!("nobody listens"));
        let (mut slow, mut quick) = (taps.tap(), taps.tap());
        let piece = 64 << 10;
        for _ in 0..BEHIND / piece {
            feed.give(Output::Stdout, || Ok(vec![b'x'; piece]));
            assert_eq!(quick.next().await.unwrap().unwrap().1.len(), piece);
        }
        feed.give(Output::Stderr, || Ok(vec![b'y']));
        assert_eq!(quick.next().await, Some(Ok((Output::Stderr, Bytes::from_static(b"y")))));
        for _ in 0..BEHIND / piece {
            assert!(slow.next().await.unwrap().is_ok(), "what came before is not lost");
        }
        assert_eq!((slow.next().await, slow.next().await), (Some(Err(TooSlow)), None));
        drop(slow);
        drop(feed);
        assert_eq!(quick.next().await, None);
        assert_eq!(taps.tap().next().await, None, "there is nothing to come");
    }

    #[tokio::test]
    async fn readers_that_are_gone_cost_nothing() {
        let taps = Taps::default();
        let feed = taps.feed();
        drop(taps.tap());
        feed.give(Output::Stdout, || Ok(vec![1]));
        feed.give(Output::Stdout, || panic!("nobody listens"));
    }
}
