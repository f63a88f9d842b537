//! What a write id names: one write of one key.

use super::*;
use crate::peer::Purpose;
use crate::replica::local::{Made, Stamped};

/// The same request about another key.
fn at(key: &Key, mut ask: Ask) -> Ask {
    match &mut ask {
        Ask::Put(put) => put.key = key.clone(),
        Ask::Delete(delete) => delete.key = key.clone(),
        Ask::Get(get) => get.key = key.clone(),
        _ => unreachable!("the tests ask for nothing else"),
    }
    ask
}

impl Trio {
    /// A key of a bucket that lies in the same partition as the test's own key in its bucket: one actor stamps both.
    fn neighbour(&self, bucket: BucketId) -> Key {
        let partition = |bucket: BucketId, key: &Key| {
            self.topology.place(self.topology.bucket(bucket).expect("exists"), key).partition
        };
        let mut keys = (0..).map(|i| Key::new(format!("neighbour-{i}")).expect("valid"));
        keys.find(|key| partition(bucket, key) == partition(SIBLINGS, &super::key())).expect("there are enough keys")
    }

    fn values_at(&mut self, i: usize, bucket: BucketId, key: &Key) -> Vec<String> {
        let request = self.ask(i, at(key, get(bucket, Some(3))));
        self.settle();
        match self.reply(request) {
            Some(Response::Read(read)) => values(read).into_iter().map(str::to_owned).collect(),
            other => panic!("expected Read, got {other:?}"),
        }
    }
}

/// The table of remembered ids named no key. The second write was taken for a retry of the first, since the vector of its key
/// covers whatever its partition's actor had stamped before: acknowledged twice, and stored nowhere.
#[test]
fn an_id_used_for_two_keys_is_two_writes() {
    for bucket in [SIBLINGS, LWW, STRICT, BUFFERED] {
        let mut trio = Trio::new();
        let other = trio.neighbour(bucket);
        trio.put_and_settle(0, put_with_id(SIBLINGS, "v", None, WriteId(5)));
        let before = trio.put_and_settle(0, at(&other, put(bucket, "before", None)));
        let stored = trio.put_and_settle(0, at(&other, put_with_id(bucket, "v", before.context.clone(), WriteId(5))));
        assert_eq!((stored.acks, stored.siblings), (2, 1));
        assert_eq!(trio.values_at(1, bucket, &other), ["v"]);
        assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v"]);
        // Without a context: beside what is there, and recognised when it is made again.
        let blind = |value| at(&other, put_with_id(bucket, value, None, WriteId(6)));
        trio.put_and_settle(0, put_with_id(SIBLINGS, "w", None, WriteId(6)));
        trio.put_and_settle(0, blind("w"));
        trio.put_and_settle(0, blind("w"));
        let expected: &[&str] = if bucket == LWW { &["w"] } else { &["v", "w"] };
        assert_eq!(trio.values_at(1, bucket, &other), expected);
        // And with another value at the first key, as ever.
        let reused = trio.ask(0, put_with_id(SIBLINGS, "x", None, WriteId(6)));
        assert_eq!(trio.failure(reused), Failure::Refused(Refusal::WriteIdReused));
    }
}

#[test]
fn an_id_used_for_two_keys_with_other_values_is_not_refused() {
    let mut trio = Trio::new();
    let other = trio.neighbour(SIBLINGS);
    trio.put_and_settle(0, put_with_id(SIBLINGS, "v1", None, WriteId(5)));
    trio.put_and_settle(0, at(&other, put_with_id(SIBLINGS, "v2", None, WriteId(5))));
    assert_eq!(trio.values_at(2, SIBLINGS, &other), ["v2"]);
}

#[test]
fn an_id_used_to_delete_two_keys_deletes_both() {
    for with_context in [false, true] {
        let mut trio = Trio::new();
        let other = trio.neighbour(SIBLINGS);
        for key in [key(), other.clone()] {
            trio.put_and_settle(0, at(&key, put(SIBLINGS, "v", None)));
        }
        for key in [key(), other.clone()] {
            let request = trio.ask(0, at(&key, get(SIBLINGS, None)));
            trio.settle();
            let Some(Response::Read(read)) = trio.reply(request).cloned() else { panic!("is read") };
            let context = read.context.filter(|_| with_context);
            let request = trio.ask(0, at(&key, delete(SIBLINGS, context)));
            trio.settle();
            assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, acks: 2, .. }))));
            assert!(trio.values_at(1, SIBLINGS, &key).is_empty());
        }
    }
}

