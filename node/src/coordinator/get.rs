//! One get: ask r replicas, merge what they say, and send the merged state to those that lack something.
//!
//! ```text
//! reading ──r slots filled──▶ [strict, and too few hold what was read: writing back] ──▶ answered ──▶ repair ──▶ done
//! ```
//! One replica is asked for the full state, the others for headers. A header fills its slot only when every value that
//! survives the merge is at hand; otherwise that replica is asked for its full state.

use std::collections::{BTreeMap, VecDeque};

use driftless_proto::client::Basis;
use driftless_proto::{BucketId, Conflict, Failure, Header, Key, Refusal, Siblings, Unknown};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, Read, ReplicaRequest, Reply, State, Want};
use crate::time::{Instant, Now};

use super::course::{Facts, Worker};
use super::latency::LatencyEstimator;
use super::plan::Plan;
use super::{Action, Answer, Occasion};

/// What one get asks for, beyond the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOptions {
    /// Replicas that must answer.
    pub(crate) r: u8,
    /// Replicas that must hold what is answered, so that no later read of the bucket's r sees less; 0 if that is not
    /// asked for. While members change, in each version that takes writes. Only strict reads may: they ask primaries alone, and what fills a primary's slot is its own record. What
    /// a fallback says may be held for another primary, and go once that one has it.
    pub(crate) held_by: u8,
    /// Replicas answer only with what no power cut can take.
    pub(crate) durable: bool,
    /// Ask all replicas at once, so that repair sees every one.
    pub(crate) ask_all: bool,
    /// Wait for all of them before answering, and tell what each said.
    pub(crate) explain: bool,
    /// Let fallbacks answer for primaries that cannot be counted on.
    pub(crate) sloppy: bool,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// The machine of one get.
pub(crate) struct Get {
    plan: Plan,
    bucket: BucketId,
    key: Key,
    options: ReadOptions,
    /// Whom to ask, best first, each with the primary whose slot it is.
    readers: Vec<(NodeId, NodeId)>,
    /// How many of them have been asked.
    asked: usize,
    replicas: BTreeMap<NodeId, Queried>,
    /// The join of all full states in hand.
    full: Option<Siblings>,
    /// What will be answered, once enough replicas hold it.
    answer: Option<Siblings>,
    /// Hold the answer back until every replica has spoken.
    wait_for_all: bool,
    stage: Stage,
    actions: VecDeque<Action>,
}

/// What is known of one replica.
#[derive(Debug, Default)]
struct Queried {
    /// An answer is still to come.
    pending: bool,
    /// What it holds, once it has said so.
    header: Option<Header>,
    /// Its full state has been asked for.
    full_asked: bool,
    /// Its answer is part of what was merged.
    counted: bool,
    /// It takes so long that nobody waits for it any more.
    overdue: bool,
    /// The merged state was sent to it.
    repaired: bool,
    /// It has acknowledged the merged state.
    acked: bool,
    /// It will not answer.
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Reading,
    WritingBack,
    /// The asker has its answer; late replies still count for repair.
    Answered,
    Done,
}

impl Get {
    /// Asks the first replicas.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`] if fewer than r slots can be filled.
    pub(crate) fn start(
        plan: Plan,
        bucket: BucketId,
        key: Key,
        options: ReadOptions,
        latency: &LatencyEstimator,
    ) -> Result<Get, Failure> {
        assert!(
            options.held_by == 0 || !options.sloppy,
            "what a fallback shows is not held for the slot it answers for"
        );
        let readers = readers(&plan, options.sloppy, latency);
        if readers.len() < options.r.into() {
            let available = readers.len() as u8;
            return Err(Refusal::NotEnoughReplicas { needed: options.r, available }.into());
        }
        let mut get = Get {
            plan,
            bucket,
            key,
            options,
            readers,
            asked: 0,
            replicas: BTreeMap::new(),
            full: None,
            answer: None,
            wait_for_all: options.explain,
            stage: Stage::Reading,
            actions: VecDeque::new(),
        };
        let first = if options.ask_all { get.readers.len() } else { options.r.into() };
        (0..first).for_each(|_| {
            get.ask_next();
        });
        Ok(get)
    }

