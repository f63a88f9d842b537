//! Whom to ask: the primaries of a key in order of preference, which of them can be counted on, and who stands in for
//! the others.

use std::collections::BTreeSet;
use std::sync::Arc;

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
    topology: Arc<Topology>,
    /// The peers that can be counted on.
    up: Arc<BTreeSet<NodeId>>,
}

impl Plan {
    /// The plan for a key.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBucket`].
    pub(crate) fn of_key(
        topology: &Arc<Topology>,
        me: NodeId,
        up: &Arc<BTreeSet<NodeId>>,
        bucket: BucketId,
        key: &Key,
    ) -> Result<Plan, Refusal> {
        let bucket = topology.bucket(bucket).ok_or(Refusal::NoSuchBucket)?;
        Ok(Plan::of_partition(topology, me, up, bucket, topology.place(bucket, key).partition))
    }

    /// The plan for all keys of a partition.
    pub(crate) fn of_partition(
        topology: &Arc<Topology>,
        me: NodeId,
        up: &Arc<BTreeSet<NodeId>>,
        bucket: &BucketDefinition,
        partition: PartitionId,
    ) -> Plan {
        let mut primaries = topology.ring().owners(partition).to_vec();
        if let Some(at) = primaries.iter().position(|node| *node == me) {
            primaries[..=at].rotate_right(1);
        }
        Plan { me, bucket: bucket.clone(), partition, primaries, topology: topology.clone(), up: up.clone() }
    }

    /// The same for the other owners alone.
    pub(crate) fn of_others(mut self) -> Plan {
        self.primaries.retain(|node| *node != self.me);
        self
    }

    /// Whether this node stores the key.
    pub(crate) fn is_mine(&self) -> bool {
        self.primaries.first() == Some(&self.me)
    }

    /// Whether a request that leaves it open may count on fallbacks, or what it asks for.
    pub(crate) fn sloppy(&self, asked: Option<bool>) -> bool {
        asked.unwrap_or(self.bucket.sloppy)
    }

    /// The bucket's quorum with the request's own r or w.
    ///
    /// # Errors
    /// [`Refusal::BadQuorum`].
    pub(crate) fn quorum(&self, r: Option<u8>, w: Option<u8>) -> Result<Quorum, QuorumError> {
        self.bucket.quorum.with(r, w)
    }

    /// Whether a node is this one or a peer that can be counted on.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        node == self.me || self.up.contains(&node)
    }

    /// The primaries that are.
    pub(crate) fn reachable(&self) -> Vec<NodeId> {
        self.primaries.iter().copied().filter(|node| self.is_up(*node)).collect()
    }

    /// Refuses at once what cannot succeed, before anything is asked of anybody.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`].
    pub(crate) fn require(&self, needed: u8, sloppy: bool) -> Result<(), Failure> {
        let available = self.with_fallbacks(self.reachable(), sloppy).len() as u8;
        if available < needed { Err(Refusal::NotEnoughReplicas { needed, available }.into()) } else { Ok(()) }
    }

    /// Who fills which primary's slot: these primaries their own and, with a sloppy quorum, fallbacks those of the
    /// primaries that cannot be counted on.
    pub(crate) fn with_fallbacks(&self, reachable: Vec<NodeId>, sloppy: bool) -> Vec<(NodeId, NodeId)> {
        let mut workers: Vec<(NodeId, NodeId)> = reachable.into_iter().map(|node| (node, node)).collect();
        if sloppy {
            for &primary in self.primaries.iter().filter(|primary| !self.is_up(**primary)) {
                let taken = |node| workers.iter().any(|(worker, _)| *worker == node);
                workers.extend(self.fallback_for(primary, taken).map(|node| (node, primary)));
            }
        }
        workers
    }

    /// A peer cannot be counted on any more.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        if self.up.contains(&peer) {
            Arc::make_mut(&mut self.up).remove(&peer);
        }
    }

    /// The best fallback for a primary that can be counted on and is not `taken` already.
    pub(crate) fn fallback_for(&self, primary: NodeId, taken: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.up.iter().all(|peer| self.primaries.contains(peer)) && self.is_mine() {
            return None;
        }
        let line = self.topology.ring().preference(self.partition).fallbacks_for(primary);
        line.into_iter().find(|node| self.is_up(*node) && !taken(*node))
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
