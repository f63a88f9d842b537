//! Operations counted by how they ended and by what was going on.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::history::Ending;
use crate::processes::kind_of;

/// Counted by all clients at once.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) ok: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    /// Scans that came to their end.
    pub(super) scans: AtomicU64,
    /// Whether a fault is under way.
    pub(super) faulty: AtomicBool,
    /// Of reads and writes, in calm and under faults.
    latencies: [[Mutex<Histogram<u64>>; 2]; 2],
    /// Why requests did not succeed, and how often.
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// Operations of one second or of a whole run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) ok: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

/// Percentiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) what: &'static str,
    pub(super) when: &'static str,
    pub(super) count: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Tally {
    pub(super) fn new() -> Tally {
        // A microsecond to a minute, three digits.
        let empty = || Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order"));
        Tally {
            ok: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            scans: AtomicU64::new(0),
            faulty: AtomicBool::new(false),
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| empty())),
            reasons: Mutex::default(),
        }
    }

    /// Counts an operation that has ended.
    pub(super) fn count(&self, ending: Ending, is_read: bool, took: Duration, reason: Option<&str>) {
        let counter = match ending {
            Ending::Ok => &self.ok,
            Ending::Refused => &self.refused,
            Ending::Unknown | Ending::Pending => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if ending == Ending::Ok {
            let faulty = self.faulty.load(Ordering::Relaxed);
            let histogram = &self.latencies[usize::from(faulty)][usize::from(!is_read)];
            let mut histogram = histogram.lock().expect("nobody panics while counting");
            histogram.saturating_record(took.as_micros() as u64);
        }
        if let Some(reason) = reason {
            let mut reasons = self.reasons.lock().expect("nobody panics while counting");
            *reasons.entry(kind_of(reason)).or_default() += 1;
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { ok: read(&self.ok), refused: read(&self.refused), unknown: read(&self.unknown) }
    }

    pub(super) fn latencies(&self) -> Vec<Latency> {
        let mut all = Vec::new();
        for (when, pair) in ["calm", "faults"].into_iter().zip(&self.latencies) {
            for (what, histogram) in ["get", "write"].into_iter().zip(pair) {
                let histogram = histogram.lock().expect("nobody panics while counting");
                let at = |share: f64| Duration::from_micros(histogram.value_at_quantile(share));
                all.push(Latency {
                    what,
                    when,
                    count: histogram.len(),
                    p50: at(0.5),
                    p99: at(0.99),
                    p999: at(0.999),
                    max: Duration::from_micros(histogram.max()),
                });
            }
        }
        all
    }

    /// The most frequent first.
    pub(super) fn reasons(&self) -> Vec<(String, u64)> {
        let reasons = self.reasons.lock().expect("nobody panics while counting");
        let mut all: Vec<_> = reasons.iter().map(|(reason, count)| (reason.clone(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}

impl std::ops::Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts {
            ok: self.ok - before.ok,
            refused: self.refused - before.refused,
            unknown: self.unknown - before.unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_ending_and_phase() {
        let tally = Tally::new();
        tally.count(Ending::Ok, true, Duration::from_millis(2), None);
        tally.faulty.store(true, Ordering::Relaxed);
        tally.count(Ending::Ok, false, Duration::from_millis(9), None);
        tally.count(Ending::Refused, false, Duration::from_millis(9), Some("no"));
        assert_eq!(tally.counts(), Counts { ok: 2, refused: 1, unknown: 0 });
        let counts: Vec<u64> = tally.latencies().iter().map(|latency| latency.count).collect();
        assert_eq!(counts, [1, 0, 0, 1]);
        assert_eq!(tally.reasons(), [("no".to_owned(), 1)]);
    }
}
