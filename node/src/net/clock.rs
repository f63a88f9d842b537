//! The one place that reads the time for the machines.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use driftless_proto::Hlc;

use super::environment::WallClock;
use crate::time::{Instant, Now};

/// A clock whose origin is the start of the node, shared by its shards. Tokio's instants, so that it goes as its timers do
/// also where a test holds the time.
#[derive(Clone)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
    wall: Arc<WallClock>,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start(wall: Arc<WallClock>) -> Clock {
        Clock { origin: tokio::time::Instant::now(), wall }
    }

    /// Both clocks, for the machines.
    pub(crate) fn now(&self) -> Now {
        let wall = (self.wall)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Now { instant: self.instant(), wall: Hlc::from_millis(millis) }
    }

    /// The monotonic clock alone.
    pub(crate) fn instant(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When to wake for a machine's deadline. One beyond what the system can express is as good as a year away.
    pub(crate) fn wake_at(&self, instant: Instant) -> tokio::time::Instant {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        self.origin + Duration::from_micros(instant.0).min(YEAR * 100)
    }
}
