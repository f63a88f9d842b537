//! Which keys are asked for most, which are large, and which have many siblings: what a node says of it, and how the answers of several
//! become one.
//!
//! ```text
//! shard ─ two windows ─┐
//! shard ─ two windows ─┴─ joined ─▶ a node's answer ─┐
//!                                   a node's answer ─┴─ joined ─▶ the cluster's
//! ```
//! Counts are sketches (Space-Saving: Metwally, Agrawal, El Abbadi, *Efficient Computation of Frequent and Top-k Elements in Data Streams*,
//! ICDT 2005), so each says by how much it may be too high; none is too low. A node counts what clients ask of **it**: so over all
//! nodes every request is counted once. Sketches are joined as in Agarwal et al., *Mergeable Summaries*, PODS 2012: who does not list a key
//! may have counted it as often as the least that it lists, and that is added to the count and to what it may be over.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use driftless_ring::Token;
use serde::{Deserialize, Serialize};

use crate::key::BucketId;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopCommand {
    /// Only this bucket.
    pub bucket: Option<BucketId>,
    /// Most keys of each list; a node has no more than [`KEYS_MAX`].
    pub most: u32,
}

/// What a node answers, or several together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Top {
    /// Whether it counts at all: `top.watch`.
    pub watches: bool,
    /// Whether it keeps names of keys: `top.keys`.
    pub names: bool,
    /// Milliseconds in which this was counted.
    pub span_ms: u64,
    /// In the order of their ids; those of which nothing was asked lately are left out.
    pub buckets: Vec<BucketTop>,
    /// Requests for keys of buckets that are not among them, since there were too many buckets at once.
    pub uncounted: u64,
}

/// Of one bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketTop {
    /// Which one.
    pub bucket: BucketId,
    /// Gets, puts and deletes of its keys.
    pub requests: u64,
    /// Those that were asked for most, the most often first.
    pub hot: Vec<HotKey>,
    /// A key that `hot` does not list was asked for at most so often.
    pub floor: u64,
    /// Those whose values are the largest together, the largest first.
    pub large: Vec<SeenKey>,
    /// Those with the most siblings, from two on, the most first.
    pub siblings: Vec<SeenKey>,
}

/// A key, by its token and, where names are kept, by its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopKey {
    /// Its token, which names its partition and is all that is counted by.
    pub token: Token,
    /// Its first [`NAME_BYTES`] bytes.
    pub name: Option<Bytes>,
    /// The name is longer than that.
    pub cut: bool,
}

/// How often a key was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HotKey {
    /// Which one.
    pub key: TopKey,
    /// Gets, counted one by one.
    pub reads: u64,
    /// Puts and deletes, counted one by one.
    pub writes: u64,
    /// Requests more that there may have been: they were some key's.
    pub over: u64,
    /// What it was when it was last read or written.
    pub seen: Option<Seen>,
}

/// What a key was when it was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenKey {
    /// Which one.
    pub key: TopKey,
    /// What it was.
    pub seen: Seen,
}

/// A state, as a coordinator had it in hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Bytes of its values.
    pub bytes: u64,
    /// How many values there are.
    pub siblings: u32,
    /// Milliseconds since.
    pub ago_ms: u64,
}

impl Top {
    /// The answers of nodes as one, with no more than so many keys in a list: see [`joined`].
    pub fn of_nodes(answers: &[Top], most: usize) -> Top {
        joined(answers, Keys::Shared, most)
    }
}

impl HotKey {
    /// How often it was asked for, at most; by [`over`](HotKey::over) less at the least.
    pub fn count(&self) -> u64 {
        self.reads.saturating_add(self.writes).saturating_add(self.over)
    }
}

/// Whether one key can have been counted by several that are to be joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Nodes: whichever a client asks counts. So do the windows of a shard.
    Shared,
    /// Shards of one node: each counts keys of its own.
    Apart,
}

