//! Prometheus metrics of this process: the calls that the core has served, the steps of starting tasks, and in
//! `loopback` and `merged` what CRI counts as well.

use std::path::Path;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use shared_proto::meter::{BUCKETS, Meter};
use shared_telemetry::metrics::Registry;

/// How long the steps of a task's start take. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Steps(Family<Step, Histogram, Seconds>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    step: &'static str,
    /// The shim's program: `containerd-shim-runc-v2`.
    shim: String,
}

/// A histogram with the buckets of all our metrics.
#[derive(Debug, Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self(Family::new_with_constructor(Seconds))
    }
}

impl Steps {
    /// A step of a task of the shim whose program is `binary`, which began at `since` and has ended now.
    pub fn add(&self, step: &'static str, binary: &Path, since: Instant) {
        let took = since.elapsed();
        let shim = binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let step = Step { step, shim };
        self.0.get_or_create(&step).observe(took.as_secs_f64());
    }
}

/// What the core shows.
pub fn registry(served: Meter, steps: &Steps) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(served));
    registry.register("seam_task_step_seconds", "Duration of the steps of starting tasks", steps.0.clone());
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_by_shim() {
        let steps = Steps::default();
        steps.add("shim", Path::new("/usr/bin/containerd-shim-runc-v2"), Instant::now());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(Meter::default(), &steps)).unwrap();
        let line = r#"seam_task_step_seconds_bucket{le="+Inf",step="shim",shim="containerd-shim-runc-v2"} 1"#;
        assert!(text.contains(line), "{text}");
    }
}
