//! The index: where the record of each key is, all of it in memory.
//!
//! ```text
//! keys that begin with Layout::prefix   table (1 byte), token (8 bytes), rest ──▶ a Table for each table and arc
//! all other keys                                                              ──▶ an ordered map of whole keys
//! ```
//! Of the former only the token and 32 bits of a hash of the whole key are kept, 24 bytes together with the place. The hash is seeded with a
//! secret of the store, so that nobody can make two keys that are taken for one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::table::{Entry, Location, Table};

/// Which keys are found by a token.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Keys that begin so go on with a table (one byte) and a token (eight bytes, the highest first); a shorter one as if by zeros.
    pub prefix: &'static [u8],
    /// Into how many arcs a table is cut, as a power of two: no fewer than partitions, since a node has all keys of some partitions and
    /// none of others; and not few, since a table of an arc grows at once.
    pub arc_bits: u32,
}

impl Layout {
    /// How a replica's records are found, on a ring with so many partitions.
    pub fn of_records(partitions: u32) -> Layout {
        Layout { prefix: crate::replica::record::RECORDS_PREFIX, arc_bits: partitions.max(1).ilog2() }
    }
}

/// Where a key belongs in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'k> {
    Token { table: u8, token: u64, check: u32 },
    Ordered(&'k [u8]),
}

pub(super) struct Index {
    layout: Layout,
    secret: u64,
    tables: Vec<OnceLock<Vec<Mutex<Table>>>>,
    ordered: Mutex<BTreeMap<Bytes, Location>>,
    /// Of the keys in there.
    ordered_bytes: AtomicU64,
    /// Keys in all tables, and memory that these take.
    table_keys: AtomicU64,
    table_bytes: AtomicU64,
}

/// A walk through the tables, from one token to another.
#[derive(Debug)]
pub(super) struct Walk {
    next: Option<(u8, u64)>,
    last: (u8, u64),
    /// The table that was walked last.
    begun: Option<u8>,
}

impl Index {
    pub(super) fn new(layout: Layout, secret: u64) -> Index {
        let layout = Layout { arc_bits: layout.arc_bits.clamp(ARC_BITS_MIN, ARC_BITS_MAX), ..layout };
        let tables = (0..=u8::MAX).map(|_| OnceLock::new()).collect();
        let (ordered, ordered_bytes, table_keys, table_bytes) = Default::default();
        Index { layout, secret, tables, ordered, ordered_bytes, table_keys, table_bytes }
    }

    pub(super) fn secret(&self) -> u64 {
        self.secret
    }

