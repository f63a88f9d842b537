//! How much of something comes by in a second, of late.

use std::time::Duration;

use crate::time::Instant;

/// Counts, and says the rate over the last window of time. It has none before one is full, and forgets what is older.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    window: Duration,
    since: Instant,
    counted: u64,
    last: f64,
}

impl Meter {
    /// Nothing has come by yet.
    pub(crate) fn over(window: Duration) -> Meter {
        Meter { window, since: Instant::default(), counted: 0, last: 0.0 }
    }

    /// So much has come by.
    pub(crate) fn count(&mut self, now: Instant, amount: u64) {
        self.roll(now);
        self.counted = self.counted.saturating_add(amount);
    }

    /// A second's worth, of late.
    pub(crate) fn rate(mut self, now: Instant) -> f64 {
        self.roll(now);
        self.last
    }

    fn roll(&mut self, now: Instant) {
        let past = now.since(self.since);
        if past >= self.window {
            self.last = if past < 2 * self.window { self.counted as f64 / past.as_secs_f64() } else { 0.0 };
            self.since = now;
            self.counted = 0;
        }
    }
}

/// Over what time what anti-entropy moves is counted.
pub(crate) const REPAIR_WINDOW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Instant {
        Instant(second * 1_000_000)
    }

    #[test]
    fn the_rate_is_that_of_the_window_before_and_ends_with_what_it_counts() {
        let mut meter = Meter::over(Duration::from_secs(5));
        for at in 20..25 {
            meter.count(second(at), 300);
        }
        assert_eq!(meter.rate(second(24)), 0.0, "no window is full yet");
        assert_eq!(meter.rate(second(25)), 300.0);
        meter.count(second(26), 50);
        assert_eq!(meter.rate(second(29)), 250.0, "1500 in 6 s");
        assert_eq!(meter.rate(second(40)), 0.0);
    }
}
