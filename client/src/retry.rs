//! When a failed attempt is made again, where, and after how long.
//!
//! Every attempt of a put or delete carries the same write id, so repeating one is safe: a replica that holds the
//! write does not stamp it again. A node that answered, if only that it does not know the outcome, is best asked again:
//! it remembers the id even if the value has been overwritten since. A node that cannot answer is left at once. What a
//! policy decides is only whether, where and when it is worth while.
//!
//! Attempts that are overdue and have not failed are no policy's business: see [`attempts`](crate::attempts).

use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

use driftless_proto::frame::FRAME_SHARED_MAX;
use driftless_proto::{Outcome, Refusal, Scope, Unknown};

use crate::error::Cause;

/// Decides about the next attempt of a request. It is asked after each attempt that failed.
pub trait RetryPolicy: Send + Sync + fmt::Debug + 'static {
    /// What to do now. The client gives up by itself when the deadline of the request would pass while waiting.
    fn decide(&self, failed: &FailedAttempt<'_>) -> Decision;

    /// Whether another node may be asked as well while an answer is overdue. It may then happen that two coordinators
    /// stamp a put; see [Failures](crate#failures).
    fn hedges(&self) -> bool {
        true
    }
}

/// An attempt that did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedAttempt<'a> {
    /// Which attempt of the request it was, from 1.
    pub number: u32,
    /// How many of the request's attempts ended before their time: refused, without a connection, or with an outcome that
    /// the node does not know. The other attempts cost nothing but time, which the request bounds.
    pub early: u32,
    /// How many of the request's attempts failed alike, this one included: for the same reason, at whichever nodes.
    pub alike: u32,
    /// How many attempts this node has had in a row, this one included.
    pub at_node: u32,
    /// Why it failed.
    pub cause: &'a Cause,
    /// Whether the request is a put or a delete.
    pub is_write: bool,
    /// Bytes of the value that it carries.
    pub bytes: usize,
    /// How long the request has taken.
    pub elapsed: Duration,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Report the failure.
    GiveUp,
    /// Make another attempt.
    Retry {
        /// After this time.
        after: Duration,
        /// Where.
        at: RetryAt,
    },
}

/// Where to make the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryAt {
    /// At the node that had the last one.
    Same,
    /// At the next best node.
    Next,
}

/// The policy that is used unless another is given.
///
/// | what happened | what is done |
/// |---|---|
/// | refused, and the reason is the [request's](Scope::Request) | reported: any node would refuse it |
/// | refused, and the reason is the [node's](Scope::Node) | next node at once; after a backoff once three have said the same |
/// | … overloaded | … after the time that the node asked for |
/// | … wrong node or old ring | … the ring is fetched first |
/// | … not enough replicas | … after a backoff, and reported when [`replicas_max`](DefaultRetry::replicas_max) attempts have found that |
/// | … the disk is full | … reported when as many have found that: all owners are full |
/// | no connection | next node, after a backoff that grows |
/// | connection lost | next node at once |
/// | outcome unknown, a write | same node once (it remembers the write id), then the next |
/// | too few answers in time, a read | next node if only the node itself answered: it may be cut off; else reported |
/// | outcome otherwise unknown, a read | next node |
/// | node did not answer and was not heard of at all | next node at once |
#[derive(Clone, Debug)]
pub struct DefaultRetry {
    attempts_max: u32,
    replicas_max: u32,
    backoff: Backoff,
    chance: fn() -> f64,
}

/// Never makes another attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRetry;

/// Waiting times that double, with jitter so that many clients do not come back at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl DefaultRetry {
    /// At most 10 attempts that end before their time, 3 of them for want of replicas or of room, with waits from 20 ms to 1 s.
    pub fn new() -> DefaultRetry {
        DefaultRetry {
            attempts_max: 10,
            replicas_max: 3,
            backoff: Backoff { first: Duration::from_millis(20), max: Duration::from_secs(1) },
            chance: rand::random,
        }
    }

    /// Most attempts of a request that end before their time, whatever fails. Attempts that are not answered are bounded by
    /// the request's timeout alone: a caller that allows a minute has a minute.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> DefaultRetry {
        self.attempts_max = attempts;
        self
    }

    /// Most attempts when too few replicas can be reached or have room: enough that nodes which see each other differently are
    /// asked, few enough that the caller learns of a real outage at once.
    #[must_use]
    pub fn replicas_max(mut self, attempts: u32) -> DefaultRetry {
        self.replicas_max = attempts;
        self
    }

    /// Another source of jitter, between zero and one.
    #[doc(hidden)]
    #[must_use]
    pub fn chance(mut self, chance: fn() -> f64) -> DefaultRetry {
        self.chance = chance;
        self
    }
}

