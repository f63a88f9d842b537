//! How long a node takes to answer, and from that how long to wait before another one is asked as well.
//!
//! Patience is the usual time by the estimate of TCP's retransmission timer ([`LatencyEstimate`]), and at least [`PATIENCE_MIN`].
//! Other than with that timer, running out of patience gives nothing up: the answer is still awaited, and counts if it comes
//! first. So a wrong estimate costs a message, not a request.
//!
//! A large value takes time to carry beside that, and a wrong estimate of that time costs an upload, which takes the time of the
//! other uploads under way: estimates that are too short would make each other true. So it is measured in the same way, as time
//! for each mebibyte of all that was on its way to the node when the value was sent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftless_proto::LatencyEstimate;
use driftless_proto::client::{Access, Class, Request};
use tokio::time::Instant;

/// Requests of one kind take similar times. A put waits for disks, a get does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// What has been measured of one shard of a node.
#[derive(Debug, Default)]
pub(crate) struct LatencyEstimator {
    kinds: Mutex<[Measured; 2]>,
    /// The time of a mebibyte beyond that of a small request.
    mebibyte: Mutex<Measured>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Measured {
    /// With the time when it was last known to be true. `None`: nothing has been measured.
    estimate: Option<(LatencyEstimate, Instant)>,
    /// The next answer replaces all that was known.
    on_trial: bool,
}

impl Kind {
    /// `None` for requests whose time says nothing about the next one's.
    pub(crate) fn of(request: &Request) -> Option<Kind> {
        match request.class() {
            Class::Key { access: Access::Read, .. } => Some(Kind::Read),
            Class::Key { access: Access::Write, .. } => Some(Kind::Write),
            Class::Key { access: Access::Restore, .. } | Class::Arc { .. } | Class::Node => None,
        }
    }
}

impl LatencyEstimator {
    /// An answer came after this time.
    pub(crate) fn answered(&self, kind: Kind, time: Duration, now: Instant) {
        lock(&self.kinds)[kind as usize].learn(time, now);
    }

    /// How long to wait for an answer before another node is asked as well.
    pub(crate) fn patience(&self, kind: Kind) -> Duration {
        lock(&self.kinds)[kind as usize].patience()
    }

    /// Values of so many bytes together took this long beyond what a small request takes.
    pub(crate) fn carried(&self, bytes: usize, time: Duration, now: Instant) {
        let mebibytes = bytes.max(MEBIBYTE) as f64 / MEBIBYTE as f64;
        lock(&self.mebibyte).learn(time.div_f64(mebibytes), now);
    }

    /// How long values of so many bytes together may take beyond small ones.
    pub(crate) fn time_to_carry(&self, bytes: usize) -> Duration {
        let mebibyte = lock(&self.mebibyte).usual().unwrap_or_default().clamp(MEBIBYTE_MIN, MEBIBYTE_MAX);
        mebibyte.mul_f64(bytes as f64 / MEBIBYTE as f64)
    }

    /// Whether this node has been so slow for so long that others should be asked first, of which the fastest usually
    /// takes `usual`. Every [`TRIAL_EVERY`] it says no once, so that somebody finds out whether it still is.
    pub(crate) fn lags(&self, kind: Kind, now: Instant, usual: impl FnOnce() -> Option<Duration>) -> bool {
        let estimate = lock(&self.kinds)[kind as usize].estimate;
        let Some((estimate, known_at)) = estimate.filter(|(estimate, _)| estimate.mean() > LAG_MIN) else {
            return false;
        };
        // It looks at the numbers of other nodes. Held meanwhile, two nodes' locks would be taken in two orders.
        let lags = usual().is_some_and(|usual| estimate.mean() > usual * LAG_FACTOR);
        if lags && now >= known_at + TRIAL_EVERY {
            let own = &mut lock(&self.kinds)[kind as usize];
            own.estimate = own.estimate.map(|(estimate, _)| (estimate, now));
            own.on_trial = true;
            return false;
        }
        lags
    }

