//! Why requests failed that did.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use driftless_client::{Cause, Outcome, RequestError};

/// A request that did not succeed.
pub(super) struct Problem {
    /// Absent if it was answered, but not as it should have been.
    outcome: Option<Outcome>,
    kind: String,
    /// In words.
    text: String,
}

/// How many of each kind there were.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) failed: u64,
    pub(super) kinds: BTreeMap<String, u64>,
    /// The first of each kind, in words.
    pub(super) first: BTreeMap<String, String>,
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

    /// A get that was answered, of a key that nobody has written.
    pub(super) fn not_found() -> Problem {
        Problem { outcome: None, kind: NOT_FOUND.to_owned(), text: "no such key".to_owned() }
    }
}

impl Problems {
    pub(super) fn count(&mut self, problem: Problem) {
        match problem.outcome {
            Some(Outcome::Refused) => self.refused += 1,
            Some(Outcome::Unknown) => self.unknown += 1,
            None => self.failed += 1,
        }
        self.first.entry(problem.kind.clone()).or_insert(problem.text);
        *self.kinds.entry(problem.kind).or_default() += 1;
    }
}

/// The kind of [`Problem::not_found`].
pub(super) const NOT_FOUND: &str = "NotFound";

#[cfg(test)]
mod tests {
    use driftless_client::PutError;

    use super::*;

    #[test]
    fn problems_have_short_names() {
        let mut problems = Problems::default();
        let refused =
            Problem { outcome: Some(Outcome::Refused), kind: "Overloaded".to_owned(), text: "too much".to_owned() };
        problems.count(refused);
        problems.count(Problem::not_found());
        assert_eq!((problems.refused, problems.unknown, problems.failed), (1, 0, 1));
        assert_eq!((problems.kinds.get("Overloaded"), problems.kinds.get(NOT_FOUND)), (Some(&1), Some(&1)));
        let too_large = PutError::ValueTooLarge { bytes: 9, max: 8 };
        let problem = Problem::of(&too_large, Some(too_large.outcome()), too_large.request());
        assert_eq!((problem.kind.as_str(), problem.text), ("ValueTooLarge", too_large.to_string()));
    }
}
