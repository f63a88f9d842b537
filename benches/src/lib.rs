//! Criterion benchmarks live beside this file, one subject each; here is what several of them start from.

use std::sync::Arc;

use driftless_proto::causality::ContextKey;
use driftless_proto::{BucketDefinition, ContextKeys, Topology};
use driftless_ring::{Member, Partitions, Ring, RingSpec};

/// Names of the members of [`topology`].
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three members at these addresses, one shard each, and the default bucket: n = 3, r = w = 2, synced.
pub fn topology(addresses: [String; 3]) -> Arc<Topology> {
    let spec = RingSpec {
        partitions: Partitions::new(256).expect("a power of two"),
        hash_seed: 0,
        members: NAMES.into_iter().zip(addresses).map(|(name, address)| Member::new(name, address)).collect(),
        classes: [3].into(),
    };
    let ring = Ring::first(spec).expect("valid");
    Arc::new(Topology::new("bench", ring, vec![BucketDefinition::built_in(3)]).expect("valid"))
}

/// The key that all members seal contexts with.
pub fn context_keys() -> ContextKeys {
    ContextKeys::new(vec![ContextKey { id: 1, secret: [7; 32] }]).expect("one key")
}
