//! One shard's machines behind the seam: typed inputs and the time go in, outputs and the next deadline come out.
//!
//! A turn of the shell: feed everything that has arrived to the `handle_*` methods, call [`Engine::commit`] once, carry
//! out every [`Output`], and sleep until the next input or [`Engine::poll_timeout`]. Once [`Engine::is_full`] says that the turn
//! has had its share, what has arrived and was not fed waits for the next one.

mod figures;
mod holdings;
mod implausible;
mod resident;
mod route;
mod taking;
mod tasks;
mod versions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use driftless_antientropy::Held;
use driftless_proto::client::{self, Access, Class, Response};
use driftless_proto::{ContextKeys, Refusal};
use driftless_ring::{NodeId, PartitionId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::bounds::TurnBounds;
use crate::config::Limits;
use crate::configurations::Configurations;
pub use crate::coordinator::ClientTag;
use crate::coordinator::{Asker, Coordinator};
use crate::handoff::Handoff;
use crate::liveness::Liveness;
use crate::liveness::clocks::ClockBounds;
use crate::liveness::reachability::Reachability;
use crate::metrics::Metrics;
use crate::peer::{Body, Lane, Message, Reply, Request, RequestId, RequestIds, Traced};
use crate::planted::Planted;
use crate::pressure::{Kind, Pressure};
pub use crate::reconciler::AaeCommand;
use crate::reconciler::{Reconciler, View};
use crate::replica::Replica;
use crate::replica::store::{BatchSeq, Store};
use crate::shard::Shard;
use crate::time::{Instant, Now};

use taking::Taking;

use implausible::ImplausibleLog;
use tasks::Task;
use versions::Early;

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
    /// This peer knows more of the versions of the ring than this shard: it is to be asked.
    Behind(NodeId),
}

/// Everything an engine is made from.
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// Which of its shards.
    pub shard: u16,
    /// The versions of the agreed shape of the cluster that count.
    pub configurations: Arc<Configurations>,
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

/// One shard: its replica, the requests it coordinates, and what it does to keep replicas equal: the delivery of what it
/// holds for others, and anti-entropy.
pub struct Engine<S: Store> {
    shard: Shard,
    reachability: Reachability,
    pings: RequestIds,
    replica: Replica<S>,
    coordinator: Coordinator,
    reconciler: Reconciler,
    pressure: Pressure,
    /// When clients' requests arrived whose latency counts.
    arrivals: BTreeMap<ClientTag, (Kind, Instant)>,
    handoff: Handoff,
    /// Whether its figures may have changed since they were looked at.
    hints_changed: bool,
    /// What this turn has been given: inputs, and bytes in them.
    inputs: usize,
    bytes_taken: usize,
    /// Pages of hints that were asked for; a turn looks up one.
    looks: VecDeque<(NodeId, Option<Vec<u8>>)>,
    implausible: ImplausibleLog,
    early: Early,
    /// The newest batch when all that this shard takes in had been taken in.
    taken_at: Option<BatchSeq>,
    taking: Taking,
    outputs: VecDeque<Output>,
}

impl<S: Store> Engine<S> {
    /// A shard that has just started. No peer can be reached yet.
    pub fn new(config: EngineConfig, store: S, now: Now) -> Engine<S> {
        let (mut rng, write_ids_seed) = (StdRng::from_seed(config.seed), xxh3_64(&config.seed));
        let EngineConfig { node, shard: number, configurations, context_keys, limits, metrics, seed: _, planted } =
            config;
        let topology = configurations.topology().clone();
        let shard = Shard { node, number, configurations, topology, limits, metrics, planted };
        let replica = Replica::new(&shard, store, write_ids_seed, StdRng::from_rng(&mut rng), now);
        let pings = RequestIds::new(Lane::Reachability, rng.random());
        let handoff = Handoff::new(&shard.limits, StdRng::from_rng(&mut rng));
        let reconciler = Reconciler::new(&shard, &replica, now, StdRng::from_rng(&mut rng));
        let coordinator = Coordinator::new(&shard, now.instant, context_keys, rng);
        let mut engine = Engine {
            shard,
            reachability: Reachability::default(),
            pings,
            replica,
            coordinator,
            handoff,
            hints_changed: false,
            reconciler,
            pressure: Pressure::default(),
            arrivals: BTreeMap::new(),
            inputs: 0,
            bytes_taken: 0,
            looks: VecDeque::new(),
            implausible: ImplausibleLog::default(),
            early: Early::default(),
            taken_at: None,
            taking: Taking::new(),
            outputs: VecDeque::new(),
        };
        engine.route(now);
        engine
    }

