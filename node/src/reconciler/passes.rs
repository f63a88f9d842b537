//! What changes hands between versions of the ring, by comparing: a *pass* is a comparison of a partition, begun and ended on one
//! version by who takes it or gives it away, after which both sides hold the same.
//!
//! ```text
//! takes    compares with so many old owners that one of them has whatever was acknowledged      ──▶ ready
//! gives    compares with every new owner, once nothing is written to the old ones any more      ──▶ left
//! ```
//! So nothing is sent that is there already, whoever sent it, and whenever either side was interrupted; and whatever an old owner holds is
//! compared with what every other one holds. A store that may have forgotten something lets nobody compare with it.

use std::collections::{BTreeMap, BTreeSet};

use driftless_proto::membership::Moving;
use driftless_ring::{NodeId, PartitionId};

use crate::configurations::Pass;
use crate::planted::Bug;
use crate::shard::Shard;

use super::{Asked, Holdings, Reconciler, View, count};

/// With whom this node has compared what changes hands. A process that starts has compared nothing: it compares again.
pub(super) struct Passes {
    /// Of the version that this is about.
    version: u64,
    /// Whether older versions took no writes any more when it was.
    is_leaving: bool,
    done: BTreeMap<PartitionId, BTreeSet<NodeId>>,
    /// What [`Reconciler::moving`] has counted, until something else is done or counts.
    counted: Option<Counted>,
}

/// How far it has come.
struct Counted {
    moving: Moving,
    /// Partitions that are not taken in yet.
    untaken: Vec<PartitionId>,
}

impl Passes {
    /// Nothing has been compared on the versions that count.
    pub(super) fn new(shard: &Shard) -> Passes {
        let configurations = &shard.configurations;
        let (version, is_leaving) = (configurations.version(), !configurations.has_active_before());
        Passes { version, is_leaving, done: BTreeMap::new(), counted: None }
    }
}

impl Reconciler {
    /// Other versions of the ring count from now on, or count otherwise.
    pub(crate) fn handle_configurations<H: Holdings>(&mut self, view: &View<'_, H>) {
        let View { shard, now, .. } = *view;
        let passes = Passes::new(shard);
        if (passes.version, passes.is_leaving) != (self.passes.version, self.passes.is_leaving) {
            // What was compared on another version, or while the old owners took writes, says nothing of now.
            match shard.ring().partitions() == self.rounds.divided_into() {
                true => self.call_off(shard, now),
                // By their numbers these are other partitions now, and the peer comes to the same by itself.
                false => self.forget_exchanges(shard),
            }
            self.asked.retain(|_, asked| !matches!(asked, Asked::Sums { .. }));
            self.passes = passes;
        }
        self.passes.counted = None;
        let (before, divided) = (self.rounds.divided_into(), shard.ring().partitions());
        if divided != before {
            let lacking = |partition: &PartitionId| self.lacking.contains(&divided.cut_from(before, *partition));
            self.lacking = view.holdings.partitions().filter(lacking).collect();
        }
        self.rounds.begin_anew(shard, view.holdings.partitions(), now.instant);
        self.go_on(view);
    }

    /// A partition was found equal with this peer, or made so, at this node's wish.
    pub(super) fn passed(&mut self, peer: NodeId, partition: PartitionId) {
        self.passes.done.entry(partition).or_default().insert(peer);
        self.passes.counted = None;
    }

    /// How much there is to take and to give, and how much of that is done.
    pub(crate) fn moving(&mut self, shard: &Shard) -> Moving {
        self.passes.counted(shard).map_or_else(Moving::default, |counted| counted.moving)
    }

    /// About how many keys of what is not taken in yet this node lacks: as many as the peer that holds the most holds more than it, as
    /// far as peers have said.
    pub(crate) fn keys_left<H: Holdings>(&mut self, shard: &Shard, holdings: &H) -> u64 {
        let untaken = self.passes.counted(shard).into_iter().flat_map(|counted| &counted.untaken);
        untaken
            .map(|partition| self.rounds.most_held(*partition).saturating_sub(count(holdings.tree(*partition))))
            .sum()
    }
}

impl Passes {
    /// How far it has come; nothing if nothing changes hands.
    fn counted(&mut self, shard: &Shard) -> Option<&Counted> {
        if !shard.configurations.is_moving() {
            return None;
        }
        if self.counted.is_none() {
            self.counted = Some(self.count(shard));
        }
        self.counted.as_ref()
    }

    fn count(&self, shard: &Shard) -> Counted {
        let configurations = &shard.configurations;
        let (mut moving, mut untaken) = (Moving::default(), Vec::new());
        let nobody = BTreeSet::new();
        for partition in shard.kept() {
            let done = self.done.get(&partition).unwrap_or(&nobody);
            let passes = configurations.passes(shard.node, partition);
            if !passes.is_empty() {
                let is_enough = |pass: &Pass| {
                    let compared = pass.of.iter().filter(|of| done.contains(of)).count();
                    compared >= pass.needed || (compared > 0 && shard.planted.is(Bug::OnePassIsEnough))
                };
                moving.taking += 1;
                match passes.iter().all(is_enough) {
                    true => moving.taken += 1,
                    false => untaken.push(partition),
                }
            }
            let owners = configurations.newest_owners(partition);
            if !owners.contains(&shard.node) {
                let is_done = self.is_leaving && owners.iter().all(|owner| done.contains(owner));
                moving.giving += 1;
                moving.given += u32::from(is_done);
            }
        }
        Counted { moving, untaken }
    }
}
