//! Hints: what is held for nodes that could not be reached, and how it gets there.

use driftless_proto::{ActorId, Dot};

use super::*;
use crate::handoff::HintFigures;
use crate::peer::{Purpose, Read as Look, Want};
use crate::replica;
use crate::replica::local::{AddHint, LocalRequest, Made, Write};
use crate::replica::record::HintKey;

/// What a replica says to its own coordinator.
#[derive(PartialEq, Debug)]
enum Said {
    Made(Made),
    Reply(Reply),
}

/// Five nodes, of which three own the key.
struct Five {
    trio: Trio,
    /// The key's owners.
    owners: Vec<usize>,
    /// The two nodes that may stand in for them.
    others: Vec<usize>,
}

impl std::ops::Deref for Five {
    type Target = Trio;

    fn deref(&self) -> &Trio {
        &self.trio
    }
}

impl std::ops::DerefMut for Five {
    fn deref_mut(&mut self) -> &mut Trio {
        &mut self.trio
    }
}

impl Five {
    fn new() -> Five {
        Five::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Five {
        Five::among(Trio::of(5, limits))
    }

    fn with_planted(planted: Planted) -> Five {
        Five::among(Trio::with_planted(5, planted))
    }

    fn among(trio: Trio) -> Five {
        let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
        let place = trio.topology.place(bucket, &key());
        let owners: Vec<_> =
            trio.topology.ring().owners(place.partition).iter().map(|owner| trio.index(*owner)).collect();
        let others = (0..5).filter(|i| !owners.contains(i)).collect();
        Five { trio, owners, others }
    }

    /// A merge from the first owner, out of the blue.
    fn merge(&mut self, to: usize, siblings: Siblings, hint_for: Option<usize>) {
        self.merge_in(SIBLINGS, to, siblings, hint_for);
    }

    fn merge_in(&mut self, bucket: BucketId, to: usize, siblings: Siblings, hint_for: Option<usize>) {
        let hint_for = hint_for.map(|i| self.id(i));
        let from = self.owners.iter().copied().find(|owner| *owner != to).expect("three owners");
        let merge = Merge { bucket, key: key(), siblings, hint_for, purpose: Purpose::Write };
        self.trio.tell(from, to, 4711 * 4, Request::Replica(ReplicaRequest::Merge(merge)));
    }

    /// What the last message on the wire answers.
    fn answer(&mut self) -> Option<Reply> {
        match self.trio.wire.pop_back()?.2.body {
            Body::Reply(reply) => Some(reply),
            Body::Request { .. } => None,
        }
    }

    /// What a node holds for another, as it shows that.
    fn held_for(&self, i: usize, target: NodeId) -> HintFigures {
        self.engines[i]
            .hints(self.now.instant)
            .find(|(id, _)| *id == target)
            .map(|(_, figures)| figures)
            .expect("something was held")
    }

    /// A node's own coordinator speaks to its replica. Answers what that says at once.
    fn tell_self(&mut self, i: usize, request: LocalRequest) -> Vec<Said> {
        let now = self.now;
        let engine = &mut self.engines[i];
        engine.replica.handle_local(&engine.shard, now, RequestId(4712 * 4), request);
        let engine = &mut self.engines[i];
        engine.replica.commit(&engine.shard, now);
        let mut said = Vec::new();
        while let Some(output) = self.engines[i].replica.poll_output() {
            match output {
                replica::Output::Reply { reply, .. } => said.push(Said::Reply(reply)),
                replica::Output::Made { made, .. } => said.push(Said::Made(made)),
                other => self.engines[i].take_from_replica(now, other),
            }
        }
        self.turn(i);
        said
    }

    fn write(&mut self, i: usize, value: &'static str, hint_for: Option<usize>, missed_by: &[usize]) -> Vec<Said> {
        let write_id = WriteId(xxhash_rust::xxh3::xxh3_128(value.as_bytes()));
        let write = Write {
            bucket: SIBLINGS,
            key: key(),
            value: Some(Bytes::from_static(value.as_bytes())),
            write_id,
            context: Default::default(),
            found_nothing: None,
            hint_for: hint_for.map(|i| self.id(i)),
            missed_by: missed_by.iter().map(|i| self.id(*i)).collect(),
        };
        self.tell_self(i, LocalRequest::Write(write))
    }

    fn record(&self) -> RecordKey {
        let bucket = self.topology.bucket(SIBLINGS).expect("exists");
        let place = self.topology.place(bucket, &key());
        RecordKey::new(place.partition.n, place.token, SIBLINGS, &key())
    }

    /// What a node's store holds for another: a copy, a marker (`Some(None)`), or nothing.
    fn hint(&self, i: usize, target: usize) -> Option<Option<Siblings>> {
        let hint = HintKey::new(self.id(target), &self.record());
        let value = self.engines[i].store().get(hint.as_bytes()).expect("readable")?;
        Some((!record::is_marker(&value)).then(|| record::decode(value).expect("well formed")))
    }

    fn copy(&self, i: usize, target: usize) -> Siblings {
        self.hint(i, target).flatten().expect("a copy")
    }

    /// Lets the time pass after which hints are delivered; they are under way then.
    fn start_delivery(&mut self) {
        let time = self.limits.handoff_delay * 2;
        self.pass(time);
    }

    /// Lets the time pass after which hints are delivered, and everything that follows from it.
    fn deliver_hints(&mut self) {
        let step = self.limits.handoff_delay / 10;
        for _ in 0..50 {
            self.pass(step);
            self.settle();
        }
    }
}

/// A state of one write.
fn state(value: &'static str, actor: u64, counter: u64) -> Siblings {
    let mut siblings = Siblings::new();
    let write_id = WriteId(xxhash_rust::xxh3::xxh3_128(value.as_bytes()));
    let version = Version { value: Some(Bytes::from_static(value.as_bytes())), write_id, written_at: Hlc(9) };
    siblings.event(&VersionVector::new(), Dot::new(ActorId(actor), counter), version);
    siblings
}

fn texts(siblings: &Siblings) -> Vec<&str> {
    let mut texts: Vec<_> = siblings
        .values()
        .map(|version| std::str::from_utf8(version.value.as_deref().expect("a value")).expect("text"))
        .collect();
    texts.sort_unstable();
    texts
}

fn merged(states: &[&Siblings]) -> Siblings {
    let mut all = Siblings::new();
    states.iter().for_each(|state| all.merge(state));
    all
}

/// The coordinator counts it for w: a power cut must not take it.
#[test]
fn a_hint_is_acknowledged_only_once_it_is_synced() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    assert_eq!(five.copy(other, owner), state("v1", 1, 1));
    assert_eq!(five.answer(), None, "only in memory");
    five.merge(other, state("v1", 1, 1), Some(owner));
    assert_eq!(five.answer(), None, "and so is what the second one rests on");
    five.sync(other);
    assert_eq!(five.answer(), Some(Reply::Acked));
}

