//! How fast this shard takes in what changes hands, and how much of it is left: for people, so it is found out once a second only.

use super::Engine;
use crate::meter::{Meter, REPAIR_WINDOW};
use crate::replica::store::Store;
use crate::time::Instant;

/// As of the last look.
pub(super) struct Taking {
    meter: Meter,
    /// Bytes that had been taken in.
    bytes: u64,
    /// Bytes a second, lately.
    pub(super) rate: u64,
    pub(super) keys_left: u64,
}

impl Taking {
    /// Nothing has been taken in yet.
    pub(super) fn new() -> Taking {
        Taking { meter: Meter::over(REPAIR_WINDOW), bytes: 0, rate: 0, keys_left: 0 }
    }

    fn look(&mut self, now: Instant, bytes: u64, keys_left: u64) {
        self.meter.count(now, bytes.saturating_sub(self.bytes));
        self.bytes = bytes;
        self.rate = self.meter.rate(now) as u64;
        self.keys_left = keys_left;
    }
}

impl<S: Store> Engine<S> {
    /// Finds out what [`Engine::progress`] says of the rate and of what is left. To be called about once a second.
    pub fn look_at_taking(&mut self, now: Instant) {
        let (_, bytes) = self.replica.taken_in();
        let keys_left = self.reconciler.keys_left(&self.shard, &self.replica);
        self.taking.look(now, bytes, keys_left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_bytes_that_came_since_the_last_look() {
        let mut taking = Taking::new();
        for second in 20..=30 {
            taking.look(Instant(second * 1_000_000), 1_000 * (second - 20), 7);
        }
        assert_eq!((taking.rate, taking.keys_left), (1_000, 7));
        taking.look(Instant(60_000_000), 10_000, 0);
        assert_eq!((taking.rate, taking.keys_left), (0, 0));
    }
}
