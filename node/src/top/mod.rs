//! Which keys are hot, large, or have many siblings: what one shard counts while it coordinates.
//!
//! ```text
//! a client asks ── asked ──▶ hot: reads and writes by key, of this minute and the one before
//! a machine answers ── saw ──▶ large, siblings: bytes and number of the values that it had in hand
//! ```
//! It is the coordinator that counts: it hears of each request of a client once, where replicas hear of it several times or, for what a
//! header answers, see no value. A request that is passed on is counted by the node that the client asked; what the key was is seen by the one
//! that answers.
//!
//! Everything is bounded: [`BUCKETS_MAX`] buckets, and of each so many keys as [`KEYS_MAX`], [`SEEN_MAX`] and [`NAME_BYTES`] say. That is at most
//! [`BUCKET_BYTES_MAX`] a bucket with names, 3.5 MiB a shard; what is not asked for takes nothing. No request allocates once a bucket is full, but for
//! names that are new in a minute; none makes another answer, and what is counted depends on what was asked and when, on nothing else.
//!
//! *Hot* means now: counts are of two windows, the minute that runs and the whole one before it, which are joined like the answers of two
//! nodes ([`driftless_proto::top`]). So what is shown is 1 to 2 minutes old at most, and counts stay whole numbers with their bounds.

mod hot;
mod name;
mod ranked;
mod seen;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use driftless_proto::top::{self, BucketTop, KEYS_MAX, Keys, TopCommand};
use driftless_proto::{BucketId, Siblings, Topology};
use driftless_ring::{NodeId, Token};

use crate::config::TopLimits;
use crate::time::Instant;

use hot::{Hot, Sight};
use seen::Largest;

#[cfg(doc)]
use driftless_proto::top::NAME_BYTES;

/// What a shard counts.
pub struct Top {
    limits: TopLimits,
    buckets: BTreeMap<BucketId, Bucket>,
    /// When counting began, whether anything was asked then or not.
    since: Instant,
    /// The window that runs: so many whole ones have ended since the clock's zero, the same for all shards of a node.
    window: u64,
    /// Requests of buckets that there is no room for, in this window and in the one before.
    uncounted: [u64; 2],
    /// Among how many shards the keys are divided.
    shards: Option<u16>,
}

/// Of one bucket.
struct Bucket {
    /// The window that runs, and the one before.
    hot: [Hot; 2],
    large: Largest,
    siblings: Largest,
}

impl Top {
    /// Nothing was asked yet.
    pub fn new(now: Instant, limits: TopLimits) -> Top {
        Top { limits, buckets: BTreeMap::new(), since: now, window: 0, uncounted: [0; 2], shards: None }
    }

    /// Whether it counts.
    pub fn watches(&self) -> bool {
        self.limits.watch
    }

    /// A client asks for a key of a bucket that there is.
    pub fn asked(&mut self, now: Instant, bucket: BucketId, token: Token, is_read: bool, key: &[u8]) {
        if !self.limits.watch {
            return;
        }
        self.turn(now);
        let name = self.limits.keys.then_some(key);
        self.make_room_for(bucket);
        match self.bucket(bucket) {
            Some(bucket) => bucket.hot[0].asked(token, is_read, name),
            None => self.uncounted[0] += 1,
        }
    }

    /// A machine has all of a key in hand.
    pub fn saw(&mut self, now: Instant, bucket: BucketId, token: Token, state: &Siblings, key: &[u8]) {
        if !self.limits.watch {
            return;
        }
        self.turn(now);
        let name = self.limits.keys.then_some(key);
        let siblings = u32::try_from(state.values().count()).unwrap_or(u32::MAX);
        let sight = Sight { bytes: state.value_bytes() as u64, siblings, at: now };
        if let Some(bucket) = self.bucket(bucket) {
            bucket.hot[0].saw(token, sight);
            bucket.large.saw(token, sight.bytes, sight, name);
            bucket.siblings.saw(token, siblings.into(), sight, name);
        }
    }

    /// These are the buckets that there are. A node that becomes a member divides its keys anew: what a shard has counted until then may be
    /// another one's from now on, and shards are joined as if that never happened.
    pub fn handle_topology(&mut self, now: Instant, me: NodeId, topology: &Topology) {
        let shards = topology.ring().member(me).map(|member| member.shards);
        if shards != self.shards {
            self.shards = shards;
            self.forget(now);
        }
        self.buckets.retain(|bucket, _| topology.bucket(*bucket).is_some());
    }

    /// Whoever does not watch any more forgets what was counted, and whoever shows no names any more forgets these.
    pub fn handle_limits(&mut self, now: Instant, limits: &TopLimits) {
        if limits.watch != self.limits.watch {
            self.forget(now);
        }
        if !limits.keys {
            for Bucket { hot, large, siblings } in self.buckets.values_mut() {
                hot.iter_mut().for_each(Hot::forget_names);
                large.forget_names();
                siblings.forget_names();
            }
        }
        self.limits = limits.clone();
    }

