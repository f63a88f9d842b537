//! What a change has moved, and what it need have moved.

use std::time::Duration;

use crate::fleet::Struck;

/// What a change moved.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) name: String,
    pub(super) changes: Vec<String>,
    pub(super) slots: u64,
    pub(super) slots_moved: u64,
    pub(super) slots_minimum: u64,
    /// As the plan estimates.
    pub(super) bytes_planned: u64,
    /// Taken in by all nodes, that were seen to be: what came in the tenth of a second before a kill is not.
    pub(super) bytes_taken: u64,
    pub(super) keys_taken: u64,
    /// From the commit until it was settled.
    pub(super) took: Duration,
    pub(super) struck: Vec<Struck<Duration>>,
}

impl Moved {
    /// Who was killed, in words.
    pub(super) fn kills(&self) -> impl Iterator<Item = String> {
        self.struck
            .iter()
            .map(|struck| format!("kill -9 of {struck}; started again after {} ms", struck.victim().how.as_millis()))
    }

    /// By how many percent more was moved than must be.
    pub(super) fn over_minimum(&self) -> f64 {
        let over = self.slots_moved.saturating_sub(self.slots_minimum);
        // Nothing need be moved, and something was: infinitely more.
        if over == 0 { 0.0 } else { over as f64 * 100.0 / self.slots_minimum as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_minimum_is_told_in_percent() {
        let moved = |slots_moved, slots_minimum| Moved {
            name: String::new(),
            changes: Vec::new(),
            slots: 768,
            slots_moved,
            slots_minimum,
            bytes_planned: 0,
            bytes_taken: 0,
            keys_taken: 0,
            took: Duration::ZERO,
            struck: Vec::new(),
        };
        assert!(moved(192, 192).over_minimum().abs() < 1e-9);
        assert!((moved(210, 200).over_minimum() - 5.0).abs() < 1e-9);
        assert!(moved(1, 0).over_minimum().is_infinite());
    }
}
