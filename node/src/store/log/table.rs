//! A hash table that is in order: where an entry lies follows from the high bits of its token, and tokens are hashes already.
//!
//! ```text
//! slots   0     1     2     3     4     5     6     7
//!         .    10    14    15     .    51    52     .        home slots:  10 → 1   14 → 1   15 → 2   51 → 5   52 → 5
//! ```
//! Linear probing whose runs are kept sorted (Amble and Knuth, *Ordered hash tables*, 1974): an entry is never before its home slot,
//! and no slot between the two is empty. So a range of tokens is one slice, and needs no sorting.

/// One entry of a [`Table`], and where its record is. A length of 0 marks an empty slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    pub(super) token: u64,
    /// Tells apart keys with the same token.
    pub(super) check: u32,
    pub(super) location: Location,
}

/// Where a record is: a segment, and bytes in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// Entries of one arc, by token.
#[derive(Debug)]
pub(super) struct Table {
    /// How many high bits of a token name the arc, and are the same for all entries.
    arc_bits: u32,
    /// [`Table::homes`] of them, and a few more for the run at the end.
    slots: Vec<Entry>,
    homes: usize,
    count: usize,
}

impl Table {
    pub(super) fn new(arc_bits: u32) -> Table {
        Table { arc_bits, slots: Vec::new(), homes: 0, count: 0 }
    }

    /// Where the entry of a key is. O(1) for tokens that are hashes.
    pub(super) fn get(&self, token: u64, check: u32) -> Option<Entry> {
        self.find(token, check).ok().map(|at| self.slots[at])
    }

    /// Enters a key, or replaces its entry; answers where it was before.
    pub(super) fn set(&mut self, entry: Entry) -> Option<Location> {
        if (self.count + 1) * 5 > self.homes * 4 {
            self.rebuild((self.count + 1) * 3 / 2 + HOMES_MIN);
        }
        let at = match self.find(entry.token, entry.check) {
            Ok(at) => return Some(std::mem::replace(&mut self.slots[at], entry).location),
            Err(at) => at,
        };
        let run = self.slots[at..].iter().position(Entry::is_empty);
        let free = run.map_or_else(
            || {
                self.slots.push(Entry::default());
                self.slots.len() - 1
            },
            |run| at + run,
        );
        self.slots.copy_within(at..free, at + 1);
        self.slots[at] = entry;
        self.count += 1;
        None
    }

    /// Takes a key out; answers where it was.
    pub(super) fn remove(&mut self, token: u64, check: u32) -> Option<Location> {
        let mut hole = self.find(token, check).ok()?;
        let removed = self.slots[hole].location;
        // What follows comes nearer to its home.
        while let Some(next) = self.slots.get(hole + 1).filter(|next| !next.is_empty() && self.home(next.token) <= hole)
        {
            self.slots[hole] = *next;
            hole += 1;
        }
        self.slots[hole] = Entry::default();
        self.count -= 1;
        if self.homes > 8 * HOMES_MIN && self.count * 4 < self.homes {
            self.rebuild(self.count * 3 / 2 + HOMES_MIN);
        }
        Some(removed)
    }

    /// A key's record is somewhere else now; unless it was not at `from` any more.
    pub(super) fn switch(&mut self, token: u64, check: u32, from: Location, to: Location) -> bool {
        match self.find(token, check) {
            Ok(at) if self.slots[at].location == from => {
                self.slots[at].location = to;
                true
            }
            _ => false,
        }
    }

    /// Entries from this token on, in order.
    pub(super) fn from(&self, token: u64) -> impl Iterator<Item = &Entry> {
        let home = if self.homes == 0 { 0 } else { self.home(token) };
        self.slots[home..].iter().filter(move |entry| !entry.is_empty() && entry.token >= token)
    }

    #[cfg(test)]
    pub(super) fn longest_run(&self) -> usize {
        self.slots.split(Entry::is_empty).map(<[Entry]>::len).max().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Entry>()
    }

