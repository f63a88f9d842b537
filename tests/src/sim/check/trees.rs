//! The tree of every partition says exactly what its node's disk holds.

use driftless_antientropy::{Digest, LeafMap, Tree};

use super::{Evidence, Violation};

const PROMISE: &str = "trees";

/// Whether each tree equals one built from the states themselves.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let partitions = evidence.topology.ring().partitions();
    for (node, trees) in evidence.trees {
        for (partition, tree) in trees {
            let Some(tree) = tree else {
                violations
                    .push(Violation::general(PROMISE, format!("n{node} has no tree of partition {partition} yet")));
                continue;
            };
            let mut recomputed = Tree::new(LeafMap::new(partitions, partition.arc), tree.bits());
            for (slot, held) in &evidence.held[node] {
                let Some(bucket) = evidence.topology.bucket(slot.0) else { continue };
                let place = evidence.topology.place(bucket, &slot.1);
                if place.partition == *partition {
                    let digest = Digest::of(slot.0, &slot.1, &held.siblings.header());
                    recomputed.update(place.token, None, Some(digest));
                }
            }
            if *tree != recomputed {
                let text = format!(
                    "n{node} has a tree of partition {partition} with {:?}, its records come to {:?}",
                    tree.sum(),
                    recomputed.sum()
                );
                violations.push(Violation::general(PROMISE, text));
            }
        }
    }
    violations
}
