//! Sloppy quorums: who stands in for whom, what counts, and what a strict request is told instead.

use super::*;

/// Five nodes. `primaries` are the key's, in order of preference; `others` are not.
struct Five {
    trio: Trio,
    primaries: Vec<usize>,
    others: Vec<usize>,
}

impl Five {
    fn new() -> Five {
        let trio = Trio::of(5, Limits::default());
        let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
        let owners = trio.topology.ring().owners(trio.topology.place(bucket, &key()).partition);
        let primaries: Vec<usize> = owners.iter().map(|owner| trio.index(*owner)).collect();
        let others = (0..5).filter(|i| !primaries.contains(i)).collect();
        Five { trio, primaries, others }
    }

    /// Kills nodes: all others notice.
    fn kill(&mut self, nodes: &[usize]) {
        for &node in nodes {
            let gone = self.trio.id(node);
            self.trio.wire.retain(|(from, to, _)| *from != gone && *to != gone);
            for other in (0..5).filter(|other| *other != node) {
                self.trio.engines[other].handle_peer_lost(self.trio.now, gone);
                self.trio.turn(other);
            }
        }
    }

    fn put(&mut self, at: usize, bucket: BucketId, w: u8) -> u64 {
        let Ask::Put(mut put) = put(bucket, "v", None) else { unreachable!() };
        put.w = Some(w);
        let request = self.trio.ask(at, Ask::Put(put));
        self.trio.settle();
        request
    }
}

#[test]
fn a_fallback_fills_the_slot_of_a_dead_primary_and_the_answer_says_so() {
    let mut five = Five::new();
    let [a, _, c] = five.primaries[..] else { unreachable!() };
    five.kill(&[c]);
    let request = five.put(a, SIBLINGS, 3);
    let stored = five.trio.stored(request);
    assert_eq!((stored.acks, stored.primaries), (3, 2));
    let metrics = &five.trio.engines[a].shard.metrics;
    assert_eq!((metrics.acks_primary.get(), metrics.acks_fallback.get()), (2, 1));
    let held: u64 = five.others.iter().map(|i| five.trio.engines[*i].shard.metrics.hint_keys.get() as u64).sum();
    assert_eq!(held, 1, "one of the others keeps it for the dead primary");
}

#[test]
fn two_dead_primaries_of_three_leave_the_key_writable_and_readable() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    five.kill(&[b, c]);
    let request = five.put(a, SIBLINGS, 3);
    assert_eq!((five.trio.stored(request).acks, five.trio.stored(request).primaries), (3, 1));
    assert_eq!(values(&five.trio.read(a, SIBLINGS, 3)), ["v"]);
}

#[test]
fn strict_requests_never_count_a_fallback_and_are_refused_at_once() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    five.kill(&[b, c]);
    let request = five.put(a, STRICT, 2);
    let refusal = Failure::Refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 });
    assert_eq!(five.trio.failure(request), refusal);
    assert!(five.trio.holds(a, STRICT).is_empty(), "before anything was applied");
    let request = five.trio.ask(a, get(STRICT, Some(2)));
    assert_eq!(five.trio.failure(request), refusal);
}

#[test]
fn without_any_primary_a_fallback_coordinates_and_the_primaries_get_it_when_they_are_back() {
    let mut five = Five::new();
    let primaries = five.primaries.clone();
    five.kill(&primaries);
    let other = five.others[0];
    let request = five.put(other, SIBLINGS, 2);
    assert_eq!((five.trio.stored(request).acks, five.trio.stored(request).primaries), (2, 0));
    assert_eq!(five.trio.engines[other].shard.metrics.fallback_coordinated.get(), 1);
    assert_eq!(values(&five.trio.read(other, SIBLINGS, 2)), ["v"], "and reads find it");
    let request = five.put(other, SIBLINGS, 3);
    let refusal = Failure::Refused(Refusal::NotEnoughReplicas { needed: 3, available: 2 });
    assert_eq!(five.trio.failure(request), refusal, "two nodes fill two slots");
}