    /// A replica has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match reply {
            Reply::State(state) => self.take_in(from, state),
            Reply::Acked => {
                if let Some(replica) = self.replicas.get_mut(&from) {
                    replica.acked |= replica.repaired;
                }
            }
            Reply::Refused(_) | Reply::Lost => self.fail(from),
            _ => {}
        }
        self.evaluate();
    }

    /// The connection to a replica is gone: its answer will not come, and what it had not been asked yet it is not asked.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.plan.forget(node);
        let unasked = self.readers.split_off(self.asked);
        self.readers.extend(unasked.into_iter().filter(|(reader, _)| *reader != node));
        self.fail(node);
        self.evaluate();
    }

    /// A replica takes longer than it usually does. Whether another was asked as well.
    pub(crate) fn handle_late(&mut self, node: NodeId) -> bool {
        match self.stage {
            Stage::Reading => self.replicas.get(&node).is_some_and(|replica| replica.pending) && self.ask_next(),
            Stage::WritingBack => self.write_back(self.readers.len()),
            Stage::Answered | Stage::Done => false,
        }
    }

    /// A replica takes so long that it had better not be counted on. Its answer still counts, if it comes in time.
    pub(crate) fn handle_overdue(&mut self, node: NodeId) {
        match self.stage {
            Stage::Reading | Stage::WritingBack => {
                if let Some(replica) = self.replicas.get_mut(&node) {
                    replica.overdue = true;
                }
                self.handle_late(node);
                self.wait_for_all = false;
            }
            Stage::Answered => self.fail(node),
            Stage::Done => {}
        }
        self.evaluate();
    }

    /// Time has passed: give up.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.options.deadline {
            if self.is_waited_for() {
                self.conclude(Err(self.timeout()));
            }
            self.finish();
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Get::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.stage != Stage::Done).then_some(self.options.deadline)
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        matches!(self.stage, Stage::Reading | Stage::WritingBack)
    }

    fn ask_next(&mut self) -> bool {
        let Some(&(to, _)) = self.readers.get(self.asked) else {
            return false;
        };
        self.asked += 1;
        // Somebody has to say everything; the first one asked is the nearest.
        let want = if self.full.is_none() && !self.full_is_coming() { Want::Full } else { Want::Header };
        self.ask(to, want);
        true
    }

    fn ask(&mut self, to: NodeId, want: Want) {
        let replica = self.replicas.entry(to).or_default();
        replica.pending = true;
        replica.full_asked |= want == Want::Full;
        let read = Read {
            bucket: self.bucket,
            key: self.key.clone(),
            want,
            durable: self.options.durable,
            counted_for: Some(self.plan.counted_for),
        };
        self.actions.push_back(Action::Ask { to, request: ReplicaRequest::Read(read) });
    }

    fn take_in(&mut self, from: NodeId, state: State) {
        let Some(replica) = self.replicas.get_mut(&from) else {
            return;
        };
        match state {
            State::Full(siblings) => {
                replica.pending = false;
                replica.header = Some(siblings.header());
                match &mut self.full {
                    Some(full) => full.merge(&siblings),
                    None => self.full = Some(siblings),
                }
            }
            State::Header(header) => {
                // With its full state asked for as well, that is the answer to wait for.
                replica.pending = replica.full_asked;
                replica.header = Some(header);
            }
        }
    }

    fn fail(&mut self, node: NodeId) {
        let Some(replica) = self.replicas.get_mut(&node) else {
            return;
        };
        let expected = replica.pending || (replica.repaired && !replica.acked);
        replica.pending = false;
        replica.failed = true;
        match self.stage {
            Stage::Reading if expected => {
                self.ask_next();
            }
            Stage::WritingBack if expected => {
                self.write_back(self.readers.len());
            }
            _ => {}
        }
    }

    fn evaluate(&mut self) {
        if self.stage == Stage::Reading {
            self.evaluate_reading();
        }
        if self.stage == Stage::WritingBack {
            self.evaluate_write_back();
        }
        if self.stage == Stage::Answered && self.pending() == 0 {
            self.finish();
        }
    }

    fn evaluate_reading(&mut self) {
        let merged = self.merge_usable();
        let counted = self.replicas.values().filter(|replica| replica.counted).count();
        let Some(merged) = merged.filter(|_| counted >= self.options.r.into()) else {
            return self.give_up_if_impossible();
        };
        if self.wait_for_all && self.pending() > 0 {
            return;
        }
        // That there is nothing is for primaries to say, as long as one of them may.
        if !merged.has_values() && !self.basis().is_enough() && self.primaries().any(Queried::is_expected) {
            return;
        }
        self.answer = Some(merged);
        if !self.is_held() {
            self.stage = Stage::WritingBack;
            self.actions.push_back(Action::Count(Occasion::WriteBack));
            self.write_back(self.options.held_by.into());
        } else {
            self.conclude_with_answer();
        }
    }

    fn evaluate_write_back(&mut self) {
        let may_hold = |replica: &Queried| replica.repaired && !replica.failed;
        if self.is_held() {
            self.conclude_with_answer();
        } else if !self.is_held_if(may_hold) {
            self.conclude(Err(self.timeout()));
        }
    }

    /// Sends the answer to replicas not known to hold it, until `enough` hold it or have it under way; replicas
    /// known to lack something come first. Whether any was sent.
    fn write_back(&mut self, enough: usize) -> bool {
        let answer = self.answer.clone().expect("the answer is known when writing back begins");
        let has_spoken = |node: &NodeId| self.replicas.get(node).is_some_and(|replica| replica.header.is_some());
        // While members change, each version must hold it: everybody is sent what it lacks.
        let (enough, others) = match self.plan.groups.is_empty() {
            true => (enough, Vec::new()),
            false => (usize::MAX, self.plan.reachable()),
        };
        let readers = self.readers.iter().map(|(reader, _)| *reader);
        let others = others.into_iter().filter(|other| self.readers.iter().all(|(reader, _)| reader != other));
        let readers = readers.chain(others);
        let (spoken, silent): (Vec<_>, Vec<_>) = readers.partition(has_spoken);
        let mut under_way = self.replicas.values().filter(|r| r.holds(&answer) || (r.repaired && !r.failed)).count();
        let before = under_way;
        for to in spoken.into_iter().chain(silent) {
            let replica = self.replicas.entry(to).or_default();
            if under_way < enough && !replica.holds(&answer) && !replica.repaired && !replica.failed {
                replica.repaired = true;
                under_way += 1;
                self.send_merged(to, &answer, Purpose::Write);
            }
        }
        under_way > before
    }

    /// Sends the merged state to each primary that lacks something, and to no other.
    fn repair(&mut self) {
        let Some(merged) = self.merged() else { return };
        let header = merged.header();
        let mut lacking = Vec::new();
        for (node, replica) in &mut self.replicas {
            let lacks = replica.header.as_ref().is_some_and(|held| *held != header);
            if lacks && !replica.repaired && !replica.failed && self.plan.primaries.contains(node) {
                replica.repaired = true;
                lacking.push(*node);
            }
        }
        for to in lacking {
            self.actions.push_back(Action::Count(Occasion::ReadRepair));
            self.send_merged(to, &merged, Purpose::ReadRepair);
        }
    }

    fn send_merged(&mut self, to: NodeId, merged: &Siblings, purpose: Purpose) {
        let (bucket, key, siblings) = (self.bucket, self.key.clone(), merged.clone());
        let merge = Merge { bucket, key, siblings, hint_for: None, purpose };
        self.actions.push_back(Action::Ask { to, request: ReplicaRequest::Merge(merge) });
    }

    fn conclude_with_answer(&mut self) {
        if self.options.explain {
            self.repair();
        }
        let siblings = self.answer.clone().expect("called with the answer known");
        let basis = self.basis();
        self.conclude(Ok(Answer::Read { siblings, basis }));
    }

    fn conclude(&mut self, result: Result<Answer, Failure>) {
        self.actions.push_back(Action::Answer(result));
        self.stage = Stage::Answered;
    }

    /// Late replies have come, or are not waited for any longer: repairs what they showed.
    fn finish(&mut self) {
        self.stage = Stage::Done;
        self.repair();
    }

    fn give_up_if_impossible(&mut self) {
        let failed = self.replicas.values().filter(|replica| replica.failed && !replica.counted).count();
        let unasked = self.readers.len() - self.asked;
        let possible = self.replicas.len() - failed + unasked;
        if possible < self.options.r.into() {
            let refusal = Refusal::NotEnoughReplicas { needed: self.options.r, available: possible as u8 };
            self.conclude(Err(refusal.into()));
        }
    }

    /// Merges every answer whose values are at hand, marks those as counted, and asks for what is missing.
    fn merge_usable(&mut self) -> Option<Siblings> {
        let mut lacking = Vec::new();
        let mut merged = self.full.clone();
        for (node, replica) in &mut self.replicas {
            let Some(header) = &replica.header else { continue };
            if merged.as_mut().is_some_and(|merged| merged.merge_header(header)) {
                replica.counted = true;
            } else if !replica.full_asked && !replica.failed {
                lacking.push(*node);
            }
        }
        if merged.is_none() {
            // The replica that was to send its full state has failed: one other will do.
            lacking.truncate(usize::from(!self.full_is_coming()));
        }
        lacking.into_iter().for_each(|node| self.ask(node, Want::Full));
        merged.map(|merged| self.settled(merged))
    }

    /// Everything known, as far as values are at hand.
    fn merged(&self) -> Option<Siblings> {
        let mut merged = self.full.clone()?;
        for header in self.replicas.values().filter_map(|replica| replica.header.as_ref()) {
            // A header whose values are not at hand belongs to a replica that failed to send them.
            let _ = merged.merge_header(header);
        }
        Some(self.settled(merged))
    }

    fn settled(&self, mut siblings: Siblings) -> Siblings {
        if self.plan.bucket.conflict == Conflict::Lww {
            siblings.keep_last();
        }
        siblings
    }

    /// Whether so many replicas hold the answer as must.
    fn is_held(&self) -> bool {
        self.is_held_if(|_| false)
    }

    /// The same if these did as well.
    fn is_held_if(&self, too: impl Fn(&Queried) -> bool) -> bool {
        let Some(answer) = &self.answer else { return false };
        let holds =
            |node: NodeId| self.replicas.get(&node).is_some_and(|replica| replica.holds(answer) || too(replica));
        self.plan.are_enough(self.options.held_by.into(), holds)
    }

    fn basis(&self) -> Basis {
        let primaries = self.primaries().filter(|replica| replica.counted).count() as u8;
        Basis { needed: self.options.r, primaries }
    }

    fn primaries(&self) -> impl Iterator<Item = &Queried> {
        self.plan.primaries.iter().filter_map(|primary| self.replicas.get(primary))
    }

    fn full_is_coming(&self) -> bool {
        self.replicas.values().any(|replica| replica.full_asked && replica.pending && !replica.overdue)
    }

    fn pending(&self) -> usize {
        self.replicas.values().filter(|replica| replica.pending).count()
    }

    fn timeout(&self) -> Failure {
        let acks = self.replicas.values().filter(|replica| replica.counted).count() as u8;
        Unknown::Timeout { acks, needed: self.options.r }.into()
    }

    /// Who is at work for it, and how far that is.
    pub(super) fn facts(&self) -> Facts {
        let worker = |(node, replica): (&NodeId, &Queried)| Worker {
            node: *node,
            primary: self.readers.iter().find(|(reader, _)| reader == node).map_or(*node, |(_, primary)| *primary),
            counted: replica.counted,
            repaired: replica.repaired,
            header: replica.header.clone(),
        };
        let unasked = self.plan.readers.iter().filter(|primary| !self.replicas.contains_key(primary));
        Facts {
            needed: self.options.r,
            counted: self.replicas.values().filter(|replica| replica.counted).count() as u8,
            workers: self.replicas.iter().map(worker).collect(),
            others: unasked.map(|primary| (*primary, self.plan.is_up(*primary))).collect(),
        }
    }
}

/// Whom a read turns to: the primaries that can be counted on, this node first and fast ones before slow ones; with a
/// sloppy quorum, then the fallbacks of the others.
fn readers(plan: &Plan, sloppy: bool, latency: &LatencyEstimator) -> Vec<(NodeId, NodeId)> {
    let mut primaries = plan.reachable_readers();
    let others = usize::from(primaries.first() == Some(&plan.me));
    latency.fastest_first(&mut primaries[others..]);
    plan.with_fallbacks(primaries, sloppy)
}

impl Queried {
    /// Whether it may answer yet, in good time.
    fn is_expected(&self) -> bool {
        self.pending && !self.overdue
    }

    /// Whether a read of this replica would see at least `answer`.
    fn holds(&self, answer: &Siblings) -> bool {
        self.acked || self.header.as_ref().is_some_and(|header| header.includes(answer))
    }
}
