//! How late a time may be that a peer tells. A clock may be wrong by hours or years, and what it has stamped is stored and believed; but
//! no clock that ever kept time shows the next century, and who says so is lying or broken.
//!
//! Measured against the own clock, which may itself be behind by any amount: then against the date of this release, so that a machine
//! that starts in 1970 refuses nobody.

use driftless_proto::Hlc;

/// The latest time that this node stamps a write after.
pub(crate) fn latest_stamp(wall: Hlc) -> Hlc {
    so_late(wall, AHEAD_MAX_S)
}

/// The latest stamp of another node that is believed.
pub(crate) fn latest_stamp_of_others(wall: Hlc) -> Hlc {
    so_late(wall, AHEAD_MAX_S + CLOCKS_APART_S)
}

fn so_late(wall: Hlc, ahead_s: u64) -> Hlc {
    let millis = wall.millis().max(RELEASED_S * 1_000).saturating_add(ahead_s * 1_000);
    // A clock near the end of time may show anything up to it.
    let latest = Hlc::from_millis(millis.saturating_add(1));
    if latest.millis() <= millis { Hlc(u64::MAX) } else { latest }
}

/// The latest life that a node takes: lives count on from the second in which a directory was made.
pub(crate) fn latest_life(wall: Hlc) -> u64 {
    (wall.millis() / 1_000).max(RELEASED_S) + AHEAD_MAX_S
}

/// Ten years. A clock that was wrong by more has never been set; one that was wrong by less must not cost a node its data.
pub(crate) const AHEAD_MAX_S: u64 = 10 * 365 * 86_400;

/// A day: how much later than its own a node believes of others. Clocks differ, and what one honest node does must not be refused by
/// the next.
pub(crate) const CLOCKS_APART_S: u64 = 86_400;

/// A key names an actor for each start of each node that has stamped a write of it, and for each time that a fallback has done so: with
/// ten members one each every hour for three years, all of which have written this one key.
pub(crate) const ACTORS_MAX: usize = 1 << 18;

/// A node stamps on top of a state with so many what was read with so many.
pub(crate) const ACTORS_MAX_OF_OTHERS: usize = 2 * ACTORS_MAX;

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
            assert!(latest_stamp_of_others(wall) > latest_stamp(wall), "{wall}");
        }
        let century = Hlc::from_millis(5_000_000_000_000);
        assert!(latest_stamp(honest) < century);
        assert_eq!(latest_stamp(Hlc(u64::MAX)), Hlc(u64::MAX));
    }
}
