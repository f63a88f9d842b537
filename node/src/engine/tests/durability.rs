//! What leaves when: after its batch is applied, after the sync that covers it, or not at all.

use super::*;
use crate::peer::Purpose;

/// The second stamp must see the first: read from the store, it would replace a state of which it knows nothing.
#[test]
fn two_writes_of_one_key_in_one_batch_both_survive() {
    let mut trio = Trio::new();
    trio.hand_in(0, put(SIBLINGS, "v1", None));
    trio.hand_in(0, put(SIBLINGS, "v2", None));
    trio.turn(0);
    trio.settle();
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v1", "v2"]);
}

#[test]
fn nothing_that_carries_a_dot_leaves_before_its_batch_is_applied() {
    let mut trio = Trio::new();
    let request = trio.hand_in(0, put(SIBLINGS, "v1", None));
    let reader = trio.hand_in(0, get(SIBLINGS, Some(1)));
    assert_eq!(trio.engines[0].poll_output(), None, "neither merges nor reads of the new state");
    trio.turn(0);
    assert_eq!(trio.wire.len(), 2, "one merge to each other replica");
    assert!(trio.reply(reader).is_some());
    assert_eq!(trio.reply(request), None);
}

#[test]
fn an_acknowledgement_waits_for_w_syncs() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(SIBLINGS, "v1", None));
    trio.deliver_all();
    assert_eq!(trio.reply(request), None, "applied on three, synced on none");
    trio.sync(1);
    trio.deliver_all();
    assert_eq!(trio.reply(request), None, "synced on one");
    trio.sync(0);
    assert_eq!(trio.stored(request).acks, 2);
}

#[test]
fn a_buffered_bucket_acknowledges_once_applied_and_syncs_soon_after() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(BUFFERED, "v1", None));
    trio.deliver_all();
    assert_eq!(trio.stored(request).acks, 2);
    assert_eq!(trio.syncs, []);
    trio.pass(trio.limits.buffered_sync_interval);
    assert_eq!(trio.syncs.len(), 3);
}

/// [129/400, with slow disks 396/400]
#[test]
fn an_acknowledgement_of_nothing_new_waits_for_the_sync_of_what_it_rests_on() {
    let mut trio = Trio::new();
    trio.ask(0, put(SIBLINGS, "v1", None));
    let to = trio.index(trio.wire[0].1);
    trio.deliver();
    trio.wire.clear();
    let siblings = trio.holds(0, SIBLINGS);
    trio.tell(
        0,
        to,
        77,
        Request::Replica(ReplicaRequest::Merge(Merge {
            bucket: SIBLINGS,
            key: key(),
            siblings,
            hint_for: None,
            purpose: Purpose::Write,
        })),
    );
    assert!(trio.wire.is_empty(), "the first merge is not durable yet, so its repetition must not be acknowledged");
    trio.sync(to);
    assert!(trio.wire.iter().any(|(_, _, m)| m.id == RequestId(77) && m.body == Body::Reply(Reply::Acked)));
}

#[test]
fn after_a_start_nothing_is_acknowledged_before_the_first_sync() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let (siblings, mut store) = (trio.holds(0, SIBLINGS), trio.engines[1].store().clone());
    store.process_death();
    trio.restart(1, 50, store);
    trio.tell(
        0,
        1,
        78,
        Request::Replica(ReplicaRequest::Merge(Merge {
            bucket: SIBLINGS,
            key: key(),
            siblings,
            hint_for: None,
            purpose: Purpose::Write,
        })),
    );
    assert!(trio.wire.is_empty(), "what the process before left in the page cache is not durable yet");
    trio.sync(1);
    assert_eq!(trio.wire.len(), 1);
}

/// A counter that nobody holds is a gap, and a vector past it claims a write that does not exist.
#[test]
fn a_batch_without_room_is_refused_whole_and_its_counters_return() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.engines[0].store_mut().set_full(true);
    let refused = [trio.hand_in(0, put(SIBLINGS, "v2", None)), trio.hand_in(0, put(SIBLINGS, "v3", None))];
    let reader = trio.hand_in(0, get(SIBLINGS, Some(1)));
    trio.turn(0);
    for request in refused {
        assert_eq!(trio.failure(request), Failure::Refused(Refusal::StorageFull));
    }
    assert!(trio.wire.is_empty(), "nothing of the batch has left");
    assert!(matches!(trio.reply(reader), Some(Response::Read(read)) if values(read) == ["v1"]), "reads go on");
    trio.engines[0].store_mut().set_full(false);
    trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    let counters: Vec<u64> = trio.holds(1, SIBLINGS).live().iter().map(|(dot, _)| dot.counter).collect();
    assert_eq!(counters, [1, 2], "no counter was skipped, and the refused write id is free again");
}

#[test]
fn a_store_that_fails_stops_the_node() {
    let mut trio = Trio::new();
    trio.engines[0].store_mut().fail_next_apply(StoreError::Io("input/output error".to_owned()), true);
    let request = trio.ask(0, put(SIBLINGS, "v1", None));
    assert_eq!(trio.halts, ["storage I/O error: input/output error"]);
    assert!(trio.wire.is_empty() && trio.reply(request).is_none());
}

/// A stamp names its dot before it has read all that it needs. Where that read failed, the turn's batch was applied all the
/// same: with the counter, and without the write.
#[test]
fn nothing_is_applied_once_the_store_has_failed() {
    let mut trio = Trio::new();
    let request = trio.hand_in(0, put(SIBLINGS, "v1", None));
    trio.engines[0].store_mut().fail(StoreError::Io("input/output error".to_owned()));
    trio.hand_in(0, get(LWW, Some(1)));
    trio.engines[0].store_mut().clear_faults();
    let applied = trio.engines[0].store().applied();
    trio.turn(0);
    assert_eq!(trio.halts, ["storage I/O error: input/output error"]);
    assert_eq!(trio.engines[0].store().applied(), applied);
    assert!(trio.reply(request).is_none());
}

#[test]
fn the_census_counts_what_a_start_finds_and_follows_every_batch() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.pass(Duration::from_millis(5));
    assert_eq!(trio.engines[0].shard.metrics.keys.get(), 1);
    let store = trio.engines[0].store().clone();
    trio.restart(0, 53, store);
    assert_eq!(trio.engines[0].shard.metrics.keys.get(), 0);
    trio.pass(Duration::from_millis(5));
    assert_eq!(trio.engines[0].shard.metrics.keys.get(), 1);
    assert_eq!(trio.engines[0].shard.metrics.value_bytes.get(), 2);
    assert_eq!(trio.engines[0].shard.metrics.partitions_uncounted.get(), 0);
}
