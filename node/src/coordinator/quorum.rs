//! Counting answers. A quorum counts slots, not nodes and not messages: each primary of the key is one slot, which the
//! primary or the fallback that stands in for it fills, once. One node never works for two slots.
//!
//! A fallback's acknowledgement and, after its hint was delivered, that of the primary may be one and the same copy:
//! counted as two they would promise what one disk can take back.

use driftless_ring::NodeId;

use crate::planted::{Bug, Planted};

use super::course::{self, Facts};
use super::plan::Plan;

/// Which slots are filled, and whether enough still can be.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    needed: u8,
    /// Where there are several, each must have so many slots filled; else all slots are one.
    groups: Vec<Vec<NodeId>>,
    slots: Vec<Slot>,
    workers: Vec<Worker>,
    planted: Planted,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    primary: NodeId,
    filled_by: Option<NodeId>,
}

/// A node that was asked to fill a primary's slot.
#[derive(Clone, Copy, Debug)]
struct Worker {
    node: NodeId,
    primary: NodeId,
    failed: bool,
}

impl Slots {
    /// One open slot per primary, nobody at work yet; `needed` of them must be filled.
    pub(crate) fn new(primaries: impl IntoIterator<Item = NodeId>, needed: u8, planted: Planted) -> Slots {
        let slots: Vec<Slot> = primaries.into_iter().map(|primary| Slot { primary, filled_by: None }).collect();
        Slots { needed, groups: Vec::new(), workers: Vec::with_capacity(slots.len()), slots, planted }
    }

    /// So many must be filled in each of these groups of primaries.
    pub(crate) fn in_each_of(mut self, groups: Vec<Vec<NodeId>>) -> Slots {
        self.groups = groups;
        self
    }

    /// This node is asked to fill a primary's slot.
    pub(crate) fn assign(&mut self, primary: NodeId, node: NodeId) {
        assert!(!self.is_at_work(node), "one node works for one slot");
        self.workers.push(Worker { node, primary, failed: false });
    }

    /// Whether this node was asked to fill any slot.
    pub(crate) fn is_at_work(&self, node: NodeId) -> bool {
        self.slot_of(node).is_some()
    }

    /// Whose slot this node was asked to fill.
    pub(crate) fn slot_of(&self, node: NodeId) -> Option<NodeId> {
        self.workers.iter().find(|worker| worker.node == node).map(|worker| worker.primary)
    }

    /// This node has done what was asked. False if its slot is filled already, or it has none.
    pub(crate) fn fill(&mut self, node: NodeId) -> bool {
        let Some(primary) = self.slot_of(node) else { return false };
        let by_another = |slot: &Slot| slot.primary == primary && slot.filled_by.is_some_and(|by| by != node);
        let any = self.planted.is_where(Bug::NodesCounted, || {
            self.slots.iter().any(by_another)
                && self.slots.iter().all(|slot| slot.filled_by != Some(node))
                && self.open().next().is_some()
        });
        let mut open = self.slots.iter_mut().filter(|slot| slot.filled_by.is_none());
        let open = open.find(|slot| slot.primary == primary || any);
        open.map(|slot| slot.filled_by = Some(node)).is_some()
    }

    /// This node will not do it. Whose slot it leaves open, if nobody else is at work for it.
    pub(crate) fn fail(&mut self, node: NodeId) -> Option<NodeId> {
        let worker = self.workers.iter_mut().find(|worker| worker.node == node && !worker.failed)?;
        worker.failed = true;
        let primary = worker.primary;
        (self.is_open(primary) && !self.is_in_work(primary)).then_some(primary)
    }

    /// The slot that this node alone is at work for, if that is open.
    pub(crate) fn waits_only_for(&self, node: NodeId) -> Option<NodeId> {
        let primary = self.slot_of(node).filter(|primary| self.is_open(*primary))?;
        let mut others = self.workers.iter().filter(|worker| worker.primary == primary && worker.node != node);
        others.all(|worker| worker.failed).then_some(primary)
    }

    /// Who is at work, and which of these primaries nobody was asked for.
    pub(super) fn facts(&self, plan: &Plan, primaries: &[NodeId]) -> Facts {
        let worker =
            |(node, primary, counted)| course::Worker { node, primary, counted, repaired: false, header: None };
        let unasked = primaries.iter().filter(|primary| !self.is_at_work(**primary));
        Facts {
            needed: self.needed,
            counted: self.filled(),
            workers: self.workers().map(worker).collect(),
            others: unasked.map(|primary| (*primary, plan.is_up(*primary))).collect(),
        }
    }