    /// How long it usually takes, if anything is known.
    pub(crate) fn mean(&self, kind: Kind) -> Option<Duration> {
        lock(&self.kinds)[kind as usize].estimate.map(|(estimate, _)| estimate.mean())
    }
}

fn lock<T>(numbers: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain numbers: nothing is half done when a thread panics.
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Measured {
    fn learn(&mut self, time: Duration, now: Instant) {
        let estimate = match self.estimate {
            Some((mut estimate, _)) if !self.on_trial => {
                estimate.observe(time);
                estimate
            }
            _ => LatencyEstimate::first(time),
        };
        *self = Measured { estimate: Some((estimate, now)), on_trial: false };
    }

    fn usual(&self) -> Option<Duration> {
        self.estimate.map(|(estimate, _)| estimate.usual())
    }

    fn patience(&self) -> Duration {
        self.usual().map_or(PATIENCE_FIRST, |usual| usual.max(PATIENCE_MIN))
    }
}

/// In bytes.
const MEBIBYTE: usize = 1 << 20;

/// Twelve megabytes a second: a tenth of a gigabit network, for there are three copies, and disks. Also while nothing is known.
const MEBIBYTE_MIN: Duration = Duration::from_micros(87_381);

/// A megabyte a second is what a bad line to a busy cluster carries.
const MEBIBYTE_MAX: Duration = Duration::from_micros(1_048_576);

/// Shorter waits say nothing: a lost datagram is sent again after some 30 ms, a scheduler or a disk pauses for tens.
/// And from here on a person notices.
pub(crate) const PATIENCE_MIN: Duration = Duration::from_millis(100);

/// Before anything is known: a connection between continents, and a disk that is busy.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);

/// Going around the first owner costs its own write a longer way; for less than this it is not worth while.
const LAG_MIN: Duration = Duration::from_millis(50);

/// Nodes under uneven load differ by half; a sick disk or a distant zone by more than this.
const LAG_FACTOR: u32 = 3;

/// A slow request every few seconds is no burden.
const TRIAL_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn estimator(times: impl IntoIterator<Item = u32>, now: Instant) -> LatencyEstimator {
        let estimator = LatencyEstimator::default();
        for time in times {
            estimator.answered(Kind::Write, MS * time, now);
        }
        estimator
    }

    #[test]
    fn patience_is_the_usual_time() {
        let now = Instant::now();
        assert_eq!(estimator([], now).patience(Kind::Write), PATIENCE_FIRST);
        assert_eq!(estimator([200, 120], now).patience(Kind::Write), MS * 570);
    }

    #[test]
    fn patience_follows_the_node_down_to_its_floor_and_up() {
        let now = Instant::now();
        assert_eq!(estimator([2; 50], now).patience(Kind::Write), PATIENCE_MIN);
        let slower = estimator([2; 50].into_iter().chain([300; 50]), now).patience(Kind::Write);
        assert!((MS * 300..MS * 400).contains(&slower), "{slower:?}");
    }

    #[test]
    fn the_time_to_carry_is_measured_and_has_bounds() {
        let now = Instant::now();
        let four = 4 * MEBIBYTE;
        let estimator = LatencyEstimator::default();
        assert_eq!(estimator.time_to_carry(four), MEBIBYTE_MIN * 4, "nothing is known");
        (0..50).for_each(|_| estimator.carried(four, MS * 1_200, now));
        let usual = estimator.time_to_carry(four);
        assert!((MS * 1_200..MS * 1_210).contains(&usual), "{usual:?}");
        assert!(
            estimator.time_to_carry(4 * four) >= usual * 4,
            "four times as much on its way takes four times as long"
        );
        (0..50).for_each(|_| estimator.carried(four, MS * 10, now));
        assert_eq!(estimator.time_to_carry(four), MEBIBYTE_MIN * 4, "no shorter than this");
        (0..50).for_each(|_| estimator.carried(four, MS * 60_000, now));
        assert_eq!(estimator.time_to_carry(four), MEBIBYTE_MAX * 4, "no longer than this");
    }

    #[test]
    fn reads_and_writes_are_told_apart() {
        let estimator = estimator([400; 20], Instant::now());
        assert!(estimator.patience(Kind::Write) >= MS * 400);
        assert_eq!(estimator.patience(Kind::Read), PATIENCE_FIRST);
    }

    #[test]
    fn no_lock_is_held_while_the_numbers_of_other_nodes_are_looked_at() {
        let now = Instant::now();
        let slow = estimator([1_000; 20], now);
        let mut looked = false;
        slow.lags(Kind::Write, now, || {
            looked = true;
            assert!(slow.kinds.try_lock().is_ok(), "two nodes that look at each other would wait for ever");
            Some(MS)
        });
        assert!(looked);
    }

    #[test]
    fn a_node_lags_that_takes_three_times_as_long_and_is_noticeably_slow() {
        let now = Instant::now();
        let lags = |time, usual| estimator([time; 20], now).lags(Kind::Write, now, || Some(MS * usual));
        assert!(lags(70, 20) && !lags(55, 20));
        assert!(!lags(30, 2), "30 ms are not noticed");
        assert!(!estimator([], now).lags(Kind::Write, now, || Some(MS)));
        assert!(!estimator([900; 9], now).lags(Kind::Write, now, || None), "nothing is known of the others");
    }

    #[test]
    fn a_node_that_lagged_is_tried_once_in_a_while_and_believed() {
        let now = Instant::now();
        let slow = estimator([200; 20], now);
        let lags = |after| slow.lags(Kind::Write, now + after, || Some(MS * 5));
        assert!(lags(TRIAL_EVERY - MS));
        assert!(!lags(TRIAL_EVERY), "one goes there");
        assert!(lags(TRIAL_EVERY + MS), "and no other");
        slow.answered(Kind::Write, MS * 6, now + TRIAL_EVERY + MS * 6);
        assert!(!lags(TRIAL_EVERY + MS * 7), "it is well again");
    }
}
