//! The account of one request: who writes it, and what is in it.
//!
//! The request's own work books its stages by [`Request::stage`]. Work below it that knows of no request books by
//! [`here`], and the calls on the core by themselves: both find the account in the task that [`Request::watch`] runs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared_proto::meter::{self, Observer, Way};
use shared_proto::seam::v1::Message;
use shared_proto::{Code, Error, trace};

use crate::metrics::Metrics;

/// The most stages of one request: several times what a start has, less than a call that is repeated for long.
const STAGES: usize = 96;
/// The most bytes of an error that are kept.
const ERROR: usize = 600;
/// Bytes of messages of one request that are kept.
const MESSAGES: usize = 512 << 10;
/// In place of a stage: the request itself.
const ITSELF: usize = usize::MAX;
/// In [`Stage::took_us`]: it is under way.
const RUNNING: u32 = u32::MAX;

tokio::task_local! {
    static HERE: (Arc<Account>, Metrics);
}

/// What one request did.
#[derive(Debug)]
pub struct Account {
    pub rpc: &'static str,
    /// A container's name, or an image; empty: the pod itself.
    pub subject: Box<str>,
    /// The container's id; empty: the pod.
    pub id: Box<str>,
    pub came: Instant,
    /// Whether its messages are kept.
    watched: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stages: Vec<Stage>,
    took: Option<Duration>,
    error: Option<Box<str>>,
    /// Of stages by their place in the list; empty where nobody watches.
    messages: Vec<(usize, Way, Message)>,
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
    took_us: u32,
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

/// One request at work. It has ended when this is dropped.
#[derive(Debug)]
pub struct Request {
    account: Arc<Account>,
    metrics: Metrics,
}

/// A stage under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    account: Arc<Account>,
    metrics: Metrics,
    at: usize,
    name: &'static str,
    began: Instant,
    _span: tracing::Span,
}

impl Account {
    pub(super) fn new(rpc: &'static str, subject: &str, id: &str, came: Instant) -> Self {
        let (watched, inner) = (AtomicBool::new(false), Mutex::default());
        Self { rpc, subject: subject.into(), id: id.into(), came, watched, inner }
    }

    /// From now on messages are kept.
    pub(super) fn watch(&self) {
        self.watched.store(true, Relaxed);
    }

    /// The messages of the request itself, and of its stages in their order, where somebody watched.
    pub fn exchanges(&self) -> (Exchange, Vec<Exchange>) {
        let inner = self.lock();
        let message =
            |at: usize, way: Way| inner.messages.iter().find(|m| (m.0, m.1) == (at, way)).map(|m| m.2.clone());
        let of = |at: usize| (message(at, Way::There), message(at, Way::Back));
        (of(ITSELF), (0..inner.stages.len()).map(of).collect())
    }