    /// Who was asked to fill whose slot, and whether that one has filled it.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (NodeId, NodeId, bool)> {
        self.workers.iter().map(|worker| {
            let filled = |slot: &Slot| slot.filled_by == Some(worker.node);
            (worker.node, worker.primary, self.slots.iter().any(filled))
        })
    }

    /// The nodes that were asked to fill a primary's slot and have not failed.
    pub(crate) fn workers_for(&self, primary: NodeId) -> Vec<NodeId> {
        let mine = self.workers.iter().filter(|worker| worker.primary == primary && !worker.failed);
        mine.map(|worker| worker.node).collect()
    }

    /// The primaries whose slots are not filled.
    pub(crate) fn open(&self) -> impl Iterator<Item = NodeId> {
        self.slots.iter().filter(|slot| slot.filled_by.is_none()).map(|slot| slot.primary)
    }

    /// Filled slots.
    pub(crate) fn filled(&self) -> u8 {
        self.slots.iter().filter(|slot| slot.filled_by.is_some()).count() as u8
    }

    /// Slots that their primaries filled themselves.
    pub(crate) fn filled_by_primaries(&self) -> u8 {
        self.slots.iter().filter(|slot| slot.filled_by == Some(slot.primary)).count() as u8
    }

    /// Slots that must be filled.
    pub(crate) fn needed(&self) -> u8 {
        self.needed
    }

    /// Slots that are filled or that somebody is at work for; of the group in which there are fewest.
    pub(crate) fn possible(&self) -> u8 {
        self.fewest(|slot| slot.filled_by.is_some() || self.is_in_work(slot.primary))
    }

    /// Whether enough slots are filled.
    pub(crate) fn is_reached(&self) -> bool {
        self.fewest(|slot| slot.filled_by.is_some()) >= self.needed
    }

    /// How many slots there are of a kind in the group in which there are fewest.
    fn fewest(&self, is_such: impl Fn(&Slot) -> bool) -> u8 {
        let such = || self.slots.iter().filter(|slot| is_such(slot));
        let of = |group: &Vec<NodeId>| such().filter(|slot| group.contains(&slot.primary)).count() as u8;
        self.groups.iter().map(of).min().unwrap_or_else(|| such().count() as u8)
    }

    /// Whether enough slots are filled or may still be.
    pub(crate) fn is_possible(&self) -> bool {
        self.possible() >= self.needed
    }

    /// Whether nobody is at work for an open slot any more.
    pub(crate) fn is_settled(&self) -> bool {
        !self.slots.iter().any(|slot| slot.filled_by.is_none() && self.is_in_work(slot.primary))
    }

    fn is_open(&self, primary: NodeId) -> bool {
        self.slots.iter().any(|slot| slot.primary == primary && slot.filled_by.is_none())
    }

    /// Whether a node that has not failed was asked to fill this slot.
    pub(crate) fn is_in_work(&self, primary: NodeId) -> bool {
        self.workers.iter().any(|worker| worker.primary == primary && !worker.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    fn slots(needed: u8) -> Slots {
        let mut slots = Slots::new([A, B, C], needed, Planted::default());
        [A, B, C].into_iter().for_each(|node| slots.assign(node, node));
        slots
    }

    #[test]
    fn one_replica_answering_twice_fills_one_slot() {
        let mut slots = slots(2);
        assert!(slots.fill(A));
        assert!(!slots.fill(A));
        assert!(!slots.is_reached());
        assert!(slots.fill(B));
        assert!(slots.is_reached());
    }

    #[test]
    fn a_stranger_fills_nothing() {
        let mut slots = slots(1);
        assert!(!slots.fill(NodeId(9)));
        assert_eq!(slots.filled(), 0);
    }

    #[test]
    fn a_primary_and_its_fallback_fill_one_slot() {
        let mut slots = slots(2);
        slots.assign(C, D);
        assert_eq!(slots.slot_of(D), Some(C));
        assert!(slots.fill(D) && !slots.fill(C));
        assert_eq!((slots.filled(), slots.filled_by_primaries()), (1, 0));
        assert!(slots.fill(A));
        assert!(slots.is_reached());
        assert_eq!((slots.filled(), slots.filled_by_primaries()), (2, 1));
    }

    #[test]
    fn a_slot_is_open_again_when_all_who_worked_for_it_have_failed() {
        let mut slots = slots(2);
        slots.assign(C, D);
        assert_eq!(slots.waits_only_for(C), None);
        assert_eq!(slots.fail(C), None, "its fallback is at work");
        assert_eq!(slots.waits_only_for(D), Some(C));
        assert_eq!(slots.fail(D), Some(C));
        assert!(slots.fail(B).is_some() && !slots.is_possible());
    }

    #[test]
    fn while_members_change_each_version_must_have_enough() {
        let groups = vec![vec![A, B, D], vec![A, B, C]];
        let mut slots = Slots::new([A, B, D, C], 2, Planted::default()).in_each_of(groups);
        [A, B, C, D].into_iter().for_each(|node| slots.assign(node, node));
        assert!(slots.fill(A) && slots.fill(D) && !slots.is_reached(), "one of the old owners is not enough");
        assert!(slots.is_possible());
        assert!(slots.fill(C) && slots.is_reached(), "A counts in both");
        slots.fail(B);
        assert!(slots.is_possible());
    }

    #[test]
    fn what_comes_late_still_counts() {
        let mut slots = slots(2);
        slots.fail(B);
        assert!(slots.fill(B) && slots.is_possible());
    }
}
