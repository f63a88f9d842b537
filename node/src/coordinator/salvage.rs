//! What the other owners hold of a key, as many of them as say so, in place of a record that is damaged here: at the
//! request of an operator, who accepts that something may be lost.
//!
//! ```text
//! asking ──all others have spoken, or half of the time is over──▶ storing ──Acked──▶ answered
//! ```
//! Nothing here counts: there are too few sound owners, or the record would have been restored without being asked. An
//! owner that is away or does not answer takes nothing with it: what it holds comes by anti-entropy when it is back.

use std::collections::{BTreeSet, VecDeque};

use driftless_proto::client::{Response, Restored};
use driftless_proto::{BucketId, Key, Siblings, Unknown};
use driftless_ring::NodeId;

use crate::peer::{Read, ReplicaRequest, Reply, State, Want};
use crate::replica::local::{LocalRequest, Loss, Restore};
use crate::time::{Instant, Now};

use super::plan::Plan;
use super::{Action, Answer};

/// The machine of one restoration.
pub(crate) struct Salvage {
    me: NodeId,
    bucket: BucketId,
    key: Key,
    /// Owners that have not spoken yet.
    asked: BTreeSet<NodeId>,
    answered: u8,
    siblings: Siblings,
    stage: Stage,
    /// When to go on with what there is.
    enough_at: Instant,
    deadline: Instant,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Asking,
    Storing,
    Done,
}

impl Salvage {
    /// Asks all other owners that can be reached.
    pub(crate) fn start(now: Now, plan: &Plan, bucket: BucketId, key: Key, deadline: Instant) -> Salvage {
        let asked: BTreeSet<NodeId> = plan.reachable().into_iter().filter(|node| *node != plan.me).collect();
        let mut salvage = Salvage {
            me: plan.me,
            bucket,
            key,
            asked: asked.clone(),
            answered: 0,
            siblings: Siblings::new(),
            stage: Stage::Asking,
            enough_at: now.instant + deadline.since(now.instant) / 2,
            deadline,
            actions: VecDeque::new(),
        };
        for to in asked {
            let (bucket, key) = (salvage.bucket, salvage.key.clone());
            let request =
                ReplicaRequest::Read(Read { bucket, key, want: Want::Full, durable: false, counted_for: None });
            salvage.actions.push_back(Action::Ask { to, request });
        }
        salvage.store_if_all_have_spoken();
        salvage
    }

    /// An owner says what it holds, or the own replica that it has taken that in.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        match (self.stage, reply) {
            (Stage::Asking, Reply::State(State::Full(siblings))) if self.asked.remove(&from) => {
                self.answered += 1;
                self.siblings.merge(&siblings);
            }
            (Stage::Asking, Reply::Refused(_)) => {
                self.asked.remove(&from);
            }
            (Stage::Storing, Reply::Acked) if from == self.me => {
                let restored = Restored { was_damaged: true, answered: self.answered };
                self.conclude(Ok(Answer::Ready(Response::Restored(restored))));
            }
            (Stage::Storing, Reply::Refused(refusal)) if from == self.me => self.conclude(Err(refusal.into())),
            _ => {}
        }
        self.store_if_all_have_spoken();
    }

    /// A peer cannot be asked any more.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.asked.remove(&node);
        self.store_if_all_have_spoken();
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if self.stage == Stage::Asking && now.instant >= self.enough_at {
            self.asked.clear();
            self.store_if_all_have_spoken();
        }
        if now.instant >= self.deadline {
            self.conclude(Err(Unknown::Timeout { acks: 0, needed: 1 }.into()));
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.stage != Stage::Done
    }

    /// When to call [`Salvage::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking => Some(self.enough_at),
            Stage::Storing => Some(self.deadline),
            Stage::Done => None,
        }
    }

    fn store_if_all_have_spoken(&mut self) {
        if self.stage == Stage::Asking && self.asked.is_empty() {
            self.stage = Stage::Storing;
            let (bucket, key, siblings) = (self.bucket, self.key.clone(), self.siblings.clone());
            let restore = Restore { bucket, key, siblings, loss: Loss::Accepted };
            self.actions.push_back(Action::Own(LocalRequest::Restore(restore)));
        }
    }

    fn conclude(&mut self, result: Result<Answer, driftless_proto::Failure>) {
        if self.stage != Stage::Done {
            self.stage = Stage::Done;
            self.actions.push_back(Action::Answer(result));
        }
    }
}