    fn keep(&self, at: usize, way: Way, message: Message) {
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
    fn begin(&self, place: Place, name: &'static str, detail: &str) -> usize {
        let start_us = short(self.came.elapsed());
        let mut inner = self.lock();
        if inner.stages.len() >= STAGES {
            return STAGES;
        }
        inner.stages.push(Stage { name, detail: detail.into(), start_us, took_us: RUNNING, place, failed: false });
        inner.stages.len() - 1
    }

    fn end(&self, at: usize, failed: bool) {
        let now = short(self.came.elapsed());
        if let Some(stage) = self.lock().stages.get_mut(at) {
            stage.took_us = now.saturating_sub(stage.start_us).min(RUNNING - 1);
            stage.failed = failed;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
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
        self.watched.load(Relaxed)
    }

    fn message(&self, begun: usize, way: Way, message: Message) {
        self.keep(begun, way, message);
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

impl Request {
    pub(super) fn new(account: Arc<Account>, metrics: Metrics) -> Self {
        Self { account, metrics }
    }

    pub fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Does `work`, whose calls on the core are booked, and whatever books by [`here`].
    pub async fn watch<F: Future>(&self, work: F) -> F::Output {
        let here = (self.account.clone(), self.metrics.clone());
        meter::observed(self.account.clone(), HERE.scope(here, work)).await
    }

    /// Begins a stage, which ends when the guard is dropped.
    pub fn stage(&self, stage: &'static str) -> Running {
        self.stage_of(stage, "")
    }

    /// The same, with what it is done to.
    pub fn stage_of(&self, stage: &'static str, detail: &str) -> Running {
        Running::begin(&self.account, &self.metrics, stage, detail)
    }

    /// Books the time since the request came as a stage: it waited.
    pub fn waited(&self, stage: &'static str) {
        let at = self.account.begin(Place::Cri, stage, "");
        let waited = self.account.came.elapsed();
        if let Some(stage) = self.account.lock().stages.get_mut(at) {
            (stage.start_us, stage.took_us) = (0, short(waited));
        }
        self.metrics.stage(self.account.rpc, stage, waited);
    }

    /// Keeps what came, if somebody watches.
    pub fn asked(&self, message: Option<Message>) {
        if let Some(message) = message.filter(|_| self.account.watched()) {
            self.account.keep(ITSELF, Way::There, message);
        }
    }

    /// Keeps what is answered, if somebody watches.
    pub fn answered(&self, message: &impl prost::Name) {
        if self.account.watched() {
            self.account.keep(ITSELF, Way::Back, Message::of(message));
        }
    }

    /// What came of it, if that was an error.
    pub fn failed(&self, error: &Error) {
        let message = &error.message;
        let end = (0..=ERROR.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        self.account.lock().error = Some(message[..end].into());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let took = self.account.came.elapsed();
        let mut inner = self.account.lock();
        inner.took = Some(took);
        inner.stages.shrink_to_fit();
        inner.messages.shrink_to_fit();
        self.metrics.stage(self.account.rpc, self.account.rpc, took);
    }
}

/// Begins a stage of the request that this task works for, if it works for one.
pub fn here(stage: &'static str, detail: impl FnOnce() -> String) -> Option<Running> {
    HERE.try_with(|(account, metrics)| Running::begin(account, metrics, stage, &detail())).ok()
}

impl Running {
    fn begin(account: &Arc<Account>, metrics: &Metrics, name: &'static str, detail: &str) -> Self {
        let span = trace::stage(name, detail);
        let at = account.begin(Place::Cri, name, detail);
        Self { account: account.clone(), metrics: metrics.clone(), at, name, began: Instant::now(), _span: span }
    }

    /// Keeps a message to or from whoever does the work, if somebody watches; only then it is made.
    pub fn message(&self, way: Way, message: impl FnOnce() -> Message) {
        if self.account.watched() {
            self.account.keep(self.at, way, message());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.account.end(self.at, false);
        self.metrics.stage(self.account.rpc, self.name, self.began.elapsed());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Enough for an hour, which no request takes.
fn short(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(RUNNING - 1)
}

#[cfg(test)]
mod tests {
    use shared_proto::containerd::tasks::{StartRequest, StartResponse};
    use shared_proto::meter::Meter;

    use super::*;

    fn request() -> Request {
        Request::new(Arc::new(Account::new("RunPodSandbox", "", "", Instant::now())), Metrics::default())
    }

    #[tokio::test]
    async fn what_is_done_below_a_request_is_booked_on_it() {
        let request = request();
        let call = Meter::default().register("Tasks.create");
        assert!(here("cni-plugin", || "nobody asked".into()).is_none());
        let work = async {
            let plugin = here("cni-plugin", || "pods/bridge".into());
            call.start().stop::<()>(&Err(Error::not_found("c")));
            std::mem::forget(call.start());
            drop(plugin);
        };
        request.watch(work).await;
        let stages = request.account().stages();
        let seen: Vec<_> = stages.iter().map(|s| (s.name, &*s.detail, s.place, s.failed)).collect();
        assert_eq!(
            seen,
            [
                ("cni-plugin", "pods/bridge", Place::Cri, false),
                ("Tasks.create", "", Place::Seam, true),
                ("Tasks.create", "", Place::Seam, false)
            ]
        );
        let running: Vec<_> = stages.iter().map(|stage| stage.took(request.account().came).1).collect();
        assert_eq!(running, [false, false, true]);
    }

    #[test]
    fn stages_lie_within_their_request() {
        let request = request();
        std::thread::sleep(Duration::from_millis(2));
        request.waited("queue");
        let outer = request.stage("cni");
        std::thread::sleep(Duration::from_millis(2));
        drop(request.stage("netns"));
        drop(outer);
        let account = request.account();
        assert!(account.took().1);
        drop(request);
        let took = |at: usize| account.stages()[at].took(account.came);
        assert!(took(0).0 >= 2000 && account.stages()[1].start_us >= 2000);
        assert!(took(1).0 >= took(2).0 && account.took().0 >= took(1).0);
        assert!(!took(1).1 && !account.took().1);
    }

    #[tokio::test]
    async fn messages_are_kept_only_where_somebody_watches() {
        let call = Meter::default().register("Tasks.start");
        let go = async |request: &Request| {
            request.asked(Some(Message::json("{}")));
            let work = async {
                let plugin = here("cni-plugin", String::new).unwrap();
                plugin.message(Way::Back, || Message::json("[1]"));
                let timer = call.start();
                timer.sends(Default::default(), &StartRequest::default());
                timer.stop_with(&Ok(StartResponse { pid: 7 }));
            };
            request.watch(work).await;
            request.answered(&StartResponse { pid: 8 });
            request.account().exchanges()
        };
        let nothing = (None, None);
        assert_eq!(go(&request()).await, (nothing.clone(), vec![nothing.clone(), nothing.clone()]));
        let watched = request();
        watched.account().watch();
        let (own, stages) = go(&watched).await;
        assert_eq!(own, (Some(Message::json("{}")), Some(Message::of(&StartResponse { pid: 8 }))));
        assert_eq!(stages[0], (None, Some(Message::json("[1]"))));
        let call = (Some(Message::of(&StartRequest::default())), Some(Message::of(&StartResponse { pid: 7 })));
        assert_eq!(stages[1], call);
        watched.asked(Some(Message::json("x".repeat(MESSAGES))));
        let kept: usize = watched.account().lock().messages.len();
        assert_eq!(kept, 5, "one that is too much is left out");
    }

    #[test]
    fn an_account_is_small_and_bounded() {
        assert!(size_of::<Stage>() <= 48, "{}", size_of::<Stage>());
        let request = request();
        for _ in 0..STAGES + 5 {
            drop(request.stage("image"));
        }
        assert_eq!(request.account().stages().len(), STAGES);
        request.failed(&Error::internal("ü".repeat(ERROR)));
        assert_eq!(request.account().error().unwrap().len(), ERROR);
    }
}
