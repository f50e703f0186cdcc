//! Containers: record, state, status file, and what removal has to take away.
//!
//! The record is in the core ([`record`]), the state here ([`state`]) and, for the next daemon, in a small file
//! ([`status`]).

pub mod record;
pub mod state;
pub mod status;
pub mod teardown;
pub mod volumes;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_proto::containerd::types;
use shared_proto::cri::v1::LinuxContainerResources;

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
    /// The snapshotter that has its root file system.
    pub snapshotter: String,
    pub life: Lifecycle,
    pub timeline: Timeline,
    /// Held by whoever finishes it after its end. Nobody who serves a list or a status waits for it.
    pub ending: tokio::sync::Mutex<()>,
    /// A stop signal was sent: it is sent once, however often the kubelet asks.
    pub asked_to_stop: AtomicBool,
    /// Held while its resources are changed.
    pub updating: tokio::sync::Mutex<()>,
    parts: Mutex<Parts>,
}

/// What this process holds of a container.
#[derive(Default)]
struct Parts {
    /// Mounts of its root file system, as the core gave them; `None`: ask the core.
    rootfs: Option<Vec<types::Mount>>,
    log: Option<Arc<LogHandle>>,
    /// `process` of its spec, once an exec needed it.
    process: Option<Arc<serde_json::Value>>,
    /// Resources that were changed by this process.
    resources: Option<LinuxContainerResources>,
}

impl Container {
    pub fn new(record: Record, snapshotter: String, state: State) -> Self {
        let life = Lifecycle::new(&record.id, state);
        Self {
            record,
            snapshotter,
            ending: tokio::sync::Mutex::default(),
            life,
            timeline: Timeline::default(),
            asked_to_stop: AtomicBool::new(false),
            updating: tokio::sync::Mutex::default(),
            parts: Mutex::default(),
        }
    }

    pub fn rootfs(&self) -> Option<Vec<types::Mount>> {
        self.parts().rootfs.clone()
    }

    pub fn set_rootfs(&self, mounts: Vec<types::Mount>) {
        self.parts().rootfs = Some(mounts);
    }

    /// The process of its spec, if it was asked for before.
    pub fn process(&self) -> Option<Arc<serde_json::Value>> {
        self.parts().process.clone()
    }

    pub fn set_process(&self, process: Arc<serde_json::Value>) {
        self.parts().process = Some(process);
    }

    /// What it is limited to now; `None`: nothing was ever said.
    pub fn resources(&self) -> Option<LinuxContainerResources> {
        let changed = self.parts().resources.clone().or_else(|| self.record.resources.clone());
        changed.or_else(|| self.record.config.linux.as_ref()?.resources.clone())
    }

    pub fn set_resources(&self, resources: LinuxContainerResources) {
        self.parts().resources = Some(resources);
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
