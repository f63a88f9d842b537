//! What changes hands between two versions of the ring: the plan that an operator sees before it is
//! committed, and the list of transfers that nodes work through after it.
//!
//! If the new ring has more arcs, each of its partitions is compared with the one that it was cut from.

use std::collections::BTreeMap;

use crate::{NodeId, PartitionId, Partitions, Ring};

/// The difference between two versions of the ring.
///
/// A class that only one of the two has appears with all its owners as gained or lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingDiff {
    changes: Vec<PartitionChange>,
    nodes: BTreeMap<NodeId, NodeChange>,
    old_partitions: Partitions,
    new_partitions: Partitions,
}

impl RingDiff {
    /// What changes from `old` to `new`. A change of order among the same owners moves nothing and does
    /// not appear.
    pub fn between(old: &Ring, new: &Ring) -> RingDiff {
        let mut changes: Vec<PartitionChange> = new
            .all_partitions()
            .map(|partition| {
                let token = new.partitions().range(partition.arc).first;
                PartitionChange::between(
                    partition,
                    old.owners(old.partition(partition.n, token)),
                    new.owners(partition),
                )
            })
            .collect();
        // Tables that are gone.
        let remaining: Vec<u8> = new.classes().collect();
        changes.extend(
            old.all_partitions()
                .filter(|partition| !remaining.contains(&partition.n))
                .map(|partition| PartitionChange::between(partition, old.owners(partition), &[])),
        );
        changes.retain(|change| !change.gained.is_empty() || !change.lost.is_empty());
        changes.sort_by_key(|change| change.partition);

        let mut nodes: BTreeMap<NodeId, NodeChange> = BTreeMap::new();
        for member in old.members().iter().chain(new.members()) {
            nodes.entry(member.id).or_default();
        }
        for (ring, held) in [(old, NodeChange::before as fn(&mut NodeChange) -> &mut u32), (new, NodeChange::after)] {
            for owner in ring.all_partitions().flat_map(|partition| ring.owners(partition)) {
                *held(nodes.entry(*owner).or_default()) += 1;
            }
        }
        for change in &changes {
            for &node in &change.gained {
                nodes.entry(node).or_default().gained += 1;
            }
            for &node in &change.lost {
                nodes.entry(node).or_default().lost += 1;
            }
        }
        RingDiff { changes, nodes, old_partitions: old.partitions(), new_partitions: new.partitions() }
    }

    /// Whether nothing changes hands.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The partitions whose owners differ, in order.
    pub fn changes(&self) -> &[PartitionChange] {
        &self.changes
    }

    /// The totals for every member of either ring.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeChange> {
        &self.nodes
    }

    /// How many replicas of partitions somebody has to receive.
    pub fn slots_moved(&self) -> usize {
        self.changes.iter().map(|change| change.gained.len()).sum()
    }

    /// How many bytes somebody has to receive, if `bytes_of` tells how many one replica of a partition
    /// has. It is asked for partitions of the new ring, or, where that has more arcs, for the partition of
    /// the *old* ring that holds them, whose bytes are taken to be spread evenly over its arcs.
    pub fn bytes_to_move(&self, mut bytes_of: impl FnMut(PartitionId) -> u64) -> BytesToMove {
        let mut bytes = BytesToMove { total: 0, received: BTreeMap::new() };
        for change in self.changes.iter().filter(|change| !change.gained.is_empty()) {
            let token = self.new_partitions.range(change.partition.arc).first;
            let source = PartitionId { n: change.partition.n, arc: self.old_partitions.arc_of(token) };
            let cuts = u64::from((self.new_partitions.get() / self.old_partitions.get()).max(1));
            let size = bytes_of(source).div_ceil(cuts);
            for &node in &change.gained {
                let received = bytes.received.entry(node).or_default();
                *received = received.saturating_add(size);
                bytes.total = bytes.total.saturating_add(size);
            }
        }
        bytes
    }
}

/// How the owners of one partition change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionChange {
    /// The partition, in the new ring (in the old one if its class is gone).
    pub partition: PartitionId,
    /// Who owns it now and did not before, in list order.
    pub gained: Vec<NodeId>,
    /// Who owned it before and does not any more, in list order.
    pub lost: Vec<NodeId>,
}

impl PartitionChange {
    fn between(partition: PartitionId, old: &[NodeId], new: &[NodeId]) -> PartitionChange {
        let without = |these: &[NodeId], those: &[NodeId]| -> Vec<NodeId> {
            these.iter().copied().filter(|node| !those.contains(node)).collect()
        };
        PartitionChange { partition, gained: without(new, old), lost: without(old, new) }
    }
}

