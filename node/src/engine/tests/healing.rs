//! Anti-entropy: what differs becomes equal with nobody reading, by Merge alone, and trees say what stores hold.

use driftless_antientropy::message::{Answer, Ask, Refused};
use driftless_antientropy::{
    Digest, ExchangeId, Initiator, InitiatorOutput, LeafMap, Line, Local, Micros, Records, Settings, Standing, Sums,
    Tree, Unreadable,
};
use driftless_ring::{ArcIndex, Partitions, Token, TokenRange};
use std::ops::ControlFlow;

use super::*;
use crate::peer::{Exchange, Exchanged, Purpose};
use crate::replica::store::Batch;

const ALL: [BucketId; 4] = [SIBLINGS, LWW, STRICT, BUFFERED];

impl Trio {
    /// Lets rounds come and go.
    fn heal(&mut self) {
        for _ in 0..400 {
            self.pass(Duration::from_millis(500));
            self.settle();
        }
    }

    /// A process dies, and another starts in its place.
    fn replace(&mut self, i: usize, store: MemoryStore) {
        self.cut_off(i);
        self.restart(i, 77 + i as u8, store);
        let back = self.id(i);
        for j in (0..3).filter(|j| *j != i) {
            self.engines[j].handle_peer_up(self.now, back);
        }
        self.settle();
    }

    fn fill(&mut self) {
        for bucket in ALL {
            for (i, value) in ["one", "two"].into_iter().enumerate() {
                let write_id = WriteId(u128::from(bucket.0) * 2 + i as u128);
                self.put_and_settle(i, put_with_id(bucket, value, None, write_id));
            }
        }
    }

    fn assert_equal(&self) {
        for bucket in ALL {
            assert!(!self.holds(0, bucket).live().is_empty(), "{bucket:?}");
            assert_eq!(self.holds(0, bucket), self.holds(1, bucket), "{bucket:?}");
            assert_eq!(self.holds(0, bucket), self.holds(2, bucket), "{bucket:?}");
        }
    }

    /// Removes a key from a store without its node's knowledge.
    fn forget_behind_its_back(&mut self, i: usize, bucket: BucketId) {
        let definition = self.topology.bucket(bucket).expect("exists");
        let place = self.topology.place(definition, &key());
        let record = RecordKey::new(place.partition.n, place.token, bucket, &key());
        let batch = Batch { changes: vec![(record.to_bytes(), None)] };
        self.engines[i].store_mut().apply(batch).expect("has room");
    }

    /// What a tree must be: built from the states themselves, not from the digests stored with them.
    pub(super) fn recomputed(&self, i: usize, partition: PartitionId, like: &Tree) -> Tree {
        let partitions = self.topology.ring().partitions();
        let mut tree = Tree::new(LeafMap::new(partitions, partition.arc), like.bits());
        let range = record::arc_range(partition, partitions);
        let add = &mut |name: &[u8], value: Bytes| {
            let entry = record::decode_entry(name, &value).expect("well formed");
            let header = record::decode(value).expect("well formed").header();
            tree.update(entry.token, None, Some(Digest::of(entry.bucket, &entry.key, &header)));
            ControlFlow::Continue(())
        };
        self.engines[i].store().scan(&range.start[..]..&range.end[..], add).expect("readable");
        tree
    }

    fn assert_trees_say_what_stores_hold(&self) {
        for i in 0..3 {
            for (partition, held) in self.engines[i].trees() {
                let Held::Tree(tree) = held else { panic!("node {i} has no tree of {partition}: {held:?}") };
                assert_eq!(*tree, self.recomputed(i, partition, tree), "node {i}, {partition}");
            }
        }
    }

    fn partition(&self) -> PartitionId {
        self.topology.place(self.topology.bucket(SIBLINGS).expect("exists"), &key()).partition
    }

    /// The step that a node answered last, taken off the wire.
    fn answer(&mut self) -> Option<Answer> {
        match self.wire.pop_back()?.2.body {
            Body::Reply(Reply::Exchanged(Exchanged::Step(reply))) => Some(reply.answer),
            other => panic!("not a step: {other:?}"),
        }
    }

