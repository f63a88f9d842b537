//! One put or delete: stamped by this node's own replica, then merged into the others.
//!
//! ```text
//! stamping ───Made────▶ replicating ──w slots filled──▶ answered ──all settled, or deadline──▶ done
//!    │                          │                             │
//!    │ refused                │ w impossible, deadline       │
//!    ▼                        ▼                              └─▶ a hint is kept for a primary that still misses the write
//! refused: nothing applied    unknown: it may be on some replicas, and may spread
//! ```
//! Each primary is a slot. With a sloppy quorum a fallback fills the slot of a primary that is down from the start, or
//! that turns out to be slow or lost; it keeps what it gets as a hint. Without one, or when the answer does not need it
//! any more, this node keeps a hint for the primary.
//!
//! If the write is to be explained, the answer waits between the two until all is settled, or somebody is overdue: nothing else is done
//! meanwhile that would not have been.
//!
//! A delete that has nothing to remove is not stamped. What it rests on is merged into the replicas all the same, and counts
//! in the same slots: that nothing is there must be as sure as that something was removed.

use std::collections::{BTreeSet, VecDeque};

use driftless_proto::{ActorId, BucketId, Failure, Key, Refusal, Unknown, WriteId};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, ReplicaRequest, Reply};
use crate::planted::{Bug, Planted};
use crate::replica::local::{AddHint, Covered, LocalRequest, Made, Stamped, Write};
use crate::time::{Instant, Now};

use super::course::Facts;
use super::plan::Plan;
use super::quorum::Slots;
use super::{Action, Answer, Occasion};

/// The machine of one put or delete.
pub(crate) struct Put {
    plan: Plan,
    sloppy: bool,
    slots: Slots,
    bucket: BucketId,
    key: Key,
    write_id: WriteId,
    /// What this node's own replica has made of it.
    made: Option<Made>,
    /// Primaries for which this node keeps a hint of the write.
    hinted: Vec<NodeId>,
    deadline: Instant,
    /// The answer is to say what everybody did.
    explain: bool,
    stage: Stage,
    /// The actor of this write was retired: it must not be acknowledged.
    distrusted: bool,
    planted: Planted,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Stamping,
    Replicating,
    /// Enough have acknowledged; the answer waits for what the others say.
    Explaining,
    /// The client has its answer; the other replicas may still take the write.
    Answered,
    Done,
}

/// What a client may choose of a write.
#[derive(Clone, Copy)]
pub(crate) struct WriteOptions {
    /// Slots to be filled.
    pub(crate) w: u8,
    /// Whether fallbacks may fill them.
    pub(crate) sloppy: bool,
    /// Whether the answer waits a little for what is not needed for it.
    pub(crate) explain: bool,
    pub(crate) deadline: Instant,
}

impl Put {
    /// Starts by writing to this node's own replica: as one of the key's primaries, or as a fallback for the first of
    /// them if none can be counted on.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`] if fewer than w slots can be filled; nothing is applied then.
    pub(crate) fn start(plan: Plan, options: WriteOptions, mut write: Write, planted: Planted) -> Result<Put, Failure> {
        let WriteOptions { w, sloppy, explain, deadline } = options;
        let mut slots = Slots::new(plan.primaries.iter().copied(), w, planted.clone());
        if !sloppy && (plan.groups.is_empty() || !planted.is(Bug::OneQuorumOfAll)) {
            slots = slots.in_each_of(plan.groups.clone());
        }
        if !plan.is_mine() {
            assert!(sloppy && plan.reachable().is_empty(), "a fallback stamps only when no primary can");
            slots.assign(plan.primaries[0], plan.me);
            write.hint_for = Some(plan.primaries[0]);
        }
        for &primary in &plan.primaries {
            if plan.is_up(primary) {
                slots.assign(primary, primary);
            }
        }
        if sloppy {
            for primary in slots.open().collect::<Vec<_>>() {
                if !slots.is_in_work(primary)
                    && let Some(fallback) = plan.fallback_for(primary, |node| slots.is_at_work(node))
                {
                    slots.assign(primary, fallback);
                }
            }
        }
        if !slots.is_possible() {
            return Err(Refusal::NotEnoughReplicas { needed: w, available: slots.possible() }.into());
        }
        write.missed_by = slots.open().filter(|primary| !slots.is_in_work(*primary)).collect();
        let mut put = Put {
            plan,
            sloppy,
            slots,
            bucket: write.bucket,
            key: write.key.clone(),
            write_id: write.write_id,
            made: None,
            hinted: write.missed_by.clone(),
            deadline,
            explain,
            stage: Stage::Stamping,
            distrusted: false,
            planted,
            actions: VecDeque::new(),
        };
        put.actions.push_back(Action::Own(LocalRequest::Write(write)));
        Ok(put)
    }

