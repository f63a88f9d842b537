//! Whether a node can coordinate: each of its partitions has a quorum within reach.

use std::collections::BTreeMap;
use std::fmt;

use driftless_proto::Topology;
use driftless_ring::{NodeId, PartitionId};

/// A partition without a quorum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Obstacle {
    partition: PartitionId,
    reachable: usize,
    needed: usize,
}

/// The first partition that `node` owns of which fewer owners can be reached than the most demanding bucket asks for.
pub(crate) fn first_obstacle(topology: &Topology, node: NodeId, reaches: impl Fn(NodeId) -> bool) -> Option<Obstacle> {
    let mut needed: BTreeMap<u8, usize> = BTreeMap::new();
    for bucket in topology.buckets() {
        let quorum = usize::from(bucket.quorum.r().max(bucket.quorum.w()));
        let most = needed.entry(bucket.quorum.n()).or_default();
        *most = quorum.max(*most);
    }
    topology.ring().owned(node).find_map(|partition| {
        let needed = *needed.get(&partition.n)?;
        let reachable = topology.ring().owners(partition).iter().filter(|owner| reaches(**owner)).count();
        (reachable < needed).then_some(Obstacle { partition, reachable, needed })
    })
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { partition, reachable, needed } = self;
        write!(f, "partition {partition} has {reachable} reachable owners, {needed} are needed")
    }
}
