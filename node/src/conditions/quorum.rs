//! Whether a node can coordinate: each of its partitions has a quorum within reach.

use std::collections::BTreeMap;
use std::fmt;

use driftless_ring::{NodeId, PartitionId};

use crate::configurations::Configurations;

/// A partition without a quorum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Obstacle {
    partition: PartitionId,
    reachable: usize,
    needed: usize,
}

/// The first partition that `node` owns of which fewer owners can be reached than the most demanding bucket asks for: for writes in
/// each version that takes them, for reads in the one in which they count.
pub(crate) fn first_obstacle(
    configurations: &Configurations,
    node: NodeId,
    reaches: impl Fn(NodeId) -> bool,
) -> Option<Obstacle> {
    let topology = configurations.topology();
    // Of each class, r and w.
    let mut most: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
    for bucket in topology.buckets() {
        let (r, w) = most.entry(bucket.quorum.n()).or_default();
        *r = usize::from(bucket.quorum.r()).max(*r);
        *w = usize::from(bucket.quorum.w()).max(*w);
    }
    topology.ring().owned(node).find_map(|partition| {
        let (r, w) = *most.get(&partition.n)?;
        let lacks = |owners: &[NodeId], needed| {
            let reachable = owners.iter().filter(|owner| reaches(**owner)).count();
            (reachable < needed).then_some(Obstacle { partition, reachable, needed })
        };
        let writes = configurations.active(partition).filter_map(|(_, owners)| lacks(owners, w));
        lacks(configurations.read_owners(partition), r).into_iter().chain(writes).max_by_key(|lack| lack.needed)
    })
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { partition, reachable, needed } = self;
        write!(f, "partition {partition} has {reachable} reachable owners, {needed} are needed")
    }
}
