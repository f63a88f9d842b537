//! Which shard of a node a request or message belongs to: the one that owns the key's partition.
//!
//! Shards share a store and nothing else; what keeps each to its own keys is that the code that hands requests to engines
//! asks here first. A replica that is given a key of another shard refuses it (`replica`).

use std::sync::Arc;

use driftless_proto::client::{self, Class};
use driftless_proto::{BucketId, Key, Topology};
use driftless_ring::{ArcIndex, NodeId, PartitionId};

use crate::configurations::Configurations;
use crate::peer::{self, ReplicaRequest};

/// What says which shard of a node serves a partition: one topology, or all versions that count.
pub trait Shape {
    /// The newest topology.
    fn topology(&self) -> &Topology;

    /// The shard of a node that serves a partition.
    fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16;
}

impl Shape for Topology {
    fn topology(&self) -> &Topology {
        self
    }

    fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16 {
        Topology::shard_of(self, node, partition)
    }
}

impl Shape for Configurations {
    fn topology(&self) -> &Topology {
        Configurations::topology(self)
    }

    /// Also of a node that is a member no more: it still serves what it has not handed over.
    fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16 {
        Configurations::shard_of(self, node, partition)
    }
}

impl<S: Shape> Shape for Arc<S> {
    fn topology(&self) -> &Topology {
        S::topology(self)
    }

    fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16 {
        S::shard_of(self, node, partition)
    }
}

/// The shard of `node` that serves a client's request; `None` if any shard can.
pub fn of_client(shape: &impl Shape, node: NodeId, request: &client::Request) -> Option<u16> {
    match request.class() {
        Class::Node if matches!(request, client::Request::Cluster(_)) => Some(MEMBERSHIP_SHARD),
        Class::Key { bucket, key, .. } => of_key(shape, node, bucket, key),
        Class::Arc { bucket, arc } => of_arc(shape, node, bucket, arc),
        Class::Node => None,
    }
}

/// The shard of `node` that serves a peer's request; `None` if any shard can.
pub fn of_peer(shape: &impl Shape, node: NodeId, request: &peer::Request) -> Option<u16> {
    match request {
        peer::Request::Replica(ReplicaRequest::Merge(merge)) => of_key(shape, node, merge.bucket, &merge.key),
        peer::Request::Replica(ReplicaRequest::Read(read)) => of_key(shape, node, read.bucket, &read.key),
        peer::Request::Replica(ReplicaRequest::Scan(scan)) => of_arc(shape, node, scan.bucket, scan.arc),
        peer::Request::Ping => None,
        peer::Request::Membership(_) => Some(MEMBERSHIP_SHARD),
        peer::Request::Exchange(peer::Exchange::Step { partition, .. }) => Some(shape.shard_of(node, *partition)),
        // All of one shard; where they are not, that shard says of the others that it does not hold them.
        peer::Request::Exchange(peer::Exchange::Sums(sums)) => {
            sums.lines.first().map(|line| shape.shard_of(node, line.partition))
        }
        peer::Request::Forward(request) => of_client(shape, node, request),
    }
}

/// The shard whose shell runs the machine of the members.
pub const MEMBERSHIP_SHARD: u16 = 0;

fn of_key(shape: &impl Shape, node: NodeId, bucket: BucketId, key: &Key) -> Option<u16> {
    let topology = shape.topology();
    let place = topology.place(topology.bucket(bucket)?, key);
    Some(shape.shard_of(node, place.partition))
}

fn of_arc(shape: &impl Shape, node: NodeId, bucket: BucketId, arc: ArcIndex) -> Option<u16> {
    let n = shape.topology().bucket(bucket)?.quorum.n();
    Some(shape.shard_of(node, PartitionId { n, arc }))
}
