//! Logs and traces of both daemons.
//!
//! Logs go to standard error: as text, without colours and times where journald adds its own, or as JSON. Spans go to
//! an OpenTelemetry collector when one is named by the usual variable, `OTEL_EXPORTER_OTLP_ENDPOINT`; without it no
//! span is recorded and nothing is paid.

#![forbid(unsafe_code)]

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variable that turns traces on.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Keeps the exporter alive; dropping it sends what is left.
#[must_use = "spans are lost when this is dropped early"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Sets up logs at `level` in `format` (`text` or `json`). `RUST_LOG` overrides the level, module by module.
///
/// Must be called inside a tokio runtime, once.
pub fn init(service: &'static str, level: &str, format: &str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter(level));
    let provider = std::env::var_os(ENDPOINT).map(|_| exporter(service)).transpose()?;
    let spans = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(service)));

    let stderr = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = tracing_subscriber::registry().with(filter).with(spans);
    let done = match format {
        "json" => registry.with(stderr().json()).try_init(),
        _ if journal => registry.with(stderr().with_ansi(false).without_time()).try_init(),
        _ => registry.with(stderr().with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
    done.context("set up logging")?;
    Ok(Telemetry(provider))
}

/// Our own modules at `level`; the transport's chatter only when asked for by `trace`.
fn default_filter(level: &str) -> EnvFilter {
    match level {
        "trace" => EnvFilter::new("trace"),
        level => EnvFilter::new(format!("{level},h2=warn,hyper=warn,tower=warn,tonic=warn,reqwest=warn,rustls=warn")),
    }
}

fn exporter(service: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context("set up the trace exporter")?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
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
