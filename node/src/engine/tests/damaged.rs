//! A damaged record: not served, not counted, not stamped upon, and restored from the other replicas. A damaged hint: given
//! up, with the actor that it may have known.

use driftless_proto::{ActorId, Dot};

use super::*;
use crate::peer::Purpose;
use crate::replica::local::{AddHint, LocalRequest, Loss, Restore};
use crate::replica::record::RecordError;

impl Trio {
    fn record(&self, bucket: BucketId) -> RecordKey {
        let definition = self.topology.bucket(bucket).expect("exists");
        let place = self.topology.place(definition, &key());
        RecordKey::new(place.partition.n, place.token, bucket, &key())
    }

    /// Flips a bit of the key's record, `from_end` bytes before its end, behind the node's back, and starts it again.
    pub(super) fn damage(&mut self, i: usize, bucket: BucketId, from_end: usize) {
        self.rot(i, bucket, from_end);
        let store = self.engines[i].store().clone();
        self.restart(i, 77, store);
        self.settle();
    }

    /// The same while the node runs.
    fn rot(&mut self, i: usize, bucket: BucketId, from_end: usize) {
        let record = self.record(bucket);
        let is_damaged = self.engines[i].store_mut().damage(record.as_bytes(), |bytes| flipped(bytes, from_end));
        assert!(is_damaged, "it is there, and synced");
    }

    /// Writes so that one replica is enough.
    fn put_alone(&mut self, i: usize, value: &'static str) {
        let Ask::Put(mut alone) = put(SIBLINGS, value, None) else { unreachable!() };
        alone.w = Some(1);
        self.put_and_settle(i, Ask::Put(alone));
    }

    fn bytes_of(&self, i: usize, bucket: BucketId) -> Option<Bytes> {
        self.engines[i].store().get(self.record(bucket).as_bytes()).expect("readable")
    }
}

#[test]
fn a_damaged_record_is_restored_from_the_others_and_not_served_meanwhile() {
    for from_end in [1, 12] {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(SIBLINGS, "precious", None));
        trio.damage(0, SIBLINGS, from_end);
        let request = trio.ask(0, get(SIBLINGS, Some(3)));
        trio.settle();
        let refusal = Refusal::NotEnoughReplicas { needed: 3, available: 2 };
        assert_eq!(trio.failure(request), Failure::Refused(refusal), "it fills no slot");
        assert_eq!(trio.holds(0, SIBLINGS), trio.holds(1, SIBLINGS), "and has asked the others at once");
        assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["precious"]);
        let metrics = &trio.engines[0].shard.metrics;
        assert_eq!((metrics.records_damaged.get(), metrics.records_restored.get()), (1, 1));
        assert_eq!(trio.halts, Vec::<String>::new());
    }
}

#[test]
fn while_the_others_are_away_it_serves_nothing_of_the_key_and_asks_again() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.damage(0, SIBLINGS, 1);
    trio.cut_off(0);
    let request = trio.ask(0, put(SIBLINGS, "v", None));
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })));
    let Ask::Get(mut one) = get(SIBLINGS, Some(1)) else { unreachable!() };
    one.explain = false;
    let request = trio.ask(0, Ask::Get(one));
    trio.settle();
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })));
    let damaged = trio.bytes_of(0, SIBLINGS);
    let Ask::Put(mut alone) = put(SIBLINGS, "v", None) else { unreachable!() };
    alone.w = Some(1);
    trio.put_and_settle(0, Ask::Put(alone));
    assert_eq!(trio.bytes_of(0, SIBLINGS), damaged, "what is written is kept beside the record");
    let request = trio.ask(0, get(SIBLINGS, Some(1)));
    trio.settle();
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })), "no read sees it");
    trio.pass(Duration::from_secs(1));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 0);
    trio.connect(0);
    trio.pass(Duration::from_millis(1));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1, "as soon as there is somebody to ask");
    let mut read = trio.read(0, SIBLINGS, 3);
    read.siblings.sort_unstable_by(|a, b| a.value.cmp(&b.value));
    assert_eq!(values(&read), ["precious", "v"]);
}

