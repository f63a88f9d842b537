//! Judges the history of one key, once all is healed.
//!
//! Everything is seen as clients saw it. `seen(u)` are the writes shown by the read whose context write `u` used, and
//! `past(u)` those, and the past of each. Reads show no tombstones, so a delete may be why a write is gone, and never
//! has to be seen: one with a context ends what that had seen, one without may end whatever began before it ended.
//!
//! | promise | for every key |
//! |---|---|
//! | no lost write | an acknowledged write is left, or in the past of what is left, or a delete may have ended it |
//! | no resurrection | nothing in the past of an acknowledged write is left |
//! | siblings are concurrent | of two writes shown together neither is in the other's past; none is shown twice |
//! | no invention | what is shown was written, and was not refused |
//! | strict reads | know each strict write acknowledged, and each value shown by a strict read, before they began |
//! | no lost element | the union of a set's siblings has every acknowledged element |
//! | convergence | all primaries hold the same |
//!
//! Writes that two coordinators may have stamped are exempt from what only holds for one stamp.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Ending, Kind, Micros, Operation};
use super::value::Id;

/// What a key holds once all is healed.
#[derive(Clone, Default, Debug)]
pub(super) struct Left {
    /// Live writes.
    pub(super) shown: Vec<Id>,
    /// The union of their elements.
    pub(super) elements: BTreeSet<Id>,
    /// Each primary, and what it said it has.
    pub(super) replicas: Vec<(String, Option<String>)>,
    /// Values that no client of ours has written, or why there are none.
    pub(super) odd: Vec<String>,
}

/// What there is to judge a key by.
pub(super) struct Evidence<'a> {
    pub(super) operations: &'a [Operation],
    pub(super) left: &'a Left,
    /// Whether its writes are additions to a set.
    pub(super) is_set: bool,
    /// Elements before this one belong to rounds that have been judged.
    pub(super) first: Id,
    pub(super) disk_lost: Option<Micros>,
}

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    pub(super) promise: &'static str,
    pub(super) text: String,
}

