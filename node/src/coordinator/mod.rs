//! Coordination: one small machine per request, and an owner that routes between them.
//!
//! ```text
//! client ──Request──▶ plan ──▶ Put | Get | Delete (a Get, then a Put) | Scan | Spread | Forward
//!                                 │ ▲
//!                        requests ▼ │ replies          replicas, this node's own among them
//! client ◀─Response── respond ◀── Answer
//! ```
//! A machine is told of replies, lost peers and time, and says what to send and when to wake it. It lives on after its
//! answer until every replica it asked has spoken: late replies still count for repair.

mod attempt;
mod awaiting;
mod course;
mod delete;
mod forward;
mod get;
mod latency;
mod machine;
mod origin;
mod plan;
mod put;
mod quorum;
mod respond;
mod restore;
mod salvage;
mod scan;
mod slow;
mod spread;
mod start;
mod top;
mod versions;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use driftless_proto::client::{self, Basis, Request, Response};
use driftless_proto::key::STATE_BYTES_MAX;
use driftless_proto::observed::Profile;
use driftless_proto::top::TopCommand;
use driftless_proto::{ActorId, ContextKeys, Dot, Failure, Refusal, Siblings, Topology};
use driftless_proto::{BucketId, Key, WriteId};
use driftless_ring::NodeId;
use rand::Rng;
use rand::rngs::StdRng;

use crate::liveness::clocks::ClockBounds;
use crate::peer::{self, Lane, ReplicaRequest, Reply, RequestId, RequestIds, time_to_carry};
use crate::planted::Bug;
use crate::replica::local::{LocalRequest, Loss, Made, Restore};
use crate::shard::Shard;
use crate::time::{Instant, Now};
use crate::top::Top;

use attempt::Attempt;
use course::{Course, Trail};
use delete::Deletion;
use latency::{HedgeBudget, LatencyEstimator, Work};
use machine::Machine;
use origin::Origin;
use respond::Responder;
use slow::{SlowLog, Who};

/// What the coordinator wants its engine to do.
pub(crate) enum Output {
    /// Ask another node.
    Send { to: NodeId, id: RequestId, deadline: Instant, request: peer::Request },
    /// Ask this node's own replica.
    Own { id: RequestId, request: LocalRequest },
    /// Answer the client, node or replica that asked.
    Reply { to: Asker, response: Response },
    /// This peer has not answered in a time that should have been enough.
    Overdue(NodeId),
    /// This peer knows more of the versions of the ring.
    Behind(NodeId),
}

/// Names a client request within the shell, which finds the way back by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag {
    /// Connection, as the shell numbers them.
    pub connection: u64,
    /// The request's id on that connection.
    pub request: u64,
}

/// Who waits for the answer of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// A client of this node.
    Client(ClientTag),
    /// A node that forwarded its client's request.
    Peer(NodeId, RequestId),
    /// This node's own replica, of which a record is damaged.
    Replica,
}

impl Asker {
    fn is_peer(self) -> bool {
        matches!(self, Asker::Peer(..))
    }
}

/// What a machine wants done.
enum Action {
    /// Ask a replica, perhaps this node's own.
    Ask {
        to: NodeId,
        request: ReplicaRequest,
    },
    /// Ask the own replica what only it is asked.
    Own(LocalRequest),
    /// Pass a client's request on.
    Forward {
        to: NodeId,
        request: Request,
    },
    Answer(Result<Answer, Failure>),
    Count(Occasion),
}

/// What a machine found out.
enum Answer {
    Read {
        siblings: Siblings,
        basis: Basis,
    },
    Written {
        dot: Dot,
        siblings: Siblings,
        acks: u8,
        primaries: u8,
    },
    /// A delete has nothing to remove, and so many replicas know it. These values it has not seen.
    Covered {
        values: u32,
        acks: u8,
        primaries: u8,
    },
    Page(client::Page),
    Ready(Response),
}

/// Something worth counting.
enum Occasion {
    ReadRepair,
    WriteBack,
    Missed,
    Unproven,
}

