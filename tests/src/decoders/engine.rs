//! A whole engine, given whatever clients and peers may say in whatever order: no bytes from the network may stop a node.
//!
//! ```text
//! input   a list of steps:  kind (1), argument (1), length (2, little endian), bytes
//!   0  a client's frame           1  a message of the peer `argument`     2  commit
//!   3  sync                       4  time passes: bytes are microseconds  5  the peer `argument` is up
//!   6  it is lost                 7  the detector thinks this of it       8  damage: a record's length, key and value
//! ```
//! Seeds are rehearsals: four engines talk, and what the first of them is told is written down. It draws from the same seed
//! in both, so that replies fit the requests that they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_node::config::Limits;
use driftless_node::configurations::Configurations;
use driftless_node::engine::{ClientTag, Engine, EngineConfig, Output};
use driftless_node::liveness::Liveness;
use driftless_node::metrics::Metrics;
use driftless_node::peer::{self, Body, Merge, Message, ReplicaRequest, RequestId, WireMessage};
use driftless_node::planted::Planted;
use driftless_node::replica::store::{Batch, BatchSeq, Store};
use driftless_node::store::memory::MemoryStore;
use driftless_node::time::{Instant, Now};
use driftless_proto::causality::ContextKey;
use driftless_proto::client::{Request, RequestFrame, Response};
use driftless_proto::{ContextKeys, Hlc, frame};
use driftless_ring::NodeId;

use super::wire::SECRET;
use super::{laws, samples};

/// Steps given to the first node of the samples.
pub fn engine(bytes: &[u8]) {
    drop(play(bytes));
}

/// The same; answers what the node has counted before it was left alone.
pub fn play(bytes: &[u8]) -> Counted {
    let mut node = Stage::new(0);
    let mut rest = bytes;
    for _ in 0..STEPS_MAX {
        let [kind, argument, l0, l1, after @ ..] = rest else { break };
        let length = usize::from(u16::from_le_bytes([*l0, *l1])).min(after.len());
        let (payload, after) = after.split_at(length);
        rest = after;
        node.step(*kind, *argument, payload);
        node.outputs();
    }
    let counted = counted(&node.metrics);
    // Left alone it comes to rest, and everybody has been answered.
    for _ in 0..ROUNDS_MAX {
        node.step(COMMIT, 0, &[]);
        node.step(SYNC, 0, &[]);
        node.outputs();
        let Some(at) = node.engine.poll_timeout().filter(|at| *at < node.now.instant + LEFT_ALONE) else { break };
        let passes = at.since(node.now.instant).max(Duration::from_millis(200));
        node.pass(passes);
    }
    // What the last of these moments brought to an end.
    node.outputs();
    assert_eq!(node.engine.requests_open() == 0, node.open.is_empty(), "{:?} wait for an answer", node.open);
    counted
}

/// What a node has done, by name.
pub type Counted = BTreeMap<&'static str, u64>;

fn counted(metrics: &Metrics) -> Counted {
    [
        ("puts acknowledged by primaries", &metrics.acks_primary),
        ("puts acknowledged by fallbacks", &metrics.acks_fallback),
        ("puts coordinated as fallback", &metrics.fallback_coordinated),
        ("hints stored", &metrics.hints_stored),
        ("hints delivered", &metrics.hints_delivered),
        ("retries recognised", &metrics.retries_recognised),
        ("merges that changed nothing", &metrics.merges_unchanged),
        ("writes discarded by last-writer-wins", &metrics.lww_discarded),
        ("batches", &metrics.batches),
        ("changes in them", &metrics.batch_changes),
        ("rounds of anti-entropy", &metrics.aae_rounds),
        ("exchanges", &metrics.aae_exchanges),
        ("keys sent by them", &metrics.aae_keys_sent),
    ]
    .map(|(name, counter)| (name, counter.get()))
    .into()
}

/// One node with its store, and its clients.
pub(super) struct Stage {
    pub(super) engine: Engine<MemoryStore>,
    pub(super) now: Now,
    metrics: Arc<Metrics>,
    me: NodeId,
    members: Vec<NodeId>,
    sync: Option<BatchSeq>,
    asked: u64,
    /// Requests under way.
    open: BTreeSet<u64>,
    damaged: bool,
}

