//! One promise per file. Each checker takes the evidence of a whole run and answers with what contradicts the promise.
//!
//! Words: `seen(u)` are the writes in the read whose context write `u` used, none if it was blind; `past(u)` is the
//! union over `x` in `seen(u)` of `{x} ∪ past(x)`; `final(k)` are the live writes of key `k` in the merged states of
//! its primaries after the calm phase. An unknown write owes nothing, but may overwrite.

pub mod concurrent_siblings;
pub mod convergence;
pub mod durability;
pub mod liveness;
pub mod losses;
pub mod no_lost_write;
pub mod no_resurrection;
pub mod past;
pub mod scans;
pub mod session;
pub mod trees;
pub mod white_box;

use std::collections::BTreeMap;

use driftless_antientropy::Tree;
use driftless_node::replica::record::RecordKey;
use driftless_proto::causality::Payload;
use driftless_proto::{Conflict, Durability, Siblings, Topology};
use driftless_ring::PartitionId;

use super::history::{Ending, History, Kind, OpId, Operation, Slot};
use super::observer::Observer;
use super::schedule::Micros;
use super::store::Held;
use losses::DiskLosses;
use past::Past;

/// Everything there is to judge by, at the end of a run.
pub struct Evidence<'a> {
    /// Ring and buckets.
    pub topology: &'a Topology,
    /// What clients saw.
    pub history: &'a History,
    /// What only we saw.
    pub observer: &'a Observer,
    /// What each node's disk holds.
    pub held: &'a BTreeMap<usize, BTreeMap<Slot, Held>>,
    /// The trees of each node.
    pub trees: &'a BTreeMap<usize, Vec<(PartitionId, Option<Tree>)>>,
    /// Who has overwritten whom.
    pub past: &'a Past,
    /// When batches that had not been synced, or more, were lost.
    pub losses: &'a [Micros],
    /// What disks have lost.
    pub disk_losses: &'a DiskLosses,
    /// Whether members come and go.
    pub members_change: bool,
    /// Whether engines remember few write ids.
    pub forgetful: bool,
}

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// The key it was not kept for, if it is one.
    pub slot: Option<Slot>,
    /// What contradicts it.
    pub text: String,
}

impl Violation {
    /// Of a key.
    pub fn of(promise: &'static str, slot: &Slot, text: String) -> Violation {
        Violation { promise, slot: Some(slot.clone()), text }
    }

    /// Of no key in particular.
    pub fn general(promise: &'static str, text: String) -> Violation {
        Violation { promise, slot: None, text }
    }
}

/// Asks every checker that judges at the end.
pub fn all(evidence: &Evidence<'_>) -> Vec<Violation> {
    let checkers = [
        white_box::check,
        no_lost_write::check,
        no_resurrection::check,
        concurrent_siblings::check,
        session::check,
        scans::check,
        convergence::check,
        trees::check,
        liveness::check,
    ];
    checkers.iter().flat_map(|check| check(evidence)).collect()
}