#[test]
fn if_the_others_do_not_answer_they_are_asked_again() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.damage(0, SIBLINGS, 1);
    trio.pass(Duration::from_millis(1));
    assert_eq!(trio.wire.len(), 2, "both others are asked, since each might be the one that knows");
    trio.wire.clear();
    trio.pass(Duration::from_secs(4));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 0);
    trio.pass(Duration::from_secs(2));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1);
}

/// The others are asked twice for the same damage, as when one of them comes back. The second answers restore the record; the
/// first arrive when it has been written anew, and is damaged again.
#[test]
fn what_was_said_before_it_was_damaged_again_does_not_restore_it() {
    damage_it_again(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn restoring_not_ended_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::RestoringNotEnded, damage_it_again);
}

fn damage_it_again(planted: Planted) {
    let mut trio = Trio::with_planted(3, planted);
    trio.put_and_settle(0, put(SIBLINGS, "old", None));
    trio.damage(0, SIBLINGS, 1);
    trio.pass(Duration::from_millis(1));
    (0..2).for_each(|_| trio.deliver());
    let first: Vec<_> = trio.wire.drain(..).collect();
    assert_eq!(first.len(), 2, "both have answered");
    let back = trio.id(1);
    trio.engines[0].handle_liveness(trio.now, back, Liveness::Down);
    trio.engines[0].handle_liveness(trio.now, back, Liveness::Alive);
    trio.pass(Duration::from_millis(1));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1);
    trio.put_and_settle(0, put(SIBLINGS, "new", None));
    let acknowledged = trio.holds(0, SIBLINGS);

    trio.rot(0, SIBLINGS, 1);
    trio.ask(0, get(SIBLINGS, Some(3)));
    // What is asked now is lost on the way.
    trio.wire = first.into();
    trio.settle();
    for _ in 0..2 {
        trio.pass(Duration::from_secs(6));
        trio.settle();
    }
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 2);
    assert_eq!(trio.holds(0, SIBLINGS), acknowledged);
}

/// Asked twice, as when one of them comes back, the others answer both times, and all of it arrives within one turn. A write with w = 1 is
/// in the copy beside the record and nowhere else.
#[test]
fn two_answers_in_one_turn_take_in_once_what_was_kept_beside() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "old", None));
    trio.damage(0, SIBLINGS, 1);
    trio.pass(Duration::from_millis(1));
    let back = trio.id(1);
    trio.engines[0].handle_liveness(trio.now, back, Liveness::Down);
    trio.engines[0].handle_liveness(trio.now, back, Liveness::Alive);
    trio.pass(Duration::from_millis(1));
    let asked: Vec<_> = trio.wire.iter().map(|(_, to, message)| (*to, message.clone())).collect();
    assert_eq!(asked.len(), 4, "both, twice");
    (0..4).for_each(|_| trio.deliver());
    let answers: Vec<_> = trio.wire.drain(..).collect();
    assert_eq!(answers.len(), 4);
    let Ask::Put(mut alone) = put(SIBLINGS, "beside", None) else { unreachable!() };
    alone.w = Some(1);
    let request = trio.ask(0, Ask::Put(alone));
    trio.wire.clear();
    trio.sync(0);
    assert_eq!(trio.stored(request).acks, 1);
    for (from, _, message) in answers {
        trio.engines[0].handle_peer(trio.now, from, message);
    }
    trio.turn(0);
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1);
    let held = trio.holds(0, SIBLINGS);
    let texts: Vec<_> = held.values().filter_map(|version| version.value.clone()).collect();
    assert_eq!(texts.len(), 2, "what was acknowledged is there: {held:?}");
}

