//! Keys that one target did not take: left alone for a while, and for longer each time, so that walks go on with the others.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::replica::record::RecordKey;
use crate::time::Instant;

/// The keys that a target did not take lately.
#[derive(Debug)]
pub(super) struct PutOff {
    keys: BTreeMap<RecordKey, Entry>,
    first: Duration,
    max: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Instant,
    /// For how long it was put off last.
    pause: Duration,
}

impl PutOff {
    /// None yet; they are put off for `first`, and twice as long each time, up to `max`.
    pub(super) fn new(first: Duration, max: Duration) -> PutOff {
        PutOff { keys: BTreeMap::new(), first, max }
    }

    /// A key was not taken. False if too many are kept in mind already: the next walk tries this one as any other.
    pub(super) fn add(&mut self, now: Instant, record: RecordKey) -> bool {
        let pause = self.keys.get(&record).map_or(self.first, |entry| (entry.pause * 2).min(self.max));
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&record) {
            return false;
        }
        self.keys.insert(record, Entry { until: now + pause, pause });
        true
    }

    /// A key was taken.
    pub(super) fn remove(&mut self, record: &RecordKey) {
        self.keys.remove(record);
    }

    /// Whether a key is to be left alone.
    pub(super) fn holds(&self, now: Instant, record: &RecordKey) -> bool {
        self.keys.get(record).is_some_and(|entry| now < entry.until)
    }

    /// All may be tried again from then on.
    pub(super) fn bring_forward(&mut self, to: Instant) {
        self.keys.values_mut().for_each(|entry| entry.until = entry.until.min(to));
    }

    /// A walk that has met everything began then: what could be tried by then was, and is here no more or put off anew.
    pub(super) fn forget(&mut self, walk_began: Instant) {
        self.keys.retain(|_, entry| entry.until > walk_began);
    }

    /// When the first of them is to be tried again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.keys.values().map(|entry| entry.until).min()
    }
}

/// Keys kept in mind for one target: if more are not taken, it is hardly the keys.
const KEYS_MAX: usize = 256;
