//! What the shards of a node hold for others and how its delivery goes, for status and metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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

/// Published by the shards a few times per second, read by everybody.
#[derive(Debug, Default)]
pub struct HintTable(Mutex<BTreeMap<(NodeId, u16), HintFigures>>);

impl HintTable {
    /// A shard's new figures for a target.
    pub fn publish(&self, shard: u16, target: NodeId, figures: HintFigures) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((target, shard), figures);
    }

    /// All shards together, by target.
    pub fn by_target(&self) -> BTreeMap<NodeId, HintFigures> {
        let mut sums = BTreeMap::new();
        for ((target, _), figures) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let sum: &mut HintFigures = sums.entry(*target).or_default();
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
        let table = HintTable::default();
        let figures = |keys, since| HintFigures { keys, bytes: 10, since, delivered: 1, rate: 2.0 };
        table.publish(0, NodeId(1), figures(9, None));
        table.publish(0, NodeId(1), figures(3, Some(Instant(7))));
        table.publish(1, NodeId(1), figures(4, Some(Instant(5))));
        table.publish(1, NodeId(2), figures(0, None));
        let sums = table.by_target();
        let both = HintFigures { keys: 7, bytes: 20, since: Some(Instant(5)), delivered: 2, rate: 4.0 };
        assert_eq!((sums[&NodeId(1)], sums[&NodeId(2)]), (both, figures(0, None)));
    }
}