    /// Says the first step of an exchange to node 1 in the name of node 0, changed in some way.
    fn start(&mut self, exchange: u64, change: impl Fn(&mut driftless_antientropy::message::Start)) -> Option<Answer> {
        let mut request = first_step(ExchangeId(exchange), self.partition(), self.topology.ring().partitions());
        let Ask::Start(start) = &mut request.ask else { panic!("an exchange begins with Start") };
        change(start);
        let partition = start.partition;
        self.tell(0, 1, 4 * exchange, Request::Exchange(Exchange::Step { partition, request }));
        self.answer()
    }
}

fn quick() -> Trio {
    let aae = AaeLimits { interval: Duration::from_secs(30), ..AaeLimits::default() };
    let mut trio = Trio::with_limits(Limits { aae, ..Limits::default() });
    trio.pass(Duration::from_millis(10));
    trio.settle();
    trio
}

struct Nothing;

impl Records for Nothing {
    fn visit(&self, _: TokenRange, _: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>) -> Result<(), Unreadable> {
        Ok(())
    }
}

fn first_step(exchange: ExchangeId, partition: PartitionId, partitions: Partitions) -> driftless_antientropy::Request {
    let tree = Tree::new(LeafMap::new(partitions, partition.arc), driftless_antientropy::Bits::MIN);
    let local = Local { tree: Some(&tree), records: &Nothing };
    let initiator = Initiator::start(Micros(0), Settings::default(), exchange, partition, tree.bits(), local);
    match initiator.expect("there is a tree").poll_output() {
        Some(InitiatorOutput::Send(request)) => request,
        other => panic!("an exchange begins with a message: {other:?}"),
    }
}

fn differ(token: u64) -> Ask {
    let bytes = postcard::to_stdvec(&vec![token]).expect("can be written");
    Ask::Differ(postcard::from_bytes(&bytes).expect("one number"))
}

#[test]
fn a_replica_that_lost_everything_is_filled_with_nobody_reading() {
    let mut trio = quick();
    trio.fill();
    trio.replace(2, MemoryStore::new());
    assert!(trio.holds(2, SIBLINGS).vv().is_empty());
    trio.heal();
    trio.assert_equal();
    trio.assert_trees_say_what_stores_hold();
    assert_eq!(trio.engines[2].shard.metrics.aae_keys_repaired.get(), ALL.len() as u64, "each key once");
}

#[test]
fn what_two_replicas_miss_of_each_other_goes_both_ways_and_is_merged() {
    let mut trio = quick();
    trio.fill();
    // Each of two nodes stamps a write that nobody else hears of.
    for i in [0, 2] {
        let value = ["zero", "", "two more"][i];
        trio.ask(i, put(SIBLINGS, value, None));
        trio.wire.clear();
        trio.sync(i);
    }
    trio.pass(Duration::from_secs(5));
    trio.wire.clear();
    assert_ne!(trio.holds(0, SIBLINGS), trio.holds(2, SIBLINGS));
    let live = trio.holds(0, SIBLINGS).live().len() + 1;
    trio.heal();
    trio.assert_equal();
    assert_eq!(trio.holds(1, SIBLINGS).live().len(), live, "neither write replaced the other");
    trio.assert_trees_say_what_stores_hold();
}

#[test]
fn repairs_are_merges_and_nothing_else() {
    let mut trio = quick();
    trio.fill();
    trio.replace(1, MemoryStore::new());
    let mut merges = 0;
    for _ in 0..200 {
        trio.pass(Duration::from_millis(500));
        while let Some((_, _, message)) = trio.wire.front() {
            match &message.body {
                Body::Request { request: Request::Replica(ReplicaRequest::Merge(merge)), .. } => {
                    assert_eq!((merge.purpose, merge.hint_for), (Purpose::AntiEntropy, None));
                    merges += 1;
                }
                Body::Request { request: Request::Exchange(_) | Request::Ping, .. } => {}
                Body::Reply(Reply::Exchanged(_) | Reply::Acked | Reply::Pong) => {}
                other => panic!("unexpected {other:?}"),
            }
            trio.deliver();
        }
        (0..3).for_each(|i| trio.sync(i));
    }
    assert!(merges >= ALL.len());
    trio.assert_equal();
}

#[test]
fn a_round_in_sync_costs_less_than_forty_bytes_a_partition_and_ends_at_once() {
    let mut trio = quick();
    trio.fill();
    trio.heal();
    let rounds = |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_rounds.get()).sum::<u64>();
    let bytes = |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_bytes.get()).sum::<u64>();
    let exchanges =
        |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_exchanges.get()).sum::<u64>();
    let before = (rounds(&trio), bytes(&trio), exchanges(&trio));
    trio.heal();
    let partitions = 8 * (rounds(&trio) - before.0);
    assert!(partitions > 0);
    assert!(bytes(&trio) - before.1 <= 40 * partitions, "{} bytes, {partitions}", bytes(&trio) - before.1);
    assert_eq!(exchanges(&trio), before.2, "no tree is looked into");
}

