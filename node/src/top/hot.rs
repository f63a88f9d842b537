//! The keys that are asked for most: Space-Saving, of Metwally, Agrawal and El Abbadi, *Efficient Computation of Frequent and Top-k
//! Elements in Data Streams* (ICDT 2005), section 3.
//!
//! A request for a key that is in the sketch counts one more for it. One for another key takes the place of the key with the
//! smallest count, *takes over that count*, and counts one more: it may have been asked for as often as that before, so that much it may be
//! over. With m places and N requests follows:
//!
//! - the counts add up to N, so the smallest is at most N/m;
//! - no count is too low, and none is over by more than the smallest was when its key came in: at most N/m;
//! - a key that was asked for more than N/m times is in it.
//!
//! The proptests below have these names.

use driftless_proto::top::{BucketTop, HotKey, Seen};
use driftless_ring::Token;

use super::name::Name;
use super::ranked::Ranked;
use crate::time::Instant;

/// The requests for the keys of one bucket in one window.
pub(super) struct Hot {
    keys: Ranked<Counted>,
    requests: u64,
}

/// What is known of a key beside its count.
#[derive(Clone, Default)]
struct Counted {
    /// Since it came in; the writes are what is left of the count.
    reads: u64,
    over: u64,
    name: Name,
    seen: Option<Sight>,
}

/// What a key was, and when.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    pub(super) bytes: u64,
    pub(super) siblings: u32,
    pub(super) at: Instant,
}

impl Hot {
    pub(super) fn new(most: usize) -> Hot {
        Hot { keys: Ranked::new(most), requests: 0 }
    }

    /// A key is asked for. Its name is given where names are kept.
    pub(super) fn asked(&mut self, token: Token, is_read: bool, name: Option<&[u8]>) {
        self.requests += 1;
        let reads = u64::from(is_read);
        if let Some(counted) = self.keys.renumber(token, |count| count + 1) {
            counted.reads += reads;
            counted.name.fill(name);
        } else if !self.keys.is_full() {
            self.keys.insert(token, 1, Counted { reads, ..Counted::default() }).name.set(name);
        } else if let over = self.floor()
            && let Some(counted) = self.keys.replace_least(token, over + 1)
        {
            (counted.reads, counted.over, counted.seen) = (reads, over, None);
            counted.name.set(name);
        }
    }

    /// A key was read or written, and was this.
    pub(super) fn saw(&mut self, token: Token, sight: Sight) {
        if let Some((_, counted)) = self.keys.get_mut(token) {
            counted.seen = Some(sight);
        }
    }

    pub(super) fn forget_names(&mut self) {
        self.keys.iter_mut().for_each(|counted| counted.name.forget());
    }

    /// Forgets all, and keeps the memory for as much again; if there was nothing to forget, none is needed.
    pub(super) fn begin_anew(&mut self) {
        if self.is_empty() {
            self.keys.free();
        } else {
            self.keys.clear();
        }
        self.requests = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes(|counted| counted.name.bytes())
    }

    /// How often a key that is not in it was asked for at most.
    fn floor(&self) -> u64 {
        if self.keys.is_full() { self.keys.least().unwrap_or(0) } else { 0 }
    }

    /// Adds itself to what is said of the bucket.
    pub(super) fn tell(&self, now: Instant, into: &mut BucketTop) {
        into.requests = self.requests;
        into.floor = self.floor();
        into.hot.extend(self.keys.iter().map(|(token, count, counted)| {
            let sure = count - counted.over;
            HotKey {
                key: counted.name.of(token),
                reads: counted.reads,
                writes: sure - counted.reads,
                over: counted.over,
                seen: counted.seen.map(|sight| sight.seen(now)),
            }
        }));
    }
}

impl Sight {
    pub(super) fn seen(self, now: Instant) -> Seen {
        let ago_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        Seen { bytes: self.bytes, siblings: self.siblings, ago_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use driftless_proto::BucketId;
    use proptest::prelude::*;

    use super::*;

    /// What a sketch with so many places says of these requests, and how it was.
    fn counted(most: usize, requests: &[u64]) -> (BucketTop, BTreeMap<u64, u64>) {
        let (mut hot, mut truth) = (Hot::new(most), BTreeMap::new());
        for token in requests {
            hot.asked(Token(*token), token % 2 == 0, None);
            *truth.entry(*token).or_insert(0) += 1;
        }
        (told(&hot), truth)
    }

    fn told(hot: &Hot) -> BucketTop {
        let mut told = super::super::nothing(BucketId(1));
        hot.tell(Instant(0), &mut told);
        told
    }

    fn check(most: usize, requests: &[u64]) {
        let (said, truth) = counted(most, requests);
        let (n, m) = (requests.len() as u64, most as u64);
        assert!(said.hot.len() <= most, "bounded");
        assert_eq!(said.requests, n);
        assert_eq!(said.hot.iter().map(HotKey::count).sum::<u64>(), n, "the counts add up");
        assert!(said.floor <= n / m, "the smallest is at most N/m");
        for key in &said.hot {
            let true_count = truth[&key.key.token.0];
            assert!(key.reads + key.writes <= true_count, "what is sure is sure");
            assert!(true_count <= key.count(), "no count is too low");
            assert!(key.over <= n / m, "none is over by more than N/m");
        }
        for (token, count) in &truth {
            let is_in = said.hot.iter().any(|key| key.key.token.0 == *token);
            assert!(is_in || *count <= n / m, "a key with more than N/m is in it");
            assert!(is_in || *count <= said.floor, "who is not in it was asked for at most so often");
        }
    }

    proptest! {
        #[test]
        fn counts_add_up_none_is_too_low_and_none_is_over_by_more_than_its_share(
            most in 1..9_usize,
            requests in proptest::collection::vec((0..40_u64).prop_map(|key| key * key / 40), 0..600),
        ) {
            check(most, &requests);
        }
    }

    #[test]
    fn keys_that_never_come_twice_leave_it_bounded_and_its_word_true() {
        let requests: Vec<u64> = (0..20_000).collect();
        check(16, &requests);
        // The worst that there is: whoever has just been pushed out comes back.
        let requests: Vec<u64> = (0..20_000).map(|at| at % 17).collect();
        check(16, &requests);
    }

    #[test]
    fn one_key_of_ninety_in_a_hundred_is_first_and_hardly_over() {
        let requests: Vec<u64> = (0..10_000).map(|at| if at % 10 == 9 { 1_000 + at } else { 2 }).collect();
        let (said, _) = counted(8, &requests);
        let first = said.hot.iter().max_by_key(|key| key.count()).expect("some");
        assert_eq!((first.key.token, first.reads, first.writes, first.over), (Token(2), 9_000, 0, 0));
    }

    #[test]
    fn as_long_as_there_is_room_counts_are_exact() {
        let (said, truth) = counted(128, &[1, 2, 2, 3, 3, 3]);
        let exact: BTreeMap<u64, u64> = said.hot.iter().map(|key| (key.key.token.0, key.reads + key.writes)).collect();
        assert_eq!((exact, said.floor), (truth, 0));
    }
}