/// The requests that one shard coordinates.
pub(crate) struct Coordinator {
    keys: ContextKeys,
    rng: StdRng,
    /// Peers that can be counted on now: an opinion for routing, never for safety. Plans share it as it was.
    up: Arc<BTreeSet<NodeId>>,
    latency: LatencyEstimator,
    hedges: HedgeBudget,
    slow: SlowLog,
    /// What the other nodes' clocks allow this one's to show, if there are enough of them to tell.
    clock_bounds: Option<ClockBounds>,
    /// Actors of this shard that must not be trusted any more; normally none.
    retired: BTreeSet<ActorId>,
    requests: BTreeMap<RequestId, Open>,
    /// Those among them that somebody waits for; the others wait for late replicas.
    waited_for: usize,
    /// Those of these that peers have passed on.
    passed_on: usize,
    /// Bytes of the values that replicas have sent for them.
    value_bytes: usize,
    /// When to look at which request again. Entries of requests that have moved on are skipped.
    timeouts: BinaryHeap<Reverse<(Instant, RequestId)>>,
    ids: RequestIds,
    /// Which keys are hot.
    top: Top,
    outputs: VecDeque<Output>,
}

/// A request under way.
struct Open {
    asker: Asker,
    /// What was asked, to begin again with; nothing if whoever asked does so itself, or the write of a delete has taken it over from
    /// its read.
    origin: Option<Origin>,
    machine: Machine,
    question: Question,
    deadline: Instant,
    /// What replicas were asked and have not answered.
    attempts: Vec<Attempt>,
    /// Whom the machine has asked, when, and what each did.
    trail: Trail,
    /// Bytes of the values that they have sent.
    value_bytes: usize,
    /// Somebody waits for the answer.
    is_waited_for: bool,
    /// The earliest entry for it in the heap of timeouts.
    wakes_at: Instant,
}

/// What was asked, as far as the answer needs it.
#[derive(Clone)]
enum Question {
    Get {
        bucket: BucketId,
        key: Key,
        /// By earlier answers to the same read.
        shown: Vec<Dot>,
    },
    Put {
        bucket: BucketId,
        key: Key,
        write_id: WriteId,
    },
    /// All that is known of a key.
    State {
        bucket: BucketId,
        key: Key,
        /// By earlier answers to the same read.
        shown: Vec<Dot>,
    },
    /// A delete: first what is there is read, unless its context says that already.
    Delete(Box<Deletion>),
    /// What the other owners hold of a key, to take the place of a damaged record.
    Restore {
        bucket: BucketId,
        key: Key,
    },
    Other,
}

impl Coordinator {
    pub(crate) fn new(shard: &Shard, now: Instant, keys: ContextKeys, mut rng: StdRng) -> Coordinator {
        let ids = RequestIds::new(Lane::Coordinator, rng.random());
        let mut top = Top::new(now, shard.limits.top.clone());
        top.handle_topology(now, shard.node, &shard.topology);
        Coordinator {
            keys,
            rng,
            up: Arc::default(),
            latency: LatencyEstimator::new(shard.limits.attempt_timeout),
            hedges: HedgeBudget::new(),
            slow: SlowLog::default(),
            clock_bounds: None,
            retired: BTreeSet::new(),
            requests: BTreeMap::new(),
            waited_for: 0,
            passed_on: 0,
            value_bytes: 0,
            timeouts: BinaryHeap::new(),
            ids,
            top,
            outputs: VecDeque::new(),
        }
    }

    /// Tokens are sealed and opened with these from now on.
    pub(crate) fn handle_context_keys(&mut self, keys: ContextKeys) {
        self.keys = keys;
    }

    /// Other limits count from now on.
    pub(crate) fn handle_limits(&mut self, shard: &Shard, now: Instant) {
        self.top.handle_limits(now, &shard.limits.top);
    }

    /// Which keys are hot, large, or have many siblings.
    pub(crate) fn top(&mut self, now: Instant, command: &TopCommand) -> driftless_proto::top::Top {
        self.top.told(now, command)
    }

