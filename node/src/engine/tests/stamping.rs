//! Dots, actors and write ids.

use super::*;
use crate::peer::Purpose;

/// A store may be an older copy of itself, however cleanly it was stopped: an actor that went on would name two writes alike.
#[test]
fn every_start_draws_new_actors() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let before = trio.holds(0, SIBLINGS).live()[0].0.actor;
    let store = trio.engines[0].store().clone();
    trio.restart(0, 51, store);
    trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    let after: Vec<_> = trio.holds(0, SIBLINGS).live().iter().map(|(dot, _)| dot.actor).collect();
    assert_eq!(after.len(), 2);
    assert!(after.contains(&before) && after.iter().any(|actor| *actor != before));
}

#[test]
fn an_actor_counts_the_writes_of_its_partition_without_gaps() {
    let mut trio = Trio::new();
    for value in ["v1", "v2", "v3"] {
        trio.put_and_settle(0, put(SIBLINGS, value, None));
    }
    let counters: Vec<u64> = trio.holds(0, SIBLINGS).live().iter().map(|(dot, _)| dot.counter).collect();
    assert_eq!(counters, [1, 2, 3]);
}

#[test]
fn an_actor_of_which_others_know_more_is_retired_and_its_puts_are_not_acknowledged() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let actor = trio.holds(0, SIBLINGS).live()[0].0.actor;
    let applied = trio.ask(0, put(SIBLINGS, "v2", None));
    trio.wire.clear();
    let in_the_same_batch = trio.hand_in(0, put(SIBLINGS, "v3", None));
    let mut future = Siblings::new();
    let version = Version { value: Some(Bytes::from_static(b"v9")), write_id: WriteId(9), written_at: Hlc(9) };
    future.event(&VersionVector::new(), driftless_proto::Dot::new(actor, 40), version);
    trio.tell(
        1,
        0,
        79,
        Request::Replica(ReplicaRequest::Merge(Merge {
            bucket: SIBLINGS,
            key: key(),
            siblings: future,
            hint_for: None,
            purpose: Purpose::Write,
        })),
    );
    trio.settle();
    for request in [applied, in_the_same_batch] {
        assert!(matches!(trio.failure(request), Failure::Unknown(Unknown::Timeout { .. })));
    }
    assert_eq!(trio.engines[0].shard.metrics.actor_alarms.get(), 1);
    assert_eq!(trio.put_and_settle(0, put(SIBLINGS, "v4", None)).acks, 2);
    let newest = trio.holds(0, SIBLINGS).live().iter().filter(|(dot, _)| dot.actor != actor).count();
    assert_eq!(newest, 1, "v4 was stamped by a new actor");
}

#[test]
fn a_retry_is_not_stamped_again_and_counts_anew() {
    let mut trio = Trio::new();
    let first = trio.ask(0, put(SIBLINGS, "v1", None));
    trio.wire.clear();
    trio.sync(0);
    assert_eq!(trio.reply(first), None, "one of two");
    let again = trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    assert_eq!((again.acks, again.siblings), (2, 1));
    assert_eq!(trio.reply(first), None, "the acknowledgements were for the retry");
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v1"]);
}

#[test]
fn a_retry_of_a_write_that_was_overwritten_since_brings_nothing_back() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.put_and_settle(0, put(SIBLINGS, "v2", context));
    let again = trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    assert_eq!((again.siblings, again.context), (1, None), "stored, seen, and replaced");
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v2"]);
}

/// Stamped again it would come back over what has replaced it; acknowledged it would be stored nowhere.
#[test]
fn a_remembered_write_whose_state_is_gone_is_neither_acknowledged_nor_stamped_again() {
    let mut trio = Trio::with_limits(Limits { header_cache_bytes: 0, ..Limits::default() });
    let empty = trio.engines[0].store().snapshot();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.engines[0].store_mut().restore(empty);
    let again = trio.ask(0, put(SIBLINGS, "v1", None));
    trio.settle();
    assert!(matches!(trio.failure(again), Failure::Unknown(_)));
    assert!(trio.holds(0, SIBLINGS).is_empty());
}

#[test]
fn a_write_id_used_for_another_value_is_refused() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put_with_id(SIBLINGS, "v1", None, WriteId(5)));
    let other = trio.ask(0, put_with_id(SIBLINGS, "v2", None, WriteId(5)));
    assert_eq!(trio.failure(other), Failure::Refused(Refusal::WriteIdReused));
    let at_another_node = trio.ask(1, put_with_id(SIBLINGS, "v2", None, WriteId(5)));
    assert_eq!(trio.failure(at_another_node), Failure::Refused(Refusal::WriteIdReused));
}

#[test]
fn one_write_stamped_by_two_coordinators_is_shown_once() {
    let mut trio = Trio::new();
    trio.ask(0, put_with_id(SIBLINGS, "v1", None, WriteId(5)));
    trio.ask(1, put_with_id(SIBLINGS, "v1", None, WriteId(5)));
    trio.settle();
    let read = trio.read(2, SIBLINGS, 3);
    assert_eq!(trio.holds(2, SIBLINGS).live().len(), 2);
    assert_eq!(values(&read), ["v1"]);
    trio.put_and_settle(2, put(SIBLINGS, "v2", read.context));
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["v2"], "its context covers both stamps");
}

/// [18 of 20,000]
#[test]
fn an_lww_stamp_is_later_than_what_its_writer_has_read() {
    let mut trio = Trio::new();
    let wall = trio.now.wall;
    trio.now.wall = Hlc::from_millis(wall.millis() + 5_000);
    let first = trio.put_and_settle(0, put(LWW, "v1", None));
    trio.now.wall = wall;
    trio.put_and_settle(1, put(LWW, "v2", first.context));
    assert_eq!(values(&trio.read(2, LWW, 3)), ["v2"]);
    // The same where the coordinator has not got the first write: only the token tells it.
    let context = trio.read(0, LWW, 3).context;
    let before = trio.holds(0, LWW).written_at();
    trio.restart(2, 52, MemoryStore::new());
    let ahead = trio.put_and_settle(2, put(LWW, "v3", context));
    assert_eq!(ahead.siblings, 1);
    assert!(trio.holds(2, LWW).written_at() > before, "else a third write between the two erases both");
    assert_eq!(values(&trio.read(0, LWW, 3)), ["v3"]);
}

#[test]
fn every_write_that_lww_discards_is_counted() {
    let mut trio = Trio::new();
    trio.ask(0, put(LWW, "v1", None));
    trio.ask(1, put(LWW, "v2", None));
    trio.settle();
    assert_eq!(values(&trio.read(2, LWW, 3)).len(), 1);
    let discarded: u64 = trio.engines.iter().map(|engine| engine.shard.metrics.lww_discarded.get()).sum();
    assert!(discarded >= 1);
}
