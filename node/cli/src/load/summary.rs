//! What a load did, in numbers and in words.

use std::time::Duration;

use driftless_proto::Key;
use serde_json::{Value, json};

use super::keys::KeyCounts;
use crate::exit::{Exit, Failure};
use crate::key::key_words;
use crate::output::{Tone, grouped};

/// What a load did.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Records that are there, or are covered by what somebody wrote who had seen them.
    pub(crate) loaded: u64,
    /// Records among them whose values were there before, and were left alone.
    pub(crate) unchanged: u64,
    /// Records among them that somebody has replaced or deleted meanwhile.
    pub(crate) covered: u64,
    /// The key of such a record.
    pub(crate) covered_example: Option<Key>,
    /// Lines that could not be read or stored.
    pub(crate) failed: u64,
    /// Lines among them that may be loaded if they are tried again.
    pub(crate) failed_for_now: u64,
    /// Lines that were wrong in the load that this one resumes.
    pub(crate) failed_before: u64,
    /// Lines that `--resume` skipped.
    pub(crate) skipped: u64,
    /// Whether values took the place of what was there.
    pub(crate) replaces: bool,
    /// Of the keys.
    pub(crate) keys: KeyCounts,
    /// Why the file may be less than it was when it was dumped.
    pub(crate) problems: Vec<String>,
    /// Why it ended before the file did.
    pub(crate) stopped: Option<Failure>,
    /// Whether how far it came is written down.
    pub(crate) is_resumable: bool,
    /// Time it took.
    pub(crate) elapsed: Duration,
}

impl Summary {
    /// For people, in a line.
    pub(crate) fn sentence(&self) -> String {
        let or_nothing = |count: u64, text: String| if count > 0 { text } else { String::new() };
        format!(
            "loaded {} {}{}, {} failed{}, in {:.1} s ({} records/s)",
            grouped(self.loaded),
            if self.loaded == 1 { "record" } else { "records" },
            or_nothing(self.unchanged, format!(" ({} there already)", grouped(self.unchanged))),
            grouped(self.failed),
            or_nothing(self.skipped, format!(", skipped {} lines", grouped(self.skipped))),
            self.elapsed.as_secs_f64(),
            grouped(self.rate() as u64),
        )
    }

