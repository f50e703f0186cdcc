//! What the CRI side counts beside the calls on its ports: its own calls, the stages of starts, CNI plugins.
//!
//! Everything is a histogram in seconds or a count, under the names of `docs/metrics.md`. Labels have few values: RPCs,
//! stages, plugins and codes, never ids.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use shared_proto::Code;
use shared_proto::meter::{BUCKETS, Meter};

/// All of it. Clones share the numbers.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    calls: Family<Rpc, Histogram, Seconds>,
    errors: Family<Failed, Counter>,
    running: Family<Rpc, Gauge>,
    stages: Family<Stage, Histogram, Seconds>,
    plugins: Family<Plugin, Histogram, Seconds>,
    plugin_errors: Family<Plugin, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rpc {
    rpc: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    rpc: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    request: &'static str,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    network: String,
    plugin: String,
    command: &'static str,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            calls: Family::new_with_constructor(Seconds),
            errors: Family::default(),
            running: Family::default(),
            stages: Family::new_with_constructor(Seconds),
            plugins: Family::new_with_constructor(Seconds),
            plugin_errors: Family::default(),
        }
    }
}

/// A histogram with the buckets of all our metrics.
#[derive(Debug, Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// A call under way; it is counted when this is dropped, as `Canceled` unless [`Running::ended`] said otherwise.
pub(crate) struct Running<'a> {
    metrics: &'a Metrics,
    rpc: &'static str,
    began: std::time::Instant,
    error: Option<Code>,
}

impl Metrics {
    /// Adds everything, with the calls on the ports, to what a server shows.
    pub fn register(&self, meter: Meter, registry: &mut Registry) {
        let all = &*self.0;
        registry.register("seam_cri_call_seconds", "Duration of CRI calls", all.calls.clone());
        registry.register("seam_cri_errors", "CRI calls that were answered with an error", all.errors.clone());
        registry.register("seam_cri_calls_running", "CRI calls under way", all.running.clone());
        let stages = "Duration of the stages of starting pods and containers";
        registry.register("seam_cri_stage_seconds", stages, all.stages.clone());
        registry.register("seam_cni_plugin_seconds", "Duration of executions of CNI plugins", all.plugins.clone());
        let failed = "Executions of CNI plugins that failed";
        registry.register("seam_cni_plugin_errors", failed, all.plugin_errors.clone());
        registry.register_collector(Box::new(meter));
    }

    /// A CRI call that has come in.
    pub(crate) fn call(&self, rpc: &'static str) -> Running<'_> {
        self.0.running.get_or_create(&Rpc { rpc }).inc();
        Running { metrics: self, rpc, began: std::time::Instant::now(), error: Some(Code::Canceled) }
    }

    /// A stage of a start that has ended.
    pub(crate) fn stage(&self, request: &'static str, stage: &'static str, took: Duration) {
        self.0.stages.get_or_create(&Stage { request, stage }).observe(took.as_secs_f64());
    }

    /// A CNI plugin that has ended.
    pub(crate) fn plugin(&self, network: &str, plugin: &str, command: &'static str, took: Duration, failed: bool) {
        let labels = Plugin { network: network.to_owned(), plugin: plugin.to_owned(), command };
        self.0.plugins.get_or_create(&labels).observe(took.as_secs_f64());
        if failed {
            self.0.plugin_errors.get_or_create(&labels).inc();
        }
    }
}

impl Running<'_> {
    /// What the answer is.
    pub fn ended(&mut self, error: Option<Code>) {
        self.error = error;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let all = &*self.metrics.0;
        let rpc = self.rpc;
        all.running.get_or_create(&Rpc { rpc }).dec();
        all.calls.get_or_create(&Rpc { rpc }).observe(self.began.elapsed().as_secs_f64());
        if let Some(code) = self.error {
            all.errors.get_or_create(&Failed { rpc, code: code.name() }).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_shown() {
        let metrics = Metrics::default();
        metrics.call("Version").ended(None);
        metrics.call("Status").ended(Some(Code::Unavailable));
        let under_way = metrics.call("ExecSync");
        drop(metrics.call("PullImage"));
        metrics.stage("RunPodSandbox", "cni", Duration::from_millis(30));
        metrics.plugin("pods", "bridge", "ADD", Duration::from_millis(20), true);
        let mut registry = Registry::default();
        metrics.register(Meter::default(), &mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"seam_cri_call_seconds_count{rpc="Version"} 1"#,
            r#"seam_cri_errors_total{rpc="Status",code="Unavailable"} 1"#,
            r#"seam_cri_errors_total{rpc="PullImage",code="Canceled"} 1"#,
            r#"seam_cri_calls_running{rpc="ExecSync"} 1"#,
            r#"seam_cri_calls_running{rpc="Version"} 0"#,
            r#"seam_cri_stage_seconds_bucket{le="0.05",request="RunPodSandbox",stage="cni"} 1"#,
            r#"seam_cri_stage_seconds_bucket{le="0.025",request="RunPodSandbox",stage="cni"} 0"#,
            r#"seam_cni_plugin_seconds_count{network="pods",plugin="bridge",command="ADD"} 1"#,
            r#"seam_cni_plugin_errors_total{network="pods",plugin="bridge",command="ADD"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"rpc="Version",code"#), "{text}");
        drop(under_way);
    }
}
