//! The machine alone, with a replica that is a list of keys.

use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::{ActorId, BucketDefinition, BucketId, Dot, Hlc, Key, Siblings, Version, VersionVector, WriteId};
use driftless_testkit::TopologyBuilder;
use rand::SeedableRng;

use super::walk::KEYS_UNDER_WAY;
use super::*;
use crate::configurations::Configurations;
use crate::planted::Planted;

const DELAY: Duration = Duration::from_secs(3);

/// A handoff, and what its replica holds.
struct Desk {
    handoff: Handoff,
    shard: Shard,
    target: NodeId,
    held: BTreeMap<Vec<u8>, Hint>,
    now: Instant,
    /// Deliveries under way, oldest first.
    sent: VecDeque<(Instant, RequestId, Merge)>,
    readdressed: usize,
    most_under_way: usize,
}

impl Desk {
    fn new(keys: usize, value_bytes: usize) -> Desk {
        Desk::with_planted(keys, value_bytes, Planted::default())
    }

    fn with_planted(keys: usize, value_bytes: usize, planted: Planted) -> Desk {
        let topology = TopologyBuilder::of(["a", "b", "c"]).hash_seed(0).shared();
        let bucket = BucketDefinition::built_in(3);
        let held = (0..keys).map(|i| {
            let key = Key::new(i.to_be_bytes().to_vec()).expect("valid");
            let place = topology.place(&bucket, &key);
            let record = RecordKey::new(3, place.token, bucket.id, &key);
            let mut siblings = Siblings::new();
            let value = Some(Bytes::from(vec![7; value_bytes]));
            let version = Version { value, write_id: WriteId(i as u128), written_at: Hlc(9) };
            siblings.event(&VersionVector::new(), Dot::new(ActorId(1), i as u64 + 1), version);
            let digest = Digest::of(bucket.id, &key, &siblings.header());
            (record.as_bytes().to_vec(), Hint { record, bucket: BucketId::DEFAULT, key, digest, siblings })
        });
        let (me, target) = (NodeId::of_name("a"), NodeId::of_name("b"));
        let limits = Limits { handoff_delay: DELAY, ..Limits::default() };
        let held = held.collect();
        let configurations = Arc::new(Configurations::of_file(topology.clone()));
        let shard = Shard { node: me, number: 0, configurations, topology, limits, metrics: Arc::default(), planted };
        let mut desk = Desk {
            held,
            handoff: Handoff::new(&shard.limits, StdRng::seed_from_u64(1)),
            shard,
            target,
            now: Instant(1_000_000),
            sent: VecDeque::new(),
            readdressed: 0,
            most_under_way: 0,
        };
        desk.handoff.handle_new_hint(&desk.shard, desk.now, target);
        desk
    }

    fn up(&mut self) {
        self.handoff.handle_up(self.now, self.target);
    }

    /// Does what the machine wants.
    fn work(&mut self) {
        while let Some(output) = self.handoff.poll_output() {
            match output {
                Output::Look { target, from } => {
                    let from = from.unwrap_or_default();
                    let mut found = self.held.range(from..);
                    let hints: Vec<_> = found.by_ref().take(64).map(|(_, hint)| hint.clone()).collect();
                    let next = found.next().map(|(key, _)| key.clone());
                    self.handoff.handle_page(&self.shard, self.now, target, HintPage { hints, next });
                }
                Output::Send { id, request: Request::Replica(ReplicaRequest::Merge(merge)), .. } => {
                    self.sent.push_back((self.now, id, merge));
                    self.most_under_way = self.most_under_way.max(self.sent.len());
                }
                Output::Send { .. } => panic!("handoff sends merges only"),
                Output::Delivered { record, digest, .. } => {
                    let held = self.held.remove(record.as_bytes()).expect("delivered once");
                    assert_eq!(held.digest, digest);
                }
                Output::Readdress { .. } => self.readdressed += 1,
            }
        }
    }

    fn answer(&mut self, reply: Reply) {
        let (_, id, _) = self.sent.pop_front().expect("a delivery under way");
        self.handoff.handle_reply(&self.shard, self.now, self.target, id, reply);
        self.work();
    }

    fn wake(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.handoff.handle_timeout(&self.shard, self.now);
        self.work();
    }

    /// Lets time pass until the machine has nothing to do or that moment has come; every delivery is acknowledged after
    /// `takes`.
    fn run(&mut self, until: Instant, takes: Duration) {
        while self.now < until {
            let answered = self.sent.front().map(|(at, ..)| *at + takes);
            let wakes = self.handoff.poll_timeout(&self.shard);
            match (answered, wakes) {
                (None, None) => return,
                (Some(at), wakes) if wakes.is_none_or(|wakes| at <= wakes) => {
                    self.now = self.now.max(at);
                    self.answer(Reply::Acked);
                }
                (_, Some(wakes)) => self.wake(wakes.max(self.now)),
                (Some(_), None) => unreachable!("an answer is always earlier than never"),
            }
        }
    }
}