#[test]
fn the_smaller_id_begins_unless_the_operator_asks() {
    let mut trio = quick();
    trio.heal();
    let smallest = (0..3).min_by_key(|i| trio.id(*i)).expect("three");
    let largest = (0..3).max_by_key(|i| trio.id(*i)).expect("three");
    assert!(trio.engines[smallest].shard.metrics.aae_rounds.get() > 0);
    assert_eq!(trio.engines[largest].shard.metrics.aae_rounds.get(), 0);
    trio.engines[largest].handle_aae(trio.now, AaeCommand::Run(None));
    trio.settle();
    assert_eq!(trio.engines[largest].shard.metrics.aae_rounds.get(), 2, "with each peer");
    let now = trio.now.instant;
    assert!(trio.engines[largest].aae(now).partitions.iter().all(|line| line.last_full_round.is_some()));
}

#[test]
fn a_batch_that_was_refused_leaves_no_trace_in_the_trees() {
    let mut trio = quick();
    trio.fill();
    trio.engines[0].store_mut().set_full(true);
    trio.ask(0, put(SIBLINGS, "too much", None));
    trio.settle();
    trio.engines[0].store_mut().set_full(false);
    trio.assert_trees_say_what_stores_hold();
}

#[test]
fn after_a_start_trees_are_rebuilt_and_until_then_say_so() {
    let mut trio = quick();
    trio.fill();
    let store = trio.engines[1].store().clone();
    trio.replace(1, store);
    assert_eq!(trio.start(9, |_| ()), Some(Answer::Refused(Refused::Rebuilding)));
    trio.pass(Duration::from_millis(10));
    trio.settle();
    trio.assert_trees_say_what_stores_hold();
    assert!(matches!(trio.start(10, |_| ()), Some(Answer::Compared(_))));
}

#[test]
fn a_write_during_the_build_is_counted_once() {
    let mut trio = quick();
    trio.fill();
    let store = trio.engines[1].store().clone();
    trio.replace(1, store);
    // No step of the build has been made: the write is ahead of it.
    trio.put_and_settle(1, put(SIBLINGS, "three", None));
    trio.pass(Duration::from_millis(10));
    trio.put_and_settle(1, put(SIBLINGS, "four", None));
    trio.assert_trees_say_what_stores_hold();
}

#[test]
fn the_scrub_finds_a_leaf_that_drifted_and_the_next_round_repairs_the_key() {
    let mut trio = quick();
    trio.fill();
    trio.forget_behind_its_back(2, STRICT);
    assert_eq!(trio.engines[2].shard.metrics.aae_drift.get(), 0);
    // One leaf in eight partitions of 64, each tenth of a second, by lot.
    for _ in 0..6_000 {
        trio.pass(Duration::from_millis(100));
        trio.settle();
    }
    assert_eq!(trio.engines[2].shard.metrics.aae_drift.get(), 1);
    trio.assert_trees_say_what_stores_hold();
    trio.assert_equal();
}

