//! What is done to the node and when, drawn from the seed.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// How a life of the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Strike {
    /// `kill -9`.
    Kill,
    /// The disk is what the device held. Whether a third of the files is written out before.
    PowerCut { some_written: bool },
    /// It is asked to stop, and stops in order.
    Stop,
}

/// A life, from when it serves to when it serves again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// How long clients write.
    pub(super) load: Duration,
    /// How long after they have stopped it ends; `None`: while they write.
    pub(super) linger: Option<Duration>,
    pub(super) strike: Strike,
    /// Further strikes, each so long after the process was started again.
    pub(super) while_starting: Vec<(Duration, Strike)>,
}

/// So many strikes are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) kills: u64,
    pub(super) power_cuts: u64,
}

impl Left {
    /// The next life; `None` if nothing is left. `cuts` says whether the power can be cut here at all.
    pub(super) fn next(&mut self, rng: &mut StdRng, cuts: bool) -> Option<Plan> {
        let all = self.kills + self.power_cuts;
        if all == 0 {
            return None;
        }
        let strike = match rng.random_range(0..all) {
            _ if rng.random_ratio(1, STOP_EVERY) => Strike::Stop,
            drawn if drawn < self.power_cuts => {
                self.power_cuts -= 1;
                power_cut(rng)
            }
            _ => {
                self.kills -= 1;
                Strike::Kill
            }
        };
        let load = match rng.random_range(0..10) {
            0..5 => rng.random_range(20..300),
            5..9 => rng.random_range(300..800),
            _ => rng.random_range(800..2000),
        };
        let linger = rng.random_ratio(1, 5).then(|| Duration::from_millis(rng.random_range(0..150)));
        let mut while_starting = Vec::new();
        if rng.random_ratio(1, 4) {
            for _ in 0..rng.random_range(1..=3) {
                let is_cut = cuts && rng.random_ratio(if strike == Strike::Kill { 1 } else { 4 }, 8);
                let strike = if is_cut { power_cut(rng) } else { Strike::Kill };
                while_starting.push((Duration::from_millis(rng.random_range(0..START_MS)), strike));
            }
        }
        Some(Plan { load: Duration::from_millis(load), linger, strike, while_starting })
    }
}

/// Half of the times some files are written that were not synced, as a kernel might.
fn power_cut(rng: &mut StdRng) -> Strike {
    Strike::PowerCut { some_written: rng.random_bool(0.5) }
}

/// One life in so many ends in order, so that starts after that are met as well.
const STOP_EVERY: u32 = 30;

/// From the first page that a start reads to a little after it serves.
const START_MS: u64 = 400;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn all_strikes_are_dealt_and_follow_from_the_seed() {
        let deal = |cuts| {
            let (mut rng, mut left) = (StdRng::seed_from_u64(5), Left { kills: 300, power_cuts: 40 });
            std::iter::from_fn(|| left.next(&mut rng, cuts)).collect::<Vec<_>>()
        };
        let plans = deal(true);
        let count = |of: fn(&Strike) -> bool| plans.iter().filter(|plan| of(&plan.strike)).count();
        assert_eq!(count(|strike| *strike == Strike::Kill), 300);
        assert_eq!(count(|strike| matches!(strike, Strike::PowerCut { .. })), 40);
        assert!(count(|strike| *strike == Strike::Stop) > 0);
        let starts = || plans.iter().flat_map(|plan| &plan.while_starting);
        assert!(starts().any(|(_, strike)| *strike == Strike::Kill));
        assert!(starts().any(|(_, strike)| matches!(strike, Strike::PowerCut { .. })));
        assert_eq!(plans, deal(true));
        let kills = deal(false);
        assert!(kills.iter().flat_map(|plan| &plan.while_starting).all(|(_, strike)| *strike == Strike::Kill));
    }
}
