//! Clocks that disagree: each node has an origin of its monotonic clock and a skew of its wall clock.

use driftless_node::time::{Instant, Now};
use driftless_proto::Hlc;

use super::schedule::Micros;

/// One node's two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic clock's reading when the world began; differs between lives.
    pub origin: Micros,
    /// By how many milliseconds the wall clock is ahead of the truth.
    pub skew_ms: i64,
}

impl Clock {
    /// What the node is told of the time at a moment of the world.
    pub fn now(&self, at: Micros) -> Now {
        let millis = WORLD_BEGAN_MS.saturating_add_signed(self.skew_ms) + at / 1000;
        Now { instant: Instant(self.origin + at), wall: Hlc::from_millis(millis) }
    }

    /// The moment of the world at which the monotonic clock shows this.
    pub fn world_time(&self, instant: Instant) -> Micros {
        instant.0.saturating_sub(self.origin)
    }
}

/// Some day in 2023: any number with room for skews on both sides will do.
const WORLD_BEGAN_MS: u64 = 1_700_000_000_000;

/// Skews are drawn from ± this, but for one clock that is a day off for a while: else two clocks never differ by the minute
/// from which a node does not trust its own.
pub const SKEW_MS_MAX: i64 = 20_000;
