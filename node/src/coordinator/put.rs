//! One put or delete: stamped by this node's own replica, then merged into the others.
//!
//! ```text
//! stamping ──Stamped──▶ replicating ──w slots filled──▶ answered ──all settled, or deadline──▶ done
//!    │ refused                │ w impossible, deadline
//!    ▼                        ▼
//! refused: nothing applied    unknown: it may be on some replicas, and may spread
//! ```

use std::collections::{BTreeSet, VecDeque};

use driftless_proto::{ActorId, Failure, Refusal, Unknown};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, Reply, Request, Stamped, Write};
use crate::time::{Instant, Now};

use super::plan::Plan;
use super::quorum::Tally;
use super::{Action, Answer};

/// The machine of one put or delete.
pub(crate) struct Put {
    plan: Plan,
    tally: Tally,
    bucket_and_key: (driftless_proto::BucketId, driftless_proto::Key),
    stamped: Option<Stamped>,
    deadline: Instant,
    stage: Stage,
    /// The actor of this write was retired: it must not be acknowledged.
    distrusted: bool,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Stamping,
    Replicating,
    /// The client has its answer; the other replicas may still take the write.
    Answered,
    Done,
}

impl Put {
    /// Starts by writing to this node's own replica, which must be one of the key's.
    ///
    /// # Errors
    /// [`Refusal::NotEnoughReplicas`] if w replicas cannot be reached; nothing is applied then.
    pub(crate) fn start(plan: Plan, w: u8, write: Write, deadline: Instant) -> Result<Put, Failure> {
        assert!(plan.is_mine(), "only a node that stores the key stamps");
        plan.require(w)?;
        let mut tally = Tally::new(plan.primaries.iter().copied(), w);
        for node in plan.primaries.iter().filter(|node| !plan.reachable.contains(node)) {
            tally.fail(*node);
        }
        let bucket_and_key = (write.bucket, write.key.clone());
        let actions = [Action::Send { to: plan.me, request: Request::Write(write) }].into();
        Ok(Put {
            plan,
            tally,
            bucket_and_key,
            stamped: None,
            deadline,
            stage: Stage::Stamping,
            distrusted: false,
            actions,
        })
    }

    /// A replica has answered. A write stamped by a retired actor is not acknowledged.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply, retired: &BTreeSet<ActorId>) {
        match reply {
            Reply::Stamped(stamped) if self.stage == Stage::Stamping && from == self.plan.me => {
                self.replicate(stamped);
                self.handle_retired(retired);
            }
            Reply::Acked => {
                self.tally.fill(from);
            }
            Reply::Refused(refusal) if self.stage == Stage::Stamping => self.refuse(refusal),
            // Stamped once before, and the state it left is gone: neither an Ok nor another stamp would be true.
            Reply::Lost if self.stage == Stage::Stamping => self.give_up(),
            Reply::Refused(_) | Reply::Lost => {
                self.tally.fail(from);
            }
            _ => {}
        }
        self.evaluate();
    }

    /// The connection to a replica is gone: its answer will not come.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.tally.fail(node);
        self.evaluate();
    }

    /// No write of these actors may be acknowledged any more.
    pub(crate) fn handle_retired(&mut self, retired: &BTreeSet<ActorId>) {
        self.distrusted |= self.stamped.as_ref().is_some_and(|stamped| retired.contains(&stamped.dot.actor));
        self.evaluate();
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.deadline {
            self.give_up();
            self.stage = Stage::Done;
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Put::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.stage != Stage::Done).then_some(self.deadline)
    }

    /// The write is applied here, its sync under way: the others get everything this replica knows of the key, so
    /// that it helps whatever they have missed.
    fn replicate(&mut self, stamped: Stamped) {
        let (bucket, key) = &self.bucket_and_key;
        for &to in self.plan.reachable.iter().filter(|node| **node != self.plan.me) {
            let siblings = stamped.siblings.clone();
            let merge = Merge { bucket: *bucket, key: key.clone(), siblings, hint_for: None, purpose: Purpose::Write };
            self.actions.push_back(Action::Send { to, request: Request::Merge(merge) });
        }
        self.stamped = Some(stamped);
        self.stage = Stage::Replicating;
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.actions.push_back(Action::Answer(Err(refusal.into())));
        self.stage = Stage::Done;
    }

    fn evaluate(&mut self) {
        if matches!(self.stage, Stage::Stamping | Stage::Replicating) {
            if self.distrusted || !self.tally.is_possible() {
                self.give_up();
            } else if self.tally.is_reached()
                && let Some(stamped) = &self.stamped
            {
                self.actions.push_back(Action::Answer(Ok(Answer::Written {
                    dot: stamped.dot,
                    siblings: stamped.siblings.clone(),
                    acks: self.tally.filled(),
                })));
                self.stage = Stage::Answered;
            }
        }
        if self.stage == Stage::Answered && self.tally.is_settled() {
            self.stage = Stage::Done;
        }
    }

    fn give_up(&mut self) {
        if matches!(self.stage, Stage::Stamping | Stage::Replicating) {
            let timeout = Unknown::Timeout { acks: self.tally.filled(), needed: self.tally.needed() };
            self.actions.push_back(Action::Answer(Err(timeout.into())));
            self.stage = Stage::Answered;
        }
    }
}