/// The answers of several nodes, or shards of one, as one: counts and errors are added up, of what was seen the latest counts. Where
/// nodes counted for different times, all are brought to the longest, as if they had gone on like that; one that has counted for less
/// than [`EXTRAPOLATED_MS`] says too little for that, and is added as it is. No list is longer than `most`.
pub fn joined(answers: &[Top], keys: Keys, most: usize) -> Top {
    // Nobody counts for longer, whatever is said.
    let span = |answer: &Top| answer.span_ms.min(SPAN_MAX_MS);
    let span_ms = answers.iter().map(span).max().unwrap_or(0);
    let mut buckets: BTreeMap<BucketId, Vec<BucketTop>> = BTreeMap::new();
    for answer in answers {
        for bucket in &answer.buckets {
            let part = match keys {
                Keys::Shared => scaled(bucket, span(answer), span_ms),
                // Shards go by one clock and begin together.
                Keys::Apart => bucket.clone(),
            };
            buckets.entry(bucket.bucket).or_default().push(part);
        }
    }
    Top {
        watches: answers.iter().any(|answer| answer.watches),
        names: answers.iter().any(|answer| answer.names),
        span_ms,
        buckets: buckets.into_values().filter_map(|parts| BucketTop::summed(&parts, keys, most)).collect(),
        uncounted: answers.iter().map(|answer| answer.uncounted).fold(0, u64::saturating_add),
    }
}

impl BucketTop {
    /// The sum of several of one bucket; `None` of nothing.
    pub fn summed(parts: &[BucketTop], keys: Keys, most: usize) -> Option<BucketTop> {
        let bucket = parts.first()?.bucket;
        let floors = parts.iter().map(|part| part.floor);
        let floor = match keys {
            Keys::Shared => sum(floors),
            Keys::Apart => floors.max().unwrap_or(0),
        };
        let mut hot: BTreeMap<Token, (HotKey, u64)> = BTreeMap::new();
        for part in parts {
            for key in &part.hot {
                // `listed` is the part of `floor` of those that list it: what they say instead is better.
                let (sum, listed) = hot
                    .entry(key.key.token)
                    .or_insert_with(|| (HotKey { key: key.key.clone(), reads: 0, writes: 0, over: 0, seen: None }, 0));
                sum.reads = sum.reads.saturating_add(key.reads);
                sum.writes = sum.writes.saturating_add(key.writes);
                sum.over = sum.over.saturating_add(key.over);
                sum.seen = latest(sum.seen, key.seen);
                sum.key.name_by(&key.key);
                *listed = listed.saturating_add(part.floor);
            }
        }
        let mut hot: Vec<HotKey> = hot
            .into_values()
            .map(|(key, listed)| match keys {
                Keys::Shared => HotKey { over: key.over.saturating_add(floor.saturating_sub(listed)), ..key },
                Keys::Apart => key,
            })
            .collect();
        // Keys of which as many are known for sure come before those that may only have been.
        hot.sort_by_key(|key| (Reverse(key.count()), key.over, key.key.token));
        let floor = floor.max(hot.get(most).map_or(0, HotKey::count));
        hot.truncate(most);
        Some(BucketTop {
            bucket,
            requests: sum(parts.iter().map(|part| part.requests)),
            hot,
            floor,
            large: largest(parts.iter().flat_map(|part| &part.large), most, |seen| seen.bytes),
            siblings: largest(parts.iter().flat_map(|part| &part.siblings), most, |seen| seen.siblings.into()),
        })
    }
}

impl TopKey {
    /// Takes over a name, if it has none.
    fn name_by(&mut self, other: &TopKey) {
        if self.name.is_none() {
            (self.name, self.cut) = (other.name.clone(), other.cut);
        }
    }
}

/// The first of them by this measure, of each key what was seen of it last.
fn largest<'a>(keys: impl Iterator<Item = &'a SeenKey>, most: usize, measure: fn(&Seen) -> u64) -> Vec<SeenKey> {
    let mut by_token: BTreeMap<Token, SeenKey> = BTreeMap::new();
    for key in keys {
        let one = by_token.entry(key.key.token).or_insert_with(|| key.clone());
        if key.seen.ago_ms < one.seen.ago_ms {
            one.seen = key.seen;
        }
        one.key.name_by(&key.key);
    }
    let mut keys: Vec<SeenKey> = by_token.into_values().collect();
    keys.sort_by_key(|key| (Reverse(measure(&key.seen)), key.key.token));
    keys.truncate(most);
    keys
}

fn latest(one: Option<Seen>, other: Option<Seen>) -> Option<Seen> {
    [one, other].into_iter().flatten().min_by_key(|seen| seen.ago_ms)
}

