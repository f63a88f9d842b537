//! What cannot be done is refused before anything happens, or ends as unknown.

use driftless_proto::causality::ContextKey;

use super::*;

#[test]
fn a_write_that_cannot_reach_w_replicas_is_refused_before_anything_is_applied() {
    let mut trio = Trio::new();
    trio.cut_off(1);
    trio.cut_off(2);
    let request = trio.ask(0, put(SIBLINGS, "v1", None));
    assert_eq!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 }));
    assert!(trio.holds(0, SIBLINGS).is_empty());
    let request = trio.ask(0, get(SIBLINGS, None));
    assert_eq!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 }));
}

#[test]
fn a_put_whose_replicas_are_lost_on_the_way_ends_as_unknown_at_once() {
    let mut trio = Trio::new();
    let request = trio.ask(0, put(SIBLINGS, "v1", None));
    trio.cut_off(1);
    assert_eq!(trio.reply(request), None, "one replica may still answer");
    trio.cut_off(2);
    assert_eq!(trio.failure(request), Failure::Unknown(Unknown::Timeout { acks: 0, needed: 2 }));
}

#[test]
fn a_get_without_answers_ends_at_its_deadline() {
    let mut trio = Trio::new();
    let request = trio.ask(0, get(SIBLINGS, Some(3)));
    trio.wire.clear();
    trio.pass(Duration::from_secs(5));
    assert_eq!(trio.failure(request), Failure::Unknown(Unknown::Timeout { acks: 1, needed: 3 }));
    assert_eq!(trio.engines[0].requests_open(), 0);
}

#[test]
fn siblings_beyond_the_limit_are_refused_and_one_merged_write_is_welcome() {
    let mut trio = Trio::new();
    let ids: Vec<u64> = (0..65).map(|i| trio.ask(0, put_with_id(SIBLINGS, "v", None, WriteId(100 + i)))).collect();
    trio.settle();
    let (last, before) = ids.split_last().expect("65 requests");
    assert!(before.iter().all(|id| matches!(trio.reply(*id), Some(Response::Stored(_)))));
    let refusal = Refusal::TooManySiblings { siblings: 65, bytes: 65 };
    assert_eq!(trio.failure(*last), Failure::Refused(refusal));
    let context = trio.read(0, SIBLINGS, 2).context;
    assert_eq!(trio.put_and_settle(0, put(SIBLINGS, "merged", context)).siblings, 1);
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let mut trio = Trio::new();
    let refusal = |trio: &mut Trio, ask: Ask| {
        let request = trio.ask(0, ask);
        match trio.failure(request) {
            Failure::Refused(refusal) => refusal,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    assert_eq!(refusal(&mut trio, put(BucketId(99), "v", None)), Refusal::NoSuchBucket);
    assert!(matches!(refusal(&mut trio, get(SIBLINGS, Some(0))), Refusal::BadQuorum(_)));
    assert!(matches!(refusal(&mut trio, get(SIBLINGS, Some(4))), Refusal::BadQuorum(_)));
    let foreign = ContextKeys::new(vec![ContextKey { id: 1, secret: [8; 32] }]).expect("one key");
    let token = foreign.seal(SIBLINGS, &key(), &Default::default());
    assert!(matches!(refusal(&mut trio, put(SIBLINGS, "v", Some(token))), Refusal::BadContext(_)));
    let max = trio.limits.value_bytes_max;
    let Ask::Put(mut large) = put(SIBLINGS, "v", None) else { unreachable!() };
    large.value = Bytes::from(vec![0; max as usize + 1]);
    assert_eq!(refusal(&mut trio, Ask::Put(large)), Refusal::ValueTooLarge { bytes: max + 1, max });
    assert!((0..3).all(|i| trio.holds(i, SIBLINGS).is_empty() && trio.engines[i].requests_open() == 0));
}

#[test]
fn a_full_table_refuses_before_anything_is_applied() {
    let mut trio = Trio::with_limits(Limits { requests_max: 1, ..Limits::default() });
    trio.ask(0, put(SIBLINGS, "v1", None));
    let second = trio.ask(0, put(SIBLINGS, "v2", None));
    assert!(matches!(trio.failure(second), Failure::Refused(Refusal::Overloaded { retry_after_ms: 50 })));
    trio.settle();
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v1"]);
}

#[test]
fn limits_as_large_as_can_be_written_overflow_nothing() {
    let limits = Limits { requests_max: usize::MAX, retry_after: Duration::MAX, ..Limits::default() };
    let mut trio = Trio::with_limits(Limits { coordinated_bytes_max: 0, ..limits });
    assert_eq!(trio.put_and_settle(0, put(SIBLINGS, "v1", None)).siblings, 1);
    let refused = trio.ask(0, get(SIBLINGS, None));
    assert_eq!(trio.failure(refused), Failure::Refused(Refusal::Overloaded { retry_after_ms: u32::MAX }));
}

#[test]
fn what_replicas_send_for_reads_under_way_is_bounded_and_refuses_what_comes_new() {
    let mut trio = Trio::with_limits(Limits { coordinated_bytes_max: 2, ..Limits::default() });
    trio.ask(0, put(SIBLINGS, "value", None));
    trio.settle();
    let first = trio.ask(0, get(SIBLINGS, Some(2)));
    assert!(trio.reply(first).is_none(), "it has the own replica's value and waits for another's header");
    let second = trio.ask(0, get(SIBLINGS, Some(1)));
    assert!(matches!(trio.failure(second), Failure::Refused(Refusal::Overloaded { .. })));
    let write = trio.ask(0, put(SIBLINGS, "other", None));
    trio.settle();
    assert!(matches!(trio.reply(write), Some(Response::Stored(_))), "writes bring their own");
    assert_eq!(trio.read(0, SIBLINGS, 2).siblings.len(), 2, "once it is answered there is room again");
}

#[test]
fn work_whose_deadline_has_passed_is_dropped() {
    let mut trio = Trio::new();
    trio.ask(0, put(SIBLINGS, "v1", None));
    trio.now.instant = trio.now.instant + Duration::from_secs(6);
    trio.deliver();
    let merged = (1..3).filter(|i| !trio.holds(*i, SIBLINGS).is_empty()).count();
    assert_eq!(merged, 0);
}

#[test]
fn an_older_ring_version_is_refused() {
    let mut trio = Trio::new();
    let deadline = trio.now.instant + Duration::from_secs(1);
    let request = Request::Replica(ReplicaRequest::Read(crate::peer::Read {
        bucket: SIBLINGS,
        key: key(),
        want: crate::peer::Want::Full,
        durable: false,
        counted_for: Some(0),
    }));
    let message = Message { id: RequestId(1), ring_version: 0, body: Body::Request { deadline, request } };
    trio.hand_over(1, 0, message);
    let refusal = Refusal::StaleRing { theirs: 0, ours: 1 };
    assert_eq!(trio.wire[0].2.body, Body::Reply(Reply::Refused(refusal)));
}
