//! Anti-entropy between this shard and its peers: compares what they share, always, and repairs what differs.
//!
//! ```text
//! rounds      who is compared with whom, when            Sums ──▶ ◀── Unequal
//!    │ unequal partitions, oldest first, two at a time
//! exchanges   which keys differ                          Step ──▶ ◀── Step …     `driftless_antientropy`
//!    │ a thousand keys at a time, on both sides
//! repairs     what is held of them                       Merge ──▶ ◀── Acked     within a budget
//! ```
//! Repairs are `Merge`s and nothing else, so that they may race with writes, with each other, and come twice. Whatever
//! is lost on the way is found again by the next round.

mod budget;
mod repairs;
mod rounds;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use driftless_antientropy::message::{Answer, Ask};
use driftless_antientropy::{
    self as antientropy, Digest, ExchangeId, Held, Holder, Initiator, InitiatorOutput, Line, Local, Micros, Outcome,
    Records, Refused, Report, Responder, ResponderOutput, Settings, Standing, Sums, Unequal,
};
use driftless_proto::{BucketId, Key, Refusal, Siblings};
use driftless_ring::{NodeId, PartitionId, Token};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::peer::{
    Exchange, Exchanged, Lane, Merge, Purpose, Read, ReplicaRequest, Reply, Request, RequestId, RequestIds, State,
    Want, time_to_carry,
};
use crate::replica::Replica;
use crate::replica::record::RecordError;
use crate::replica::store::Store;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use budget::Budget;
use repairs::{Done, Load, Parcel, Repairs, Role};
use rounds::Rounds;

/// What the reconciler wants its engine to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Ask a peer.
    Send { to: NodeId, id: RequestId, deadline: Instant, request: Request },
    /// Answer one.
    Reply { to: NodeId, id: RequestId, reply: Reply },
    /// Something could not be read: a record that is damaged, or the store as a whole.
    Failed(RecordError),
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

/// What the reconciler may look at.
pub(crate) struct View<'a, S> {
    /// Of this shard.
    pub(crate) replica: &'a Replica<S>,
    /// Whether clients suffer.
    pub(crate) pressed: bool,
    /// Peers that are being given what this node holds for them: most of what they lack is on its way already.
    pub(crate) recipients: Vec<NodeId>,
}

/// How anti-entropy stands on one shard.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Figures {
    /// Stopped by the operator.
    pub paused: bool,
    /// One entry for each partition and peer that shares it.
    pub partitions: Vec<PartitionFigures>,
}

/// How one partition stands between this node and a peer.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionFigures {
    /// The peer.
    pub peer: NodeId,
    /// The partition.
    pub partition: PartitionId,
    /// Time since everything was last equal, or made so; `None` if it never was since this node started.
    pub last_full_round: Option<Duration>,
    /// Keys compared one by one.
    pub compared: u64,
    /// Keys that differed, and were repaired.
    pub repaired: u64,
    /// Whether it is known to differ.
    pub unequal: bool,
    /// Whether an exchange is under way.
    pub in_progress: bool,
    /// At least so many keys are still to be repaired.
    pub behind: u64,
    /// Keys repaired at that peer per second, lately, of all partitions.
    pub rate: f64,
}

/// Anti-entropy of one shard.
pub(crate) struct Reconciler {
    /// What one step may read, and what repairs of this turn still may.
    step_bytes: usize,
    bytes_left: usize,
    ids: RequestIds,
    rng: StdRng,
    rounds: Rounds,
    begun: BTreeMap<ExchangeId, Begun>,
    answering: BTreeMap<(NodeId, ExchangeId), Answering>,
    repairs: Repairs,
    budget: Budget,
    asked: BTreeMap<RequestId, Asked>,
    /// When to stop waiting for what was asked, in order.
    overdue: VecDeque<(Instant, RequestId)>,
    /// When the next exchange may begin, once there is room for one; found by a walk over all that waits.
    next_exchange: Option<Instant>,
    /// The last view: whether clients suffered.
    pressed: bool,
    paused: bool,
    outputs: VecDeque<Output>,
}

/// An exchange that this node began.
struct Begun {
    peer: NodeId,
    initiator: Initiator,
    /// The last one sent.
    request: RequestId,
    /// Tokens at which something differed.
    found: Vec<Token>,
    /// Whether the peer has taken all that was sent to it.
    taken: bool,
}

