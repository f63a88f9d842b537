//! What disks have lost, so that no more is asked of them than w is for. One disk of a run is set back to an earlier state,
//! or bytes of it are damaged, again and again; in some runs bytes of another one as well, though never those about the
//! same key at the same time. All others keep what they have synced.
//!
//! Where members change most disks may be lost at once, for ever. What is asked for afterwards is what was on the others then.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Ending, OpId, Operation, Slot};
use super::super::schedule::Micros;

/// The losses of all disks.
#[derive(Clone, Debug, Default)]
pub struct DiskLosses {
    set_back: Vec<(usize, Micros)>,
    /// Lost as a whole, by nodes that know it and answer no reads until they have it again.
    wiped: Vec<Wiped>,
    damaged: Vec<Damaged>,
    disaster: Option<Disaster>,
}

/// Several disks were lost at once, for ever.
#[derive(Clone, Debug)]
struct Disaster {
    at: Micros,
    disks: BTreeSet<usize>,
    left: BTreeMap<OpId, Left>,
}

/// What was left of a write when several disks were lost at once.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// It had been acknowledged.
    pub was_promised: bool,
    /// On so many disks, each in the place of another primary.
    pub disks: u8,
    /// A primary that is left has it in its record.
    pub is_with_primary: bool,
}

/// A disk was lost as a whole.
#[derive(Clone, Debug)]
struct Wiped {
    node: usize,
    at: Micros,
    /// What others knew is on it again, or on those of the nodes that took its place.
    is_healed: bool,
}

/// Some bytes about a key were not what had been written, for a while.
#[derive(Clone, Debug)]
struct Damaged {
    node: usize,
    stored_at: Bytes,
    slot: Slot,
    began: Micros,
    ended: Option<Micros>,
}

impl DiskLosses {
    /// The disk of a node was set back.
    pub fn set_back(&mut self, node: usize, at: Micros) {
        self.set_back.push((node, at));
    }

    /// The disk of a node was lost as a whole.
    pub fn wiped(&mut self, node: usize, at: Micros) {
        self.wiped.push(Wiped { node, at, is_healed: false });
    }

    /// What it held and another one held as well has as many copies again as before.
    pub fn healed(&mut self, node: usize) {
        self.wiped.iter_mut().filter(|wiped| wiped.node == node).for_each(|wiped| wiped.is_healed = true);
    }

    /// These were lost at once; of each write that somebody had stamped this is left.
    pub fn lost_at_once(&mut self, disks: BTreeSet<usize>, at: Micros, left: BTreeMap<OpId, Left>) {
        self.disaster = Some(Disaster { at, disks, left });
    }

    /// Whether a write outlives the disks that were lost, if it was on so many. That of several lost at once nothing was left of a delete
    /// without a stamp, or too little to say, is assumed.
    pub fn spares(&self, id: OpId, op: &Operation, held_by: u8) -> bool {
        let Some(disaster) = &self.disaster else { return usize::from(held_by) > self.lacking_since(op, held_by, 0) };
        match disaster.left.get(&id).filter(|left| left.was_promised) {
            Some(left) => {
                let held_by = left.disks.min(held_by);
                usize::from(held_by) > self.lacking_since(op, held_by, disaster.at + 1)
            }
            None => op.returned >= disaster.at && usize::from(held_by) > self.lacking_since(op, held_by, 0),
        }
    }

    /// Whether whoever asks a quorum until `later` meets a write that a quorum knew at the end of an operation: no disks were lost at once
    /// between, or a primary that is left knew it.
    pub fn spares_quorum(&self, write: OpId, (invoked, returned): (Micros, Micros), later: Micros) -> bool {
        let Some(Disaster { at, left, .. }) = &self.disaster else { return true };
        let is_with_primary = || left.get(&write).is_some_and(|left| left.is_with_primary);
        *at < invoked || later < *at || (returned < *at && is_with_primary())
    }

    /// Whether a disk was set back.
    pub fn was_set_back(&self) -> bool {
        !self.set_back.is_empty()
    }

    /// What is stored there about a key was damaged.
    pub fn damaged(&mut self, node: usize, stored_at: Bytes, slot: Slot, at: Micros) {
        self.damaged.push(Damaged { node, stored_at, slot, began: at, ended: None });
    }