/// What is forwarded is stamped by an owner, and what no owner can be asked for by a fallback: both tell keys apart.
#[test]
fn an_id_used_for_two_keys_is_two_writes_wherever_it_is_stamped() {
    for owners_are_gone in [false, true] {
        let mut trio = Trio::of(5, Limits::default());
        let other = trio.neighbour(SIBLINGS);
        let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
        let owners = trio.topology.ring().owners(trio.topology.place(bucket, &key()).partition).to_vec();
        let stranger = (0..5).find(|i| !owners.contains(&trio.id(*i))).expect("two do not own the key");
        if owners_are_gone {
            for owner in owners {
                trio.engines[stranger].handle_peer_lost(trio.now, owner);
            }
            trio.turn(stranger);
        }
        let one = |ask| {
            let Ask::Put(mut put) = ask else { unreachable!() };
            put.w = Some(1);
            Ask::Put(put)
        };
        trio.put_and_settle(stranger, one(put_with_id(SIBLINGS, "v", None, WriteId(5))));
        trio.put_and_settle(stranger, one(at(&other, put(SIBLINGS, "before", None))));
        let stored = trio.put_and_settle(stranger, one(at(&other, put_with_id(SIBLINGS, "v", None, WriteId(5)))));
        assert_eq!(stored.siblings, 2);
        let stamped = trio.engines[stranger].shard.metrics.fallback_coordinated.get();
        assert_eq!(stamped, if owners_are_gone { 3 } else { 0 });
    }
}

fn state_with(dot: driftless_proto::Dot, write_id: WriteId) -> Siblings {
    let mut siblings = Siblings::new();
    let version = Version { value: Some(Bytes::from_static(b"v")), write_id, written_at: Hlc(9) };
    siblings.event(&VersionVector::new(), dot, version);
    siblings
}

#[test]
fn a_state_proves_a_write_only_if_it_holds_it_or_has_overwritten_it() {
    let dot = driftless_proto::Dot::new(driftless_proto::ActorId(1), 3);
    let holds = |siblings, id| Stamped { dot, again: false, siblings }.holds(WriteId(id));
    assert!(holds(state_with(dot, WriteId(5)), 5));
    assert!(!holds(state_with(dot, WriteId(5)), 6), "the dot is another write's");
    assert!(!holds(Siblings::new(), 5), "it is not there");
    let mut overwritten = state_with(dot, WriteId(5));
    let seen = overwritten.vv().clone();
    let version = Version { value: None, write_id: WriteId(7), written_at: Hlc(10) };
    overwritten.event(&seen, driftless_proto::Dot::new(driftless_proto::ActorId(2), 1), version);
    assert!(holds(overwritten, 5));
}

/// The replica's answer is looked at again by whom it is acknowledged: in a release such a put is unknown, in a test the
/// bug is loud.
#[test]
#[should_panic(expected = "an acknowledged state holds what it is acknowledged for")]
fn a_put_whose_state_does_not_hold_it_is_never_acknowledged() {
    let mut trio = Trio::new();
    let request = trio.hand_in(0, put_with_id(SIBLINGS, "v", None, WriteId(5)));
    // Its own replica lies: it names a dot of another write.
    let dot = driftless_proto::Dot::new(driftless_proto::ActorId(1), 3);
    let id = *trio.engines[0].coordinator.open_ids().first().expect("the put");
    let stamped = Stamped { dot, again: false, siblings: state_with(dot, WriteId(6)) };
    let engine = &mut trio.engines[0];
    engine.coordinator.handle_made(&engine.shard, trio.now, id, Made::Stamped(stamped));
    for node in 0..2 {
        let from = trio.id(node);
        let engine = &mut trio.engines[0];
        engine.coordinator.handle_reply(&engine.shard, trio.now, from, id, Reply::Acked);
    }
    panic!("acknowledged: {:?}", trio.reply(request));
}

/// What a merge brings must be in the batch that it is acknowledged with.
#[test]
fn a_merge_is_acknowledged_with_the_batch_that_holds_it() {
    let mut trio = Trio::new();
    let dot = |counter| driftless_proto::Dot::new(driftless_proto::ActorId(9), counter);
    for counter in 1..=3 {
        let (siblings, purpose) = (state_with(dot(counter), WriteId(counter.into())), Purpose::Write);
        let merge = Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose };
        trio.tell(1, 0, counter * 4, Request::Replica(ReplicaRequest::Merge(merge)));
    }
    trio.settle();
    assert!(trio.holds(0, SIBLINGS).covers(dot(3)));
    assert_eq!(trio.engines[0].shard.metrics.acks_unproven.get(), 0);
}

/// `load` counted records as loaded that had been deleted since it loaded them first: their puts were recognised, and nothing
/// said that what they had written is gone.
#[test]
fn a_put_recognised_after_it_was_replaced_says_that_it_is_not_there() {
    for bucket in [SIBLINGS, LWW, STRICT, BUFFERED] {
        let mut trio = Trio::new();
        let first = || put_with_id(bucket, "f", None, WriteId(5));
        assert!(trio.put_and_settle(0, first()).live);
        assert!(trio.put_and_settle(0, first()).live, "a retry of what is there");
        let context = trio.read(0, bucket, 2).context;
        assert!(trio.put_and_settle(0, put(bucket, "g", context)).live);
        let again = trio.put_and_settle(0, first());
        assert_eq!((again.live, again.siblings), (false, 1), "g has taken its place");
        assert_eq!(values(&trio.read(0, bucket, 2)), ["g"]);
        let request = trio.ask(0, delete(bucket, None));
        trio.settle();
        assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, .. }))));
        let again = trio.put_and_settle(0, first());
        assert_eq!((again.live, again.siblings), (false, 0), "deleted");
    }
}