/// As much as it would have been in a longer time, to the nearest whole number; what may be over is rounded up.
fn scaled(bucket: &BucketTop, from_ms: u64, to_ms: u64) -> BucketTop {
    if from_ms == to_ms || from_ms < EXTRAPOLATED_MS {
        return bucket.clone();
    }
    let (from, to) = (u128::from(from_ms), u128::from(to_ms));
    let narrow = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
    let nearest = |number: u64| narrow((u128::from(number) * to + from / 2) / from);
    let up = |number: u64| narrow((u128::from(number) * to).div_ceil(from));
    let hot = bucket.hot.iter().map(|key| {
        let [reads, writes] = [key.reads, key.writes].map(nearest);
        HotKey { reads, writes, over: up(key.over), ..key.clone() }
    });
    BucketTop { requests: nearest(bucket.requests), hot: hot.collect(), floor: up(bucket.floor), ..bucket.clone() }
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Milliseconds of the two windows together: none counts for longer.
pub const SPAN_MAX_MS: u64 = 120_000;

/// What was counted in fewer milliseconds than these is not made a rate of: it may be one request.
pub const EXTRAPOLATED_MS: u64 = 10_000;

/// Keys that a list of a node can have.
pub const KEYS_MAX: usize = 256;

/// Bytes of a name that are kept.
pub const NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(token: u64) -> TopKey {
        TopKey { token: Token(token), name: None, cut: false }
    }

    fn hot(token: u64, reads: u64, writes: u64, over: u64) -> HotKey {
        HotKey { key: key(token), reads, writes, over, seen: None }
    }

    fn bucket(hot: Vec<HotKey>, floor: u64) -> BucketTop {
        let requests = hot.iter().map(HotKey::count).sum();
        BucketTop { bucket: BucketId(1), requests, hot, floor, large: Vec::new(), siblings: Vec::new() }
    }

    fn top(span_ms: u64, buckets: Vec<BucketTop>) -> Top {
        Top { watches: true, names: false, span_ms, buckets, uncounted: 0 }
    }

    #[test]
    fn who_does_not_list_a_key_may_have_counted_it_as_often_as_its_least() {
        let one = top(60_000, vec![bucket(vec![hot(1, 90, 9, 1), hot(2, 5, 0, 5)], 10)]);
        let other = top(60_000, vec![bucket(vec![hot(1, 50, 0, 0), hot(3, 4, 0, 0)], 4)]);
        let both = joined(&[one, other], Keys::Shared, 10);
        assert_eq!(both.buckets[0].hot, [hot(1, 140, 9, 1), hot(2, 5, 0, 9), hot(3, 4, 0, 10)]);
        assert_eq!((both.buckets[0].floor, both.buckets[0].requests, both.span_ms), (14, 164, 60_000));
    }

    #[test]
    fn a_shard_says_nothing_of_the_keys_of_another() {
        let one = top(60_000, vec![bucket(vec![hot(1, 90, 9, 1)], 10)]);
        let other = top(50_000, vec![bucket(vec![hot(3, 40, 0, 2)], 14)]);
        let both = joined(&[one, other], Keys::Apart, 10);
        assert_eq!(both.buckets[0].hot, [hot(1, 90, 9, 1), hot(3, 40, 0, 2)]);
        assert_eq!((both.buckets[0].floor, both.buckets[0].requests), (14, 142));
    }

    #[test]
    fn what_is_cut_off_raises_the_floor() {
        let all = top(1, vec![bucket((1..=5).map(|token| hot(token, 10 * token, 0, 0)).collect(), 0)]);
        let cut = joined(&[all], Keys::Shared, 2);
        assert_eq!(cut.buckets[0].hot, [hot(5, 50, 0, 0), hot(4, 40, 0, 0)]);
        assert_eq!(cut.buckets[0].floor, 30, "the third was asked for that often");
    }

    #[test]
    fn who_has_just_started_counts_by_its_rate() {
        let long = top(100_000, vec![bucket(vec![hot(1, 1_000, 0, 0)], 0)]);
        let short = top(10_000, vec![bucket(vec![hot(1, 0, 30, 3)], 0)]);
        let both = joined(&[long.clone(), short], Keys::Shared, 10);
        assert_eq!(both.buckets[0].hot, [hot(1, 1_000, 300, 30)]);
        // What is exact stays so where nodes merely do not count from the same moment on.
        let later = top(99_990, vec![bucket(vec![hot(1, 3, 1, 0)], 0)]);
        let both = joined(&[long, later], Keys::Shared, 10);
        assert_eq!(both.buckets[0].hot, [hot(1, 1_003, 1, 0)]);
    }

    /// A node that was asked for the first time 20 ms ago, once, had 5,500 reads for sure.
    #[test]
    fn of_who_has_hardly_begun_nothing_is_made_up_and_nobody_counts_for_ever() {
        let long = top(110_000, vec![bucket(vec![hot(1, 1_000, 0, 0)], 0)]);
        let begun = top(20, vec![bucket(vec![hot(2, 1, 0, 0)], 0)]);
        let both = joined(&[long.clone(), begun], Keys::Shared, 10);
        assert_eq!((&both.buckets[0].hot[..], both.span_ms), (&[hot(1, 1_000, 0, 0), hot(2, 1, 0, 0)][..], 110_000));
        let liar = top(u64::MAX, vec![bucket(vec![hot(2, 1, 0, 0)], 0)]);
        let both = joined(&[top(SPAN_MAX_MS, long.buckets), liar], Keys::Shared, 10);
        assert_eq!(
            (&both.buckets[0].hot[..], both.span_ms),
            (&[hot(1, 1_000, 0, 0), hot(2, 1, 0, 0)][..], SPAN_MAX_MS)
        );
    }

    #[test]
    fn of_what_was_seen_the_latest_counts_and_a_name_is_taken_from_whoever_has_it() {
        let seen = |bytes, siblings, ago_ms| Seen { bytes, siblings, ago_ms };
        let name = TopKey { name: Some(Bytes::from_static(b"cart")), ..key(7) };
        let with = |large: Vec<SeenKey>| BucketTop { large, ..bucket(Vec::new(), 0) };
        let old = with(vec![SeenKey { key: name.clone(), seen: seen(9_000, 3, 5_000) }]);
        let new =
            with(vec![SeenKey { key: key(7), seen: seen(10, 1, 40) }, SeenKey { key: key(8), seen: seen(500, 1, 9) }]);
        let both = joined(&[top(1, vec![old]), top(1, vec![new])], Keys::Shared, 10);
        let expected = [SeenKey { key: key(8), seen: seen(500, 1, 9) }, SeenKey { key: name, seen: seen(10, 1, 40) }];
        assert_eq!(both.buckets[0].large, expected);
    }

    #[test]
    fn buckets_are_kept_apart_and_nothing_joins_to_nothing() {
        let other = BucketTop { bucket: BucketId(2), ..bucket(vec![hot(1, 1, 0, 0)], 0) };
        let both = joined(&[top(1, vec![bucket(vec![hot(1, 7, 0, 0)], 0)]), top(1, vec![other])], Keys::Shared, 10);
        assert_eq!(both.buckets.iter().map(|one| one.hot[0].reads).collect::<Vec<_>>(), [7, 1]);
        assert_eq!(joined(&[], Keys::Apart, 10), Top::default());
    }

    proptest! {
        /// Whatever a node says, even one that lies, is joined without an overflow.
        #[test]
        fn any_answers_can_be_joined(counts in proptest::collection::vec(any::<[u64; 4]>(), 0..6), spans in any::<[u64; 2]>()) {
            let keys = |shift: u64| counts.iter().map(|[token, reads, writes, over]| {
                hot(token % 3 + shift, *reads, *writes, *over)
            }).collect::<Vec<_>>();
            let with = |shift, span| top(span, vec![BucketTop { requests: u64::MAX, hot: keys(shift), ..bucket(Vec::new(), u64::MAX) }]);
            let all = joined(&[with(0, spans[0]), with(1, spans[1])], Keys::Shared, 4);
            prop_assert!(all.buckets[0].hot.len() <= 4);
        }

        /// What is said of a key in the sum is true if it is true of each part.
        #[test]
        fn sums_hold_whatever_each_part_holds(requests in proptest::collection::vec((0..4_usize, 0..12_u64), 1..200), most in 1..12_usize) {
            let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
            let mut parts: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); 4];
            for (part, token) in &requests {
                *truth.entry(*token).or_default() += 1;
                *parts[*part].entry(*token).or_default() += 1;
            }
            // Each part lists its first three keys exactly, and of the others how often they were asked for at most.
            let parts: Vec<BucketTop> = parts.iter().map(|part| {
                let listed: Vec<HotKey> = part.iter().map(|(token, count)| hot(*token, *count, 0, 0)).collect();
                BucketTop::summed(&[bucket(listed, 0)], Keys::Shared, 3).expect("one")
            }).collect();
            let all = BucketTop::summed(&parts, Keys::Shared, most).expect("some");
            prop_assert_eq!(all.requests, requests.len() as u64);
            for (token, count) in truth {
                match all.hot.iter().find(|key| key.key.token == Token(token)) {
                    Some(key) => prop_assert!(key.reads <= count && count <= key.count(), "{token}: {count}, {key:?}"),
                    None => prop_assert!(count <= all.floor, "{token}: {count} above {}", all.floor),
                }
            }
        }
    }
}
