//! What a run has met. A rig that never saw a partition heal says nothing about partitions: over [`SEEDS_ENOUGH`] seeds
//! every counter here must be above zero.

use std::collections::BTreeMap;

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

/// Seeds after which everything in [`REQUIRED`] must have been met: each is met several times in so many.
pub const SEEDS_ENOUGH: u64 = 900;

/// What a budget of [`SEEDS_ENOUGH`] must meet.
pub const REQUIRED: &[&str] = &[
    "hints changed while under way",
    "markers delivered",
    "hints stored",
    "peers unresponsive",
    "peers asked for a sign of life",
    "splits",
    "acks by fallbacks",
    "puts coordinated by fallbacks",
    "hints delivered",
    "puts ok",
    "puts forwarded",
    "deletes ok",
    "deletes that found nothing",
    "deletes that covered nothing live",
    "puts with a stale context",
    "contexts returned by puts",
    "siblings read",
    "reads in several pages",
    "gone between pages",
    "hints put off",
    "read repairs",
    "strict write-backs",
    "retries recognised",
    "writes stamped twice",
    "refused writes",
    "unknown writes",
    "unknown writes that appeared",
    "lww discards",
    "batch apply failures",
    "batches with several stamps of a key",
    "crashes",
    "crashes with unsynced data lost",
    "power cuts",
    "partitions healed",
    "one-way cuts",
    "connections lost",
    "duplicated messages",
    "lost messages",
    "pauses",
    "peers suspected",
    "wrong suspicions",
    "peers alive again",
    "clock jumps",
    "clocks a day off",
    "clocks found off",
    "writes refused for a wrong clock",
    "stamps far ahead of the clock",
    "rollbacks",
    "actors retired by claims",
    "fallbacks struck as they stamped",
    "disk full phases",
    "hedges",
    "exchanges that found differences",
    "exchanges said to be over early",
    "keys repaired by anti-entropy",
    "trees rebuilt",
    "damaged records healed",
    "halts",
    "turns that left something to the next",
    "syncs failed",
    "applies failed",
    "reads failed",
    "records damaged",
    "hints damaged",
    "damage while down",
    "damaged hints met",
    "damaged records met",
    "damaged records restored",
    "requests handed over between shards",
    "hints refused beside others kept",
    "writes refused as overloaded",
    "hints refused as overloaded",
    "repairs refused as overloaded",
    "scans ok",
    "scans that failed",
    "states kept",
    "states in several pages",
    "states merged again",
    "reads to be explained",
    "writes to be explained",
    "answers that were explained",
    "write ids used for another key",
    "write ids and values used for another key",
    "write ids refused as reused",
    "acks of hints lost",
    "sloppy deletes that found nothing beside hints",
    "damage on two disks at once",
    "leaves listed in several messages",
    "versions gone by",
    "nodes that joined",
    "partitions doubled",
    "access agreed on",
    "nodes that left",
    "nodes replaced",
    "nodes declared lost",
    "shares that were set",
    "changes taken back",
    "three versions at once",
    "disks lost",
    "disks lost while members changed",
    "lost disks healed",
    "requests begun again by another version",
    "requests of an older version refused",
    "records dropped where they moved away",
    "reads refused by a store that is not whole",
    "requests counted by key",
    "requests to replicas with a trace",
    "scans that met other arcs",
    "versions forced",
    "forces at two nodes at once",
    "forces refused that name others than are lost",
    "forces refused beside most voters",
    "members lost by force that came back empty",
    "members lost by force that were replaced",
    "members lost by force that left",
    "acknowledged writes lost with most disks",
    "acknowledged writes left on one disk",
];

impl Coverage {
    /// Adds to a counter.
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// Adds all counters of another run.
    pub fn join(&mut self, other: &Coverage) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    /// All counters.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