impl Evidence<'_> {
    /// Everything that contradicts a promise.
    pub(super) fn judge(&self) -> Vec<Broken> {
        let pasts = Pasts::of(self.operations);
        let mut broken = Vec::new();
        self.lost(&pasts, &mut broken);
        self.back(&pasts, &mut broken);
        self.reads(&pasts, &mut broken);
        self.strict_reads(&pasts, &mut broken);
        self.elements(&mut broken);
        self.replicas(&mut broken);
        broken
    }

    fn lost(&self, pasts: &Pasts, broken: &mut Vec<Broken>) {
        let mut accounted = pasts.known(&self.left.shown);
        accounted.extend(self.ended_by_deletes(pasts, Micros::MAX));
        for write in self.operations.iter().filter(|op| op.kind == Kind::Put && op.is_ok()) {
            if !accounted.contains(&write.id) {
                broken.push(Broken::new("no lost write", format!("#{:x} was acknowledged and is gone", write.id)));
            }
        }
    }

    fn back(&self, pasts: &Pasts, broken: &mut Vec<Broken>) {
        let left = |id: &&Id| self.left.shown.contains(id) && !self.is_exempt(**id);
        for write in self.operations.iter().filter(|op| op.kind != Kind::Get && op.is_ok()) {
            for id in pasts.of_write(write.id).iter().filter(left) {
                let text = format!("#{id:x} is live, though acknowledged #{:x} had replaced it", write.id);
                broken.push(Broken::new("no resurrection", text));
            }
        }
        for delete in self.operations.iter().filter(|op| op.kind == Kind::BlindDelete && op.strict && op.is_ok()) {
            let due = |op: &&Operation| self.is_due(op, delete) && left(&&op.id);
            for write in self.operations.iter().filter(due) {
                let text = format!("#{:x} is live, though delete #{:x} was acknowledged after it", write.id, delete.id);
                broken.push(Broken::new("no resurrection", text));
            }
        }
    }

    fn reads(&self, pasts: &Pasts, broken: &mut Vec<Broken>) {
        let by_id: BTreeMap<Id, &Operation> = self.operations.iter().map(|op| (op.id, op)).collect();
        let reads = self.operations.iter().filter(|op| op.kind == Kind::Get && op.is_ok());
        let reads = reads.map(|op| (format!("get #{:x}", op.id), &op.shown, op.returned));
        let last = ("the last read".to_owned(), &self.left.shown, Micros::MAX);
        for (what, shown, returned) in reads.chain([last]) {
            for (place, id) in shown.iter().enumerate() {
                match by_id.get(id) {
                    Some(op) if op.kind != Kind::Put || op.invoked > returned => {
                        let text = format!("{what} shows #{id:x}, which was not written by then");
                        broken.push(Broken::new("no invention", text));
                    }
                    Some(op) if op.ending == Ending::Refused => {
                        broken.push(Broken::new("no invention", format!("{what} shows #{id:x}, which was refused")));
                    }
                    Some(_) => {}
                    None => {
                        let text = format!("{what} shows #{id:x}, which was replaced in an earlier round");
                        broken.push(Broken::new("no resurrection", text));
                    }
                }
                if shown[..place].contains(id) {
                    let text = format!("{what} shows #{id:x} twice");
                    broken.push(Broken::new("siblings are concurrent", text));
                }
                let older = |other: &&Id| pasts.of_write(*id).contains(other) && !self.is_exempt(**other);
                for other in shown.iter().filter(older) {
                    let text = format!("{what} shows #{other:x} beside #{id:x}, whose author had read it");
                    broken.push(Broken::new("siblings are concurrent", text));
                }
            }
        }
        broken.extend(self.left.odd.iter().map(|odd| Broken::new("no invention", format!("the last read: {odd}"))));
    }

    fn strict_reads(&self, pasts: &Pasts, broken: &mut Vec<Broken>) {
        let reads: Vec<&Operation> =
            self.operations.iter().filter(|op| op.kind == Kind::Get && op.strict && op.is_ok()).collect();
        for read in &reads {
            let mut known = pasts.known(&read.shown);
            known.extend(self.ended_by_deletes(pasts, read.returned));
            for write in self.operations.iter().filter(|op| self.is_due(op, read)) {
                if !known.contains(&write.id) && !self.is_exempt(write.id) {
                    let text = format!(
                        "strict get #{:x} does not know #{:x}, acknowledged before it began",
                        read.id, write.id
                    );
                    broken.push(Broken::new("strict reads", text));
                }
            }
            for before in reads.iter().filter(|before| before.returned < read.invoked && self.met(before, read)) {
                for id in before.shown.iter().filter(|id| !known.contains(id) && !self.is_exempt(**id)) {
                    let text =
                        format!("strict get #{:x} does not know #{id:x}, which #{:x} had shown", read.id, before.id);
                    broken.push(Broken::new("strict reads", text));
                }
            }
        }
    }

    fn elements(&self, broken: &mut Vec<Broken>) {
        let added = |op: &&Operation| self.is_set && op.kind == Kind::Put && op.is_ok() && op.id >= self.first;
        for add in self.operations.iter().filter(added) {
            if !self.left.elements.contains(&add.id) {
                let text = format!("#{:x} was acknowledged and is in no sibling", add.id);
                broken.push(Broken::new("no lost element", text));
            }
        }
    }

    fn replicas(&self, broken: &mut Vec<Broken>) {
        let states: BTreeSet<_> = self.left.replicas.iter().map(|(_, state)| state).collect();
        let complete = self.left.replicas.iter().all(|(_, state)| state.is_some());
        if self.left.replicas.len() != 3 || states.len() != 1 || !complete {
            let said = self.left.replicas.iter().map(|(node, state)| format!("{node} {state:?}"));
            let text = format!("primaries differ: {}", said.collect::<Vec<_>>().join(", "));
            broken.push(Broken::new("convergence", text));
        }
    }

    /// Whether quorums make the later operation meet this write.
    fn is_due(&self, write: &Operation, later: &Operation) -> bool {
        let acknowledged = write.kind == Kind::Put && write.strict && write.is_ok() && write.returned < later.invoked;
        acknowledged && self.met(write, later)
    }

    /// Whether no disk was lost between the two.
    fn met(&self, earlier: &Operation, later: &Operation) -> bool {
        self.disk_lost.is_none_or(|at| at < earlier.invoked || later.returned < at)
    }

    /// All that deletes may have ended by this time.
    fn ended_by_deletes(&self, pasts: &Pasts, by: Micros) -> BTreeSet<Id> {
        let mut ended = BTreeSet::new();
        let at_work = |op: &&Operation| op.is_delete() && op.ending != Ending::Refused && op.invoked < by;
        for delete in self.operations.iter().filter(at_work) {
            ended.extend(pasts.of_write(delete.id));
            if delete.kind == Kind::BlindDelete {
                let until = match delete.is_ok() {
                    // One that was made at two nodes removes what it finds at the second, as long as that one carries it out.
                    true if delete.twice => delete.returned.max(delete.invoked + CARRIED_OUT_FOR),
                    true => delete.returned,
                    false => Micros::MAX,
                };
                let earlier = self.operations.iter().filter(|op| op.kind == Kind::Put && op.invoked < until);
                ended.extend(earlier.map(|op| op.id));
            }
        }
        ended
    }

    fn is_exempt(&self, id: Id) -> bool {
        self.operations.iter().any(|op| op.id == id && op.twice)
    }
}