    pub(super) fn prefix(&self) -> &'static [u8] {
        self.layout.prefix
    }

    pub(super) fn place<'k>(&self, key: &'k [u8]) -> Place<'k> {
        match self.position(key) {
            Some((table, token)) => {
                Place::Token { table, token, check: (xxh3_64_with_seed(key, self.secret) >> 32) as u32 }
            }
            None => Place::Ordered(key),
        }
    }

    /// Table and token of a key that has them. They are in the order of the keys.
    pub(super) fn position(&self, key: &[u8]) -> Option<(u8, u64)> {
        let rest = key.strip_prefix(self.layout.prefix)?;
        let mut token = [0; 8];
        let given = rest.get(1..).unwrap_or_default();
        let given = &given[..given.len().min(8)];
        token[..given.len()].copy_from_slice(given);
        Some((rest.first().copied().unwrap_or_default(), u64::from_be_bytes(token)))
    }

    pub(super) fn get(&self, place: &Place<'_>) -> Option<Location> {
        match *place {
            Place::Token { table, token, check } => Some(lock(self.table(table, token)?).get(token, check)?.location),
            Place::Ordered(key) => lock(&self.ordered).get(key).copied(),
        }
    }

    /// Answers where the key's record was before.
    pub(super) fn set(&self, place: &Place<'_>, location: Location) -> Option<Location> {
        match *place {
            Place::Token { table, token, check } => {
                let tables = self.tables[usize::from(table)].get_or_init(|| self.arcs());
                self.counted(&tables[self.arc_of(token)], |table| table.set(Entry { token, check, location }))
            }
            Place::Ordered(key) => {
                let mut ordered = lock(&self.ordered);
                match ordered.get_mut(key) {
                    Some(known) => Some(std::mem::replace(known, location)),
                    None => {
                        self.ordered_bytes.fetch_add(key.len() as u64, Ordering::Relaxed);
                        ordered.insert(Bytes::copy_from_slice(key), location)
                    }
                }
            }
        }
    }

    /// Answers where the key's record was.
    pub(super) fn remove(&self, place: &Place<'_>) -> Option<Location> {
        match *place {
            Place::Token { table, token, check } => {
                self.counted(self.table(table, token)?, |table| table.remove(token, check))
            }
            Place::Ordered(key) => {
                let removed = lock(&self.ordered).remove(key)?;
                self.ordered_bytes.fetch_sub(key.len() as u64, Ordering::Relaxed);
                Some(removed)
            }
        }
    }

    /// A record was copied; unless the key's record is another one by now.
    pub(super) fn switch(&self, place: &Place<'_>, from: Location, to: Location) -> bool {
        match *place {
            Place::Token { table, token, check } => {
                self.table(table, token).is_some_and(|table| lock(table).switch(token, check, from, to))
            }
            Place::Ordered(key) => match lock(&self.ordered).get_mut(key) {
                Some(known) if *known == from => {
                    *known = to;
                    true
                }
                _ => false,
            },
        }
    }

    /// The first of the other keys between two bounds.
    pub(super) fn next_ordered(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<(Bytes, Location)> {
        lock(&self.ordered).range::<[u8], _>((from, to)).next().map(|(key, location)| (key.clone(), *location))
    }

    /// The next entries of a walk in order of their tokens, and the table they are of: about `at_least` of them, all of a token
    /// together. `None` at the end.
    pub(super) fn walk(&self, walk: &mut Walk, at_least: usize, found: &mut Vec<Entry>) -> Option<u8> {
        found.clear();
        while let Some((table, token)) = walk.next.filter(|next| *next <= walk.last) {
            if walk.begun.is_some_and(|begun| begun != table) && !found.is_empty() {
                walk.next = Some((table, token));
                return walk.begun;
            }
            walk.begun = Some(table);
            let bits = self.layout.arc_bits;
            let past_arc = (token >> (64 - bits)) + 1;
            walk.next = match past_arc < 1 << bits {
                true => Some((table, past_arc << (64 - bits))),
                false => table.checked_add(1).map(|table| (table, 0)),
            };
            let Some(arc) = self.table(table, token) else {
                if self.tables[usize::from(table)].get().is_none() {
                    walk.next = table.checked_add(1).map(|table| (table, 0));
                }
                continue;
            };
            for entry in lock(arc).from(token) {
                if (table, entry.token) > walk.last {
                    walk.next = None;
                    return (!found.is_empty()).then_some(table);
                }
                if found.len() >= at_least && found.last().is_none_or(|last| last.token != entry.token) {
                    walk.next = Some((table, entry.token));
                    return Some(table);
                }
                found.push(*entry);
            }
            if found.len() >= at_least {
                return Some(table);
            }
        }
        walk.next = None;
        walk.begun.filter(|_| !found.is_empty())
    }

    /// Keys, and bytes of memory that the tables take.
    pub(super) fn size(&self) -> (u64, u64) {
        let ordered = lock(&self.ordered).len() as u64;
        let ordered_bytes = self.ordered_bytes.load(Ordering::Relaxed) + ordered * ORDERED_BYTES;
        (ordered + self.table_keys.load(Ordering::Relaxed), ordered_bytes + self.table_bytes.load(Ordering::Relaxed))
    }

    /// Changes a table, and counts what it has and takes.
    fn counted<T>(&self, table: &Mutex<Table>, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = lock(table);
        let before = (table.len() as u64, table.bytes() as u64);
        let changed = change(&mut table);
        // Adding what is below zero wraps around twice.
        self.table_keys.fetch_add((table.len() as u64).wrapping_sub(before.0), Ordering::Relaxed);
        self.table_bytes.fetch_add((table.bytes() as u64).wrapping_sub(before.1), Ordering::Relaxed);
        changed
    }

    #[cfg(test)]
    fn longest_run(&self) -> usize {
        let arcs = self.tables.iter().filter_map(OnceLock::get).flatten();
        arcs.map(|arc| lock(arc).longest_run()).max().unwrap_or_default()
    }

    fn table(&self, table: u8, token: u64) -> Option<&Mutex<Table>> {
        Some(&self.tables[usize::from(table)].get()?[self.arc_of(token)])
    }

    fn arcs(&self) -> Vec<Mutex<Table>> {
        (0..1_u32 << self.layout.arc_bits).map(|_| Mutex::new(Table::new(self.layout.arc_bits))).collect()
    }

    fn arc_of(&self, token: u64) -> usize {
        (token >> (64 - self.layout.arc_bits)) as usize
    }
}

