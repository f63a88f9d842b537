//! Coordination: one small machine per request, and an owner that routes between them.
//!
//! ```text
//! client ──Request──▶ plan ──▶ Put | Get | Delete (a Get, then a Put) | Scan | Forward
//!                                 │ ▲
//!                        requests ▼ │ replies          replicas, this node's own among them
//! client ◀─Response── respond ◀── Answer
//! ```
//! A machine is told of replies, lost peers and time, and says what to send and when to wake it. It lives on after its
//! answer until every replica it asked has spoken: late replies still count for repair.

mod forward;
mod get;
mod plan;
mod put;
mod quorum;
mod respond;
mod scan;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use driftless_proto::client::{self, Request, Response};
use driftless_proto::{
    ActorId, Context, ContextKeys, ContextToken, Failure, Refusal, Siblings, Topology, Unknown, WriteId,
};
use driftless_proto::{BucketId, Key};
use driftless_ring::{NodeId, PartitionId};
use rand::Rng;
use rand::rngs::StdRng;

use crate::config::Limits;
use crate::engine::ClientTag;
use crate::metrics::Metrics;
use crate::peer::{self, Lane, Reply, RequestId, RequestIds, Write};
use crate::time::{Instant, Now};

use forward::Forward;
use get::{Demand, Get, Testimony};
use plan::Plan;
use put::Put;
use scan::Scan;

/// What the coordinator wants its engine to do.
pub(crate) enum Output {
    /// Ask a replica, perhaps this node's own.
    Send { to: NodeId, id: RequestId, deadline: Instant, request: peer::Request },
    /// Answer whoever asked.
    Reply { to: Asker, response: Response },
}

/// Who waits for the answer of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// A client of this node.
    Client(ClientTag),
    /// A node that forwarded its client's request.
    Peer(NodeId, RequestId),
}

/// What a machine wants done.
enum Action {
    Send { to: NodeId, request: peer::Request },
    Answer(Result<Answer, Failure>),
    Count(Occasion),
}

/// What a machine found out.
enum Answer {
    Read { siblings: Siblings, replicas: Vec<Testimony> },
    Written { dot: driftless_proto::Dot, siblings: Siblings, acks: u8 },
    Page(client::Page),
    Ready(Response),
}

/// Something worth counting.
enum Occasion {
    ReadRepair,
    WriteBack,
}

/// The requests that one shard coordinates.
pub(crate) struct Coordinator {
    me: NodeId,
    topology: Arc<Topology>,
    keys: ContextKeys,
    limits: Limits,
    metrics: Arc<Metrics>,
    rng: StdRng,
    /// Peers that can be reached now: an opinion for routing, never for safety.
    up: BTreeSet<NodeId>,
    /// Actors of this shard that must not be trusted any more; normally none.
    retired: BTreeSet<ActorId>,
    requests: BTreeMap<RequestId, Open>,
    /// When to look at which request again. Entries of requests that have moved on are skipped.
    timeouts: BinaryHeap<Reverse<(Instant, RequestId)>>,
    ids: RequestIds,
    outputs: VecDeque<Output>,
}

/// A request under way.
struct Open {
    asker: Asker,
    machine: Machine,
    question: Question,
    deadline: Instant,
    /// The earliest entry for it in the heap of timeouts.
    wakes_at: Instant,
}

enum Machine {
    Put(Put),
    Get(Get),
    Scan(Scan),
    Forward(Forward),
}

/// What was asked, as far as the answer needs it.
#[derive(Clone)]
enum Question {
    Get {
        bucket: BucketId,
        key: Key,
        partition: PartitionId,
        r: u8,
        explain: bool,
    },
    Put {
        bucket: BucketId,
        key: Key,
    },
    /// A delete: first what is there is read, unless its context says that already.
    Delete(Box<client::Delete>),
    Other,
}

impl Coordinator {
    pub(crate) fn new(
        me: NodeId,
        topology: Arc<Topology>,
        keys: ContextKeys,
        limits: Limits,
        metrics: Arc<Metrics>,
        mut rng: StdRng,
    ) -> Coordinator {
        let ids = RequestIds::new(Lane::Coordinator, rng.random());
        Coordinator {
            me,
            topology,
            keys,
            limits,
            metrics,
            rng,
            up: BTreeSet::new(),
            retired: BTreeSet::new(),
            requests: BTreeMap::new(),
            timeouts: BinaryHeap::new(),
            ids,
            outputs: VecDeque::new(),
        }
    }

