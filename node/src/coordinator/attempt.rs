//! One replica's share in a request.

use std::time::Duration;

use driftless_ring::NodeId;

use crate::peer::{self, time_to_carry};
use crate::time::Instant;

use super::latency::{LatencyEstimator, Work};

/// One replica's share in a request, until it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) to: NodeId,
    pub(super) work: Work,
    pub(super) since: Instant,
    /// What it takes to carry what is sent, or is known to be on its way back.
    pub(super) carried: Duration,
    /// When to ask another replica as well; `None` once that was looked at.
    pub(super) late_at: Option<Instant>,
    pub(super) overdue_at: Instant,
    /// Nothing follows from how long it takes.
    unmeasured: bool,
}

impl Attempt {
    /// A peer was asked just now.
    pub(super) fn begin(
        now: Instant,
        to: NodeId,
        work: Work,
        request: &peer::Request,
        latency: &LatencyEstimator,
    ) -> Attempt {
        let mut attempt = Attempt {
            to,
            work,
            since: now,
            carried: Duration::ZERO,
            late_at: Some(now + latency.late_after(to, work)),
            overdue_at: now + latency.overdue_after(to, work),
            unmeasured: false,
        };
        attempt.allow(time_to_carry(request.value_bytes()));
        attempt
    }

    /// It may take so much longer, because it is told to wait: so what it takes is not its usual time.
    pub(super) fn waiting(mut self, time: Duration) -> Attempt {
        self.late_at = self.late_at.map(|at| at + time);
        self.overdue_at = self.overdue_at + time;
        self.unmeasured = true;
        self
    }

    /// It was answered now, or given up on.
    pub(super) fn ended(&self, now: Instant, latency: &mut LatencyEstimator) {
        if !self.unmeasured {
            latency.observe(self.to, self.work, now.since(self.since).saturating_sub(self.carried));
        }
    }

    /// It may take so much longer, for what has to be carried.
    pub(super) fn allow(&mut self, time: Duration) {
        self.carried = self.carried.saturating_add(time);
        self.late_at = self.late_at.map(|at| at + time);
        self.overdue_at = self.overdue_at + time * 2;
    }
}
