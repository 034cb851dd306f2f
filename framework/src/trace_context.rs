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

#[cfg(test)]
#[cfg(feature = "otel")]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use std::sync::{Arc, Mutex};
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    /// Keeps the spans that have ended.
    #[derive(Clone, Debug, Default)]
    struct Ended(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Ended {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// What a process of its own traces while it works: its spans by name.
    fn traced<T>(work: impl FnOnce() -> T) -> (T, Vec<SpanData>) {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        let result = tracing::subscriber::with_default(subscriber, work);
        provider.shutdown().unwrap();
        let spans = ended.0.lock().unwrap().clone();
        (result, spans)
    }

    #[test]
    fn what_another_process_does_for_a_span_is_its_child() {
        let (parent, asked) = traced(|| trace_parent(&info_span!("attempt")).unwrap());
        let work = |parent: &str| {
            let span = info_span!("work");
            join_trace(&span, parent);
            span.in_scope(|| info_span!("inner").in_scope(|| ()));
        };
        let ((), done) = traced(|| work(&parent));
        let [asked] = &asked[..] else { panic!("{asked:?}") };
        let named = |name: &str| done.iter().find(|span| span.name == name).unwrap();
        let (work_span, inner) = (named("work"), named("inner"));
        assert_eq!(work_span.span_context.trace_id(), asked.span_context.trace_id());
        assert_eq!(work_span.parent_span_id, asked.span_context.span_id());
        assert_eq!(inner.parent_span_id, work_span.span_context.span_id());

        // What is no parent leaves the span where it is.
        let ((), alone) = traced(|| work("no parent"));
        let root = alone.iter().find(|span| span.name == "work").unwrap();
        assert_eq!(root.parent_span_id, SpanId::INVALID);
    }
}