    /// The code to end with, if it came to the end of the file and that is no success.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.failed + self.failed_before {
            0 if self.problems.is_empty() => None,
            0 => Some(Exit::Incomplete),
            _ => Some(Exit::Failed),
        }
    }

    /// Whether the file came to its end, and had nothing to load.
    pub(crate) fn is_empty(&self) -> bool {
        self.stopped.is_none() && self.loaded + self.failed + self.skipped == 0
    }

    /// For programs.
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "loaded": self.loaded,
            "unchanged": self.unchanged,
            "covered": self.covered,
            "failed": self.failed,
            "failed_for_now": self.failed_for_now,
            "failed_before": self.failed_before,
            "skipped": self.skipped,
            "keys_with_siblings": self.keys.with_siblings,
            "keys_repeated": self.keys.repeated,
            "complete": self.stopped.is_none() && self.exit().is_none(),
            "problems": self.problems,
            "seconds": self.elapsed.as_secs_f64(),
            "records_per_second": self.rate(),
        })
    }

    fn rate(&self) -> f64 {
        self.loaded as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// What is to be said beside the numbers. `get` is the command that shows a key, without the key.
    pub(crate) fn notes(&self, get: &str) -> Vec<(Tone, String)> {
        let mut notes: Vec<(Tone, String)> =
            self.problems.iter().map(|problem| (Tone::Warning, problem.clone())).collect();
        let many = |count: u64, one: &str, more: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{} {more}", grouped(count)) }
        };
        if self.failed_before > 0 {
            let lines = many(self.failed_before, "line before", "lines before");
            notes.push((
                Tone::Warning,
                format!("{lines} was wrong in the load that this one has resumed, and is not loaded"),
            ));
        }
        if let Some(key) = &self.covered_example {
            let records = many(self.covered, "record was", "records were");
            notes.push((Tone::Quiet, format!("{records} replaced or deleted by others meanwhile, such as {key}")));
        }
        if let Some((key, lines)) = &self.keys.repeated_example {
            let keys = many(self.keys.repeated, "key is", "keys are");
            let example = format!("such as {} ({} lines)", key, grouped(*lines));
            notes.push((
                Tone::Quiet,
                if self.replaces {
                    format!("{keys} in several lines of the file, {example}: the last line of each has replaced the others")
                } else {
                    format!(
                        "{keys} in several lines of the file, {example}: lines with different values became siblings; see \
                         them with: {get} {}\nto keep the last line of each key, load with --replace",
                        key_words(key)
                    )
                },
            ));
        }
        if self.keys.had_values > 0 {
            let keys = many(self.keys.had_values, "key has", "keys have");
            let example =
                self.keys.had_values_example.as_ref().map_or_else(String::new, |key| {
                    format!(", such as {key}; see them with: {get} {}", key_words(key))
                });
            notes.push((
                Tone::Quiet,
                format!("{keys} other values as well{example}\nto replace what is there instead, load with --replace"),
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(summary: &Summary) -> String {
        let notes = summary.notes("driftless get");
        notes.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_was_there_already_is_counted_as_loaded_and_said() {
        let summary =
            Summary { loaded: 5_287, unchanged: 5_287, elapsed: Duration::from_secs(1), ..Summary::default() };
        assert_eq!(
            summary.sentence(),
            "loaded 5,287 records (5,287 there already), 0 failed, in 1.0 s (5,287 records/s)"
        );
        assert_eq!(summary.as_json()["unchanged"], json!(5_287));
        assert_eq!(said(&summary), "");
    }

    #[test]
    fn that_keys_repeat_is_said_and_what_that_means() {
        let key = Key::new("doc00").expect("valid");
        let keys = KeyCounts { repeated: 20, repeated_example: Some((key, 10)), ..KeyCounts::default() };
        let mut summary = Summary { keys, replaces: true, ..Summary::default() };
        let replaced = said(&summary);
        assert!(
            replaced.starts_with("20 keys are in several lines of the file, such as doc00 (10 lines): the last"),
            "{replaced}"
        );
        summary.replaces = false;
        let siblings = said(&summary);
        assert!(siblings.contains("became siblings") && siblings.contains("driftless get doc00"), "{siblings}");
    }

    #[test]
    fn that_keys_had_values_is_said_with_an_example_and_without() {
        let key = Key::new("k").expect("valid");
        let of = |example| {
            let keys = KeyCounts { had_values: 2, had_values_example: example, ..KeyCounts::default() };
            said(&Summary { keys, ..Summary::default() })
        };
        assert!(
            of(Some(key)).starts_with("2 keys have other values as well, such as k; see them with: driftless get k\n")
        );
        assert!(of(None).starts_with("2 keys have other values as well\nto replace"));
    }

    /// `"complete": true` stood beside `"failed": 7`.
    #[test]
    fn a_load_with_failures_is_not_complete() {
        for summary in [
            Summary { loaded: 1, failed: 1, ..Summary::default() },
            Summary { loaded: 1, failed_before: 1, ..Summary::default() },
        ] {
            assert_eq!((&summary.as_json()["complete"], summary.exit()), (&json!(false), Some(Exit::Failed)));
        }
        let later = Summary { failed: 3, failed_for_now: 2, ..Summary::default() };
        assert_eq!(later.as_json()["failed_for_now"], json!(2));
        let whole = Summary { loaded: 1, ..Summary::default() };
        assert_eq!((&whole.as_json()["complete"], whole.exit(), whole.is_empty()), (&json!(true), None, false));
    }

    #[test]
    fn a_file_without_a_record_is_noticed() {
        assert!(Summary::default().is_empty());
        assert!(!Summary { skipped: 1, ..Summary::default() }.is_empty());
    }

    #[test]
    fn a_dump_that_is_not_whole_is_not_loaded_completely() {
        let summary = Summary { problems: vec!["cut off".to_owned()], ..Summary::default() };
        assert_eq!(summary.as_json()["complete"], json!(false));
        assert_eq!(summary.notes("get"), [(Tone::Warning, "cut off".to_owned())]);
    }
}
