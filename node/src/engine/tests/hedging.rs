//! Slow and silent replicas: others are asked as well, and what is silent for long is not counted on.

use super::*;
use crate::peer::Want;

/// The requests that wait on the wire for a node.
fn asked(trio: &Trio, i: usize) -> Vec<&Request> {
    let to_node = trio.wire.iter().filter(|(_, to, _)| *to == trio.id(i));
    to_node
        .filter_map(|(_, _, message)| match &message.body {
            Body::Request { request, .. } => Some(request),
            Body::Reply(_) => None,
        })
        .collect()
}

/// Whom node 0 has asked to read.
fn readers(trio: &Trio) -> Vec<usize> {
    (1..3)
        .filter(|i| asked(trio, *i).iter().any(|request| matches!(request, Request::Replica(ReplicaRequest::Read(_)))))
        .collect()
}

#[test]
fn a_late_replica_is_hedged_by_another_after_its_usual_time() {
    let mut trio = Trio::new();
    for _ in 0..50 {
        trio.read(0, SIBLINGS, 2);
    }
    let request = trio.ask(0, get(SIBLINGS, Some(2)));
    let first = readers(&trio);
    assert_eq!(first.len(), 1);
    trio.pass(Duration::from_millis(20));
    assert_eq!(readers(&trio).len(), 2, "answers came at once so far, so 20 ms are long");
    assert_eq!(trio.engines[0].shard.metrics.hedges.get(), 1);
    trio.wire.retain(|(_, to, _)| *to != trio.topology.ring().members()[first[0]].id);
    trio.settle();
    assert!(trio.reply(request).is_some());
}

#[test]
fn hedges_end_with_their_budget() {
    let mut trio = Trio::new();
    for _ in 0..10 {
        trio.ask(0, get(SIBLINGS, Some(2)));
    }
    trio.wire.clear();
    trio.pass(trio.limits.attempt_timeout);
    assert_eq!(trio.engines[0].shard.metrics.hedges.get(), 1, "ten requests allow half a hedge beyond the first");
}

/// Asks for three writes, of which no other replica hears in time; what has been asked meanwhile is on the wire.
fn late_three_times(trio: &mut Trio) {
    for _ in 0..3 {
        trio.ask(0, put(STRICT, "v", None));
    }
    trio.wire.clear();
    trio.pass(trio.limits.attempt_timeout * 2);
    trio.pass(Duration::ZERO);
    assert!((1..3).all(|i| asked(trio, i).iter().any(|request| matches!(request, Request::Ping))));
}

#[test]
fn a_replica_that_is_silent_three_times_and_answers_no_ping_is_not_counted_on_until_it_does() {
    let mut trio = Trio::new();
    late_three_times(&mut trio);
    trio.wire.clear();
    trio.pass(Duration::from_millis(500));
    let request = trio.ask(0, put(STRICT, "w", None));
    let refusal = Refusal::NotEnoughReplicas { needed: 2, available: 1 };
    assert_eq!(trio.failure(request), Failure::Refused(refusal), "at once, not at the deadline");
    trio.pass(Duration::ZERO);
    trio.settle();
    assert_eq!(trio.put_and_settle(0, put(STRICT, "x", None)).acks, 2);
}

/// Beside a flood of large values all replicas were late with small ones, and puts were refused for lack of replicas.
#[test]
fn a_replica_that_is_late_and_answers_pings_is_counted_on() {
    let mut trio = Trio::new();
    late_three_times(&mut trio);
    trio.settle();
    trio.pass(Duration::from_millis(500));
    assert_eq!(trio.engines[0].shard.metrics.peers_unresponsive.get(), 0);
    assert_eq!(trio.put_and_settle(0, put(STRICT, "x", None)).acks, 2);
}

#[test]
fn an_answer_that_comes_late_still_counts() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(STRICT, "v", None));
    trio.sync(0);
    trio.pass(trio.limits.attempt_timeout * 3);
    assert_eq!(trio.reply(request), None);
    trio.settle();
    assert_eq!(trio.stored(request).acks, 2);
}