#[test]
fn hints_for_one_key_become_one() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.merge(other, state("v2", 2, 1), Some(owner));
    assert_eq!(texts(&five.copy(other, owner)), ["v1", "v2"]);
    assert_eq!(five.engines[other].shard.metrics.hint_keys.get(), 1);
}

/// Neither when it is sent, nor when it has only arrived in memory: a lost message, or a power cut there, would take all of it.
#[test]
fn a_hint_goes_away_only_when_its_target_has_it_on_disk() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.settle();
    five.start_delivery();
    assert_eq!(five.wire.len(), 1, "on its way");
    assert!(five.hint(other, owner).is_some());
    five.deliver_all();
    assert_eq!(five.holds(owner, SIBLINGS), state("v1", 1, 1));
    assert!(five.hint(other, owner).is_some(), "only in the target's memory");
    five.sync(owner);
    five.deliver_all();
    assert_eq!(five.hint(other, owner), None);
    assert_eq!(five.engines[other].shard.metrics.hints_delivered.get(), 1);
    assert_eq!(five.engines[other].shard.metrics.hint_keys.get(), 0);
}

/// The hint goes on the strength of the answer, so that one waits for the disk whatever the bucket says.
#[test]
fn a_delivery_into_a_buffered_bucket_is_acknowledged_once_synced() {
    let mut five = Five::new();
    let bucket = five.topology.bucket(BUFFERED).expect("exists").clone();
    let partition = five.topology.place(&bucket, &key()).partition;
    let owners: Vec<_> = five.topology.ring().owners(partition).iter().map(|id| five.index(*id)).collect();
    let merge =
        Merge { bucket: BUFFERED, key: key(), siblings: state("v1", 1, 1), hint_for: None, purpose: Purpose::Handoff };
    five.tell(owners[0], owners[1], 4, Request::Replica(ReplicaRequest::Merge(merge)));
    assert_eq!(five.answer(), None);
    five.sync(owners[1]);
    assert_eq!(five.answer(), Some(Reply::Acked));
}

#[test]
fn a_hint_that_changed_while_it_was_under_way_stays() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.settle();
    five.start_delivery();
    let delivery = five.wire.pop_front().expect("under way");
    five.merge(other, state("v2", 2, 1), Some(owner));
    five.wire.push_front(delivery);
    five.settle();
    assert_eq!(five.engines[other].shard.metrics.hints_delivered.get(), 1);
    assert_eq!(texts(&five.copy(other, owner)), ["v1", "v2"]);
    five.deliver_hints();
    assert_eq!(five.hint(other, owner), None);
    assert_eq!(texts(&five.holds(owner, SIBLINGS)), ["v1", "v2"]);
}