impl Default for DefaultRetry {
    fn default() -> Self {
        DefaultRetry::new()
    }
}

impl RetryPolicy for DefaultRetry {
    fn decide(&self, failed: &FailedAttempt<'_>) -> Decision {
        let timed_out = matches!(failed.cause, Cause::TimedOut { .. });
        if failed.early >= self.attempts_max && !timed_out {
            return Decision::GiveUp;
        }
        let next = |after| Decision::Retry { after, at: RetryAt::Next };
        let backoff = || self.backoff.after(failed.number, (self.chance)());
        match failed.cause {
            Cause::Refused { refusal, .. } if refusal.scope() == Scope::Request => Decision::GiveUp,
            Cause::Refused { refusal, .. } => match refusal {
                Refusal::Overloaded { retry_after_ms } => {
                    let asked = Duration::from_millis((*retry_after_ms).into());
                    next(asked + (asked / 4).mul_f64((self.chance)()))
                }
                // Once the ring has been fetched at once; if that did not help, nodes are still agreeing on it.
                Refusal::NotOwner { .. } | Refusal::StaleRing { .. } if failed.alike > 1 => next(backoff()),
                Refusal::NotEnoughReplicas { .. } if failed.alike < self.replicas_max => next(backoff()),
                // It is the coordinator's own disk; another replica's would only fail to acknowledge.
                Refusal::StorageFull if failed.alike < self.replicas_max => next(Duration::ZERO),
                Refusal::NotEnoughReplicas { .. } | Refusal::StorageFull => Decision::GiveUp,
                _ if failed.alike <= OWNERS => next(Duration::ZERO),
                _ => next(backoff()),
            },
            Cause::NotConnected { failure, .. } if failure.is_lasting() && failed.number >= LASTING_MAX => {
                Decision::GiveUp
            }
            Cause::NotConnected { .. } => next(backoff()),
            Cause::ConnectionLost { .. } if failed.alike > OWNERS => next(backoff()),
            Cause::ConnectionLost { .. } | Cause::TimedOut { heard: false, .. } => next(Duration::ZERO),
            // Replicas that do not answer this node will not answer the next node either.
            Cause::Unknown { unknown: Unknown::Timeout { acks: 2.., .. }, .. } if !failed.is_write => Decision::GiveUp,
            Cause::Unknown { .. } | Cause::TimedOut { .. } => {
                // What takes long to carry is not carried to the same node again, which may still be at it.
                let again = !timed_out || failed.bytes <= FRAME_SHARED_MAX;
                let same = failed.is_write && failed.at_node < 2 && again;
                Decision::Retry { after: backoff(), at: if same { RetryAt::Same } else { RetryAt::Next } }
            }
            _ => Decision::GiveUp,
        }
    }
}

impl RetryPolicy for NoRetry {
    fn decide(&self, _: &FailedAttempt<'_>) -> Decision {
        Decision::GiveUp
    }

    fn hedges(&self) -> bool {
        false
    }
}

impl Backoff {
    /// The wait after this many failures, between half and all of `first * 2^(failures - 1)`.
    pub(crate) fn after(self, failures: u32, chance: f64) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.max);
        full / 2 + (full / 2).mul_f64(chance)
    }
}

/// Once so many nodes have refused for the same reason of their own, time has to pass for any to be better: a key has
/// usually three owners.
const OWNERS: u32 = 3;

/// A certificate that is not accepted will not be accepted a second later; other nodes may have a better one.
const LASTING_MAX: u32 = 3;

/// Whether the refusal says that the client's ring is old.
pub(crate) fn wants_ring(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::Refused { refusal: Refusal::StaleRing { .. } | Refusal::NotOwner { .. } | Refusal::NotCoordinator, .. }
    )
}