#[test]
fn ten_thousand_keys_are_delivered_within_thirty_seconds_of_the_return() {
    // From a disk that syncs at once to one that takes 200 ms each time.
    for takes in [1, 5, 50, 200].map(Duration::from_millis) {
        let mut desk = Desk::new(10_000, 100);
        desk.up();
        let back = desk.now;
        desk.run(back + Duration::from_secs(60), takes);
        assert_eq!(desk.held.len(), 0);
        let took = desk.now.since(back);
        assert!(took < Duration::from_secs(40), "{took:?} with answers after {takes:?}");
        assert!(takes > Duration::from_millis(50) || took < Duration::from_secs(30), "{took:?} at {takes:?}");
        assert!(desk.most_under_way <= KEYS_UNDER_WAY);
        assert_eq!(desk.handoff.poll_timeout(&desk.shard), None, "nothing left to do");
        assert_eq!(desk.handoff.figures(desk.now, desk.target), (10_000, 0.0));
    }
}

#[test]
fn a_target_is_left_alone_until_it_has_been_up_for_a_while() {
    let mut desk = Desk::new(3, 1);
    assert_eq!(desk.handoff.poll_timeout(&desk.shard), None, "it is not up");
    desk.up();
    let due = desk.handoff.poll_timeout(&desk.shard).expect("a walk is due");
    assert!((DELAY..DELAY * 3 / 2).contains(&due.since(desk.now)));
    desk.wake(due - Duration::from_micros(1));
    assert!(desk.sent.is_empty());
    desk.handoff.handle_lost(desk.now, desk.target);
    assert_eq!(desk.handoff.poll_timeout(&desk.shard), None);
    desk.up();
    desk.wake(due);
    assert!(desk.sent.is_empty(), "it has come back once more since");
    desk.wake(due + DELAY * 2);
    assert_eq!(desk.sent.len(), 3);
}

#[test]
fn a_target_that_is_late_now_and_then_is_not_starved() {
    let mut desk = Desk::new(3, 1);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    desk.handoff.handle_unresponsive(desk.now, desk.target);
    desk.sent.clear();
    assert_eq!(desk.handoff.poll_timeout(&desk.shard), None);
    desk.up();
    let due = desk.handoff.poll_timeout(&desk.shard).expect("a walk is due");
    assert!(due.since(desk.now) < DELAY / 2);
}

#[test]
fn what_is_under_way_is_bounded_in_bytes() {
    let mut desk = Desk::new(20, 400 << 10);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    assert_eq!(desk.sent.len(), 3, "the third one reaches a mebibyte");
    desk.answer(Reply::Acked);
    assert_eq!(desk.sent.len(), 3);
}

#[test]
fn what_was_lost_or_came_too_late_is_sent_again_by_a_later_walk() {
    let mut desk = Desk::new(3, 1);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    let late = desk.sent.drain(..).next().expect("three under way").1;
    desk.handoff.handle_lost(desk.now, desk.target);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    assert_eq!(desk.sent.len(), 3, "from the start");
    desk.handoff.handle_reply(&desk.shard, desk.now, desk.target, late, Reply::Acked);
    desk.work();
    assert_eq!(desk.held.len(), 3, "an answer to what was given up means nothing");
    let expires = desk.handoff.poll_timeout(&desk.shard).expect("a deadline");
    desk.sent.clear();
    desk.wake(expires);
    assert!(desk.sent.is_empty());
    let again = desk.handoff.poll_timeout(&desk.shard).expect("another walk");
    assert!(again > expires);
    desk.run(again + Duration::from_secs(1), Duration::from_millis(1));
    assert_eq!(desk.held.len(), 0);
}

#[test]
fn a_target_that_can_take_nothing_is_asked_again_later_and_later() {
    let mut desk = Desk::new(1000, 1);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        while !desk.sent.is_empty() {
            desk.answer(Reply::Refused(Refusal::StorageFull));
        }
        let next = desk.handoff.poll_timeout(&desk.shard).expect("another walk");
        pauses.push(next.since(desk.now));
        desk.wake(next);
        assert!(!desk.sent.is_empty() && desk.sent.len() <= KEYS_UNDER_WAY, "it did not go on through all keys");
    }
    assert!(pauses.is_sorted() && pauses[0] < DELAY && pauses[7] == DELAY * 4, "{pauses:?}");
    assert_eq!(desk.held.len(), 1000);
    desk.run(desk.now + Duration::from_secs(60), Duration::from_millis(1));
    assert_eq!(desk.held.len(), 0);
}