    /// Starts a request that has `arrived` then. One that a peer has passed on is not passed on again.
    pub(crate) fn handle_request(
        &mut self,
        shard: &Shard,
        now: Now,
        asker: Asker,
        arrived: Instant,
        deadline: Instant,
        request: Request,
    ) {
        if deadline <= now.instant {
            return self.handle_expired(shard, now, arrived, request);
        }
        let deadline = deadline.min(now.instant + shard.limits.deadline_max);
        let mut origin = Origin::new(now, arrived, request);
        if let Request::Topology = origin.request {
            let response = Response::Topology(Box::new(Topology::clone(&shard.topology)));
            return self.outputs.push_back(Output::Reply { to: asker, response });
        }
        // Whoever is refused has asked all the same; what a peer passes on has been counted there.
        if let Asker::Client(_) = asker {
            top::asked(&mut self.top, shard, now, &origin.request);
        }
        self.hedges.earn();
        origin.forwarded = asker.is_peer();
        let is_full = self.waited_for >= shard.limits.requests_max
            || self.requests.len() >= shard.limits.requests_max.saturating_mul(LINGERING_FACTOR)
            || (matches!(origin.request, Request::Get(_) | Request::GetState(_))
                && self.value_bytes >= shard.limits.coordinated_bytes_max);
        if is_full {
            shard.metrics.overloaded.inc();
            let retry_after_ms = shard.limits.retry_after_ms();
            let failure = Refusal::Overloaded { retry_after_ms }.into();
            return self.fail(shard, now, asker, &origin, None, failure);
        }
        self.begin(shard, now, asker, deadline, origin);
    }

    /// A request has waited for its turn until nobody waited for it any more: nothing is done for it.
    pub(crate) fn handle_expired(&mut self, shard: &Shard, now: Now, arrived: Instant, request: Request) {
        shard.metrics.expired.inc();
        let origin = Origin::new(now, arrived, request);
        let response = Response::Failed(Refusal::Overloaded { retry_after_ms: shard.limits.retry_after_ms() }.into());
        if let Some(line) = self.slow.count(shard, now, &origin, Who::Coordinates, &response) {
            let told = course::of_refused(shard, now, &origin, None, &self.up);
            line.write(shard, &origin, &response, &told);
        }
    }

    fn begin(&mut self, shard: &Shard, now: Now, asker: Asker, deadline: Instant, origin: Origin) {
        match self.start(shard, now, deadline, &origin) {
            Ok((machine, question)) => self.open(shard, now, asker, Some(origin), machine, question, deadline),
            Err(failure) => self.fail(shard, now, asker, &origin, None, failure),
        }
    }

    /// Says of a request that it did not succeed, before or between its machines; `read` is what has been asked until then.
    fn fail(&mut self, shard: &Shard, now: Now, asker: Asker, origin: &Origin, read: Option<Course>, failure: Failure) {
        let (response, up) = (Response::Failed(origin.honest(failure)), &self.up);
        let response = origin.tell(shard, now, &mut self.slow, Who::Coordinates, response, |response| {
            (response, course::of_refused(shard, now, origin, read, up))
        });
        self.outputs.push_back(Output::Reply { to: asker, response });
    }

    /// What was asked of a replica was not sent, which is as good as this refusal.
    pub(crate) fn handle_unsent(&mut self, shard: &Shard, now: Now, to: NodeId, id: RequestId, refused: Reply) {
        if let Some(open) = self.requests.get_mut(&id)
            && let Some(at) = open.attempts.iter().position(|attempt| attempt.to == to)
        {
            // The replica knows nothing of it, so this says nothing of how fast it is.
            open.attempts.remove(at);
        }
        self.handle_reply(shard, now, to, id, refused);
    }

    /// A replica has answered one of our requests.
    pub(crate) fn handle_reply(&mut self, shard: &Shard, now: Now, from: NodeId, id: RequestId, reply: Reply) {
        let Some(open) = self.requests.get_mut(&id) else { return };
        let at = open.attempts.iter().position(|attempt| attempt.to == from);
        // No answer yet, also if it comes too late to be waited for.
        if let Reply::Coming { bytes } = reply {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(STATE_BYTES_MAX);
            if let Some(at) = at {
                open.attempts[at].allow(time_to_carry(bytes));
            }
            return;
        }
        if let Some(at) = at {
            open.attempts.remove(at).ended(now.instant, &mut self.latency);
        }
        open.trail.answered(now, from, &reply);
        if let Reply::Refused(refusal @ Refusal::StaleRing { .. }) = &reply
            && open.is_waited_for
            && !open.machine.is_decided()
            && open.origin.is_some()
        {
            return self.await_news(shard, now, from, id, refusal.clone());
        }
        let bytes = reply.value_bytes();
        open.value_bytes += bytes;
        self.value_bytes += bytes;
        open.machine.handle_reply(from, reply);
        self.advance(shard, now, id);
    }

