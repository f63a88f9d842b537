//! The keys of a file: which have several lines, which have siblings now, and which would have more values than a key may.

use std::collections::{BTreeMap, BTreeSet};

use driftless_node::jsonl::Record;
use driftless_proto::Key;
use driftless_proto::key::SIBLINGS_MAX;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many records are of each key, and which keys have siblings now. Keys go by a hash, so that those of any length cost the
/// same.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    records: BTreeMap<u64, u32>,
    /// How many of them have several.
    repeated: u64,
    /// The one with the most records, and how many.
    most: Option<(Key, u32)>,
    with_siblings: BTreeSet<u64>,
    /// One of those of which the file has one record.
    had_values: Option<Key>,
}

/// What the keys of a file came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyCounts {
    /// Keys of which the file has several records.
    pub(crate) repeated: u64,
    /// Of these the key with the most records, and how many it has.
    pub(crate) repeated_example: Option<(Key, u64)>,
    /// Keys that have more values now than any record gives them.
    pub(crate) with_siblings: u64,
    /// Keys among them of which the file has one record: they had values before.
    pub(crate) had_values: u64,
    /// Such a key, if one is remembered.
    pub(crate) had_values_example: Option<Key>,
}

impl Keys {
    /// A record of this key.
    pub(crate) fn meet(&mut self, key: &Key) {
        let hash = xxh3_64(key.as_bytes());
        if self.records.len() >= KEYS_MAX && !self.records.contains_key(&hash) {
            return;
        }
        let records = self.records.entry(hash).or_default();
        *records += 1;
        let records = *records;
        self.repeated += u64::from(records == 2);
        if records >= 2 && self.most.as_ref().is_none_or(|(_, most)| records > *most) {
            self.most = Some((key.clone(), records));
        }
        if records == 2 && self.had_values.as_ref() == Some(key) {
            self.had_values = None;
        }
    }

    /// Records met so far of this key.
    pub(crate) fn records_of(&self, key: &Key) -> u32 {
        self.records.get(&xxh3_64(key.as_bytes())).copied().unwrap_or_default()
    }

    /// Whether the key has more values now than its record says.
    pub(crate) fn has_siblings(&mut self, key: &Key, has_more: bool) {
        let hash = xxh3_64(key.as_bytes());
        if !has_more {
            self.with_siblings.remove(&hash);
            if self.had_values.as_ref() == Some(key) {
                self.had_values = None;
            }
        } else if self.with_siblings.len() < KEYS_MAX {
            self.with_siblings.insert(hash);
            if self.had_values.is_none() && self.records.get(&hash).is_none_or(|&records| records < 2) {
                self.had_values = Some(key.clone());
            }
        }
    }

    /// What they came to.
    pub(crate) fn counts(self) -> KeyCounts {
        let is_single = |hash: &&u64| self.records.get(hash).is_none_or(|&records| records < 2);
        let had_values = self.with_siblings.iter().filter(is_single).count() as u64;
        KeyCounts {
            repeated: self.repeated,
            repeated_example: self.most.map(|(key, records)| (key, u64::from(records))),
            with_siblings: self.with_siblings.len() as u64,
            had_values,
            had_values_example: self.had_values,
        }
    }
}

/// Looks through a file before it is loaded for a key to which its lines together give more values than a key may have. A line
/// that alone does so fails alone, and does not count.
#[derive(Default)]
pub(crate) struct Crowding {
    values: BTreeMap<u64, u32>,
    seen: BTreeSet<u64>,
}

impl Crowding {
    /// Whether with the values of this record its key has too many. Equal ones of several records are one value: the second is left
    /// alone.
    pub(crate) fn meet(&mut self, record: &Record) -> bool {
        if self.seen.len() >= VALUES_SEEN_MAX || record.values.len() > SIBLINGS_MAX {
            return false;
        }
        let hash = xxh3_64(record.key.as_bytes());
        let values = self.values.entry(hash).or_default();
        for value in &record.values {
            *values += u32::from(self.seen.insert(xxh3_64_with_seed(value, hash)));
        }
        *values as usize > SIBLINGS_MAX
    }
}

/// Values that are told apart, for some tens of megabytes; of a longer file the rest is not looked at.
const VALUES_SEEN_MAX: usize = 1 << 20;

/// Keys that are told apart, for some tens of megabytes; of a longer file the rest is loaded like any other, and neither counted as
/// repeated nor as having siblings.
const KEYS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use driftless_node::jsonl::{Line, parse_line};

    use super::*;

    fn records(text: &str) -> Vec<Record> {
        let parsed = text.lines().map(|line| parse_line(line.as_bytes()).expect("is fine").expect("is not blank"));
        parsed.map(|line| if let Line::Record(record) = line { record } else { panic!("{line:?}") }).collect()
    }

    fn is_crowded(text: &str) -> bool {
        let mut crowding = Crowding::default();
        records(text).iter().any(|record| crowding.meet(record))
    }

    /// 64 of a hundred values of one key were kept, and the newest 36 refused one by one.
    #[test]
    fn a_file_that_gives_a_key_too_many_values_is_known_before_anything_is_written() {
        assert!(is_crowded(include_str!("cases/one-key-100-times.jsonl")));
        assert!(!is_crowded(include_str!("cases/revisions.jsonl")));
        assert!(!is_crowded(&"{\"key\": \"k\", \"value\": \"same\"}\n".repeat(100)), "equal values are one");
    }

    /// One record with 65 siblings kept a whole backup from being loaded.
    #[test]
    fn a_record_with_too_many_values_fails_alone() {
        let values = |from: u32, to: u32| (from..to).map(|i| format!("\"{i}\"")).collect::<Vec<_>>().join(",");
        let line = |from, to| format!("{{\"key\": \"k\", \"values\": [{}]}}\n", values(from, to));
        assert!(!is_crowded(&line(0, 100)));
        assert!(!is_crowded(&(line(0, 100) + &line(100, 120))), "only what can be stored crowds");
        assert!(is_crowded(&(line(0, 40) + &line(40, 80))));
    }

    #[test]
    fn keys_with_several_lines_are_counted_whether_or_not_they_have_siblings() {
        let mut keys = Keys::default();
        let records = records(include_str!("cases/revisions.jsonl"));
        records.iter().for_each(|record| keys.meet(&record.key));
        let other = Key::new("other").expect("valid");
        keys.meet(&other);
        keys.has_siblings(&other, true);
        keys.has_siblings(&records[0].key, true);
        let counts = keys.clone().counts();
        assert_eq!((counts.repeated, counts.repeated_example.map(|(_, records)| records)), (20, Some(10)));
        assert_eq!((counts.with_siblings, counts.had_values, counts.had_values_example), (2, 1, Some(other.clone())));
        keys.has_siblings(&other, false);
        let counts = keys.counts();
        assert_eq!((counts.had_values, counts.had_values_example), (0, None), "a later line has replaced them");
    }
}
