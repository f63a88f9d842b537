//! What everybody must agree on: the ring and the buckets. Nodes build the first one from the cluster file and agree on those after it;
//! clients fetch it from any node and route by it.

use std::sync::Arc;

use driftless_ring::{NodeId, PartitionId, Partitions, PreferenceList, Ring, Token};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::bucket::BucketDefinition;
use crate::key::{BucketId, Key};

/// The agreed shape of a cluster. Immutable; a change makes a new one with a higher ring version.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawTopology")]
pub struct Topology {
    cluster: String,
    ring: Arc<Ring>,
    buckets: Vec<BucketDefinition>,
}

/// Why a topology does not hold together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopologyError {
    /// Two buckets share an id or a name.
    #[error("bucket {0:?} is defined twice")]
    DuplicateBucket(String),
    /// A bucket wants a replication factor that the ring has no table for.
    #[error("bucket {name:?} wants n = {n}, but the ring has no table for it")]
    NoClass {
        /// The bucket.
        name: String,
        /// Its replication factor.
        n: u8,
    },
    /// The bucket `default` is missing.
    #[error("the built-in bucket \"default\" is missing")]
    NoDefault,
}

/// Where a key lives: its token, its partition, and who owns that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Position on the ring.
    pub token: Token,
    /// The (n, arc) that holds the token.
    pub partition: PartitionId,
}

impl Topology {
    /// Puts a ring and bucket definitions together. Buckets are kept sorted by id.
    ///
    /// # Errors
    /// [`TopologyError`] if they do not fit each other.
    pub fn new(
        cluster: impl Into<String>,
        ring: Ring,
        mut buckets: Vec<BucketDefinition>,
    ) -> Result<Topology, TopologyError> {
        buckets.sort_by_key(|bucket| bucket.id);
        for (i, bucket) in buckets.iter().enumerate() {
            let clashes = |other: &BucketDefinition| other.id == bucket.id || other.name == bucket.name;
            if buckets[..i].iter().any(clashes) {
                return Err(TopologyError::DuplicateBucket(bucket.name.to_string()));
            }
            let n = bucket.quorum.n();
            if !ring.classes().any(|class| class == n) {
                return Err(TopologyError::NoClass { name: bucket.name.to_string(), n });
            }
        }
        if !buckets.iter().any(|bucket| bucket.id == BucketId::DEFAULT) {
            return Err(TopologyError::NoDefault);
        }
        Ok(Topology { cluster: cluster.into(), ring: Arc::new(ring), buckets })
    }

    /// The same cluster and buckets on another ring.
    ///
    /// # Errors
    /// [`TopologyError::NoClass`] if the ring has none for a bucket.
    pub fn with_ring(&self, ring: Ring) -> Result<Topology, TopologyError> {
        Topology::new(self.cluster.clone(), ring, self.buckets.clone())
    }

    /// Name of the cluster; the certificates carry it too.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Who owns what.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// All buckets, by id.
    pub fn buckets(&self) -> &[BucketDefinition] {
        &self.buckets
    }

    /// The bucket with this id.
    pub fn bucket(&self, id: BucketId) -> Option<&BucketDefinition> {
        self.buckets.binary_search_by_key(&id, |bucket| bucket.id).ok().map(|at| &self.buckets[at])
    }

    /// The bucket with this name.
    pub fn bucket_named(&self, name: &str) -> Option<&BucketDefinition> {
        self.buckets.iter().find(|bucket| bucket.name.as_str() == name)
    }

    /// Where a key of a bucket lives.
    pub fn place(&self, bucket: &BucketDefinition, key: &Key) -> Place {
        let token = self.ring.token(bucket.id.0, key.as_bytes());
        Place { token, partition: self.ring.partition(bucket.quorum.n(), token) }
    }

    /// The owners of a partition, first choice first, and who stands in for them.
    pub fn preference(&self, partition: PartitionId) -> PreferenceList<'_> {
        self.ring.preference(partition)
    }

    /// The shard of `node` that stamps and serves `partition`: see [`Partitions::shard_of`].
    pub fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16 {
        let shards = self.ring.member(node).map_or(1, |member| member.shards);
        self.ring.partitions().shard_of(partition.arc, shards)
    }

    /// The same version in the smaller arcs of a later one: see [`Ring::cut_into`].
    #[must_use]
    pub fn cut_into(&self, later: Partitions) -> Topology {
        Topology { ring: Arc::new(self.ring.cut_into(later)), ..self.clone() }
    }

    /// A fingerprint of everything in here: two nodes with the same digest agree.
    pub fn digest(&self) -> u128 {
        let bytes = postcard::to_stdvec(&(&self.cluster, self.ring.digest(), &self.buckets))
            .expect("a topology has no type that postcard cannot write");
        xxh3_128(&bytes)
    }
}

#[derive(Deserialize)]
struct RawTopology {
    cluster: String,
    ring: Ring,
    buckets: Vec<BucketDefinition>,
}

impl TryFrom<RawTopology> for Topology {
    type Error = TopologyError;

    fn try_from(raw: RawTopology) -> Result<Topology, TopologyError> {
        Topology::new(raw.cluster, raw.ring, raw.buckets)
    }
}
