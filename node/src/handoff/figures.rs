//! What the shards of a node hold for others and how its delivery goes, for status and metrics.

use std::collections::BTreeMap;

use driftless_ring::NodeId;

use crate::time::Instant;

/// What one shard holds for one target.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct HintFigures {
    /// Keys held.
    pub keys: u64,
    /// Bytes of the copies among them.
    pub bytes: u64,
    /// Since when something has been held without a break, as far as this start knows.
    pub since: Option<Instant>,
    /// Keys delivered since the start.
    pub delivered: u64,
    /// Keys delivered per second lately.
    pub rate: f64,
}

impl HintFigures {
    /// What several shards hold, by target.
    pub fn by_target(of_shards: impl IntoIterator<Item = (NodeId, HintFigures)>) -> BTreeMap<NodeId, HintFigures> {
        let mut sums = BTreeMap::new();
        for (target, figures) in of_shards {
            let sum: &mut HintFigures = sums.entry(target).or_default();
            sum.keys += figures.keys;
            sum.bytes += figures.bytes;
            sum.since = [sum.since, figures.since].into_iter().flatten().min();
            sum.delivered += figures.delivered;
            sum.rate += figures.rate;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_shards_add_up() {
        let figures = |keys, since| HintFigures { keys, bytes: 10, since, delivered: 1, rate: 2.0 };
        let first = [(NodeId(1), figures(3, Some(Instant(7))))];
        let second = [(NodeId(1), figures(4, Some(Instant(5)))), (NodeId(2), figures(0, None))];
        let sums = HintFigures::by_target(first.into_iter().chain(second));
        let both = HintFigures { keys: 7, bytes: 20, since: Some(Instant(5)), delivered: 2, rate: 4.0 };
        assert_eq!((sums[&NodeId(1)], sums[&NodeId(2)]), (both, figures(0, None)));
    }
}
