//! Sandboxes: record, state, and what is left of one that ended.
//!
//! The record is in the core ([`record`]), the state here ([`state`]); after a restart it follows from the task.

pub mod record;
pub mod state;
pub mod teardown;

use std::sync::{Arc, Mutex, PoisonError};

use crate::instrument::PodStart;
use crate::store::Identified;

pub use record::{Phase, Record};
pub use state::{Leftover, Lifecycle, State};

/// All sandboxes, those in the making included.
pub type Store = crate::store::Store<Sandbox>;

/// One sandbox.
pub struct Sandbox {
    id: String,
    record: Mutex<Arc<Record>>,
    /// The snapshotter that has the pause container's root file system.
    pub snapshotter: String,
    pub life: Lifecycle,
    /// Its timeline, with that of its containers.
    pub start: Arc<PodStart>,
    /// Held while its record is changed.
    pub updating: tokio::sync::Mutex<()>,
}

impl Sandbox {
    /// One that this process has not made: nothing is known of its start.
    pub fn new(record: Record, snapshotter: String, state: State) -> Self {
        let start = Arc::new(PodStart::new(&record.id, &record.config));
        Self::begun(record, snapshotter, state, start)
    }

    /// One that is being made.
    pub fn begun(record: Record, snapshotter: String, state: State, start: Arc<PodStart>) -> Self {
        let life = Lifecycle::new(&record.id, state);
        let id = record.id.clone();
        Self {
            id,
            record: Mutex::new(Arc::new(record)),
            snapshotter,
            life,
            start,
            updating: tokio::sync::Mutex::default(),
        }
    }

    pub fn record(&self) -> Arc<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the record, once the core has the new one.
    pub fn set_record(&self, record: Record) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
    }

    /// Whether the kubelet is shown this sandbox: not before it is made.
    pub fn listed(&self) -> bool {
        self.life.state() != State::Creating
    }
}

impl Identified for Sandbox {
    const KIND: &'static str = "sandbox";
    fn id(&self) -> &str {
        &self.id
    }
}