#[test]
fn a_peer_that_vanishes_in_the_middle_leaves_nothing_behind() {
    for messages in 1..40 {
        let mut trio = quick();
        trio.fill();
        trio.replace(2, MemoryStore::new());
        for _ in 0..60 {
            trio.pass(Duration::from_millis(500));
        }
        for _ in 0..messages {
            if !trio.wire.is_empty() {
                trio.deliver();
            }
            (0..3).for_each(|i| trio.sync(i));
            if trio.wire.is_empty() {
                trio.pass(Duration::from_millis(100));
            }
        }
        let store = trio.engines[2].store().clone();
        trio.replace(2, store);
        for i in 0..2 {
            let now = trio.now.instant;
            let gone = trio.id(2);
            let lines = trio.engines[i].aae(now).partitions;
            assert!(lines.iter().all(|line| line.peer != gone || !line.in_progress));
        }
        trio.heal();
        trio.assert_equal();
        trio.assert_trees_say_what_stores_hold();
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut trio = quick();
    trio.fill();
    let foreign = PartitionId { n: 2, arc: ArcIndex(0) };
    let other = PartitionId { n: 3, arc: ArcIndex((trio.partition().arc.0 + 1) % 8) };
    let many = Partitions::new(16).expect("a power of two");
    let refused = |reason| Some(Answer::Refused(reason));
    assert_eq!(trio.start(1, |start| start.format = 9), refused(Refused::OtherFormat));
    assert_eq!(trio.start(2, |start| start.partitions = many), refused(Refused::NotOwner));
    assert_eq!(trio.start(3, |start| start.partition = foreign), refused(Refused::NotOwner));
    let large = driftless_antientropy::Bits::MAX;
    assert_eq!(trio.start(4, |start| start.bits = large), refused(Refused::Coarser(driftless_antientropy::Bits::MIN)));
    // The step is about another partition than its exchange.
    let mut request = first_step(ExchangeId(5), other, trio.topology.ring().partitions());
    let step = |partition, request| Request::Exchange(Exchange::Step { partition, request });
    trio.tell(0, 1, 20, step(trio.partition(), request.clone()));
    assert_eq!(trio.answer(), refused(Refused::Malformed));
    // An exchange that nobody began.
    request.ask = differ(1);
    trio.tell(0, 1, 24, step(other, request.clone()));
    assert_eq!(trio.answer(), refused(Refused::NoSuchExchange));
    request.ask = Ask::Done;
    trio.tell(0, 1, 28, step(other, request));
    assert!(trio.wire.is_empty(), "nobody waits for an answer to that");
    // Tokens that are not of the partition.
    assert!(matches!(trio.start(6, |_| ()), Some(Answer::Compared(_))));
    let token = trio.topology.ring().partitions().range(other.arc).first.0;
    let ask = differ(token);
    let request = driftless_antientropy::Request { exchange: ExchangeId(6), step: 2, ask };
    trio.tell(0, 1, 32, step(trio.partition(), request));
    assert_eq!(trio.answer(), refused(Refused::Malformed));
    assert!(trio.wire.is_empty());
    trio.assert_equal();
}

#[test]
fn an_exchange_from_another_ring_is_refused() {
    let mut trio = quick();
    let partition = trio.partition();
    let request = first_step(ExchangeId(1), partition, trio.topology.ring().partitions());
    let request = Request::Exchange(Exchange::Step { partition, request });
    let body = Body::Request { deadline: trio.now.instant + Duration::from_secs(1), request };
    trio.hand_over(0, 1, Message { id: RequestId(4), ring_version: 9, body });
    assert!(trio.wire.is_empty(), "of a newer one it waits for news");
    let request = first_step(ExchangeId(2), partition, trio.topology.ring().partitions());
    let request = Request::Exchange(Exchange::Step { partition, request });
    let body = Body::Request { deadline: trio.now.instant + Duration::from_secs(1), request };
    trio.hand_over(0, 1, Message { id: RequestId(8), ring_version: 0, body });
    let (.., message) = trio.wire.pop_back().expect("an answer");
    assert!(matches!(message.body, Body::Reply(Reply::Refused(Refusal::StaleRing { .. }))));
}

#[test]
fn a_node_answers_only_so_many_exchanges_at_once() {
    let mut trio = quick();
    for exchange in 1..=2 {
        assert!(matches!(trio.start(exchange, |_| ()), Some(Answer::Compared(_))));
    }
    assert_eq!(trio.start(3, |_| ()), Some(Answer::Refused(Refused::Busy)));
    // Exchanges that nobody continues end by themselves.
    trio.pass(Duration::from_secs(30));
    trio.wire.clear();
    assert!(matches!(trio.start(4, |_| ()), Some(Answer::Compared(_))));
}

#[test]
fn sums_of_what_is_not_shared_are_not_compared() {
    let mut trio = quick();
    let q = trio.topology.ring().partitions();
    let tree = Tree::new(LeafMap::new(q, ArcIndex(0)), driftless_antientropy::Bits::MIN);
    let foreign = PartitionId { n: 1, arc: ArcIndex(0) };
    let lines = [Line::of(foreign, &tree), Line::of(trio.partition(), &tree)];
    let mut sums = Sums::of(q, &lines).next().expect("two lines");
    trio.tell(0, 1, 2, Request::Exchange(Exchange::Sums(sums.clone())));
    sums.format = 7;
    trio.tell(0, 1, 6, Request::Exchange(Exchange::Sums(sums)));
    let mut named = Vec::new();
    while let Some((.., message)) = trio.wire.pop_front() {
        let Body::Reply(Reply::Exchanged(Exchanged::Unequal(unequal))) = message.body else { continue };
        named.push(unequal.partitions);
    }
    let (foreign, partition) = ((foreign, Standing::NotComparable), (trio.partition(), Standing::NotComparable));
    assert_eq!(named, [vec![foreign], vec![foreign, partition]]);
}

#[test]
fn paused_it_neither_begins_nor_answers_nor_repairs() {
    let mut trio = quick();
    trio.fill();
    for i in 0..3 {
        trio.engines[i].handle_aae(trio.now, AaeCommand::Pause);
    }
    trio.replace(2, MemoryStore::new());
    for i in 0..3 {
        trio.engines[i].handle_aae(trio.now, AaeCommand::Pause);
    }
    trio.heal();
    assert!(trio.holds(2, SIBLINGS).vv().is_empty());
    assert_eq!(trio.start(1, |_| ()), Some(Answer::Refused(Refused::Busy)));
    for i in 0..3 {
        assert!(trio.engines[i].aae(trio.now.instant).paused);
        trio.engines[i].handle_aae(trio.now, AaeCommand::Resume);
    }
    trio.heal();
    trio.assert_equal();
}

#[test]
fn a_key_that_stays_different_for_three_rounds_is_reported() {
    let mut trio = quick();
    trio.fill();
    trio.replace(2, MemoryStore::new());
    let unrepaired =
        |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_keys_unrepaired.get()).sum::<u64>();
    for _ in 0..400 {
        trio.pass(Duration::from_millis(500));
        // Everything arrives except repairs, which are said to be done all the same.
        while let Some((from, to, message)) = trio.wire.pop_front() {
            if let Body::Request { request: Request::Replica(ReplicaRequest::Merge(_)), .. } = message.body {
                let body = Body::Reply(Reply::Acked);
                trio.wire.push_back((to, from, Message { id: message.id, ring_version: 1, body }));
            } else {
                let to = trio.index(to);
                trio.engines[to].handle_peer(trio.now, from, message);
                trio.turn(to);
            }
        }
        (0..3).for_each(|i| trio.sync(i));
    }
    assert!(trio.holds(2, SIBLINGS).vv().is_empty());
    assert!(unrepaired(&trio) >= ALL.len() as u64, "{}", unrepaired(&trio));
    trio.heal();
    trio.assert_equal();
}

