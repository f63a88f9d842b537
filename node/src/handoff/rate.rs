//! How fast one target is given its hints: faster while it keeps up, half as fast when it does not.

use std::time::Duration;

use crate::time::Instant;

/// Keys per second for one target, with feedback from it.
#[derive(Debug)]
pub(super) struct DeliveryRate {
    /// Keys per second.
    rate: u64,
    /// What acknowledgements have earned towards the next key per second.
    credit: u64,
    /// When the next key is due if all are sent evenly.
    due: Instant,
    /// Until when the target wants to be left alone.
    not_before: Instant,
    /// The shortest time to an acknowledgement, growing slowly so that an old one does not count for ever.
    best: Option<Duration>,
    /// The time to an acknowledgement lately.
    usual: Duration,
    slowed_at: Instant,
}

impl DeliveryRate {
    pub(super) fn new() -> DeliveryRate {
        DeliveryRate {
            rate: RATE_FIRST,
            credit: 0,
            due: Instant::default(),
            not_before: Instant::default(),
            best: None,
            usual: Duration::ZERO,
            slowed_at: Instant::default(),
        }
    }

    /// Whether one more key may go now.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        now >= self.not_before && self.due <= now + BURST
    }

    /// When some may go again.
    pub(super) fn ready_at(&self) -> Instant {
        self.not_before.max(self.due - BURST / 2)
    }

    /// One key goes.
    pub(super) fn sent(&mut self, now: Instant) {
        self.due = self.due.max(now) + Duration::from_micros(1_000_000 / self.rate);
    }

    /// A key has arrived, so long after it was sent.
    pub(super) fn acked(&mut self, now: Instant, took: Duration) {
        let best = self.best.map_or(took, |best| took.min(best + best / 1024));
        self.best = Some(best);
        self.usual = if self.usual.is_zero() { took } else { (self.usual * 7 + took) / 8 };
        if self.usual > (best * SLOW_FACTOR).max(SLOW_MIN) {
            if now.since(self.slowed_at) > SLOWED_FOR {
                self.slow_down(now, RATE_SLOW);
            }
            return;
        }
        self.credit += RATE_STEP;
        self.rate = (self.rate + self.credit / self.rate).min(RATE_MAX);
        self.credit %= self.rate;
    }

    /// The target has too much to do.
    pub(super) fn overloaded(&mut self, now: Instant, retry_after: Duration) {
        self.not_before = now + retry_after.min(RETRY_AFTER_MAX);
        self.slow_down(now, RATE_MIN);
    }

    fn slow_down(&mut self, now: Instant, least: u64) {
        self.rate = (self.rate / 2).max(least.min(self.rate));
        self.slowed_at = now;
    }
}

/// Keys per second at first: ten thousand keys in five seconds, though all holders of hints begin at once.
const RATE_FIRST: u64 = 1_000;

/// What a second without complaint adds.
const RATE_STEP: u64 = 500;

/// More from each of several holders would be felt by the target's clients, however quickly it answers.
const RATE_MAX: u64 = 4_000;

/// Slow answers alone do not slow delivery down further: ten thousand keys would take more than twenty seconds.
const RATE_SLOW: u64 = 500;

/// Nor does a target that says that it is overloaded.
const RATE_MIN: u64 = 50;

/// How much of the next moment may be used up at once, so that one wake-up serves many keys.
const BURST: Duration = Duration::from_millis(20);

/// Answers are slow when they take so many times the best...
const SLOW_FACTOR: u32 = 3;

/// ...and more than this: below it a client would not notice.
const SLOW_MIN: Duration = Duration::from_millis(10);

/// For so long slow answers are those of before it slowed down.
const SLOWED_FOR: Duration = Duration::from_millis(500);

/// A target may not stop delivery for longer than this by one answer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(60_000_000);

    /// Sends whenever it may for a second, with acknowledgements after `took`; answers how many keys went.
    fn second(pace: &mut DeliveryRate, from: Instant, took: Duration) -> u64 {
        let mut sent = 0;
        for micros in 0..1_000_000 / 500 {
            let now = from + Duration::from_micros(micros * 500);
            while pace.may_send(now) {
                pace.sent(now);
                pace.acked(now, took);
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn it_grows_by_a_step_a_second_while_the_target_keeps_up() {
        let mut pace = DeliveryRate::new();
        let first = second(&mut pace, START, Duration::from_millis(3));
        assert!((RATE_FIRST..RATE_FIRST + RATE_STEP).contains(&first), "{first}");
        let second = second(&mut pace, START + Duration::from_secs(1), Duration::from_millis(3));
        assert!((first + RATE_STEP / 2..first + 2 * RATE_STEP).contains(&second), "{second}");
    }

    #[test]
    fn an_overloaded_target_is_left_alone_and_then_given_half() {
        let mut pace = DeliveryRate::new();
        pace.overloaded(START, Duration::from_millis(50));
        assert!(!pace.may_send(START + Duration::from_millis(49)));
        assert!(pace.may_send(START + Duration::from_millis(50)));
        assert!(pace.ready_at() == START + Duration::from_millis(50));
        assert_eq!(pace.rate, RATE_FIRST / 2);
        (0..20).for_each(|_| pace.overloaded(START, Duration::from_secs(3600)));
        assert_eq!(pace.rate, RATE_MIN);
        assert!(pace.may_send(START + RETRY_AFTER_MAX), "it cannot stop delivery for an hour");
    }

    #[test]
    fn slow_acknowledgements_halve_it_once_in_a_while_and_never_below_what_drains_in_time() {
        let mut pace = DeliveryRate::new();
        second(&mut pace, START, Duration::from_millis(3));
        let before = pace.rate;
        let after = START + Duration::from_secs(1);
        (0..100).for_each(|_| pace.acked(after, Duration::from_millis(80)));
        assert_eq!(pace.rate, before / 2);
        for minute in 1..10 {
            let now = after + Duration::from_secs(60 * minute);
            (0..100).for_each(|_| pace.acked(now, Duration::from_millis(80)));
        }
        assert_eq!(pace.rate, RATE_SLOW);
        let mut quick = DeliveryRate::new();
        (0..100).for_each(|_| quick.acked(START, Duration::from_micros(500)));
        let before = quick.rate;
        (0..100).for_each(|_| quick.acked(START, Duration::from_millis(8)));
        assert!(quick.rate >= before, "no client notices 8 ms");
    }
}