    /// The slot of a key, or the one where it would have to be.
    fn find(&self, token: u64, check: u32) -> Result<usize, usize> {
        if self.homes == 0 {
            return Err(0);
        }
        let mut at = self.home(token);
        while let Some(entry) = self.slots.get(at).filter(|entry| !entry.is_empty() && entry.token <= token) {
            if (entry.token, entry.check) == (token, check) {
                return Ok(at);
            }
            at += 1;
        }
        Err(at)
    }

    /// Where an entry would like to be: by the bits below those that name the arc.
    fn home(&self, token: u64) -> usize {
        let within = u128::from(token << self.arc_bits);
        ((within * self.homes as u128) >> 64) as usize
    }

    fn rebuild(&mut self, homes: usize) {
        let old = std::mem::take(&mut self.slots);
        self.homes = homes;
        self.slots = Vec::with_capacity(homes + OVERFLOW);
        self.slots.resize(homes, Entry::default());
        let mut next = 0;
        for entry in old.into_iter().filter(|entry| !entry.is_empty()) {
            let at = next.max(self.home(entry.token));
            if at == self.slots.len() {
                self.slots.push(entry);
            } else {
                self.slots[at] = entry;
            }
            next = at + 1;
        }
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.location.length == 0
    }
}

const HOMES_MIN: usize = 16;

/// Slots behind the last home, as a rule enough for the run that ends there.
const OVERFLOW: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(token: u64, check: u32, offset: u32) -> Entry {
        Entry { token, check, location: Location { segment: 0, offset, length: 1 } }
    }

    /// Tokens everywhere, and many in one place.
    fn tokens() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>().prop_map(|token| token >> 8),
            0..20_u64,
            Just((1 << 56) - 1),
            (1 << 55)..(1_u64 << 55) + 9
        ]
    }

    proptest! {
        #[test]
        fn a_table_agrees_with_an_ordered_map(
            changes in prop::collection::vec((tokens(), 0..2_u32, 0..4_u8), 1..600),
            start in tokens(),
        ) {
            let (mut table, mut model) = (Table::new(8), BTreeMap::new());
            for (number, (token, check, what)) in changes.into_iter().enumerate() {
                let new = entry(token, check, number as u32);
                if what == 0 {
                    prop_assert_eq!(table.remove(token, check), model.remove(&(token, check)).map(|e: Entry| e.location));
                } else {
                    prop_assert_eq!(table.set(new), model.insert((token, check), new).map(|e| e.location));
                }
                prop_assert_eq!(table.get(token, check), model.get(&(token, check)).copied());
            }
            prop_assert_eq!(table.len(), model.len());
            let mut found: Vec<_> = table.from(start).copied().collect();
            prop_assert!(found.is_sorted_by_key(|entry| entry.token));
            found.sort_by_key(|entry| (entry.token, entry.check));
            prop_assert_eq!(found, model.range((start, 0)..).map(|(_, entry)| *entry).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_record_that_has_moved_meanwhile_is_not_switched() {
        let mut table = Table::new(8);
        table.set(entry(7, 0, 1));
        let place = |offset| Location { segment: 0, offset, length: 1 };
        assert!(!table.switch(7, 0, place(2), place(3)));
        assert!(table.switch(7, 0, place(1), place(3)));
        assert_eq!(table.get(7, 0).map(|entry| entry.location), Some(place(3)));
    }

    #[test]
    fn a_table_that_has_shrunk_gives_memory_back() {
        let mut table = Table::new(8);
        let token = |i: u64| i << 40;
        (0..10_000).for_each(|i| assert_eq!(table.set(entry(token(i), 0, 0)), None));
        let full = table.bytes();
        assert!(full < 10_000 * 48, "{full} bytes");
        (100..10_000).for_each(|i| assert!(table.remove(token(i), 0).is_some()));
        assert!(table.bytes() < full / 4, "{} of {full} bytes", table.bytes());
        assert!((0..100).all(|i| table.get(token(i), 0).is_some()));
    }
}
