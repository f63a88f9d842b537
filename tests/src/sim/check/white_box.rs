//! No dot is stamped twice or seen before its batch was applied, no actor serves two lives of a node, a live actor's
//! counters have no gap, and what is live under a write id is not stamped again. Only tests can see this, which makes
//! it the earliest sign of most mistakes.

use super::{Evidence, Violation};

/// Repeats what the observer noticed on the way.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let wrong = evidence.observer.wrong.iter();
    wrong
        .map(|(slot, text)| Violation {
            promise: "dots",
            slot: slot.clone(),
            text: text.clone(),
        })
        .collect()
}
