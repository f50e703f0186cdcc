//! What the peer of a SPDY connection is ready to take: a window for each stream and one for all of them.
//!
//! The clients that matter (everything built on Go's spdystream: kubectl, kubelets, crictl) know no flow control:
//! they announce no windows and never widen one. Keeping to the initial 64 KiB would stop their streams for ever. So
//! the windows are counted from the beginning, but hold a sender up only once the peer has shown that it means them,
//! by an initial window in SETTINGS or by a WINDOW_UPDATE. Until then TCP alone holds a sender up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::streaming::channel::Closed;

/// Every window before anybody says otherwise.
pub const INITIAL: i64 = 64 << 10;
/// No window may be larger.
const LARGEST: i64 = i32::MAX as i64;

#[derive(Debug)]
struct Windows {
    initial: i64,
    all: i64,
    streams: HashMap<u32, i64>,
    gone: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Flow {
    windows: Mutex<Windows>,
    meant: AtomicBool,
    changed: Notify,
}

/// A window was widened beyond what the protocol allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

impl Default for Flow {
    fn default() -> Self {
        let windows = Windows { initial: INITIAL, all: INITIAL, streams: HashMap::new(), gone: false };
        Self { windows: Mutex::new(windows), meant: AtomicBool::new(false), changed: Notify::new() }
    }
}

impl Flow {
    /// Whether the peer has shown that it does flow control.
    pub fn meant(&self) -> bool {
        self.meant.load(Ordering::Relaxed)
    }

    pub fn open(&self, stream: u32) {
        let mut windows = self.lock();
        let initial = windows.initial;
        windows.streams.insert(stream, initial);
    }

    /// The peer takes nothing more on this stream.
    pub fn close(&self, stream: u32) {
        self.lock().streams.remove(&stream);
        self.changed.notify_waiters();
    }

    /// The connection is gone.
    pub fn end(&self) {
        self.lock().gone = true;
        self.changed.notify_waiters();
    }

    /// The peer has announced how large the window of a new stream is; those that are open change by the difference.
    pub fn announce(&self, initial: u32) -> Result<(), Overflow> {
        let initial = i64::from(initial);
        if initial > LARGEST {
            return Err(Overflow);
        }
        self.meant.store(true, Ordering::Relaxed);
        let mut windows = self.lock();
        let change = initial - windows.initial;
        windows.initial = initial;
        let widened = windows.streams.values_mut().try_for_each(|window| {
            *window += change;
            if *window > LARGEST { Err(Overflow) } else { Ok(()) }
        });
        drop(windows);
        self.changed.notify_waiters();
        widened
    }

    /// The peer takes so much more; stream 0 means all of them. An unknown stream has ended meanwhile.
    pub fn widen(&self, stream: u32, by: u32) -> Result<(), Overflow> {
        self.meant.store(true, Ordering::Relaxed);
        let mut windows = self.lock();
        let window = match stream {
            0 => Some(&mut windows.all),
            stream => windows.streams.get_mut(&stream),
        };
        if let Some(window) = window {
            // Before the peer meant it, more may have been sent than the window had.
            *window += i64::from(by);
            if *window > LARGEST {
                return Err(Overflow);
            }
        }
        drop(windows);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits until something of `wanted` may be sent on this stream; how much.
    pub async fn reserve(&self, stream: u32, wanted: usize) -> Result<usize, Closed> {
        loop {
            let changed = self.changed.notified();
            {
                let mut windows = self.lock();
                let all = windows.all;
                let window = windows.streams.get(&stream).copied().filter(|_| !windows.gone).ok_or(Closed)?;
                let room = usize::try_from(window.min(all)).unwrap_or(0);
                let room = if self.meant() { room.min(wanted) } else { wanted };
                if room > 0 {
                    let used = room as i64;
                    windows.all -= used;
                    windows.streams.insert(stream, window - used);
                    return Ok(room);
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn windows_hold_up_those_who_mean_them() {
        let flow = Flow::default();
        flow.open(1);
        flow.announce(10).unwrap();
        assert_eq!(flow.reserve(1, 100).await, Ok(10));
        assert!(flow.reserve(1, 100).now_or_never().is_none(), "the window is used up");
        flow.widen(1, 5).unwrap();
        assert_eq!(flow.reserve(1, 100).await, Ok(5));
        flow.announce(3).unwrap();
        flow.widen(1, 7).unwrap();
        assert!(flow.reserve(1, 1).now_or_never().is_none(), "the open stream lost seven");
        flow.widen(1, 1).unwrap();
        assert_eq!(flow.reserve(1, 100).await, Ok(1));
        assert_eq!(flow.widen(1, u32::MAX), Err(Overflow));
        assert_eq!(flow.announce(u32::MAX), Err(Overflow));
    }

    #[tokio::test]
    async fn one_window_is_for_all_streams() {
        let flow = Flow::default();
        flow.open(1);
        flow.open(3);
        flow.announce(1 << 20).unwrap();
        assert_eq!(flow.reserve(1, 1 << 20).await, Ok(64 << 10));
        assert!(flow.reserve(3, 1).now_or_never().is_none());
        flow.widen(0, 2).unwrap();
        assert_eq!(flow.reserve(3, 1).await, Ok(1));
        flow.close(3);
        assert_eq!(flow.reserve(3, 1).await, Err(Closed));
        flow.end();
        assert_eq!(flow.reserve(1, 1).await, Err(Closed));
    }

    #[tokio::test]
    async fn who_knows_no_windows_is_not_held_up() {
        let flow = Flow::default();
        flow.open(1);
        for _ in 0..100 {
            assert_eq!(flow.reserve(1, 16 << 10).await, Ok(16 << 10));
        }
    }
}
