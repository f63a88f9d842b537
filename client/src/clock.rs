//! The time that a request has, with all its attempts and waits.

use std::time::Duration;

use driftless_proto::Outcome;
use tokio::time::Instant;

use crate::error::{Cause, RequestError};

/// When a request began, and when it must have ended.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
}

impl Clock {
    pub(crate) fn start(timeout: Duration) -> Clock {
        let started = Instant::now();
        Clock { started, deadline: started + timeout.min(FAR_FUTURE) }
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Until when to wait for the turn at a key: a quarter of what is left is for the request itself.
    pub(crate) fn patience(&self) -> Instant {
        Instant::now() + self.remaining() * 3 / 4
    }

    /// The time was over before anything more could be sent.
    pub(crate) fn over(&self) -> RequestError {
        let cause = Cause::OutOfTime { allowed: self.allowed() };
        RequestError::new(cause, Vec::new(), 0, self.started.elapsed(), Outcome::Refused)
    }

    /// All the time there was.
    pub(crate) fn allowed(&self) -> Duration {
        self.deadline - self.started
    }
}

/// Longer timeouts mean "never"; adding one to a time must not overflow.
pub(crate) const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 3600);