impl Broken {
    fn new(promise: &'static str, text: String) -> Broken {
        Broken { promise, text }
    }
}

/// No node begins or goes on with a request that is older: clients give up after three seconds (`workload::TIMEOUT`), and nodes a moment later.
const CARRIED_OUT_FOR: Micros = 4_000_000;

/// `past` of every write of a key.
struct Pasts(BTreeMap<Id, BTreeSet<Id>>);

impl Pasts {
    fn of(operations: &[Operation]) -> Pasts {
        let mut pasts: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        // A context has seen only what was numbered before.
        for write in operations.iter().filter(|op| op.kind != Kind::Get) {
            let mut past: BTreeSet<Id> = write.seen.iter().copied().collect();
            past.extend(write.seen.iter().filter_map(|id| pasts.get(id)).flatten());
            pasts.insert(write.id, past);
        }
        Pasts(pasts)
    }

    fn of_write(&self, id: Id) -> &BTreeSet<Id> {
        static NOTHING: BTreeSet<Id> = BTreeSet::new();
        self.0.get(&id).unwrap_or(&NOTHING)
    }

    /// Writes, and all that they have replaced.
    fn known(&self, writes: &[Id]) -> BTreeSet<Id> {
        let mut known: BTreeSet<Id> = writes.iter().copied().collect();
        known.extend(writes.iter().flat_map(|id| self.of_write(*id)));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations follow each other, each a second long, numbered from 1.
    fn operation(id: Id, kind: Kind, seen: &[Id], shown: &[Id]) -> Operation {
        let mut op = Operation::new(0, kind, true, seen.to_vec());
        (op.id, op.invoked, op.returned, op.ending) = (id, id * 10, id * 10 + 5, Ending::Ok);
        op.shown = shown.to_vec();
        op
    }

    fn put(id: Id, seen: &[Id]) -> Operation {
        operation(id, Kind::Put, seen, &[])
    }

    fn get(id: Id, shown: &[Id]) -> Operation {
        operation(id, Kind::Get, &[], shown)
    }

    fn judge(operations: &[Operation], shown: &[Id]) -> Vec<&'static str> {
        judge_all(operations, shown, None)
    }