impl Stage {
    /// The node with this number among the members, all others up.
    pub(super) fn new(number: usize) -> Stage {
        let topology = samples::topology();
        let members = samples::members(&topology);
        let now = Now { instant: Instant(1_000_000), wall: Hlc::from_millis(1_700_000_000_000) };
        let metrics = Arc::<Metrics>::default();
        let config = EngineConfig {
            node: members[number],
            shard: 0,
            configurations: Arc::new(Configurations::of_file(topology)),
            context_keys: ContextKeys::new(vec![ContextKey { id: 1, secret: SECRET }]).expect("one key"),
            limits: Limits::default(),
            metrics: metrics.clone(),
            seed: [number as u8; 32],
            planted: Planted::default(),
        };
        let mut engine = Engine::new(config, MemoryStore::new(), now);
        for peer in members.iter().filter(|member| **member != members[number]) {
            engine.handle_peer_up(now, *peer);
        }
        let (open, damaged) = (BTreeSet::new(), false);
        Stage { engine, now, metrics, me: members[number], members, sync: None, asked: 0, open, damaged }
    }

    pub(super) fn step(&mut self, kind: u8, argument: u8, payload: &[u8]) {
        let now = self.now;
        let peer = self.members[usize::from(argument) % (self.members.len() - 1) + 1];
        match kind % STEPS {
            CLIENT => {
                let Ok(RequestFrame { ring_version, deadline_ms, mut request, .. }) = frame::decode(payload) else {
                    return;
                };
                if let Request::Scan(scan) = &mut request {
                    scan.ring_version = ring_version;
                }
                // The shell answers these by itself.
                if matches!(
                    request,
                    Request::Status
                        | Request::Hints
                        | Request::Aae(_)
                        | Request::Damaged
                        | Request::Drain(_)
                        | Request::Figures
                        | Request::Top(_)
                ) || deadline_ms == 0
                {
                    return;
                }
                self.asked += 1;
                self.open.insert(self.asked);
                let tag = ClientTag { connection: 1, request: self.asked };
                let deadline = now.instant + Duration::from_millis(deadline_ms.into());
                self.engine.handle_client(now, tag, now.instant, deadline, request);
            }
            PEER => {
                let Ok(wire) = frame::decode::<WireMessage>(payload) else { return };
                self.engine.handle_peer(now, peer, Message::from_wire(wire, now.instant));
            }
            COMMIT => self.engine.commit(now),
            SYNC => {
                if let Some(up_to) = self.sync.take() {
                    let durable = self.engine.store_mut().sync_up_to(up_to);
                    self.engine.handle_synced(now, durable);
                }
            }
            PASS => {
                let mut micros = [0; 8];
                micros.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
                self.pass(Duration::from_micros(u64::from_le_bytes(micros)).min(PASS_MAX));
            }
            UP => self.engine.handle_peer_up(now, peer),
            LOST => self.engine.handle_peer_lost(now, peer),
            LIVENESS => {
                let livenesses = [Liveness::Alive, Liveness::Suspect, Liveness::Down];
                self.engine.handle_liveness(now, peer, livenesses[payload.len() % livenesses.len()]);
            }
            _ => {
                let [length, record @ ..] = payload else { return };
                let (key, value) = record.split_at(usize::from(*length).min(record.len()));
                if !key.is_empty() {
                    self.damaged = true;
                    let change = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
                    // The engine numbers its own batches; this one happens behind its back.
                    let mut store = self.engine.store().clone();
                    let seq = store.apply(Batch { changes: vec![change] });
                    if let Ok(seq) = seq {
                        store.sync_up_to(seq);
                        self.engine.store_mut().restore(store.copy());
                    }
                }
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        let millis = self.now.instant.since(Instant(1_000_000)).as_millis() as u64;
        self.now.wall = Hlc::from_millis(1_700_000_000_000 + millis);
        self.engine.handle_timeout(self.now);
    }

    /// Everything that it wants done: answers and messages.
    pub(super) fn outputs(&mut self) -> (Vec<Response>, Vec<(NodeId, Message)>) {
        let (mut responses, mut messages) = (Vec::new(), Vec::new());
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { to, message } => {
                    assert_ne!(to, self.me, "what is for itself does not leave");
                    messages.push((to, message));
                }
                Output::Reply { to, response } => {
                    assert!(self.open.remove(&to.request), "request {} was answered twice", to.request);
                    responses.push(response);
                }
                // Nobody here knows a newer version.
                Output::Behind(_) => {}
                Output::Sync(up_to) => self.sync = self.sync.max(Some(up_to)),
                Output::Halt(reason) => assert!(self.damaged, "stopped by what somebody said: {reason}"),
            }
        }
        (responses, messages)
    }
}

