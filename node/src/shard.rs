//! What the machines of a shard are lent: who they are, and what all of them go by.
//!
//! A machine owns its own state and nothing else. The engine owns the [`Shard`] and lends it with every call, so that there is
//! one place in which the ring can be replaced by the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use driftless_proto::{Refusal, Topology};
use driftless_ring::{NodeId, PartitionId, Ring};

use crate::config::Limits;
use crate::configurations::Configurations;
use crate::metrics::Metrics;
use crate::planted::{Bug, Planted};

/// One shard of one node, within its cluster.
pub(crate) struct Shard {
    /// The node that it is a part of.
    pub(crate) node: NodeId,
    /// Which part of it.
    pub(crate) number: u16,
    /// The versions of the ring that count.
    pub(crate) configurations: Arc<Configurations>,
    /// The newest of them, with its buckets.
    pub(crate) topology: Arc<Topology>,
    /// Bounds and times.
    pub(crate) limits: Limits,
    /// What to count.
    pub(crate) metrics: Arc<Metrics>,
    /// A mistake to make, in tests of the rig that looks for mistakes.
    pub(crate) planted: Planted,
}

impl Shard {
    /// The newest version of who is responsible for what.
    pub(crate) fn ring(&self) -> &Ring {
        self.topology.ring()
    }

    /// Whether a partition is this shard's, among those of its node: to store, or to stand in for.
    pub(crate) fn is_mine(&self, partition: PartitionId) -> bool {
        self.configurations.shard_of(self.node, partition) == self.number
    }

    /// Other versions count from now on.
    pub(crate) fn run_on(&mut self, configurations: Arc<Configurations>) {
        self.topology = configurations.topology().clone();
        self.configurations = configurations;
    }

    /// Whether this node owns a partition: in the newest version, or in one before it that still takes writes.
    pub(crate) fn owns(&self, partition: PartitionId) -> bool {
        self.configurations.owns(self.node, partition)
    }

    /// The partitions of this shard that its node keeps.
    pub(crate) fn kept(&self) -> BTreeSet<PartitionId> {
        self.configurations.kept(self.node).into_iter().filter(|partition| self.is_mine(*partition)).collect()
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
        let (shard, owner) = (self.number, self.configurations.shard_of(self.node, partition));
        tracing::error!(%partition, shard, owner, "a shard was given a key of another one: refusing it");
        self.metrics.protocol_violations.inc();
        debug_assert_eq!(shard, owner, "a shard was given a key of another one, of {partition}");
        Err(self.not_owner())
    }

    /// Refuses a read that counts in a version whose owners do not count any more, and any that counts while this store does not hold
    /// what it must.
    ///
    /// # Errors
    /// [`Refusal::StaleRing`], [`Refusal::Unready`].
    pub(crate) fn check_counted(&self, counted_for: Option<u64>) -> Result<(), Refusal> {
        let Some(version) = counted_for else { return Ok(()) };
        if version < self.configurations.closes() && !self.planted.is(Bug::ClosedAnswers) {
            return Err(Refusal::StaleRing { theirs: version, ours: self.ring().version().0 });
        }
        let answers = self.configurations.is_whole() || self.planted.is(Bug::LostStoreAnswers);
        if answers { Ok(()) } else { Err(Refusal::Unready) }
    }

    /// Says which ring makes this node none of a key's owners.
    pub(crate) fn not_owner(&self) -> Refusal {
        Refusal::NotOwner { ring_version: self.ring().version().0 }
    }
}