impl Walk {
    pub(super) fn new(first: (u8, u64), last: (u8, u64)) -> Walk {
        Walk { next: Some(first), last, begun: None }
    }
}

/// Nothing in here panics half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Growing one table then moves no more than a 256th of the keys.
const ARC_BITS_MIN: u32 = 8;

/// As many as a ring can have partitions.
const ARC_BITS_MAX: u32 = 16;

/// What an entry of the ordered map takes beside its key, about.
const ORDERED_BYTES: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { prefix: &[1], arc_bits: 8 };

    /// A node of many has the keys of few partitions, and all of each.
    #[test]
    fn keys_of_few_partitions_are_found_as_fast_as_those_of_all() {
        let index = Index::new(Layout::of_records(4096), 5);
        let location = Location { segment: 0, offset: 0, length: 1 };
        let token = |i: u64| ((i % 16) << 56) | (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12); // the first partition of 16 of 256 arcs
        (0..50_000)
            .for_each(|i| assert_eq!(index.set(&Place::Token { table: 3, token: token(i), check: 0 }, location), None));
        assert_eq!(index.size().0, 50_000);
        assert!(index.size().1 < 50_000 * 60, "{:?}", index.size());
        assert!(index.longest_run() < 400, "{}", index.longest_run());
    }

    #[test]
    fn positions_are_in_the_order_of_the_keys() {
        let index = Index::new(LAYOUT, 5);
        let keys: [&[u8]; 6] =
            [&[1], &[1, 0, 0, 1], &[1, 0, 1], &[1, 1], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 4], &[1, 255, 255]];
        assert!(keys.is_sorted());
        let positions = keys.map(|key| index.position(key).expect("has the prefix"));
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!((index.position(&[0, 1]), index.position(&[2])), (None, None));
    }

    #[test]
    fn a_walk_goes_through_arcs_and_tables_and_keeps_equal_tokens_together() {
        let index = Index::new(LAYOUT, 5);
        let mut expected = Vec::new();
        for table in [0, 3, 255] {
            for token in [0, 1, 1 << 60, u64::MAX - 1, u64::MAX] {
                for check in 0..3 {
                    let location = Location { segment: 0, offset: 0, length: 1 };
                    index.set(&Place::Token { table, token, check }, location);
                    expected.push((token, check));
                }
            }
        }
        for at_least in [1, 2, 4, 100] {
            let (mut walk, mut all, mut found) = (Walk::new((0, 0), (255, u64::MAX)), Vec::new(), Vec::new());
            while index.walk(&mut walk, at_least, &mut found).is_some() {
                assert_eq!(found.len() % 3, 0, "three of each token");
                all.extend(found.iter().map(|entry| (entry.token, entry.check)));
            }
            let mut sorted = all.clone();
            (0..3).for_each(|table| sorted[table * 15..][..15].sort_unstable());
            assert_eq!(sorted, expected);
        }
        let mut found = Vec::new();
        index.walk(&mut Walk::new((3, 1), (3, 1 << 60)), 100, &mut found);
        assert_eq!(found.len(), 6);
    }
}
