//! What clients saw, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All that the clients of a [`Load`](super::Load) saw. Times count from its start.
#[derive(Default, Debug)]
pub struct History {
    /// Puts that were acknowledged: when, and after how long.
    pub(super) acknowledged: Vec<(Duration, Duration)>,
    /// Their keys, each written once, with a value that follows from it.
    pub(super) keys: Vec<String>,
    /// Elements whose addition to a set was acknowledged.
    pub(super) elements: BTreeMap<String, BTreeSet<String>>,
    /// Errors that reached the application although repeating helps. It did.
    pub surfaced: Vec<(Duration, String)>,
    /// Errors for which repeating is of no use. There must be none.
    pub fatal: Vec<(Duration, String)>,
}

/// A stretch of time in a history, summed up.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bout {
    /// Puts acknowledged per second.
    pub throughput: f64,
    /// Latency that half of the puts kept below.
    pub p50: Duration,
    /// Latency that 99 of 100 puts kept below.
    pub p99: Duration,
}

impl History {
    pub(super) fn join(&mut self, other: History) {
        self.acknowledged.extend(other.acknowledged);
        self.keys.extend(other.keys);
        for (set, elements) in other.elements {
            self.elements.entry(set).or_default().extend(elements);
        }
        self.surfaced.extend(other.surfaced);
        self.fatal.extend(other.fatal);
    }

    /// Sums up what was acknowledged from one time to another, but not from `without` on for a second.
    pub fn bout(&self, from: Duration, to: Duration, without: Option<Duration>) -> Bout {
        let skipped = |at: Duration| without.is_some_and(|hole| (hole..hole + SECOND).contains(&at));
        let mut latencies: Vec<Duration> = (self.acknowledged.iter())
            .filter(|(at, _)| (from..to).contains(at) && !skipped(*at))
            .map(|(_, latency)| *latency)
            .collect();
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
        let hole = without.map_or(Duration::ZERO, |hole| (hole + SECOND).min(to).saturating_sub(hole.max(from)));
        let time = to.saturating_sub(from).saturating_sub(hole).as_secs_f64();
        let throughput = if time > 0.0 { latencies.len() as f64 / time } else { 0.0 };
        Bout { throughput, p50: at(0.5), p99: at(0.99) }
    }

    /// When the second with the fewest acknowledgements began, and how many it had.
    pub fn worst_second(&self, from: Duration, to: Duration) -> (Duration, usize) {
        let tenths = self.tenths(from, to);
        let windows = tenths.windows(10).enumerate().map(|(at, window)| (window.iter().sum::<usize>(), at));
        let (count, at) = windows.min().unwrap_or_default();
        (from + TENTH * at as u32, count)
    }

    /// The longest time without a tenth of a second that had at least half of the usual throughput.
    pub fn longest_low(&self, from: Duration, to: Duration, usual: f64) -> Duration {
        let tenths = self.tenths(from, to);
        let low = |count: &usize| (*count as f64) < usual / 10.0 / 2.0;
        let longest = tenths.split(|count| !low(count)).map(<[usize]>::len).max().unwrap_or_default();
        TENTH * longest as u32
    }

    /// Acknowledgements in each whole tenth of a second.
    fn tenths(&self, from: Duration, to: Duration) -> Vec<usize> {
        let place = |at: Duration| (at.as_nanos() / TENTH.as_nanos()) as usize;
        let mut counts = vec![0; place(to.saturating_sub(from))];
        for (at, _) in &self.acknowledged {
            if let Some(count) = at.checked_sub(from).and_then(|at| counts.get_mut(place(at))) {
                *count += 1;
            }
        }
        counts
    }
}

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A put acknowledged every 10 ms, but for half a second from 2 s on; then one that waited through it.
    fn with_a_gap() -> History {
        let steady = (0..400).map(|i| MS * 10 * i).filter(|at| !(MS * 2000..MS * 2500).contains(at));
        let mut acknowledged: Vec<_> = steady.map(|at| (at, MS * 4)).collect();
        acknowledged.push((MS * 2500, MS * 500));
        History { acknowledged, ..History::default() }
    }

    #[test]
    fn a_gap_is_found_and_measured() {
        let history = with_a_gap();
        let (at, count) = history.worst_second(Duration::ZERO, MS * 4000);
        assert!((MS * 1500..=MS * 2000).contains(&at), "{at:?}");
        assert!((50..=51).contains(&count));
        assert_eq!(history.longest_low(Duration::ZERO, MS * 4000, 100.0), MS * 500);
        assert_eq!(history.longest_low(Duration::ZERO, MS * 2000, 100.0), Duration::ZERO);
    }

    #[test]
    fn what_happened_in_the_hole_does_not_count() {
        let history = with_a_gap();
        let all = history.bout(Duration::ZERO, MS * 4000, None);
        let outside = history.bout(Duration::ZERO, MS * 4000, Some(MS * 1800));
        assert!((87.0..88.0).contains(&all.throughput), "{all:?}");
        assert!((99.0..101.0).contains(&outside.throughput), "{outside:?}");
        assert_eq!((outside.p50, outside.p99), (MS * 4, MS * 4));
        assert_eq!(history.bout(MS * 2450, MS * 2510, None).p99, MS * 500);
    }
}
