//! How late a time may be that a peer tells. A clock may be wrong by hours or years, and what it has stamped is stored and believed; but
//! no clock that ever kept time shows the next century, and who says so is lying or broken.
//!
//! Measured against the own clock, which may itself be behind by any amount: then against the date of this release, so that a machine
//! that starts in 1970 refuses nobody.

use driftless_proto::Hlc;

/// The latest stamp that is believed.
pub(crate) fn latest_stamp(wall: Hlc) -> Hlc {
    let millis = wall.millis().max(RELEASED_S * 1_000).saturating_add(AHEAD_MAX_S * 1_000);
    // A clock near the end of time may show anything up to it.
    let latest = Hlc::from_millis(millis.saturating_add(1));
    if latest.millis() <= millis { Hlc(u64::MAX) } else { latest }
}

/// The latest life of a node that is believed: lives count on from the second in which a directory was made.
#[cfg(feature = "net")]
pub(crate) fn latest_life(wall: Hlc) -> u64 {
    (wall.millis() / 1_000).max(RELEASED_S) + AHEAD_MAX_S
}

/// Ten years. A clock that was wrong by more has never been set; one that was wrong by less must not cost a node its data.
pub(crate) const AHEAD_MAX_S: u64 = 10 * 365 * 86_400;

/// 2026-11-01.
const RELEASED_S: u64 = 1_793_491_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_by_years_refuses_no_honest_time_and_the_end_of_time_is_reached() {
        let honest = Hlc::from_millis(1_900_000_000_000);
        for wall in [Hlc::default(), Hlc::from_millis(1_793_491_200_000), honest] {
            assert!(latest_stamp(wall) > honest, "{wall}");
        }
        let century = Hlc::from_millis(5_000_000_000_000);
        assert!(latest_stamp(honest) < century);
        assert_eq!(latest_stamp(Hlc(u64::MAX)), Hlc(u64::MAX));
    }
}
