//! Operations counted: how long they took, by what was going on, and why attempts failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::processes::kind_of;

/// Counted by all clients at once.
#[derive(Debug)]
pub(super) struct Tally {
    /// Which phase what begins now belongs to; [`UNMEASURED`] for none.
    phase: AtomicUsize,
    /// How many strikes have begun and ended: odd while a node is down.
    strikes: AtomicU64,
    phases: Mutex<Vec<Phase>>,
    reasons: Mutex<BTreeMap<String, u64>>,
    gets: AtomicU64,
    writes: AtomicU64,
    /// Attempts of the rig that did not succeed.
    failed_attempts: AtomicU64,
}

/// A time that is measured for itself.
#[derive(Debug)]
struct Phase {
    name: String,
    /// Gets and writes, each of undisturbed times and of those in which a node was down.
    histograms: [[Histogram<u64>; 2]; 2],
}

/// When an operation began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began {
    phase: usize,
    strikes: u64,
}

/// Percentiles of a phase.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    pub(super) phase: String,
    pub(super) operation: &'static str,
    /// Whether times in which a node was down, or had just been, count as well.
    pub(super) with_strikes: bool,
    pub(super) count: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    /// Its p99 to that of the first phase.
    pub(super) ratio: f64,
}

/// Operations that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) gets: u64,
    pub(super) writes: u64,
    pub(super) failed_attempts: u64,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            phase: AtomicUsize::new(UNMEASURED),
            strikes: AtomicU64::new(0),
            phases: Mutex::default(),
            reasons: Mutex::default(),
            gets: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed_attempts: AtomicU64::new(0),
        }
    }

    /// What begins from now on belongs to this phase.
    pub(super) fn begin_phase(&self, name: &str) {
        // A microsecond to a minute, three digits.
        let empty = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
        let histograms = std::array::from_fn(|_| std::array::from_fn(|_| empty()));
        let mut phases = self.phases.lock().expect("nobody panics while counting");
        phases.push(Phase { name: name.to_owned(), histograms });
        self.phase.store(phases.len() - 1, Ordering::SeqCst);
    }

    /// What begins from now on is not measured.
    pub(super) fn end_phase(&self) {
        self.phase.store(UNMEASURED, Ordering::SeqCst);
    }

    /// A node goes down, or all have been back for a while.
    pub(super) fn strike(&self) {
        self.strikes.fetch_add(1, Ordering::SeqCst);
    }

    /// To be asked when an operation begins.
    pub(super) fn now(&self) -> Began {
        Began { phase: self.phase.load(Ordering::SeqCst), strikes: self.strikes.load(Ordering::SeqCst) }
    }

    /// An operation has succeeded.
    pub(super) fn count(&self, began: Began, is_get: bool, took: Duration) {
        let counter = if is_get { &self.gets } else { &self.writes };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut phases = self.phases.lock().expect("nobody panics while counting");
        if let Some(phase) = phases.get_mut(began.phase) {
            let struck = began.strikes % 2 == 1 || self.strikes.load(Ordering::SeqCst) != began.strikes;
            let histogram = &mut phase.histograms[usize::from(!is_get)][usize::from(struck)];
            histogram.saturating_record(took.as_micros() as u64);
        }
    }

    /// An attempt has failed, and is made again or given up.
    pub(super) fn failed(&self, reason: &str) {
        self.failed_attempts.fetch_add(1, Ordering::Relaxed);
        *self.reasons.lock().expect("nobody panics while counting").entry(kind_of(reason)).or_default() += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { gets: read(&self.gets), writes: read(&self.writes), failed_attempts: read(&self.failed_attempts) }
    }

    /// The most frequent first.
    pub(super) fn reasons(&self) -> Vec<(String, u64)> {
        let reasons = self.reasons.lock().expect("nobody panics while counting");
        let mut all: Vec<_> = reasons.iter().map(|(reason, count)| (reason.clone(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }

    /// Of each phase, gets and writes: the whole phase, and where a node was down, the rest of it for itself as well.
    pub(super) fn latencies(&self) -> Vec<Latency> {
        let phases = self.phases.lock().expect("nobody panics while counting");
        let mut all = Vec::new();
        let mut base = [None; 2];
        for phase in phases.iter() {
            for ((operation, pair), base) in ["get", "write"].into_iter().zip(&phase.histograms).zip(&mut base) {
                let [calm, struck] = pair;
                let mut both = calm.clone();
                both.add(struck).expect("they have the same bounds");
                let base = *base.get_or_insert(both.value_at_quantile(0.99));
                let of = |histogram: &Histogram<u64>, with_strikes: bool| {
                    let at = |share: f64| Duration::from_micros(histogram.value_at_quantile(share));
                    let ratio = histogram.value_at_quantile(0.99) as f64 / base.max(1) as f64;
                    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
                    let (phase, count) = (phase.name.clone(), histogram.len());
                    Latency { phase, operation, with_strikes, count, p50, p99, p999, ratio }
                };
                all.push(of(&both, true));
                if !struck.is_empty() {
                    all.push(of(calm, false));
                }
            }
        }
        all
    }
}

impl Latency {
    /// Whether it is within what is aimed at, which is no promise.
    pub(super) fn meets_mark(&self) -> bool {
        self.ratio <= RATIO_MARK
    }
}

const UNMEASURED: usize = usize::MAX;

/// p99 while members change to p99 before.
pub(super) const RATIO_MARK: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_belongs_to_the_phase_in_which_it_began() {
        let tally = Tally::new();
        tally.count(tally.now(), true, Duration::from_millis(1));
        tally.begin_phase("quiet");
        let began = tally.now();
        tally.begin_phase("step");
        tally.count(began, true, Duration::from_millis(2));
        tally.count(tally.now(), true, Duration::from_millis(3));
        let began = tally.now();
        tally.strike();
        tally.count(began, true, Duration::from_millis(40));
        tally.strike();
        tally.end_phase();
        tally.count(tally.now(), false, Duration::from_millis(9));
        let latencies = tally.latencies();
        let gets: Vec<(&str, bool, u64)> = latencies
            .iter()
            .filter(|latency| latency.operation == "get")
            .map(|latency| (latency.phase.as_str(), latency.with_strikes, latency.count))
            .collect();
        assert_eq!(gets, [("quiet", true, 1), ("step", true, 2), ("step", false, 1)]);
        let [_, with, without] = latencies.iter().filter(|latency| latency.operation == "get").collect::<Vec<_>>()[..]
        else {
            panic!("three")
        };
        assert!(!with.meets_mark() && without.meets_mark(), "{with:?} {without:?}");
        assert_eq!(tally.counts(), Counts { gets: 4, writes: 1, failed_attempts: 0 });
    }

    #[test]
    fn failures_are_counted_by_kind() {
        let tally = Tally::new();
        tally.failed("n3 did not answer within 1.25s");
        tally.failed("n4 did not answer within 2s");
        assert_eq!(tally.reasons(), [("NODE did not answer within #s".to_owned(), 2)]);
    }
}