#[test]
fn a_start_finds_what_is_damaged_with_nobody_reading_it() {
    // In the value, and in the header.
    for from_end in [1, 12] {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(SIBLINGS, "precious", None));
        trio.damage(0, SIBLINGS, from_end);
        assert_ne!(trio.bytes_of(0, SIBLINGS), trio.bytes_of(1, SIBLINGS));
        trio.pass(Duration::from_millis(1));
        trio.settle();
        assert_eq!(trio.bytes_of(0, SIBLINGS), trio.bytes_of(1, SIBLINGS));
        let metrics = &trio.engines[0].shard.metrics;
        assert_eq!((metrics.records_damaged.get(), metrics.records_restored.get()), (1, 1));
    }
}

#[test]
fn the_scrub_finds_what_is_damaged_while_the_node_runs() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.pass(Duration::from_secs(1));
    trio.settle();
    trio.rot(0, SIBLINGS, 1);
    // One leaf of 64 of one partition of eight each time: all of them, with certainty for this seed.
    for _ in 0..5_000 {
        trio.pass(Duration::from_millis(100));
        trio.settle();
    }
    let metrics = &trio.engines[0].shard.metrics;
    assert_eq!((metrics.records_damaged.get(), metrics.records_restored.get(), metrics.aae_drift.get()), (1, 1, 0));
    assert_eq!(trio.bytes_of(0, SIBLINGS), trio.bytes_of(1, SIBLINGS));
}

#[test]
fn a_damaged_record_keeps_no_tree_from_being_built_and_is_counted_once() {
    count_what_is_damaged(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_tree_kept_with_damage_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::TreeKeptWithDamage, count_what_is_damaged);
}

fn count_what_is_damaged(planted: Planted) {
    let mut trio = Trio::with_planted(3, planted);
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.pass(Duration::from_secs(1));
    trio.settle();
    let counted = |trio: &Trio| {
        let metrics = &trio.engines[0].shard.metrics;
        (metrics.keys.get(), metrics.value_bytes.get(), metrics.partitions_uncounted.get())
    };
    assert_eq!(counted(&trio), (1, 8, 0));
    trio.damage(0, SIBLINGS, 1);
    trio.cut_off(0);
    for _ in 0..20 {
        trio.pass(Duration::from_millis(10));
    }
    assert!(trio.engines[0].trees().all(|(_, held)| matches!(held, Held::Tree(_))), "as if the record were not there");
    assert_eq!(counted(&trio), (0, 0, 0));
    trio.connect(0);
    for _ in 0..20 {
        trio.pass(Duration::from_millis(10));
        trio.settle();
    }
    assert_eq!(counted(&trio), (1, 8, 0));
    for (partition, held) in trio.engines[0].trees() {
        let Held::Tree(tree) = held else { panic!("{held:?}") };
        assert_eq!(*tree, trio.recomputed(0, partition, tree), "{partition}");
    }
    // Noticed in service, when it has been counted already.
    trio.pass(Duration::from_secs(1));
    trio.settle();
    trio.rot(0, SIBLINGS, 1);
    let record = trio.record(SIBLINGS).to_bytes();
    trio.cut_off(0);
    let engine = &mut trio.engines[0];
    engine.replica.fail(&engine.shard, RecordError::Damaged { record, reason: "a bit flipped".to_owned() });
    for _ in 0..20 {
        trio.pass(Duration::from_millis(10));
    }
    assert_eq!(counted(&trio), (0, 0, 0));
    trio.connect(0);
    for _ in 0..20 {
        trio.pass(Duration::from_millis(10));
        trio.settle();
    }
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 2);
    assert_eq!(counted(&trio), (1, 8, 0));
}

#[test]
fn a_page_of_a_scan_does_not_show_what_is_damaged() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    // The time of the write: no digest covers it.
    trio.damage(0, SIBLINGS, 12);
    let arc = trio.topology.place(trio.topology.bucket(SIBLINGS).expect("exists"), &key()).partition.arc;
    trio.tell(
        1,
        0,
        4,
        Request::Replica(ReplicaRequest::Scan(crate::peer::Scan {
            bucket: SIBLINGS,
            arc,
            after: None,
            limit: 10,
            counted_for: 1,
        })),
    );
    let said = trio.wire.iter().find_map(|(from, _, message)| match &message.body {
        Body::Reply(reply) if *from == trio.id(0) => Some(reply.clone()),
        _ => None,
    });
    assert_eq!(said, Some(Reply::Refused(Refusal::Damaged)));
}

