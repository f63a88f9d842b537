//! Whom to ask: the primaries of a key in order of preference, and which of them can be reached.

use std::collections::BTreeSet;

use driftless_proto::client;
use driftless_proto::{BucketDefinition, BucketId, Failure, Key, Quorum, QuorumError, Refusal, Topology};
use driftless_ring::{NodeId, PartitionId};

/// The replicas of one key, as seen from one node at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// This node.
    pub(crate) me: NodeId,
    /// The key's bucket.
    pub(crate) bucket: BucketDefinition,
    /// The key's partition.
    pub(crate) partition: PartitionId,
    /// Its owners: this node first if it is one, then in order of preference.
    pub(crate) primaries: Vec<NodeId>,
    /// Those of them that can be reached, in the same order.
    pub(crate) reachable: Vec<NodeId>,
}

impl Plan {
    /// The plan for a key.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBucket`].
    pub(crate) fn of_key(
        topology: &Topology,
        me: NodeId,
        up: &BTreeSet<NodeId>,
        bucket: BucketId,
        key: &Key,
    ) -> Result<Plan, Refusal> {
        let bucket = topology.bucket(bucket).ok_or(Refusal::NoSuchBucket)?;
        Ok(Plan::of_partition(topology, me, up, bucket, topology.place(bucket, key).partition))
    }

    /// The plan for all keys of a partition.
    pub(crate) fn of_partition(
        topology: &Topology,
        me: NodeId,
        up: &BTreeSet<NodeId>,
        bucket: &BucketDefinition,
        partition: PartitionId,
    ) -> Plan {
        let mut primaries = topology.ring().owners(partition).to_vec();
        if let Some(at) = primaries.iter().position(|node| *node == me) {
            primaries[..=at].rotate_right(1);
        }
        let reachable = primaries.iter().copied().filter(|node| *node == me || up.contains(node)).collect();
        Plan { me, bucket: bucket.clone(), partition, primaries, reachable }
    }

    /// Whether this node stores the key.
    pub(crate) fn is_mine(&self) -> bool {
        self.primaries.first() == Some(&self.me)
    }

    /// The bucket's quorum with the request's own r or w.
    ///
    /// # Errors
    /// [`Refusal::BadQuorum`].
    pub(crate) fn quorum(&self, r: Option<u8>, w: Option<u8>) -> Result<Quorum, QuorumError> {
        self.bucket.quorum.with(r, w)
    }

    /// Refuses at once what cannot succeed, before anything is asked of anybody.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`].
    pub(crate) fn require(&self, needed: u8) -> Result<(), Failure> {
        let available = self.reachable.len() as u8;
        if available < needed {
            return Err(Refusal::NotEnoughReplicas { needed, available }.into());
        }
        Ok(())
    }
}

/// Refuses what no replica may ever take in.
///
/// # Errors
/// [`Refusal::ValueTooLarge`].
pub(crate) fn check_value(put: &client::Put, max: u64) -> Result<(), Refusal> {
    let bytes = put.value.len() as u64;
    if bytes > max { Err(Refusal::ValueTooLarge { bytes, max }) } else { Ok(()) }
}