#[test]
fn a_key_that_is_written_all_the_time_is_no_bug() {
    let mut trio = quick();
    trio.put_and_settle(0, put_with_id(LWW, "one", None, WriteId(1)));
    trio.replace(2, MemoryStore::new());
    for turn in 0..400 {
        trio.pass(Duration::from_millis(500));
        // Other writes, of which the third replica learns nothing either: it differs in every round, each time by another.
        trio.hand_in(0, put_with_id(LWW, "more", None, WriteId(2 + turn)));
        trio.turn(0);
        while let Some((from, to, message)) = trio.wire.pop_front() {
            let third = to == trio.id(2);
            if let Body::Request { request: Request::Replica(ReplicaRequest::Merge(_)), .. } = &message.body
                && third
            {
                let body = Body::Reply(Reply::Acked);
                trio.wire.push_back((to, from, Message { id: message.id, ring_version: 1, body }));
            } else {
                let to = trio.index(to);
                trio.engines[to].handle_peer(trio.now, from, message);
                trio.turn(to);
            }
        }
        (0..3).for_each(|i| trio.sync(i));
    }
    let unrepaired: u64 = trio.engines.iter().map(|engine| engine.shard.metrics.aae_keys_unrepaired.get()).sum();
    assert_eq!(unrepaired, 0);
}

#[test]
fn a_replica_without_room_is_neither_equal_nor_a_bug() {
    let mut trio = quick();
    trio.fill();
    trio.replace(2, MemoryStore::new());
    trio.engines[2].store_mut().set_full(true);
    let restarted = trio.now.instant;
    trio.heal();
    assert!(trio.holds(2, SIBLINGS).vv().is_empty(), "it could not take anything");
    let (now, partition) = (trio.now.instant, trio.partition());
    for i in 0..3 {
        assert_eq!(trio.engines[i].shard.metrics.aae_keys_unrepaired.get(), 0, "node {i}");
        let figures = trio.engines[i].aae(now).partitions;
        let full = trio.id(2);
        let mut pairs = figures.iter().filter(|pair| pair.partition == partition && (i == 2 || pair.peer == full));
        let equal_since = |pair: &crate::reconciler::PartitionFigures| {
            pair.last_full_round.is_some_and(|age| age < now.since(restarted))
        };
        assert!(!pairs.any(equal_since), "node {i} thinks that they are equal");
    }
    trio.engines[2].store_mut().set_full(false);
    trio.heal();
    trio.assert_equal();
}