/// Two of three owners are damaged: neither can be restored, and every write was refused by both, also a write that replaces all
/// that the third owner holds.
#[test]
fn with_two_of_three_damaged_a_key_can_be_written_and_restored_by_who_accepts_the_loss() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    (0..2).for_each(|i| trio.damage(i, SIBLINGS, 1));
    for _ in 0..3 {
        trio.pass(Duration::from_secs(6));
        trio.settle();
    }
    let damaged_now = |trio: &Trio| [0, 1].map(|i| trio.engines[i].shard.metrics.records_damaged_now.get());
    assert_eq!(damaged_now(&trio), [1, 1], "too few are sound to restore them");
    let listed = trio.engines[0].damaged_keys(10);
    assert_eq!((listed.keys[0].bucket, &listed.keys[0].key, listed.count), (SIBLINGS, &key(), 1));

    let seen = trio.read(2, SIBLINGS, 1);
    assert_eq!(values(&seen), ["precious"]);
    let stored = trio.put_and_settle(2, put(SIBLINGS, "new", seen.context));
    assert!(stored.acks >= 2);
    // Through a node whose own record is damaged, too.
    let stored = trio.put_and_settle(0, put(SIBLINGS, "newer", stored.context));
    assert!(stored.acks >= 2);
    let request = trio.ask(2, get(SIBLINGS, Some(2)));
    trio.settle();
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })), "no read sees it");
    // Not forgotten by a process that dies.
    let store = trio.engines[1].store().clone();
    trio.restart(1, 78, store);
    trio.settle();
    trio.pass(Duration::from_millis(10));
    trio.settle();

    let request = trio.ask(0, restore(SIBLINGS, false));
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::BadRequest(_))));
    let request = trio.ask(0, restore(SIBLINGS, true));
    trio.settle();
    let restored = driftless_proto::client::Restored { was_damaged: true, answered: 1 };
    assert_eq!(trio.reply(request), Some(&Response::Restored(restored)));
    assert_eq!(trio.engines[0].shard.metrics.losses_accepted.get(), 1);
    // Now two owners are sound, and the third is restored by itself.
    for _ in 0..10 {
        trio.pass(Duration::from_secs(1));
        trio.settle();
    }
    assert_eq!(damaged_now(&trio)[0], 0);
    assert_eq!(trio.engines[1].damaged().count(), 0);
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["newer"]);
    assert_eq!(trio.bytes_of(0, SIBLINGS), trio.bytes_of(2, SIBLINGS));
    assert_eq!(trio.bytes_of(1, SIBLINGS), trio.bytes_of(2, SIBLINGS));
    for i in 0..3 {
        let held: u64 = trio.engines[i].replica.hint_counts().map(|(_, count)| count.keys()).sum();
        assert_eq!(held, 0, "nothing is kept beside a record any more");
    }
    assert_eq!(trio.halts, Vec::<String>::new());
}