    /// That is gone: other bytes have taken its place, on the disk as well, or none.
    pub fn restored(&mut self, node: usize, stored_at: &Bytes, at: Micros) {
        let is_over = |damaged: &&mut Damaged| damaged.is_open_at(node, stored_at);
        if let Some(damaged) = self.damaged.iter_mut().find(is_over) {
            damaged.ended = Some(at);
        }
    }

    /// Whether any disk may lack anything about a key.
    pub fn may_concern(&self, slot: &Slot) -> bool {
        let is_damaged = self.damaged.iter().any(|damaged| damaged.slot == *slot);
        is_damaged || !self.set_back.is_empty() || !self.wiped.is_empty() || self.disaster.is_some()
    }

    /// How many disks may lack what an operation was promised to be on so many of. What was damaged earlier counts too, until
    /// it is restored: its node may have acknowledged on the strength of what it still remembered. A disk that was lost does
    /// not count any more once it is healed, if an owner of the key beside it was promised to know.
    ///
    /// For whoever looks later than several disks were lost at once, what was over by then is counted anew from there.
    pub fn lacking(&self, op: &Operation, held_by: u8, later: Micros) -> usize {
        let was_over = |at: &Micros| op.ending == Ending::Ok && op.returned < *at && *at < later;
        let counted_from = self.disaster.as_ref().map(|disaster| disaster.at).filter(was_over);
        self.lacking_since(op, held_by, counted_from.map_or(0, |at| at + 1))
    }

    /// The same of what is counted from a later moment on.
    pub fn lacking_since(&self, op: &Operation, held_by: u8, counted_from: Micros) -> usize {
        let began = op.invoked.max(counted_from);
        let is_damaged =
            |damaged: &Damaged| damaged.slot == op.slot && damaged.ended.is_none_or(|ended| ended >= began);
        let damaged = self.damaged.iter().filter(|damaged| is_damaged(damaged)).map(|damaged| damaged.node);
        let set_back = self.set_back.iter().filter(|(_, at)| *at >= began).map(|(node, _)| *node);
        let has_come_back = |wiped: &Wiped| wiped.is_healed && op.strict && held_by > 1;
        let wiped = self.wiped.iter().filter(|wiped| wiped.at >= began && !has_come_back(wiped));
        let at_once = self.disaster.iter().filter(|disaster| disaster.at >= began).flat_map(|disaster| &disaster.disks);
        let one_by_one = damaged.chain(set_back).chain(wiped.map(|wiped| wiped.node));
        one_by_one.chain(at_once.copied()).collect::<BTreeSet<usize>>().len()
    }

    /// Whether something about a key is damaged on another disk than this node's.
    pub fn is_damaged_elsewhere(&self, slot: &Slot, node: usize) -> bool {
        let is_one = |damaged: &Damaged| damaged.ended.is_none() && damaged.node != node && damaged.slot == *slot;
        self.damaged.iter().any(is_one)
    }

    /// Whether what was damaged there must hold this operation once it is restored: it had ended before, and no other state
    /// of the disk has come back since.
    pub fn is_due(&self, node: usize, stored_at: &Bytes, op: &Operation) -> bool {
        let is_open = |damaged: &&Damaged| damaged.is_open_at(node, stored_at);
        self.set_back.is_empty() && self.damaged.iter().find(is_open).is_some_and(|damaged| op.returned < damaged.began)
    }

    /// Whether quorums that overlap have met in an operation on a key, begun and ended then, and one that ended later. A disk that was set back does not know, and
    /// answers; what is damaged does not answer until it knows again what the others know. Only what was under way
    /// meanwhile may have counted on it in vain.
    pub fn spare(&self, (slot, invoked, returned): (&Slot, Micros, Micros), later: Micros) -> bool {
        let during = |damaged: &Damaged| {
            damaged.slot == *slot && damaged.began <= returned && damaged.ended.is_none_or(|ended| ended >= invoked)
        };
        !self.set_back.iter().any(|(_, at)| (invoked..=later).contains(at)) && !self.damaged.iter().any(during)
    }
}

impl Damaged {
    fn is_open_at(&self, node: usize, stored_at: &Bytes) -> bool {
        self.node == node && self.stored_at == *stored_at && self.ended.is_none()
    }
}
