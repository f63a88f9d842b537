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

mod answer;
mod budget;
mod figures;
mod holdings;
mod initiate;
mod passes;
mod repair;
mod rounds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use driftless_antientropy::{ExchangeId, Held, Local, Micros, Refused, Settings, Standing};
use driftless_proto::Refusal;
use driftless_ring::{NodeId, PartitionId, Token};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::AaeLimits;
use crate::peer::{Exchange, Exchanged, Lane, Reply, Request, RequestId, RequestIds, State, time_to_carry};
use crate::replica::record::RecordError;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use answer::Answering;
use budget::Budget;
pub use figures::{Figures, PartitionFigures};
pub(crate) use holdings::{Holdings, KeyState, View};
use initiate::Begun;
use passes::Passes;
use repair::{Done, JobId, Landed, ParcelSize, Repairs};
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
    /// Partitions of which this node held nothing when another was found to hold some of it.
    lacking: BTreeSet<PartitionId>,
    passes: Passes,
    outputs: VecDeque<Output>,
}

/// What was asked, and of whom.
enum Asked {
    Sums {
        of: NodeId,
        partitions: Vec<PartitionId>,
    },
    Merge {
        of: NodeId,
        job_id: JobId,
        token: Token,
        size: ParcelSize,
    },
    /// What a peer holds of a key that is not being repaired.
    State {
        of: NodeId,
        mine: String,
    },
}

impl Reconciler {
    pub(crate) fn new<H: Holdings>(shard: &Shard, holdings: &H, now: Now, mut rng: StdRng) -> Reconciler {
        let rounds_rng = StdRng::from_rng(&mut rng);
        let (limits, window, step_bytes) = (&shard.limits.aae, shard.limits.window_bytes, shard.limits.turn.step_bytes);
        Reconciler {
            rounds: Rounds::new(shard, holdings.partitions(), limits.interval, now.instant, rounds_rng),
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
            lacking: BTreeSet::new(),
            passes: Passes::new(shard),
            outputs: VecDeque::new(),
        }
    }

    /// A peer was found to hold so many keys of a partition.
    fn note_lack(&mut self, partition: PartitionId, mine: Held<'_>, theirs: u64) {
        if theirs >= LACKED_FROM && matches!(mine, Held::Tree(tree) if tree.sum().count == 0) {
            self.lacking.insert(partition);
        }
    }

    /// A peer may be counted on again.
    pub(crate) fn handle_peer_up(&mut self, now: Now, peer: NodeId) {
        self.rounds.peer_up(now.instant, peer);
    }

    /// A peer may not be counted on: what was under way with it is over.
    pub(crate) fn handle_peer_lost<H: Holdings>(&mut self, view: &View<'_, H>, peer: NodeId) {
        let View { shard, now, .. } = *view;
        self.rounds.peer_lost(peer);
        let begun: Vec<_> =
            self.begun.iter().filter(|(_, begun)| begun.peer == peer).map(|(exchange, _)| *exchange).collect();
        // The connections of other shards may last, and with them what the peer knows of these exchanges.
        begun.into_iter().for_each(|exchange| self.call_off_begun(shard, now, exchange));
        let answering: Vec<_> = self.answering.keys().filter(|(from, _)| *from == peer).copied().collect();
        answering.into_iter().for_each(|(from, exchange)| self.call_off_answering(shard, from, exchange));
        let asked: Vec<_> = self.asked.iter().filter(|(_, asked)| asked.of() == peer).map(|(id, _)| *id).collect();
        for id in asked {
            self.unanswered(now, id);
        }
        self.go_on(view);
    }

    /// A peer compares.
    pub(crate) fn handle_request<H: Holdings>(
        &mut self,
        view: &View<'_, H>,
        from: NodeId,
        id: RequestId,
        exchange: Exchange,
    ) {
        match exchange {
            Exchange::Sums(sums) => self.answer_sums(view, from, id, &sums),
            Exchange::Step { partition, request } => self.answer_step(view, from, id, partition, request),
        }
        self.go_on(view);
    }