/// Found by the simulator (seed 21109 of its day). What is kept beside a damaged record moves into it when it is restored; what
/// came after that in the same turn took its place, and the first acknowledgement seemed to be of nothing.
#[test]
fn what_is_kept_before_and_after_a_restoration_in_one_turn_is_acknowledged() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.damage(0, SIBLINGS, 1);
    trio.cut_off(0);
    trio.ask(0, get(SIBLINGS, Some(1)));
    trio.settle();
    assert_eq!(trio.engines[0].damaged().count(), 1);
    let held = trio.engines[1].store().get(trio.record(SIBLINGS).as_bytes()).expect("readable").expect("stored");
    let precious = record::decode(held).expect("well formed");
    let state = |actor: u64| {
        let mut siblings = Siblings::new();
        let value = Some(Bytes::from(actor.to_string()));
        let version = Version { value, write_id: WriteId(actor.into()), written_at: Hlc(9) };
        siblings.event(&VersionVector::new(), Dot::new(ActorId(actor), 1), version);
        siblings
    };
    let (from, now) = (trio.id(1), trio.now);
    let engine = &mut trio.engines[0];
    let merge = |actor| {
        let (siblings, purpose) = (state(actor), Purpose::Handoff);
        ReplicaRequest::Merge(Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose })
    };
    engine.replica.handle_request(&engine.shard, from, RequestId(4), merge(71));
    let restore = Restore { bucket: SIBLINGS, key: key(), siblings: precious, loss: Loss::Excluded };
    engine.replica.handle_local(&engine.shard, now, RequestId(8), LocalRequest::Restore(restore));
    engine.replica.handle_request(&engine.shard, from, RequestId(12), merge(72));
    engine.replica.commit(&engine.shard, now);
    let mut answers = Vec::new();
    while let Some(output) = engine.replica.poll_output() {
        match output {
            crate::replica::Output::Sync(batch) => engine.replica.handle_synced(batch),
            crate::replica::Output::Reply { id, reply, .. } => answers.push((id.0, reply)),
            _ => {}
        }
    }
    assert_eq!(answers, [(4, Reply::Acked), (12, Reply::Acked)]);
    assert_eq!(engine.shard.metrics.acks_unproven.get(), 0);
}

/// Found by the simulator (seed 2861 of its day). What was left of the copy passed for a marker: the next write was acknowledged as
/// delivered together with the record, and kept nowhere.
#[test]
fn a_damaged_copy_beside_a_damaged_record_is_given_up_and_the_next_write_is_kept() {
    for left in [0, 1, 2, 9] {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(SIBLINGS, "precious", None));
        trio.damage(0, SIBLINGS, 1);
        trio.cut_off(0);
        trio.ask(0, get(SIBLINGS, Some(1)));
        trio.settle();
        trio.put_alone(0, "first");
        let beside = crate::replica::record::HintKey::new(trio.id(0), &trio.record(SIBLINGS));
        let is_damaged = trio.engines[0].store_mut().damage(beside.as_bytes(), |bytes| bytes.slice(..left));
        assert!(is_damaged, "it is there, and synced");
        trio.put_alone(0, "second");
        let kept = trio.engines[0].store().get(beside.as_bytes()).expect("readable").expect("kept");
        let kept = record::decode(kept).expect("well formed");
        assert!(kept.values().any(|version| version.value.as_deref() == Some(b"second")), "{left}: {kept:?}");
        assert_eq!(trio.engines[0].shard.metrics.hints_damaged.get(), 1);
    }
}

/// Found by the simulator (seed 401706 of its day). A write is acknowledged by what is kept beside a damaged record and by one other node, after
/// the others were asked for the record; then the copy beside is damaged as well. Their answers know nothing of that write: a record
/// made of them would take part in strict reads without it.
#[test]
fn what_was_answered_before_the_copy_beside_was_lost_does_not_restore_the_record() {
    for noticed_before in [false, true] {
        lose_the_copy_beside(noticed_before, Planted::default());
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_record_that_is_restored_from_too_old_answers_is_noticed() {
    for noticed_before in [false, true] {
        crate::planted::assert_noticed(crate::planted::Bug::RestoredFromTooOld, |planted| {
            lose_the_copy_beside(noticed_before, planted);
        });
    }
}

fn lose_the_copy_beside(noticed_before: bool, planted: Planted) {
    let mut trio = Trio::with_planted(3, planted);
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.damage(0, SIBLINGS, 1);
    trio.pass(Duration::from_millis(1));
    (0..2).for_each(|_| trio.deliver());
    let answers: Vec<_> = trio.wire.drain(..).collect();
    assert_eq!(answers.len(), 2, "both have answered");
    let request = trio.ask(0, put(SIBLINGS, "acknowledged", None));
    let missed = trio.id(1);
    trio.wire.retain(|(_, to, _)| *to != missed);
    trio.settle();
    assert_eq!(trio.stored(request).acks, 2);
    let beside = crate::replica::record::HintKey::new(trio.id(0), &trio.record(SIBLINGS));
    let is_damaged = trio.engines[0].store_mut().damage(beside.as_bytes(), |bytes| flipped(bytes, 1));
    assert!(is_damaged, "it is there, and synced");
    if noticed_before {
        let request = trio.hand_in(0, put(SIBLINGS, "later", None));
        trio.engines[0].commit(trio.now);
        assert_eq!(trio.reply(request), None);
    }
    for (from, _, message) in answers {
        trio.engines[0].handle_peer(trio.now, from, message);
    }
    trio.turn(0);
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 0, "these are too old");
    trio.settle();
    trio.pass(Duration::from_millis(1));
    trio.settle();
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1);
    let held = trio.holds(0, SIBLINGS);
    let texts: Vec<_> = held.values().filter_map(|version| version.value.as_deref()).collect();
    assert!(texts.contains(&&b"acknowledged"[..]) && texts.contains(&&b"precious"[..]), "{texts:?}");
}