    /// What was counted.
    pub fn told(&mut self, now: Instant, command: &TopCommand) -> top::Top {
        if self.limits.watch {
            self.turn(now);
        }
        let most = usize::try_from(command.most).unwrap_or(KEYS_MAX).min(KEYS_MAX);
        let asked_for = |id: BucketId| command.bucket.is_none_or(|only| only == id);
        let buckets = self.buckets.iter().filter(|(id, bucket)| asked_for(**id) && !bucket.is_empty());
        top::Top {
            watches: self.limits.watch,
            names: self.limits.keys,
            span_ms: self.span_ms(now),
            buckets: buckets.filter_map(|(id, bucket)| bucket.told(now, *id, most)).collect(),
            uncounted: self.uncounted.iter().sum(),
        }
    }

    fn forget(&mut self, now: Instant) {
        (self.buckets, self.since, self.uncounted) = (BTreeMap::new(), now, [0; 2]);
    }

    /// How long the two windows have lasted.
    fn span_ms(&self, now: Instant) -> u64 {
        if !self.limits.watch {
            return 0;
        }
        let begun = Instant::default() + WINDOW * u32::try_from(self.window.saturating_sub(1)).unwrap_or(u32::MAX);
        let since = self.since.max(begun);
        u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
    }

    /// A bucket that was asked for nothing in either window leaves its place to one that is: what it is kept for is how large its keys were.
    fn make_room_for(&mut self, id: BucketId) {
        if self.buckets.len() < BUCKETS_MAX || self.buckets.contains_key(&id) {
            return;
        }
        let is_quiet = |(id, bucket): (&BucketId, &Bucket)| bucket.hot.iter().all(Hot::is_empty).then_some(*id);
        if let Some(quiet) = self.buckets.iter().find_map(is_quiet) {
            self.buckets.remove(&quiet);
        }
    }

    fn bucket(&mut self, id: BucketId) -> Option<&mut Bucket> {
        let has_room = self.buckets.len() < BUCKETS_MAX;
        match self.buckets.entry(id) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) if has_room => Some(entry.insert(Bucket::new())),
            Entry::Vacant(_) => None,
        }
    }

    /// Ends windows whose time is over. Buckets of which nothing is left make room for others.
    fn turn(&mut self, now: Instant) {
        let window = u64::try_from(now.since(Instant::default()).as_micros() / WINDOW.as_micros()).unwrap_or(u64::MAX);
        for _ in 0..window.saturating_sub(self.window).min(2) {
            self.uncounted = [0, self.uncounted[0]];
            for bucket in self.buckets.values_mut() {
                bucket.hot.swap(0, 1);
                bucket.hot[0].begin_anew();
                bucket.large.age(now);
                bucket.siblings.age(now);
            }
            self.buckets.retain(|_, bucket| !bucket.is_empty());
        }
        self.window = self.window.max(window);
    }
}

impl Bucket {
    fn new() -> Bucket {
        Bucket {
            hot: [Hot::new(KEYS_MAX), Hot::new(KEYS_MAX)],
            large: Largest::new(SEEN_MAX, 1),
            siblings: Largest::new(SEEN_MAX, 2),
        }
    }

    fn is_empty(&self) -> bool {
        self.hot.iter().all(Hot::is_empty) && self.large.is_empty() && self.siblings.is_empty()
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let hot: usize = self.hot.iter().map(Hot::bytes).sum();
        size_of::<Bucket>() + hot + self.large.bytes() + self.siblings.bytes()
    }

    fn told(&self, now: Instant, id: BucketId, most: usize) -> Option<BucketTop> {
        let [mut current, mut before] = [nothing(id), nothing(id)];
        self.hot[0].tell(now, &mut current);
        self.hot[1].tell(now, &mut before);
        current.large.extend(self.large.told(now));
        current.siblings.extend(self.siblings.told(now));
        BucketTop::summed(&[current, before], Keys::Shared, most)
    }
}

fn nothing(bucket: BucketId) -> BucketTop {
    BucketTop { bucket, requests: 0, hot: Vec::new(), floor: 0, large: Vec::new(), siblings: Vec::new() }
}

/// What *now* means: long enough that a key with some requests a second stands out, short enough that whoever looks sees a flood begin.
pub const WINDOW: Duration = Duration::from_secs(60);

const _: () = assert!(2 * WINDOW.as_millis() == top::SPAN_MAX_MS as u128, "whoever joins answers goes by it");

/// Of one shard. Clusters have a handful of buckets; whoever makes thousands of them is not shown the keys of all.
pub const BUCKETS_MAX: usize = 32;

/// Memory of a bucket, at most; a test adds it up.
pub const BUCKET_BYTES_MAX: usize = 112 << 10;

/// Keys of which it is kept how large they were; and how many siblings they had.
pub const SEEN_MAX: usize = 64;

#[cfg(test)]
mod tests;
