//! Headers of recently used keys in memory: a put needs the old vector and dots, seldom the old value, and reading
//! them from the store was a fifth of its cost.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::Header;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use xxhash_rust::xxh3::xxh3_64;

use crate::planted::Bug;
use crate::shard::Shard;

use super::commit::Applied;

/// A cache of headers, bounded in bytes. It holds what the store holds, never what is still in a turn.
pub(super) struct HeaderCache(Cache<Bytes, Arc<Header>, Memory, BuildHasherDefault<KeyHasher>>);

impl HeaderCache {
    pub(super) fn new(bytes_max: u64) -> HeaderCache {
        // An estimate only sizes the table at first.
        let items = (bytes_max / 256).max(16) as usize;
        HeaderCache(Cache::with(items, bytes_max, Memory, BuildHasherDefault::default(), Default::default()))
    }

    pub(super) fn get(&mut self, record: &[u8]) -> Option<Arc<Header>> {
        self.0.get(record).cloned()
    }

    pub(super) fn contains(&self, record: &[u8]) -> bool {
        self.0.peek(record).is_some()
    }

    /// A batch has been applied.
    pub(super) fn follow(&mut self, shard: &Shard, applied: &Applied) {
        for (record, change) in &applied.records {
            let is_stale = || self.get(record.as_bytes()).is_some();
            if !shard.planted.is_where(Bug::StaleHeaders, is_stale) {
                self.insert(record.to_bytes(), change.header.clone());
            }
        }
    }

    pub(super) fn insert(&mut self, record: Bytes, header: Arc<Header>) {
        self.0.insert(record, header);
    }
}

/// Weighs an entry by the memory it takes.
#[derive(Clone)]
struct Memory;

impl Weighter<Bytes, Arc<Header>> for Memory {
    fn weight(&self, record: &Bytes, header: &Arc<Header>) -> u64 {
        // Two allocations with their counters, then 16 bytes per actor and 72 per live write.
        (160 + record.len() + header.vv().len() * 16 + header.live().len() * 72) as u64
    }
}

/// xxh3 without a random seed, so that a simulation repeats. The keys begin with a hash already; a client that can
/// choose keys gains little by colliding here, since eviction is bounded by bytes.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(23) ^ xxh3_64(bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
