//! A request that did not succeed: what happened at each of its attempts, and what that comes to.

use std::fmt;
use std::time::Duration;

use driftless_proto::observed::Explanation;
use driftless_proto::{Outcome, Refusal, WriteId};

use super::cause::{Cause, ConnectFailure};
use crate::told::Tried;

/// A request that did not succeed, after all its attempts.
#[derive(Clone, Debug)]
pub struct RequestError(Box<Failed>);

#[derive(Clone, Debug)]
struct Failed {
    /// Why nothing more was tried.
    cause: Cause,
    /// Of the attempts, oldest first.
    causes: Vec<Cause>,
    attempts: u32,
    elapsed: Duration,
    outcome: Outcome,
    write_id: Option<WriteId>,
    explanation: Option<Box<Explanation>>,
    /// Beside the attempt that is explained.
    tried: Vec<Tried>,
}

impl RequestError {
    /// `causes` are the reasons why attempts failed; the cause of giving up is one of them if there was an attempt.
    pub(crate) fn new(
        cause: Cause,
        causes: Vec<Cause>,
        attempts: u32,
        elapsed: Duration,
        outcome: Outcome,
    ) -> RequestError {
        RequestError(Box::new(Failed {
            cause,
            causes,
            attempts,
            elapsed,
            outcome,
            write_id: None,
            explanation: None,
            tried: Vec::new(),
        }))
    }

    /// What a node has said of how one of the attempts came about, and what was tried besides.
    pub(crate) fn explained(mut self, explanation: Box<Explanation>, tried: Vec<Tried>) -> RequestError {
        (self.0.explanation, self.0.tried) = (Some(explanation), tried);
        self
    }

    /// After one attempt of something that has no effect.
    pub(crate) fn once(cause: Cause, elapsed: Duration) -> RequestError {
        RequestError::new(cause.clone(), vec![cause], 1, elapsed, Outcome::Refused)
    }

    /// The write that this was.
    pub(crate) fn of_write(mut self, id: WriteId) -> RequestError {
        self.0.write_id = Some(id);
        self
    }

    /// An earlier request of the same operation, this write, may have taken effect.
    pub(crate) fn after_unknown(mut self, id: WriteId) -> RequestError {
        if self.0.outcome == Outcome::Refused {
            self.0.outcome = Outcome::Unknown;
            self.0.write_id = Some(id);
        }
        self
    }

    /// Why nothing more was tried: usually why the last attempt did not succeed.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// Why each attempt did not succeed, oldest first; of more than 16 the latest. Attempts that were still under way at
    /// the end have none.
    pub fn causes(&self) -> &[Cause] {
        &self.0.causes
    }

    /// How the failure that a node answered last came about, if the request was made with `explain`. A node that refuses a request before
    /// it looks at it, because it is full or stops, says no more than that.
    pub fn explanation(&self) -> Option<&Explanation> {
        self.0.explanation.as_deref()
    }

    /// What was tried beside the attempt that is [explained](RequestError::explanation).
    pub fn tried(&self) -> &[Tried] {
        &self.0.tried
    }

    /// Whether no node gave any sign of life: there are attempts, and none was answered in any way.
    pub fn nobody_answered(&self) -> bool {
        !self.0.causes.is_empty() && self.0.causes.iter().all(Cause::is_silence)
    }

