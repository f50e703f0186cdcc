//! Spans of the calls on ports, and how a trace crosses the seam.
//!
//! A call has two spans: `port/...` at the caller, `core/...` around the core's service. The caller's goes into
//! [`Context::traceparent`], as the W3C header of that name writes it; over gRPC it is that header, by plain call the
//! field. So in every wiring the service's span is the child of the port's, which is the child of whatever the caller
//! was doing.
//!
//! The spans have the target [`TARGET`], which the logs leave out and the trace exporter takes. Without an exporter
//! they are disabled, and nothing is paid.

use std::borrow::Cow;

use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::Context;

/// The target of all spans at the seam.
pub const TARGET: &str = "seam";

/// The span of a call that is about to be made, which becomes the parent of what the callee does.
pub fn caller<'a>(service: &'static str, method: &'static str, cx: &'a Context) -> (Span, Cow<'a, Context>) {
    let span = tracing::trace_span!(target: TARGET, "port", otel.name = tracing::field::Empty, otel.kind = "client");
    if !span.is_disabled() {
        span.record("otel.name", format!("port/{service}.{method}"));
        if let Some(parent) = header(&span.context()) {
            return (span, Cow::Owned(Context { traceparent: Some(parent), ..cx.clone() }));
        }
    }
    (span, Cow::Borrowed(cx))
}

/// The span of a call that has come in.
pub fn served(service: &'static str, method: &'static str, cx: &Context) -> Span {
    let span = tracing::trace_span!(target: TARGET, "core", otel.name = tracing::field::Empty, otel.kind = "server");
    if !span.is_disabled() {
        span.record("otel.name", format!("core/{service}.{method}"));
        if let Some(parent) = cx.traceparent.as_deref().and_then(parent) {
            // Fails only where nobody collects spans.
            let _ = span.set_parent(OtelContext::new().with_remote_span_context(parent));
        }
    }
    span
}

/// Gives the span of a request from outside its name, and the sender's span as its parent. To be called before the
/// span is entered.
pub fn came_in(span: &Span, name: impl FnOnce() -> String, cx: &Context) {
    if let Some(parent) = cx.traceparent.as_deref().and_then(parent) {
        // Fails only where nobody collects spans.
        let _ = span.set_parent(OtelContext::new().with_remote_span_context(parent));
    }
    let context = span.context();
    if context.span().span_context().is_valid() {
        context.span().update_name(name());
    }
}

/// The span of a stage of a start; it ends when it is dropped.
pub fn stage(name: &'static str, detail: &str) -> Span {
    let span = tracing::trace_span!(target: TARGET, "stage", otel.name = tracing::field::Empty, detail);
    if !span.is_disabled() {
        span.record("otel.name", format!("stage/{name}"));
    }
    span
}

/// The span's place in its trace, as the header writes it; `None` where nobody collects spans.
fn header(context: &OtelContext) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    let flags = span.trace_flags().to_u8();
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// Reads a header; what is malformed counts as absent.
fn parent(header: &str) -> Option<SpanContext> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Later versions may append parts, this one not.
    let sized = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    if !sized || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_it_is_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let span = parent(text).unwrap();
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(header(&OtelContext::new().with_remote_span_context(span)).unwrap(), text);
        assert!(parent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later").is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-xaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(parent(bad).is_none(), "{bad}");
        }
        assert!(header(&OtelContext::new()).is_none());
    }
}