    fn judge_all(operations: &[Operation], shown: &[Id], disk_lost: Option<Micros>) -> Vec<&'static str> {
        let replicas = ["a", "b", "c"].map(|node| (node.to_owned(), Some("same".to_owned())));
        let left = Left { shown: shown.to_vec(), replicas: replicas.into(), ..Left::default() };
        let evidence = Evidence { operations, left: &left, is_set: false, first: 1, disk_lost };
        evidence.judge().into_iter().map(|broken| broken.promise).collect()
    }

    #[test]
    fn a_chain_of_overwrites_is_fine() {
        let operations = [put(1, &[]), get(2, &[1]), put(3, &[1]), get(4, &[3]), put(5, &[3])];
        assert!(judge(&operations, &[5]).is_empty());
    }

    #[test]
    fn a_lost_write_is_found() {
        assert_eq!(judge(&[put(1, &[]), put(2, &[])], &[2]), ["no lost write"]);
        let mut unknown = put(1, &[]);
        unknown.ending = Ending::Unknown;
        assert!(judge(&[unknown], &[]).is_empty(), "owes nothing");
    }

    #[test]
    fn a_write_may_be_gone_by_a_delete_that_had_seen_it() {
        let delete = |seen: &[Id]| operation(2, Kind::Delete, seen, &[]);
        assert!(judge(&[put(1, &[]), delete(&[1])], &[]).is_empty());
        assert_eq!(judge(&[put(1, &[]), delete(&[])], &[]), ["no lost write"]);
        let mut refused = delete(&[1]);
        refused.ending = Ending::Refused;
        assert_eq!(judge(&[put(1, &[]), refused], &[]), ["no lost write"]);
        let blind = operation(2, Kind::BlindDelete, &[], &[]);
        assert!(judge(&[put(1, &[]), blind.clone()], &[]).is_empty());
        assert_eq!(judge(&[blind.clone(), put(3, &[])], &[]), ["no lost write"], "it came before");
        let twice = Operation { twice: true, ..blind };
        assert!(judge(&[twice.clone(), put(3, &[])], &[]).is_empty(), "it may have been made at another node since");
        let later = Operation { invoked: 20 + CARRIED_OUT_FOR, ..put(3, &[]) };
        assert_eq!(judge(&[twice, later], &[]), ["no lost write"], "nobody carries it out any more");
    }

    #[test]
    fn what_comes_back_is_found() {
        let operations = [put(1, &[]), put(3, &[1])];
        assert_eq!(judge(&operations, &[1, 3]), ["no resurrection", "siblings are concurrent"]);
        assert_eq!(judge(&[put(1, &[]), operation(2, Kind::Delete, &[1], &[])], &[1]), ["no resurrection"]);
        assert_eq!(judge(&[put(1, &[]), operation(2, Kind::BlindDelete, &[], &[])], &[1]), ["no resurrection"]);
        let mut twice = put(1, &[]);
        twice.twice = true;
        assert!(judge(&[twice, put(3, &[1])], &[1, 3]).is_empty());
        assert_eq!(judge(&[put(7, &[])], &[2, 7]), ["no resurrection"], "of an earlier round");
    }

    #[test]
    fn what_nobody_wrote_is_found() {
        let mut refused = put(1, &[]);
        refused.ending = Ending::Refused;
        assert_eq!(judge(&[refused], &[1]), ["no invention"]);
        assert_eq!(judge(&[get(1, &[2]), put(2, &[])], &[2]), ["no invention"], "not yet");
        assert_eq!(judge(&[put(1, &[]), get(2, &[1, 1])], &[1]), ["siblings are concurrent"]);
    }

    #[test]
    fn a_strict_read_that_missed_a_write_is_found() {
        let operations = [put(1, &[]), get(2, &[])];
        assert_eq!(judge(&operations, &[1]), ["strict reads"]);
        assert!(judge_all(&operations, &[1], Some(17)).is_empty(), "a disk was lost between them");
        assert_eq!(judge_all(&operations, &[1], Some(9)), ["strict reads"], "before them");
        let mut sloppy = put(1, &[]);
        sloppy.strict = false;
        assert!(judge(&[sloppy.clone(), get(2, &[])], &[1]).is_empty());
        assert_eq!(judge(&[sloppy, get(2, &[1]), get(3, &[])], &[1]), ["strict reads"], "shown and gone");
    }

    #[test]
    fn a_lost_element_and_an_incomplete_replica_are_found() {
        let operations = [put(1, &[]), put(2, &[1])];
        let replicas = [("a", Some("x")), ("b", Some("x")), ("c", None)];
        let replicas = replicas.map(|(node, state)| (node.to_owned(), state.map(str::to_owned))).into();
        let left = Left { shown: vec![2], elements: [2].into(), replicas, odd: Vec::new() };
        let evidence = Evidence { operations: &operations, left: &left, is_set: true, first: 1, disk_lost: None };
        let broken: Vec<_> = evidence.judge().into_iter().map(|broken| broken.promise).collect();
        assert_eq!(broken, ["no lost element", "convergence"]);
    }
}
