//! What the core did, and is doing, for the starts of the last containers: kept for whoever asks why one is slow.
//!
//! A service runs a call that belongs to a start within [`Stages::during`]; what is done below it names its parts with
//! [`stage`], wherever it is, because the container's list lies in the task. Whoever goes on in a task of its own takes
//! it along with [`carried`]. Work that belongs to no container pays a look at a task-local.
//!
//! While somebody watches a call, the messages that its parts exchange with shims are kept as well ([`keep`]).
//!
//! Limits: the last [`CONTAINERS`] containers, each with at most [`STAGES`] stages, of its first hour, and [`SEEN`] bytes
//! of messages; in memory only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared_proto::meter::Way;
use shared_proto::seam::v1::Message;

/// Containers that are remembered, each with some hundred bytes.
const CONTAINERS: usize = 1024;
/// Stages of one container: several times what a start has.
const STAGES: usize = 48;
/// Bytes of messages of one container: of a start and then some.
const SEEN: usize = 256 << 10;
/// In [`Kept::took_us`]: it is under way.
const RUNNING: u32 = u32::MAX;

tokio::task_local! {
    static CURRENT: Current;
}

/// What a task works for.
#[derive(Clone)]
struct Current {
    container: Arc<Container>,
    watched: bool,
}

/// All of them. Clones share the list.
#[derive(Clone, Default)]
pub struct Stages(Arc<Mutex<VecDeque<Arc<Container>>>>);

struct Container {
    ns: Box<str>,
    id: Box<str>,
    since: Instant,
    stages: Mutex<Vec<Kept>>,
    /// Messages of stages, by their place in the list.
    seen: Mutex<Vec<(usize, Way, Message)>>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub name: &'static str,
    pub kind: Kind,
    pub began: Instant,
    /// None: it is under way.
    pub took: Option<Duration>,
    /// What was asked of the shim, and answered, where somebody watched.
    pub sent: Option<Message>,
    pub received: Option<Message>,
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
    /// Serves a call for a container: `work`, and all that it names, is remembered; while it is `watched`, with messages.
    pub async fn during<F: Future>(&self, ns: &str, id: &str, call: &'static str, watched: bool, work: F) -> F::Output {
        let container = self.container(ns, id);
        let running = Running::begin(&container, call, Kind::Call);
        let done = CURRENT.scope(Current { container, watched }, work).await;
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
        let (stages, seen) = (Mutex::default(), Mutex::default());
        let new = Arc::new(Container { ns: ns.into(), id: id.into(), since: Instant::now(), stages, seen });
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
    let running = CURRENT.try_with(|current| Running::begin(&current.container, name, Kind::Step)).ok();
    let done = work.await;
    drop(running);
    done
}

/// Keeps a message of the part under way, if somebody watches the call; only then it is made.
pub fn keep(way: Way, message: impl FnOnce() -> Message) {
    let watched = CURRENT.try_with(|current| current.watched.then(|| current.container.clone())).ok().flatten();
    if let Some(container) = watched {
        container.keep(way, message());
    }
}

/// `work`, which is to be done in another task, for the same container.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Current::clone).ok();
    async move {
        match current {
            Some(current) => CURRENT.scope(current, work).await,
            None => work.await,
        }
    }
}

impl Container {
    fn told(&self) -> Vec<Stage> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = |at: usize, way: Way| seen.iter().find(|seen| (seen.0, seen.1) == (at, way)).map(|s| s.2.clone());
        let told = |(at, kept): (usize, &Kept)| Stage {
            name: kept.name,
            kind: kept.kind,
            began: self.since + Duration::from_micros(kept.start_us.into()),
            took: (kept.took_us != RUNNING).then(|| Duration::from_micros(kept.took_us.into())),
            sent: message(at, Way::There),
            received: message(at, Way::Back),
        };
        self.lock().iter().enumerate().map(told).collect()
    }

    /// The parts of a call, and the calls for a container, follow one another: the last one that is under way is meant.
    fn keep(&self, way: Way, message: Message) {
        let at = self.lock().iter().rposition(|kept| kept.took_us == RUNNING && kept.kind == Kind::Step);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let size = seen.iter().map(|(.., message)| message.value.len()).sum::<usize>() + message.value.len();
        if let Some(at) = at
            && size <= SEEN
        {
            seen.push((at, way, message));
        }
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
mod tests;