/// Four engines, and what the first one is told.
pub struct Rehearsal {
    stages: Vec<Stage>,
    members: Vec<NodeId>,
    written: Vec<u8>,
    responses: Vec<Response>,
}

impl Default for Rehearsal {
    fn default() -> Rehearsal {
        let members = samples::members(&samples::topology());
        let stages = (0..members.len()).map(Stage::new).collect();
        Rehearsal { stages, members, written: Vec::new(), responses: Vec::new() }
    }
}

impl Rehearsal {
    /// Tells a node something; what the first is told is written down.
    fn tell(&mut self, to: usize, kind: u8, argument: u8, payload: &[u8]) {
        if to == 0 {
            let Ok(length) = u16::try_from(payload.len()) else { return };
            self.written.extend([kind, argument]);
            self.written.extend(length.to_le_bytes());
            self.written.extend(payload);
        }
        self.stages[to].step(kind, argument, payload);
    }

    /// A client asks the first node, and everything goes its way. Answers what it was told.
    pub fn ask(&mut self, request: Request) -> Option<Response> {
        let frame = RequestFrame { id: 1, ring_version: 1, deadline_ms: 1_000, request };
        self.tell(0, CLIENT, 0, &laws::encoded(&frame));
        self.settle();
        self.responses.pop()
    }

    /// The first node and another can, or cannot, speak to each other.
    pub fn connect(&mut self, peer: usize, up: bool) {
        let kind = if up { UP } else { LOST };
        self.tell(0, kind, peer as u8 - 1, &[]);
        let me = self.members[0];
        let now = self.stages[0].now;
        let other = &mut self.stages[peer];
        if up {
            other.engine.handle_peer_up(now, me);
        } else {
            other.engine.handle_peer_lost(now, me);
        }
        self.settle();
    }

    /// A node takes in something that nobody tells the others.
    pub fn plant(&mut self, at: usize, merge: Merge) {
        let now = self.stages[at].now;
        let deadline = now.instant + Duration::from_secs(1);
        let body = Body::Request { deadline, request: peer::Request::Replica(ReplicaRequest::Merge(merge)) };
        let message = Message { id: RequestId(1), ring_version: 1, body };
        let from = if at == 3 { 2 } else { 3 };
        if at == 0 {
            self.tell(0, PEER, from as u8 - 1, &laws::encoded(&message.to_wire(now.instant)));
        } else {
            self.stages[at].engine.handle_peer(now, self.members[from], message);
        }
        self.settle();
    }

    /// Time passes for all.
    pub fn pass(&mut self, time: Duration) {
        self.tell(0, PASS, 0, &(time.as_micros() as u64).to_le_bytes());
        self.stages[1..].iter_mut().for_each(|stage| stage.pass(time));
        self.settle();
    }

    /// What the first node has counted.
    pub fn counted(&self) -> Counted {
        counted(&self.stages[0].metrics)
    }

    /// What the first node was told.
    pub fn written(self) -> Vec<u8> {
        self.written
    }

    /// Delivers everything until nothing is under way.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            for at in 0..self.stages.len() {
                self.tell(at, COMMIT, 0, &[]);
                let (responses, messages) = self.stages[at].outputs();
                self.responses.extend(responses);
                let now = self.stages[at].now;
                if self.stages[at].sync.is_some() {
                    self.tell(at, SYNC, 0, &[]);
                    quiet = false;
                }
                for (to, message) in messages {
                    quiet = false;
                    let to = self.members.iter().position(|member| *member == to).expect("members are spoken to");
                    let wire = laws::encoded(&message.to_wire(now.instant));
                    if to == 0 {
                        self.tell(0, PEER, at as u8 - 1, &wire);
                    } else if let Ok(message) = frame::decode(&wire) {
                        let stage = &mut self.stages[to];
                        let message = Message::from_wire(message, stage.now.instant);
                        stage.engine.handle_peer(stage.now, self.members[at], message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }
}

const CLIENT: u8 = 0;
const PEER: u8 = 1;
const COMMIT: u8 = 2;
const SYNC: u8 = 3;
const PASS: u8 = 4;
const UP: u8 = 5;
const LOST: u8 = 6;
const LIVENESS: u8 = 7;
/// Kinds of steps; the last one is damage.
const STEPS: u8 = 9;

const STEPS_MAX: usize = 1_000;
const ROUNDS_MAX: usize = 300;
/// A step passes no more time.
const PASS_MAX: Duration = Duration::from_secs(100);
/// What is due later than this after the last step is no answer to it.
const LEFT_ALONE: Duration = Duration::from_secs(3);
