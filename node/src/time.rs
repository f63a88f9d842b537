//! Time as an argument. Machines never ask what time it is: they are told.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use driftless_proto::Hlc;

/// A point on a clock that never runs backwards, in microseconds since an origin that only its owner knows.
///
/// `std::time::Instant` cannot be made from nothing, and a simulator must.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

/// What a machine is told of the time: the monotonic clock for deadlines, the wall clock for stamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// The wall clock, as the earliest stamp of this millisecond.
    pub wall: Hlc,
}

/// What a wall clock showed, or would have shown, when a monotonic one showed zero, in milliseconds since 1970. It stays the
/// same until the wall clock is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Epoch(pub i64);

impl Epoch {
    /// Of a wall clock that showed so many milliseconds at that instant.
    pub fn of(wall_ms: u64, at: Instant) -> Epoch {
        let (wall, at) = (i64::try_from(wall_ms).unwrap_or(i64::MAX), i64::try_from(at.0 / 1000).unwrap_or(i64::MAX));
        Epoch(wall.saturating_sub(at))
    }
}

impl Now {
    /// How the two clocks stand to each other.
    pub fn epoch(self) -> Epoch {
        Epoch::of(self.wall.millis(), self.instant)
    }
}

impl Instant {
    /// Time since an earlier instant; zero if it is not earlier.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
