//! Counting answers. A quorum counts slots, not messages: each primary of the key is one slot, and however often it
//! answers, it fills that one slot once.

use driftless_ring::NodeId;

/// Who of a key's primaries has answered, and whether enough still can.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    needed: u8,
    slots: Vec<(NodeId, Slot)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// Not asked, or not yet answered.
    Open,
    Filled,
    /// Cannot be filled any more.
    Failed,
}

impl Tally {
    /// One open slot per primary; `needed` of them must be filled.
    pub(crate) fn new(primaries: impl IntoIterator<Item = NodeId>, needed: u8) -> Tally {
        Tally { needed, slots: primaries.into_iter().map(|node| (node, Slot::Open)).collect() }
    }

    /// This node has done what was asked. False if it has no open slot: a repetition, or a stranger.
    pub(crate) fn fill(&mut self, node: NodeId) -> bool {
        self.resolve(node, Slot::Filled)
    }

    /// This node will not do it. False if it has no open slot.
    pub(crate) fn fail(&mut self, node: NodeId) -> bool {
        self.resolve(node, Slot::Failed)
    }

    /// Filled slots.
    pub(crate) fn filled(&self) -> u8 {
        self.count(Slot::Filled)
    }

    /// Slots that must be filled.
    pub(crate) fn needed(&self) -> u8 {
        self.needed
    }

    /// Whether enough slots are filled.
    pub(crate) fn is_reached(&self) -> bool {
        self.filled() >= self.needed
    }

    /// Whether enough slots are filled or may still be.
    pub(crate) fn is_possible(&self) -> bool {
        self.filled() + self.count(Slot::Open) >= self.needed
    }

    /// Whether no slot is open.
    pub(crate) fn is_settled(&self) -> bool {
        self.count(Slot::Open) == 0
    }

    fn resolve(&mut self, node: NodeId, to: Slot) -> bool {
        let open = self.slots.iter_mut().find(|(owner, slot)| *owner == node && *slot == Slot::Open);
        open.map(|(_, slot)| *slot = to).is_some()
    }

    fn count(&self, what: Slot) -> u8 {
        self.slots.iter().filter(|(_, slot)| *slot == what).count() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    #[test]
    fn one_replica_answering_twice_fills_one_slot() {
        let mut tally = Tally::new([A, B, C], 2);
        assert!(tally.fill(A));
        assert!(!tally.fill(A));
        assert!(!tally.is_reached());
        assert!(tally.fill(B));
        assert!(tally.is_reached());
    }

    #[test]
    fn a_stranger_fills_nothing() {
        let mut tally = Tally::new([A, B, C], 1);
        assert!(!tally.fill(NodeId(9)));
        assert_eq!(tally.filled(), 0);
    }

    #[test]
    fn a_failed_slot_stays_failed() {
        let mut tally = Tally::new([A, B, C], 2);
        assert!(tally.fail(A) && tally.is_possible());
        assert!(!tally.fill(A));
        assert!(tally.fail(B) && !tally.is_possible());
    }
}
