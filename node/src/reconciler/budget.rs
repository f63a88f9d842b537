//! How much may be sent: so many bytes a second on average, and little while clients suffer.

use std::time::Duration;

use crate::time::Instant;

/// A bucket of bytes that fills steadily. Spending may overdraw it; what is sent next waits until it is level.
#[derive(Debug)]
pub(super) struct Budget {
    rate: u64,
    level: i64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(rate: u64, now: Instant) -> Budget {
        Budget { rate, level: 0, at: now }
    }

    /// Another rate from now on.
    pub(super) fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// Whether something may be sent now. Under pressure only a trickle: a replica that never gets on never heals.
    pub(super) fn is_open(&mut self, now: Instant, pressed: bool) -> bool {
        let rate = self.rate_under(pressed);
        let gained = u128::from(rate) * now.since(self.at).as_micros() / 1_000_000;
        if gained > 0 {
            let burst = (u128::from(self.rate) * BURST.as_micros() / 1_000_000).max(1);
            let level = i128::from(self.level) + gained.min(1 << 62) as i128;
            self.level = level.min(burst as i128) as i64;
            self.at = now;
        }
        self.level > 0
    }

    /// When it will be, if nothing is spent.
    pub(super) fn opens_at(&self, pressed: bool) -> Instant {
        let missing = (1 - self.level).max(1) as u128;
        let micros = (missing * 1_000_000).div_ceil(u128::from(self.rate_under(pressed)));
        self.at + Duration::from_micros(micros.min(MICROS_MAX) as u64)
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub_unsigned(bytes as u64);
    }

    fn rate_under(&self, pressed: bool) -> u64 {
        if pressed { (self.rate / TRICKLE).max(1) } else { self.rate }
    }
}

/// What may be sent at once after silence.
const BURST: Duration = Duration::from_millis(50);

/// The part of the rate that is left under pressure.
const TRICKLE: u64 = 32;

/// A day: longer than any sensible rate makes anybody wait.
const MICROS_MAX: u128 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages of 1000 bytes get out in ten seconds.
    fn sent(rate: u64, pressed: bool) -> u64 {
        let (mut budget, mut now, mut sent) = (Budget::new(rate, Instant(5)), Instant(5), 0);
        while now < Instant(10_000_005) {
            while budget.is_open(now, pressed) {
                budget.spend(1_000);
                sent += 1;
            }
            let next = budget.opens_at(pressed);
            assert!(next > now, "it does not go in circles");
            now = next;
        }
        sent
    }

    #[test]
    fn the_average_is_kept_and_a_trickle_is_left_under_pressure() {
        assert!((9_990..=10_010).contains(&sent(1_000_000, false)));
        assert!((300..=320).contains(&sent(1_000_000, true)));
        assert!(sent(1, true) <= 1, "slower than anybody wants, but it comes to an end");
    }

    #[test]
    fn another_rate_counts_from_then_on() {
        let mut budget = Budget::new(1_000, Instant(0));
        assert!(budget.is_open(Instant(1_000_000), false));
        budget.spend(50 + 1_000_000);
        let slow = budget.opens_at(false);
        budget.set_rate(1_000_000);
        assert!(!budget.is_open(Instant(1_900_000), false) && budget.is_open(Instant(2_100_000), false));
        assert!(slow > Instant(1_000_000_000), "it would have been {slow:?}");
    }

    #[test]
    fn silence_saves_up_only_a_little() {
        let mut budget = Budget::new(1_000_000, Instant(0));
        let now = Instant(3_600_000_000);
        let mut sent = 0;
        while budget.is_open(now, false) {
            budget.spend(1_000);
            sent += 1;
        }
        assert_eq!(sent, 50);
    }
}
