//! One shard's machines behind the seam: typed inputs and the time go in, outputs and the next deadline come out.
//!
//! A turn of the shell: feed everything that has arrived to the `handle_*` methods, call [`Engine::commit`] once, carry
//! out every [`Output`], and sleep until the next input or [`Engine::poll_timeout`]. Once [`Engine::is_full`] says that the turn
//! has had its share, what has arrived and was not fed waits for the next one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use driftless_antientropy::Held;
use driftless_proto::client::{self, Access, Class, Response};
use driftless_proto::{ContextKeys, Refusal, Topology};
use driftless_ring::{NodeId, PartitionId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bounds::TurnBounds;
use crate::config::Limits;
use crate::coordinator::{self, Asker, Coordinator};
use crate::handoff::{self, Handoff, HintFigures};
use crate::liveness::Liveness;
use crate::liveness::clocks::ClockBounds;
use crate::liveness::reach::{self, Reach};
use crate::metrics::Metrics;
use crate::peer::{Body, Lane, Message, Reply, Request, RequestId, RequestIds, State};
use crate::planted::Planted;
use crate::pressure::{Kind, Pressure};
use crate::reconciler::{self, Figures, Reconciler, View};
use crate::replica::record::RecordKey;
use crate::replica::store::{BatchSeq, Store};
use crate::replica::{self, Replica};
use crate::time::{Instant, Now};

/// Names a client request within the shell, which finds the way back by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag {
    /// Connection, as the shell numbers them.
    pub connection: u64,
    /// The request's id on that connection.
    pub request: u64,
}

/// What the shell has to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send to another node.
    Send {
        /// Never this node itself.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        to: ClientTag,
        /// What to say.
        response: Response,
    },
    /// Sync the store, then call [`Engine::handle_synced`] with the newest batch applied before the sync began.
    Sync(BatchSeq),
    /// The store cannot be trusted any more: stop this process at once, non-zero, with this reason.
    Halt(String),
}

/// Everything an engine is made from.
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// Which of its shards.
    pub shard: u16,
    /// The agreed shape of the cluster.
    pub topology: Arc<Topology>,
    /// Seals and opens context tokens.
    pub context_keys: ContextKeys,
    /// Bounds and times.
    pub limits: Limits,
    /// What to count.
    pub metrics: Arc<Metrics>,
    /// Fresh random bits at every start: actors and request ids come from them.
    pub seed: [u8; 32],
    /// A mistake to make, in tests of the rig that looks for mistakes.
    pub planted: Planted,
}

/// What an operator may tell anti-entropy. It lasts until the node stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AaeCommand {
    /// Compare now: one partition, or all.
    Run(Option<PartitionId>),
    /// Begin nothing, answer nothing, repair nothing.
    Pause,
    /// Go on.
    Resume,
}

/// One shard: its replica, the requests it coordinates, and what it does to keep replicas equal: the delivery of what it
/// holds for others, and anti-entropy.
pub struct Engine<S: Store> {
    node: NodeId,
    shard: u16,
    ring_version: u64,
    metrics: Arc<Metrics>,
    reach: Reach,
    pings: RequestIds,
    replica: Replica<S>,
    coordinator: Coordinator,
    reconciler: Reconciler,
    pressure: Pressure,
    /// When clients' requests arrived whose latency counts.
    arrivals: BTreeMap<ClientTag, (Kind, Instant)>,
    handoff: Handoff,
    /// When the figures of handoff may be published again, and whether they have changed.
    figures_due: Instant,
    figures_stale: bool,
    bounds: TurnBounds,
    /// What this turn has been given: inputs, and bytes in them.
    inputs: usize,
    bytes_taken: usize,
    /// Pages of hints that were asked for; a turn looks up one.
    looks: VecDeque<(NodeId, Option<Vec<u8>>)>,
    outputs: VecDeque<Output>,
}