    /// A client asks. `arrived` is when its request was here, and `deadline` when it stops waiting.
    pub fn handle_client(
        &mut self,
        now: Now,
        from: ClientTag,
        arrived: Instant,
        deadline: Instant,
        request: client::Request,
    ) {
        self.inputs += 1;
        self.bytes_taken += request.value_bytes();
        if let client::Request::Restore(restore) = &request
            && restore.accept_loss
            && !self.replica.is_damaged(&self.shard, restore.bucket, &restore.key)
        {
            let response = Response::Restored(client::Restored { was_damaged: false, answered: 0 });
            return self.outputs.push_back(Output::Reply { to: from, response });
        }
        if let client::Request::MergeState(merge) = &request
            && let Some(what) = implausible::in_state(&self.shard, now, &merge.state)
        {
            let response = Response::Failed(Refusal::BadRequest(what.into()).into());
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
        self.coordinator.handle_request(&self.shard, now, Asker::Client(from), arrived, deadline, request);
        self.route(now);
    }

    /// Nobody waits any more for what a client has asked, before anything was done for it.
    pub fn handle_expired(&mut self, now: Now, arrived: Instant, request: client::Request) {
        self.coordinator.handle_expired(&self.shard, now, arrived, request);
    }

    /// A peer speaks.
    pub fn handle_peer(&mut self, now: Now, from: NodeId, message: Message) {
        self.handle_peer_waiting(now, now.instant, from, message);
    }

    /// A peer has spoken, and that has waited here since it `arrived`.
    pub fn handle_peer_waiting(&mut self, now: Now, arrived: Instant, from: NodeId, message: Message) {
        self.inputs += 1;
        self.bytes_taken += message.body.value_bytes();
        // Where it belongs in a trace is the shell's to know.
        let Some(message) = self.of_this_version(now.instant, from, message.into_plain()) else { return };
        if self.was_routed_by_another_version(&message) {
            return self.send(from, message.id, Body::Reply(Reply::Refused(ASK_AGAIN_SOON)));
        }
        match message.body {
            Body::Request { deadline, request: Request::Forward(request) } if deadline <= now.instant => {
                self.coordinator.handle_expired(&self.shard, now, arrived, request);
            }
            Body::Request { deadline, .. } if deadline <= now.instant => {
                self.shard.metrics.expired.inc();
            }
            Body::Request { deadline, request: Request::Forward(request) } => {
                if let Some(what) = implausible::in_forwarded(&request) {
                    self.implausible.note(&self.shard, now.instant, from, what);
                    let refusal = Refusal::BadRequest(what.into());
                    return self.send(
                        from,
                        message.id,
                        Body::Reply(Reply::Forwarded(Response::Failed(refusal.into()))),
                    );
                }
                self.coordinator.handle_request(
                    &self.shard,
                    now,
                    Asker::Peer(from, message.id),
                    arrived,
                    deadline,
                    request,
                );
            }
            Body::Request { request: Request::Ping, .. } => self.send(from, message.id, Body::Reply(Reply::Pong)),
            // The shell has a machine for these.
            Body::Request { request: Request::Membership(_), .. } => {}
            Body::Request { request: Request::Exchange(exchange), .. } => {
                let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_request(&view, from, message.id, exchange);
            }
            Body::Request { request: Request::Replica(request) | Request::Traced(Traced { request, .. }), .. } => {
                if let Some(what) = implausible::in_request(&self.shard, now, from, &request) {
                    self.implausible.note(&self.shard, now.instant, from, what);
                    let refusal = Refusal::BadRequest(what.into());
                    return self.send(from, message.id, Body::Reply(Reply::Refused(refusal)));
                }
                self.replica.handle_request(&self.shard, from, message.id, request);
            }
            Body::Reply(reply) => {
                self.reachability.handle_answer(from);
                let reply = match implausible::in_reply(&self.shard, now, &reply) {
                    Some(what) => {
                        self.implausible.note(&self.shard, now.instant, from, what);
                        Reply::Refused(Refusal::BadRequest(what.into()))
                    }
                    None => reply,
                };
                self.take_reply(now, from, message.id, reply);
            }
        }
        self.route(now);
    }

    /// What this shard asked of a peer was not sent, since more waits for that peer than may: as if the peer had refused, but
    /// this says nothing of the peer.
    pub fn handle_unsent(&mut self, now: Now, to: NodeId, id: RequestId) {
        self.shard.metrics.unsent.inc();
        let refused = Reply::Refused(ASK_AGAIN_SOON);
        match id.lane() {
            Lane::Coordinator => self.coordinator.handle_unsent(&self.shard, now, to, id, refused),
            _ => self.take_reply(now, to, id, refused),
        }
        self.route(now);
    }

    /// There is a connection to this peer.
    pub fn handle_peer_up(&mut self, now: Now, peer: NodeId) {
        self.reachability.handle_connected(peer);
        self.route(now);
    }

    /// There is none any more: what was under way on it is lost.
    pub fn handle_peer_lost(&mut self, now: Now, peer: NodeId) {
        self.reachability.handle_disconnected(peer);
        self.route(now);
    }

    /// The detector has made up its mind about this peer.
    pub fn handle_liveness(&mut self, now: Now, peer: NodeId, liveness: Liveness) {
        self.reachability.handle_liveness(peer, liveness);
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
        for task in Task::ALL {
            self.run(now, task);
        }
        self.route(now);
    }

    /// The operator tells anti-entropy something.
    pub fn handle_aae(&mut self, now: Now, command: AaeCommand) {
        let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
        self.reconciler.handle_command(&view, command);
        self.route(now);
    }

    /// Other limits count from now on, as far as a running shard can take them.
    pub fn handle_limits(&mut self, now: Now, limits: &Limits) {
        self.shard.limits.take_changeable(limits);
        self.reconciler.handle_limits(now, &self.shard.limits.aae);
        self.coordinator.handle_limits(&self.shard, now.instant);
    }

    /// Other keys seal and open context tokens from now on.
    pub fn handle_context_keys(&mut self, keys: ContextKeys) {
        self.coordinator.handle_context_keys(keys);
    }

    /// Whether this turn has been given as much as one may take: it is to be committed, and what else has arrived is the
    /// next one's.
    pub fn is_full(&self) -> bool {
        let TurnBounds { inputs, bytes, .. } = self.shard.limits.turn;
        self.inputs >= inputs || self.bytes_taken + self.replica.bytes_read() >= bytes
    }

    /// Ends a turn: applies the batch that the turn has built and releases what waited for that. What is released
    /// may make this node ask its own replica for more, so this goes on until nothing is left.
    pub fn commit(&mut self, now: Now) {
        debug_assert!(self.bytes_taken == 0 || self.inputs > 0, "bytes come with inputs");
        self.make_steps(now);
        while self.replica.has_turn() {
            self.replica.commit(&self.shard, now);
            self.route(now);
        }
        debug_assert!(!self.replica.has_turn(), "a turn leaves nothing that was not applied");
        (self.inputs, self.bytes_taken) = (0, 0);
        self.replica.begin_turn();
        self.reconciler.begin_turn();
    }

    /// Goes on with what may take longer than a turn, behind everything else.
    fn make_steps(&mut self, now: Now) {
        if let Some((target, from)) = self.looks.pop_front()
            && let Some(page) = self.replica.hints_for(&self.shard, target, from)
        {
            self.handoff.handle_page(&self.shard, now.instant, target, page);
        }
        self.replica.scan_on(&self.shard);
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
        Task::ALL.into_iter().filter_map(|task| self.due_at(task)).min()
    }

    /// The partitions of this shard with their trees, as they stand.
    pub fn trees(&self) -> impl Iterator<Item = (PartitionId, Held<'_>)> {
        self.replica.partitions().map(|partition| (partition, self.replica.tree(partition)))
    }

    /// The records that are damaged and not restored yet, by their keys in the store.
    pub fn damaged(&self) -> impl Iterator<Item = &[u8]> {
        self.replica.damaged()
    }

    /// Requests that this shard coordinates now.
    pub fn requests_open(&self) -> usize {
        self.coordinator.len()
    }

    /// What was stamped since the last call, each with the state that it left; retries as well.
    #[cfg(feature = "planted-bugs")]
    pub fn take_stamps(&mut self) -> Vec<crate::replica::Stamp> {
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
}

/// What anti-entropy has to go by.
fn view<'a, S: Store>(
    shard: &'a Shard,
    replica: &'a Replica<S>,
    pressure: &mut Pressure,
    handoff: &mut Handoff,
    now: Now,
) -> View<'a, Replica<S>> {
    View {
        shard,
        now,
        holdings: replica,
        pressed: pressure.is_high(now.instant),
        recipients: handoff.recipients(shard, now.instant),
    }
}

/// What says of a peer no more than that it is to be asked again soon.
pub(crate) const ASK_AGAIN_SOON: Refusal = Refusal::Overloaded { retry_after_ms: 100 };

#[cfg(test)]
mod tests;
