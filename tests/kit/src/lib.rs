//! What the tests of all crates start from: the shape of a cluster, its buckets, and the keys that its nodes seal contexts
//! with; how pages of `docs/` are held against code ([`pages`]); spans and events, looked at ([`looking`]);
//! and a browser, where there is one ([`browser`]).
//!
//! ```
//! use driftless_testkit::{TopologyBuilder, bucket};
//!
//! let topology = TopologyBuilder::of(["a", "b", "c"]).shards(2).bucket(bucket(1, "carts", 3)).build();
//! assert_eq!(topology.ring().members().len(), 3);
//! assert!(topology.bucket_named("default").is_some(), "it is built in");
//! ```
//! It knows the ring and the protocol's words and nothing else, so that every crate's tests can use it. It is for tests:
//! what does not hold together is a panic.

use std::sync::Arc;

use driftless_proto::causality::ContextKey;
use driftless_proto::{BucketDefinition, BucketId, BucketName, ContextKeys, Quorum, Topology};
use driftless_ring::{Member, Partitions, Ring, RingSpec};

pub mod browser;
pub mod looking;
pub mod pages;

/// The shape of a cluster, said in as few words as a test needs.
///
/// What is not said: the cluster `test`, 8 partitions, hash seed 7, one shard for each member, and the built-in bucket.
#[derive(Clone, Debug)]
pub struct TopologyBuilder {
    cluster: String,
    partitions: u32,
    hash_seed: u64,
    members: Vec<Member>,
    buckets: Vec<BucketDefinition>,
}

impl TopologyBuilder {
    /// Members with these names, at addresses that lead nowhere.
    pub fn of<N: Into<String>>(names: impl IntoIterator<Item = N>) -> TopologyBuilder {
        let member = |name: N| {
            let name = name.into();
            let address = format!("{name}.test:1");
            Member::new(name, address)
        };
        TopologyBuilder::of_members(names.into_iter().map(member))
    }

    /// These members.
    pub fn of_members(members: impl IntoIterator<Item = Member>) -> TopologyBuilder {
        let members: Vec<Member> = members.into_iter().collect();
        TopologyBuilder {
            cluster: "test".to_owned(),
            partitions: 8,
            hash_seed: 7,
            buckets: vec![BucketDefinition::built_in(members.len())],
            members,
        }
    }

    /// Another name for the cluster.
    pub fn named(self, cluster: impl Into<String>) -> TopologyBuilder {
        TopologyBuilder { cluster: cluster.into(), ..self }
    }

    /// So many partitions: a power of two.
    pub fn partitions(self, partitions: u32) -> TopologyBuilder {
        TopologyBuilder { partitions, ..self }
    }

    /// Another seed of tokens: keys lie elsewhere.
    pub fn hash_seed(self, hash_seed: u64) -> TopologyBuilder {
        TopologyBuilder { hash_seed, ..self }
    }

    /// So many shards for each member.
    pub fn shards(mut self, shards: u16) -> TopologyBuilder {
        self.members.iter_mut().for_each(|member| member.shards = shards);
        self
    }

    /// One bucket more, or another definition of the one that has its id.
    pub fn bucket(mut self, bucket: BucketDefinition) -> TopologyBuilder {
        self.buckets.retain(|other| other.id != bucket.id);
        self.buckets.push(bucket);
        self
    }

    /// The same for each of these.
    pub fn buckets(self, buckets: impl IntoIterator<Item = BucketDefinition>) -> TopologyBuilder {
        buckets.into_iter().fold(self, TopologyBuilder::bucket)
    }

    /// What the ring is made of: its tables are those that the buckets need.
    pub fn spec(&self) -> RingSpec {
        RingSpec {
            partitions: Partitions::new(self.partitions).expect("a power of two"),
            hash_seed: self.hash_seed,
            members: self.members.clone(),
            classes: self.buckets.iter().map(|bucket| bucket.quorum.n()).collect(),
        }
    }

    /// The topology, with the first version of its ring.
    pub fn build(self) -> Topology {
        let ring = Ring::first(self.spec()).expect("as many members as replicas");
        Topology::new(self.cluster, ring, self.buckets).expect("each name once, and the ring has a table for each n")
    }

    /// The same, to be shared.
    pub fn shared(self) -> Arc<Topology> {
        Arc::new(self.build())
    }
}

/// A bucket that is like the built-in one of a cluster of `n`, under another name.
pub fn bucket(id: u32, name: &str, n: u8) -> BucketDefinition {
    BucketDefinition {
        id: BucketId(id),
        name: BucketName::new(name).expect("well formed"),
        quorum: Quorum::majority(n).expect("in bounds"),
        ..BucketDefinition::built_in(n.into())
    }
}

/// What the nodes of test clusters seal contexts with.
pub fn context_keys() -> ContextKeys {
    ContextKeys::new(vec![ContextKey { id: 1, secret: [7; 32] }]).expect("there is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_has_a_table_for_each_bucket_and_a_bucket_defined_again_is_replaced() {
        let other = BucketDefinition { sloppy: false, ..bucket(0, "default", 2) };
        let topology = TopologyBuilder::of(["a", "b", "c"]).buckets([bucket(1, "single", 1), other]).build();
        assert_eq!(topology.ring().classes().collect::<Vec<u8>>(), [1, 2]);
        assert_eq!(topology.buckets().len(), 2);
        assert!(!topology.buckets()[0].sloppy);
    }
}
