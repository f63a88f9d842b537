//! From the moment of its acknowledgement, a write with `durability = sync` is on as many disks as acknowledged it,
//! for ever: that many nodes' durable state covers its dot. A delete that had nothing to remove has made sure that as many disks
//! know that what it covers is gone, in sloppy mode too, and a strict read that n - r + 1 disks have what it shows. One disk
//! fewer if one was lost since the operation began: that is the loss which w ≥ 2 is for.
//!
//! And what an acknowledgement counted are slots: as many of the key's primaries have it on their own disk, or on one that
//! keeps it for them. A copy that is kept for one of them goes when that one has it, so it fills no other's slot.
//!
//! This looks at the moment itself, so it needs no crash at the right time to notice an acknowledgement that came
//! before the sync.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use driftless_proto::{Conflict, Dot, Durability, Siblings, Topology};
use driftless_ring::NodeId;

use super::super::history::{Ending, History, Kind, OpId, Operation, Slot};
use super::super::observer::Observer;
use super::super::shape;
use super::super::store::SimStore;
use super::losses::DiskLosses;
use super::{Violation, primaries, record_of};

const PROMISE: &str = "durability";

/// What was promised so far.
#[derive(Debug, Default)]
pub struct DurabilityOracle {
    promised: Vec<Promised>,
    /// What was found missing.
    pub violations: Vec<Violation>,
}

/// What the oracle looks at: the world at one moment.
pub struct Scene<'a> {
    topology: &'a Topology,
    history: &'a History,
    observer: &'a Observer,
    disks: &'a BTreeMap<usize, SimStore>,
    disk_losses: &'a DiskLosses,
    /// Members come and go: whose slot a copy fills changes, and on how many disks it is does not.
    members_change: bool,
    /// What was read from the disks already: much is promised of one key.
    read: RefCell<BTreeMap<Slot, Rc<States>>>,
}

/// What is on the disks about a key.
struct States {
    /// Of each disk: the record, and all that it keeps for others.
    disks: Vec<Siblings>,
    /// Of each primary: its record, and all that is kept for it.
    primaries: Vec<Siblings>,
    /// Disks alone count.
    disks_count: bool,
}

#[derive(Debug)]
enum Promised {
    /// A write is on this many disks.
    Written { id: OpId, acks: u8 },
    /// Each of these values is on this many disks.
    Shown { id: OpId, values: Vec<OpId>, held_by: u8 },
    /// This many disks know that what these values were stamped as is gone.
    Gone { id: OpId, dots: Vec<Dot>, held_by: u8 },
}

impl Promised {
    /// To whom.
    fn id(&self) -> OpId {
        let (Promised::Written { id, .. } | Promised::Shown { id, .. } | Promised::Gone { id, .. }) = self;
        *id
    }
}

impl DurabilityOracle {
    /// A node has just acknowledged a write.
    pub fn acknowledged(&mut self, id: OpId, acks: u8, scene: &Scene<'_>) {
        // Who does not own a key any more drops it in the end, when as many others as were asked for have it.
        let acks = if scene.members_change { acks.min(scene.history.get(id).w) } else { acks };
        self.promise(Promised::Written { id, acks }, scene);
    }

    /// A node has just answered that there was nothing to delete, after so many acknowledgements. It had known that these dots
    /// were gone when it was asked; a strict read has met what was acknowledged before; and what was in a context is gone.
    pub fn found_nothing(&mut self, id: OpId, acks: u8, mut gone: Vec<Dot>, scene: &Scene<'_>) {
        let delete = scene.history.get(id);
        let held_by = if scene.members_change { delete.w } else { acks.max(delete.w) };
        let values = || scene.observer.dots_in(&delete.slot).filter(|(_, stamp)| !stamp.is_tombstone());
        if let Some(seen) = &delete.seen {
            gone = values().map(|(dot, _)| dot).filter(|dot| seen.inside.vv.covers(*dot)).collect();
        } else {
            gone.retain(|dot| values().any(|(value, _)| value == *dot));
        }
        let n = scene.topology.bucket(delete.slot.0).map_or(0, |bucket| bucket.quorum.n());
        let met = |put: OpId| {
            let put = scene.history.get(put);
            (put.kind, put.ending) == (Kind::Put, Ending::Ok)
                && put.returned < delete.invoked
                && put.strict
                && put.w + delete.r > n
                && scene.disk_losses.lacking(put, put.w) == 0
                && scene.observer.dots_of(put).count() == 1
        };
        if delete.strict && delete.seen.is_none() {
            let met = scene.history.of(&delete.slot).map(|(put, _)| put).filter(|put| met(*put));
            let met = met.filter_map(|put| scene.observer.dots_of(scene.history.get(put)).next());
            gone.extend(met.map(|(dot, _)| dot));
        }
        self.promise(Promised::Gone { id, dots: gone, held_by }, scene);
    }

    /// A node has just answered a get with these values.
    pub fn shown(&mut self, id: OpId, values: Vec<OpId>, scene: &Scene<'_>) {
        let get = scene.history.get(id);
        let quorum = scene.topology.bucket(get.slot.0).expect("slots are drawn from the buckets").quorum;
        if get.strict {
            self.promise(Promised::Shown { id, values, held_by: quorum.n() - quorum.r() + 1 }, scene);
        }
    }

    /// Looks at everything promised again.
    pub fn again(&mut self, when: &str, scene: &Scene<'_>) {
        for at in 0..self.promised.len() {
            self.check(at, when, scene);
        }
    }

    /// Looks again at what was promised of a key.
    pub fn again_of(&mut self, slot: &Slot, when: &str, scene: &Scene<'_>) {
        for at in 0..self.promised.len() {
            if scene.history.get(self.promised[at].id()).slot == *slot {
                self.check(at, when, scene);
            }
        }
    }

