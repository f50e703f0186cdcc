//! The account of one request: its stages, and the messages of a request that somebody watches.
//!
//! Calls on the core are booked here by the meter around the ports, whose observer it is; everything else is booked by
//! [`request`](super::request).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use shared_proto::Code;
use shared_proto::meter::{Observer, Way};
use shared_proto::seam::v1::{self as seam, Message};

use super::{Watch, message};

/// The most stages of one request: several times what a start has, less than a call that is repeated for long.
const STAGES: usize = 96;
/// The most bytes of an error that are kept.
pub(super) const ERROR: usize = 600;
/// Bytes of messages of one request that are kept.
const MESSAGES: usize = 512 << 10;
/// In place of a stage: the request itself.
pub(super) const ITSELF: usize = usize::MAX;
/// In [`Stage::took_us`]: it is under way.
const RUNNING: u32 = u32::MAX;

/// What one request did.
#[derive(Debug)]
pub struct Account {
    pub rpc: &'static str,
    /// A container's name, or an image; empty: the pod itself.
    pub subject: Box<str>,
    /// The container's id; empty: the pod.
    pub id: Box<str>,
    pub came: Instant,
    /// Who watches: then its messages are kept.
    watch: OnceLock<Arc<Watch>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) stages: Vec<Stage>,
    pub(super) took: Option<Duration>,
    pub(super) error: Option<Box<str>>,
    /// Of stages by their place in the list; empty where nobody watches.
    pub(super) messages: Vec<(usize, Way, Message)>,
}

/// What went over for a stage, and came back.
pub type Exchange = (Option<Message>, Option<Message>);

/// One stage of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub name: &'static str,
    /// What it was done to; may be empty.
    pub detail: Box<str>,
    /// Microseconds since the request came.
    pub start_us: u32,
    pub(super) took_us: u32,
    pub place: Place,
    pub failed: bool,
}

/// Where a stage was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    Cri,
    /// In a call on the core.
    Seam,
}

impl Account {
    pub(super) fn new(rpc: &'static str, subject: &str, id: &str, came: Instant) -> Self {
        let (watch, inner) = (OnceLock::new(), Mutex::default());
        Self { rpc, subject: subject.into(), id: id.into(), came, watch, inner }
    }

    /// From now on messages are kept.
    pub(super) fn watch(&self, watch: Arc<Watch>) {
        // The first one stays.
        let _ = self.watch.set(watch);
    }

    /// Whether somebody goes through it step by step.
    pub(super) fn steps(&self) -> bool {
        self.watch.get().is_some_and(|watch| watch.steps())
    }

    /// What there is to be seen before a stage, or after it.
    fn stop(&self, at: usize, way: Way) -> seam::Stop {
        let inner = self.lock();
        let stage = inner.stages.get(at).map(|stage| seam::Stage {
            place: stage.place.told().into(),
            name: stage.name.to_owned(),
            detail: stage.detail.to_string(),
            ..Default::default()
        });
        let message = inner.messages.iter().find(|message| (message.0, message.1) == (at, way));
        seam::Stop {
            number: 0,
            rpc: self.rpc.to_owned(),
            subject: self.subject.to_string(),
            stage,
            done: way == Way::Back,
            message: message.map(|(.., message)| message::shown(message)),
        }
    }

    /// The messages of the request itself, and of its stages in their order, where somebody watched.
    pub fn exchanges(&self) -> (Exchange, Vec<Exchange>) {
        let inner = self.lock();
        let message =
            |at: usize, way: Way| inner.messages.iter().find(|m| (m.0, m.1) == (at, way)).map(|m| m.2.clone());
        let of = |at: usize| (message(at, Way::There), message(at, Way::Back));
        (of(ITSELF), (0..inner.stages.len()).map(of).collect())
    }

    pub(super) fn keep(&self, at: usize, way: Way, message: Message) {
        let mut inner = self.lock();
        let size = inner.messages.iter().map(|(.., message)| message.value.len()).sum::<usize>() + message.value.len();
        if size <= MESSAGES {
            inner.messages.push((at, way, message));
        }
    }

    /// In the order in which they began.
    pub fn stages(&self) -> Vec<Stage> {
        self.lock().stages.clone()
    }

    /// How long it took, microseconds, and whether that is only until now.
    pub fn took(&self) -> (u64, bool) {
        let took = self.lock().took;
        (micros(took.unwrap_or_else(|| self.came.elapsed())), took.is_none())
    }

    /// What went wrong; `None`: nothing did, or it has not ended.
    pub fn error(&self) -> Option<Box<str>> {
        self.lock().error.clone()
    }

    /// Where in the list the stage is; past its end when there are too many.
    pub(super) fn begin(&self, place: Place, name: &'static str, detail: &str) -> usize {
        let start_us = short(self.came.elapsed());
        let mut inner = self.lock();
        if inner.stages.len() >= STAGES {
            return STAGES;
        }
        inner.stages.push(Stage { name, detail: detail.into(), start_us, took_us: RUNNING, place, failed: false });
        inner.stages.len() - 1
    }

    pub(super) fn end(&self, at: usize, failed: bool) {
        let now = short(self.came.elapsed());
        if let Some(stage) = self.lock().stages.get_mut(at) {
            stage.took_us = now.saturating_sub(stage.start_us).min(RUNNING - 1);
            stage.failed = failed;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls on the core.
impl Observer for Account {
    fn began(&self, call: &'static str) -> usize {
        self.begin(Place::Seam, call, "")
    }

    fn ended(&self, begun: usize, error: Option<Code>) {
        self.end(begun, error.is_some());
    }

    fn watched(&self) -> bool {
        self.watch.get().is_some()
    }

    fn message(&self, begun: usize, way: Way, message: Message) {
        self.keep(begun, way, message);
    }

    fn pause(&self, begun: usize, way: Way) -> Option<BoxFuture<'static, ()>> {
        let watch = self.watch.get().filter(|watch| watch.steps())?.clone();
        let stop = self.stop(begun, way);
        Some(Box::pin(async move { watch.stop(stop).await }))
    }
}

impl Place {
    pub(super) fn told(self) -> seam::stage::Place {
        match self {
            Place::Cri => seam::stage::Place::Cri,
            Place::Seam => seam::stage::Place::Seam,
        }
    }
}

impl Stage {
    /// How long it took, microseconds, and whether that is only until now. `came` is that of its request.
    pub fn took(&self, came: Instant) -> (u64, bool) {
        match self.took_us {
            RUNNING => (micros(came.elapsed()).saturating_sub(u64::from(self.start_us)), true),
            us => (u64::from(us), false),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Enough for an hour, which no request takes.
pub(super) fn short(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(RUNNING - 1)
}

#[cfg(test)]
mod tests;