impl<S: Store> Engine<S> {
    /// A shard that has just started. No peer can be reached yet.
    pub fn new(config: EngineConfig, store: S, now: Now) -> Engine<S> {
        let mut rng = StdRng::from_seed(config.seed);
        let replica = Replica::new(&config, store, StdRng::from_rng(&mut rng), now);
        let EngineConfig { node, shard, topology, context_keys, limits, metrics, planted, .. } = config;
        let pings = RequestIds::new(Lane::Reach, rng.random());
        let deliveries = StdRng::from_rng(&mut rng);
        let handoff = Handoff::new(node, topology.clone(), &limits, metrics.clone(), deliveries, planted.clone());
        let (bounds, aae_rng) = (limits.turn, StdRng::from_rng(&mut rng));
        let reconciler = Reconciler::new(node, topology.clone(), &limits, metrics.clone(), &replica, now, aae_rng);
        let coordinator = Coordinator::new(node, topology.clone(), context_keys, limits, metrics.clone(), rng, planted);
        let ring_version = topology.ring().version().0;
        let mut engine = Engine {
            node,
            shard,
            ring_version,
            metrics,
            reach: Reach::default(),
            pings,
            replica,
            coordinator,
            handoff,
            figures_due: now.instant,
            figures_stale: false,
            reconciler,
            pressure: Pressure::default(),
            arrivals: BTreeMap::new(),
            bounds,
            inputs: 0,
            bytes_taken: 0,
            looks: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        engine.route(now);
        engine
    }

    /// A client asks. `deadline` is when it stops waiting.
    pub fn handle_client(&mut self, now: Now, from: ClientTag, deadline: Instant, request: client::Request) {
        self.inputs += 1;
        self.bytes_taken += request.value_bytes();
        if let client::Request::Restore(restore) = &request
            && restore.accept_loss
            && !self.replica.is_damaged(restore.bucket, &restore.key)
        {
            let response = Response::Restored(client::Restored { was_damaged: false, answered: 0 });
            return self.outputs.push_back(Output::Reply { to: from, response });
        }
        let kind = match request.class() {
            Class::Key { access: Access::Read, .. } => Some(Kind::Read),
            Class::Key { access: Access::Write, .. } => Some(Kind::Write),
            Class::Key { access: Access::Restore, .. } | Class::Arc { .. } | Class::Node => None,
        };
        if let Some(kind) = kind {
            self.arrivals.insert(from, (kind, now.instant));
        }
        self.coordinator.handle_request(now, Asker::Client(from), deadline, request, false);
        self.route(now);
    }

    /// A peer speaks.
    pub fn handle_peer(&mut self, now: Now, from: NodeId, message: Message) {
        self.inputs += 1;
        self.bytes_taken += message.body.value_bytes();
        if message.ring_version != self.ring_version {
            return self.refuse_other_ring(from, &message);
        }
        match message.body {
            Body::Request { deadline, .. } if deadline <= now.instant => {
                self.metrics.expired.inc();
            }
            Body::Request { deadline, request: Request::Forward(request) } => {
                self.coordinator.handle_request(now, Asker::Peer(from, message.id), deadline, request, true);
            }
            Body::Request { request: Request::Ping, .. } => self.send(from, message.id, Body::Reply(Reply::Pong)),
            Body::Request { request: Request::Exchange(exchange), .. } => {
                let view = view(&self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_request(now, &view, from, message.id, exchange);
            }
            Body::Request { request: Request::Replica(request), .. } => {
                self.replica.handle_request(from, message.id, request);
            }
            Body::Reply(reply) => {
                self.reach.handle_answer(from);
                self.take_reply(now, from, message.id, reply);
            }
        }
        self.route(now);
    }

    /// What this shard asked of a peer was not sent, since more waits for that peer than may: as if the peer had refused, but
    /// this says nothing of the peer.
    pub fn handle_unsent(&mut self, now: Now, to: NodeId, id: RequestId) {
        self.metrics.unsent.inc();
        let refused = Reply::Refused(Refusal::Overloaded { retry_after_ms: UNSENT_RETRY_MS });
        match id.lane() {
            Lane::Coordinator => self.coordinator.handle_unsent(now, to, id, refused),
            _ => self.take_reply(now, to, id, refused),
        }
        self.route(now);
    }

    /// There is a connection to this peer.
    pub fn handle_peer_up(&mut self, now: Now, peer: NodeId) {
        self.reach.handle_connected(peer);
        self.route(now);
    }

    /// There is none any more: what was under way on it is lost.
    pub fn handle_peer_lost(&mut self, now: Now, peer: NodeId) {
        self.reach.handle_disconnected(peer);
        self.route(now);
    }

    /// The detector has made up its mind about this peer.
    pub fn handle_liveness(&mut self, now: Now, peer: NodeId, liveness: Liveness) {
        self.reach.handle_liveness(peer, liveness);
        self.route(now);
    }

    /// The clocks of the other nodes allow this one's so much, if there are enough of them to tell. Outside of it nothing
    /// is stamped.
    pub fn handle_clock(&mut self, bounds: Option<ClockBounds>) {
        self.coordinator.handle_clock(bounds);
    }

    /// A sync covers everything up to this batch.
    pub fn handle_synced(&mut self, now: Now, up_to: BatchSeq) {
        self.replica.handle_synced(up_to);
        self.route(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.reach.handle_timeout(now.instant);
        self.time_out_requests(now);
        self.replica.handle_timeout(now);
        self.handoff.handle_timeout(now.instant);
        let view = view(&self.replica, &mut self.pressure, &mut self.handoff, now);
        self.reconciler.handle_timeout(now, &view);
        self.route(now);
    }

    /// What is due may make a replica read like any input: it is given one after another until the turn has enough.
    fn time_out_requests(&mut self, now: Now) {
        loop {
            self.coordinator.handle_timeout(now);
            self.route(now);
            self.inputs += 1;
            if self.is_full() || self.coordinator.poll_timeout().is_none_or(|at| now.instant < at) {
                break;
            }
        }
    }

    /// The operator tells anti-entropy something.
    pub fn handle_aae(&mut self, now: Now, command: AaeCommand) {
        let view = view(&self.replica, &mut self.pressure, &mut self.handoff, now);
        self.reconciler.handle_command(now, &view, command);
        self.route(now);
        self.publish(now.instant);
    }

    /// Whether this turn has been given as much as one may take: it is to be committed, and what else has arrived is the
    /// next one's.
    pub fn is_full(&self) -> bool {
        let TurnBounds { inputs, bytes, .. } = self.bounds;
        self.inputs >= inputs || self.bytes_taken + self.replica.bytes_read() >= bytes
    }

    /// Ends a turn: applies the batch that the turn has built and releases what waited for that. What is released
    /// may make this node ask its own replica for more, so this goes on until nothing is left.
    pub fn commit(&mut self, now: Now) {
        self.make_steps(now);
        while self.replica.has_turn() {
            self.replica.commit(now);
            self.route(now);
        }
        self.publish(now.instant);
        (self.inputs, self.bytes_taken) = (0, 0);
        self.replica.begin_turn();
        self.reconciler.begin_turn();
    }

    /// Goes on with what may take longer than a turn, behind everything else.
    fn make_steps(&mut self, now: Now) {
        if let Some((target, from)) = self.looks.pop_front()
            && let Some(page) = self.replica.hints_for(target, from)
        {
            self.handoff.handle_page(now.instant, target, page);
        }
        self.replica.scan_on();
        self.route(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Engine::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.looks.is_empty() || self.replica.has_scans() {
            return Some(Instant::default());
        }
        [
            self.reach.poll_timeout(),
            self.coordinator.poll_timeout(),
            self.replica.poll_timeout(),
            self.handoff.poll_timeout(),
            self.reconciler.poll_timeout(),
            self.figures_stale.then_some(self.figures_due),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How anti-entropy stands.
    pub fn aae(&self, now: Instant) -> Figures {
        self.reconciler.figures(now, &self.replica)
    }

    /// The partitions of this shard with their trees, as they stand.
    pub fn trees(&self) -> impl Iterator<Item = (PartitionId, Held<'_>)> {
        self.replica.partitions().map(|partition| (partition, self.replica.tree(partition)))
    }

    /// The records that are damaged and not restored yet, by their keys in the store.
    pub fn damaged(&self) -> impl Iterator<Item = &[u8]> {
        self.replica.damaged()
    }

    /// So many of them as keys of clients, and how many there are.
    pub fn damaged_keys(&self, most: usize) -> client::DamagedKeys {
        let name = |record: &[u8]| RecordKey::from_stored(record.to_vec()).bucket_and_key().ok();
        let keys = self.damaged().take(most).filter_map(name);
        let keys = keys.map(|(bucket, key)| client::DamagedKey { bucket, key }).collect();
        client::DamagedKeys { keys, count: self.damaged().count() as u64 }
    }

    /// Requests that this shard coordinates now.
    pub fn requests_open(&self) -> usize {
        self.coordinator.len()
    }

    /// What was stamped since the last call, each with the state that it left; retries as well.
    #[cfg(feature = "planted-bugs")]
    pub fn take_stamps(
        &mut self,
    ) -> Vec<(crate::replica::record::RecordKey, driftless_proto::Dot, driftless_proto::Header)> {
        self.replica.take_stamps()
    }

    /// The store, for tests and the shell's own needs.
    pub fn store(&self) -> &S {
        self.replica.store()
    }

    /// The store, for tests and the shell's own needs.
    pub fn store_mut(&mut self) -> &mut S {
        self.replica.store_mut()
    }

    /// Moves messages between the machines, and out, until all are quiet.
    fn route(&mut self, now: Now) {
        loop {
            if let Some(output) = self.reach.poll_output() {
                self.take_from_reach(now, output);
            } else if let Some(output) = self.coordinator.poll_output() {
                self.take_from_coordinator(now, output);
            } else if let Some(output) = self.replica.poll_output() {
                self.take_from_replica(now, output);
            } else if let Some(output) = self.reconciler.poll_output() {
                self.take_from_reconciler(output);
            } else if let Some(output) = self.handoff.poll_output() {
                self.take_from_handoff(output);
            } else {
                break;
            }
        }
    }

    fn take_from_reach(&mut self, now: Now, output: reach::Output) {
        match output {
            reach::Output::Up(peer) => {
                self.coordinator.handle_peer_up(peer);
                self.replica.handle_peer_up();
                self.reconciler.handle_peer_up(now, peer);
                self.handoff.handle_up(now.instant, peer);
            }
            reach::Output::Unresponsive(peer) => {
                self.metrics.peers_unresponsive.inc();
                self.coordinator.handle_peer_unresponsive(now, peer);
                self.handoff.handle_unresponsive(now.instant, peer);
            }
            reach::Output::Lost(peer) => {
                self.coordinator.handle_peer_lost(now, peer);
                self.handoff.handle_lost(now.instant, peer);
                let view = view(&self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_peer_lost(now, &view, peer);
            }
            reach::Output::Ping(peer) => {
                let deadline = now.instant + reach::PING_TIMEOUT;
                let id = self.pings.draw();
                self.send(peer, id, Body::Request { deadline, request: Request::Ping });
            }
        }
    }

    fn take_from_coordinator(&mut self, now: Now, output: coordinator::Output) {
        match output {
            coordinator::Output::Own { id, request } => self.replica.handle_local(now, id, request),
            coordinator::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            coordinator::Output::Overdue(peer) => self.reach.handle_overdue(now.instant, peer),
            coordinator::Output::Reply { to: Asker::Client(to), response } => {
                if let Some((kind, since)) = self.arrivals.remove(&to) {
                    self.pressure.record(now.instant, kind, now.instant.since(since));
                }
                self.outputs.push_back(Output::Reply { to, response });
            }
            coordinator::Output::Reply { to: Asker::Peer(to, id), response } => {
                self.send(to, id, Body::Reply(Reply::Forwarded(response)));
            }
            coordinator::Output::Reply { to: Asker::Replica, .. } => {}
        }
    }

    fn take_from_replica(&mut self, now: Now, output: replica::Output) {
        match output {
            replica::Output::Reply { to, id, reply } if to == self.node => self.take_reply(now, to, id, reply),
            replica::Output::Reply { to, id, reply } => {
                if let Reply::State(State::Full(siblings)) = &reply
                    && siblings.value_bytes() > COMING_FROM
                {
                    let bytes = siblings.value_bytes() as u64;
                    self.send(to, id, Body::Reply(Reply::Coming { bytes }));
                }
                self.send(to, id, Body::Reply(reply));
            }
            replica::Output::Made { id, made } => self.coordinator.handle_made(now, id, made),
            replica::Output::Sync(up_to) => self.outputs.push_back(Output::Sync(up_to)),
            replica::Output::Retired(actor) => self.coordinator.handle_retired(now, actor),
            replica::Output::Damaged { bucket, key, patience } => {
                self.coordinator.mend(now, bucket, key, now.instant + patience);
            }
            replica::Output::Restored { bucket, key } => self.coordinator.end_mending(bucket, &key),
            replica::Output::Owes(target) => self.handoff.handle_owed(now.instant, target),
            replica::Output::Halt(reason) => self.outputs.push_back(Output::Halt(reason)),
        }
    }

    fn take_from_reconciler(&mut self, output: reconciler::Output) {
        match output {
            reconciler::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            reconciler::Output::Reply { to, id, reply } => self.send(to, id, Body::Reply(reply)),
            reconciler::Output::Failed(error) => self.replica.fail(error),
        }
    }

    fn take_from_handoff(&mut self, output: handoff::Output) {
        self.figures_stale = true;
        match output {
            handoff::Output::Look { target, from } => {
                // A walk that was given up may have asked before: its page would be another one's.
                self.looks.retain(|(asked, _)| *asked != target);
                self.looks.push_back((target, from));
            }
            handoff::Output::Send { to, id, deadline, request } => {
                self.send(to, id, Body::Request { deadline, request });
            }
            handoff::Output::Delivered { target, record, digest } => {
                self.replica.hint_delivered(target, &record, digest);
            }
            handoff::Output::Readdress { target, record } => self.replica.readdress_hint(target, &record),
        }
    }

    /// Shows what is held for whom, a few times per second at most.
    fn publish(&mut self, now: Instant) {
        self.figures_stale |= self.replica.take_tallies_changed();
        if !self.figures_stale || now < self.figures_due {
            return;
        }
        self.figures_stale = false;
        self.figures_due = now + FIGURES_INTERVAL;
        for (target, tally) in self.replica.tallies() {
            let (delivered, rate) = self.handoff.figures(target);
            let (keys, bytes, since) = (tally.keys(), tally.bytes(), tally.since());
            self.metrics.hints.publish(self.shard, target, HintFigures { keys, bytes, since, delivered, rate });
        }
    }

    fn take_reply(&mut self, now: Now, from: NodeId, id: RequestId, reply: Reply) {
        match id.lane() {
            Lane::Coordinator => self.coordinator.handle_reply(now, from, id, reply),
            Lane::Handoff => self.handoff.handle_reply(now.instant, from, id, reply),
            Lane::AntiEntropy => {
                let view = view(&self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_reply(now, &view, from, id, reply);
            }
            Lane::Reach => {}
        }
    }

    fn send(&mut self, to: NodeId, id: RequestId, body: Body) {
        let message = Message { id, ring_version: self.ring_version, body };
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Membership is fixed for now, so another version is another cluster file: requests are refused, replies dropped.
    fn refuse_other_ring(&mut self, from: NodeId, message: &Message) {
        self.metrics.protocol_violations.inc();
        if let Body::Request { .. } = message.body {
            let refusal = Refusal::StaleRing { theirs: message.ring_version, ours: self.ring_version };
            self.send(from, message.id, Body::Reply(Reply::Refused(refusal)));
        }
    }
}

/// What anti-entropy has to go by.
fn view<'a, S>(replica: &'a Replica<S>, pressure: &mut Pressure, handoff: &mut Handoff, now: Now) -> View<'a, S> {
    View { replica, pressed: pressure.is_high(now.instant), recipients: handoff.recipients(now.instant) }
}

/// States that are announced before they are sent: smaller ones are there as soon as a word about them.
const COMING_FROM: usize = 1 << 20;

/// When something may be sent again to a peer that does not take what it is sent.
const UNSENT_RETRY_MS: u32 = 100;

/// How often the figures of handoff are published.
const FIGURES_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
