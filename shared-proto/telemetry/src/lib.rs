//! Logs, traces and metrics of both daemons.
//!
//! **Logs** go to standard error: as text, for journald with a priority instead of colours and the time, or as JSON.
//! **Spans** go to an OpenTelemetry collector (OTLP over gRPC) when one is named, by the configuration or by the usual
//! variables `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_ENDPOINT`; without one no span is recorded
//! for it and nothing is paid. **[`metrics`]** are served over HTTP.

#![forbid(unsafe_code)]

mod journal;
pub mod metrics;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variables that turn traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The variable that decides which traces are kept, over the configuration.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// What the exporter is not told of: the transport's spans, its own among them.
const NOT_TRACED: &str = "h2=off,hyper=off,hyper_util=off,tower=off,tonic=off,reqwest=off,rustls=off,opentelemetry=off";

/// What the daemon's configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// `trace`, `debug`, `info`, `warn` or `error`. `RUST_LOG` overrides it, module by module.
    pub level: &'a str,
    /// `text` or `json`.
    pub format: &'a str,
    /// Where spans go: a URL, or `HOST:PORT`; empty = where the environment says, if it does.
    pub traces: &'a str,
    /// Share of traces that are kept, from 0 to 1.
    pub sampling: f64,
}

/// Keeps the exporter alive; dropping it sends what is left.
#[must_use = "spans are lost when this is dropped early"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Sets up logs and spans. Must be called inside a tokio runtime, once.
pub fn init(service: &'static str, settings: Settings<'_>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter(settings.level));
    let provider = exporter(service, settings)?;
    let spans = provider.as_ref().map(|p| {
        let traced = EnvFilter::new(format!("info,seam=trace,{NOT_TRACED}"));
        tracing_opentelemetry::layer().with_location(false).with_tracer(p.tracer(service)).with_filter(traced)
    });

    let stderr = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(spans);
    let done = match settings.format {
        "json" => registry.with(stderr().json().with_filter(filter)).try_init(),
        _ if journal::reads_stderr() => {
            let format = journal::Prioritized(tracing_subscriber::fmt::format().without_time().with_ansi(false));
            registry.with(stderr().with_ansi(false).event_format(format).with_filter(filter)).try_init()
        }
        _ => registry.with(stderr().with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).try_init(),
    };
    done.context("set up logging")?;
    Ok(Telemetry(provider))
}

/// Our own modules at `level`; the seam's spans and the transport's chatter only when asked for by `trace`.
fn default_filter(level: &str) -> EnvFilter {
    match level {
        "trace" => EnvFilter::new("trace"),
        level => EnvFilter::new(format!("{level},h2=warn,hyper=warn,tower=warn,tonic=warn,reqwest=warn,rustls=warn")),
    }
}

fn exporter(service: &'static str, settings: Settings<'_>) -> anyhow::Result<Option<SdkTracerProvider>> {
    let named = ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if settings.traces.is_empty() && !named {
        return Ok(None);
    }
    let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    if !settings.traces.is_empty() {
        exporter = exporter.with_endpoint(url(settings.traces));
    }
    let exporter = exporter.build().context("set up the trace exporter")?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name(service).build();
    let mut provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
    if std::env::var_os(SAMPLER).is_none() {
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sampling)));
        provider = provider.with_sampler(sampler);
    }
    Ok(Some(provider.build()))
}

/// containerd's users write `HOST:PORT`.
fn url(endpoint: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") }
}

impl Telemetry {
    /// Whether spans go anywhere.
    pub fn traces(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(e) = provider.shutdown()
        {
            eprintln!("traces that were not sent are lost: {e}");
        }
    }
}