    /// Starts a request. A `forwarded` one is not passed on again.
    pub(crate) fn handle_request(
        &mut self,
        now: Now,
        asker: Asker,
        deadline: Instant,
        request: Request,
        forwarded: bool,
    ) {
        if deadline <= now.instant {
            self.metrics.expired.inc();
            return;
        }
        let deadline = deadline.min(now.instant + self.limits.deadline_max);
        if let Request::Topology = request {
            let response = Response::Topology(Box::new(Topology::clone(&self.topology)));
            return self.outputs.push_back(Output::Reply { to: asker, response });
        }
        let started = if self.requests.len() >= self.limits.requests_max {
            self.metrics.overloaded.inc();
            Err(Refusal::Overloaded { retry_after_ms: self.limits.retry_after.as_millis() as u32 }.into())
        } else {
            self.start(now, deadline, request, forwarded)
        };
        match started {
            Ok((machine, question)) => self.open(asker, machine, question, deadline),
            Err(failure) => self.outputs.push_back(Output::Reply { to: asker, response: Response::Failed(failure) }),
        }
    }

    /// A replica has answered one of our requests.
    pub(crate) fn handle_reply(&mut self, now: Now, from: NodeId, id: RequestId, reply: Reply) {
        let Some(open) = self.requests.get_mut(&id) else { return };
        match &mut open.machine {
            Machine::Put(put) => put.handle_reply(from, reply, &self.retired),
            Machine::Get(get) => get.handle_reply(now, from, reply),
            Machine::Scan(scan) => scan.handle_reply(from, reply),
            Machine::Forward(forward) => forward.handle_reply(from, reply),
        }
        self.advance(now, id);
    }

    /// A peer can be reached.
    pub(crate) fn handle_peer_up(&mut self, peer: NodeId) {
        self.up.insert(peer);
    }

    /// A peer cannot be reached any more: what was asked of it will not be answered.
    pub(crate) fn handle_peer_lost(&mut self, now: Now, peer: NodeId) {
        self.up.remove(&peer);
        for id in self.open_ids() {
            if let Some(open) = self.requests.get_mut(&id) {
                match &mut open.machine {
                    Machine::Put(put) => put.handle_lost(peer),
                    Machine::Get(get) => get.handle_lost(now, peer),
                    Machine::Scan(scan) => scan.handle_lost(peer),
                    Machine::Forward(forward) => forward.handle_lost(peer),
                }
            }
            self.advance(now, id);
        }
    }

