//! The course of a request: whom its machine has asked, when, and what each of them did.
//!
//! ```text
//! coordinator ──asked, answered, lost──▶ Trail ─┐
//! machine ──────who works for which slot──▶ Facts ─┴▶ Course ──names──▶ Explanation
//! ```
//! The trail of every request is kept, a few words for each replica: only once it is over is it known whether it was slow. All else is
//! made when somebody wants to know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{Class, Request, Response};
use driftless_proto::observed::{Explanation, Fate, KeptHint, Made, PassedOn, Phase, ReplicaPart, Stamp};
use driftless_proto::{Header, Refusal};
use driftless_ring::{NodeId, PartitionId};

use crate::peer::Reply;
use crate::replica::local;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::forward::Forward;
use super::machine::Machine;
use super::origin::Origin;
use super::plan::Plan;
use super::put::Put;
use super::respond::{describe, shown};
use super::{Open, Question};

/// What was asked of whom for one machine, and when that was over.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    began: Instant,
    /// The own replica has applied the write.
    made: Option<Instant>,
    asked: Vec<Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    to: NodeId,
    at: Instant,
    ended: Option<(Instant, Ending)>,
}

#[derive(Clone, Debug)]
enum Ending {
    Answered,
    Refused(Refusal),
    Lost,
}

/// Who is at work for a request, as its machine sees it.
pub(super) struct Facts {
    pub(super) needed: u8,
    pub(super) counted: u8,
    pub(super) workers: Vec<Worker>,
    /// Primaries for whose slots nobody was asked, and whether they can be counted on.
    pub(super) others: Vec<(NodeId, bool)>,
}

/// A node that was asked.
pub(super) struct Worker {
    pub(super) node: NodeId,
    /// Whose slot it is to fill.
    pub(super) primary: NodeId,
    pub(super) counted: bool,
    pub(super) repaired: bool,
    /// What it said that it holds, to a read.
    pub(super) header: Option<Header>,
}

/// What replicas did for one purpose.
#[derive(Clone)]
pub(super) struct Course {
    needed: u8,
    counted: u8,
    began: Instant,
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    node: NodeId,
    primary: NodeId,
    did: Did,
    asked: Option<Instant>,
    ended: Option<Instant>,
    counted: bool,
    repaired: bool,
}

#[derive(Clone)]
enum Did {
    NotAsked,
    Away,
    Silent,
    Read(Header),
    Stamped,
    Merged,
    Refused(Refusal),
    Lost,
}

impl Trail {
    /// A machine begins.
    pub(super) fn new(now: Now) -> Trail {
        Trail { began: now.instant, made: None, asked: Vec::with_capacity(3) }
    }

    /// Something was asked of a replica.
    pub(super) fn asked(&mut self, now: Now, to: NodeId) {
        self.asked.push(Asked { to, at: now.instant, ended: None });
    }

    /// The own replica has applied the write.
    pub(super) fn made(&mut self, now: Now) {
        self.made.get_or_insert(now.instant);
    }

    /// A replica has answered the first thing that was open; or what its connection was lost with, and that counts all the same. So does what
    /// comes behind a refusal, where a question has arrived twice.
    pub(super) fn answered(&mut self, now: Now, from: NodeId, reply: &Reply) {
        let is_open = |asked: &Asked| asked.to == from && asked.ended.is_none();
        let is_less = |asked: &Asked| match asked.ended {
            Some((_, Ending::Lost)) => asked.to == from,
            Some((_, Ending::Refused(_))) => asked.to == from && !matches!(reply, Reply::Refused(_) | Reply::Lost),
            _ => false,
        };
        let at = self.asked.iter().position(is_open).or_else(|| self.asked.iter().position(is_less));
        if let Some(asked) = at.map(|at| &mut self.asked[at]) {
            let ending = match reply {
                Reply::Refused(refusal) => Ending::Refused(refusal.clone()),
                Reply::Lost => Ending::Lost,
                _ => Ending::Answered,
            };
            asked.ended = Some((now.instant, ending));
        }
    }

    /// What was asked of a node will not be answered.
    pub(super) fn lost(&mut self, now: Now, node: NodeId) {
        for asked in self.asked.iter_mut().filter(|asked| asked.to == node && asked.ended.is_none()) {
            asked.ended = Some((now.instant, Ending::Lost));
        }
    }

