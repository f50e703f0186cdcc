//! Containers: record, state, status file, and what removal has to take away.
//!
//! The record is in the core ([`record`]), the state here ([`state`]) and, for the next daemon, in a small file
//! ([`status`]).

pub mod record;
pub mod state;
pub mod status;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_proto::containerd::types;

use crate::instrument::Timeline;
use crate::logs::LogHandle;
use crate::store::Identified;

pub use record::{Record, RecordUser};
pub use state::{Exit, Lifecycle, State};

/// All containers.
pub type Store = crate::store::Store<Container>;

/// One container.
pub struct Container {
    pub record: Record,
    pub life: Lifecycle,
    pub timeline: Timeline,
    /// A stop signal was sent: it is sent once, however often the kubelet asks.
    pub asked_to_stop: AtomicBool,
    parts: Mutex<Parts>,
}

/// What this process holds of a container.
#[derive(Default)]
struct Parts {
    /// Mounts of its root file system, as the core gave them; `None`: ask the core.
    rootfs: Option<Vec<types::Mount>>,
    log: Option<Arc<LogHandle>>,
}

impl Container {
    pub fn new(record: Record, state: State) -> Self {
        let life = Lifecycle::new(&record.id, state);
        Self {
            record,
            life,
            timeline: Timeline::default(),
            asked_to_stop: AtomicBool::new(false),
            parts: Mutex::default(),
        }
    }

    pub fn rootfs(&self) -> Option<Vec<types::Mount>> {
        self.parts().rootfs.clone()
    }

    pub fn set_rootfs(&self, mounts: Vec<types::Mount>) {
        self.parts().rootfs = Some(mounts);
    }

    /// Its log, while it is being written.
    pub fn log(&self) -> Option<Arc<LogHandle>> {
        self.parts().log.clone()
    }

    pub fn set_log(&self, log: LogHandle) {
        self.parts().log = Some(Arc::new(log));
    }

    /// Takes the log away, to finish it.
    pub fn take_log(&self) -> Option<Arc<LogHandle>> {
        self.parts().log.take()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identified for Container {
    const KIND: &'static str = "container";
    fn id(&self) -> &str {
        &self.record.id
    }
}
