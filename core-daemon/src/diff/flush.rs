//! Starts writing a layer to the disk while it is still being unpacked.
//!
//! Whoever commits a layer waits until it is on disk. The kernel would start only then, with the processors idle; so
//! one thread asks for it each time [`STEP`] bytes more are written. It decides nothing: errors show at the commit.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

/// Bytes between two requests.
const STEP: u64 = 64 << 20;

/// Counts what is written.
pub(super) struct Flush {
    wake: SyncSender<()>,
    left: u64,
}

/// Starts the thread; it ends with the value that is given back. `folder` is any folder of the file system.
pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, folder: OwnedFd) -> Flush {
    let (wake, woken) = sync_channel(1);
    scope.spawn(move || run(&woken, &folder));
    Flush { wake, left: STEP }
}

fn run(woken: &Receiver<()>, folder: &OwnedFd) {
    while woken.recv().is_ok() {
        if let Err(e) = rustix::fs::syncfs(folder) {
            tracing::debug!(error = %e, "an early sync failed");
        }
    }
}

impl Flush {
    pub fn wrote(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        if self.left == 0 {
            // When the thread is still busy, the next request covers this one.
            let _ = self.wake.try_send(());
            self.left = STEP;
        }
    }
}
