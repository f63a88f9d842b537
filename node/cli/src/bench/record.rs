//! What happened within the measured time: histograms of the latencies, problems, and a time line of seconds.
//!
//! A second of the time line has what was answered in it. What was due within the measured time of an open loop and is
//! answered after its end belongs to the last second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::problem::{Problem, Problems};
use super::workload::Kind;

/// What happened, so far.
pub(super) struct Record {
    /// By kind, in nanoseconds.
    latencies: BTreeMap<Kind, Histogram<u64>>,
    pub(super) problems: Problems,
    seconds: Vec<Second>,
    current: Histogram<u64>,
    current_errors: u64,
    /// The last second that there is: what is answered after it is counted in it.
    last: u64,
}

/// A second of the time line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Second {
    /// When it began, in seconds since the measured time did.
    pub(super) start: f64,
    /// Less than 1 for the last, if it was cut short.
    pub(super) seconds: f64,
    pub(super) operations: u64,
    pub(super) errors: u64,
    /// Of all kinds together; absent if nothing succeeded in it.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p99_9_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
}

impl Record {
    /// For a measured time of this length.
    pub(super) fn new(time: Duration) -> Record {
        Record {
            latencies: BTreeMap::new(),
            problems: Problems::default(),
            seconds: Vec::new(),
            current: histogram(),
            current_errors: 0,
            last: last_second(time),
        }
    }

    /// A request was answered so long after the measured time began. Moments do not go back.
    pub(super) fn count(
        &mut self,
        kind: Kind,
        moment: Duration,
        latency: Duration,
        outcome: std::result::Result<(), Problem>,
    ) {
        self.advance(moment.as_secs().min(self.last));
        match outcome {
            Ok(()) => {
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                self.latencies.entry(kind).or_insert_with(histogram).saturating_record(nanos);
                self.current.saturating_record(nanos);
            }
            Err(problem) => {
                self.problems.count(problem);
                self.current_errors += 1;
            }
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.latencies.values().map(Histogram::len).sum()
    }

    pub(super) fn latencies(&self) -> &BTreeMap<Kind, Histogram<u64>> {
        &self.latencies
    }

    /// Of all kinds together.
    pub(super) fn all_latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for latencies in self.latencies.values() {
            all.add(latencies).expect("all have the same bounds");
        }
        all
    }

    /// It was interrupted, or ended, after so long.
    pub(super) fn end_at(&mut self, elapsed: Duration) {
        self.last = self.last.min(last_second(elapsed)).max(self.seconds.len() as u64);
        self.advance(self.last);
    }

    /// The time line, now that nothing more is counted.
    pub(super) fn into_time_line(mut self, elapsed: Duration) -> Vec<Second> {
        self.end_at(elapsed);
        self.finish_second((elapsed.as_secs_f64() - self.seconds.len() as f64).clamp(0.001, 1.0));
        self.seconds
    }

    /// Ends seconds until the current one is this.
    fn advance(&mut self, second: u64) {
        while (self.seconds.len() as u64) < second {
            self.finish_second(1.0);
        }
    }

    fn finish_second(&mut self, length: f64) {
        let at = |quantile: f64| {
            (!self.current.is_empty()).then(|| millis(self.current.value_at_quantile(quantile).min(self.current.max())))
        };
        self.seconds.push(Second {
            start: self.seconds.len() as f64,
            seconds: length,
            operations: self.current.len(),
            errors: self.current_errors,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: at(1.0),
        });
        self.current.reset();
        self.current_errors = 0;
    }
}

/// A timer that rang a moment after a full second has not begun another one.
fn last_second(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_millis() >= SHORTEST_MS)).saturating_sub(1)
}

pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("1 is below the maximum, and 3 digits are offered")
}

/// Longer requests than any timeout are counted as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// The rest of a second that is worth a place in the time line.
const SHORTEST_MS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latencies_are_kept_by_kind_and_by_second() {
        let mut record = Record::new(ms(3000));
        record.count(Kind::Get, ms(100), ms(5), Ok(()));
        record.count(Kind::Put, ms(900), ms(7), Ok(()));
        record.count(Kind::Put, ms(2500), ms(1500), Ok(()));
        record.count(Kind::Put, ms(2600), ms(1), Err(Problem::not_found()));
        assert_eq!((record.operations(), record.problems.failed), (3, 1));
        let max = |kind: Kind| record.latencies()[&kind].max().abs_diff(1_500_000_000) < 2_000_000;
        assert!(max(Kind::Put) && !max(Kind::Get));
        assert_eq!(record.all_latencies().len(), 3);
        let line = record.into_time_line(ms(3002));
        assert_eq!(line.iter().map(|second| second.operations).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(line.iter().map(|second| second.errors).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!((line[1].p50_ms, line[1].max_ms), (None, None), "a second in which nothing was answered");
        assert!(line[0].p50_ms.is_some_and(|p50| (p50 - 5.0).abs() < 0.01), "{:?}", line[0]);
        assert_eq!((line[2].start, line[2].seconds), (2.0, 1.0), "{:?}", line[2]);
    }

    #[test]
    fn a_time_that_was_cut_short_has_a_short_last_second_and_an_empty_one_has_one() {
        let mut record = Record::new(ms(60_000));
        record.count(Kind::Get, ms(1400), ms(1), Ok(()));
        let line = record.into_time_line(ms(1500));
        assert_eq!((line.len(), line[1].seconds, line[1].operations), (2, 0.5, 1));
        let line = Record::new(ms(300)).into_time_line(ms(301));
        assert_eq!((line.len(), line[0].operations, line[0].p99_ms), (1, 0, None));
    }

    #[test]
    fn what_is_answered_after_the_end_belongs_to_the_last_second() {
        let mut record = Record::new(ms(2000));
        record.count(Kind::Get, ms(500), ms(1), Ok(()));
        record.count(Kind::Get, ms(4500), ms(4000), Ok(()));
        let line = record.into_time_line(ms(2001));
        assert_eq!(line.iter().map(|second| (second.operations, second.seconds)).collect::<Vec<_>>(), [(1, 1.0); 2]);
    }
}
