//! Counts what crosses the seam: calls, bytes and time, per method.
//!
//! Counters are plain atomics, created once per method and port; a call costs two clock readings and three additions.
//! Bytes are encoded message sizes and are counted only where messages are encoded: a plain call moves none.
//! Time is the caller's: from the call to its answer, or to the first item's stream for streaming methods.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Counters of one method.
#[derive(Debug, Default)]
pub struct Counter {
    calls: AtomicU64,
    errors: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
    nanos: AtomicU64,
}

impl Counter {
    /// Starts the clock of one call.
    pub fn start(&self) -> Timer<'_> {
        Timer { counter: self, started: Instant::now() }
    }
    /// Adds bytes sent towards the core.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }
    /// Adds bytes received from the core.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }
}

/// A running call; see [`Counter::start`].
pub struct Timer<'a> {
    counter: &'a Counter,
    started: Instant,
}

impl Timer<'_> {
    /// Books the call.
    pub fn stop(self, failed: bool) {
        self.counter.calls.fetch_add(1, Relaxed);
        self.counter.errors.fetch_add(u64::from(failed), Relaxed);
        self.counter.nanos.fetch_add(self.started.elapsed().as_nanos() as u64, Relaxed);
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

type Registered = (&'static str, &'static str, Arc<Counter>);

/// All counters of one [`crate::Core`].
#[derive(Debug, Default, Clone)]
pub struct Meter(Arc<Mutex<Vec<Registered>>>);

impl Meter {
    /// Creates the counter of a method; done once, when a port is wrapped.
    pub fn register(&self, service: &'static str, method: &'static str) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.0.lock().expect("meter lock").push((service, method, counter.clone()));
        counter
    }

    /// Every method that was called at least once.
    pub fn samples(&self) -> Vec<Sample> {
        let registered = self.0.lock().expect("meter lock");
        registered
            .iter()
            .map(|(service, method, c)| Sample {
                service,
                method,
                calls: c.calls.load(Relaxed),
                errors: c.errors.load(Relaxed),
                bytes_out: c.bytes_out.load(Relaxed),
                bytes_in: c.bytes_in.load(Relaxed),
                time: Duration::from_nanos(c.nanos.load(Relaxed)),
            })
            .filter(|s| s.calls > 0)
            .collect()
    }
}