/// Whether two attempts failed for the same reason.
pub(crate) fn is_alike(one: &Cause, other: &Cause) -> bool {
    match (one.refusal(), other.refusal()) {
        (Some(one), Some(other)) => discriminant(one) == discriminant(other),
        _ => discriminant(one) == discriminant(other),
    }
}

/// Whether all attempts together may have taken effect: one unknown is enough, and reads never have an effect.
pub(crate) fn join(before: Outcome, cause: &Cause, is_write: bool) -> Outcome {
    if is_write && cause.outcome() == Outcome::Unknown { Outcome::Unknown } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(cause: Cause, number: u32, at_node: u32, is_write: bool) -> Decision {
        DefaultRetry::new().decide(&attempt(&cause, number, at_node, is_write))
    }

    fn attempt(cause: &Cause, number: u32, at_node: u32, is_write: bool) -> FailedAttempt<'_> {
        let (early, alike, elapsed) = (number, number, Duration::ZERO);
        FailedAttempt { number, early, alike, at_node, cause, is_write, bytes: 100, elapsed }
    }

    #[test]
    fn attempts_that_are_not_answered_are_bounded_by_time_alone() {
        let cause = Cause::TimedOut { node: "ada".into(), after: Duration::from_secs(2), sent: true, heard: true };
        assert!(at(decide(cause, 30, 1, true)).is_some(), "a minute is a minute");
        assert_eq!(decide(unknown(), 10, 1, true), Decision::GiveUp);
    }

    #[test]
    fn a_large_value_that_timed_out_is_not_sent_to_the_same_node_again() {
        let cause = Cause::TimedOut { node: "ada".into(), after: Duration::from_secs(2), sent: true, heard: true };
        let large = FailedAttempt { bytes: 4 << 20, ..attempt(&cause, 1, 1, true) };
        assert_eq!(at(DefaultRetry::new().decide(&large)), Some(RetryAt::Next));
        assert_eq!(at(decide(cause, 1, 1, true)), Some(RetryAt::Same));
    }

    fn refused(refusal: Refusal) -> Cause {
        Cause::Refused { node: "ada".into(), refusal }
    }

    fn unknown() -> Cause {
        Cause::Unknown { node: "ada".into(), unknown: Unknown::Timeout { acks: 1, needed: 2 } }
    }

    fn at(decision: Decision) -> Option<RetryAt> {
        match decision {
            Decision::Retry { at, .. } => Some(at),
            Decision::GiveUp => None,
        }
    }

    #[test]
    fn a_write_goes_to_the_same_coordinator_first_then_to_the_next() {
        assert_eq!(at(decide(unknown(), 1, 1, true)), Some(RetryAt::Same));
        assert_eq!(at(decide(unknown(), 2, 2, true)), Some(RetryAt::Next));
        assert_eq!(at(decide(unknown(), 1, 1, false)), Some(RetryAt::Next));
    }

    #[test]
    fn a_read_that_some_answered_is_not_repeated_for_the_others() {
        let timeout = |acks| Cause::Unknown { node: "ada".into(), unknown: Unknown::Timeout { acks, needed: 3 } };
        assert_eq!(decide(timeout(2), 1, 1, false), Decision::GiveUp);
        assert_eq!(at(decide(timeout(1), 1, 1, false)), Some(RetryAt::Next));
        assert_eq!(at(decide(timeout(2), 1, 1, true)), Some(RetryAt::Same));
    }

    #[test]
    fn too_few_replicas_are_reported_within_a_tenth_of_a_second() {
        let cause = refused(Refusal::NotEnoughReplicas { needed: 3, available: 2 });
        let mut waited = Duration::ZERO;
        for number in 1.. {
            match decide(cause.clone(), number, 1, false) {
                Decision::Retry { after, at } => {
                    assert_eq!(at, RetryAt::Next);
                    waited += after;
                }
                Decision::GiveUp => break,
            }
        }
        assert!(waited <= Duration::from_millis(100), "{waited:?}");
    }

    #[test]
    fn a_node_that_is_gone_is_not_asked_again() {
        let silent = Cause::TimedOut { node: "ada".into(), after: Duration::ZERO, sent: true, heard: false };
        assert_eq!(decide(silent, 1, 1, true), Decision::Retry { after: Duration::ZERO, at: RetryAt::Next });
    }

    #[test]
    fn an_overloaded_node_is_given_the_time_it_asked_for() {
        let Decision::Retry { after, .. } = decide(refused(Refusal::Overloaded { retry_after_ms: 400 }), 1, 1, true)
        else {
            panic!("overload passes");
        };
        assert!((400..=500).contains(&after.as_millis()), "{after:?}");
    }

    #[test]
    fn what_is_the_requests_is_reported_and_what_is_the_nodes_goes_to_the_next() {
        for refusal in every_refusal() {
            let decision = decide(refused(refusal.clone()), 1, 1, true);
            match refusal.scope() {
                Scope::Request => assert_eq!(decision, Decision::GiveUp, "{refusal:?}"),
                _ => assert_eq!(at(decision), Some(RetryAt::Next), "{refusal:?}"),
            }
        }
    }

    #[test]
    fn too_few_replicas_are_believed_when_three_nodes_say_so() {
        let few = || refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 });
        assert!(at(decide(few(), 2, 1, true)).is_some());
        assert_eq!(decide(few(), 3, 1, true), Decision::GiveUp);
        // Two that did not answer have said nothing of the kind.
        let cause = few();
        let third = FailedAttempt { alike: 1, ..attempt(&cause, 3, 1, true) };
        assert_eq!(at(DefaultRetry::new().decide(&third)), Some(RetryAt::Next));
    }

    #[test]
    fn nodes_that_all_refuse_for_the_same_reason_are_given_time() {
        for refusal in [Refusal::Stopping, Refusal::HintsFull, Refusal::Damaged, Refusal::NotCoordinator] {
            assert_eq!(
                decide(refused(refusal.clone()), 3, 1, true),
                Decision::Retry { after: Duration::ZERO, at: RetryAt::Next }
            );
            let Decision::Retry { after, .. } = decide(refused(refusal), 4, 1, true) else { panic!("it may pass") };
            assert!(!after.is_zero());
        }
    }

    #[test]
    fn a_node_whose_clock_is_wrong_is_left_at_once() {
        let elsewhere = Decision::Retry { after: Duration::ZERO, at: RetryAt::Next };
        assert_eq!(decide(refused(Refusal::ClockOff { ahead_ms: 86_400_000 }), 1, 1, true), elsewhere);
    }

    #[test]
    fn a_full_disk_is_left_for_an_owner_with_room() {
        let elsewhere = Decision::Retry { after: Duration::ZERO, at: RetryAt::Next };
        assert_eq!(decide(refused(Refusal::StorageFull), 1, 1, true), elsewhere);
        assert_eq!(decide(refused(Refusal::StorageFull), 2, 1, true), elsewhere);
        assert_eq!(decide(refused(Refusal::StorageFull), 3, 1, true), Decision::GiveUp, "all owners are full");
    }

    fn every_refusal() -> Vec<Refusal> {
        vec![
            Refusal::NotEnoughReplicas { needed: 2, available: 1 },
            Refusal::Overloaded { retry_after_ms: 1 },
            Refusal::TooManySiblings { siblings: 64, bytes: 64 },
            Refusal::ValueTooLarge { bytes: 2, max: 1 },
            Refusal::BadContext(driftless_proto::ContextError::Seal),
            Refusal::NoSuchBucket,
            Refusal::BadQuorum(driftless_proto::Quorum::new(3, 4, 1).expect_err("r is above n")),
            Refusal::NotCoordinator,
            Refusal::NotOwner { ring_version: 1 },
            Refusal::StaleRing { theirs: 1, ours: 2 },
            Refusal::WriteIdReused,
            Refusal::ClockOff { ahead_ms: 70_000 },
            Refusal::StorageFull,
            Refusal::Stopping,
            Refusal::BadRequest("what?".into()),
            Refusal::HintsFull,
            Refusal::Damaged,
            Refusal::NotAllowed {
                certificate: "driftless://shop/client/web".into(),
                role: driftless_proto::Role::Reader,
                needed: driftless_proto::Role::Writer,
                missing: driftless_proto::Missing::Role,
            },
        ]
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };
        for (failures, most) in [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000), (500, 2000)] {
            let after = backoff.after(failures, rand::random()).as_millis();
            assert!((most / 2..=most).contains(&after), "{failures} failures: {after} ms");
        }
    }
}