/// What a change of the ring means for one node, in replicas of partitions. Where the new ring has more
/// arcs, `held_before` counts old partitions and the rest counts new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeChange {
    /// Replicas held in the old ring.
    pub held_before: u32,
    /// Replicas held in the new ring.
    pub held_after: u32,
    /// Replicas to receive.
    pub gained: u32,
    /// Replicas to hand over and drop.
    pub lost: u32,
}

impl NodeChange {
    fn before(&mut self) -> &mut u32 {
        &mut self.held_before
    }

    fn after(&mut self) -> &mut u32 {
        &mut self.held_after
    }
}

/// What a change of the ring costs on the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BytesToMove {
    /// All of it.
    pub total: u64,
    /// How much each node receives; nodes that receive nothing are left out.
    pub received: BTreeMap<NodeId, u64>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Member, RingSpec};

    fn ring(names: &[&str], classes: &[u8]) -> Ring {
        Ring::first(RingSpec {
            partitions: Partitions::new(64).unwrap(),
            hash_seed: 0,
            members: names.iter().map(|name| Member::new(*name, "h:1")).collect(),
            classes: classes.iter().copied().collect(),
        })
        .unwrap()
    }

    fn joined(ring: &Ring, name: &str) -> Ring {
        let mut spec = ring.spec();
        spec.members.push(Member::new(name, "h:1"));
        ring.next(spec).unwrap()
    }

    #[test]
    fn nothing_moves_between_equal_tables() {
        let ring = ring(&["ada", "bob", "cyd"], &[3]);
        let diff = RingDiff::between(&ring, &ring.next(ring.spec()).unwrap());
        assert!(diff.is_empty());
        assert_eq!(diff.slots_moved(), 0);
        assert_eq!(diff.bytes_to_move(|_| 1), BytesToMove { total: 0, received: BTreeMap::new() });
    }

    #[test]
    fn a_join_is_all_gain_for_the_new_member() {
        let old = ring(&["ada", "bob", "cyd"], &[3]);
        let new = joined(&old, "dan");
        let dan = NodeId::of_name("dan");
        let diff = RingDiff::between(&old, &new);
        assert_eq!(diff.slots_moved(), 48);
        assert!(diff.changes().iter().all(|change| change.gained == [dan] && change.lost.len() == 1));
        assert_eq!(diff.nodes()[&dan], NodeChange { held_before: 0, held_after: 48, gained: 48, lost: 0 });
        let ada = NodeChange { held_before: 64, held_after: 48, gained: 0, lost: 16 };
        assert_eq!(diff.nodes()[&NodeId::of_name("ada")], ada);

        let bytes = diff.bytes_to_move(|partition| u64::from(partition.arc.0 < 32));
        let received = diff.changes().iter().filter(|change| change.partition.arc.0 < 32).count() as u64;
        assert_eq!(bytes, BytesToMove { total: received, received: BTreeMap::from([(dan, received)]) });
    }

    #[test]
    fn doubling_moves_nothing() {
        let old = ring(&["ada", "bob", "cyd", "dan"], &[1, 3]);
        let new = old.doubled().unwrap();
        assert!(RingDiff::between(&old, &new).is_empty());
    }

    #[test]
    fn a_cut_partition_is_counted_by_its_part() {
        let old = ring(&["ada", "bob", "cyd"], &[3]);
        let mut spec = old.spec();
        spec.partitions = Partitions::new(256).unwrap();
        spec.members.push(Member::new("dan", "h:1"));
        let diff = RingDiff::between(&old, &old.next(spec).unwrap());
        assert_eq!(diff.slots_moved(), 192);
        assert_eq!(diff.bytes_to_move(|_| 4000).total, 192 * 1000);
    }

    #[test]
    fn a_class_that_comes_or_goes_is_gained_or_lost_as_a_whole() {
        let old = ring(&["ada", "bob", "cyd"], &[1, 3]);
        let new = old.next(RingSpec { classes: BTreeSet::from([2, 3]), ..old.spec() }).unwrap();
        let diff = RingDiff::between(&old, &new);
        let of_class = |n| diff.changes().iter().filter(move |change| change.partition.n == n);
        assert_eq!(of_class(1).map(|change| change.lost.len()).sum::<usize>(), 64);
        assert_eq!(of_class(2).map(|change| change.gained.len()).sum::<usize>(), 128);
        assert_eq!(of_class(3).count(), 0);
    }
}