/// The change is in the turn that takes the acknowledgement, before it.
#[test]
fn a_hint_that_changes_in_the_same_turn_stays() {
    change_a_hint_in_the_turn_of_its_acknowledgement(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_copy_removed_as_stored_is_noticed() {
    crate::planted::assert_noticed(
        crate::planted::Bug::CopyRemovedAsStored,
        change_a_hint_in_the_turn_of_its_acknowledgement,
    );
}

fn change_a_hint_in_the_turn_of_its_acknowledgement(planted: Planted) {
    let mut five = Five::with_planted(planted);
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.settle();
    five.start_delivery();
    five.deliver_all();
    five.sync(owner);
    let (_, _, ack) = five.wire.pop_back().expect("the acknowledgement");
    let (from, target, now) = (five.id(owner), five.id(owner), five.now);
    let merge = Merge {
        bucket: SIBLINGS,
        key: key(),
        siblings: state("v2", 2, 1),
        hint_for: Some(target),
        purpose: Purpose::Write,
    };
    let deadline = now.instant + Duration::from_secs(1);
    let body = Body::Request { deadline, request: Request::Replica(ReplicaRequest::Merge(merge)) };
    five.engines[other].handle_peer(now, from, Message { id: RequestId(4), ring_version: 1, body });
    five.engines[other].handle_peer(now, from, ack);
    five.turn(other);
    assert_eq!(texts(&five.copy(other, owner)), ["v1", "v2"]);
}

#[test]
fn a_hint_lost_on_its_way_is_delivered_later() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.settle();
    five.start_delivery();
    five.cut_off(owner);
    assert!(five.wire.is_empty() && five.hint(other, owner).is_some());
    five.deliver_hints();
    assert!(five.hint(other, owner).is_some(), "its target is away");
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    assert_eq!(five.hint(other, owner), None);
    assert_eq!(five.holds(owner, SIBLINGS), state("v1", 1, 1));
}

#[test]
fn a_hint_delivered_twice_changes_nothing() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.settle();
    five.start_delivery();
    let copy = five.wire[0].clone();
    five.wire.push_back(copy);
    five.settle();
    assert_eq!(five.hint(other, owner), None);
    assert_eq!(five.holds(owner, SIBLINGS), state("v1", 1, 1));
}

/// A new vector that covers a copy's writes without having seen them would drop that copy, when both meet, as overwritten.
#[test]
fn a_stamp_knows_every_copy_held_of_its_key() {
    let mut five = Five::new();
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(one));
    five.merge(other, state("v2", 2, 1), Some(two));
    five.write(other, "v3", Some(one), &[]);
    assert_eq!(texts(&five.copy(other, one)), ["v1", "v2", "v3"]);
    assert_eq!(texts(&five.copy(other, two)), ["v2"], "what is held for the other is as it was");
}

/// Copies too are read through the batch: two hints of one turn must not be stamped as if the first were not there.
#[test]
fn a_stamp_knows_the_copies_that_its_own_turn_has_built() {
    let mut five = Five::new();
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    let (from, target) = (five.id(one), five.id(two));
    let merge = Merge {
        bucket: SIBLINGS,
        key: key(),
        siblings: state("v1", 1, 1),
        hint_for: Some(target),
        purpose: Purpose::Write,
    };
    let engine = &mut five.engines[other];
    engine.replica.handle_request(&engine.shard, from, RequestId(4), ReplicaRequest::Merge(merge));
    five.write(other, "v2", Some(one), &[]);
    assert_eq!(texts(&five.copy(other, one)), ["v1", "v2"]);
}

/// What is removed takes knowledge with it: the same actor, stamping the key again, would claim to have seen what is gone.
#[test]
fn a_fallback_stamps_a_key_again_after_its_hint_is_gone_and_nothing_is_lost() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.write(other, "v1", Some(owner), &[]);
    let first = five.copy(other, owner).live()[0].0.actor;
    five.settle();
    five.deliver_hints();
    assert_eq!(five.hint(other, owner), None);
    five.write(other, "v2", Some(owner), &[]);
    let second = five.copy(other, owner);
    assert!(second.live()[0].0.actor != first && second.vv().counter(first) == 0, "an actor never forgets");
    five.settle();
    five.deliver_hints();
    assert_eq!(texts(&five.holds(owner, SIBLINGS)), ["v1", "v2"], "v2 has not seen v1");
}

/// The other half of it: an actor that goes on is not told apart from an actor that remembers.
#[test]
fn the_batch_that_removes_a_hint_ends_the_actor_that_it_knew_without_an_alarm() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.write(other, "v1", Some(owner), &[]);
    five.settle();
    let record = five.record();
    let (now, target) = (five.now, five.id(owner));
    let engine = &mut five.engines[other];
    let page = engine.replica.hints_for(&engine.shard, target, None).expect("readable");
    let engine = &mut five.engines[other];
    engine.replica.hint_delivered(&engine.shard, target, &record, page.hints[0].digest);
    let before = five.engines[other].store().len();
    five.engines[other].commit(now);
    assert_eq!(five.engines[other].store().len(), before - 2, "the hint and the actor, in one batch");
    assert_eq!(five.engines[other].shard.metrics.actor_alarms.get(), 0);
    assert!(five.halts.is_empty());
}

