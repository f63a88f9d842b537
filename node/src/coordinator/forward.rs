//! A request passed on to a node that stores the key. The node that passes it on never stamps that attempt itself: if no
//! answer comes, the outcome is unknown. One that is drained or stops says so before it has looked at the request (`net::peers`):
//! then it is the next one's.

use std::collections::VecDeque;

use driftless_proto::client;
use driftless_proto::{Failure, Refusal, Unknown};
use driftless_ring::NodeId;

use crate::peer::Reply;
use crate::planted::{Bug, Planted};
use crate::time::{Instant, Now};

use super::{Action, Answer};

/// Who may coordinate a request that this node passes on, the best first.
pub(crate) struct Owners {
    pub(super) first: NodeId,
    pub(super) others: Vec<NodeId>,
}

/// The machine of one forwarded request.
pub(crate) struct Forward {
    to: NodeId,
    request: client::Request,
    /// Whom else it can be passed on to.
    others: VecDeque<NodeId>,
    /// Those that took no requests.
    refused_by: Vec<NodeId>,
    deadline: Instant,
    done: bool,
    planted: Planted,
    actions: VecDeque<Action>,
}

impl Forward {
    /// Passes the request on to the first of these, and to the next one if that takes no requests.
    pub(crate) fn start(owners: Owners, request: client::Request, deadline: Instant, planted: Planted) -> Forward {
        let Owners { first: to, others } = owners;
        let actions = [Action::Forward { to, request: request.clone() }].into();
        let others = others.into();
        Forward { to, request, others, refused_by: Vec::new(), deadline, done: false, planted, actions }
    }

    /// The other node has answered.
    pub(crate) fn handle_reply(&mut self, from: NodeId, reply: Reply) {
        if from == self.to {
            match reply {
                Reply::Forwarded(response) => self.conclude(Ok(Answer::Ready(response))),
                Reply::Refused(Refusal::Stopping) => match self.others.pop_front() {
                    Some(next) => {
                        self.refused_by.push(self.to);
                        self.to = next;
                        self.actions.push_back(Action::Forward { to: next, request: self.request.clone() });
                    }
                    // Passed on as it is, it would be taken for what this node says of itself.
                    None => self.conclude(Err(Refusal::NotEnoughReplicas { needed: 1, available: 0 }.into())),
                },
                Reply::Refused(refusal) => self.conclude(Err(refusal.into())),
                _ => {}
            }
        }
    }

    /// The connection to the other node is gone.
    pub(crate) fn handle_lost(&mut self, node: NodeId) {
        self.others.retain(|other| *other != node);
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

    /// Whom it was passed on to last.
    pub(super) fn to(&self) -> NodeId {
        self.to
    }

    /// Those to whom it was passed on before, and who took no requests.
    pub(super) fn refused_by(&self) -> &[NodeId] {
        &self.refused_by
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

#[cfg(test)]
mod tests {
    use driftless_proto::client::Response;
    use driftless_proto::{BucketId, Key};

    use super::*;

    fn request() -> client::Request {
        let key = Key::new("k").expect("valid");
        let (r, shown) = (None, Vec::new());
        client::Request::Get(client::Get { bucket: BucketId(0), key, r, sloppy: None, explain: false, shown })
    }

    fn start() -> Forward {
        let owners = Owners { first: NodeId(1), others: vec![NodeId(2)] };
        Forward::start(owners, request(), Instant(9), Planted::default())
    }

    fn forwarded_to(forward: &mut Forward) -> Option<NodeId> {
        match forward.poll_action()? {
            Action::Forward { to, request: passed_on } => {
                assert_eq!(passed_on, request());
                Some(to)
            }
            _ => panic!("it only passes the request on"),
        }
    }

    #[test]
    fn who_is_drained_has_the_next_owner_asked_and_if_all_are_none_is_available() {
        let mut forward = start();
        assert_eq!(forwarded_to(&mut forward), Some(NodeId(1)));
        forward.handle_reply(NodeId(1), Reply::Refused(Refusal::Stopping));
        assert_eq!(forwarded_to(&mut forward), Some(NodeId(2)));
        // What became of the first one's connection says nothing any more.
        forward.handle_lost(NodeId(1));
        forward.handle_reply(NodeId(1), Reply::Forwarded(Response::Failed(Refusal::NoSuchBucket.into())));
        assert!(forward.poll_action().is_none() && forward.is_waited_for());
        forward.handle_reply(NodeId(2), Reply::Refused(Refusal::Stopping));
        let Some(Action::Answer(Err(Failure::Refused(refusal)))) = forward.poll_action() else { panic!("it ends") };
        assert_eq!(refusal, Refusal::NotEnoughReplicas { needed: 1, available: 0 });
        assert!(!forward.is_waited_for());
    }

    #[test]
    fn who_was_lost_meanwhile_is_not_the_next_to_be_asked() {
        let mut forward = start();
        forwarded_to(&mut forward);
        forward.handle_lost(NodeId(2));
        forward.handle_reply(NodeId(1), Reply::Refused(Refusal::Stopping));
        let Some(Action::Answer(Err(Failure::Refused(refusal)))) = forward.poll_action() else { panic!("it ends") };
        assert_eq!(refusal, Refusal::NotEnoughReplicas { needed: 1, available: 0 });
    }

    #[test]
    fn nobody_else_is_asked_after_any_other_refusal_or_a_loss() {
        let mut refused = start();
        refused.handle_reply(NodeId(1), Reply::Refused(Refusal::NotCoordinator));
        assert_eq!(forwarded_to(&mut refused), Some(NodeId(1)));
        assert!(matches!(refused.poll_action(), Some(Action::Answer(Err(Failure::Refused(Refusal::NotCoordinator))))));
        let mut lost = start();
        lost.handle_lost(NodeId(1));
        assert_eq!(forwarded_to(&mut lost), Some(NodeId(1)));
        assert!(matches!(lost.poll_action(), Some(Action::Answer(Err(Failure::Unknown(_))))), "it may have happened");
    }
}