    /// With what the machine knows.
    pub(super) fn course(&self, me: NodeId, facts: Facts) -> Course {
        let Facts { needed, counted, workers, others } = facts;
        let part = |worker: Worker| {
            let Worker { node, primary, counted, repaired, header } = worker;
            // A read may ask twice, and then sends what is lacking: what it took is the time until the first answer.
            let first = self.asked.iter().find(|asked| asked.to == node);
            let did = match (header, first.and_then(|asked| asked.ended.as_ref())) {
                (Some(header), _) => Did::Read(header),
                (None, None) if first.is_none() => Did::NotAsked,
                (None, None) => Did::Silent,
                (None, Some((_, Ending::Lost))) => Did::Lost,
                (None, Some((_, Ending::Refused(refusal)))) => Did::Refused(refusal.clone()),
                (None, Some((_, Ending::Answered))) if node == me => Did::Stamped,
                (None, Some((_, Ending::Answered))) => Did::Merged,
            };
            let (asked, ended) = (first.map(|asked| asked.at), first.and_then(|asked| asked.ended.as_ref()));
            let ended = ended.filter(|(_, ending)| !matches!(ending, Ending::Lost)).map(|(at, _)| *at);
            Part { node, primary, did, asked, ended, counted, repaired }
        };
        let parts = workers.into_iter().map(part).chain(others.into_iter().map(Part::unasked)).collect();
        Course { needed, counted, began: self.began, parts }
    }
}

impl Part {
    fn unasked((node, is_up): (NodeId, bool)) -> Part {
        let did = if is_up { Did::NotAsked } else { Did::Away };
        Part { node, primary: node, did, asked: None, ended: None, counted: false, repaired: false }
    }
}

impl Course {
    /// Nobody was asked.
    pub(super) fn of_none(needed: u8, now: Now, primaries: Vec<(NodeId, bool)>) -> Course {
        let parts = primaries.into_iter().map(Part::unasked).collect();
        Course { needed, counted: 0, began: now.instant, parts }
    }

    /// In words. What replicas hold is written out only for a client: it may be long, and the log does not say it.
    fn phase(self, shard: &Shard, origin: &Origin) -> Phase {
        let (since, states) = (origin.since, origin.profile.explain);
        let Course { needed, counted, began, parts } = self;
        let part = |part: Part| ReplicaPart {
            node: name(shard, part.node),
            stands_in_for: (part.primary != part.node).then(|| name(shard, part.primary)),
            fate: part.did.fate(states),
            asked_us: part.asked.map(|at| micros(at.since(began))),
            latency_us: part.ended.map(|at| micros(at.since(began))),
            counted: part.counted,
            repaired: part.repaired,
        };
        Phase { needed, counted, since_us: micros(began.since(since)), replicas: parts.into_iter().map(part).collect() }
    }
}

impl Did {
    fn fate(self, states: bool) -> Fate {
        match self {
            Did::NotAsked => Fate::NotAsked,
            Did::Away => Fate::Away,
            Did::Silent => Fate::Silent,
            Did::Read(header) => Fate::Read(if states { describe(&header) } else { String::new() }),
            Did::Stamped => Fate::Stamped,
            Did::Merged => Fate::Merged,
            Did::Refused(refusal) => Fate::Refused(refusal.word().to_owned()),
            Did::Lost => Fate::Lost,
        }
    }
}

impl Open {
    /// What was asked so far; nothing of machines that have no replicas to speak of.
    pub(super) fn course(&self, shard: &Shard) -> Option<Course> {
        let facts = match &self.machine {
            Machine::Put(put) => put.facts(),
            Machine::Get(get) => get.facts(),
            Machine::Scan(scan) => scan.facts(),
            Machine::Forward(_) | Machine::Salvage(_) | Machine::Spread(_) | Machine::Awaiting(_) => return None,
        };
        Some(self.trail.course(shard.node, facts))
    }

    /// How it has come about what is answered now.
    pub(super) fn explanation(&self, shard: &Shard, now: Now, origin: &Origin) -> Explanation {
        let mut told = of_origin(shard, now, origin);
        if let Question::Delete(deletion) = &self.question {
            told.read = deletion.read.clone().map(|course| course.phase(shard, origin));
        }
        let phase = self.course(shard).map(|course| course.phase(shard, origin));
        match &self.machine {
            Machine::Put(put) => {
                told.stamp = self.stamp(put);
                // Of what nobody has ever heard of, nobody was told.
                if !put.made().is_some_and(|made| made.siblings().is_empty()) {
                    told.write = phase;
                    told.hints = hints(shard, put);
                }
            }
            Machine::Get(_) | Machine::Scan(_) => told.read = phase,
            Machine::Forward(_) | Machine::Salvage(_) | Machine::Spread(_) | Machine::Awaiting(_) => {}
        }
        told
    }