#[test]
fn an_actor_that_a_removed_hint_does_not_know_goes_on() {
    let mut five = Five::new();
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    five.merge(other, state("v0", 1, 1), Some(two));
    five.settle();
    five.cut_off(one);
    five.write(other, "v1", Some(one), &[]);
    five.deliver_hints();
    assert_eq!(five.hint(other, two), None);
    five.write(other, "v2", Some(one), &[]);
    let counters: Vec<_> = five.copy(other, one).live().iter().map(|(dot, _)| (dot.actor, dot.counter)).collect();
    assert!(counters.iter().any(|(actor, counter)| *counter == 2 && *actor != ActorId(1)), "{counters:?}");
}

#[test]
fn a_read_at_a_fallback_shows_what_it_holds_for_others() {
    let mut five = Five::new();
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    let look = |want| {
        Request::Replica(ReplicaRequest::Read(Look {
            bucket: SIBLINGS,
            key: key(),
            want,
            durable: false,
            counted_for: None,
        }))
    };
    five.tell(one, other, 4, look(Want::Full));
    assert_eq!(five.answer(), Some(Reply::State(State::Full(Siblings::new()))), "never seen");
    five.merge(other, state("v1", 1, 1), Some(one));
    five.merge(other, state("v2", 2, 1), Some(two));
    five.settle();
    let all = merged(&[&state("v1", 1, 1), &state("v2", 2, 1)]);
    five.tell(one, other, 4, look(Want::Full));
    assert_eq!(five.answer(), Some(Reply::State(State::Full(all.clone()))));
    five.tell(one, other, 4, look(Want::Header));
    assert_eq!(five.answer(), Some(Reply::State(State::Header(all.header()))));
}

#[test]
fn only_a_hint_for_an_owner_is_kept_by_a_node_that_does_not_own_the_key() {
    let mut five = Five::new();
    let (one, other, third) = (five.owners[0], five.others[0], five.others[1]);
    let refusal = Reply::Refused(Refusal::NotOwner { ring_version: 1 });
    for (to, hint_for) in [(other, None), (other, Some(third)), (other, Some(other)), (one, Some(one))] {
        five.merge(to, state("v1", 1, 1), hint_for);
        assert_eq!(five.answer(), Some(refusal.clone()), "{to} for {hint_for:?}");
    }
    for hint_for in [None, Some(third)] {
        assert_eq!(five.write(other, "v1", hint_for, &[]), [Said::Reply(refusal.clone())]);
    }
    assert!((0..5).all(|i| five.engines[i].store().is_empty()));
}

#[test]
fn an_owner_that_stands_in_keeps_a_marker_and_delivers_what_it_holds_then() {
    let mut five = Five::new();
    let (one, two) = (five.owners[0], five.owners[1]);
    five.cut_off(two);
    five.merge(one, state("v1", 1, 1), Some(two));
    assert_eq!((five.holds(one, SIBLINGS), five.hint(one, two)), (state("v1", 1, 1), Some(None)));
    five.merge(one, state("v2", 2, 1), None);
    five.settle();
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    assert_eq!(five.hint(one, two), None);
    assert_eq!(texts(&five.holds(two, SIBLINGS)), ["v1", "v2"]);
}

#[test]
fn a_marker_stays_while_its_record_changes_and_goes_when_the_newest_is_there() {
    let mut five = Five::new();
    let (one, two) = (five.owners[0], five.owners[1]);
    five.merge(one, state("v1", 1, 1), Some(two));
    five.settle();
    five.start_delivery();
    let delivery = five.wire.pop_front().expect("under way");
    five.merge(one, state("v2", 2, 1), None);
    five.wire.push_front(delivery);
    five.settle();
    assert_eq!(five.hint(one, two), Some(None), "v2 is not there");
    five.deliver_hints();
    assert_eq!(five.hint(one, two), None);
    assert_eq!(texts(&five.holds(two, SIBLINGS)), ["v1", "v2"]);
}

#[test]
fn a_marker_delivers_what_is_applied_and_nothing_of_the_turn() {
    look_in_the_middle_of_a_turn(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_hint_before_its_batch_is_applied_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::HintBeforeApplied, look_in_the_middle_of_a_turn);
}

fn look_in_the_middle_of_a_turn(planted: Planted) {
    let mut five = Five::with_planted(planted);
    let (one, two) = (five.owners[0], five.owners[1]);
    five.merge(one, state("v1", 1, 1), Some(two));
    let (now, from, target) = (five.now, five.id(five.owners[2]), five.id(two));
    let (siblings, purpose) = (state("v2", 2, 1), Purpose::Write);
    let merge = Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose };
    let body = Body::Request {
        deadline: now.instant + Duration::from_secs(1),
        request: Request::Replica(ReplicaRequest::Merge(merge)),
    };
    five.engines[one].handle_peer(now, from, Message { id: RequestId(4), ring_version: 1, body });
    let engine = &mut five.engines[one];
    let page = engine.replica.hints_for(&engine.shard, target, None).expect("readable");
    assert_eq!(texts(&page.hints[0].siblings), ["v1"]);
}