#[test]
fn an_overloaded_target_is_not_asked_before_the_time_it_names() {
    let mut desk = Desk::new(200, 1);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    let under_way = desk.sent.len();
    desk.answer(Reply::Refused(Refusal::Overloaded { retry_after_ms: 70 }));
    desk.answer(Reply::Acked);
    assert_eq!(desk.sent.len(), under_way - 2, "nothing more is sent");
    desk.wake(desk.now + Duration::from_millis(70));
    assert!(desk.sent.len() > under_way - 2);
    desk.run(desk.now + Duration::from_secs(60), Duration::from_millis(1));
    assert_eq!(desk.held.len(), 0, "what was refused is sent again");
}

#[test]
fn a_hint_that_is_kept_during_a_walk_is_met_by_another() {
    for new_meanwhile in [false, true] {
        let mut desk = Desk::new(3, 1);
        desk.up();
        desk.wake(desk.now + DELAY * 2);
        if new_meanwhile {
            desk.handoff.handle_new_hint(&desk.shard, desk.now, desk.target);
        }
        (0..3).for_each(|_| desk.answer(Reply::Acked));
        assert_eq!(desk.handoff.poll_timeout(&desk.shard).is_some(), new_meanwhile);
    }
}

#[test]
fn a_refusal_for_want_of_ownership_has_the_owners_looked_up() {
    let mut desk = Desk::new(1, 1);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    desk.answer(Reply::Refused(Refusal::NotOwner { ring_version: 2 }));
    assert_eq!((desk.readdressed, desk.held.len()), (1, 1));
    assert!(desk.handoff.poll_timeout(&desk.shard).is_some(), "if it stays, it is tried again");
}

#[test]
fn what_is_held_for_a_stranger_or_for_oneself_is_readdressed_without_asking_anybody() {
    for stranger in [NodeId(77), Desk::new(0, 1).shard.node] {
        let mut desk = Desk::new(100, 1);
        desk.target = stranger;
        desk.handoff.handle_new_hint(&desk.shard, desk.now, stranger);
        while let Some(at) = desk.handoff.poll_timeout(&desk.shard) {
            desk.wake(at);
        }
        assert_eq!((desk.readdressed, desk.sent.len()), (100, 0));
    }
}

#[test]
fn an_empty_state_is_not_sent() {
    let mut desk = Desk::new(1, 1);
    let hint = desk.held.values_mut().next().expect("one");
    hint.siblings = Siblings::new();
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    assert_eq!((desk.sent.len(), desk.held.len()), (0, 0));
}

#[test]
fn a_recipient_is_one_until_all_is_delivered_or_it_takes_nothing() {
    let mut desk = Desk::new(3, 1);
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [], "it is not up");
    desk.up();
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [desk.target], "soon");
    desk.run(desk.now + Duration::from_secs(60), Duration::from_millis(5));
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), []);
    let mut desk = Desk::new(3, 1);
    desk.up();
    let due = desk.handoff.poll_timeout(&desk.shard).expect("a walk is due");
    desk.wake(due);
    while !desk.sent.is_empty() {
        assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [desk.target]);
        desk.answer(Reply::Refused(Refusal::StorageFull));
    }
    let again = desk.handoff.poll_timeout(&desk.shard).expect("another try is due");
    desk.wake(again);
    while !desk.sent.is_empty() {
        desk.answer(Reply::Refused(Refusal::StorageFull));
    }
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [], "others may heal it meanwhile");
}

#[test]
fn what_is_being_delivered_for_long_keeps_nobody_from_exchanges() {
    deliver_for_long(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn hints_first_without_bound_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::HintsFirstWithoutBound, deliver_for_long);
}

fn deliver_for_long(planted: Planted) {
    let mut desk = Desk::with_planted(3, 1, planted);
    desk.up();
    let due = desk.handoff.poll_timeout(&desk.shard).expect("a walk is due");
    desk.wake(due);
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [desk.target]);
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now + DELAY * 10), [], "still under way");
}

/// Answers everything but what `deaf` chooses, until nothing else is left to do at once.
fn answer_others(desk: &mut Desk, reply: &Reply, deaf: impl Fn(&Merge) -> bool) {
    while let Some(at) = desk.sent.iter().position(|(_, _, merge)| !deaf(merge)) {
        let (_, id, _) = desk.sent.remove(at).expect("it is there");
        desk.handoff.handle_reply(&desk.shard, desk.now, desk.target, id, reply.clone());
        desk.work();
    }
}

fn is_huge(merge: &Merge) -> bool {
    merge.siblings.value_bytes() > 1 << 20
}

impl Desk {
    /// Some small keys, and the first of them is one of so many bytes.
    fn with_huge(keys: usize, huge: usize, bytes: usize) -> Desk {
        let mut desk = Desk::new(keys, 1);
        let large = Desk::new(huge, bytes);
        for (name, hint) in large.held.into_iter().take(huge) {
            desk.held.insert(name, hint);
        }
        desk
    }
}