#[test]
fn a_hint_is_kept_for_a_primary_that_misses_an_acknowledged_write() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(SIBLINGS, "v", None));
    let silent = trio.wire[0].1;
    trio.wire.retain(|(_, to, _)| *to != silent);
    trio.settle();
    assert_eq!(trio.stored(request).acks, 2);
    assert_eq!((trio.engines[0].shard.metrics.missed_writes.get(), trio.engines[0].requests_open()), (0, 1));
    trio.pass(trio.limits.attempt_timeout * 2);
    assert_eq!((trio.engines[0].shard.metrics.missed_writes.get(), trio.engines[0].requests_open()), (1, 0));
}

#[test]
fn requests_that_only_wait_for_late_replicas_leave_room_for_new_ones() {
    let mut trio = Trio::with_limits(Limits { requests_max: 1, ..Limits::default() });
    let first = trio.ask(0, put(SIBLINGS, "v1", None));
    let silent = trio.wire[0].1;
    trio.wire.retain(|(_, to, _)| *to != silent);
    trio.settle();
    assert_eq!((trio.stored(first).acks, trio.engines[0].requests_open()), (2, 1));
    let second = trio.ask(0, put(SIBLINGS, "v2", None));
    trio.settle();
    assert_eq!(trio.stored(second).siblings, 2);
}

#[test]
fn a_fast_replica_is_preferred_to_a_much_slower_one() {
    let mut trio = Trio::new();
    let slow = {
        trio.ask(0, get(SIBLINGS, Some(2)));
        readers(&trio)[0]
    };
    trio.pass(Duration::from_millis(100));
    trio.settle();
    for _ in 0..20 {
        trio.read(0, SIBLINGS, 3);
    }
    // Answers of both came at once in those, but the first one counts for a while.
    trio.ask(0, get(SIBLINGS, Some(2)));
    let fast = readers(&trio)[0];
    assert!(
        asked(&trio, fast).iter().any(
            |request| matches!(request, Request::Replica(ReplicaRequest::Read(read)) if read.want == Want::Header)
        )
    );
    assert_ne!(fast, slow);
}

/// It was asked when the other one was lost too, nothing was sent, and the request waited until its deadline.
#[test]
fn a_replica_that_was_lost_before_it_was_asked_is_not_asked_later() {
    let mut trio = Trio::new();
    let request = trio.ask(0, get(STRICT, Some(2)));
    let asked = readers(&trio)[0];
    trio.wire.clear();
    for gone in [3 - asked, asked] {
        let gone = trio.id(gone);
        trio.engines[0].handle_peer_lost(trio.now, gone);
        trio.turn(0);
    }
    let refusal = Refusal::NotEnoughReplicas { needed: 2, available: 1 };
    assert_eq!(trio.failure(request), Failure::Refused(refusal), "at once, not at the deadline");
}

#[test]
fn another_replica_is_asked_for_all_it_holds_when_the_first_one_stands_still() {
    let mut trio = Trio::of(4, Limits::default());
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
    let owners = trio.topology.ring().owners(trio.topology.place(bucket, &key()).partition).to_vec();
    let stranger = (0..4).find(|i| !owners.contains(&trio.id(*i))).expect("one does not own the key");
    trio.put_and_settle(stranger, put(SIBLINGS, "v", None));
    let request = trio.ask(stranger, get(SIBLINGS, Some(2)));
    let asks_for_all = |message: &Message| {
        let Body::Request { request: Request::Replica(ReplicaRequest::Read(read)), .. } = &message.body else {
            return false;
        };
        read.want == Want::Full
    };
    let (_, silent, _) = trio.wire.iter().find(|(_, _, message)| asks_for_all(message)).expect("one is asked for all");
    let silent = *silent;
    let cut = |trio: &mut Trio| trio.wire.retain(|(_, to, _)| *to != silent);
    cut(&mut trio);
    trio.settle();
    assert_eq!(trio.reply(request), None);
    trio.pass(trio.limits.attempt_timeout * 2);
    cut(&mut trio);
    trio.settle();
    match trio.reply(request) {
        Some(Response::Read(read)) => assert_eq!(values(read), ["v"]),
        other => panic!("expected Read, got {other:?}"),
    }
}
