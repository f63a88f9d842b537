//! A bounded set of keys, each with a number, of which the one with the smallest is at hand: a binary heap that knows where each key is.
//!
//! ```text
//! token ─ places ─▶ slot: token, number, what is kept of it       (stays where it is)
//!                    ▲ │
//!              heap ─┘ └─ at                                      (16-bit numbers of slots, the smallest number first)
//! ```
//! What happens for each request is a look into a small table and, seldom, some swaps of 16-bit numbers: nothing is allocated once the set
//! is full. A token is a good hash already; whoever finds keys with equal tokens makes them count as one, and no walk gets longer than the
//! set.

use driftless_ring::Token;
use hashbrown::HashTable;

/// At most so many keys, with a `T` for each.
pub(super) struct Ranked<T> {
    most: usize,
    slots: Vec<Slot<T>>,
    /// Slots by token.
    places: HashTable<u16>,
    /// Slots, so that none has a smaller number than the one at half its index.
    heap: Vec<u16>,
}

struct Slot<T> {
    token: Token,
    number: u64,
    /// Its index in the heap.
    at: u16,
    kept: T,
}

impl<T> Ranked<T> {
    pub(super) fn new(most: usize) -> Ranked<T> {
        assert!(0 < most && most < usize::from(u16::MAX), "slots are numbered in 16 bits");
        Ranked { most, slots: Vec::new(), places: HashTable::new(), heap: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() == self.most
    }

    /// The smallest number; `None` if it is empty.
    pub(super) fn least(&self) -> Option<u64> {
        self.heap.first().map(|slot| self.slots[usize::from(*slot)].number)
    }

    /// What is kept of a key, and its number.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<(u64, &mut T)> {
        let slot = self.slot(token)?;
        let slot = &mut self.slots[usize::from(slot)];
        Some((slot.number, &mut slot.kept))
    }

    /// Gives a key that is in it another number, and hands out what is kept of it.
    pub(super) fn renumber(&mut self, token: Token, number: impl FnOnce(u64) -> u64) -> Option<&mut T> {
        let slot = self.slot(token)?;
        let entry = &mut self.slots[usize::from(slot)];
        let (before, at) = (entry.number, entry.at);
        entry.number = number(before);
        if entry.number < before {
            self.rise(at.into());
        } else {
            self.sink(at.into());
        }
        Some(&mut self.slots[usize::from(slot)].kept)
    }

    /// A key that is not in it comes in; there has to be room.
    pub(super) fn insert(&mut self, token: Token, number: u64, kept: T) -> &mut T {
        assert!(!self.is_full(), "whoever inserts has looked for room");
        let slot = self.slots.len() as u16;
        self.slots.push(Slot { token, number, at: slot, kept });
        self.heap.push(slot);
        self.place(token, slot);
        self.rise(slot.into());
        &mut self.slots[usize::from(slot)].kept
    }

    /// A key that is not in it takes the place of the one with the smallest number, and what was kept of that is handed out to be
    /// overwritten; `None` if it is empty.
    pub(super) fn replace_least(&mut self, token: Token, number: u64) -> Option<&mut T> {
        let slot = *self.heap.first()?;
        let gone = self.slots[usize::from(slot)].token;
        self.unplace(gone);
        let entry = &mut self.slots[usize::from(slot)];
        (entry.token, entry.number) = (token, number);
        self.place(token, slot);
        self.sink(0);
        Some(&mut self.slots[usize::from(slot)].kept)
    }

    /// A key goes, if it is in it.
    pub(super) fn remove(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        self.unplace(token);
        let hole = usize::from(self.slots[usize::from(slot)].at);
        self.heap.swap_remove(hole);
        if let Some(moved) = self.heap.get(hole) {
            self.slots[usize::from(*moved)].at = hole as u16;
            self.rise(hole);
            self.sink(hole);
        }
        // The last slot takes the place of the one that is gone.
        let last = self.slots.len() - 1;
        if usize::from(slot) != last {
            let (token, at) = (self.slots[last].token, self.slots[last].at);
            self.unplace(token);
            self.slots.swap(usize::from(slot), last);
            self.heap[usize::from(at)] = slot;
            self.slots.truncate(last);
            self.place(token, slot);
        } else {
            self.slots.truncate(last);
        }
    }

