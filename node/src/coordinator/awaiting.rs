//! A request that has met a newer version of the ring, or a change of how it counts: it begins again once this node has heard of
//! that. What it has had stamped is recognised by its write id, so beginning again stamps nothing twice.

use std::collections::VecDeque;

use driftless_proto::Refusal;

use crate::time::{Instant, Now};

use super::Action;

/// The machine of a request that waits.
pub(crate) struct Awaiting {
    /// What it met, and what to say if nothing is heard.
    refusal: Refusal,
    deadline: Instant,
    done: bool,
    actions: VecDeque<Action>,
}

impl Awaiting {
    /// Waits until then.
    pub(crate) fn new(refusal: Refusal, deadline: Instant) -> Awaiting {
        Awaiting { refusal, deadline, done: false, actions: VecDeque::new() }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant >= self.deadline && !self.done {
            self.done = true;
            self.actions.push_back(Action::Answer(Err(self.refusal.clone().into())));
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

    /// When to call [`Awaiting::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.done).then_some(self.deadline)
    }
}
