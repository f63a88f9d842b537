//! Spans of `tracing` as parts of a trace, where a layer of OpenTelemetry records them.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TraceContext;

/// Makes the span a part of its parent's trace, if one is given, and tells under which name it is recorded: `None` if nobody records it. To
/// be called before the span is entered: where it belongs is settled then.
pub fn adopt(span: &Span, parent: Option<TraceContext>) -> Option<TraceContext> {
    if let Some(parent) = parent {
        let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, cause) = (TraceId::from_bytes(parent.trace_id), SpanId::from_bytes(parent.parent_id));
        let parent = SpanContext::new(trace, cause, flags, true, TraceState::NONE);
        // It fails if there is no such layer, or it does not want this span: then nobody records it.
        span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)).ok()?;
    }
    let context = span.context();
    let recorded = context.span().span_context().clone();
    recorded.is_valid().then(|| TraceContext {
        trace_id: recorded.trace_id().to_bytes(),
        parent_id: recorded.span_id().to_bytes(),
        sampled: recorded.is_sampled(),
    })
}