#[test]
fn a_fallback_that_can_reach_a_primary_leaves_the_stamp_to_it() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    five.kill(&[a, b]);
    let other = five.others[0];
    let request = five.put(other, SIBLINGS, 2);
    assert_eq!(five.trio.stored(request).primaries, 1);
    assert_eq!(five.trio.engines[other].shard.metrics.fallback_coordinated.get(), 0);
    assert!(!five.trio.holds(c, SIBLINGS).is_empty());
}

#[test]
fn a_primary_lost_on_the_way_is_replaced_by_a_fallback() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    let Ask::Put(mut all) = put(SIBLINGS, "v", None) else { unreachable!() };
    all.w = Some(3);
    let request = five.trio.ask(a, Ask::Put(all));
    five.kill(&[b, c]);
    five.trio.settle();
    assert_eq!((five.trio.stored(request).acks, five.trio.stored(request).primaries), (3, 1));
}

#[test]
fn a_late_primary_and_its_fallback_fill_one_slot() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    let Ask::Put(mut all) = put(SIBLINGS, "v", None) else { unreachable!() };
    all.w = Some(3);
    let request = five.trio.ask(a, Ask::Put(all));
    // Of the two others one answers; the other is late, so that a fallback is asked for its slot; then it answers too.
    let late = five.trio.id(c);
    let (held_back, rest) = std::mem::take(&mut five.trio.wire).into_iter().partition(|(_, to, _)| *to == late);
    five.trio.wire = rest;
    five.trio.deliver_all();
    five.trio.sync(b);
    five.trio.deliver_all();
    five.trio.pass(five.trio.limits.attempt_timeout);
    let fallback = five.trio.wire.iter().find(|(_, to, _)| *to != late).map(|(_, to, _)| *to).expect("was asked");
    let fallback = five.trio.index(fallback);
    five.trio.deliver_all();
    five.trio.wire = held_back;
    five.trio.deliver_all();
    five.trio.sync(fallback);
    five.trio.sync(c);
    five.trio.deliver_all();
    assert_eq!(five.trio.reply(request), None, "b, and one slot of c: two slots for four messages");
    five.trio.sync(a);
    assert_eq!(five.trio.stored(request).acks, 3);
}

/// An attack from outside: stored keys "did not exist" while their primaries were dead.
#[test]
fn an_answer_of_nothing_says_how_many_primaries_gave_it() {
    let mut five = Five::new();
    let [a, b, c] = five.primaries[..] else { unreachable!() };
    five.put(a, SIBLINGS, 3);
    let basis = five.trio.read(five.others[0], SIBLINGS, 2).basis;
    assert_eq!((basis.primaries, basis.needed), (2, 2));
    five.kill(&[a, b, c]);
    let read = five.trio.read(five.others[0], SIBLINGS, 2);
    assert_eq!((values(&read), read.basis.primaries, read.basis.is_enough()), (vec![], 0, false));
    let delete = five.trio.ask(five.others[0], delete(SIBLINGS, None));
    five.trio.settle();
    let Some(Response::Deleted(deleted)) = five.trio.reply(delete) else { panic!("{:?}", five.trio.reply(delete)) };
    assert_eq!((deleted.existed, deleted.basis.map(|basis| basis.primaries)), (false, Some(0)));
}

#[test]
fn that_there_is_nothing_is_for_a_primary_to_say_while_one_may() {
    for answers in [true, false] {
        let mut five = Five::new();
        let [a, b, c] = five.primaries[..] else { unreachable!() };
        five.kill(&[c]);
        let request = five.trio.ask(a, get(SIBLINGS, Some(2)));
        let held_back = std::mem::take(&mut five.trio.wire);
        assert!(held_back.iter().all(|(_, to, _)| *to == five.trio.id(b)));
        five.trio.pass(five.trio.limits.attempt_timeout);
        assert_eq!(five.trio.wire.len(), 1, "a fallback is asked as well");
        five.trio.deliver_all();
        assert_eq!(five.trio.reply(request), None, "two have answered, one of them a primary");
        if answers {
            five.trio.wire = held_back;
            five.trio.deliver_all();
        } else {
            five.trio.pass(five.trio.limits.attempt_timeout * 10);
        }
        let Some(Response::Read(read)) = five.trio.reply(request) else { panic!("{:?}", five.trio.reply(request)) };
        assert_eq!(read.basis.is_enough(), answers);
    }
}
