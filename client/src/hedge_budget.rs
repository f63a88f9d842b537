//! What may be spent on impatience: a token bucket.
//!
//! Asking a second node because the first is slow helps if one node is slow, and makes things worse if all are: then
//! everybody asks twice. So extra attempts are paid from a bucket that requests fill, a tenth of an attempt each, and
//! that holds only a few. Leaving a node that says nothing at all costs nothing: it is not working at
//! its requests.

use std::sync::atomic::{AtomicU32, Ordering};

/// Extra attempts beside one that is slow, which all requests of a client may still make.
pub(crate) struct HedgeBudget {
    /// In tenths of an attempt.
    tenths: AtomicU32,
}

impl HedgeBudget {
    pub(crate) fn new() -> HedgeBudget {
        HedgeBudget { tenths: AtomicU32::new(BURST * ATTEMPT) }
    }

    /// A request was made.
    pub(crate) fn earn(&self) {
        // Almost always full: then nothing is written that other threads read.
        if self.tenths.load(Ordering::Relaxed) < BURST * ATTEMPT {
            self.tenths.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes one attempt out, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| tenths.checked_sub(ATTEMPT)).is_ok()
    }
}

/// One attempt, in tenths: a request earns a tenth of one.
const ATTEMPT: u32 = 10;

/// A handful of slow requests at once, as one pause of one node makes them.
const BURST: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn spend_all(budget: &HedgeBudget) -> usize {
        (0..10_000).take_while(|_| budget.spend()).count()
    }

    #[test]
    fn extra_attempts_are_a_tenth_of_the_requests_and_a_small_burst() {
        let budget = HedgeBudget::new();
        assert_eq!(spend_all(&budget), 32);
        for _ in 0..105 {
            budget.earn();
        }
        assert_eq!(spend_all(&budget), 10);
        for _ in 0..100_000 {
            budget.earn();
        }
        assert_eq!(spend_all(&budget), 32, "what is not used is not saved up");
    }
}
