//! A state that a client brings, merged into the owners of its key: what a backup held, put back.
//!
//! ```text
//! asking ──w owners have it──▶ answered: the others may take it yet, or have it by anti-entropy
//!    │ w impossible, deadline
//!    ▼
//! refused if every owner has said that it did nothing, else unknown: said again, it changes nothing more
//! ```
//! Nothing is stamped, so any node coordinates it, and no clock has to be right. Nobody stands in for an owner: what
//! counts is that owners have it, as durably as the bucket asks.

use std::collections::VecDeque;

use driftless_proto::client::{self, Merged, Response};
use driftless_proto::{Failure, Refusal, Unknown};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, ReplicaRequest, Reply};
use crate::planted::Planted;
use crate::time::{Instant, Now};

use super::plan::Plan;
use super::quorum::Slots;
use super::{Action, Answer};

/// The machine of one state.
pub(crate) struct Spread {
    slots: Slots,
    /// What an owner has refused it for.
    refusal: Option<Refusal>,
    /// An owner that was asked has not said what it did.
    in_doubt: bool,
    deadline: Instant,
    done: bool,
    actions: VecDeque<Action>,
}

impl Spread {
    /// Asks all owners that can be reached, of every version that takes writes.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`] if w of them cannot be.
    pub(crate) fn start(plan: &Plan, merge: client::MergeState, w: u8, deadline: Instant) -> Result<Spread, Failure> {
        let mut slots =
            Slots::new(plan.primaries.iter().copied(), w, Planted::default()).in_each_of(plan.groups.clone());
        let client::MergeState { bucket, key, state, w: _ } = merge;
        let mut actions = VecDeque::new();
        for to in plan.reachable() {
            slots.assign(to, to);
            let (key, siblings) = (key.clone(), state.clone());
            let merge = Merge { bucket, key, siblings, hint_for: None, purpose: Purpose::Write };
            actions.push_back(Action::Ask { to, request: ReplicaRequest::Merge(merge) });
        }
        if !slots.is_possible() {
            return Err(Refusal::NotEnoughReplicas { needed: w, available: slots.possible() }.into());
        }
        Ok(Spread { slots, refusal: None, in_doubt: false, deadline, done: false, actions })
    }

    /// An owner has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match reply {
            Reply::Acked => {
                self.slots.fill(from);
            }
            Reply::Refused(refusal) => {
                self.refusal = Some(refusal);
                self.slots.fail(from);
            }
            Reply::Lost => return self.handle_lost(from),
            _ => {}
        }
        self.evaluate();
    }

    /// The connection to an owner is gone, or it takes so long that its answer is not waited for.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.in_doubt |= self.slots.is_at_work(node);
        self.slots.fail(node);
        self.evaluate();
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.deadline {
            self.in_doubt = true;
            self.give_up();
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.done
    }

    /// When to call [`Spread::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.done).then_some(self.deadline)
    }

    fn evaluate(&mut self) {
        if self.slots.is_reached() {
            let merged = Merged { acks: self.slots.filled() };
            self.conclude(Ok(Answer::Ready(Response::Merged(merged))));
        } else if !self.slots.is_possible() {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        let (acks, needed) = (self.slots.filled(), self.slots.needed());
        let failure = match self.refusal.take() {
            Some(refusal) if acks == 0 && !self.in_doubt && self.slots.is_settled() => refusal.into(),
            _ => Unknown::Timeout { acks, needed }.into(),
        };
        self.conclude(Err(failure));
    }

    fn conclude(&mut self, result: Result<Answer, Failure>) {
        if !self.done {
            self.done = true;
            self.actions.push_back(Action::Answer(result));
        }
    }
}
