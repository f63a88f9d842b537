//! The rules of the protocol, one test each, on engines joined by a wire that the test holds in its hands. Where the
//! protocol gives a figure in brackets, the test fails without the rule.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::causality::ContextKey;
use driftless_proto::client::{Delete, Deleted, Get, Put, Read, Request as Ask, Stored};
use driftless_proto::{
    BucketDefinition, BucketId, BucketName, Conflict, ContextToken, Durability, Failure, Hlc, Key, Refusal, Siblings,
    Unknown, Version, VersionVector, WriteId,
};
use driftless_ring::{Member, Partitions, Ring, RingSpec};

use crate::peer::{Merge, State};
use crate::replica::record::{self, RecordKey};
use crate::replica::store::StoreError;
use crate::store::memory::MemoryStore;

use super::*;

const SIBLINGS: BucketId = BucketId(0);
const LWW: BucketId = BucketId(1);
const STRICT: BucketId = BucketId(2);
const BUFFERED: BucketId = BucketId(3);

/// Three engines. Messages wait in `wire` until the test lets them travel; syncs wait until it lets them happen.
struct Trio {
    topology: Arc<Topology>,
    engines: Vec<Engine<MemoryStore>>,
    now: Now,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    syncs: Vec<(usize, BatchSeq)>,
    replies: Vec<(u64, Response)>,
    halts: Vec<String>,
    asked: u64,
    limits: Limits,
}

