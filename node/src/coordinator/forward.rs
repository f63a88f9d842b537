//! A request passed on, once, to a node that stores the key. The node that passes it on never stamps that attempt itself: if no
//! answer comes, the outcome is unknown.

use std::collections::VecDeque;

use driftless_proto::client;
use driftless_proto::{Failure, Refusal, Unknown};
use driftless_ring::NodeId;

use crate::peer::Reply;
use crate::planted::{Bug, Planted};
use crate::time::{Instant, Now};

use super::{Action, Answer};

/// The machine of one forwarded request.
pub(crate) struct Forward {
    to: NodeId,
    deadline: Instant,
    done: bool,
    planted: Planted,
    actions: VecDeque<Action>,
}

impl Forward {
    /// Passes the request on.
    pub(crate) fn start(to: NodeId, request: client::Request, deadline: Instant, planted: Planted) -> Forward {
        let actions = [Action::Forward { to, request }].into();
        Forward { to, deadline, done: false, planted, actions }
    }

    /// The other node has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        if from == self.to {
            match reply {
                Reply::Forwarded(response) => self.conclude(Ok(Answer::Ready(response))),
                Reply::Refused(refusal) => self.conclude(Err(refusal.into())),
                _ => {}
            }
        }
    }

    /// The connection to the other node is gone.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        if node == self.to && self.planted.is(Bug::LostForwardRefused) {
            self.conclude(Err(Refusal::NotCoordinator.into()));
        } else if node == self.to {
            let reason = "the connection to the coordinating node was lost".to_owned();
            self.conclude(Err(Unknown::Interrupted(reason).into()));
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
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
        !self.done
    }

    /// When to call [`Forward::handle_timeout`]; `None` when the machine is done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.done).then_some(self.deadline)
    }

    fn conclude(&mut self, result: Result<Answer, Failure>) {
        if !self.done {
            self.done = true;
            self.actions.push_back(Action::Answer(result));
        }
    }
}
