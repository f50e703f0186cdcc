//! Removes folders in the background.
//!
//! One thread a snapshotter; a folder that can't be removed is logged and left for [`super::Snapshotter::cleanup`],
//! and the next one is taken. Dropping the owner stops the thread after the file it is at; what is left is found at the
//! next start.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::CWD;

use super::SnapshotError;
use super::tree::remove_deep;

pub(super) struct Trash {
    /// `None` only while dropping.
    queue: Option<Sender<PathBuf>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    pub fn new() -> Self {
        let (queue, folders) = channel::<PathBuf>();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            while let Ok(folder) = folders.recv() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(e) = remove(&folder, &stopped) {
                    tracing::warn!(error = %e, "a removed snapshot's files stay for now");
                }
            }
        };
        let thread = std::thread::Builder::new().name("snapshot-trash".into()).spawn(work).expect("spawn a thread");
        Self { queue: Some(queue), stop, thread: Some(thread) }
    }

    /// Queues a folder.
    pub fn add(&self, folder: PathBuf) {
        if let Some(queue) = &self.queue {
            // The thread lives as long as this value.
            let _ = queue.send(folder);
        }
    }

    /// Removes a folder now.
    pub fn remove(&self, folder: &std::path::Path) -> Result<(), SnapshotError> {
        remove(folder, &self.stop)
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove(folder: &std::path::Path, stop: &AtomicBool) -> Result<(), SnapshotError> {
    use std::os::unix::ffi::OsStrExt;
    let name = CString::new(folder.as_os_str().as_bytes()).expect("our own paths have no zero byte");
    remove_deep(CWD, &name, stop).map_err(SnapshotError::io("remove", folder))
}