#[test]
fn a_write_keeps_hints_in_its_own_batch_for_those_known_to_miss_it() {
    let mut five = Five::new();
    let (one, two, three, other) = (five.owners[0], five.owners[1], five.owners[2], five.others[0]);
    five.write(one, "v1", None, &[two]);
    assert_eq!((five.hint(one, two), five.hint(one, three)), (Some(None), None));
    assert_eq!(five.engines[one].shard.metrics.batches.get(), 1);
    five.write(other, "v2", Some(two), &[three]);
    assert_eq!(texts(&five.copy(other, two)), ["v2"]);
    assert_eq!(five.copy(other, two), five.copy(other, three));
    assert_eq!(five.engines[other].shard.metrics.batches.get(), 1);
}

#[test]
fn a_later_hint_is_a_marker_at_an_owner_and_a_copy_elsewhere() {
    let mut five = Five::new();
    let (one, two, three, other) = (five.owners[0], five.owners[1], five.owners[2], five.others[0]);
    let add = |target| LocalRequest::AddHint(AddHint { bucket: SIBLINGS, key: key(), target });
    let (to_two, to_three) = (add(five.id(two)), add(five.id(three)));
    five.merge(one, state("v1", 1, 1), None);
    five.tell_self(one, to_two.clone());
    assert_eq!(five.hint(one, two), Some(None));
    five.tell_self(other, to_two);
    assert_eq!(five.hint(other, two), None, "there is nothing to hold");
    five.merge(other, state("v1", 1, 1), Some(two));
    five.tell_self(other, to_three);
    assert_eq!(five.copy(other, three), state("v1", 1, 1));
    let nonsense = add(five.id(other));
    assert!(five.tell_self(one, nonsense).is_empty(), "it is not answered");
    assert_eq!(five.hint(one, other), None);
    let nowhere = LocalRequest::AddHint(AddHint { bucket: BucketId(99), key: key(), target: five.id(two) });
    assert!(five.tell_self(one, nowhere).is_empty());
}

/// A slot is filled by what is held for its primary.
#[test]
fn a_retry_at_a_fallback_for_another_primary_is_kept_for_that_one_too() {
    retry_for_another_primary(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_retry_not_kept_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::RetryNotKept, retry_for_another_primary);
}

fn retry_for_another_primary(planted: Planted) {
    let mut five = Five::with_planted(planted);
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    five.write(other, "v1", Some(one), &[]);
    let said = five.write(other, "v1", Some(two), &[]);
    assert_eq!(five.engines[other].shard.metrics.retries_recognised.get(), 1);
    let [Said::Made(Made::Stamped(stamped))] = &said[..] else { panic!("{said:?}") };
    assert_eq!(stamped.siblings.live().len(), 1);
    assert_eq!(five.copy(other, one), five.copy(other, two));
}

/// An attack from outside: both that were read knew of the deletion, one of them by a copy that it held for the other. The
/// copy went, the other lost its disk, and the value that was found deleted was back.
#[test]
fn a_delete_that_found_nothing_rests_on_no_copy_that_is_held_for_another_slot() {
    let mut five = Five::new();
    let (a, b, c, other) = (five.owners[0], five.owners[1], five.owners[2], five.others[0]);
    let value = state("v1", 1, 1);
    five.owners.clone().into_iter().for_each(|owner| five.merge(owner, value.clone(), None));
    five.settle();
    for away in [b, c, five.others[1]] {
        five.cut_off(away);
    }
    // The third owner has deleted it and died before its sync: what is left of that is what a fallback keeps for the first.
    let mut deleted = value.clone();
    let tombstone = Version { value: None, write_id: WriteId(1), written_at: Hlc(10) };
    deleted.event(value.vv(), Dot::new(ActorId(3), 1), tombstone);
    five.merge(other, deleted, Some(a));
    five.settle();
    five.start_delivery();
    five.deliver_all();
    five.sync(a);
    let (_, _, delivered) = five.wire.pop_back().expect("the acknowledgement, under way");

    let delete = five.ask(a, delete(SIBLINGS, None));
    five.settle();
    let Some(Response::Deleted(found)) = five.reply(delete).cloned() else { panic!("{:?}", five.reply(delete)) };
    assert_eq!((found.existed, found.acks, found.primaries), (false, 2, 1));

    let (now, from) = (five.now, five.id(a));
    five.engines[other].handle_peer(now, from, delivered);
    five.settle();
    five.restart(a, 71, MemoryStore::new());
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    assert_eq!(values(&five.read(b, SIBLINGS, 3)), [""; 0], "one disk was lost, and two knew of it");
}

/// As for records: stamped again it would come back over what has replaced it; acknowledged it would be held nowhere here.
#[test]
fn a_retry_at_a_fallback_whose_hint_is_gone_is_neither_acknowledged_nor_stamped_again() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.write(other, "v1", Some(owner), &[]);
    five.settle();
    five.deliver_hints();
    assert_eq!(five.write(other, "v1", Some(owner), &[]), [Said::Reply(Reply::Lost)]);
    assert_eq!(five.hint(other, owner), None);
}

