//! The engines of a cluster, joined by a wire that the test holds in its hands: messages wait in `wire` until the test lets
//! them travel, syncs in `syncs` until it lets them happen, and time stands still.
//!
//! Engines are numbered node by node, in the ring's order of members, and shard by shard. Where each node has one shard, the
//! number of an engine is that of its node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{self, Response, Stored};
use driftless_proto::{Failure, Hlc, Topology};
use driftless_ring::NodeId;
use driftless_testkit::context_keys;

use super::shared_store::Syncs;
use crate::config::Limits;
use crate::configurations::Configurations;
use crate::engine::{ClientTag, Engine, EngineConfig, Output};
use crate::metrics::Metrics;
use crate::peer::{Body, Message, Request, RequestId};
use crate::planted::Planted;
use crate::replica::store::BatchSeq;
use crate::route;
use crate::store::memory::MemoryStore;
use crate::time::{Instant, Now};

/// Engines that have just started, met, and come to rest.
pub(crate) struct EngineCluster<S: Syncs = MemoryStore> {
    pub(crate) topology: Arc<Topology>,
    founding: Arc<Configurations>,
    pub(crate) engines: Vec<Engine<S>>,
    pub(crate) now: Now,
    /// What is under way, oldest first: from whom, to whom, and what.
    pub(crate) wire: VecDeque<(NodeId, NodeId, Message)>,
    /// Syncs that engines wait for.
    pub(crate) syncs: Vec<(usize, BatchSeq)>,
    pub(crate) replies: Vec<(u64, Response)>,
    pub(crate) halts: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) planted: Planted,
    /// Node and shard of each engine.
    seats: Vec<(NodeId, u16)>,
    /// Which engine of a node waits for the reply to a request.
    askers: BTreeMap<(NodeId, RequestId), usize>,
    asked: u64,
}

impl<S: Syncs> EngineCluster<S> {
    /// An engine for each shard of each member, over the store that the node of this number has.
    pub(crate) fn launch(
        topology: Arc<Topology>,
        limits: Limits,
        planted: Planted,
        mut store: impl FnMut(usize) -> S,
    ) -> EngineCluster<S> {
        let members = topology.ring().members();
        let shards = |node: usize| (0..members[node].shards).map(move |shard| (node, shard));
        let seats: Vec<(usize, u16)> = (0..members.len()).flat_map(shards).collect();
        let mut cluster = EngineCluster {
            engines: Vec::new(),
            now: Now { instant: Instant(1_000_000), wall: Hlc::from_millis(1_000_000) },
            wire: VecDeque::new(),
            syncs: Vec::new(),
            replies: Vec::new(),
            halts: Vec::new(),
            limits,
            planted,
            seats: seats.iter().map(|(node, shard)| (members[*node].id, *shard)).collect(),
            askers: BTreeMap::new(),
            asked: 0,
            topology: topology.clone(),
            founding: Arc::new(Configurations::of_file(topology.clone())),
        };
        let metrics: Vec<Arc<Metrics>> = members.iter().map(|_| Arc::default()).collect();
        for (i, (node, _)) in seats.into_iter().enumerate() {
            let engine = cluster.engine(i, i as u8, store(node), metrics[node].clone());
            cluster.engines.push(engine);
        }
        (0..cluster.engines.len()).for_each(|i| cluster.connect(i));
        cluster.settle();
        cluster
    }

    /// Starts an engine again, as part of a new process with this store.
    pub(crate) fn restart(&mut self, i: usize, seed: u8, store: S) {
        self.engines[i] = self.engine(i, seed, store, Arc::default());
        self.connect(i);
    }

    /// An engine can reach all other nodes.
    pub(crate) fn connect(&mut self, i: usize) {
        let me = self.id(i);
        for peer in self.ids().into_iter().filter(|id| *id != me) {
            self.engines[i].handle_peer_up(self.now, peer);
        }
    }

    fn engine(&self, i: usize, seed: u8, store: S, metrics: Arc<Metrics>) -> Engine<S> {
        let (node, shard) = self.seats[i];
        let config = EngineConfig {
            node,
            shard,
            configurations: self.founding.clone(),
            context_keys: context_keys(),
            limits: self.limits.clone(),
            metrics,
            seed: [seed; 32],
            planted: self.planted.clone(),
        };
        Engine::new(config, store, self.now)
    }

    /// The node that an engine belongs to.
    pub(crate) fn id(&self, i: usize) -> NodeId {
        self.seats[i].0
    }

