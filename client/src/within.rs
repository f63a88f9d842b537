//! Spans of requests, which cost nothing while nobody looks at them.

use std::future::poll_fn;
use std::pin::Pin;

use tracing::Span;

/// Carries a future out within a span. Other than `Instrument` it leaves the future where it is, which may be two kilobytes, and
/// does not enter a span that is disabled.
pub(crate) fn within<F: Future>(span: Span, mut future: Pin<&mut F>) -> impl Future<Output = F::Output> {
    poll_fn(move |context| match span.is_disabled() {
        true => future.as_mut().poll(context),
        false => span.in_scope(|| future.as_mut().poll(context)),
    })
}
