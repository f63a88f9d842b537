//! What requests came to: how long they took, and why those failed that did.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use driftless_client::{Cause, Outcome, RequestError};
use hdrhistogram::Histogram;

/// What happened within the measured time.
pub(super) struct Tally {
    pub(super) put: Histogram<u64>,
    pub(super) get: Histogram<u64>,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) failed: u64,
    pub(super) kinds: BTreeMap<String, u64>,
    /// The first of each kind, in words.
    pub(super) texts: BTreeMap<String, String>,
}

/// A request that did not succeed.
pub(super) struct Problem {
    /// Absent if it was answered, but not as it should have been.
    pub(super) outcome: Option<Outcome>,
    pub(super) kind: String,
    /// In words.
    pub(super) text: String,
}

impl Problem {
    pub(super) fn of<E: Debug + Display>(
        error: &E,
        outcome: Option<Outcome>,
        request: Option<&RequestError>,
    ) -> Problem {
        let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let kind = match request.map(RequestError::cause) {
            // The call itself was not in order, or its answer: it has a name of its own.
            None => name(format!("{error:?}")),
            Some(Cause::Refused { refusal, .. }) => name(format!("{refusal:?}")),
            Some(Cause::Unknown { unknown, .. }) => name(format!("{unknown:?}")),
            Some(cause) => name(format!("{cause:?}")),
        };
        Problem { outcome, kind, text: error.to_string() }
    }
}

impl Tally {
    pub(super) fn new() -> Tally {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)
                .expect("1 is below the maximum, and 3 digits are offered")
        };
        Tally {
            put: histogram(),
            get: histogram(),
            refused: 0,
            unknown: 0,
            failed: 0,
            kinds: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }

    pub(super) fn count(&mut self, get: bool, nanos: u64, outcome: std::result::Result<(), Problem>) {
        match outcome {
            Ok(()) => {
                let histogram = if get { &mut self.get } else { &mut self.put };
                histogram.saturating_record(nanos);
            }
            Err(problem) => {
                match problem.outcome {
                    Some(Outcome::Refused) => self.refused += 1,
                    Some(Outcome::Unknown) => self.unknown += 1,
                    None => self.failed += 1,
                }
                self.texts.entry(problem.kind.clone()).or_insert(problem.text);
                *self.kinds.entry(problem.kind).or_default() += 1;
            }
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.put.len() + self.get.len()
    }
}

/// A get that was answered, of a key that nobody has written.
pub(super) const NOT_FOUND: &str = "NotFound";

/// Longer requests than any timeout are counted as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

#[cfg(test)]
mod tests {
    use driftless_client::PutError;

    use super::*;

    #[test]
    fn problems_have_short_names() {
        let mut tally = Tally::new();
        tally.count(true, 5_000_000, Ok(()));
        let problem = |outcome, kind: &str| Problem { outcome, kind: kind.to_owned(), text: kind.to_owned() };
        tally.count(false, 5, Err(problem(Some(Outcome::Refused), "Overloaded")));
        tally.count(false, 5, Err(problem(None, NOT_FOUND)));
        assert_eq!((tally.operations(), tally.refused, tally.unknown, tally.failed), (1, 1, 0, 1));
        assert!(tally.get.max().abs_diff(5_000_000) < 10_000, "latencies keep their size");
        assert_eq!(tally.kinds.get("Overloaded"), Some(&1));
        let too_large = PutError::ValueTooLarge { bytes: 9, max: 8 };
        let problem = Problem::of(&too_large, Some(too_large.outcome()), too_large.request());
        assert_eq!((problem.kind.as_str(), problem.text), ("ValueTooLarge", too_large.to_string()));
    }
}