#[test]
fn a_fallback_that_holds_as_much_as_it_may_refuses_and_drops_nothing() {
    let mut five = Five::with_limits(Limits { hint_target_bytes_max: 1, ..Limits::default() });
    let (one, two, other) = (five.owners[0], five.owners[1], five.others[0]);
    five.merge(other, state("v1", 1, 1), Some(one));
    five.settle();
    five.merge(other, state("v2", 2, 1), Some(one));
    assert_eq!(five.answer(), Some(Reply::Refused(Refusal::HintsFull)));
    assert_eq!(five.write(other, "v3", Some(one), &[]), [Said::Reply(Reply::Refused(Refusal::HintsFull))]);
    assert_eq!(five.copy(other, one), state("v1", 1, 1));
    assert_eq!(five.engines[other].shard.metrics.hints_refused.get(), 2);
    five.merge(other, state("v2", 2, 1), Some(two));
    assert!(five.hint(other, two).is_some(), "one that stays away leaves room for others");
    five.deliver_hints();
    five.merge(other, state("v2", 2, 1), Some(one));
    assert_eq!(five.copy(other, one), state("v2", 2, 1), "there is room again");
}

#[test]
fn where_there_is_no_room_for_a_marker_the_write_counts_all_the_same() {
    let mut five = Five::with_limits(Limits { hint_bytes_max: 0, ..Limits::default() });
    let (one, two) = (five.owners[0], five.owners[1]);
    five.merge(one, state("v1", 1, 1), Some(two));
    five.sync(one);
    assert_eq!(five.answer(), Some(Reply::Acked));
    assert_eq!((five.holds(one, SIBLINGS), five.hint(one, two)), (state("v1", 1, 1), None));
    assert_eq!(five.engines[one].shard.metrics.hints_refused.get(), 1);
}

#[test]
fn hints_survive_a_restart_are_counted_again_and_delivered() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.cut_off(owner);
    five.merge(other, state("v1", 1, 1), Some(owner));
    let (keys, bytes) = {
        let metrics = &five.engines[other].shard.metrics;
        (metrics.hint_keys.get(), metrics.hint_bytes.get())
    };
    let store = five.engines[other].store().clone();
    five.restart(other, 61, store);
    let target = five.id(owner);
    let now = five.now;
    five.engines[other].handle_peer_lost(now, target);
    assert_eq!(five.engines[other].shard.metrics.hints_uncounted.get(), 1);
    five.write(other, "v2", Some(owner), &[]);
    assert_eq!(texts(&five.copy(other, owner)), ["v1", "v2"], "what is not counted yet is looked for all the same");
    five.pass(Duration::from_millis(5));
    assert_eq!(five.engines[other].shard.metrics.hints_uncounted.get(), 0);
    assert_eq!((five.engines[other].shard.metrics.hint_keys.get(), keys), (1, 1));
    assert!(five.engines[other].shard.metrics.hint_bytes.get() > bytes);
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    assert_eq!(five.hint(other, owner), None);
    assert_eq!(texts(&five.holds(owner, SIBLINGS)), ["v1", "v2"]);
    let (hint_keys, hint_bytes) = {
        let metrics = &five.engines[other].shard.metrics;
        (metrics.hint_keys.get(), metrics.hint_bytes.get())
    };
    assert_eq!((hint_keys, hint_bytes), (0, 0));
}

/// The way out of a full disk is open, also in a turn whose writes are refused.
#[test]
fn hints_drain_from_a_full_disk() {
    drain_a_full_disk(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_refused_removal_forgotten_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::RefusedRemovalForgotten, drain_a_full_disk);
}

fn drain_a_full_disk(planted: Planted) {
    let mut five = Five::with_planted(planted);
    let (owner, other) = (five.owners[1], five.others[0]);
    five.write(other, "v1", Some(owner), &[]);
    five.settle();
    five.engines[other].store_mut().set_full(true);
    five.start_delivery();
    five.deliver_all();
    five.sync(owner);
    let (_, _, ack) = five.wire.pop_back().expect("the acknowledgement");
    let (now, from) = (five.now, five.id(owner));
    five.engines[other].handle_peer(now, from, ack);
    let elsewhere = five.owners[2];
    assert_eq!(five.write(other, "v2", Some(elsewhere), &[]), [Said::Reply(Reply::Refused(Refusal::StorageFull))]);
    assert_eq!(five.hint(other, owner), None, "delivered, and gone");
    five.engines[other].store_mut().set_full(false);
    five.write(other, "v2", Some(owner), &[]);
    assert_eq!(five.copy(other, owner).vv().len(), 1, "stamped by a new actor");
    assert_eq!(texts(&five.copy(other, owner)), ["v2"]);
}