    /// A peer answers.
    pub(crate) fn handle_reply<H: Holdings>(&mut self, view: &View<'_, H>, from: NodeId, id: RequestId, reply: Reply) {
        let View { shard, now, .. } = *view;
        if let (Some(Asked::Sums { .. }), Reply::Exchanged(Exchanged::Unequal(unequal))) = (self.asked.get(&id), &reply)
        {
            for (partition, standing) in &unequal.partitions {
                if let Standing::Differs { count, .. } = standing {
                    self.note_lack(*partition, view.holdings.tree(*partition), *count);
                }
            }
        }
        match reply {
            Reply::Exchanged(Exchanged::Step(reply)) => {
                let exchange = reply.exchange;
                if self.begun.get(&exchange).is_some_and(|begun| begun.peer == from) {
                    self.with_initiator(view, exchange, |initiator, local| {
                        initiator.handle_reply(micros(now), local, reply);
                    });
                    self.drain_begun(view, exchange);
                }
            }
            Reply::Refused(refusal) if self.begun.values().any(|begun| begun.request == id && begun.peer == from) => {
                tracing::debug!(%from, %refusal, "an exchange was refused");
                let exchange = self.begun.iter().find(|(_, begun)| begun.request == id).map(|(exchange, _)| *exchange);
                exchange.into_iter().for_each(|exchange| self.call_off_begun(shard, now, exchange));
            }
            reply => {
                if self.asked.get(&id).is_some_and(|asked| asked.of() == from)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    self.answered(shard, now, asked, reply);
                }
            }
        }
        self.go_on(view);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout<H: Holdings>(&mut self, view: &View<'_, H>) {
        let View { shard, now, .. } = *view;
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
            self.with_initiator(view, exchange, |initiator, local| initiator.handle_timeout(micros(now), local));
            self.drain_begun(view, exchange);
        }
        let answering: Vec<_> =
            self.answering.iter().filter(|(_, a)| due(a.responder.poll_timeout())).map(|(key, _)| *key).collect();
        for (from, exchange) in answering {
            if let Some(answering) = self.answering.get_mut(&(from, exchange)) {
                answering.responder.handle_timeout(micros(now));
            }
            self.drain_answering(shard, from, exchange);
        }
        self.go_on(view);
    }

    /// The operator says something.
    pub(crate) fn handle_command<H: Holdings>(&mut self, view: &View<'_, H>, command: AaeCommand) {
        let View { shard, now, .. } = *view;
        match command {
            AaeCommand::Run(partition) => self.rounds.want(partition),
            AaeCommand::Pause => self.pause(shard, now),
            AaeCommand::Resume => self.paused = false,
        }
        self.go_on(view);
    }

    /// Other limits count from now on. A round that is due already stays due.
    pub(crate) fn handle_limits(&mut self, now: Now, limits: &AaeLimits) {
        self.rounds.set_interval(now.instant, limits.interval);
        self.budget.set_rate(limits.bytes_per_second);
    }

    /// Nothing is begun or repaired any more, and peers that ask are refused.
    fn pause(&mut self, shard: &Shard, now: Now) {
        self.paused = true;
        self.call_off(shard, now);
    }

    /// Ends all exchanges, and says so to whoever takes part in them: nobody keeps room for one, or waits for its repairs.
    fn call_off(&mut self, shard: &Shard, now: Now) {
        let begun: Vec<_> = self.begun.keys().copied().collect();
        begun.into_iter().for_each(|exchange| self.call_off_begun(shard, now, exchange));
        let answering: Vec<_> = self.answering.keys().copied().collect();
        answering.into_iter().for_each(|(from, exchange)| self.call_off_answering(shard, from, exchange));
    }

    /// Ends all exchanges without a word.
    fn forget_exchanges(&mut self, shard: &Shard) {
        for exchange in std::mem::take(&mut self.begun).into_keys() {
            shard.metrics.aae_exchanges_failed.inc();
            self.repairs.drop_job(JobId::Begun(exchange));
        }
        for (from, exchange) in std::mem::take(&mut self.answering).into_keys() {
            self.repairs.drop_job(JobId::Answering(from, exchange));
        }
    }

    /// The engine's next turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.bytes_left = self.step_bytes;
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
    fn go_on<H: Holdings>(&mut self, view: &View<'_, H>) {
        let View { shard, now, .. } = *view;
        self.pressed = view.pressed;
        while self.overdue.front().is_some_and(|(_, id)| !self.asked.contains_key(id)) {
            self.overdue.pop_front();
        }
        debug_assert!(self.begun.len() <= shard.limits.aae.exchanges_max, "exchanges are begun within a bound");
        debug_assert!(self.answering.len() <= shard.limits.aae.exchanges_max, "and answered within one");
        if self.paused {
            debug_assert!(self.begun.is_empty() && self.answering.is_empty(), "a pause ends what is under way");
            return;
        }
        loop {
            self.send_repairs(view);
            let Some(Done { job_id, taken }) = self.repairs.take_done() else { break };
            match job_id {
                JobId::Begun(exchange) => {
                    if let Some(begun) = self.begun.get_mut(&exchange) {
                        begun.taken &= taken;
                    }
                    self.with_initiator(view, exchange, |initiator, local| initiator.resume(micros(now), local));
                    self.drain_begun(view, exchange);
                }
                JobId::Answering(from, exchange) => {
                    if let Some(answering) = self.answering.get_mut(&(from, exchange)) {
                        match taken {
                            true => answering.responder.resume(micros(now)),
                            false => answering.responder.give_up(Refused::NotTaken),
                        }
                    }
                    self.drain_answering(shard, from, exchange);
                }
            }
        }
        self.begin_exchanges(view);
        while let Some((peer, partitions)) = self.rounds.due(now.instant) {
            self.begin_round(view, peer, partitions);
        }
        let may_begin = self.begun.len() < shard.limits.aae.exchanges_max;
        self.next_exchange =
            if may_begin { self.rounds.next_at(|peer, partition| self.is_busy(peer, partition)) } else { None };
    }

    fn answered(&mut self, shard: &Shard, now: Now, asked: Asked, reply: Reply) {
        match (asked, reply) {
            (Asked::Sums { of, partitions }, Reply::Exchanged(Exchanged::Unequal(unequal))) => {
                let again = self.take_unequal(shard, now, of, &partitions, &unequal);
                self.rounds.closed(now.instant, of, again);
            }
            (Asked::Sums { of, .. }, reply) => {
                tracing::debug!(peer = %of, ?reply, "sums were refused");
                self.rounds.closed(now.instant, of, true);
            }
            (Asked::Merge { of, job_id, token, size }, reply) => {
                let landed = match reply {
                    Reply::Acked => {
                        self.rounds.repaired_one(now.instant, of);
                        Landed::Taken
                    }
                    Reply::Refused(Refusal::Overloaded { retry_after_ms }) => {
                        let wait = Duration::from_millis(retry_after_ms.into()).min(shard.limits.aae.patience);
                        self.rounds.hold(of, now.instant + wait);
                        Landed::PutOff { token, now: now.instant, wait }
                    }
                    reply => {
                        tracing::debug!(peer = %of, ?reply, "a repair was refused");
                        Landed::NotTaken
                    }
                };
                self.repairs.landed(job_id, size, landed);
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
            Some(Asked::Merge { job_id, size, .. }) => self.repairs.landed(job_id, size, Landed::NotTaken),
            Some(Asked::State { of, mine }) => {
                tracing::error!(peer = %of, mine, "a key differed in three successive rounds: a bug");
            }
            None => {}
        }
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

    /// Calls a machine with what is held of its partition now; reports it if that cannot be read.
    fn with_local<H: Holdings, T>(
        &mut self,
        view: &View<'_, H>,
        partition: PartitionId,
        call: impl FnOnce(Local<'_>) -> T,
    ) -> T {
        let View { shard, .. } = *view;
        let tree = match view.holdings.tree(partition) {
            Held::Tree(tree) => Some(tree),
            Held::Rebuilding | Held::Nothing => None,
        };
        let shown = view.holdings.with_records(shard, partition.n, |records| call(Local { tree, records }));
        let (answer, failures) = shown;
        failures.into_iter().for_each(|error| self.fail(error));
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

/// More keys of a partition than are on their way at any moment.
const LACKED_FROM: u64 = 16;

/// The number of keys, as far as it is known.
fn count(held: Held<'_>) -> u64 {
    match held {
        Held::Tree(tree) => tree.sum().count,
        Held::Rebuilding | Held::Nothing => 0,
    }
}

/// The machines of an exchange count microseconds on the same clock.
fn micros(now: Now) -> Micros {
    Micros(now.instant.0)
}

/// So many times what it should take to carry a state: the peer may be given others meanwhile.
const CARRY_PATIENCE: u32 = 4;

#[cfg(test)]
mod tests;
