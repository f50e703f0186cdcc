//! What containers and pods use: processor, memory, swap, processes, writable layers.
//!
//! Figures are read from the cgroup files by us, never asked of a shim: one pass over descriptors that stay open
//! answers a list for a whole node in a few milliseconds.
//!
//! - [`place`]: where a cgroup's files are.   - [`cgroup`], [`parse`]: reading them, versions 1 and 2.
//! - [`rate`]: how much of a core is used now, from samples that a background task takes.
//! - [`layers`]: what writable layers take on disk, measured in the background.
//! - [`network`]: counters of a pod's interfaces.
//! - [`oom`]: whether memory ran out.
//! - [`message`]: readings as CRI messages.
//!
//! Descriptors are kept for at most [`Stats::limit`] cgroups; those beyond are opened and closed for each look. They
//! are closed when the process ends, and by the sampler at the latest.
//! Limits: pressure (PSI) is told on version 2 only.

pub mod cgroup;
mod error;
pub mod layers;
pub mod message;
pub mod network;
mod oom;
pub mod parse;
pub mod place;
mod rate;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use error::StatsError;

use crate::{Cri, container, pod};
use cgroup::{Buffer, Cgroup};
use parse::Reading;
use place::{Finder, Place};
use rate::Rates;

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(5);

/// Whose cgroup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Id of the container, or of the sandbox.
    pub id: String,
    pub pid: u32,
    /// The cgroup around it, which is the pod's.
    pub pod: bool,
}

/// A reading, and the rate that goes with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    pub reading: Reading,
    /// Billionths of a core.
    pub nano_cores: Option<u64>,
}

/// Everything that is kept between two looks.
#[derive(Default)]
pub struct Stats {
    finder: OnceLock<Finder>,
    open: Mutex<HashMap<String, Arc<Cgroup>>>,
    rates: Mutex<Rates>,
    pub layers: layers::Layers,
}

impl Stats {
    /// Reads one cgroup. Blocks, for the kernel's own work only.
    pub fn look(&self, target: &Target, buffer: &mut Buffer) -> Result<Look, StatsError> {
        let cgroup = self.cgroup(target)?;
        let at = Instant::now();
        let reading = self.checked(target, cgroup.read(buffer))?;
        let nano_cores = reading.cpu.and_then(|usage| self.rates().rate(&target.id, at, usage));
        Ok(Look { reading, nano_cores })
    }

    /// Closes what is held open of a container or sandbox.
    pub fn forget(&self, id: &str) {
        self.open().remove(id);
    }

    /// Takes a sample of each, and forgets everything else. Blocks, for the kernel's own work only.
    fn sample(&self, targets: &[Target]) {
        let live: HashSet<&str> = targets.iter().map(|target| target.id.as_str()).collect();
        self.open().retain(|id, _| live.contains(id.as_str()));
        self.rates().retain(&live);
        let mut buffer = Buffer::new();
        for target in targets {
            let Ok(cgroup) = self.cgroup(target) else { continue };
            let at = Instant::now();
            if let Ok(Some(usage)) = self.checked(target, cgroup.cpu(&mut buffer)) {
                self.rates().add(&target.id, at, usage);
            }
        }
    }

    fn cgroup(&self, target: &Target) -> Result<Arc<Cgroup>, StatsError> {
        if let Some(open) = self.open().get(&target.id) {
            return Ok(open.clone());
        }
        let cgroup = Arc::new(Cgroup::open(&target.id, &self.place(target)?)?);
        let mut open = self.open();
        if open.len() < limit() {
            open.insert(target.id.clone(), cgroup.clone());
        }
        Ok(cgroup)
    }

    fn place(&self, target: &Target) -> Result<Place, StatsError> {
        let place = self.finder()?.of_process(&target.id, target.pid)?;
        Ok(if target.pod { place.parent() } else { place })
    }

    fn finder(&self) -> Result<&Finder, StatsError> {
        match self.finder.get() {
            Some(known) => Ok(known),
            None => {
                let read = Finder::new()?;
                Ok(self.finder.get_or_init(|| read))
            }
        }
    }

    /// A cgroup that is gone is not kept.
    fn checked<T>(&self, target: &Target, outcome: Result<T, StatsError>) -> Result<T, StatsError> {
        if outcome.is_err() {
            self.forget(&target.id);
        }
        outcome
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Cgroup>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how many cgroups descriptors are held: at most a quarter of what the process may open.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(files / 4 / Cgroup::FILES).unwrap_or(usize::MAX).min(4096)
    })
}

impl Cri {
    /// Samples processor time and measures layers until the end. There is nothing to do while nothing runs.
    pub(crate) async fn follow_stats(self) {
        let inner = &self.0;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sampled: Option<Instant> = None;
        while inner.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if sampled.is_none_or(|at| at.elapsed() >= PERIOD) {
                let targets = self.targets();
                let cri = self.clone();
                shared_sys::blocking(move || cri.0.stats.sample(&targets)).await;
                sampled = Some(Instant::now());
            }
            if inner.shutdown.run_until_cancelled(self.measure_layers()).await.is_none() {
                return;
            }
        }
    }

    /// Everything that has a cgroup now.
    fn targets(&self) -> Vec<Target> {
        let pods = self.0.sandboxes.list().into_iter().filter_map(|sandbox| pod_target(&sandbox));
        let containers = self.0.containers.list().into_iter().filter_map(|container| target(&container));
        pods.chain(containers).collect()
    }
}

/// The cgroup of a container that runs.
pub(crate) fn target(container: &container::Container) -> Option<Target> {
    match container.life.state() {
        container::State::Running { pid, .. } => Some(Target { id: container.record.id.clone(), pid, pod: false }),
        container::State::Created
        | container::State::Starting
        | container::State::Exited(_)
        | container::State::Unknown { .. } => None,
    }
}

/// The cgroup of a pod that is ready. A pod that was given no cgroup of its own has only that of its pause process.
pub(crate) fn pod_target(sandbox: &pod::Sandbox) -> Option<Target> {
    match sandbox.life.state() {
        pod::State::Ready { pid } => {
            let record = sandbox.record();
            let own = record.config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty());
            Some(Target { id: record.id.clone(), pid, pod: own })
        }
        pod::State::Creating | pod::State::NotReady { .. } | pod::State::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_gone_is_not_kept() {
        let stats = Stats::default();
        let nobody = Target { id: "c".into(), pid: u32::MAX, pod: false };
        assert!(matches!(stats.look(&nobody, &mut Buffer::new()), Err(StatsError::Gone { .. })));
        let us = Target { id: "no-such-container".into(), pid: std::process::id(), pod: false };
        assert!(matches!(stats.look(&us, &mut Buffer::new()), Err(StatsError::NotItsOwn { .. })));
        stats.sample(&[nobody, us]);
        assert!(stats.open().is_empty());
        assert!(limit() > 0);
    }
}
