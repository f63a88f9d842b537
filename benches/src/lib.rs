//! Criterion benchmarks live beside this file, one subject each; here is what several of them start from.

use std::sync::Arc;

use driftless_proto::Topology;
use driftless_ring::Member;
use driftless_testkit::TopologyBuilder;
pub use driftless_testkit::context_keys;

/// Names of the members of [`topology`].
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three members at these addresses, one shard each, and the default bucket: n = 3, r = w = 2, synced.
pub fn topology(addresses: [String; 3]) -> Arc<Topology> {
    let members = NAMES.into_iter().zip(addresses).map(|(name, address)| Member::new(name, address));
    TopologyBuilder::of_members(members).named("bench").partitions(256).hash_seed(0).shared()
}
