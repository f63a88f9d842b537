//! The keys of a file: which have several lines, which have siblings now, and which would have more values than a key may.

use std::collections::{BTreeMap, BTreeSet};

use driftless_node::jsonl::Record;
use driftless_proto::Key;
use driftless_proto::key::SIBLINGS_MAX;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many records are of each key, and which keys have siblings now. Keys go by a hash, so that those of any length cost the
/// same.
#[derive(Default)]
pub(crate) struct Keys {
    records: BTreeMap<u64, u32>,
    repeated: BTreeMap<u64, Key>,
    with_siblings: BTreeMap<u64, Key>,
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
    /// Such a key.
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
        if *records == 2 {
            self.repeated.insert(hash, key.clone());
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
        } else if self.with_siblings.len() < KEYS_MAX {
            self.with_siblings.entry(hash).or_insert_with(|| key.clone());
        }
    }

    /// What they came to.
    pub(crate) fn counts(&self) -> KeyCounts {
        let count = |hash: &u64| self.records.get(hash).copied().unwrap_or_default();
        let most =
            self.repeated.iter().map(|(hash, key)| (u64::from(count(hash)), key)).max_by_key(|(records, _)| *records);
        let mut had_values = self.with_siblings.iter().filter(|(hash, _)| !self.repeated.contains_key(hash)).peekable();
        KeyCounts {
            repeated: self.repeated.len() as u64,
            repeated_example: most.map(|(records, key)| (key.clone(), records)),
            with_siblings: self.with_siblings.len() as u64,
            had_values_example: had_values.peek().map(|(_, key)| (*key).clone()),
            had_values: had_values.count() as u64,
        }
    }
}

/// Looks through a file before it is loaded for a key to which it gives more values than a key may have.
#[derive(Default)]
pub(crate) struct Crowding {
    values: BTreeMap<u64, u32>,
    seen: BTreeSet<u64>,
    /// The first such key, by its hash, and its name.
    crowded: Option<(u64, Key)>,
}

impl Crowding {
    /// The values of a record. Equal ones of several records are one value: the second is left alone.
    pub(crate) fn meet(&mut self, record: &Record) {
        let hash = xxh3_64(record.key.as_bytes());
        if self.values.len() >= KEYS_MAX {
            return;
        }
        for value in &record.values {
            if self.seen.insert(xxh3_64_with_seed(value, hash)) {
                let values = self.values.entry(hash).or_default();
                *values += 1;
                if *values as usize > SIBLINGS_MAX && self.crowded.is_none() {
                    self.crowded = Some((hash, record.key.clone()));
                }
            }
        }
    }

    /// Such a key, and how many values it would have.
    pub(crate) fn crowded(self) -> Option<(Key, u32)> {
        let (hash, key) = self.crowded?;
        Some((key, self.values.get(&hash).copied().unwrap_or_default()))
    }
}

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

    fn crowded(text: &str) -> Option<(String, u32)> {
        let mut crowding = Crowding::default();
        records(text).iter().for_each(|record| crowding.meet(record));
        crowding.crowded().map(|(key, values)| (key.to_string(), values))
    }

    /// 64 of a hundred values of one key were kept, and the newest 36 refused one by one.
    #[test]
    fn a_file_that_gives_a_key_too_many_values_is_known_before_anything_is_written() {
        assert_eq!(crowded(include_str!("cases/one-key-100-times.jsonl")), Some(("counter".to_owned(), 100)));
        assert_eq!(crowded(include_str!("cases/revisions.jsonl")), None);
        assert_eq!(crowded(&"{\"key\": \"k\", \"value\": \"same\"}\n".repeat(100)), None, "equal values are one");
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
        let counts = keys.counts();
        assert_eq!((counts.repeated, counts.repeated_example.map(|(_, records)| records)), (20, Some(10)));
        assert_eq!((counts.with_siblings, counts.had_values, counts.had_values_example), (2, 1, Some(other.clone())));
        keys.has_siblings(&other, false);
        assert_eq!(keys.counts().had_values, 0, "a later line has replaced them");
    }
}