/// The only copy there is. It was refused for ever, also for overwriting.
#[test]
fn the_only_copy_of_a_key_can_be_written_beside_and_given_up() {
    const SINGLE: BucketId = BucketId(4);
    let single = Some(bucket(SINGLE.0, "single", 1));
    let mut trio = Trio::built(3, Limits::default(), single, Planted::default());
    let place = trio.topology.place(trio.topology.bucket(SINGLE).expect("exists"), &key());
    let owner = trio.index(trio.topology.ring().owners(place.partition)[0]);
    trio.put_and_settle(owner, put(SINGLE, "precious", None));
    trio.damage(owner, SINGLE, 1);
    trio.pass(Duration::from_millis(10));
    trio.settle();
    trio.put_and_settle(owner, put(SINGLE, "new", None));
    let request = trio.ask(owner, get(SINGLE, None));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Failed(_))), "what it held is not given up yet");
    let request = trio.ask(owner, restore(SINGLE, true));
    trio.settle();
    let restored = driftless_proto::client::Restored { was_damaged: true, answered: 0 };
    assert_eq!(trio.reply(request), Some(&Response::Restored(restored)));
    assert_eq!(values(&trio.read(owner, SINGLE, 1)), ["new"]);
    assert_eq!(trio.engines[owner].shard.metrics.records_damaged_now.get(), 0);
}

#[test]
fn a_sound_record_is_not_given_up() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    let request = trio.ask(0, restore(SIBLINGS, true));
    trio.settle();
    let restored = driftless_proto::client::Restored { was_damaged: false, answered: 0 };
    assert_eq!(trio.reply(request), Some(&Response::Restored(restored)));
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["precious"]);
    // Damage that nobody has met yet is met then; with all others sound nothing is lost.
    trio.damage(0, SIBLINGS, 1);
    let request = trio.ask(0, restore(SIBLINGS, true));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Restored(restored)) if restored.was_damaged));
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["precious"]);
}

#[test]
fn what_nobody_else_holds_is_removed_and_leaves_no_empty_record() {
    let mut trio = Trio::new();
    // Only its own coordinator's replica has it: it was never sent.
    trio.cut_off(0);
    let Ask::Put(mut alone) = put(SIBLINGS, "alone", None) else { unreachable!() };
    alone.w = Some(1);
    trio.ask(0, Ask::Put(alone));
    trio.sync(0);
    trio.damage(0, SIBLINGS, 1);
    trio.pass(Duration::from_millis(1));
    trio.settle();
    assert_eq!(trio.bytes_of(0, SIBLINGS), None);
    assert_eq!(trio.bytes_of(1, SIBLINGS), None);
}

