//! Gets and scans: quorums, repair, strict reads, counting.

use super::*;

#[test]
fn a_silent_replica_is_replaced_by_another_after_the_attempt_timeout() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let request = trio.ask(0, get(SIBLINGS, Some(2)));
    trio.wire.clear();
    trio.pass(trio.limits.attempt_timeout);
    assert_eq!(trio.reply(request), None);
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Read(read)) if values(read) == ["v1"]));
}

#[test]
fn a_read_repairs_exactly_the_replicas_that_lack_something() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(SIBLINGS, "v1", None));
    let spared = trio.wire[0].1;
    trio.wire.retain(|(_, to, _)| *to == spared);
    trio.settle();
    assert_eq!(trio.stored(request).acks, 2);
    let missed = (0..3).find(|i| trio.holds(*i, SIBLINGS).is_empty()).expect("one was missed");
    trio.read(0, SIBLINGS, 3);
    assert_eq!(trio.holds(missed, SIBLINGS), trio.holds(0, SIBLINGS));
    assert_eq!(trio.engines[0].shard.metrics.read_repairs.get(), 1);
    trio.read(0, SIBLINGS, 3);
    assert_eq!(trio.engines[0].shard.metrics.read_repairs.get(), 1, "nothing was left to repair");
}

#[test]
fn a_header_whose_values_are_not_at_hand_does_not_count_until_they_are() {
    let mut trio = Trio::new();
    trio.ask(1, put(SIBLINGS, "v1", None));
    trio.wire.clear();
    let request = trio.ask(0, get(SIBLINGS, Some(3)));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Read(read)) if values(read) == ["v1"]));
    assert_eq!(trio.holds(2, SIBLINGS).live().len(), 1, "and the others were repaired");
}

#[test]
fn a_strict_read_answers_only_what_the_next_one_will_see() {
    let mut trio = Trio::new();
    trio.ask(0, put(STRICT, "v1", None));
    trio.wire.clear();
    let request = trio.ask(0, get(STRICT, None));
    trio.deliver();
    while trio.wire.front().is_some_and(|(_, _, m)| matches!(m.body, Body::Reply(_))) {
        trio.deliver();
    }
    assert_eq!(trio.reply(request), None, "only one replica holds it: it is written back first");
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Read(read)) if values(read) == ["v1"]));
    assert_eq!(trio.engines[0].shard.metrics.write_backs.get(), 1);
    let holders = (0..3).filter(|i| !trio.holds(*i, STRICT).is_empty()).count();
    assert!(holders >= 2);
}

#[test]
fn a_strict_read_shows_only_what_a_power_cut_cannot_take() {
    let mut trio = Trio::new();
    trio.ask(0, put(STRICT, "v1", None));
    trio.deliver_all();
    let request = trio.ask(0, get(STRICT, None));
    trio.deliver_all();
    assert_eq!(trio.reply(request), None, "applied on three, synced on none");
    let sloppy = trio.ask(
        0,
        Ask::Get(Get { bucket: STRICT, key: key(), r: None, sloppy: Some(true), explain: false, shown: Vec::new() }),
    );
    trio.deliver_all();
    assert!(trio.reply(sloppy).is_some());
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Read(read)) if values(read) == ["v1"]));
}

#[test]
fn late_and_repeated_replies_change_nothing() {
    let mut trio = Trio::new();
    let request = trio.ask(0, get(SIBLINGS, Some(2)));
    let (_, to, message) = trio.wire[0].clone();
    trio.settle();
    assert!(trio.reply(request).is_some());
    let state = Reply::State(State::Full(Siblings::new()));
    for _ in 0..3 {
        let late = Message { id: message.id, ring_version: 1, body: Body::Reply(state.clone()) };
        trio.engines[0].handle_peer(trio.now, to, late);
        trio.turn(0);
    }
    assert_eq!(trio.replies.iter().filter(|(id, _)| *id == request).count(), 1);
}

#[test]
fn a_scan_lists_every_key_that_has_a_value() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
    let arc = trio.topology.place(bucket, &key()).partition.arc;
    let scan = |trio: &mut Trio, prefix: &[u8]| {
        let prefix = Bytes::copy_from_slice(prefix);
        let scan = client::Scan { bucket: SIBLINGS, arc, after: None, limit: 10, r: None, prefix, ring_version: 1 };
        let request = trio.ask(1, Ask::Scan(scan));
        trio.settle();
        match trio.reply(request) {
            Some(Response::Page(page)) => page.clone(),
            other => panic!("expected a page, got {other:?}"),
        }
    };
    assert_eq!(scan(&mut trio, b""), client::Page { keys: vec![key()], next: None });
    assert_eq!(scan(&mut trio, &key().as_bytes()[..1]).keys, [key()], "it begins so");
    assert_eq!(scan(&mut trio, b"\xff").keys, []);
    let request = trio.ask(1, delete(SIBLINGS, None));
    trio.settle();
    assert!(trio.reply(request).is_some());
    assert_eq!(scan(&mut trio, b"").keys, []);
}