    fn stamp(&self, put: &Put) -> Option<Stamp> {
        let made = put.made()?;
        let values = match made {
            local::Made::Covered(covered) => covered.values,
            local::Made::Stamped(stamped) => shown(&stamped.siblings, &[]).len() as u32, // as many as fit into a record
        };
        let after_us = self.trail.made.map_or(0, |at| micros(at.since(self.trail.began)));
        let made = match made {
            local::Made::Stamped(stamped) if stamped.again => Made::Again(stamped.dot.to_string()),
            local::Made::Stamped(stamped) => Made::New(stamped.dot.to_string()),
            local::Made::Covered(_) => Made::Nothing,
        };
        Some(Stamp { made, after_us, siblings: values })
    }
}

/// How an answer came about that another node has given, or has not.
pub(super) fn passed_on(
    shard: &Shard,
    now: Now,
    origin: &Origin,
    forward: &Forward,
    response: Response,
) -> (Response, Explanation) {
    let (response, told) = response.into_plain();
    let explained = told.is_some();
    let ring_version = shard.ring().version().0;
    let told = told.map_or_else(|| Explanation::by(name(shard, forward.to()), ring_version), |told| *told);
    let passed_on = PassedOn {
        by: name(shard, shard.node),
        refused_by: forward.refused_by().iter().map(|node| name(shard, *node)).collect(),
        took_us: micros(now.instant.since(origin.since)),
        explained,
    };
    (response, Explanation { passed_on: Some(passed_on), ..told })
}

/// What is known of any request.
fn of_origin(shard: &Shard, now: Now, origin: &Origin) -> Explanation {
    Explanation {
        partition: partition(shard, origin).map(|partition| partition.to_string()),
        waited_us: Some(micros(origin.since.since(origin.arrived))),
        took_us: Some(micros(now.instant.since(origin.since))),
        begun_again: origin.begun_again,
        ..Explanation::by(name(shard, shard.node), shard.ring().version().0)
    }
}

/// The same of one that did not get as far as a machine: it was refused, with those who would have been asked, or had only been read for.
pub(super) fn of_refused(
    shard: &Shard,
    now: Now,
    origin: &Origin,
    read: Option<Course>,
    up: &Arc<BTreeSet<NodeId>>,
) -> Explanation {
    let mut told = of_origin(shard, now, origin);
    let phase = |course: Course| course.phase(shard, origin);
    let unasked = || unasked(shard, now, origin, up).map(phase);
    match origin.request.is_read() {
        true => told.read = unasked(),
        false => told.write = unasked(),
    }
    if let Some(read) = read {
        told.read = Some(phase(read));
    }
    told
}

/// The replicas that nobody has asked, and which of them can be counted on.
fn unasked(shard: &Shard, now: Now, origin: &Origin, up: &Arc<BTreeSet<NodeId>>) -> Option<Course> {
    let Class::Key { bucket, key, .. } = origin.request.class() else { return None };
    let plan = Plan::of_key(shard, up, bucket, key).ok()?;
    let (r, w) = match &origin.request {
        Request::Get(get) => (get.r, None),
        Request::Put(put) => (None, put.w),
        Request::Delete(delete) => (delete.r, delete.w),
        _ => (None, None),
    };
    let quorum = plan.quorum(r, w).ok()?;
    let needed = if origin.request.is_read() { quorum.r() } else { quorum.w() };
    let primaries = plan.primaries.iter().map(|primary| (*primary, plan.is_up(*primary))).collect();
    Some(Course::of_none(needed, now, primaries))
}

/// The partition that a request is about.
fn partition(shard: &Shard, origin: &Origin) -> Option<PartitionId> {
    match origin.request.class() {
        Class::Key { bucket, key, .. } => Some(shard.topology.place(shard.topology.bucket(bucket)?, key).partition),
        Class::Arc { bucket, arc } => Some(PartitionId { n: shard.topology.bucket(bucket)?.quorum.n(), arc }),
        Class::Node => None,
    }
}

/// Hints that are kept for primaries: by who stands in for them, and by this node.
fn hints(shard: &Shard, put: &Put) -> Vec<KeptHint> {
    let hint =
        |(target, holder): (NodeId, NodeId)| KeptHint { target: name(shard, target), holder: name(shard, holder) };
    put.hints().into_iter().map(hint).collect()
}

fn name(shard: &Shard, node: NodeId) -> String {
    shard.ring().member(node).map_or_else(|| node.to_string(), |member| member.name.clone())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