#[test]
fn a_key_that_is_never_answered_holds_up_no_other() {
    let mut desk = Desk::with_huge(200, 1, 32 << 20);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    while desk.held.len() > 1 {
        answer_others(&mut desk, &Reply::Acked, is_huge);
        assert!(desk.sent.len() <= 1, "the large one is all that is not answered");
        if desk.held.len() > 1 {
            let next = desk.handoff.poll_timeout(&desk.shard).expect("the others are under way");
            assert!(
                next.since(desk.now) < Duration::from_millis(100),
                "they wait for their pace, and for nothing else"
            );
            desk.wake(next);
        }
    }
    // It is tried again, less and less often, and what is kept meanwhile does not wait for that.
    let mut pauses = Vec::new();
    for _ in 0..8 {
        desk.sent.clear();
        let expires = desk.handoff.poll_timeout(&desk.shard).expect("a deadline");
        desk.wake(expires);
        let again = desk.handoff.poll_timeout(&desk.shard).expect("another try");
        pauses.push(again.since(expires));
        desk.wake(again);
        assert_eq!(desk.sent.len(), 1);
    }
    assert!(pauses.is_sorted() && pauses[7] == DELAY * PUT_OFF_DELAYS, "{pauses:?}");
    desk.run(desk.now + Duration::from_secs(60), Duration::from_millis(1));
    assert_eq!((desk.held.len(), desk.handoff.poll_timeout(&desk.shard)), (0, None));
}

#[test]
fn a_key_that_is_refused_again_and_again_ends_no_walk() {
    let mut desk = Desk::new(300, 1);
    let not_taken = desk.held.values().next().expect("many").key.clone();
    let refused = |merge: &Merge| merge.key == not_taken;
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    while desk.held.len() > 1 {
        answer_others(&mut desk, &Reply::Acked, refused);
        answer_others(&mut desk, &Reply::Refused(Refusal::Damaged), |merge| !refused(merge));
        if desk.held.len() > 1 {
            let next = desk.handoff.poll_timeout(&desk.shard).expect("the walk goes on");
            assert!(next.since(desk.now) < Duration::from_millis(100), "it was not ended");
            desk.wake(next);
        }
    }
    assert_eq!(desk.handoff.recipients(&desk.shard, desk.now), [], "others may heal what it does not take");
    // One more is kept: it does not wait until the key that is refused is tried again.
    desk.handoff.handle_new_hint(&desk.shard, desk.now, desk.target);
    let walk = desk.handoff.poll_timeout(&desk.shard).expect("a walk");
    assert!(walk <= desk.now + DELAY / 4);
    desk.run(desk.now + Duration::from_secs(120), Duration::from_millis(1));
    assert_eq!(desk.held.len(), 0, "in the end it is taken");
}

#[test]
fn a_target_that_answers_nothing_is_left_alone() {
    let mut desk = Desk::new(1000, 1);
    desk.up();
    let began = desk.now + DELAY * 2;
    desk.wake(began);
    let mut tried = BTreeSet::new();
    let again = loop {
        tried.extend(desk.sent.drain(..).map(|(_, _, merge)| merge.key));
        let next = desk.handoff.poll_timeout(&desk.shard).expect("a deadline, or another walk");
        if next.since(desk.now) >= DELAY / 4 && desk.now.since(began) > Duration::from_secs(1) {
            break next;
        }
        desk.wake(next);
    };
    assert!(tried.len() <= KEYS_UNDER_WAY, "it was not gone on through all keys");
    desk.wake(again);
    assert!(!desk.sent.is_empty(), "and the next walk tries again");
}

#[test]
fn states_larger_than_the_window_go_one_at_a_time_beside_it() {
    let mut desk = Desk::with_huge(100, 3, 4 << 20);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    let mut in_order = 0;
    while !desk.held.is_empty() {
        let huge = desk.sent.iter().filter(|(_, _, merge)| is_huge(merge)).count();
        assert!(huge <= 1, "{huge} at once");
        assert!(desk.sent.len() <= KEYS_UNDER_WAY + 1);
        in_order += usize::from(huge == 1 && desk.sent.len() > 1);
        match desk.sent.is_empty() {
            true => desk.wake(desk.handoff.poll_timeout(&desk.shard).expect("there is more")),
            false => desk.answer(Reply::Acked),
        }
    }
    assert!(in_order > 0, "others were under way beside one");
}

#[test]
fn a_large_state_is_given_the_time_to_carry_it() {
    let mut desk = Desk::with_huge(0, 1, 64 << 20);
    desk.up();
    desk.wake(desk.now + DELAY * 2);
    let expires = desk.handoff.poll_timeout(&desk.shard).expect("a deadline");
    assert!(expires.since(desk.now) >= time_to_carry(64 << 20) * 4);
}
