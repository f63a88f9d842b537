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

use crate::config::AaeLimits;
use crate::peer::{Merge, ReplicaRequest, State};
use crate::replica::record::{self, RecordKey};
use crate::replica::store::StoreError;
use crate::store::memory::MemoryStore;

use super::*;

mod bounded;
mod clocks;
mod damaged;
mod deleting;
mod durability;
mod healing;
mod hedging;
mod hinting;
mod large;
mod reading;
mod refusing;
mod sloppy;
mod stamping;
mod starving;
mod write_ids;
mod writing;

const SIBLINGS: BucketId = BucketId(0);
const LWW: BucketId = BucketId(1);
const STRICT: BucketId = BucketId(2);
const BUFFERED: BucketId = BucketId(3);

/// Three engines, or more. Messages wait in `wire` until the test lets them travel; syncs wait until it lets them happen.
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
    planted: Planted,
}

impl Trio {
    fn new() -> Trio {
        Trio::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Trio {
        Trio::of(3, limits)
    }

    /// So many engines; keys still have three owners.
    fn of(nodes: usize, limits: Limits) -> Trio {
        Trio::built(nodes, limits, None, Planted::default())
    }

    /// Whose engines make a mistake.
    fn with_planted(nodes: usize, planted: Planted) -> Trio {
        Trio::built(nodes, Limits::default(), None, planted)
    }

    /// With a bucket of another n beside the others.
    fn built(nodes: usize, mut limits: Limits, other: Option<BucketDefinition>, planted: Planted) -> Trio {
        // What other rules leave behind would not stay so for long, and rounds would be between messages on the wire.
        if limits.aae == AaeLimits::default() {
            limits.aae.interval = Duration::from_secs(1_000_000);
        }
        let names = ["a", "b", "c", "d", "e"];
        let members = names[..nodes].iter().map(|name| Member::new(*name, format!("{name}.test:1")));
        let spec = RingSpec {
            partitions: Partitions::new(8).expect("a power of two"),
            hash_seed: 0,
            members: members.collect(),
            classes: other.iter().map(|bucket| bucket.quorum.n()).chain([3]).collect(),
        };
        let built_in = BucketDefinition::built_in(3);
        let bucket = |id: BucketId, name: &str| BucketDefinition {
            id,
            name: BucketName::new(name).expect("valid"),
            read_all: 0,
            ..built_in.clone()
        };
        let mut buckets = vec![
            BucketDefinition { read_all: 0, ..built_in.clone() },
            BucketDefinition { conflict: Conflict::Lww, ..bucket(LWW, "lww") },
            BucketDefinition { sloppy: false, ..bucket(STRICT, "strict") },
            BucketDefinition { durability: Durability::Buffered, ..bucket(BUFFERED, "buffered") },
        ];
        buckets.extend(other);
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
            planted,
        };
        for i in 0..nodes {
            let engine = trio.engine(i, i as u8, MemoryStore::new());
            trio.engines.push(engine);
        }
        (0..nodes).for_each(|i| trio.connect(i));
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
            planted: self.planted.clone(),
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
        for j in (0..self.engines.len()).filter(|j| *j != i) {
            self.engines[j].handle_peer_lost(self.now, gone);
            let other = self.id(j);
            self.engines[i].handle_peer_lost(self.now, other);
            self.turn(j);
        }
        self.turn(i);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        for i in 0..self.engines.len() {
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
    Ask::Get(Get { bucket, key: key(), r, sloppy: None, explain: false, shown: Vec::new() })
}

fn delete(bucket: BucketId, context: Option<ContextToken>) -> Ask {
    Ask::Delete(Delete { bucket, key: key(), context, r: None, w: None, sloppy: None, write_id: WriteId(4711) })
}

fn values(read: &Read) -> Vec<&str> {
    read.siblings.iter().map(|sibling| std::str::from_utf8(&sibling.value).expect("text")).collect()
}
