//! What the writable layers of containers take on disk.
//!
//! The core walks a layer's files each time it is asked, so figures are [`AGE`] old at most and measured beforehand, a
//! few at a time, and only while somebody asks for stats. The layer of a container that has exited does not change any
//! more: it is measured once after the end.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use shared_proto::Result;
use shared_proto::containerd::snapshots as s;

use crate::container::{Container, State};
use crate::{Cri, Inner, call};

/// How old a figure may become.
const AGE: Duration = Duration::from_secs(10);
/// Nobody who watches asks less often.
const INTEREST: Duration = Duration::from_secs(60);
/// How many layers are measured at a time.
const TOGETHER: usize = 4;

/// What one layer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Unix time, nanoseconds.
    pub at: i64,
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    used: Used,
    measured: Instant,
    /// It was measured after the container's end.
    settled: bool,
}

/// All figures, by the container's id.
#[derive(Default)]
pub struct Layers(Mutex<Known>);

#[derive(Default)]
struct Known {
    layers: HashMap<String, Layer>,
    /// Folders of snapshotters, as the core exports them.
    mountpoints: HashMap<String, String>,
    asked: Option<Instant>,
}

impl Layers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last figure, with the folder of its snapshotter. Says that somebody asks.
    pub fn used(&self, container: &Container) -> Option<(Used, String)> {
        let mut known = self.known();
        known.asked = Some(Instant::now());
        let mountpoint = known.mountpoints.get(&container.snapshotter)?.clone();
        Some((known.layers.get(&container.record.id)?.used, mountpoint))
    }

    fn wanted(&self) -> bool {
        self.known().asked.is_some_and(|at| at.elapsed() < INTEREST)
    }

    /// When the layer is due: `None` = never again; the past = now.
    fn due(&self, id: &str, over: bool, now: Instant) -> Option<Instant> {
        match self.known().layers.get(id) {
            None => Some(now - AGE),
            Some(layer) if layer.settled && over => None,
            Some(layer) => Some(layer.measured + AGE),
        }
    }
}

/// Whether nothing writes to it any more.
fn over(container: &Container) -> bool {
    match container.life.state() {
        State::Exited(_) => true,
        State::Created | State::Starting | State::Running { .. } | State::Unknown { .. } => false,
    }
}

impl Cri {
    /// Measures what is due, at most a tenth of all layers a second, unmeasured ones first.
    pub(super) async fn measure_layers(&self) {
        let inner = &*self.0;
        if !inner.stats.layers.wanted() {
            return;
        }
        let containers = inner.containers.list();
        let live: HashSet<&str> = containers.iter().map(|container| container.record.id.as_str()).collect();
        inner.stats.layers.known().layers.retain(|id, _| live.contains(id.as_str()));
        let now = Instant::now();
        let due = |id: &str, over| inner.stats.layers.due(id, over, now).filter(|due| *due <= now);
        let mut due: Vec<_> =
            containers.iter().filter_map(|c| due(&c.record.id, over(c)).map(|due| (due, c))).collect();
        due.sort_by_key(|(due, _)| *due);
        let share = containers.len().div_ceil(AGE.as_secs() as usize).max(TOGETHER);
        futures::stream::iter(due.into_iter().take(share))
            .for_each_concurrent(TOGETHER, |(_, container)| async move {
                if let Err(error) = inner.measure_layer(container).await {
                    tracing::debug!(container = container.record.id, %error, "its writable layer is not measured");
                }
            })
            .await;
    }
}

impl Inner {
    /// Asks the core for the size of a container's writable layer.
    pub(crate) async fn measure_layer(&self, container: &Container) -> Result<()> {
        let (id, snapshotter) = (&container.record.id, &container.snapshotter);
        if !self.stats.layers.known().mountpoints.contains_key(snapshotter) {
            let mountpoint = self.images.snapshotter_root(snapshotter).await?;
            self.stats.layers.known().mountpoints.insert(snapshotter.clone(), mountpoint);
        }
        // Before the question: what is written meanwhile is not settled.
        let settled = over(container);
        let request = s::UsageRequest { snapshotter: snapshotter.clone(), key: id.clone() };
        let usage = self.core.snapshots.usage(&self.cx, request);
        let usage = call::within(format!("measure the writable layer of {id}"), call::PROCESS, usage).await?;
        let used = Used {
            at: self.host.now(),
            bytes: u64::try_from(usage.size).unwrap_or(0),
            inodes: u64::try_from(usage.inodes).unwrap_or(0),
        };
        let layer = Layer { used, measured: Instant::now(), settled };
        self.stats.layers.known().layers.insert(id.clone(), layer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_layer_is_never_due_again() {
        let layers = Layers::default();
        let now = Instant::now();
        assert!(layers.due("c", false, now).unwrap() <= now, "an unmeasured one is due at once");
        let used = Used { at: 1, bytes: 2, inodes: 3 };
        let layer = |settled| Layer { used, measured: now, settled };
        layers.known().layers.insert("c".into(), layer(false));
        assert_eq!(layers.due("c", true, now), Some(now + AGE), "once more after the end");
        layers.known().layers.insert("c".into(), layer(true));
        assert_eq!(layers.due("c", true, now), None);
        assert!(!layers.wanted());
    }
}
