//! How far one clock is from another, for people.

use std::fmt;
use std::time::Duration;

/// `2h ahead of`, `1m 30s behind`: no finer than anybody reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Apart {
    ahead_ms: i64,
}

impl Apart {
    /// Of a clock that is so many milliseconds ahead; below zero if it is behind.
    pub fn of(ahead_ms: i64) -> Apart {
        Apart { ahead_ms }
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.ahead_ms < 0 { "behind" } else { "ahead of" };
        let off_ms = self.ahead_ms.unsigned_abs();
        let unit_ms = match off_ms {
            0..60_000 => return write!(f, "{:.1} s {side}", off_ms as f64 / 1000.0),
            60_000..3_600_000 => 1_000,
            _ => 60_000,
        };
        let nearest_ms = off_ms.saturating_add(unit_ms / 2) / unit_ms * unit_ms;
        write!(f, "{} {side}", humantime::format_duration(Duration::from_millis(nearest_ms)))
    }
}
