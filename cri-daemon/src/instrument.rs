//! Where the time of a start went.
//!
//! A pod or container keeps the stages of the requests that made it, with the microseconds since the request came in.
//! The same stages are metrics, and spans where a collector is told.
//! Verbose status shows them (`info["timeline"]`): stages that overlap ran in parallel. It costs two clock readings a
//! stage. It is kept in memory only, so what an earlier daemon started has none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared_proto::trace;

use crate::metrics::Metrics;

/// The stages of one pod or container.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Vec<Stage>>);

/// One stage of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    pub stage: &'static str,
    /// What it was done to, where that matters: a plugin, an image. May be empty.
    pub detail: String,
    /// Microseconds from the request to the stage's begin, and its duration.
    pub start_us: u64,
    pub us: u64,
}

/// One request at work. Its own duration is a stage as well, written when this is dropped.
#[derive(Debug)]
pub struct Request<'a> {
    timeline: &'a Timeline,
    metrics: &'a Metrics,
    name: &'static str,
    came: Instant,
}

/// A stage under way; written when this is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    request: &'a Request<'a>,
    stage: &'static str,
    detail: String,
    began: Instant,
    _span: tracing::Span,
}

impl Timeline {
    /// A request for this object, which came in just now.
    pub fn request<'a>(&'a self, name: &'static str, metrics: &'a Metrics) -> Request<'a> {
        Request { timeline: self, metrics, name, came: Instant::now() }
    }

    /// All stages, in the order in which they ended.
    pub fn stages(&self) -> Vec<Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, stage: Stage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
    }
}

impl<'a> Request<'a> {
    /// Begins a stage, which ends when the guard is dropped.
    pub fn stage(&'a self, stage: &'static str) -> Running<'a> {
        self.stage_of(stage, String::new())
    }

    /// The same, with what it is done to.
    pub fn stage_of(&'a self, stage: &'static str, detail: impl Into<String>) -> Running<'a> {
        let detail = detail.into();
        let span = trace::stage(stage, &detail);
        Running { request: self, stage, detail, began: Instant::now(), _span: span }
    }

    /// Books a stage that somebody else measured.
    pub fn add(&self, stage: &'static str, detail: impl Into<String>, began: Instant, took: Duration) {
        let start_us = micros(began.saturating_duration_since(self.came));
        self.metrics.stage(self.name, stage, took);
        self.timeline.push(Stage { stage, detail: detail.into(), start_us, us: micros(took) });
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.add(self.name, "", self.came, self.came.elapsed());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.request.add(self.stage, std::mem::take(&mut self.detail), self.began, self.began.elapsed());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_lie_within_their_request() {
        let timeline = Timeline::default();
        {
            let metrics = Metrics::default();
            let request = timeline.request("RunPodSandbox", &metrics);
            let outer = request.stage_of("cni", "bridge");
            std::thread::sleep(Duration::from_millis(2));
            drop(request.stage("netns"));
            drop(outer);
        }
        let stages = timeline.stages();
        let names: Vec<_> = stages.iter().map(|s| s.stage).collect();
        assert_eq!(names, ["netns", "cni", "RunPodSandbox"]);
        assert!(stages[0].start_us >= 2000 && stages[1].us >= stages[0].us && stages[2].us >= stages[1].us);
        let json = serde_json::to_value(&stages[1]).unwrap();
        assert_eq!((json["stage"].as_str(), json["detail"].as_str()), (Some("cni"), Some("bridge")));
    }
}
