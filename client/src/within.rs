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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Looks at spans, or does not, and counts how often one is entered.
    struct Counting {
        looks: bool,
        entered: Arc<AtomicUsize>,
    }

    impl Subscriber for Counting {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            self.looks
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {
            self.entered.fetch_add(1, Ordering::Relaxed);
        }

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_span_is_entered_at_each_poll_if_somebody_looks_and_never_otherwise() {
        for (looks, expected) in [(true, 2), (false, 0)] {
            let entered = Arc::new(AtomicUsize::new(0));
            let answer = tracing::subscriber::with_default(Counting { looks, entered: Arc::clone(&entered) }, || {
                let mut polls = 0;
                let twice = poll_fn(|context| {
                    polls += 1;
                    context.waker().wake_by_ref();
                    if polls == 2 { Poll::Ready("done") } else { Poll::Pending }
                });
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
                runtime.block_on(within(tracing::debug_span!("request"), pin!(twice)))
            });
            assert_eq!((answer, entered.load(Ordering::Relaxed)), ("done", expected), "looks: {looks}");
        }
    }
}