impl Trio {
    fn new() -> Trio {
        Trio::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Trio {
        let members = ["a", "b", "c"].map(|name| Member::new(name, format!("{name}.test:1")));
        let spec = RingSpec {
            partitions: Partitions::new(8).expect("a power of two"),
            hash_seed: 0,
            members: members.into(),
            classes: [3].into(),
        };
        let built_in = BucketDefinition::built_in(3);
        let bucket = |id: BucketId, name: &str| BucketDefinition {
            id,
            name: BucketName::new(name).expect("valid"),
            read_all: 0,
            ..built_in.clone()
        };
        let buckets = vec![
            BucketDefinition { read_all: 0, ..built_in.clone() },
            BucketDefinition { conflict: Conflict::Lww, ..bucket(LWW, "lww") },
            BucketDefinition { sloppy: false, ..bucket(STRICT, "strict") },
            BucketDefinition { durability: Durability::Buffered, ..bucket(BUFFERED, "buffered") },
        ];
        let ring = Ring::first(spec).expect("a valid ring");
        let topology = Arc::new(Topology::new("test", ring, buckets).expect("a valid topology"));
        let now = Now { instant: Instant(1_000_000), wall: Hlc::from_millis(1_000_000) };
        let mut trio = Trio {
            engines: Vec::new(),
            topology,
            now,
            wire: VecDeque::new(),
            syncs: Vec::new(),
            replies: Vec::new(),
            halts: Vec::new(),
            asked: 0,
            limits,
        };
        for i in 0..3 {
            let engine = trio.engine(i, i as u8, MemoryStore::new());
            trio.engines.push(engine);
        }
        (0..3).for_each(|i| trio.connect(i));
        trio.settle();
        trio
    }

    /// Starts a node again, as a new process with this store.
    fn restart(&mut self, i: usize, seed: u8, store: MemoryStore) {
        self.engines[i] = self.engine(i, seed, store);
        self.connect(i);
    }

    fn connect(&mut self, i: usize) {
        let me = self.id(i);
        for peer in self.ids().into_iter().filter(|id| *id != me) {
            self.engines[i].handle_peer_up(self.now, peer);
        }
    }

    fn engine(&self, i: usize, seed: u8, store: MemoryStore) -> Engine<MemoryStore> {
        let secret = ContextKey { id: 1, secret: [9; 32] };
        let config = EngineConfig {
            node: self.id(i),
            shard: 0,
            topology: self.topology.clone(),
            context_keys: ContextKeys::new(vec![secret]).expect("one key"),
            limits: self.limits.clone(),
            metrics: Arc::default(),
            seed: [seed; 32],
        };
        Engine::new(config, store, self.now)
    }

    fn id(&self, i: usize) -> NodeId {
        self.ids()[i]
    }

    fn ids(&self) -> Vec<NodeId> {
        self.topology.ring().members().iter().map(|member| member.id).collect()
    }

    fn index(&self, node: NodeId) -> usize {
        self.ids().iter().position(|id| *id == node).expect("a member")
    }

    /// Hands a client's request to a node, and lets the node finish its turn.
    fn ask(&mut self, i: usize, ask: Ask) -> u64 {
        let request = self.hand_in(i, ask);
        self.turn(i);
        request
    }

    /// Hands a client's request to a node within a turn that the test ends.
    fn hand_in(&mut self, i: usize, ask: Ask) -> u64 {
        self.asked += 1;
        let tag = ClientTag { connection: 0, request: self.asked };
        let deadline = self.now.instant + Duration::from_secs(5);
        self.engines[i].handle_client(self.now, tag, deadline, ask);
        self.asked
    }

    fn turn(&mut self, i: usize) {
        self.engines[i].commit(self.now);
        while let Some(output) = self.engines[i].poll_output() {
            match output {
                Output::Send { to, message } => self.wire.push_back((self.id(i), to, message)),
                Output::Reply { to, response } => self.replies.push((to.request, response)),
                Output::Sync(seq) => self.syncs.push((i, seq)),
                Output::Halt(reason) => self.halts.push(reason),
            }
        }
    }

    /// Makes one node ask another something, out of the blue, and lets that one finish its turn.
    fn tell(&mut self, from: usize, to: usize, id: u64, request: Request) {
        let deadline = self.now.instant + Duration::from_secs(1);
        let body = Body::Request { deadline, request };
        self.hand_over(from, to, Message { id: RequestId(id), ring_version: 1, body });
    }

    fn hand_over(&mut self, from: usize, to: usize, message: Message) {
        let from = self.id(from);
        self.engines[to].handle_peer(self.now, from, message);
        self.turn(to);
    }

    /// Lets the oldest message travel.
    fn deliver(&mut self) {
        let (from, to, message) = self.wire.pop_front().expect("a message under way");
        let to = self.index(to);
        self.engines[to].handle_peer(self.now, from, message);
        self.turn(to);
    }

    /// Lets all messages travel, and all that they cause; no sync happens.
    fn deliver_all(&mut self) {
        while !self.wire.is_empty() {
            self.deliver();
        }
    }

    fn sync(&mut self, i: usize) {
        let due: Vec<_> = self.syncs.extract_if(.., |(node, _)| *node == i).collect();
        for (_, seq) in due {
            self.engines[i].store_mut().sync_up_to(seq);
            self.engines[i].handle_synced(self.now, seq);
            self.turn(i);
        }
    }

    /// Lets everything happen until nothing is left to happen.
    fn settle(&mut self) {
        loop {
            (0..self.engines.len()).for_each(|i| self.turn(i));
            if self.wire.is_empty() && self.syncs.is_empty() {
                break;
            }
            self.deliver_all();
            (0..self.engines.len()).for_each(|i| self.sync(i));
        }
    }

    /// Loses every message to or from a node, and tells the others.
    fn cut_off(&mut self, i: usize) {
        let gone = self.id(i);
        self.wire.retain(|(from, to, _)| *from != gone && *to != gone);
        for j in (0..3).filter(|j| *j != i) {
            self.engines[j].handle_peer_lost(self.now, gone);
            let other = self.id(j);
            self.engines[i].handle_peer_lost(self.now, other);
            self.turn(j);
        }
        self.turn(i);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        for i in 0..3 {
            self.engines[i].handle_timeout(self.now);
            self.turn(i);
        }
    }

    fn reply(&self, request: u64) -> Option<&Response> {
        self.replies.iter().find(|(id, _)| *id == request).map(|(_, response)| response)
    }

    fn stored(&self, request: u64) -> Stored {
        match self.reply(request) {
            Some(Response::Stored(stored)) => stored.clone(),
            other => panic!("expected Stored, got {other:?}"),
        }
    }

    fn read(&mut self, i: usize, bucket: BucketId, r: u8) -> Read {
        let request = self.ask(i, get(bucket, Some(r)));
        self.settle();
        match self.reply(request) {
            Some(Response::Read(read)) => read.clone(),
            other => panic!("expected Read, got {other:?}"),
        }
    }

    fn put_and_settle(&mut self, i: usize, ask: Ask) -> Stored {
        let request = self.ask(i, ask);
        self.settle();
        self.stored(request)
    }

    fn failure(&self, request: u64) -> Failure {
        match self.reply(request) {
            Some(Response::Failed(failure)) => failure.clone(),
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// What a node's store holds of the key, as applied.
    fn holds(&self, i: usize, bucket: BucketId) -> Siblings {
        let definition = self.topology.bucket(bucket).expect("exists");
        let place = self.topology.place(definition, &key());
        let record = RecordKey::new(place.partition.n, place.token, bucket, &key());
        let value = self.engines[i].store().get(record.as_bytes()).expect("readable");
        value.map_or_else(Siblings::new, |value| record::decode(value).expect("well formed"))
    }
}

fn key() -> Key {
    Key::new("bat").expect("valid")
}

fn put(bucket: BucketId, value: &'static str, context: Option<ContextToken>) -> Ask {
    let write_id = WriteId(xxhash_rust::xxh3::xxh3_128(value.as_bytes()));
    put_with_id(bucket, value, context, write_id)
}

fn put_with_id(bucket: BucketId, value: &'static str, context: Option<ContextToken>, write_id: WriteId) -> Ask {
    Ask::Put(Put {
        bucket,
        key: key(),
        value: Bytes::from_static(value.as_bytes()),
        context,
        w: None,
        sloppy: None,
        write_id,
    })
}

fn get(bucket: BucketId, r: Option<u8>) -> Ask {
    Ask::Get(Get { bucket, key: key(), r, sloppy: None, explain: false })
}

fn delete(bucket: BucketId, context: Option<ContextToken>) -> Ask {
    Ask::Delete(Delete { bucket, key: key(), context, r: None, w: None, sloppy: None, write_id: WriteId(4711) })
}

fn values(read: &Read) -> Vec<&str> {
    read.siblings.iter().map(|sibling| std::str::from_utf8(&sibling.value).expect("text")).collect()
}

#[test]
fn a_put_is_stored_on_every_replica_and_read_from_any() {
    let mut trio = Trio::new();
    let stored = trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    assert_eq!((stored.acks, stored.siblings), (2, 1));
    for i in 0..3 {
        assert_eq!(values(&trio.read(i, SIBLINGS, 3)), ["v1"]);
        assert_eq!(trio.holds(i, SIBLINGS), trio.holds(0, SIBLINGS));
    }
}

#[test]
fn concurrent_puts_become_siblings_and_one_write_with_their_context_replaces_both() {
    let mut trio = Trio::new();
    let (one, two) = (trio.ask(0, put(SIBLINGS, "v1", None)), trio.ask(1, put(SIBLINGS, "v2", None)));
    trio.settle();
    assert_eq!(trio.stored(one).acks + trio.stored(two).acks, 4);
    let read = trio.read(2, SIBLINGS, 3);
    assert_eq!(values(&read).len(), 2);
    let merged = trio.put_and_settle(2, put(SIBLINGS, "v3", read.context));
    assert_eq!(merged.siblings, 1);
    assert!(merged.context.is_some());
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["v3"]);
}

/// [400/400]
#[test]
fn a_put_that_has_siblings_returns_no_context() {
    let mut trio = Trio::new();
    assert!(trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context.is_some());
    let second = trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    assert_eq!((second.siblings, second.context), (2, None));
}

/// [395/400]
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
    trio.tell(0, to, 77, Request::Merge(Merge { bucket: SIBLINGS, key: key(), siblings }));
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
    trio.tell(0, 1, 78, Request::Merge(Merge { bucket: SIBLINGS, key: key(), siblings }));
    assert!(trio.wire.is_empty(), "what the process before left in the page cache is not durable yet");
    trio.sync(1);
    assert_eq!(trio.wire.len(), 1);
}

/// [13/400]
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
    let in_flight = trio.ask(0, put(SIBLINGS, "v2", None));
    trio.wire.clear();
    let mut future = Siblings::new();
    let version = Version { value: Some(Bytes::from_static(b"v9")), write_id: WriteId(9), written_at: Hlc(9) };
    future.event(&VersionVector::new(), driftless_proto::Dot::new(actor, 40), version);
    trio.tell(1, 0, 79, Request::Merge(Merge { bucket: SIBLINGS, key: key(), siblings: future }));
    assert!(matches!(trio.failure(in_flight), Failure::Unknown(Unknown::Timeout { .. })));
    trio.settle();
    let after = trio.put_and_settle(0, put(SIBLINGS, "v3", None));
    assert_eq!(after.acks, 2);
    let newest = trio.holds(0, SIBLINGS).live().iter().map(|(dot, _)| *dot).filter(|dot| dot.actor != actor).count();
    assert_eq!(newest, 1, "v3 was stamped by a new actor");
}