#[test]
fn what_is_only_under_way_is_not_repaired() {
    let mut trio = quick();
    trio.fill();
    trio.heal();
    let sent = |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_keys_sent.get()).sum::<u64>();
    let looked = |trio: &Trio| trio.engines.iter().map(|engine| engine.shard.metrics.aae_exchanges.get()).sum::<u64>();
    let before = (sent(&trio), looked(&trio));
    let request = trio.hand_in(0, put_with_id(SIBLINGS, "late", None, WriteId(99)));
    trio.turn(0);
    let slow: Vec<_> = trio.wire.drain(..).collect();
    assert_eq!(slow.len(), 2, "to both other replicas");
    for i in 0..3 {
        trio.engines[i].handle_aae(trio.now, AaeCommand::Run(None));
        trio.turn(i);
    }
    // Rounds find the difference; within the second in which it has to last, the write arrives.
    trio.deliver_all();
    trio.pass(Duration::from_millis(500));
    trio.deliver_all();
    trio.wire.extend(slow);
    trio.settle();
    trio.pass(Duration::from_millis(1_100));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Stored(_))));
    trio.assert_equal();
    assert!(looked(&trio) > before.1, "it was looked into");
    assert_eq!(sent(&trio), before.0, "and nothing had to be sent");
}

#[test]
fn a_tree_grows_with_its_keys_while_writes_go_on() {
    let mut trio = quick();
    trio.fill();
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists").clone();
    let partition = trio.partition();
    let names = (0..).map(|number| Key::new(format!("key {number}")).expect("valid"));
    let inside = |name: &Key| trio.topology.place(&bucket, name).partition == partition;
    let names: Vec<Key> = names.filter(inside).take(3_000).collect();
    for (i, name) in names.into_iter().enumerate() {
        let mut siblings = Siblings::new();
        let dot = driftless_proto::Dot::new(driftless_proto::ActorId(7), i as u64 + 1);
        let version = Version { value: Some(Bytes::from_static(b"v")), write_id: WriteId(1), written_at: Hlc(1) };
        siblings.event(&VersionVector::new(), dot, version);
        let merge = Merge { bucket: SIBLINGS, key: name, siblings, hint_for: None, purpose: Purpose::AntiEntropy };
        trio.tell(0, 1, 4 * i as u64, Request::Replica(ReplicaRequest::Merge(merge)));
        if i % 100 == 0 {
            // A step of the build, if one is under way.
            trio.now.instant = trio.now.instant + Duration::from_millis(2);
            trio.engines[1].handle_timeout(trio.now);
            trio.turn(1);
        }
    }
    trio.pass(Duration::from_millis(10));
    for _ in 0..20 {
        trio.now.instant = trio.now.instant + Duration::from_millis(2);
        trio.engines[1].handle_timeout(trio.now);
        trio.turn(1);
    }
    let (_, held) = trio.engines[1].trees().find(|(id, _)| *id == partition).expect("is owned");
    let Held::Tree(tree) = held else { panic!("{held:?}") };
    assert_eq!(tree.bits(), driftless_antientropy::Bits::for_keys(3_001), "{:?}", tree.sum());
    assert!(tree.bits() > driftless_antientropy::Bits::MIN);
    assert_eq!(*tree, trio.recomputed(1, partition, tree));
    assert_eq!(trio.engines[1].shard.metrics.aae_drift.get(), 0);
    trio.heal();
    trio.assert_trees_say_what_stores_hold();
}

#[test]
fn a_damaged_record_that_was_to_be_sent_is_set_apart_and_restored() {
    let mut trio = quick();
    trio.fill();
    trio.damage(0, SIBLINGS, 1);
    trio.replace(2, MemoryStore::new());
    trio.heal();
    assert_eq!(trio.halts, Vec::<String>::new());
    trio.assert_equal();
    trio.assert_trees_say_what_stores_hold();
}