    /// No write of this actor may be acknowledged any more, neither those under way nor those still in a batch.
    pub(crate) fn handle_retired(&mut self, now: Now, actor: ActorId) {
        self.retired.insert(actor);
        for id in self.open_ids() {
            if let Some(Open { machine: Machine::Put(put), .. }) = self.requests.get_mut(&id) {
                put.handle_retired(&self.retired);
                self.advance(now, id);
            }
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        while let Some(&Reverse((at, id))) = self.timeouts.peek()
            && at <= now.instant
        {
            self.timeouts.pop();
            let Some(open) = self.requests.get_mut(&id).filter(|open| open.wakes_at == at) else {
                continue;
            };
            // This entry is gone; whatever the machine wants next gets a new one.
            open.wakes_at = Instant(u64::MAX);
            match &mut open.machine {
                Machine::Put(put) => put.handle_timeout(now),
                Machine::Get(get) => get.handle_timeout(now),
                Machine::Scan(scan) => scan.handle_timeout(now),
                Machine::Forward(forward) => forward.handle_timeout(now),
            }
            self.advance(now, id);
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

    fn start(
        &mut self,
        now: Now,
        deadline: Instant,
        request: Request,
        forwarded: bool,
    ) -> Result<(Machine, Question), Failure> {
        let (me, up, topology) = (self.me, &self.up, &self.topology);
        match request {
            Request::Get(get) => {
                let plan = Plan::of_key(topology, me, up, get.bucket, &get.key)?;
                let r = plan.quorum(get.r, None).map_err(Refusal::from)?.r();
                let partition = plan.partition;
                let machine = self.start_get(now, deadline, plan, &get, r)?;
                let question = Question::Get { bucket: get.bucket, key: get.key, partition, r, explain: get.explain };
                Ok((Machine::Get(machine), question))
            }
            Request::Put(put) => {
                plan::check_value(&put, self.limits.value_bytes_max)?;
                let plan = Plan::of_key(topology, me, up, put.bucket, &put.key)?;
                let w = plan.quorum(None, put.w).map_err(Refusal::from)?.w();
                let context = self.open_context(put.bucket, &put.key, put.context.as_ref())?;
                if !plan.is_mine() {
                    return self.forward(&plan, Request::Put(put), deadline, forwarded);
                }
                let question = Question::Put { bucket: put.bucket, key: put.key.clone() };
                let client::Put { bucket, key, value, write_id, .. } = put;
                let context = context.unwrap_or_default();
                let write =
                    Write { bucket, key, value: Some(value), write_id, context, hint_for: None, owed_to: Vec::new() };
                Ok((Machine::Put(Put::start(plan, w, write, deadline)?), question))
            }
            Request::Delete(delete) => {
                let plan = Plan::of_key(topology, me, up, delete.bucket, &delete.key)?;
                let quorum = plan.quorum(delete.r, delete.w).map_err(Refusal::from)?;
                let context = self.open_context(delete.bucket, &delete.key, delete.context.as_ref())?;
                if !plan.is_mine() {
                    return self.forward(&plan, Request::Delete(delete), deadline, forwarded);
                }
                let machine = match context {
                    Some(context) => Machine::Put(Put::start(plan, quorum.w(), tombstone(&delete, context), deadline)?),
                    None => {
                        plan.require(quorum.w())?;
                        let demand = Demand {
                            r: quorum.r(),
                            // What the delete takes for granted must stay: a tombstone seen on one replica may be a
                            // delete that never reached its quorum.
                            held_by: quorum.w(),
                            ask_all: false,
                            explain: false,
                            attempt_timeout: self.limits.attempt_timeout,
                            deadline,
                        };
                        Machine::Get(Get::start(plan, delete.bucket, delete.key.clone(), demand, now)?)
                    }
                };
                Ok((machine, Question::Delete(Box::new(delete))))
            }
            Request::Scan(scan) => {
                let bucket = topology.bucket(scan.bucket).ok_or(Refusal::NoSuchBucket)?;
                if scan.arc.0 >= topology.ring().partitions().get() {
                    return Err(Refusal::BadRequest(format!("the ring has no arc {}", scan.arc.0)).into());
                }
                let partition = PartitionId { n: bucket.quorum.n(), arc: scan.arc };
                let plan = Plan::of_partition(topology, me, up, bucket, partition);
                let r = plan.quorum(scan.r, None).map_err(Refusal::from)?.r();
                let limit = scan.limit.clamp(1, self.limits.scan_limit_max);
                let scan = peer::Scan { bucket: scan.bucket, arc: scan.arc, after: scan.after, limit };
                Ok((Machine::Scan(Scan::start(plan, scan, r, deadline)?), Question::Other))
            }
            Request::Topology | Request::Status | Request::Hints => {
                Err(Refusal::BadRequest("the shell answers this request".to_owned()).into())
            }
            _ => Err(Refusal::BadRequest("this node does not know such a request".to_owned()).into()),
        }
    }

    fn start_get(&mut self, now: Now, deadline: Instant, plan: Plan, get: &client::Get, r: u8) -> Result<Get, Failure> {
        let strict = !get.sloppy.unwrap_or(plan.bucket.sloppy);
        let quorum = plan.bucket.quorum;
        let demand = Demand {
            r,
            held_by: if strict { quorum.n() - quorum.r() + 1 } else { 0 },
            ask_all: get.explain || self.rng.random_range(0..100) < plan.bucket.read_all,
            explain: get.explain,
            attempt_timeout: self.limits.attempt_timeout,
            deadline,
        };
        Get::start(plan, get.bucket, get.key.clone(), demand, now)
    }

    fn forward(
        &self,
        plan: &Plan,
        request: Request,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<(Machine, Question), Failure> {
        if forwarded {
            return Err(Refusal::NotCoordinator.into());
        }
        plan.require(1)?;
        self.metrics.forwards.inc();
        Ok((Machine::Forward(Forward::start(plan.reachable[0], request, deadline)), Question::Other))
    }

    fn open_context(
        &self,
        bucket: BucketId,
        key: &Key,
        token: Option<&ContextToken>,
    ) -> Result<Option<Context>, Refusal> {
        Ok(token.map(|token| self.keys.open(bucket, key, token)).transpose()?)
    }

    fn open(&mut self, asker: Asker, machine: Machine, question: Question, deadline: Instant) {
        let id = self.ids.draw();
        let open = Open { asker, machine, question, deadline, wakes_at: Instant(u64::MAX) };
        self.requests.insert(id, open);
        self.metrics.requests_open.inc();
        self.carry_out(id);
    }

    /// Does what the request's machine wants, moves a delete on from reading to writing, and forgets what is done.
    fn advance(&mut self, now: Now, id: RequestId) {
        if let Some(answer) = self.carry_out(id) {
            self.write_tombstone(now, id, answer);
        }
    }

    /// Does what the machine wants. Returns what a delete has read, when it has.
    fn carry_out(&mut self, id: RequestId) -> Option<Siblings> {
        let open = self.requests.get_mut(&id)?;
        let mut read = None;
        while let Some(action) = open.machine.poll_action() {
            match action {
                Action::Send { to, request } => {
                    self.outputs.push_back(Output::Send { to, id, deadline: open.deadline, request });
                }
                Action::Count(Occasion::ReadRepair) => {
                    self.metrics.read_repairs.inc();
                }
                Action::Count(Occasion::WriteBack) => {
                    self.metrics.write_backs.inc();
                }
                Action::Answer(Ok(Answer::Read { siblings, .. })) if matches!(open.question, Question::Delete(_)) => {
                    read = Some(siblings);
                }
                Action::Answer(result) => {
                    let responder = respond::Responder {
                        me: self.me,
                        topology: &self.topology,
                        keys: &self.keys,
                        metrics: &self.metrics,
                    };
                    let response = responder.response(&open.question, result);
                    self.outputs.push_back(Output::Reply { to: open.asker, response });
                }
            }
        }
        match open.machine.poll_timeout() {
            Some(at) if at < open.wakes_at => {
                open.wakes_at = at;
                self.timeouts.push(Reverse((at, id)));
            }
            Some(_) => {}
            None if read.is_none() => {
                self.requests.remove(&id);
                self.metrics.requests_open.dec();
            }
            None => {}
        }
        read
    }

    /// Second half of a delete without context: removes exactly what the first half has seen. If nothing live was
    /// seen there is nothing to remove, and nothing is written.
    fn write_tombstone(&mut self, now: Now, id: RequestId, seen: Siblings) {
        let Some(open) = self.requests.get(&id) else { return };
        let (asker, deadline) = (open.asker, open.deadline);
        let Question::Delete(delete) = open.question.clone() else {
            return;
        };
        if !matches!(&open.machine, Machine::Get(get) if get.poll_timeout().is_some()) {
            self.requests.remove(&id);
            self.metrics.requests_open.dec();
        }
        if !seen.has_values() {
            let deleted = client::Deleted { existed: false, acks: 0, primaries: 0, siblings: 0 };
            return self.outputs.push_back(Output::Reply { to: asker, response: Response::Deleted(deleted) });
        }
        let context = Context { vv: seen.vv().clone(), written_at: seen.written_at() };
        let started = Plan::of_key(&self.topology, self.me, &self.up, delete.bucket, &delete.key)
            .map_err(Failure::from)
            .and_then(|plan| {
                let w = plan.quorum(None, delete.w).map_err(Refusal::from)?.w();
                Put::start(plan, w, tombstone(&delete, context), deadline)
            });
        match started {
            _ if deadline <= now.instant => {
                let failure = Unknown::Timeout { acks: 0, needed: delete.w.unwrap_or(1) }.into();
                self.outputs.push_back(Output::Reply { to: asker, response: Response::Failed(failure) });
            }
            Ok(put) => self.open(asker, Machine::Put(put), Question::Delete(delete), deadline),
            Err(failure) => self.outputs.push_back(Output::Reply { to: asker, response: Response::Failed(failure) }),
        }
    }

    fn open_ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }
}

impl Machine {
    fn poll_action(&mut self) -> Option<Action> {
        match self {
            Machine::Put(put) => put.poll_action(),
            Machine::Get(get) => get.poll_action(),
            Machine::Scan(scan) => scan.poll_action(),
            Machine::Forward(forward) => forward.poll_action(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Machine::Put(put) => put.poll_timeout(),
            Machine::Get(get) => get.poll_timeout(),
            Machine::Scan(scan) => scan.poll_timeout(),
            Machine::Forward(forward) => forward.poll_timeout(),
        }
    }
}

fn tombstone(delete: &client::Delete, context: Context) -> Write {
    let (bucket, key, write_id): (_, _, WriteId) = (delete.bucket, delete.key.clone(), delete.write_id);
    Write { bucket, key, value: None, write_id, context, hint_for: None, owed_to: Vec::new() }
}
