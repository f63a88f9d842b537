//! From the moment of its acknowledgement, a write with `durability = sync` is on as many disks as acknowledged it,
//! for ever: that many nodes' durable state covers its dot. A delete that had nothing to remove has made sure that as many disks
//! know that what it covers is gone, in sloppy mode too, and a strict read that n - r + 1 disks have what it shows. One disk
//! fewer if one was lost since the operation began: that is the loss which w ≥ 2 is for.
//!
//! And what an acknowledgement counted are slots: as many of the key's primaries have it on their own disk, or on one that
//! keeps it for them. A copy that is kept for one of them goes when that one has it, so it fills no other's slot.
//!
//! Where most disks are lost at once, for ever, what was promised so far counts as what is on the others at that moment, in the place of
//! each primary that has it there itself or by one copy that is kept for it: that stays. What was only on lost ones is owed no more.
//!
//! This looks at the moment itself, so it needs no crash at the right time to notice an acknowledgement that came
//! before the sync.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use driftless_proto::{Conflict, Dot, Durability, Siblings, Topology};
use driftless_ring::NodeId;

use super::super::history::{Ending, History, Kind, OpId, Operation, Slot};
use super::super::observer::Observer;
use super::super::schedule::Micros;
use super::super::shape;
use super::super::store::SimStore;
use super::losses::{DiskLosses, Left};
use super::{Violation, primaries, record_of};

const PROMISE: &str = "durability";

/// What was promised so far.
#[derive(Debug, Default)]
pub struct DurabilityOracle {
    promised: Vec<Promise>,
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

/// Something that was promised, and from when on losses of disks take from it.
#[derive(Debug)]
struct Promise {
    what: Promised,
    counted_from: Micros,
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
        let met = |id: OpId| {
            let put = scene.history.get(id);
            (put.kind, put.ending) == (Kind::Put, Ending::Ok)
                && put.returned < delete.invoked
                && put.strict
                && put.w + delete.r > n
                && scene.disk_losses.lacking(put, put.w, Micros::MAX) == 0
                && scene.disk_losses.spares_quorum(id, (put.invoked, put.returned), Micros::MAX)
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
            if scene.history.get(self.promised[at].what.id()).slot == *slot {
                self.check(at, when, scene);
            }
        }
    }

    fn promise(&mut self, promised: Promised, scene: &Scene<'_>) {
        let bucket =
            scene.topology.bucket(scene.history.get(promised.id()).slot.0).expect("slots are drawn from the buckets");
        if bucket.durability == Durability::Sync {
            self.promised.push(Promise { what: promised, counted_from: 0 });
            self.check(self.promised.len() - 1, "when it was acknowledged", scene);
        }
    }

    fn check(&mut self, at: usize, when: &str, scene: &Scene<'_>) {
        let Promise { what, counted_from } = &self.promised[at];
        let lacking = |op: &Operation, held_by| scene.disk_losses.lacking_since(op, held_by, *counted_from);
        let broken = match what {
            Promised::Written { id, acks } => missing(*id, *acks, when, scene, lacking).map(|text| (*id, text)),
            Promised::Shown { id, values, held_by } => {
                not_held(*id, values, *held_by, when, scene, lacking).map(|text| (*id, text))
            }
            Promised::Gone { id, dots, held_by } => {
                unknown(*id, dots, *held_by, when, scene, lacking).map(|text| (*id, text))
            }
        };
        if let Some((id, text)) = broken {
            self.violations.push(Violation::of(PROMISE, &scene.history.get(id).slot, text));
        }
    }

    /// Several disks have just been lost at once, for ever, and are empty in this scene: what is left of what was promised, and of each
    /// write that somebody has stamped.
    pub fn lost_at_once(&mut self, at: Micros, scene: &Scene<'_>) -> BTreeMap<OpId, Left> {
        let mut remains = Remains::default();
        let mut promised = BTreeSet::new();
        for Promise { what, .. } in std::mem::take(&mut self.promised) {
            let slot = &scene.history.get(what.id()).slot;
            let rest: Vec<(Promised, u8)> = match what {
                Promised::Written { id, acks } => {
                    promised.insert(id);
                    let disks = acks.min(remains.of_write(id, scene).disks);
                    vec![(Promised::Written { id, acks: disks }, disks)]
                }
                Promised::Shown { id, values, held_by } => {
                    let rest = values.into_iter().map(|value| {
                        let disks = held_by.min(remains.of_write(value, scene).disks);
                        (Promised::Shown { id, values: vec![value], held_by: disks }, disks)
                    });
                    rest.collect()
                }
                Promised::Gone { id, dots, held_by } => {
                    let rest = dots.into_iter().map(|dot| {
                        let knows = |state: &Siblings| state.covers(dot) && state.get(dot).is_none();
                        let disks = held_by.min(remains.of(slot, scene).disks(knows));
                        (Promised::Gone { id, dots: vec![dot], held_by: disks }, disks)
                    });
                    rest.collect()
                }
            };
            let rest = rest.into_iter().filter(|(_, disks)| *disks > 0);
            self.promised.extend(rest.map(|(what, _)| Promise { what, counted_from: at + 1 }));
        }
        let writes = scene.history.iter().filter(|(_, op)| scene.observer.dots_of(op).next().is_some());
        let left = writes.map(|(id, _)| {
            let left = remains.of_write(id, scene);
            (id, Left { was_promised: promised.contains(&id), ..left })
        });
        left.collect()
    }
}