/// [173/400]
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

/// [25/400]
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
fn a_get_without_answers_ends_at_its_deadline() {
    let mut trio = Trio::new();
    let request = trio.ask(0, get(SIBLINGS, Some(3)));
    trio.wire.clear();
    trio.pass(Duration::from_secs(5));
    assert_eq!(trio.failure(request), Failure::Unknown(Unknown::Timeout { acks: 1, needed: 3 }));
    assert_eq!(trio.engines[0].requests_open(), 0);
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
    assert_eq!(trio.engines[0].metrics.read_repairs.get(), 1);
    trio.read(0, SIBLINGS, 3);
    assert_eq!(trio.engines[0].metrics.read_repairs.get(), 1, "nothing was left to repair");
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
    assert_eq!(trio.engines[0].metrics.write_backs.get(), 1);
    let holders = (0..3).filter(|i| !trio.holds(*i, STRICT).is_empty()).count();
    assert!(holders >= 2);
}

#[test]
fn a_delete_removes_what_it_has_seen_and_nothing_else() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    let request = trio.ask(1, delete(SIBLINGS, context));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, siblings: 1, .. }))));
    assert_eq!(values(&trio.read(2, SIBLINGS, 3)), ["v2"]);
}

#[test]
fn a_delete_without_context_reads_first_and_writes_nothing_if_there_is_nothing() {
    let mut trio = Trio::new();
    let nothing = trio.ask(0, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(nothing), Some(Response::Deleted(Deleted { existed: false, .. }))));
    assert!(trio.holds(0, SIBLINGS).is_empty());
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let request = trio.ask(1, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, siblings: 0, .. }))));
    let read = trio.read(2, SIBLINGS, 3);
    assert!(read.siblings.is_empty() && read.context.is_some());
    assert!((0..3).all(|i| trio.engines[i].requests_open() == 0));
}

