//! Counts the calls on ports: calls, errors, bytes and time, per method.
//!
//! Counters are plain atomics, created once per method and port; a call costs two clock readings and a few additions.
//! Bytes are encoded message sizes and are counted only where messages are encoded: a plain call moves none.
//! Time is that of the one who counts: from the call to its answer, or to the first item's stream for streaming
//! methods. A call that its caller gave up counts as `Canceled`.
//!
//! [`prometheus`] shows the same numbers as metrics. [`observed`] tells of single calls.

mod observer;
mod prometheus;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use observer::{Observer, Way, observed};

use crate::{Code, Context};
use observer::Told;

/// Upper ends of the buckets of every histogram of ours, in seconds: from a plain call to a pull.
pub const BUCKETS: [f64; 18] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Counters of one method.
#[derive(Debug, Default)]
pub struct Counter {
    /// The name of the call, where observers are told of it.
    told_as: Option<&'static str>,
    calls: AtomicU64,
    /// By [`Code`], in its order.
    errors: [AtomicU64; Code::ALL.len()],
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
    nanos: AtomicU64,
    /// Not cumulative; the last one is for what took longer than all of [`BUCKETS`].
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Counter {
    /// Starts the clock of one call.
    pub fn start(&self) -> Timer<'_> {
        Timer { counter: self, told: self.told_as.and_then(Told::began), started: Instant::now(), answered: false }
    }
    /// Adds bytes sent towards the core.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }
    /// Adds bytes received from the core.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    fn book(&self, took: Duration, error: Option<Code>) {
        self.calls.fetch_add(1, Relaxed);
        if let Some(code) = error {
            self.errors[code as usize].fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(took.as_nanos() as u64, Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
    }
}

/// A running call; see [`Counter::start`]. Dropped without an answer, it was given up.
pub struct Timer<'a> {
    counter: &'a Counter,
    told: Option<Told>,
    started: Instant,
    answered: bool,
}

impl Timer<'_> {
    /// The surroundings for the callee; the request is shown to whoever watches.
    pub fn sends<'a>(&self, cx: Cow<'a, Context>, request: &impl prost::Name) -> Cow<'a, Context> {
        match &self.told {
            Some(told) => told.sends(cx, request),
            None => cx,
        }
    }

    /// The answer is shown to whoever watches.
    pub fn receives<T: prost::Name>(&self, answer: &crate::Result<T>) {
        if let (Some(told), Ok(message)) = (&self.told, answer) {
            told.receives(message);
        }
    }

    /// Waits for somebody who goes through the calls step by step.
    pub async fn pause(&self, way: Way) {
        if let Some(pause) = self.told.as_ref().and_then(|told| told.pause(way)) {
            pause.await;
        }
    }

    /// Books the call.
    pub fn stop<T>(mut self, answer: &crate::Result<T>) {
        self.answered = true;
        self.book(answer.as_ref().err().map(|e| e.code));
    }

    fn book(&mut self, error: Option<Code>) {
        self.counter.book(self.started.elapsed(), error);
        if let Some(told) = self.told.take() {
            told.ended(error);
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.book(Some(Code::Canceled));
        }
    }
}

/// What one method has cost so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub service: &'static str,
    pub method: &'static str,
    pub calls: u64,
    pub errors: u64,
    /// Encoded bytes towards the core, and back.
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub time: Duration,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// The one who calls the core.
    #[default]
    Caller,
    /// The core, about all of its callers.
    Core,
}

type Registered = (&'static str, &'static str, Arc<Counter>);

/// All counters of one [`crate::Core`].
#[derive(Debug, Default, Clone)]
pub struct Meter {
    side: Side,
    counters: Arc<Mutex<Vec<Registered>>>,
}

impl Meter {
    /// Counters at one side of the ports.
    pub fn at(side: Side) -> Self {
        Self { side, ..Self::default() }
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Creates the counter of a method, `SERVICE.METHOD`; done once, when a port is wrapped.
    pub fn register(&self, call: &'static str) -> Arc<Counter> {
        let told_as = match self.side {
            Side::Caller => Some(call),
            Side::Core => None,
        };
        let counter = Arc::new(Counter { told_as, ..Counter::default() });
        let (service, method) = call.split_once('.').unwrap_or((call, ""));
        self.lock().push((service, method, counter.clone()));
        counter
    }

    /// Every method that was called at least once.
    pub fn samples(&self) -> Vec<Sample> {
        let sum = |counters: &[AtomicU64]| counters.iter().map(|c| c.load(Relaxed)).sum();
        self.lock()
            .iter()
            .map(|(service, method, c)| Sample {
                service,
                method,
                calls: c.calls.load(Relaxed),
                errors: sum(&c.errors),
                bytes_out: c.bytes_out.load(Relaxed),
                bytes_in: c.bytes_in.load(Relaxed),
                time: Duration::from_nanos(c.nanos.load(Relaxed)),
            })
            .filter(|s| s.calls > 0)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Registered>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