/// An exchange that a peer began.
struct Answering {
    responder: Responder,
    /// The request to be answered next.
    reply_to: RequestId,
}

/// What was asked, and of whom.
enum Asked {
    Sums {
        of: NodeId,
        partitions: Vec<PartitionId>,
    },
    Merge {
        of: NodeId,
        role: Role,
        load: Load,
    },
    /// What a peer holds of a key that is not being repaired.
    State {
        of: NodeId,
        mine: String,
    },
}

impl Reconciler {
    pub(crate) fn new<S: Store>(shard: &Shard, replica: &Replica<S>, now: Now, mut rng: StdRng) -> Reconciler {
        let rounds_rng = StdRng::from_rng(&mut rng);
        let (limits, window, step_bytes) = (&shard.limits.aae, shard.limits.window_bytes, shard.limits.turn.step_bytes);
        Reconciler {
            rounds: Rounds::new(shard, replica.partitions(), limits.interval, now.instant, rounds_rng),
            ids: RequestIds::new(Lane::AntiEntropy, rng.random()),
            budget: Budget::new(limits.bytes_per_second, now.instant),
            step_bytes,
            bytes_left: step_bytes,
            rng,
            begun: BTreeMap::new(),
            answering: BTreeMap::new(),
            repairs: Repairs::new(window),
            asked: BTreeMap::new(),
            overdue: VecDeque::new(),
            next_exchange: None,
            pressed: false,
            paused: false,
            outputs: VecDeque::new(),
        }
    }

    /// A peer may be counted on again.
    pub(crate) fn handle_peer_up(&mut self, now: Now, peer: NodeId) {
        self.rounds.peer_up(now.instant, peer);
    }