#[test]
fn a_delete_that_finds_a_tombstone_makes_it_stay_before_it_says_that_nothing_is_there() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.ask(0, delete(SIBLINGS, context));
    trio.wire.clear();
    let again = trio.ask(0, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(again), Some(Response::Deleted(Deleted { existed: false, .. }))));
    let deleted = (0..3).filter(|i| !trio.holds(*i, SIBLINGS).has_values()).count();
    assert!(deleted >= 2, "the tombstone that was seen on one replica is on {deleted}");
}

#[test]
fn a_strict_read_shows_only_what_a_power_cut_cannot_take() {
    let mut trio = Trio::new();
    trio.ask(0, put(STRICT, "v1", None));
    trio.deliver_all();
    let request = trio.ask(0, get(STRICT, None));
    trio.deliver_all();
    assert_eq!(trio.reply(request), None, "applied on three, synced on none");
    let sloppy = trio.ask(0, Ask::Get(Get { bucket: STRICT, key: key(), r: None, sloppy: Some(true), explain: false }));
    trio.deliver_all();
    assert!(trio.reply(sloppy).is_some());
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Read(read)) if values(read) == ["v1"]));
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
    let discarded: u64 = trio.engines.iter().map(|engine| engine.metrics.lww_discarded.get()).sum();
    assert!(discarded >= 1);
}

