//! What can be seen of requests from outside: a span for each, one below it for each of its attempts, and what is counted.
//!
//! ```text
//! update {bucket}
//!  ├─ get {bucket, partition, node, attempts, outcome}
//!  │   └─ attempt {number, node, outcome}
//!  └─ put …
//!      ├─ attempt {number, node, outcome, cause}
//!      └─ attempt …
//! ```
//! They are of the level *debug*, and no key or value is in them. While nobody looks at them, they are neither made nor entered.

use std::future::poll_fn;
use std::pin::Pin;

#[cfg(feature = "otel")]
use driftless_proto::trace::otel;
use driftless_proto::{Outcome, TraceContext};
use driftless_ring::PartitionId;
use tracing::field::Empty;
use tracing::{Level, Span, field};

use crate::counts::{Counted, Ended, Operation};
use crate::error::{Cause, DeleteError, GetError, PutError, RequestError, ScanError};

/// How the errors of an operation are told.
pub(crate) trait Failed {
    fn outcome(&self) -> Outcome;
    fn request(&self) -> Option<&RequestError>;
}

macro_rules! failed {
    ($($error:ty),+) => {$(
        impl Failed for $error {
            fn outcome(&self) -> Outcome {
                <$error>::outcome(self)
            }

            fn request(&self) -> Option<&RequestError> {
                <$error>::request(self)
            }
        }
    )+};
}

failed!(GetError, PutError, DeleteError, ScanError);

/// Carries a request out as one of an operation. Its future is left where it is, since it may be two kilobytes.
pub(crate) async fn watched<T, E: Failed>(
    operation: Operation,
    bucket: &str,
    trace: Option<TraceContext>,
    request: Pin<&mut impl Future<Output = Result<T, E>>>,
) -> Result<T, E> {
    let (span, counted) = (span_of(operation, bucket), Counted::begin(operation));
    #[cfg(feature = "otel")]
    if trace.is_some() && !span.is_disabled() {
        otel::adopt(&span, trace);
    }
    if let Some(trace) = trace
        && !span.is_disabled()
    {
        span.record("trace", trace.trace_text());
    }
    let result = within(&span, request).await;
    let ended = ended(&result);
    counted.ended(ended);
    if !span.is_disabled() {
        span.record("outcome", ended.name());
        if let Err(error) = &result
            && let Some(request) = error.request()
        {
            span.record("attempts", request.attempts());
        }
    }
    result
}

/// Carries a future out within a span, which is not entered if it is disabled.
pub(crate) fn within<F: Future>(span: &Span, mut future: Pin<&mut F>) -> impl Future<Output = F::Output> {
    poll_fn(move |context| match span.is_disabled() {
        true => future.as_mut().poll(context),
        false => span.in_scope(|| future.as_mut().poll(context)),
    })
}

/// The place in a trace of what the request that is being carried out causes, if it has one that is recorded: below its own span where
/// OpenTelemetry records that, else the one that it was given.
pub(crate) fn trace(given: Option<TraceContext>) -> Option<TraceContext> {
    #[cfg(feature = "otel")]
    let given = {
        let span = Span::current();
        let recorded = otel::adopt(&span, None);
        // Another span than the request's own is of the program around it, which has said what counts.
        if given.is_some() && !is_of_request(&span) { given } else { recorded.or(given) }
    };
    given.filter(|trace| trace.sampled)
}

/// The request that is being carried out goes to this partition.
pub(crate) fn note_partition(partition: impl FnOnce() -> Option<PartitionId>) {
    note(|span| {
        if let Some(partition) = partition() {
            span.record("partition", field::display(partition));
        }
    });
}

/// This node has answered the request that is being carried out, after so many attempts.
pub(crate) fn note_answered(node: &str, attempts: u32) {
    note(|span| {
        span.record("node", node).record("attempts", attempts);
    });
}

/// An attempt, as it is seen from outside.
pub(crate) struct WatchedAttempt(Span);

impl Default for WatchedAttempt {
    /// One that nobody looks at.
    fn default() -> WatchedAttempt {
        WatchedAttempt(Span::none())
    }
}

impl WatchedAttempt {
    /// Below the request that is being carried out.
    pub(crate) fn begin(number: u32) -> WatchedAttempt {
        WatchedAttempt(tracing::debug_span!(
            target: TARGET, "attempt", number, node = Empty, outcome = Empty, cause = Empty
        ))
    }

    pub(crate) fn ended(&mut self, node: &str, cause: Option<&Cause>) {
        let span = std::mem::replace(&mut self.0, Span::none());
        if span.is_disabled() {
            return;
        }
        span.record("node", node);
        match cause {
            None => span.record("outcome", Ended::Ok.name()),
            Some(cause) => span.record("outcome", of_cause(cause).name()).record("cause", field::display(cause)),
        };
    }

    /// Another attempt was answered first.
    pub(crate) fn overtaken(&mut self, node: &str) {
        if !self.0.is_disabled() {
            self.0.record("node", node).record("outcome", "overtaken");
        }
    }
}

/// A span has its name from where it is made.
fn span_of(operation: Operation, bucket: &str) -> Span {
    macro_rules! span {
        ($name:literal) => {
            tracing::debug_span!(
                target: TARGET, $name, bucket, trace = Empty, partition = Empty, node = Empty, attempts = Empty, outcome = Empty,
                otel.kind = "client"
            )
        };
    }
    match operation {
        Operation::Get => span!("get"),
        Operation::Put => span!("put"),
        Operation::Delete => span!("delete"),
        Operation::Scan => span!("scan"),
    }
}

/// Says more about the request that is being carried out, if somebody looks at it: to its span, which is the innermost one.
fn note(say: impl FnOnce(&Span)) {
    if !tracing::enabled!(target: TARGET, Level::DEBUG) {
        return;
    }
    let span = Span::current();
    if is_of_request(&span) {
        say(&span);
    }
}

fn is_of_request(span: &Span) -> bool {
    span.metadata().is_some_and(|metadata| metadata.target() == TARGET)
}

fn ended<T, E: Failed>(result: &Result<T, E>) -> Ended {
    let Err(error) = result else { return Ended::Ok };
    match (error.outcome(), error.request().map(RequestError::cause)) {
        (Outcome::Unknown, _) => Ended::Unknown,
        (Outcome::Refused, Some(Cause::TimedOut { .. } | Cause::OutOfTime { .. } | Cause::Busy { .. })) => {
            Ended::Deadline
        }
        (Outcome::Refused, _) => Ended::Refused,
    }
}

fn of_cause(cause: &Cause) -> Ended {
    match (cause.outcome(), cause) {
        (_, Cause::TimedOut { .. }) => Ended::Deadline,
        (Outcome::Unknown, _) => Ended::Unknown,
        (Outcome::Refused, _) => Ended::Refused,
    }
}

/// Of all that this module shows.
const TARGET: &str = "driftless_client::request";

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
            let _looking = driftless_testkit::looking::look(Counting { looks, entered: Arc::clone(&entered) });
            let mut polls = 0;
            let twice = poll_fn(|context| {
                polls += 1;
                context.waker().wake_by_ref();
                if polls == 2 { Poll::Ready("done") } else { Poll::Pending }
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
            let answer = runtime.block_on(within(&tracing::debug_span!("request"), pin!(twice)));
            assert_eq!((answer, entered.load(Ordering::Relaxed)), ("done", expected), "looks: {looks}");
        }
    }
}
