//! A hybrid logical clock (Kulkarni et al. 2014): wall time that never runs backwards along a chain of writes.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in the upper 48 bits, a logical counter in the lower 16.
///
/// A stamp is later than everything its writer had read, whatever the clocks say; between concurrent writes it is a
/// guess. It orders writes only in buckets that chose last-writer-wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The earliest stamp of a millisecond. Times past the year 10889 are clipped.
    pub const fn from_millis(millis: u64) -> Hlc {
        const MILLIS_MAX: u64 = u64::MAX >> LOGICAL_BITS;
        Hlc(if millis > MILLIS_MAX { MILLIS_MAX } else { millis } << LOGICAL_BITS)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The stamp of a new write: later than the clock says, than the state it joins, and than what its writer read.
    pub fn after(clock: Hlc, local: Hlc, read: Hlc) -> Hlc {
        Hlc(clock.max(local).max(read).0.saturating_add(1))
    }
}

/// The time as far as a clock would show it: in milliseconds. It is the clock's of the node that stamped the write, or later.
impl From<Hlc> for SystemTime {
    fn from(stamp: Hlc) -> SystemTime {
        // At most 2^48 ms, nine thousand years: inside what any system's time can hold.
        SystemTime::UNIX_EPOCH + Duration::from_millis(stamp.millis())
    }
}

/// 65,536 writes of one chain within a millisecond before the stamp runs ahead of the clock.
const LOGICAL_BITS: u32 = 16;

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & ((1 << LOGICAL_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_later_than_all_it_follows() {
        let (slow, fast) = (Hlc::from_millis(1_000), Hlc::from_millis(9_000));
        assert!(Hlc::after(slow, fast, Hlc::default()) > fast);
        assert!(Hlc::after(slow, Hlc::default(), fast) > fast);
        assert!(Hlc::after(fast, slow, slow) > fast);
    }

    #[test]
    fn the_far_future_does_not_wrap() {
        assert!(Hlc::from_millis(u64::MAX) > Hlc::from_millis(1));
        assert_eq!(Hlc::after(Hlc(u64::MAX), Hlc::default(), Hlc::default()), Hlc(u64::MAX));
    }

    #[test]
    fn a_stamp_is_a_time() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_400_000_123);
        assert_eq!(SystemTime::from(Hlc(Hlc::from_millis(1_764_400_000_123).0 + 7)), at);
        assert!(SystemTime::from(Hlc(u64::MAX)) > at);
    }
}
