//! What every scenario's cluster looks like: one bucket, one key, and nodes named by their part in it.

use std::collections::BTreeSet;

use driftless_proto::{BucketDefinition, BucketId, Key, Topology};
use driftless_ring::NodeId;
use driftless_testkit::TopologyBuilder;

use crate::sim::shape::name_of;

use super::Setting;

/// A ring of so many members, and the built-in bucket with another policy.
pub(super) fn topology(setting: Setting) -> Topology {
    let bucket = BucketDefinition { read_all: 0, conflict: setting.conflict, ..BucketDefinition::built_in(3) };
    TopologyBuilder::of((0..setting.nodes).map(name_of)).named("gallery").bucket(bucket).build()
}

/// All members: the key's primaries in order of preference, then the others.
pub(super) fn by_role(topology: &Topology) -> Vec<NodeId> {
    let bucket = topology.bucket(BucketId::DEFAULT).expect("the built-in bucket");
    let mut nodes = topology.ring().owners(topology.place(bucket, &key()).partition).to_vec();
    nodes.extend(topology.ring().members().iter().map(|member| member.id));
    let mut seen = BTreeSet::new();
    nodes.retain(|node| seen.insert(*node));
    nodes
}

/// The one key of every scenario.
pub(super) fn key() -> Key {
    Key::new("cart").expect("well formed")
}