impl Evidence<'_> {
    /// Writes of a key that were acknowledged, as far as they must last. A delete that had nothing to remove is one.
    pub fn acknowledged(&self, slot: &Slot) -> impl Iterator<Item = (OpId, &Operation)> {
        let is_write = |op: &Operation| op.ending == Ending::Ok && op.kind != Kind::Get;
        self.history.of(slot).filter(move |(id, op)| is_write(op) && self.must_last(*id, op))
    }

    /// Those of them that did write something.
    pub fn acknowledged_stamps(&self, slot: &Slot) -> impl Iterator<Item = (OpId, &Operation)> {
        self.acknowledged(slot).filter(|(_, op)| is_acknowledged(op))
    }

    /// Whether a key's bucket keeps siblings.
    pub fn keeps_siblings(&self, slot: &Slot) -> bool {
        self.topology.bucket(slot.0).is_some_and(|bucket| bucket.conflict == Conflict::Siblings)
    }

    /// Whether an acknowledged write may be gone all the same: the bucket does not wait for the disk, and a machine
    /// lost power.
    pub fn may_be_forgotten(&self, slot: &Slot) -> bool {
        let buffered = self.topology.bucket(slot.0).is_some_and(|bucket| bucket.durability == Durability::Buffered);
        buffered && !self.losses.is_empty()
    }

    /// Whether a write must have outlived the loss of disks: it was on more of them than were lost.
    pub fn must_last(&self, id: OpId, op: &Operation) -> bool {
        self.disk_losses.spares(id, op, self.held_by(op))
    }

    /// How many disks a write rests on by its answer.
    fn held_by(&self, op: &Operation) -> u8 {
        // A delete that found nothing has made sure that w replicas know as much.
        let held_by = if op.acks > 0 { op.acks } else { op.w };
        // Those of owners that were about to leave are not made up for.
        if self.members_change { held_by.min(op.w) } else { held_by }
    }

    /// Whether no disk was lost from the beginning of one operation to the end of another, or not all that knew this write: then quorums that
    /// overlap have met.
    pub fn quorums_met(&self, write: OpId, earlier: &Operation, later: &Operation) -> bool {
        self.quorums_met_until(write, earlier, later.returned)
    }

    /// The same of whatever ended later.
    pub fn quorums_met_until(&self, write: OpId, earlier: &Operation, later: Micros) -> bool {
        let (slot, invoked, returned) = (&earlier.slot, earlier.invoked, earlier.returned);
        let held_by = self.held_by(earlier);
        self.disk_losses.spare((slot, invoked, returned), later)
            && self.disk_losses.spares_quorum(write, (invoked, returned), later)
            && (earlier.kind == Kind::Get || usize::from(held_by) > self.disk_losses.lacking(earlier, held_by, later))
    }

    /// The numbers of the nodes that own a key.
    pub fn primaries(&self, slot: &Slot) -> Vec<usize> {
        primaries(self.topology, slot)
    }

    /// The merged state of a key's primaries.
    pub fn merged(&self, slot: &Slot) -> Siblings {
        let mut merged = Siblings::new();
        for held in self.primaries(slot).into_iter().filter_map(|node| self.held[&node].get(slot)) {
            merged.merge(&held.siblings);
        }
        if !self.keeps_siblings(slot) {
            merged.keep_last();
        }
        merged
    }

    /// The writes that are live at the end.
    pub fn final_of(&self, slot: &Slot) -> Vec<OpId> {
        let merged = self.merged(slot);
        let outlines = merged.live().iter().map(|(_, version)| version.outline());
        outlines.filter_map(|outline| self.history.write(slot, outline.write_id, outline.value_hash)).collect()
    }

    /// All keys that anybody asked for.
    pub fn slots(&self) -> Vec<Slot> {
        self.history.slots().cloned().collect()
    }

    /// Those of them whose acknowledged writes must be there, whatever happened.
    pub fn lasting_slots(&self) -> impl Iterator<Item = Slot> {
        self.slots().into_iter().filter(|slot| !self.may_be_forgotten(slot))
    }
}

/// Whether this write was acknowledged and did write something: a delete had something to remove.
pub fn is_acknowledged(op: &Operation) -> bool {
    op.ending == Ending::Ok && (op.kind == Kind::Put || (op.kind == Kind::Delete && op.acks > 0))
}

/// The key's record in a store.
pub fn record_of(topology: &Topology, slot: &Slot) -> RecordKey {
    let bucket = topology.bucket(slot.0).expect("slots are drawn from the buckets");
    let place = topology.place(bucket, &slot.1);
    RecordKey::new(bucket.quorum.n(), place.token, bucket.id, &slot.1)
}

/// The numbers of the nodes that own a key.
pub fn primaries(topology: &Topology, slot: &Slot) -> Vec<usize> {
    let bucket = topology.bucket(slot.0).expect("slots are drawn from the buckets");
    let place = topology.place(bucket, &slot.1);
    let members = topology.ring().members();
    let owners = topology.ring().owners(place.partition).iter();
    let number = |member: &driftless_ring::Member| {
        member.name.strip_prefix('n').and_then(|number| number.parse().ok()).expect("names are numbers")
    };
    owners.filter_map(|id| members.iter().find(|member| member.id == *id).map(number)).collect()
}