/// Neither the hint nor its actor's counter is lost with a batch that was refused whole.
#[test]
fn a_removal_that_was_refused_is_done_later() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.write(other, "v1", Some(owner), &[]);
    five.settle();
    five.start_delivery();
    five.deliver_all();
    five.sync(owner);
    five.engines[other].store_mut().set_full(true);
    five.engines[other].store_mut().fail_next_apply_full();
    let (now, from) = (five.now, five.id(owner));
    let (_, _, ack) = five.wire.pop_back().expect("the acknowledgement");
    five.engines[other].handle_peer(now, from, ack);
    five.turn(other);
    five.deliver_hints();
    assert_eq!(five.hint(other, owner), None);
}

/// The node that it was held for would refuse it for ever, and the owners would not have it.
#[test]
fn what_is_held_for_a_node_that_owns_the_key_no_more_goes_to_those_that_do() {
    let stranger = NodeId(77);
    for to_an_owner in [false, true] {
        let mut five = Five::new();
        let holder = if to_an_owner { five.owners[0] } else { five.others[0] };
        let held = state("v1", 1, 1);
        let value = record::encode(SIBLINGS, &key(), &held.header(), &held);
        let former = five.id(five.others[1]);
        let changes =
            [stranger, former].map(|target| (HintKey::new(target, &five.record()).to_bytes(), Some(value.clone())));
        let mut store = MemoryStore::new();
        store.apply(crate::replica::store::Batch { changes: changes.into() }).expect("applies");
        five.restart(holder, 62, store);
        let away = five.owners[1];
        five.cut_off(away);
        five.deliver_hints();
        for target in [stranger, former] {
            let hint = HintKey::new(target, &five.record());
            assert_eq!(five.engines[holder].store().get(hint.as_bytes()), Ok(None));
        }
        assert_eq!(five.holds(five.owners[2], SIBLINGS), held);
        let kept = five.hint(holder, five.owners[1]);
        assert_eq!(kept, Some((!to_an_owner).then(|| held.clone())), "for the one that is away");
        assert_eq!(five.holds(holder, SIBLINGS), if to_an_owner { held.clone() } else { Siblings::new() });
        (0..5).for_each(|i| five.connect(i));
        five.deliver_hints();
        assert!(five.owners.iter().all(|owner| five.holds(*owner, SIBLINGS) == held));
        assert_eq!(five.engines[holder].shard.metrics.hint_keys.get(), 0);
    }
}

#[test]
fn an_owner_reads_and_stamps_over_what_an_older_ring_has_left_with_it() {
    let mut five = Five::new();
    let (one, two) = (five.owners[0], five.owners[1]);
    let held = state("v1", 1, 1);
    let value = record::encode(SIBLINGS, &key(), &held.header(), &held);
    let mut store = MemoryStore::new();
    let hint = HintKey::new(five.id(two), &five.record()).to_bytes();
    store.apply(crate::replica::store::Batch { changes: vec![(hint, Some(value))] }).expect("applies");
    five.restart(one, 63, store);
    five.pass(Duration::from_millis(5));
    five.tell(
        two,
        one,
        4,
        Request::Replica(ReplicaRequest::Read(Look {
            bucket: SIBLINGS,
            key: key(),
            want: Want::Full,
            durable: false,
            counted_for: None,
        })),
    );
    assert_eq!(five.answer(), Some(Reply::State(State::Full(held))));
    five.write(one, "v2", None, &[]);
    assert_eq!(texts(&five.holds(one, SIBLINGS)), ["v1", "v2"]);
}

#[test]
fn a_marker_without_a_record_is_dropped() {
    let mut five = Five::new();
    let (one, two) = (five.owners[0], five.owners[1]);
    let add = LocalRequest::AddHint(AddHint { bucket: SIBLINGS, key: key(), target: five.id(two) });
    five.tell_self(one, add);
    assert_eq!(five.hint(one, two), Some(None));
    five.deliver_hints();
    assert_eq!(five.hint(one, two), None);
    assert!(five.holds(two, SIBLINGS).is_empty());
}

#[test]
fn merges_beyond_the_bound_are_refused_before_they_are_applied_and_repairs_sooner() {
    let mut five = Five::with_limits(Limits { replica_waiting_max: 2, ..Limits::default() });
    let (one, two) = (five.owners[0], five.owners[1]);
    let merge = |value, actor, purpose| {
        let siblings = state(value, actor, 1);
        Request::Replica(ReplicaRequest::Merge(Merge {
            bucket: SIBLINGS,
            key: key(),
            siblings,
            hint_for: None,
            purpose,
        }))
    };
    five.tell(two, one, 4, merge("v1", 1, Purpose::Write));
    five.tell(two, one, 8, merge("v2", 2, Purpose::Handoff));
    let overloaded = Reply::Refused(Refusal::Overloaded { retry_after_ms: 50 });
    assert_eq!(five.answer(), Some(overloaded.clone()));
    five.tell(two, one, 12, merge("v3", 3, Purpose::Write));
    five.tell(two, one, 16, merge("v4", 4, Purpose::Write));
    assert_eq!(five.answer(), Some(overloaded));
    assert_eq!(texts(&five.holds(one, SIBLINGS)), ["v1", "v3"]);
}

