//! Spans across processes: the W3C trace context. Without the feature `otel` nobody traces, and this costs nothing.

use tracing::Span;

/// Where a span stands in its trace, as the value of a W3C `traceparent` header; `None` if nobody traces. Send it with
/// the work that another process does for the span, and give it to [`join_trace`] there.
pub fn trace_parent(span: &Span) -> Option<String> {
    context::parent(span)
}

/// Makes a span the child of one in another process, so that both are in one trace. Do it before the span is entered.
/// What is no `traceparent` changes nothing.
pub fn join_trace(span: &Span, parent: &str) {
    context::join(span, parent);
}

#[cfg(feature = "otel")]
mod context {
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use std::collections::HashMap;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    const HEADER: &str = "traceparent";

    pub(super) fn parent(span: &Span) -> Option<String> {
        let mut headers = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
        headers.remove(HEADER)
    }

    pub(super) fn join(span: &Span, parent: &str) {
        let headers = HashMap::from([(HEADER.to_owned(), parent.to_owned())]);
        let context = TraceContextPropagator::new().extract(&headers);
        if context.span().span_context().is_valid() {
            // A span that nobody records has no place in a trace.
            let _ = span.set_parent(context);
        }
    }
}

#[cfg(not(feature = "otel"))]
mod context {
    use tracing::Span;

    pub(super) fn parent(_: &Span) -> Option<String> {
        None
    }

    pub(super) fn join(_: &Span, _: &str) {}
}