    /// The cluster's reason, if it refused the last attempt.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.cause.refusal()
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// From the first moment to giving up.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Whether any of the attempts may have taken effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The id that a put or delete was made under, drawn or given. Repeating it under this id, with the same value and
    /// context, is safe whatever the outcome was.
    pub fn write_id(&self) -> Option<WriteId> {
        self.0.write_id
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { cause, causes, attempts, elapsed, outcome, write_id, .. } = &*self.0;
        if self.nobody_answered() && causes.len() > 1 && cause.is_silence() {
            write!(f, "nobody can be reached: {}", of_nodes(causes))?;
        } else {
            write!(f, "{cause}")?;
        }
        if *attempts > 1 {
            write!(f, " (after {attempts} attempts in {elapsed:.1?})")?;
        }
        if *outcome == Outcome::Unknown {
            f.write_str(match cause.outcome() {
                Outcome::Unknown => "; it may have taken effect: read the key",
                _ => "; an earlier attempt may have taken effect: read the key",
            })?;
            match write_id {
                Some(id) => write!(f, ", or repeat it with the write id {id}")?,
                None => f.write_str(", or repeat it with the same write id")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its text is part of this error's; what comes next is what lies under it.
        std::error::Error::source(&self.0.cause)
    }
}

/// What happened last at each node, in the order in which they were first tried.
fn of_nodes(causes: &[Cause]) -> String {
    let mut nodes: Vec<(&str, &Cause)> = Vec::new();
    for cause in causes {
        let Some(node) = cause.node() else { continue };
        match nodes.iter_mut().find(|(known, _)| *known == node) {
            Some((_, latest)) => *latest = cause,
            None => nodes.push((node, cause)),
        }
    }
    let mut said: Vec<String> = nodes
        .iter()
        .take(NODES_MAX)
        .map(|(node, cause)| match cause {
            Cause::NotConnected { failure: ConnectFailure::Unreachable { address, reason }, .. } if node != address => {
                format!("{node} at {address}: {reason}")
            }
            Cause::NotConnected { failure, .. } if failure.is_unreachable() => failure.in_a_list(),
            cause => cause.to_string(),
        })
        .collect();
    if nodes.len() > NODES_MAX {
        said.push(format!("and {} more", nodes.len() - NODES_MAX));
    }
    said.join("; ")
}

/// Causes that an error keeps: more attempts than most policies allow, and a bound for policies that allow any number.
pub(crate) const CAUSES_MAX: usize = 16;

/// Nodes that a message names; the owners of a key and two more.
const NODES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Cause {
        Cause::Refused { node: "ada".into(), refusal: Refusal::Stopping }
    }

    fn timed_out(node: &str, sent: bool) -> Cause {
        Cause::TimedOut { node: node.into(), after: Duration::from_secs(2), sent, heard: false }
    }

    fn unreachable(node: &str, address: &str) -> Cause {
        let failure = ConnectFailure::Unreachable { address: address.into(), reason: "no answer within 1s".into() };
        Cause::NotConnected { node: node.into(), failure }
    }

    #[test]
    fn a_refusal_after_an_unknown_attempt_is_unknown_and_tells_the_id_to_repeat_with() {
        let causes = vec![timed_out("bob", true), refused()];
        let error = RequestError::new(refused(), causes, 2, Duration::from_millis(30), Outcome::Unknown);
        let error = error.of_write(WriteId(0xfeed));
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(error.refusal(), Some(&Refusal::Stopping));
        assert_eq!(
            error.to_string(),
            "ada refused: the node takes no requests: it is being drained, or is shutting down; try another node \
             (after 2 attempts in 30.0ms); an earlier \
             attempt may have taken effect: read the key, or repeat it with the write id \
             0000000000000000000000000000feed"
        );
    }

    #[test]
    fn that_nobody_can_be_reached_is_said_with_what_happened_at_each_node() {
        let causes = vec![
            timed_out("n1", true),
            unreachable("n2", "10.0.0.2:7400"),
            timed_out("n3", false),
            unreachable("n1", "10.0.0.1:7400"),
        ];
        let last = causes.last().cloned().expect("four");
        let error = RequestError::new(last, causes, 4, Duration::from_secs(10), Outcome::Unknown);
        assert!(error.nobody_answered());
        assert_eq!(
            error.to_string(),
            "nobody can be reached: n1 at 10.0.0.1:7400: no answer within 1s; n2 at 10.0.0.2:7400: no answer within 1s; \
             there was no connection to n3 within 2.0s (after 4 attempts in 10.0s); an earlier attempt may have taken \
             effect: read the key, or repeat it with the same write id"
        );
    }

    #[test]
    fn a_node_that_answered_anything_was_reached() {
        let heard = Cause::TimedOut { node: "n1".into(), after: Duration::ZERO, sent: true, heard: true };
        for answered in [refused(), heard] {
            let causes = vec![answered, timed_out("n2", true)];
            let error = RequestError::new(timed_out("n2", true), causes, 2, Duration::from_secs(4), Outcome::Unknown);
            assert!(!error.nobody_answered());
            assert!(error.to_string().starts_with("n2 did not answer within 2.0s (after"), "{error}");
        }
    }

    #[test]
    fn a_request_after_an_unknown_one_of_the_same_operation_is_unknown() {
        let error = RequestError::once(refused(), Duration::ZERO).after_unknown(WriteId(7));
        assert_eq!((error.outcome(), error.write_id()), (Outcome::Unknown, Some(WriteId(7))));
        let own = RequestError::new(timed_out("a", true), vec![], 1, Duration::ZERO, Outcome::Unknown);
        let own = own.of_write(WriteId(8)).after_unknown(WriteId(7));
        assert_eq!(own.write_id(), Some(WriteId(8)), "its own write is the one to repeat");
    }
}
