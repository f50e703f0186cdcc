//! What a pull or an import says about itself while it runs.
//!
//! Every descriptor has its own line: `waiting`, `downloading` (at most every [`PACE`]), then `complete` or
//! `already exists`; layers also `extracting` and `extracted`. Names are those of containerd's clients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::manifest::{self, Descriptor};

/// The shortest time between two reports about one download.
const PACE: Duration = Duration::from_millis(200);

/// One report.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub event: String,
    /// A reference, or a descriptor's [`key`].
    pub name: String,
    pub parents: Vec<String>,
    /// Bytes.
    pub progress: u64,
    pub total: u64,
    pub descriptor: Option<Descriptor>,
}

/// Takes reports; must not block.
pub type Sink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What containerd's clients call a descriptor: its kind and digest. Also the reference of its ingest.
pub fn key(descriptor: &Descriptor) -> String {
    let kind = match descriptor.media_type.as_str() {
        m if manifest::is_index(m) => "index",
        m if manifest::is_manifest(m) => "manifest",
        m if manifest::is_layer(m) => "layer",
        manifest::OCI_CONFIG | manifest::DOCKER_CONFIG => "config",
        _ => "unknown",
    };
    format!("{kind}-{}", descriptor.digest)
}

/// Hands reports to a sink.
pub struct Reporter {
    sink: Sink,
    /// The parent of what has none.
    root: String,
    last: Mutex<HashMap<String, Instant>>,
}

impl Reporter {
    pub fn new(sink: Sink, root: &str) -> Self {
        Self { sink, root: root.to_owned(), last: Mutex::default() }
    }

    /// A report about the whole.
    pub fn note(&self, event: impl Into<String>, name: &str, descriptor: Option<&Descriptor>) {
        (self.sink)(Progress {
            event: event.into(),
            name: name.to_owned(),
            parents: Vec::new(),
            progress: 0,
            total: 0,
            descriptor: descriptor.cloned(),
        });
    }

    /// A report about a descriptor. `parent` is the descriptor that names it.
    pub fn about(&self, event: &str, descriptor: &Descriptor, parent: Option<&Descriptor>, progress: u64) {
        (self.sink)(Progress {
            event: event.to_owned(),
            name: key(descriptor),
            parents: vec![parent.map_or_else(|| self.root.clone(), key)],
            progress,
            total: descriptor.size,
            descriptor: Some(descriptor.clone()),
        });
    }

    /// Like [`Self::about`] for a download that goes on, but not too often.
    pub fn downloading(&self, descriptor: &Descriptor, parent: Option<&Descriptor>, progress: u64) {
        let now = Instant::now();
        {
            let mut last = self.last.lock().expect("progress lock");
            if last.get(&key(descriptor)).is_some_and(|last| now.duration_since(*last) < PACE) {
                return;
            }
            last.insert(key(descriptor), now);
        }
        self.about("downloading", descriptor, parent, progress);
    }
}