#[test]
fn a_marker_for_a_damaged_record_is_delivered_once_it_is_restored() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    let add = AddHint { bucket: SIBLINGS, key: key(), target: trio.id(2) };
    let engine = &mut trio.engines[0];
    engine.replica.handle_local(&engine.shard, trio.now, RequestId(4), LocalRequest::AddHint(add));
    trio.turn(0);
    trio.damage(0, SIBLINGS, 1);
    assert_eq!(trio.engines[0].replica.hint_counts().count(), 1);
    for _ in 0..20 {
        trio.pass(Duration::from_millis(500));
        trio.settle();
    }
    assert_eq!(trio.engines[0].shard.metrics.records_restored.get(), 1);
    assert_eq!(trio.engines[0].shard.metrics.hints_delivered.get(), 1);
    assert_eq!(trio.engines[0].replica.hint_counts().map(|(_, count)| count.keys()).sum::<u64>(), 0);
}

/// Found by the simulator (seed 126502 of its day): the damaged value was met by the walk in the turn that replaced it, and the marker stayed for as
/// long as nothing else was held for its target.
#[test]
fn a_marker_for_what_takes_the_place_of_damage_in_the_same_turn_is_delivered() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "old", None));
    let target = trio.id(2);
    let add = AddHint { bucket: SIBLINGS, key: key(), target };
    let engine = &mut trio.engines[0];
    engine.replica.handle_local(&engine.shard, trio.now, RequestId(4), LocalRequest::AddHint(add));
    trio.turn(0);
    trio.rot(0, SIBLINGS, 1);
    let mut siblings = trio.holds(1, SIBLINGS);
    let version = Version { value: Some(Bytes::from_static(b"new")), write_id: WriteId(9), written_at: Hlc(9) };
    siblings.event(&siblings.vv().clone(), Dot::new(ActorId(71), 1), version);
    let merge = Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose: Purpose::Handoff };
    let from = trio.id(1);
    let engine = &mut trio.engines[0];
    engine.replica.handle_request(&engine.shard, from, RequestId(8), ReplicaRequest::Merge(merge));
    let page = engine.replica.hints_for(&engine.shard, target, None).expect("what is damaged stops no page");
    assert!(page.hints.is_empty(), "{page:?}");
    let mut told = std::iter::from_fn(|| engine.replica.poll_output());
    let is_told = told.any(|output| matches!(output, crate::replica::Output::NewHint(id) if id == target));
    assert!(is_told, "the next walk finds it sound");
}

#[test]
fn the_actor_of_the_partition_is_a_new_one_afterwards() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.damage(0, SIBLINGS, 1);
    let other = key_of_the_same_partition(&trio);
    let actor_of = |trio: &mut Trio, value: &'static str| {
        let Ask::Put(mut ask) = put(SIBLINGS, value, None) else { unreachable!() };
        ask.key = other.clone();
        trio.put_and_settle(0, Ask::Put(ask));
        let definition = trio.topology.bucket(SIBLINGS).expect("exists");
        let place = trio.topology.place(definition, &other);
        let record = RecordKey::new(place.partition.n, place.token, SIBLINGS, &other);
        let value = trio.engines[0].store().get(record.as_bytes()).expect("readable").expect("is there");
        record::decode(value).expect("well formed").live().last().expect("one").0.actor
    };
    let before = actor_of(&mut trio, "a");
    trio.ask(0, get(SIBLINGS, Some(2)));
    trio.settle();
    let live: Vec<_> = [actor_of(&mut trio, "b"), before].into();
    assert_ne!(live[0], live[1]);
}

fn restore(bucket: BucketId, accept_loss: bool) -> Ask {
    Ask::Restore(driftless_proto::client::Restore { bucket, key: key(), accept_loss })
}

fn flipped(bytes: &Bytes, from_end: usize) -> Bytes {
    let mut other = bytes.to_vec();
    let at = other.len() - from_end;
    other[at] ^= 1;
    other.into()
}

/// A key that shares its partition, and so its actor, with the usual one.
fn key_of_the_same_partition(trio: &Trio) -> Key {
    let definition = trio.topology.bucket(SIBLINGS).expect("exists");
    let partition = trio.topology.place(definition, &key()).partition;
    let keys = (0..).map(|i| Key::new(format!("other-{i}")).expect("valid"));
    keys.into_iter().find(|key| trio.topology.place(definition, key).partition == partition).expect("one of many")
}
