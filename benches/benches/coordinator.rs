//! The machines alone: three engines over memory, no network, no codec, no disk. What remains of a request's cost when
//! everything around the decisions is taken away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use driftless_benches::{NAMES, context_keys, topology};
use driftless_node::config::Limits;
use driftless_node::configurations::Configurations;
use driftless_node::engine::{ClientTag, Engine, EngineConfig, Output};
use driftless_node::metrics::Metrics;
use driftless_node::planted::Planted;
use driftless_node::store::memory::MemoryStore;
use driftless_node::time::{Instant, Now};
use driftless_proto::client::{Get, Put, Request, Response};
use driftless_proto::{BucketId, ContextToken, Hlc, Key, Topology, WriteId};
use driftless_ring::NodeId;

const KEYS: u64 = 10_000;

/// Three engines that hear each other at once.
struct Trio {
    topology: Arc<Topology>,
    ids: Vec<NodeId>,
    engines: Vec<Engine<MemoryStore>>,
    contexts: Vec<Option<ContextToken>>,
    now: Now,
    requests: u64,
}

impl Trio {
    fn new() -> Trio {
        let topology = topology(NAMES.map(|name| format!("{name}.test:1")));
        let ids: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
        let now = Now { instant: Instant(1), wall: Hlc::from_millis(1) };
        let engine = |node: &NodeId| {
            let config = EngineConfig {
                node: *node,
                shard: 0,
                configurations: Arc::new(Configurations::of_file(topology.clone())),
                context_keys: context_keys(),
                limits: Limits::default(),
                metrics: Arc::new(Metrics::default()),
                seed: [node.0 as u8; 32],
                planted: Planted::default(),
            };
            let mut engine = Engine::new(config, MemoryStore::new(), now);
            ids.iter().filter(|peer| *peer != node).for_each(|peer| engine.handle_peer_up(now, *peer));
            engine
        };
        let engines = ids.iter().map(engine).collect();
        Trio { topology, engines, ids, contexts: vec![None; KEYS as usize], now, requests: 0 }
    }

    /// Runs one request at the key's first replica to its end, and everything that it sets off.
    fn run(&mut self, key: &Key, request: Request) -> Response {
        self.requests += 1;
        self.now.instant = self.now.instant + Duration::from_micros(10);
        let bucket = &self.topology.buckets()[0];
        let owner = self.topology.ring().owners(self.topology.place(bucket, key).partition)[0];
        let first = self.index(owner);
        let deadline = self.now.instant + Duration::from_secs(1);
        let tag = ClientTag { connection: 0, request: self.requests };
        self.engines[first].handle_client(self.now, tag, self.now.instant, deadline, request);
        let mut response = None;
        let mut turns = vec![first];
        while let Some(i) = turns.pop() {
            self.engines[i].commit(self.now);
            while let Some(output) = self.engines[i].poll_output() {
                match output {
                    Output::Send { to, message } => {
                        let to = self.index(to);
                        self.engines[to].handle_peer(self.now, self.ids[i], message);
                        turns.push(to);
                    }
                    Output::Behind(_) => {}
                    Output::Sync(seq) => {
                        self.engines[i].store_mut().sync_up_to(seq);
                        self.engines[i].handle_synced(self.now, seq);
                        turns.push(i);
                    }
                    Output::Reply { response: answer, .. } => response = Some(answer),
                    Output::Halt(reason) => panic!("the memory store failed: {reason}"),
                }
            }
        }
        response.expect("every request is answered")
    }

    fn put(&mut self, i: u64, value: Bytes) {
        let key = key(i);
        let put = Put {
            bucket: BucketId::DEFAULT,
            key: key.clone(),
            value,
            context: self.contexts[i as usize].take(),
            w: None,
            sloppy: None,
            write_id: WriteId(self.requests.into()),
        };
        match self.run(&key, Request::Put(put)) {
            Response::Stored(stored) => self.contexts[i as usize] = stored.context,
            other => panic!("the put was not stored: {other:?}"),
        }
    }

    fn get(&mut self, i: u64) -> Response {
        let key = key(i);
        let get = Get {
            bucket: BucketId::DEFAULT,
            key: key.clone(),
            r: None,
            sloppy: None,
            explain: false,
            shown: Vec::new(),
        };
        self.run(&key, Request::Get(get))
    }

    fn index(&self, node: NodeId) -> usize {
        self.ids.iter().position(|id| *id == node).expect("a member")
    }
}

fn key(i: u64) -> Key {
    Key::new(format!("key-{i:08}")).expect("valid")
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("coordinator");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let value = Bytes::from(vec![7; 1024]);
    let mut trio = Trio::new();
    (0..KEYS).for_each(|i| trio.put(i, value.clone()));
    let mut i = 0;
    group.bench_function("put w=2 of 3, 1 KiB", |b| {
        b.iter(|| {
            i = (i + 7919) % KEYS;
            trio.put(i, value.clone());
        });
    });
    group.bench_function("get r=2 of 3, 1 KiB", |b| {
        b.iter(|| {
            i = (i + 7919) % KEYS;
            trio.get(i)
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