    /// The own replica has made this of the write. One that was stamped by a retired actor is not acknowledged.
    pub(crate) fn handle_made(&mut self, made: Made, retired: &BTreeSet<ActorId>) {
        if self.stage != Stage::Stamping {
            return;
        }
        if made.siblings().is_empty() {
            // A delete of a key that nobody has ever heard of: there is nothing to make sure of.
            self.actions.push_back(Action::Answer(Ok(answer(&made, &self.slots))));
            self.made = Some(made);
            self.stage = Stage::Done;
            return;
        }
        self.replicate(made);
        if !self.planted.is_where(Bug::RetiredInTurnAcknowledged, || self.is_of(retired)) {
            self.handle_retired(retired);
        }
        self.evaluate();
    }

    /// A replica has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match reply {
            Reply::Acked => {
                self.slots.fill(from);
            }
            Reply::Refused(refusal) if self.stage == Stage::Stamping => self.refuse(refusal),
            // Stamped once before, and the state it left is gone: neither an Ok nor another stamp would be true.
            Reply::Lost if self.stage == Stage::Stamping => self.give_up(),
            Reply::Refused(_) if self.slots.slot_of(from).is_some() && self.planted.is(Bug::RefusalFills) => {
                self.slots.fill(from);
            }
            Reply::Refused(_) | Reply::Lost => self.fail(from),
            _ => {}
        }
        self.evaluate();
    }

    /// The connection to a replica is gone: its answer will not come.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.plan.forget(node);
        self.fail(node);
        self.evaluate();
    }

    /// A replica takes longer than it usually does. Whether a fallback was asked as well.
    pub(crate) fn handle_late(&mut self, node: NodeId) -> bool {
        self.stage == Stage::Replicating
            && self.slots.waits_only_for(node).is_some_and(|primary| self.ask_fallback(primary))
    }

    /// A replica takes so long that it had better not be counted on. Its answer still counts, if it comes in time.
    pub(crate) fn handle_overdue(&mut self, node: NodeId) {
        match self.stage {
            Stage::Stamping => self.plan.forget(node),
            Stage::Replicating => {
                self.plan.forget(node);
                self.handle_late(node);
                self.explain = false;
            }
            // What it misses is kept for it now, as it would be without an explanation.
            Stage::Explaining => {
                self.explain = false;
                self.fail(node);
            }
            Stage::Answered => self.fail(node),
            Stage::Done => {}
        }
        self.evaluate();
    }

    /// No write of these actors may be acknowledged any more.
    pub(crate) fn handle_retired(&mut self, retired: &BTreeSet<ActorId>) {
        self.distrusted |= self.is_of(retired);
        self.evaluate();
    }

    /// Whether one of these actors has stamped the write.
    pub(crate) fn is_of(&self, actors: &BTreeSet<ActorId>) -> bool {
        matches!(&self.made, Some(Made::Stamped(stamped)) if actors.contains(&stamped.dot.actor))
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.deadline {
            self.handle_news();
            self.give_up();
            self.keep_hints_for_missing();
            self.stage = Stage::Done;
        }
    }

    /// Others are to be asked than were, or no more is to be waited for: enough have acknowledged, and that is said now.
    pub(crate) fn handle_news(&mut self) {
        if self.is_explaining() {
            self.explain = false;
            self.evaluate();
        }
    }

    /// Whether enough have acknowledged, and only its explanation keeps the answer back.
    pub(crate) fn is_explaining(&self) -> bool {
        self.stage == Stage::Explaining
    }

    /// What the own replica has made of it, once it has.
    pub(super) fn made(&self) -> Option<&Made> {
        self.made.as_ref()
    }

    /// Who is at work for it, and how far that is.
    pub(super) fn facts(&self) -> Facts {
        self.slots.facts(&self.plan, &self.plan.primaries)
    }

    /// The primaries for which a hint is kept, each with who keeps it: fallbacks that have acknowledged, and this node.
    pub(super) fn hints(&self) -> Vec<(NodeId, NodeId)> {
        let fallbacks = self.slots.workers().filter(|(node, primary, counted)| *counted && node != primary);
        let own = self.hinted.iter().filter(|_| self.made.is_some()).map(|primary| (*primary, self.plan.me));
        fallbacks.map(|(node, primary, _)| (primary, node)).chain(own).collect()
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Put::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.stage != Stage::Done).then_some(self.deadline)
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        matches!(self.stage, Stage::Stamping | Stage::Replicating | Stage::Explaining)
    }

    /// The write is applied here, its sync under way: the others get everything this replica knows of the key, so
    /// that it helps whatever they have missed.
    fn replicate(&mut self, made: Made) {
        self.made = Some(made);
        self.stage = Stage::Replicating;
        for primary in self.plan.primaries.clone() {
            for worker in self.slots.workers_for(primary) {
                self.send_merge(worker, primary);
            }
        }
    }

    fn send_merge(&mut self, to: NodeId, primary: NodeId) {
        if to == self.plan.me {
            return;
        }
        let Some(made) = &self.made else { return };
        let (bucket, key, siblings) = (self.bucket, self.key.clone(), made.siblings().clone());
        let hint_for = (to != primary).then_some(primary);
        let merge = Merge { bucket, key, siblings, hint_for, purpose: Purpose::Write };
        self.actions.push_back(Action::Ask { to, request: ReplicaRequest::Merge(merge) });
    }

    /// Asks the next fallback to fill a primary's slot, if there is one.
    fn ask_fallback(&mut self, primary: NodeId) -> bool {
        if !self.sloppy {
            return false;
        }
        let Some(fallback) = self.plan.fallback_for(primary, |node| self.slots.is_at_work(node)) else {
            return false;
        };
        self.slots.assign(primary, fallback);
        self.send_merge(fallback, primary);
        true
    }

    fn fail(&mut self, node: NodeId) {
        if let Some(primary) = self.slots.fail(node)
            && matches!(self.stage, Stage::Stamping | Stage::Replicating)
        {
            self.ask_fallback(primary);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.actions.push_back(Action::Answer(Err(refusal.into())));
        self.stage = Stage::Done;
    }

    fn evaluate(&mut self) {
        if self.is_waited_for() {
            if self.distrusted || !self.slots.is_possible() {
                self.give_up();
            } else if self.slots.is_reached()
                && let Some(made) = &self.made
            {
                // The replica has asserted this as well. If it is not so, whatever was acknowledged is not this write.
                if !made.holds(self.write_id) && !self.planted.is_asserted_away() {
                    tracing::error!(write_id = %self.write_id, "a put's state does not hold it: this is a bug, please report it");
                    self.actions.push_back(Action::Count(Occasion::Unproven));
                    debug_assert!(false, "an acknowledged state holds what it is acknowledged for");
                    return self.give_up();
                }
                if self.explain && !self.slots.is_settled() {
                    self.stage = Stage::Explaining;
                    return;
                }
                let answer = answer(made, &self.slots);
                if (self.explain || self.is_explaining()) && self.slots.is_settled() {
                    // The explanation names them.
                    self.keep_hints_for_missing();
                }
                self.actions.push_back(Action::Answer(Ok(answer)));
                self.stage = Stage::Answered;
            }
        }
        if self.stage == Stage::Answered && self.slots.is_settled() {
            self.keep_hints_for_missing();
            self.stage = Stage::Done;
        }
    }

    fn give_up(&mut self) {
        if self.is_waited_for() {
            let (acks, needed) = (self.slots.filled(), self.slots.needed());
            let is_stamped = matches!(self.made, Some(Made::Stamped(_)));
            let failure = match is_stamped && self.planted.is(Bug::UnknownAsRefused) {
                true => Refusal::NotEnoughReplicas { needed, available: acks }.into(),
                false => Unknown::Timeout { acks, needed }.into(),
            };
            self.actions.push_back(Action::Answer(Err(failure)));
            self.stage = Stage::Answered;
        }
    }

    /// The write is applied here, and these primaries miss it as far as is known: hints are kept for them.
    fn keep_hints_for_missing(&mut self) {
        if self.made.is_none() {
            return;
        }
        let (me, hinted) = (self.plan.me, &self.hinted);
        let missing: Vec<NodeId> = self.slots.open().filter(|to| *to != me && !hinted.contains(to)).collect();
        for to in missing {
            self.hinted.push(to);
            self.actions.push_back(Action::Count(Occasion::Missed));
            let add = AddHint { bucket: self.bucket, key: self.key.clone(), target: to };
            self.actions.push_back(Action::Own(LocalRequest::AddHint(add)));
        }
    }
}

fn answer(made: &Made, slots: &Slots) -> Answer {
    let (acks, primaries) = (slots.filled(), slots.filled_by_primaries());
    match made {
        Made::Stamped(Stamped { dot, siblings, .. }) => {
            Answer::Written { dot: *dot, siblings: siblings.clone(), acks, primaries }
        }
        Made::Covered(Covered { values, .. }) => Answer::Covered { values: *values, acks, primaries },
    }
}