#[test]
fn a_coordinator_whose_clock_is_far_behind_refuses_to_stamp() {
    let mut trio = Trio::new();
    let wall = trio.now.wall;
    trio.now.wall = Hlc::from_millis(wall.millis() + 120_000);
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.now.wall = wall;
    let request = trio.ask(1, put(SIBLINGS, "v2", context));
    assert_eq!(trio.failure(request), Failure::Refused(Refusal::ClockBehind { behind_ms: 120_000 }));
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
fn work_whose_deadline_has_passed_is_dropped() {
    let mut trio = Trio::new();
    trio.ask(0, put(SIBLINGS, "v1", None));
    trio.now.instant = trio.now.instant + Duration::from_secs(6);
    trio.deliver();
    let merged = (1..3).filter(|i| !trio.holds(*i, SIBLINGS).is_empty()).count();
    assert_eq!(merged, 0);
}

#[test]
fn a_peer_cannot_make_a_node_stamp() {
    let mut trio = Trio::new();
    let write = crate::peer::Write {
        bucket: SIBLINGS,
        key: key(),
        value: Some(Bytes::from_static(b"v")),
        write_id: WriteId(1),
        context: Default::default(),
    };
    trio.tell(1, 0, 1, Request::Write(write));
    assert!(trio.holds(0, SIBLINGS).is_empty() && trio.wire.is_empty());
    assert_eq!(trio.engines[0].metrics.protocol_violations.get(), 1);
}

#[test]
fn another_ring_version_is_refused() {
    let mut trio = Trio::new();
    let deadline = trio.now.instant + Duration::from_secs(1);
    let request = Request::Read(crate::peer::Read {
        bucket: SIBLINGS,
        key: key(),
        want: crate::peer::Want::Full,
        durable: false,
    });
    let message = Message { id: RequestId(1), ring_version: 2, body: Body::Request { deadline, request } };
    trio.hand_over(1, 0, message);
    let refusal = Refusal::StaleRing { theirs: 2, ours: 1 };
    assert_eq!(trio.wire[0].2.body, Body::Reply(Reply::Refused(refusal)));
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
    let scan = |trio: &mut Trio| {
        let scan = client::Scan { bucket: SIBLINGS, arc, after: None, limit: 10, r: None };
        let request = trio.ask(1, Ask::Scan(scan));
        trio.settle();
        match trio.reply(request) {
            Some(Response::Page(page)) => page.clone(),
            other => panic!("expected a page, got {other:?}"),
        }
    };
    assert_eq!(scan(&mut trio), client::Page { keys: vec![key()], next: None });
    let request = trio.ask(1, delete(SIBLINGS, None));
    trio.settle();
    assert!(trio.reply(request).is_some());
    assert_eq!(scan(&mut trio).keys, []);
}

#[test]
fn the_census_counts_what_a_start_finds_and_follows_every_batch() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.pass(Duration::from_millis(5));
    assert_eq!(trio.engines[0].metrics.keys.get(), 1);
    let store = trio.engines[0].store().clone();
    trio.restart(0, 53, store);
    assert_eq!(trio.engines[0].metrics.keys.get(), 0);
    trio.pass(Duration::from_millis(5));
    assert_eq!(trio.engines[0].metrics.keys.get(), 1);
    assert_eq!(trio.engines[0].metrics.value_bytes.get(), 2);
    assert_eq!(trio.engines[0].metrics.partitions_uncounted.get(), 0);
}