fn missing(
    id: OpId,
    acks: u8,
    when: &str,
    scene: &Scene<'_>,
    lacking: impl Fn(&Operation, u8) -> usize,
) -> Option<String> {
    let op = scene.history.get(id);
    let states = scene.states(&op.slot);
    // A write that two coordinators stamped was acknowledged under one of its dots.
    let covered = |dot: Dot| states.count(|state| state.covers(dot));
    let Some(most) = scene.observer.dots_of(op).map(|(dot, _)| covered(dot)).max() else {
        // Where the last writer wins, a write may lose within the batch that stamps it: then no disk ever holds it.
        let may_lose = scene.topology.bucket(op.slot.0).is_some_and(|bucket| bucket.conflict == Conflict::Lww);
        return (!may_lose).then(|| format!("{:?} {id} was acknowledged and never stamped", op.kind));
    };
    (most + lacking(op, acks) < usize::from(acks))
        .then(|| format!("{:?} {id} was acknowledged by {acks}, on the disks of {most} {when}", op.kind))
}

fn not_held(
    id: OpId,
    values: &[OpId],
    held_by: u8,
    when: &str,
    scene: &Scene<'_>,
    lacking: impl Fn(&Operation, u8) -> usize,
) -> Option<String> {
    let op = scene.history.get(id);
    let states = scene.states(&op.slot);
    let covered = |dot: Dot| states.count(|state| state.covers(dot));
    values.iter().find_map(|value| {
        let dots = scene.observer.dots_of(scene.history.get(*value));
        let most = dots.map(|(dot, _)| covered(dot)).max()?;
        (most + lacking(op, held_by) < usize::from(held_by))
            .then(|| format!("strict get {id} showed {value}, which is on {most} disks {when}"))
    })
}

fn unknown(
    id: OpId,
    dots: &[Dot],
    held_by: u8,
    when: &str,
    scene: &Scene<'_>,
    lacking: impl Fn(&Operation, u8) -> usize,
) -> Option<String> {
    let op = scene.history.get(id);
    let states = scene.states(&op.slot);
    dots.iter().find_map(|dot| {
        let known_to = states.count(|state| state.covers(*dot) && state.get(*dot).is_none());
        (known_to + lacking(op, held_by) < usize::from(held_by))
            .then(|| format!("delete {id} found nothing; that {dot} is gone is on the disks of {known_to} {when}"))
    })
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

/// What is on the disks about each key, where several were lost at once.
#[derive(Default)]
struct Remains(BTreeMap<Slot, RemainsOfKey>);

/// What is on the disks about a key.
struct RemainsOfKey {
    /// Of each primary: its record.
    records: Vec<Option<Siblings>>,
    /// What others keep: for which primary, on which disk.
    copies: Vec<(usize, usize, Siblings)>,
}

impl Remains {
    fn of(&mut self, slot: &Slot, scene: &Scene<'_>) -> &RemainsOfKey {
        self.0.entry(slot.clone()).or_insert_with(|| RemainsOfKey::read(slot, scene))
    }

    fn of_write(&mut self, id: OpId, scene: &Scene<'_>) -> Left {
        let op = scene.history.get(id);
        let remains = self.of(&op.slot, scene);
        let dots = || scene.observer.dots_of(op).map(|(dot, _)| dot);
        Left {
            was_promised: false,
            disks: dots().map(|dot| remains.disks(|state| state.covers(dot))).max().unwrap_or(0),
            is_with_primary: dots().any(|dot| remains.records.iter().flatten().any(|state| state.covers(dot))),
        }
    }
}

impl RemainsOfKey {
    fn read(slot: &Slot, scene: &Scene<'_>) -> RemainsOfKey {
        let record = record_of(scene.topology, slot);
        let primaries = primaries(scene.topology, slot);
        let mut remains = RemainsOfKey { records: vec![None; primaries.len()], copies: Vec::new() };
        for (number, disk) in scene.disks {
            let (own, copies) = disk.lasting_states(&record);
            if let Some(at) = primaries.iter().position(|primary| primary == number) {
                remains.records[at] = own;
                continue;
            }
            for (target, held) in copies {
                if let Some(at) = primaries.iter().position(|p| NodeId::of_name(&shape::name_of(*p)) == target) {
                    remains.copies.push((at, *number, held));
                }
            }
        }
        remains
    }

    /// On how many disks it stays that this is known. What is kept for a primary that knows it goes once it was delivered.
    fn disks(&self, knows: impl Fn(&Siblings) -> bool) -> u8 {
        let mut keepers = BTreeSet::new();
        let mut primaries = 0;
        for (at, record) in self.records.iter().enumerate() {
            if record.as_ref().is_some_and(&knows) {
                primaries += 1;
                continue;
            }
            let keeper = self.copies.iter().find(|(of, by, held)| *of == at && !keepers.contains(by) && knows(held));
            keepers.extend(keeper.map(|(_, by, _)| *by));
        }
        primaries + keepers.len() as u8
    }
}
