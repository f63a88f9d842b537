//! Whether a write was made more than once: then two coordinators may have stamped it, and one of the stamps may come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use driftless_client::{Decision, DefaultRetry, FailedAttempt, RetryPolicy};

/// The usual policy, which notes that it was followed. Hedges are not its business, and are not noted.
#[derive(Debug)]
pub(crate) struct NotedRetry {
    policy: DefaultRetry,
    hedges: bool,
    again: Arc<AtomicBool>,
}

impl NotedRetry {
    /// Sets `again` when it makes another attempt.
    pub(crate) fn new(hedges: bool, again: &Arc<AtomicBool>) -> NotedRetry {
        NotedRetry { policy: DefaultRetry::new(), hedges, again: Arc::clone(again) }
    }
}

impl RetryPolicy for NotedRetry {
    fn decide(&self, failed: &FailedAttempt<'_>) -> Decision {
        let decision = self.policy.decide(failed);
        if decision != Decision::GiveUp {
            self.again.store(true, Ordering::SeqCst);
        }
        decision
    }

    fn hedges(&self) -> bool {
        self.hedges
    }
}