    /// All nodes.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.topology.ring().members().iter().map(|member| member.id).collect()
    }

    /// The first engine of a node.
    pub(crate) fn index(&self, node: NodeId) -> usize {
        self.seats.iter().position(|(id, _)| *id == node).expect("a member")
    }

    /// The engine of a node that serves this shard of it.
    fn engine_of(&self, node: NodeId, shard: Option<u16>) -> usize {
        self.index(node) + usize::from(shard.unwrap_or(0))
    }

    /// The engine of a node that a client's request is for.
    pub(crate) fn engine_for(&self, node: NodeId, ask: &client::Request) -> usize {
        self.engine_of(node, route::of_client(&self.founding, node, ask))
    }

    /// Hands a client's request to an engine, and lets it finish its turn.
    pub(crate) fn ask(&mut self, i: usize, ask: client::Request) -> u64 {
        let request = self.hand_in(i, ask);
        self.turn(i);
        request
    }

    /// Hands a client's request to an engine within a turn that the test ends.
    pub(crate) fn hand_in(&mut self, i: usize, ask: client::Request) -> u64 {
        self.asked += 1;
        let tag = ClientTag { connection: 0, request: self.asked };
        let deadline = self.now.instant + Duration::from_secs(5);
        self.engines[i].handle_client(self.now, tag, self.now.instant, deadline, ask);
        self.asked
    }

    pub(crate) fn turn(&mut self, i: usize) {
        self.engines[i].commit(self.now);
        while let Some(output) = self.engines[i].poll_output() {
            match output {
                Output::Send { to, message } => {
                    let me = self.id(i);
                    if let Body::Request { .. } = message.body {
                        self.askers.insert((me, message.id), i);
                    }
                    self.wire.push_back((me, to, message));
                }
                Output::Reply { to, response } => self.replies.push((to.request, response)),
                Output::Behind(_) => {}
                Output::Sync(seq) => self.syncs.push((i, seq)),
                Output::Halt(reason) => self.halts.push(reason),
            }
        }
    }

    /// Makes one node ask an engine something, out of the blue, and lets that one finish its turn.
    pub(crate) fn tell(&mut self, from: usize, to: usize, id: u64, request: Request) {
        let deadline = self.now.instant + Duration::from_secs(1);
        let body = Body::Request { deadline, request };
        self.hand_over(from, to, Message { id: RequestId(id), ring_version: 1, body });
    }

    pub(crate) fn hand_over(&mut self, from: usize, to: usize, message: Message) {
        let from = self.id(from);
        self.engines[to].handle_peer(self.now, from, message);
        self.turn(to);
    }

    /// Lets the oldest message travel, to the shard that it is for.
    pub(crate) fn deliver(&mut self) {
        let (from, to, message) = self.wire.pop_front().expect("a message under way");
        let i = match &message.body {
            Body::Request { request, .. } => self.engine_of(to, route::of_peer(&self.founding, to, request)),
            Body::Reply(_) => self.askers.get(&(to, message.id)).copied().unwrap_or_else(|| self.index(to)),
        };
        self.engines[i].handle_peer(self.now, from, message);
        self.turn(i);
    }

    /// Lets all messages travel, and all that they cause; no sync happens.
    pub(crate) fn deliver_all(&mut self) {
        while !self.wire.is_empty() {
            self.deliver();
        }
    }

    /// Does the syncs that an engine waits for.
    pub(crate) fn sync(&mut self, i: usize) {
        let due: Vec<_> = self.syncs.extract_if(.., |(engine, _)| *engine == i).collect();
        for (_, seq) in due {
            self.engines[i].store_mut().make_durable(seq);
            self.engines[i].handle_synced(self.now, seq);
            self.turn(i);
        }
    }

    /// Lets everything happen until nothing is left to happen.
    pub(crate) fn settle(&mut self) {
        loop {
            (0..self.engines.len()).for_each(|i| self.turn(i));
            if self.wire.is_empty() && self.syncs.is_empty() {
                break;
            }
            self.deliver_all();
            (0..self.engines.len()).for_each(|i| self.sync(i));
        }
    }

    /// Loses every message to or from a node, the one that this engine belongs to, and tells all the others.
    pub(crate) fn cut_off(&mut self, i: usize) {
        let gone = self.id(i);
        self.wire.retain(|(from, to, _)| *from != gone && *to != gone);
        let (its_own, others): (Vec<usize>, Vec<usize>) =
            (0..self.engines.len()).partition(|engine| self.id(*engine) == gone);
        for j in others {
            self.engines[j].handle_peer_lost(self.now, gone);
            let other = self.id(j);
            its_own.iter().for_each(|own| self.engines[*own].handle_peer_lost(self.now, other));
            self.turn(j);
        }
        its_own.into_iter().for_each(|own| self.turn(own));
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        for i in 0..self.engines.len() {
            self.engines[i].handle_timeout(self.now);
            self.turn(i);
        }
    }

    pub(crate) fn reply(&self, request: u64) -> Option<&Response> {
        self.replies.iter().find(|(id, _)| *id == request).map(|(_, response)| response)
    }

    pub(crate) fn stored(&self, request: u64) -> Stored {
        match self.reply(request) {
            Some(Response::Stored(stored)) => stored.clone(),
            other => panic!("expected Stored, got {other:?}"),
        }
    }

    pub(crate) fn failure(&self, request: u64) -> Failure {
        match self.reply(request) {
            Some(Response::Failed(failure)) => failure.clone(),
            other => panic!("expected a failure, got {other:?}"),
        }
    }
}