    fn promise(&mut self, promised: Promised, scene: &Scene<'_>) {
        let bucket =
            scene.topology.bucket(scene.history.get(promised.id()).slot.0).expect("slots are drawn from the buckets");
        if bucket.durability == Durability::Sync {
            self.promised.push(promised);
            self.check(self.promised.len() - 1, "when it was acknowledged", scene);
        }
    }

    fn check(&mut self, at: usize, when: &str, scene: &Scene<'_>) {
        let broken = match &self.promised[at] {
            Promised::Written { id, acks } => self.missing(*id, *acks, when, scene).map(|text| (*id, text)),
            Promised::Shown { id, values, held_by } => {
                self.not_held(*id, values, *held_by, when, scene).map(|text| (*id, text))
            }
            Promised::Gone { id, dots, held_by } => {
                self.unknown(*id, dots, *held_by, when, scene).map(|text| (*id, text))
            }
        };
        if let Some((id, text)) = broken {
            self.violations.push(Violation::of(PROMISE, &scene.history.get(id).slot, text));
        }
    }

    fn missing(&self, id: OpId, acks: u8, when: &str, scene: &Scene<'_>) -> Option<String> {
        let op = scene.history.get(id);
        let states = scene.states(&op.slot);
        // A write that two coordinators stamped was acknowledged under one of its dots.
        let covered = |dot: Dot| states.count(|state| state.covers(dot));
        let Some(most) = scene.observer.dots_of(op).map(|(dot, _)| covered(dot)).max() else {
            // Where the last writer wins, a write may lose within the batch that stamps it: then no disk ever holds it.
            let may_lose = scene.topology.bucket(op.slot.0).is_some_and(|bucket| bucket.conflict == Conflict::Lww);
            return (!may_lose).then(|| format!("{:?} {id} was acknowledged and never stamped", op.kind));
        };
        (most + scene.lacking(op, acks) < usize::from(acks))
            .then(|| format!("{:?} {id} was acknowledged by {acks}, on the disks of {most} {when}", op.kind))
    }

    fn not_held(&self, id: OpId, values: &[OpId], held_by: u8, when: &str, scene: &Scene<'_>) -> Option<String> {
        let op = scene.history.get(id);
        let states = scene.states(&op.slot);
        let covered = |dot: Dot| states.count(|state| state.covers(dot));
        values.iter().find_map(|value| {
            let dots = scene.observer.dots_of(scene.history.get(*value));
            let most = dots.map(|(dot, _)| covered(dot)).max()?;
            (most + scene.lacking(op, held_by) < usize::from(held_by))
                .then(|| format!("strict get {id} showed {value}, which is on {most} disks {when}"))
        })
    }

    fn unknown(&self, id: OpId, dots: &[Dot], held_by: u8, when: &str, scene: &Scene<'_>) -> Option<String> {
        let op = scene.history.get(id);
        let states = scene.states(&op.slot);
        dots.iter().find_map(|dot| {
            let known_to = states.count(|state| state.covers(*dot) && state.get(*dot).is_none());
            (known_to + scene.lacking(op, held_by) < usize::from(held_by))
                .then(|| format!("delete {id} found nothing; that {dot} is gone is on the disks of {known_to} {when}"))
        })
    }
}

impl<'a> Scene<'a> {
    /// Ring and buckets, what clients asked, which dots their writes became, all disks, and what one of them has lost.
    pub fn new(
        topology: &'a Topology,
        history: &'a History,
        observer: &'a Observer,
        disks: &'a BTreeMap<usize, SimStore>,
        disk_losses: &'a DiskLosses,
    ) -> Scene<'a> {
        let members_change = false;
        Scene { topology, history, observer, disks, disk_losses, members_change, read: RefCell::default() }
    }

    /// While members come and go.
    pub fn of_changing_members(self) -> Scene<'a> {
        Scene { members_change: true, ..self }
    }

    fn lacking(&self, op: &Operation, held_by: u8) -> usize {
        self.disk_losses.lacking(op, held_by)
    }

    /// What disks would know of a key after a power cut.
    fn states(&self, slot: &Slot) -> Rc<States> {
        if let Some(states) = self.read.borrow().get(slot) {
            return Rc::clone(states);
        }
        let states = Rc::new(self.read_states(slot));
        self.read.borrow_mut().insert(slot.clone(), Rc::clone(&states));
        states
    }

    fn read_states(&self, slot: &Slot) -> States {
        let record = record_of(self.topology, slot);
        let primaries = primaries(self.topology, slot);
        let mut states = States {
            disks: Vec::new(),
            primaries: primaries.iter().map(|_| Siblings::new()).collect(),
            disks_count: self.members_change,
        };
        for (number, disk) in self.disks {
            let (own, copies) = disk.durable_states(&record);
            let mut all = Siblings::new();
            let own = own.map(|own| (NodeId::of_name(&shape::name_of(*number)), own));
            for (target, held) in own.into_iter().chain(copies) {
                all.merge(&held);
                if let Some(at) = primaries.iter().position(|p| NodeId::of_name(&shape::name_of(*p)) == target) {
                    states.primaries[at].merge(&held);
                }
            }
            states.disks.push(all);
        }
        states
    }
}

impl States {
    /// How many disks know as much, or for how many primaries that is known, whichever are fewer.
    fn count(&self, knows: impl Fn(&Siblings) -> bool) -> usize {
        let count = |states: &[Siblings]| states.iter().filter(|state| knows(state)).count();
        if self.disks_count { count(&self.disks) } else { count(&self.disks).min(count(&self.primaries)) }
    }
}