    /// This node's own replica has applied one of our writes.
    pub(crate) fn handle_made(&mut self, shard: &Shard, now: Now, id: RequestId, made: Made) {
        if let Some(Open { machine: Machine::Put(put), trail, .. }) = self.requests.get_mut(&id) {
            trail.made(now);
            put.handle_made(made, &self.retired);
            self.advance(shard, now, id);
        }
    }

    /// The clocks of the other nodes allow this one's so much.
    pub(crate) fn handle_clock(&mut self, bounds: Option<ClockBounds>) {
        self.clock_bounds = bounds;
    }

    /// A peer can be counted on.
    pub(crate) fn handle_peer_up(&mut self, peer: NodeId) {
        Arc::make_mut(&mut self.up).insert(peer);
    }

    /// A peer cannot be counted on any more. It may still answer what it was asked.
    pub(crate) fn handle_peer_unresponsive(&mut self, shard: &Shard, now: Now, peer: NodeId) {
        Arc::make_mut(&mut self.up).remove(&peer);
        for id in self.open_ids() {
            if let Some(open) = self.requests.get_mut(&id)
                && open.attempts.iter().any(|attempt| attempt.to == peer)
            {
                open.machine.handle_overdue(peer);
                self.advance(shard, now, id);
            }
        }
    }

    /// The connection to a peer is gone: what was asked of it will not be answered.
    pub(crate) fn handle_peer_lost(&mut self, shard: &Shard, now: Now, peer: NodeId) {
        Arc::make_mut(&mut self.up).remove(&peer);
        for id in self.open_ids() {
            if let Some(open) = self.requests.get_mut(&id) {
                open.attempts.retain(|attempt| attempt.to != peer);
                open.trail.lost(now, peer);
                open.machine.handle_lost(peer);
            }
            self.advance(shard, now, id);
        }
    }

    /// No write of this actor may be acknowledged any more, neither those under way nor those still in a batch.
    pub(crate) fn handle_retired(&mut self, shard: &Shard, now: Now, actor: ActorId) {
        self.retired.insert(actor);
        for id in self.open_ids() {
            if let Some(Open { machine: Machine::Put(put), .. }) = self.requests.get_mut(&id) {
                let is_wrong = || put.is_waited_for() && put.is_of(&self.retired);
                if shard.planted.is_where(Bug::RetiredAcknowledged, is_wrong) {
                    continue;
                }
                put.handle_retired(&self.retired);
                self.advance(shard, now, id);
            }
        }
    }

    /// Time has passed: looks at one request. Call it again while [`Coordinator::poll_timeout`] is due.
    pub(crate) fn handle_timeout(&mut self, shard: &Shard, now: Now) {
        while let Some(&Reverse((at, id))) = self.timeouts.peek()
            && at <= now.instant
        {
            self.timeouts.pop();
            let Some(open) = self.requests.get_mut(&id).filter(|open| open.wakes_at == at) else {
                continue;
            };
            // This entry is gone; whatever the machine wants next gets a new one.
            open.wakes_at = Instant(u64::MAX);
            open.machine.handle_timeout(now);
            self.look_at_attempts(shard, now, id);
            return self.advance(shard, now, id);
        }
    }

