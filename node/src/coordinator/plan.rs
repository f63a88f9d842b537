//! Whom to ask: the primaries of a key in order of preference, which of them can be counted on, and who stands in for
//! the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use driftless_proto::client;
use driftless_proto::{BucketDefinition, BucketId, Failure, Key, Quorum, QuorumError, Refusal};
use driftless_ring::{NodeId, PartitionId};

use crate::configurations::Configurations;
use crate::shard::Shard;

/// The replicas of one key, as seen from one node at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// This node.
    pub(crate) me: NodeId,
    /// The key's bucket.
    pub(crate) bucket: BucketDefinition,
    /// The key's partition.
    pub(crate) partition: PartitionId,
    /// Its owners: this node first if it is one, then in order of preference. While members change, those of every version that takes
    /// writes.
    pub(crate) primaries: Vec<NodeId>,
    /// The owners in each of these versions, where there are several and they differ: a strict write needs a quorum of each.
    pub(crate) groups: Vec<Vec<NodeId>>,
    /// Those of `primaries` whose answers to a read count.
    pub(crate) readers: Vec<NodeId>,
    /// The version whose owners these are.
    pub(crate) counted_for: u64,
    configurations: Arc<Configurations>,
    /// The peers that can be counted on.
    up: Arc<BTreeSet<NodeId>>,
}

impl Plan {
    /// The plan for a key.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBucket`].
    pub(crate) fn of_key(
        shard: &Shard,
        up: &Arc<BTreeSet<NodeId>>,
        bucket: BucketId,
        key: &Key,
    ) -> Result<Plan, Refusal> {
        let bucket = shard.topology.bucket(bucket).ok_or(Refusal::NoSuchBucket)?;
        Ok(Plan::of_partition(shard, up, bucket, shard.topology.place(bucket, key).partition))
    }

    /// The plan for all keys of a partition.
    pub(crate) fn of_partition(
        shard: &Shard,
        up: &Arc<BTreeSet<NodeId>>,
        bucket: &BucketDefinition,
        partition: PartitionId,
    ) -> Plan {
        let (me, configurations) = (shard.node, &shard.configurations);
        let mine_first = |mut nodes: Vec<NodeId>| {
            if let Some(at) = nodes.iter().position(|node| *node == me) {
                nodes[..=at].rotate_right(1);
            }
            nodes
        };
        let primaries = mine_first(configurations.owners(partition));
        let readers = mine_first(configurations.read_owners(partition).to_vec());
        let mut groups: Vec<Vec<NodeId>> = Vec::new();
        if primaries.len() > usize::from(partition.n) {
            groups.extend(configurations.active(partition).map(|(_, owners)| owners.to_vec()));
        }
        Plan {
            me,
            bucket: bucket.clone(),
            partition,
            primaries,
            groups,
            readers,
            counted_for: configurations.read_version(),
            configurations: configurations.clone(),
            up: up.clone(),
        }
    }

    /// The same for the other owners alone.
    pub(crate) fn of_others(mut self) -> Plan {
        let me = self.me;
        self.primaries.retain(|node| *node != me);
        self.readers.retain(|node| *node != me);
        self.groups.iter_mut().for_each(|group| group.retain(|node| *node != me));
        self
    }

    /// Whether this node stores the key.
    pub(crate) fn is_mine(&self) -> bool {
        self.primaries.first() == Some(&self.me)
    }

    /// Whether this node may keep anything for others: not if it is no member, or none any more, and may be stopped at any moment.
    pub(crate) fn may_stand_in(&self) -> bool {
        self.configurations.topology().ring().member(self.me).is_some()
    }

    /// Whether a request that leaves it open may count on fallbacks, or what it asks for.
    pub(crate) fn sloppy(&self, asked: Option<bool>) -> bool {
        asked.unwrap_or(self.bucket.sloppy)
    }

    /// The bucket's quorum with the request's own r or w. While they change, the larger ones count: what was written by the one
    /// must be met by what is read by the other.
    ///
    /// # Errors
    /// [`Refusal::BadQuorum`].
    pub(crate) fn quorum(&self, r: Option<u8>, w: Option<u8>) -> Result<Quorum, QuorumError> {
        let quorum = self.bucket.quorum;
        if self.configurations.is_settled() {
            return quorum.with(r, w);
        }
        let all = || self.configurations.definitions(self.bucket.id).map(|bucket| bucket.quorum);
        let most = |of: fn(Quorum) -> u8| all().map(of).max();
        quorum.with(r.or_else(|| most(Quorum::r)), w.or_else(|| most(Quorum::w)))
    }

    /// Whether a node is this one or a peer that can be counted on.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        node == self.me || self.up.contains(&node)
    }

    /// The primaries that are.
    pub(crate) fn reachable(&self) -> Vec<NodeId> {
        self.primaries.iter().copied().filter(|node| self.is_up(*node)).collect()
    }

    /// Refuses at once a write that cannot succeed, before anything is asked of anybody.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`].
    pub(crate) fn require(&self, needed: u8, sloppy: bool) -> Result<(), Failure> {
        let of = |group: &[NodeId]| group.iter().filter(|node| self.is_up(**node)).count() as u8;
        let available = match sloppy || self.groups.is_empty() {
            true => self.with_fallbacks(self.reachable(), sloppy).len() as u8,
            false => self.groups.iter().map(|group| of(group)).min().unwrap_or(0),
        };
        if available < needed { Err(Refusal::NotEnoughReplicas { needed, available }.into()) } else { Ok(()) }
    }

    /// The owners whose answers to a read count, as far as they can be counted on.
    pub(crate) fn reachable_readers(&self) -> Vec<NodeId> {
        self.readers.iter().copied().filter(|node| self.is_up(*node)).collect()
    }

    /// Whether so many owners are among these, in each version that takes writes.
    pub(crate) fn are_enough(&self, needed: usize, holds: impl Fn(NodeId) -> bool) -> bool {
        let enough = |group: &[NodeId]| group.iter().filter(|node| holds(**node)).count() >= needed.min(group.len());
        if self.groups.is_empty() { enough(&self.primaries) } else { self.groups.iter().all(|group| enough(group)) }
    }

    /// Who fills which primary's slot: these primaries their own and, with a sloppy quorum, fallbacks those of the
    /// primaries that cannot be counted on. Nobody stands in for who owns the key in an older version alone.
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
        let ring = self.configurations.topology().ring();
        if !ring.owns(primary, self.partition) {
            return None;
        }
        let line = ring.preference(self.partition).fallbacks_for(primary);
        line.into_iter().find(|node| self.is_up(*node) && !self.primaries.contains(node) && !taken(*node))
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
