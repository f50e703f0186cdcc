//! What the core did, and is doing, for the starts of the last containers: kept for whoever asks why one is slow.
//!
//! A service runs a call that belongs to a start within [`Stages::during`]; what is done below it names its parts with
//! [`stage`], wherever it is, because the container's list lies in the task. Whoever goes on in a task of its own takes
//! it along with [`carried`]. Work that belongs to no container pays a look at a task-local.
//!
//! Limits: the last [`CONTAINERS`] containers, each with at most [`STAGES`] stages, of its first hour; in memory only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Containers that are remembered, each with some hundred bytes.
const CONTAINERS: usize = 1024;
/// Stages of one container: several times what a start has.
const STAGES: usize = 48;
/// In [`Kept::took_us`]: it is under way.
const RUNNING: u32 = u32::MAX;

tokio::task_local! {
    static CURRENT: Arc<Container>;
}

/// All of them. Clones share the list.
#[derive(Clone, Default)]
pub struct Stages(Arc<Mutex<VecDeque<Arc<Container>>>>);

struct Container {
    ns: Box<str>,
    id: Box<str>,
    since: Instant,
    stages: Mutex<Vec<Kept>>,
}

/// A stage as it is kept: small, as there are many.
struct Kept {
    name: &'static str,
    /// Microseconds since the container was first heard of.
    start_us: u32,
    took_us: u32,
    kind: Kind,
}

/// One call that was served for a container, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    pub name: &'static str,
    pub kind: Kind,
    pub began: Instant,
    /// None: it is under way.
    pub took: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call, as the port names it.
    Call,
    /// A part of one.
    Step,
}

/// A stage under way; it ends when this is dropped.
struct Running {
    container: Arc<Container>,
    at: Option<usize>,
}

impl Stages {
    /// Serves a call for a container: `work`, and all that it names, is remembered.
    pub async fn during<F: Future>(&self, ns: &str, id: &str, call: &'static str, work: F) -> F::Output {
        let container = self.container(ns, id);
        let running = Running::begin(&container, call, Kind::Call);
        let done = CURRENT.scope(container, work).await;
        drop(running);
        done
    }

    /// The stages of a container in the order in which they began; none of one that is not remembered.
    pub fn of(&self, ns: &str, id: &str) -> Vec<Stage> {
        let found = find(&self.lock(), ns, id);
        found.map(|container| container.told()).unwrap_or_default()
    }

    fn container(&self, ns: &str, id: &str) -> Arc<Container> {
        let mut all = self.lock();
        if let Some(known) = find(&all, ns, id) {
            return known;
        }
        if all.len() >= CONTAINERS {
            all.pop_front();
        }
        let new = Arc::new(Container { ns: ns.into(), id: id.into(), since: Instant::now(), stages: Mutex::default() });
        all.push_back(new.clone());
        new
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Container>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From the end: whoever is asked about is mostly new.
fn find(all: &VecDeque<Arc<Container>>, ns: &str, id: &str) -> Option<Arc<Container>> {
    all.iter().rev().find(|container| *container.id == *id && *container.ns == *ns).cloned()
}

/// Does `work` as a named part of the call that this task serves.
pub async fn stage<F: Future>(name: &'static str, work: F) -> F::Output {
    let running = CURRENT.try_with(|container| Running::begin(container, name, Kind::Step)).ok();
    let done = work.await;
    drop(running);
    done
}

/// `work`, which is to be done in another task, for the same container.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Arc::clone).ok();
    async move {
        match current {
            Some(container) => CURRENT.scope(container, work).await,
            None => work.await,
        }
    }
}

impl Container {
    fn told(&self) -> Vec<Stage> {
        let told = |kept: &Kept| Stage {
            name: kept.name,
            kind: kept.kind,
            began: self.since + Duration::from_micros(kept.start_us.into()),
            took: (kept.took_us != RUNNING).then(|| Duration::from_micros(kept.took_us.into())),
        };
        self.lock().iter().map(told).collect()
    }

    /// `None` once it is too old for anything that is done for it to belong to its start.
    fn age_us(&self) -> Option<u32> {
        u32::try_from(self.since.elapsed().as_micros()).ok().filter(|age| *age != RUNNING)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn begin(container: &Arc<Container>, name: &'static str, kind: Kind) -> Self {
        let (mut stages, age) = (container.lock(), container.age_us());
        let at = match age {
            Some(start_us) if stages.len() < STAGES => {
                stages.push(Kept { name, start_us, took_us: RUNNING, kind });
                Some(stages.len() - 1)
            }
            Some(_) | None => None,
        };
        drop(stages);
        Self { container: container.clone(), at }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (mut stages, age) = (self.container.lock(), self.container.age_us());
        if let Some(stage) = self.at.and_then(|at| stages.get_mut(at)) {
            stage.took_us = age.unwrap_or(RUNNING - 1).saturating_sub(stage.start_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stages: &Stages, id: &str) -> Vec<(&'static str, bool)> {
        stages.of("k8s.io", id).iter().map(|stage| (stage.name, stage.took.is_some())).collect()
    }

    #[tokio::test]
    async fn parts_belong_to_the_container_whose_call_they_are_done_for() {
        let stages = Stages::default();
        let (held, hold) = tokio::sync::oneshot::channel::<()>();
        let create = {
            let stages = stages.clone();
            tokio::spawn(async move {
                let work = async {
                    stage("bundle", async {}).await;
                    // As services do it, so that a caller who goes away cancels nothing.
                    let shim = stage("shim", async { hold.await.unwrap() });
                    tokio::spawn(carried(shim)).await.unwrap();
                };
                stages.during("k8s.io", "a", "Tasks.create", work).await;
            })
        };
        stage("nobody's", async {}).await;
        while stages.of("k8s.io", "a").len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(names(&stages, "a"), [("Tasks.create", false), ("bundle", true), ("shim", false)]);
        held.send(()).unwrap();
        create.await.unwrap();
        assert_eq!(names(&stages, "a"), [("Tasks.create", true), ("bundle", true), ("shim", true)]);
        let all = stages.of("k8s.io", "a");
        assert_eq!((all[0].kind, all[2].kind), (Kind::Call, Kind::Step));
        assert!(all[0].took >= all[2].took);
        assert!(stages.of("moby", "a").is_empty() && stages.of("k8s.io", "b").is_empty());
    }

    #[tokio::test]
    async fn the_list_is_bounded_in_both_directions() {
        let stages = Stages::default();
        for n in 0..CONTAINERS + 5 {
            stages.during("ns", &n.to_string(), "Tasks.create", async {}).await;
        }
        assert_eq!(stages.lock().len(), CONTAINERS);
        assert!(stages.of("ns", "4").is_empty() && stages.of("ns", "5").len() == 1);
        for _ in 0..STAGES + 5 {
            stages.during("ns", "5", "Containers.update", async {}).await;
        }
        assert_eq!(stages.of("ns", "5").len(), STAGES);
        assert!(stages.of("ns", "5").iter().all(|stage| stage.took.is_some()));
    }
}