    /// Asks other replicas in place of those that are late, as far as the budget allows, and gives up on those that
    /// are overdue.
    fn look_at_attempts(&mut self, shard: &Shard, now: Now, id: RequestId) {
        let Some(open) = self.requests.get_mut(&id) else { return };
        for attempt in &mut open.attempts {
            if attempt.late_at.is_some_and(|at| at <= now.instant) {
                attempt.late_at = None;
                if self.hedges.allows() && open.machine.handle_late(attempt.to) {
                    self.hedges.spend();
                    shard.metrics.hedges.inc();
                }
            }
        }
        let is_overdue = |attempt: &mut Attempt| attempt.overdue_at <= now.instant;
        for attempt in open.attempts.extract_if(.., is_overdue) {
            attempt.ended(now.instant, &mut self.latency);
            let Attempt { to, work, .. } = attempt;
            open.machine.handle_overdue(to);
            // A page waits in line behind everything else there is to do: that says nothing against the node.
            if work != Work::Scan {
                self.outputs.push_back(Output::Overdue(to));
            }
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Coordinator::handle_timeout`]; perhaps too early, never too late.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.peek().map(|Reverse((at, _))| *at)
    }

    /// Requests under way.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    #[allow(clippy::too_many_arguments)]
    fn open(
        &mut self,
        shard: &Shard,
        now: Now,
        asker: Asker,
        origin: Option<Origin>,
        machine: Machine,
        question: Question,
        deadline: Instant,
    ) {
        let id = self.ids.draw();
        let (attempts, wakes_at) = (Vec::with_capacity(3), Instant(u64::MAX));
        let (value_bytes, is_waited_for) = (0, true);
        let trail = Trail::new(now);
        let open =
            Open { asker, origin, machine, question, deadline, attempts, trail, value_bytes, is_waited_for, wakes_at };
        self.requests.insert(id, open);
        self.waited_for += 1;
        self.passed_on += usize::from(asker.is_peer());
        shard.metrics.requests_open.inc();
        self.carry_out(shard, now, id);
    }

    /// Does what the request's machine wants, moves a delete on from reading to writing, and forgets what is done.
    fn advance(&mut self, shard: &Shard, now: Now, id: RequestId) {
        if let Some((seen, basis)) = self.carry_out(shard, now, id) {
            self.write_tombstone(shard, now, id, seen, basis);
        }
    }

    /// Does what the machine wants. Returns what a delete has read, when it has.
    fn carry_out(&mut self, shard: &Shard, now: Now, id: RequestId) -> Option<(Siblings, Basis)> {
        let open = self.requests.get_mut(&id)?;
        let mut read = None;
        while let Some(action) = open.machine.poll_action() {
            match action {
                Action::Ask { to, request } if to == shard.node => {
                    open.trail.asked(now, to);
                    self.outputs.push_back(Output::Own { id, request: LocalRequest::Replica(request) });
                }
                Action::Ask { to, request } => {
                    open.trail.asked(now, to);
                    let trace = open.origin.as_ref().and_then(|origin| origin.profile.trace);
                    let (work, deadline, request) =
                        (Work::of(&request), open.deadline, peer::Request::of_replica(trace, request));
                    open.attempts.push(Attempt::begin(now.instant, to, work, &request, &self.latency));
                    self.outputs.push_back(Output::Send { to, id, deadline, request });
                }
                Action::Own(request) => {
                    if let LocalRequest::Write(_) = request {
                        open.trail.asked(now, shard.node);
                    }
                    self.outputs.push_back(Output::Own { id, request });
                }
                Action::Forward { to, request } => {
                    let profile = open.origin.as_ref().map_or(Profile::default(), |origin| origin.profile);
                    let (deadline, request) = (open.deadline, peer::Request::Forward(request.observed(profile)));
                    let attempt = Attempt::begin(now.instant, to, Work::Forward, &request, &self.latency);
                    // Who explains it waits for its replicas, until they are overdue if need be.
                    let attempt = match profile.explain {
                        true => attempt.waiting(shard.limits.attempt_timeout * 2),
                        false => attempt,
                    };
                    open.attempts.push(attempt);
                    if let Some(&to) = self.up.iter().find(|peer| **peer != to)
                        && shard.planted.is(Bug::DuplicatedForward)
                    {
                        self.outputs.push_back(Output::Send { to, id, deadline, request: request.clone() });
                    }
                    self.outputs.push_back(Output::Send { to, id, deadline, request });
                }
                Action::Count(Occasion::ReadRepair) => {
                    shard.metrics.read_repairs.inc();
                }
                Action::Count(Occasion::WriteBack) => {
                    shard.metrics.write_backs.inc();
                }
                Action::Count(Occasion::Missed) => {
                    shard.metrics.missed_writes.inc();
                }
                Action::Count(Occasion::Unproven) => {
                    shard.metrics.acks_unproven.inc();
                }
                Action::Answer(Ok(Answer::Read { siblings, basis, .. }))
                    if matches!(open.question, Question::Delete(_)) =>
                {
                    read = Some((siblings, basis));
                }
                Action::Answer(result) if let Question::Restore { bucket, key } = &open.question => {
                    if let Ok(Answer::Read { siblings, .. }) = result {
                        let restore = Restore { bucket: *bucket, key: key.clone(), siblings, loss: Loss::Excluded };
                        self.outputs.push_back(Output::Own { id, request: LocalRequest::Restore(restore) });
                    }
                }
                Action::Answer(result) => {
                    top::saw(&mut self.top, shard, now, &open.question, &result);
                    let responder = Responder {
                        keys: &self.keys,
                        metrics: &shard.metrics,
                        page_bytes: shard.limits.read_page_bytes,
                        planted: &shard.planted,
                    };
                    let response = open.response(shard, now, &responder, &mut self.slow, result);
                    self.outputs.push_back(Output::Reply { to: open.asker, response });
                }
            }
        }
        debug_assert!(
            !open.machine.is_waited_for() || open.machine.poll_timeout().is_some(),
            "whoever waits is answered in the end"
        );
        debug_assert!(open.attempts.iter().all(|attempt| attempt.to != shard.node), "the own replica is never late");
        if open.is_waited_for && !open.machine.is_waited_for() {
            open.is_waited_for = false;
            self.waited_for -= 1;
            self.passed_on -= usize::from(open.asker.is_peer());
        }
        match open.next_timeout() {
            Some(at) if at < open.wakes_at => {
                open.wakes_at = at;
                self.timeouts.push(Reverse((at, id)));
            }
            Some(_) => {}
            None if read.is_none() => self.close(shard, id),
            None => {}
        }
        read
    }

    fn close(&mut self, shard: &Shard, id: RequestId) {
        if let Some(open) = self.requests.remove(&id) {
            self.waited_for -= usize::from(open.is_waited_for);
            self.passed_on -= usize::from(open.is_waited_for && open.asker.is_peer());
            self.value_bytes -= open.value_bytes;
            shard.metrics.requests_open.dec();
        }
    }

    /// Requests that peers have passed on, and wait for.
    pub(crate) fn passed_on(&self) -> usize {
        self.passed_on
    }

    /// Deletes that remember what their read has asked of whom.
    #[cfg(test)]
    pub(crate) fn reads_remembered(&self) -> usize {
        let remembers = |open: &&Open| matches!(&open.question, Question::Delete(deletion) if deletion.read.is_some());
        self.requests.values().filter(remembers).count()
    }

    pub(crate) fn open_ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }
}

impl Open {
    /// What its asker is told of what the machine found out.
    fn response(
        &self,
        shard: &Shard,
        now: Now,
        responder: &Responder<'_>,
        slow: &mut SlowLog,
        result: Result<Answer, Failure>,
    ) -> Response {
        let Some(origin) = &self.origin else {
            return responder.response(&self.question, result);
        };
        let response = responder.response(&self.question, result.map_err(|failure| origin.honest(failure)));
        match &self.machine {
            Machine::Forward(forward) => origin.tell(shard, now, slow, Who::PassesOn, response, |response| {
                course::passed_on(shard, now, origin, forward, response)
            }),
            _ => origin.tell(shard, now, slow, Who::Coordinates, response, |response| {
                (response, self.explanation(shard, now, origin))
            }),
        }
    }

    /// When to look at it again; `None` when it is done.
    fn next_timeout(&self) -> Option<Instant> {
        let machine = self.machine.poll_timeout()?;
        let attempts = self.attempts.iter().map(|attempt| attempt.late_at.unwrap_or(attempt.overdue_at));
        Some(attempts.min().map_or(machine, |at| at.min(machine)))
    }
}

/// Requests that only wait for late replicas, for each that somebody waits for.
const LINGERING_FACTOR: usize = 4;
