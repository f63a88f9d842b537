//! How long each peer usually takes, and so when to stop waiting for it alone.
//!
//! ```text
//! sent ──▶ usual time ──▶ late: another replica is asked as well, if the budget allows
//!               └───────▶ twice that, at least: overdue, which speaks against the peer itself
//! ```
//! The usual time is a [`LatencyEstimate`], kept for each peer and kind of work apart, since an acknowledgement waits for a disk
//! and a read does not. What is large is given the time to carry it on top ([`time_to_carry`](crate::peer::time_to_carry)), which is no
//! slowness of the peer and is not counted as such.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_proto::LatencyEstimate;
use driftless_ring::NodeId;

use crate::peer::ReplicaRequest;

/// The kinds of work that take different times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Work {
    /// Ends with an acknowledgement, which waits for a sync.
    Write,
    /// Ends with what the replica holds.
    Read,
    /// Ends with a page.
    Scan,
    /// Ends when the other node has coordinated a whole request.
    Forward,
}

impl Work {
    /// What a replica is asked for.
    pub(crate) fn of(request: &ReplicaRequest) -> Work {
        match request {
            ReplicaRequest::Merge(_) => Work::Write,
            ReplicaRequest::Read(_) => Work::Read,
            ReplicaRequest::Scan(_) => Work::Scan,
        }
    }
}

/// What is known of all peers.
#[derive(Debug)]
pub(crate) struct LatencyEstimator {
    /// The usual time of a peer that nothing is known of, and the longest that is waited before another is asked.
    attempt_timeout: Duration,
    estimates: BTreeMap<(NodeId, Work), LatencyEstimate>,
}

impl LatencyEstimator {
    pub(crate) fn new(attempt_timeout: Duration) -> LatencyEstimator {
        LatencyEstimator { attempt_timeout, estimates: BTreeMap::new() }
    }

    /// It took this long; or longer, if it was given up on after this long.
    pub(crate) fn observe(&mut self, peer: NodeId, work: Work, took: Duration) {
        self.estimates
            .entry((peer, work))
            .and_modify(|estimate| estimate.observe(took))
            .or_insert(LatencyEstimate::first(took));
    }

    /// After how long another replica is asked as well.
    pub(crate) fn late_after(&self, peer: NodeId, work: Work) -> Duration {
        self.usual(peer, work)
            .unwrap_or(self.attempt_timeout)
            .clamp(LATE_MIN.min(self.attempt_timeout), self.attempt_timeout)
    }

    /// After how long silence speaks against the peer.
    pub(crate) fn overdue_after(&self, peer: NodeId, work: Work) -> Duration {
        self.usual(peer, work).unwrap_or_default().max(self.attempt_timeout) * 2
    }

    /// Puts those first that answer reads much faster; among the others the order stays.
    pub(crate) fn fastest_first(&self, peers: &mut [NodeId]) {
        let class = |estimate: &LatencyEstimate| (estimate.mean().as_micros() as u64).max(1).ilog(4);
        peers.sort_by_key(|peer| self.estimates.get(&(*peer, Work::Read)).map_or(0, class));
    }

    fn usual(&self, peer: NodeId, work: Work) -> Option<Duration> {
        self.estimates.get(&(peer, work)).map(LatencyEstimate::usual)
    }
}

/// Allows so many more requests than were asked for: one in twenty, with room for a burst.
#[derive(Debug)]
pub(crate) struct HedgeBudget {
    /// In twentieths of a hedge.
    saved: u32,
}

impl HedgeBudget {
    pub(crate) fn new() -> HedgeBudget {
        HedgeBudget { saved: HEDGE_COST }
    }

    /// A client's request has come.
    pub(crate) fn earn(&mut self) {
        self.saved = (self.saved + 1).min(HEDGE_COST * HEDGE_BURST);
    }

    /// Whether one more request may be made.
    pub(crate) fn allows(&self) -> bool {
        self.saved >= HEDGE_COST
    }

    /// One more request was made.
    pub(crate) fn spend(&mut self) {
        self.saved = self.saved.saturating_sub(HEDGE_COST);
    }
}

/// Below this, a late answer says more of this node's own load than of the peer's.
const LATE_MIN: Duration = Duration::from_millis(5);

/// One hedge for so many requests: at most 5 % more.
const HEDGE_COST: u32 = 20;

/// Hedges that can be saved up.
const HEDGE_BURST: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_steady_peer_is_late_soon_after_its_usual_time() {
        let mut latency = LatencyEstimator::new(MS * 250);
        assert_eq!(latency.late_after(A, Work::Write), MS * 250, "nothing is known yet");
        (0..100).for_each(|_| latency.observe(A, Work::Write, MS * 20));
        let late = latency.late_after(A, Work::Write);
        assert!(late >= MS * 20 && late < MS * 22, "{late:?}");
        assert_eq!(latency.late_after(A, Work::Read), MS * 250, "reads are another matter");
        assert_eq!(latency.overdue_after(A, Work::Write), MS * 500);
    }

    #[test]
    fn a_slow_peer_is_given_its_time() {
        let mut latency = LatencyEstimator::new(MS * 250);
        (0..100).for_each(|_| latency.observe(A, Work::Write, MS * 400));
        assert_eq!(latency.late_after(A, Work::Write), MS * 250, "others are asked all the same");
        assert!(latency.overdue_after(A, Work::Write) >= MS * 800);
    }

    #[test]
    fn only_much_faster_peers_come_first() {
        let mut latency = LatencyEstimator::new(MS * 250);
        latency.observe(A, Work::Read, MS * 40);
        latency.observe(B, Work::Read, MS);
        let mut order = [A, B];
        latency.fastest_first(&mut order);
        assert_eq!(order, [B, A]);
    }

    #[test]
    fn hedges_are_at_most_one_in_twenty_requests() {
        let mut budget = HedgeBudget::new();
        let mut hedges = 0;
        for _ in 0..10_000 {
            budget.earn();
            if budget.allows() {
                budget.spend();
                hedges += 1;
            }
        }
        assert!(hedges <= 10_000 / 20 + 1, "{hedges}");
    }
}