    /// Every key goes, and the memory stays.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.places.clear();
        self.heap.clear();
    }

    /// Every key goes, and the memory with them.
    pub(super) fn free(&mut self) {
        *self = Ranked::new(self.most);
    }

    /// In no order that means anything, but always in the same.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, u64, &T)> {
        self.slots.iter().map(|slot| (slot.token, slot.number, &slot.kept))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().map(|slot| &mut slot.kept)
    }

    /// Memory that it takes, with so much for what is kept of each key.
    #[cfg(test)]
    pub(super) fn bytes(&self, of: fn(&T) -> usize) -> usize {
        let kept: usize = self.slots.iter().map(|slot| of(&slot.kept)).sum();
        let slots = self.slots.capacity() * size_of::<Slot<T>>();
        slots + self.heap.capacity() * size_of::<u16>() + self.places.allocation_size() + kept
    }

    fn slot(&self, token: Token) -> Option<u16> {
        let slots = &self.slots;
        self.places.find(token.0, |slot| slots[usize::from(*slot)].token == token).copied()
    }

    fn place(&mut self, token: Token, slot: u16) {
        let slots = &self.slots;
        self.places.insert_unique(token.0, slot, |slot| slots[usize::from(*slot)].token.0);
    }

    fn unplace(&mut self, token: Token) {
        let slots = &self.slots;
        let found = self.places.find_entry(token.0, |slot| slots[usize::from(*slot)].token == token);
        debug_assert!(found.is_ok(), "every key has a place");
        if let Ok(entry) = found {
            entry.remove();
        }
    }

    fn number_at(&self, at: usize) -> u64 {
        self.slots[usize::from(self.heap[at])].number
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.number_at(at) < self.number_at((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.number_at(*child)) else { return };
            if self.number_at(least) >= self.number_at(at) {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            self.slots[usize::from(self.heap[at])].at = at as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map with a smallest number, whatever is done with it.
        #[test]
        fn it_is_a_bounded_map_that_knows_its_least(steps in proptest::collection::vec((0..4_u8, 0..12_u64, 0..9_u64), 0..300)) {
            let (mut ranked, mut model) = (Ranked::new(6), BTreeMap::<u64, u64>::new());
            for (step, token, number) in steps {
                match step {
                    0 if !model.contains_key(&token) && !ranked.is_full() => {
                        ranked.insert(Token(token), number, ());
                        model.insert(token, number);
                    }
                    1 => {
                        let found = ranked.renumber(Token(token), |_| number).is_some();
                        prop_assert_eq!(found, model.get_mut(&token).map(|held| *held = number).is_some());
                    }
                    2 => {
                        ranked.remove(Token(token));
                        model.remove(&token);
                    }
                    3 if !model.contains_key(&token) => {
                        let least = ranked.least();
                        let before: BTreeMap<u64, u64> = ranked.iter().map(|(token, number, ())| (token.0, number)).collect();
                        ranked.replace_least(Token(token), number);
                        let is_in = |token: u64| ranked.iter().any(|(held, ..)| held == Token(token));
                        if let Some(gone) = before.keys().find(|token| !is_in(**token)) {
                            prop_assert_eq!(before.get(gone).copied(), least);
                            model.remove(gone);
                            model.insert(token, number);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(ranked.least(), model.values().min().copied());
                let held: BTreeMap<u64, u64> = ranked.iter().map(|(token, number, ())| (token.0, number)).collect();
                prop_assert_eq!(&held, &model);
                for (token, number) in &model {
                    prop_assert_eq!(ranked.get_mut(Token(*token)).map(|(number, ())| number), Some(*number));
                }
                prop_assert!(model.len() <= 6);
            }
        }
    }
}