    /// A peer may not be counted on: what was under way with it is over.
    pub(crate) fn handle_peer_lost<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>, peer: NodeId) {
        self.rounds.peer_lost(peer);
        let begun: Vec<_> =
            self.begun.iter().filter(|(_, begun)| begun.peer == peer).map(|(exchange, _)| *exchange).collect();
        for exchange in begun {
            self.give_up(shard, now, exchange);
        }
        let answering: Vec<_> = self.answering.keys().filter(|(from, _)| *from == peer).copied().collect();
        for (from, exchange) in answering {
            self.end_answering(from, exchange);
        }
        let asked: Vec<_> = self.asked.iter().filter(|(_, asked)| asked.of() == peer).map(|(id, _)| *id).collect();
        for id in asked {
            self.unanswered(now, id);
        }
        self.go_on(shard, now, view);
    }

    /// A peer compares.
    pub(crate) fn handle_request<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        from: NodeId,
        id: RequestId,
        exchange: Exchange,
    ) {
        match exchange {
            Exchange::Sums(sums) => self.answer_sums(shard, now, view, from, id, &sums),
            Exchange::Step { partition, request } => self.answer_step(shard, now, view, from, id, partition, request),
        }
        self.go_on(shard, now, view);
    }

    /// A peer answers.
    pub(crate) fn handle_reply<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        from: NodeId,
        id: RequestId,
        reply: Reply,
    ) {
        match reply {
            Reply::Exchanged(Exchanged::Step(reply)) => {
                let exchange = reply.exchange;
                if self.begun.get(&exchange).is_some_and(|begun| begun.peer == from) {
                    self.with_initiator(shard, view, exchange, |initiator, local| {
                        initiator.handle_reply(micros(now), local, reply);
                    });
                    self.drain_begun(shard, now, view, exchange);
                }
            }
            Reply::Refused(refusal) if self.begun.values().any(|begun| begun.request == id && begun.peer == from) => {
                tracing::debug!(%from, %refusal, "an exchange was refused");
                let exchange = self.begun.iter().find(|(_, begun)| begun.request == id).map(|(exchange, _)| *exchange);
                exchange.into_iter().for_each(|exchange| self.give_up(shard, now, exchange));
            }
            reply => {
                if self.asked.get(&id).is_some_and(|asked| asked.of() == from)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    self.answered(shard, now, asked, reply);
                }
            }
        }
        self.go_on(shard, now, view);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>) {
        if self.poll_timeout().is_none_or(|due| now.instant < due) {
            return;
        }
        while let Some(&(deadline, id)) = self.overdue.front()
            && deadline <= now.instant
        {
            self.overdue.pop_front();
            self.unanswered(now, id);
        }
        let due = |at: Option<Micros>| at.is_some_and(|at| at <= micros(now));
        let begun: Vec<_> =
            self.begun.iter().filter(|(_, b)| due(b.initiator.poll_timeout())).map(|(id, _)| *id).collect();
        for exchange in begun {
            self.with_initiator(shard, view, exchange, |initiator, local| initiator.handle_timeout(micros(now), local));
            self.drain_begun(shard, now, view, exchange);
        }
        let answering: Vec<_> =
            self.answering.iter().filter(|(_, a)| due(a.responder.poll_timeout())).map(|(key, _)| *key).collect();
        for (from, exchange) in answering {
            if let Some(answering) = self.answering.get_mut(&(from, exchange)) {
                answering.responder.handle_timeout(micros(now));
            }
            self.drain_answering(shard, from, exchange);
        }
        self.go_on(shard, now, view);
    }

    /// The operator says something.
    pub(crate) fn handle_command<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        command: AaeCommand,
    ) {
        match command {
            AaeCommand::Run(partition) => self.rounds.want(partition),
            AaeCommand::Pause => self.pause(shard, now),
            AaeCommand::Resume => self.paused = false,
        }
        self.go_on(shard, now, view);
    }

    /// Nothing is begun or repaired any more, and peers that ask are refused.
    fn pause(&mut self, shard: &Shard, now: Now) {
        self.paused = true;
        let begun: Vec<_> = self.begun.keys().copied().collect();
        for exchange in begun {
            self.give_up(shard, now, exchange);
        }
        let answering: Vec<_> = self.answering.keys().copied().collect();
        for (from, exchange) in answering {
            self.end_answering(from, exchange);
        }
    }

    /// The engine's next turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.bytes_left = self.step_bytes;
    }

    /// How things stand.
    pub(crate) fn figures<S: Store>(&self, now: Instant, replica: &Replica<S>) -> Figures {
        let mut partitions = Vec::new();
        for (id, peer) in self.rounds.peers() {
            let rate = self.rounds.rate(now, id);
            for (&partition, shared) in &peer.shared {
                let begun = self.begun.values().any(|b| b.peer == id && b.initiator.partition() == partition);
                let answering = self.answering.iter();
                let mut answering =
                    answering.filter(|((from, _), a)| *from == id && a.responder.partition() == partition);
                let mine = count(replica.tree(partition));
                partitions.push(PartitionFigures {
                    peer: id,
                    partition,
                    last_full_round: shared.last_full_round.map(|at| now.since(at)),
                    compared: shared.compared,
                    repaired: shared.repaired,
                    unequal: shared.unequal.is_some(),
                    in_progress: begun || answering.next().is_some(),
                    behind: shared.unequal.map_or(0, |unequal| unequal.peer_count.abs_diff(mine).max(1)),
                    rate,
                });
            }
        }
        Figures { paused: self.paused, partitions }
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Reconciler::handle_timeout`] at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let begun = self.begun.values().filter_map(|begun| begun.initiator.poll_timeout());
        let answering = self.answering.values().filter_map(|answering| answering.responder.poll_timeout());
        let machines = begun.chain(answering).map(|micros| Instant(micros.0)).min();
        let overdue = self.overdue.front().map(|(deadline, _)| *deadline);
        if self.paused {
            return machines.into_iter().chain(overdue).min();
        }
        let opens = || self.budget.opens_at(self.pressed);
        let repairs = self.repairs.ready_at().map(|at| at.max(opens()));
        let exchange = self.next_exchange.map(|at| at.max(opens()));
        [machines, overdue, repairs, exchange, self.rounds.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what has become possible: repairs first, then exchanges, then rounds.
    fn go_on<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>) {
        self.pressed = view.pressed;
        while self.overdue.front().is_some_and(|(_, id)| !self.asked.contains_key(id)) {
            self.overdue.pop_front();
        }
        if self.paused {
            return;
        }
        loop {
            self.send_repairs(shard, now, view);
            let Some(Done { role, taken }) = self.repairs.take_done() else { break };
            match role {
                Role::Begun(exchange) => {
                    if let Some(begun) = self.begun.get_mut(&exchange) {
                        begun.taken &= taken;
                    }
                    self.with_initiator(shard, view, exchange, |initiator, local| initiator.resume(micros(now), local));
                    self.drain_begun(shard, now, view, exchange);
                }
                Role::Answering(from, exchange) => {
                    if let Some(answering) = self.answering.get_mut(&(from, exchange)) {
                        match taken {
                            true => answering.responder.resume(micros(now)),
                            false => answering.responder.give_up(),
                        }
                    }
                    self.drain_answering(shard, from, exchange);
                }
            }
        }
        self.begin_exchanges(shard, now, view);
        while let Some((peer, partitions)) = self.rounds.due(now.instant) {
            self.begin_round(shard, now, view, peer, partitions);
        }
        let may_begin = self.begun.len() < shard.limits.aae.exchanges_max;
        self.next_exchange = if may_begin { self.rounds.next_at(|partition| self.is_busy(partition)) } else { None };
    }

    fn begin_round<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        peer: NodeId,
        partitions: Vec<PartitionId>,
    ) {
        // A peer may have another number of shards; one message goes to one of them.
        let mut lines: BTreeMap<u16, Vec<Line>> = BTreeMap::new();
        for &partition in &partitions {
            match view.replica.tree(partition) {
                Held::Tree(tree) => {
                    let shard = shard.topology.shard_of(peer, partition);
                    lines.entry(shard).or_default().push(Line::of(partition, tree));
                }
                Held::Rebuilding => return self.rounds.put_off(now.instant, peer, partitions),
                Held::Nothing => {}
            }
        }
        shard.metrics.aae_rounds.inc();
        let q = shard.ring().partitions();
        let messages: Vec<Sums> = lines.values().flat_map(|lines| Sums::of(q, lines)).collect();
        self.rounds.opened(now.instant, peer, messages.len());
        for sums in messages {
            self.spend(shard, sums.encoded_len());
            let partitions = sums.lines.iter().map(|line| line.partition).collect();
            let request = Request::Exchange(Exchange::Sums(sums));
            self.ask(shard, now, peer, request, Asked::Sums { of: peer, partitions });
        }
    }

    fn begin_exchanges<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>) {
        while self.begun.len() < shard.limits.aae.exchanges_max
            && self.budget.is_open(now.instant, view.pressed)
            && let Some((peer, partition, unequal)) = self.rounds.next(now.instant, |busy| self.is_busy(busy))
        {
            if view.recipients.contains(&peer) {
                self.rounds.leave_alone(now.instant, peer);
                continue;
            }
            let mine = count(view.replica.tree(partition));
            let known = now.instant.since(unequal.since);
            let confirm =
                if may_be_under_way(mine, unequal.peer_count) { shard.limits.aae.confirm } else { Duration::ZERO };
            let settings = self.settings(shard, confirm.saturating_sub(known));
            let exchange = ExchangeId(self.rng.random());
            let bits = unequal.peer_bits;
            let initiator = self.with_local(shard, view, partition, |local| {
                Initiator::start(micros(now), settings, exchange, partition, bits, local)
            });
            match initiator {
                Some(initiator) => {
                    let begun = Begun { peer, initiator, request: RequestId(0), found: Vec::new(), taken: true };
                    self.begun.insert(exchange, begun);
                    self.drain_begun(shard, now, view, exchange);
                }
                None => self.rounds.postpone(now.instant, peer, partition),
            }
        }
    }

    fn drain_begun<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>, exchange: ExchangeId) {
        while let Some(begun) = self.begun.get_mut(&exchange)
            && let Some(output) = begun.initiator.poll_output()
        {
            let (peer, partition) = (begun.peer, begun.initiator.partition());
            match output {
                InitiatorOutput::Send(mut request) => {
                    if request.ask == Ask::Done && !begun.taken {
                        request.ask = Ask::Over;
                    }
                    let id = self.ids.draw();
                    begun.request = id;
                    let repairs =
                        if matches!(request.ask, Ask::Differ(_)) { shard.limits.aae.repair } else { Duration::ZERO };
                    let deadline = now.instant + shard.limits.aae.patience + repairs;
                    self.spend(shard, request.encoded_len());
                    let request = Request::Exchange(Exchange::Step { partition, request });
                    self.outputs.push_back(Output::Send { to: peer, id, deadline, request });
                }
                InitiatorOutput::Repair(differences) => {
                    let room = UNREPAIRED_MAX.saturating_sub(begun.found.len());
                    begun.found.extend(differences.iter().take(room).map(|difference| difference.token));
                    if let Some(shared) = self.rounds.shared(peer, partition) {
                        shared.repaired += differences.len() as u64;
                    }
                    let held = differences.iter().filter(|difference| difference.holder != Holder::Peer);
                    let tokens = held.map(|difference| difference.token).collect();
                    self.repairs.begin(Role::Begun(exchange), peer, partition, tokens);
                }
                InitiatorOutput::Ended(report) => {
                    let (found, taken) = (std::mem::take(&mut begun.found), begun.taken);
                    self.begun.remove(&exchange);
                    self.repairs.drop_job(Role::Begun(exchange));
                    if taken {
                        self.ended(shard, now, view, peer, partition, &report, &found);
                    } else {
                        self.not_taken(shard, now, peer, partition);
                    }
                }
            }
        }
    }

    fn ended<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        peer: NodeId,
        partition: PartitionId,
        report: &Report,
        found: &[Token],
    ) {
        shard.metrics.aae_keys_compared.inc_by(report.keys_compared);
        if let Some(shared) = self.rounds.shared(peer, partition) {
            shared.compared += report.keys_compared;
        }
        if report.outcome != Outcome::Complete {
            tracing::debug!(%peer, %partition, outcome = ?report.outcome, "an exchange ended early");
            match report.outcome {
                Outcome::Refused(Refused::NotTaken) => return self.not_taken(shard, now, peer, partition),
                Outcome::Refused(Refused::Busy) => self.rounds.leave_alone(now.instant, peer),
                _ => {}
            }
            shard.metrics.aae_exchanges_failed.inc();
            return self.rounds.postpone(now.instant, peer, partition);
        }
        shard.metrics.aae_exchanges.inc();
        shard.metrics.aae_exchanges_different.inc_by(u64::from(report.keys_differing > 0));
        self.rounds.equal(now.instant, peer, partition);
        let (mut reported, read_before) = (0, view.replica.bytes_read());
        for token in self.rounds.differed(peer, partition, found).into_iter().take(UNREPAIRED_LOOKED_AT_MAX) {
            if view.replica.bytes_read() - read_before >= self.step_bytes {
                break;
            }
            let states = match view.replica.states_at(partition.n, token) {
                Ok(states) => states,
                Err(error) => return self.fail(error),
            };
            let held = states.iter().map(|(bucket, key, held)| Digest::of(*bucket, key, &held.header())).collect();
            if self.rounds.is_unrepaired(peer, partition, token, held) && reported < UNREPAIRED_LOGGED_MAX {
                reported += 1;
                self.report_unrepaired(shard, now, peer, partition, token, states);
            }
        }
    }

    /// One side did not take all that it was sent, most likely for want of room. The partition still differs, and that is
    /// no sign of a bug.
    fn not_taken(&mut self, shard: &Shard, now: Now, peer: NodeId, partition: PartitionId) {
        shard.metrics.aae_exchanges_failed.inc();
        self.rounds.put_aside(now.instant, peer, partition);
    }

    /// Says what this node holds of a key that does not become equal, and asks the peer for its state.
    fn report_unrepaired(
        &mut self,
        shard: &Shard,
        now: Now,
        peer: NodeId,
        partition: PartitionId,
        token: Token,
        states: Vec<(BucketId, Key, Siblings)>,
    ) {
        shard.metrics.aae_keys_unrepaired.inc();
        if states.is_empty() {
            tracing::error!(%peer, %partition, token = token.0, "a key differed in three successive rounds; this node \
                holds nothing at its token, the peer does");
        }
        for (bucket, key, siblings) in states {
            let mine = format!("bucket {}, key {key:?}: {:?}", bucket.0, siblings.header());
            let request =
                Request::Replica(ReplicaRequest::Read(Read { bucket, key, want: Want::Header, durable: false }));
            self.ask(shard, now, peer, request, Asked::State { of: peer, mine });
        }
    }

    fn answer_sums<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        from: NodeId,
        id: RequestId,
        sums: &Sums,
    ) {
        let ring = shard.ring();
        let unequal = sums.answer(ring.partitions(), |partition| {
            if ring.owns(from, partition) { view.replica.tree(partition) } else { Held::Nothing }
        });
        let mut named = unequal.partitions.iter().map(|(partition, _)| *partition).peekable();
        for line in &sums.lines {
            if named.next_if_eq(&line.partition).is_none() {
                self.rounds.equal(now.instant, from, line.partition);
            }
        }
        self.spend(shard, unequal.encoded_len());
        self.outputs.push_back(Output::Reply { to: from, id, reply: Reply::Exchanged(Exchanged::Unequal(unequal)) });
    }

    fn answer_step<S: Store>(
        &mut self,
        shard: &Shard,
        now: Now,
        view: &View<'_, S>,
        from: NodeId,
        id: RequestId,
        partition: PartitionId,
        request: antientropy::Request,
    ) {
        let exchange = request.exchange;
        let (done, over) = (request.ask == Ask::Done, request.ask == Ask::Over);
        let ours = matches!(view.replica.tree(partition), Held::Tree(_) | Held::Rebuilding);
        let known = self.answering.get(&(from, exchange));
        let other = known.is_some_and(|answering| answering.responder.partition() != partition)
            || matches!(&request.ask, Ask::Start(start) if start.partition != partition);
        let refusal = if !ours || !shard.ring().owns(from, partition) {
            Some(Refused::NotOwner)
        } else if other {
            Some(Refused::Malformed)
        } else if known.is_none() && self.may_not_answer(shard, &request.ask, view.recipients.contains(&from)) {
            Some(Refused::Busy)
        } else {
            None
        };
        if let Some(reason) = refusal {
            if reason == Refused::NotOwner {
                self.end_answering(from, exchange);
            }
            return self.reply_step(shard, from, id, request.refuse(reason));
        }
        match self.answering.get_mut(&(from, exchange)) {
            Some(answering) => {
                answering.reply_to = id;
                self.with_responder(shard, view, from, exchange, |responder, local| {
                    responder.handle_request(micros(now), local, request);
                });
                if done {
                    self.rounds.equal(now.instant, from, partition);
                }
            }
            // An exchange that is over here: nobody waits for an answer.
            None if done || over => {}
            None => {
                let settings = self.settings(shard, shard.limits.aae.confirm);
                let started = self.with_local(shard, view, partition, |local| {
                    Responder::start(micros(now), settings, local, request)
                });
                match started {
                    Ok(responder) => {
                        self.answering.insert((from, exchange), Answering { responder, reply_to: id });
                    }
                    Err(refused) => return self.reply_step(shard, from, id, refused),
                }
            }
        }
        self.drain_answering(shard, from, exchange);
    }

    fn may_not_answer(&self, shard: &Shard, ask: &Ask, receives: bool) -> bool {
        matches!(ask, Ask::Start(_))
            && (self.paused || receives || self.answering.len() >= shard.limits.aae.exchanges_max)
    }

    fn drain_answering(&mut self, shard: &Shard, from: NodeId, exchange: ExchangeId) {
        while let Some(answering) = self.answering.get_mut(&(from, exchange))
            && let Some(output) = answering.responder.poll_output()
        {
            let (partition, reply_to) = (answering.responder.partition(), answering.reply_to);
            match output {
                ResponderOutput::Send(reply) => {
                    if let Answer::Listed(listing) = &reply.answer
                        && let Some(shared) = self.rounds.shared(from, partition)
                    {
                        shared.compared += listing.entries() as u64;
                    }
                    self.reply_step(shard, from, reply_to, reply);
                }
                ResponderOutput::Repair(tokens) => {
                    if let Some(shared) = self.rounds.shared(from, partition) {
                        shared.repaired += tokens.len() as u64;
                    }
                    self.repairs.begin(Role::Answering(from, exchange), from, partition, tokens.into());
                }
                ResponderOutput::Ended => self.end_answering(from, exchange),
            }
        }
    }

    fn reply_step(&mut self, shard: &Shard, to: NodeId, id: RequestId, reply: antientropy::Reply) {
        self.spend(shard, reply.encoded_len());
        self.outputs.push_back(Output::Reply { to, id, reply: Reply::Exchanged(Exchanged::Step(reply)) });
    }

    fn send_repairs<S: Store>(&mut self, shard: &Shard, now: Now, view: &View<'_, S>) {
        while self.bytes_left > 0
            && self.repairs.ready_at().is_some_and(|at| at <= now.instant)
            && self.budget.is_open(now.instant, view.pressed)
        {
            let parcel = match self.repairs.next(now.instant, view.replica) {
                Ok(Some(parcel)) => parcel,
                // Nothing is held at that token any more.
                Ok(None) => continue,
                Err(error) => return self.fail(error),
            };
            let Parcel { role, to, bucket, key, siblings, load } = parcel;
            let bytes = load.bytes;
            shard.metrics.aae_keys_sent.inc();
            shard.metrics.aae_bytes.inc_by(bytes as u64);
            self.budget.spend(bytes.max(KEY_COST));
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            let merge = Merge { bucket, key, siblings, hint_for: None, purpose: Purpose::AntiEntropy };
            self.ask(
                shard,
                now,
                to,
                Request::Replica(ReplicaRequest::Merge(merge)),
                Asked::Merge { of: to, role, load },
            );
        }
    }

    fn answered(&mut self, shard: &Shard, now: Now, asked: Asked, reply: Reply) {
        match (asked, reply) {
            (Asked::Sums { of, partitions }, Reply::Exchanged(Exchanged::Unequal(unequal))) => {
                let again = self.take_unequal(now, of, &partitions, &unequal);
                self.rounds.closed(now.instant, of, again);
            }
            (Asked::Sums { of, .. }, reply) => {
                tracing::debug!(peer = %of, ?reply, "sums were refused");
                self.rounds.closed(now.instant, of, true);
            }
            (Asked::Merge { of, role, load }, reply) => {
                let taken = reply == Reply::Acked;
                if taken {
                    self.rounds.repaired_one(now.instant, of);
                } else {
                    tracing::debug!(peer = %of, ?reply, "a repair was refused");
                }
                if let Reply::Refused(Refusal::Overloaded { retry_after_ms }) = reply {
                    let wait = Duration::from_millis(retry_after_ms.into()).min(shard.limits.aae.patience);
                    self.repairs.hold(now.instant, of, now.instant + wait);
                    self.rounds.hold(of, now.instant + wait);
                }
                self.repairs.landed(role, load, taken);
            }
            (Asked::State { of, mine }, Reply::State(State::Header(theirs))) => {
                tracing::error!(peer = %of, mine, ?theirs, "a key differed in three successive rounds: a bug");
            }
            (Asked::State { of, mine }, _) => {
                tracing::error!(peer = %of, mine, "a key differed in three successive rounds: a bug");
            }
        }
    }

    fn unanswered(&mut self, now: Now, id: RequestId) {
        match self.asked.remove(&id) {
            Some(Asked::Sums { of, .. }) => self.rounds.closed(now.instant, of, true),
            Some(Asked::Merge { role, load, .. }) => self.repairs.landed(role, load, false),
            Some(Asked::State { of, mine }) => {
                tracing::error!(peer = %of, mine, "a key differed in three successive rounds: a bug");
            }
            None => {}
        }
    }

    /// The answer is whether something could not be compared yet.
    fn take_unequal(&mut self, now: Now, peer: NodeId, asked: &[PartitionId], unequal: &Unequal) -> bool {
        let named: BTreeMap<PartitionId, Standing> = unequal.partitions.iter().copied().collect();
        let mut again = false;
        for &partition in asked {
            match named.get(&partition) {
                None => {
                    self.rounds.equal(now.instant, peer, partition);
                    self.rounds.forgive(peer, partition);
                }
                Some(Standing::Differs { bits, count }) => {
                    self.rounds.unequal(now.instant, peer, partition, *bits, *count);
                }
                Some(Standing::Rebuilding) => again = true,
                Some(Standing::NotComparable) => {
                    tracing::warn!(%peer, %partition, "the peer compares this partition in another way, or does not \
                        own it: is it of another release?");
                }
            }
        }
        again
    }

    /// Ends an exchange that this node began, and will try again.
    fn give_up(&mut self, shard: &Shard, now: Now, exchange: ExchangeId) {
        if let Some(begun) = self.begun.remove(&exchange) {
            shard.metrics.aae_exchanges_failed.inc();
            self.repairs.drop_job(Role::Begun(exchange));
            self.rounds.postpone(now.instant, begun.peer, begun.initiator.partition());
        }
    }

    fn end_answering(&mut self, from: NodeId, exchange: ExchangeId) {
        self.answering.remove(&(from, exchange));
        self.repairs.drop_job(Role::Answering(from, exchange));
    }

    fn ask(&mut self, shard: &Shard, now: Now, to: NodeId, request: Request, asked: Asked) {
        let carried = time_to_carry(request.value_bytes()) * CARRY_PATIENCE;
        let (id, deadline) = (self.ids.draw(), now.instant + shard.limits.aae.patience + carried);
        self.asked.insert(id, asked);
        // What takes longer to carry is overdue later than what is asked after it.
        let at = self.overdue.partition_point(|(other, _)| *other <= deadline);
        self.overdue.insert(at, (deadline, id));
        self.outputs.push_back(Output::Send { to, id, deadline, request });
    }

    fn spend(&mut self, shard: &Shard, bytes: usize) {
        shard.metrics.aae_bytes.inc_by(bytes as u64);
        self.budget.spend(bytes);
    }

    /// Two exchanges of a partition at once would find the same.
    fn is_busy(&self, partition: PartitionId) -> bool {
        self.begun.values().any(|begun| begun.initiator.partition() == partition)
    }

    /// `confirm` is what is left to wait for: a partition that has been in the queue for a second has been unequal for a
    /// second.
    fn settings(&self, shard: &Shard, confirm: Duration) -> Settings {
        let length = |time: Duration| Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Settings {
            confirm: length(confirm),
            patience: length(shard.limits.aae.patience),
            repair: length(shard.limits.aae.repair),
            keys_max: shard.limits.aae.keys_max,
            entries_max: shard.limits.aae.entries_max,
            ..Settings::default()
        }
    }

    fn with_initiator<S: Store>(
        &mut self,
        shard: &Shard,
        view: &View<'_, S>,
        exchange: ExchangeId,
        call: impl FnOnce(&mut Initiator, Local<'_>),
    ) {
        let Some(mut begun) = self.begun.remove(&exchange) else { return };
        let partition = begun.initiator.partition();
        self.with_local(shard, view, partition, |local| call(&mut begun.initiator, local));
        self.begun.insert(exchange, begun);
    }

    fn with_responder<S: Store>(
        &mut self,
        shard: &Shard,
        view: &View<'_, S>,
        from: NodeId,
        exchange: ExchangeId,
        call: impl FnOnce(&mut Responder, Local<'_>),
    ) {
        let Some(mut answering) = self.answering.remove(&(from, exchange)) else { return };
        let partition = answering.responder.partition();
        self.with_local(shard, view, partition, |local| call(&mut answering.responder, local));
        self.answering.insert((from, exchange), answering);
    }

    /// Calls a machine with what is held of its partition now; reports it if that cannot be read.
    fn with_local<S: Store, T>(
        &mut self,
        shard: &Shard,
        view: &View<'_, S>,
        partition: PartitionId,
        call: impl FnOnce(Local<'_>) -> T,
    ) -> T {
        let stored = view.replica.stored(shard, partition.n);
        let tree = match view.replica.tree(partition) {
            Held::Tree(tree) => Some(tree),
            Held::Rebuilding | Held::Nothing => None,
        };
        let records: &dyn Records = &stored;
        let answer = call(Local { tree, records });
        stored.into_failures().into_iter().for_each(|error| self.fail(error));
        answer
    }

    fn fail(&mut self, error: RecordError) {
        self.outputs.push_back(Output::Failed(error));
    }
}

impl Asked {
    fn of(&self) -> NodeId {
        match self {
            Asked::Sums { of, .. } | Asked::Merge { of, .. } | Asked::State { of, .. } => *of,
        }
    }
}

/// The number of keys, as far as it is known.
fn count(held: Held<'_>) -> u64 {
    match held {
        Held::Tree(tree) => tree.sum().count,
        Held::Rebuilding | Held::Nothing => 0,
    }
}

/// Whether a difference may be writes that are only under way, which become equal by themselves. Not if one side lacks
/// more than that: a node that has lost its data should not wait a second for each partition.
fn may_be_under_way(mine: u64, theirs: u64) -> bool {
    mine.min(theirs) > 0 && mine.abs_diff(theirs) <= UNDER_WAY_MAX
}

/// The machines of an exchange count microseconds on the same clock.
fn micros(now: Now) -> Micros {
    Micros(now.instant.0)
}

/// So many times what it should take to carry a state: the peer may be given others meanwhile.
const CARRY_PATIENCE: u32 = 4;

/// What a repaired key counts for at least: small ones cost time, not bytes.
const KEY_COST: usize = 2 << 10;

/// Keys that one side of a partition may have more than the other just because writes are under way.
const UNDER_WAY_MAX: u64 = 64;

/// Keys of a partition that are watched for becoming equal.
const UNREPAIRED_MAX: usize = 1000;

/// Keys of an exchange that are read to see whether they have changed since they differed last; fewer if they are large.
const UNREPAIRED_LOOKED_AT_MAX: usize = 64;

/// Keys that do not become equal are reported a few at a time: what ails one ails all.
const UNREPAIRED_LOGGED_MAX: usize = 4;
