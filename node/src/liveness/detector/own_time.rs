//! Time in which the detector could have acted.

use std::time::Duration;

use crate::time::Instant;

/// A clock that stands still for as long as this process did not get to run. What others did not say while nobody was
/// listening is not held against them.
#[derive(Debug)]
pub(super) struct OwnTime {
    /// By how much this clock is behind the real one.
    lag: Duration,
    /// What it showed last; it never goes back.
    latest: Instant,
}

impl OwnTime {
    pub(super) fn new(now: Instant) -> OwnTime {
        OwnTime { lag: Duration::ZERO, latest: now }
    }

    /// What this clock shows now.
    pub(super) fn read(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now - self.lag);
        self.latest
    }

    /// Stands still for so long.
    pub(super) fn lose(&mut self, time: Duration) {
        self.lag += time;
    }

    /// When the real clock shows what this one shows `then`.
    pub(super) fn real(&self, then: Instant) -> Instant {
        then + self.lag
    }
}