#[test]
fn what_is_held_for_whom_is_published() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.cut_off(owner);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.pass(Duration::from_secs(1));
    let target = five.id(owner);
    let figures = five.held_for(other, target);
    assert_eq!((figures.keys, figures.delivered), (1, 0));
    assert!(figures.bytes > 0 && figures.since.is_some());
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    let figures = five.held_for(other, target);
    assert_eq!((figures.keys, figures.bytes, figures.since, figures.delivered), (0, 0, None, 1));
}

impl Five {
    /// Flips a bit of what a node holds for another, behind its back.
    fn rot_hint(&mut self, i: usize, target: usize, at: usize) {
        let hint = HintKey::new(self.id(target), &self.record());
        let is_damaged = self.engines[i].store_mut().damage(hint.as_bytes(), |bytes| {
            let mut other = bytes.to_vec();
            let at = at.min(other.len() - 1);
            other[at] ^= 1;
            other.into()
        });
        assert!(is_damaged, "it is there, and synced");
    }

    fn counted(&self, i: usize) -> (i64, i64, i64, u64) {
        let metrics = &self.engines[i].shard.metrics;
        (metrics.hint_keys.get(), metrics.hint_bytes.get(), metrics.hints_uncounted.get(), metrics.hints_damaged.get())
    }
}

/// It stopped the process once, at every start.
#[test]
fn a_damaged_hint_is_given_up_and_not_delivered() {
    // In the format, in the header, in the value.
    for at in [0, 40, usize::MAX] {
        let mut five = Five::new();
        let (owner, other) = (five.owners[1], five.others[0]);
        five.cut_off(owner);
        five.merge(other, state("v1", 1, 1), Some(owner));
        five.sync(other);
        five.rot_hint(other, owner, at);
        let store = five.engines[other].store().clone();
        five.restart(other, 61, store);
        (0..5).for_each(|i| five.connect(i));
        five.deliver_hints();
        assert_eq!(five.halts, Vec::<String>::new());
        assert_eq!(five.hint(other, owner), None);
        assert_eq!(five.holds(owner, SIBLINGS), Siblings::new());
        assert_eq!(five.counted(other), (0, 0, 0, 1));
    }
}

/// A hint that is gone takes what it knew with it.
#[test]
fn the_actor_that_a_damaged_hint_may_have_known_does_not_stamp_any_more() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.cut_off(owner);
    five.write(other, "v1", Some(owner), &[]);
    five.sync(other);
    let before = five.copy(other, owner).live()[0].0.actor;
    five.rot_hint(other, owner, 30);
    let said = five.write(other, "v2", Some(owner), &[]);
    assert!(matches!(said[..], [Said::Made(Made::Stamped(_)), ..]), "{said:?}");
    let copy = five.copy(other, owner);
    assert_eq!(texts(&copy), ["v2"]);
    assert_eq!(copy.vv().len(), 1);
    assert_ne!(copy.live()[0].0.actor, before);
}

/// What it says is in its key: the record is the copy.
#[test]
fn a_damaged_marker_is_still_a_marker() {
    let mut five = Five::new();
    let (owner, away) = (five.owners[0], five.owners[1]);
    five.cut_off(away);
    five.write(owner, "v1", None, &[away]);
    five.sync(owner);
    five.rot_hint(owner, away, 0);
    // The write is in the batch already when the marker is met: this is no reason to refuse it.
    let said = five.write(owner, "v2", None, &[away]);
    assert!(matches!(said[..], [Said::Made(Made::Stamped(_)), ..]), "{said:?}");
    five.sync(owner);
    (0..5).for_each(|i| five.connect(i));
    five.deliver_hints();
    assert_eq!(texts(&five.holds(away, SIBLINGS)), ["v1", "v2"]);
    assert_eq!(five.hint(owner, away), None);
    assert_eq!(five.counted(owner), (0, 0, 0, 0));
}

/// Neither the one nor the other can be written then, and nobody goes round in circles.
#[test]
fn a_damaged_hint_met_by_a_read_on_a_full_disk_is_refused() {
    let mut five = Five::new();
    let (owner, other) = (five.owners[1], five.others[0]);
    five.cut_off(owner);
    five.merge(other, state("v1", 1, 1), Some(owner));
    five.sync(other);
    five.rot_hint(other, owner, 40);
    five.engines[other].store_mut().fail_next_apply_full();
    let look = Look { bucket: SIBLINGS, key: key(), want: Want::Full, durable: false, counted_for: None };
    let from = five.owners[0];
    five.tell(from, other, 4, Request::Replica(ReplicaRequest::Read(look)));
    assert_eq!(five.answer(), Some(Reply::Refused(Refusal::Damaged)));
    five.turn(other);
    assert_eq!(five.hint(other, owner), None, "the next time there was room to remove it");
}
