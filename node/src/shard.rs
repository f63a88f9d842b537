//! What the machines of a shard are lent: who they are, and what all of them go by.
//!
//! A machine owns its own state and nothing else. The engine owns the [`Shard`] and lends it with every call, so that there is
//! one place in which the ring can be replaced by the next.

use std::sync::Arc;

use driftless_proto::{Refusal, Topology};
use driftless_ring::{NodeId, PartitionId, Ring};

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::planted::Planted;

/// One shard of one node, within its cluster.
pub(crate) struct Shard {
    /// The node that it is a part of.
    pub(crate) node: NodeId,
    /// Which part of it.
    pub(crate) number: u16,
    /// The agreed shape of the cluster.
    pub(crate) topology: Arc<Topology>,
    /// Bounds and times.
    pub(crate) limits: Limits,
    /// What to count.
    pub(crate) metrics: Arc<Metrics>,
    /// A mistake to make, in tests of the rig that looks for mistakes.
    pub(crate) planted: Planted,
}

impl Shard {
    /// Who is responsible for what.
    pub(crate) fn ring(&self) -> &Ring {
        self.topology.ring()
    }

    /// Whether a partition is this shard's, among those of its node: to store, or to stand in for.
    pub(crate) fn is_mine(&self, partition: PartitionId) -> bool {
        self.topology.shard_of(self.node, partition) == self.number
    }

    /// Shards share a store and nothing else. Two of them that wrote one key would each know of its own batch, cache, tree
    /// and actor, and not of the other's: an acknowledged write would be gone. So each door of a machine asks here.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`] if the partition is another shard's, which is a bug in here; where assertions are on it ends
    /// the process.
    pub(crate) fn assert_mine(&self, partition: PartitionId) -> Result<(), Refusal> {
        if self.is_mine(partition) {
            return Ok(());
        }
        let (shard, owner) = (self.number, self.topology.shard_of(self.node, partition));
        tracing::error!(%partition, shard, owner, "a shard was given a key of another one: refusing it");
        self.metrics.protocol_violations.inc();
        debug_assert_eq!(shard, owner, "a shard was given a key of another one, of {partition}");
        Err(self.not_owner())
    }

    /// Says which ring makes this node none of a key's owners.
    pub(crate) fn not_owner(&self) -> Refusal {
        Refusal::NotOwner { ring_version: self.ring().version().0 }
    }
}
