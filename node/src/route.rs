//! Which shard of a node a request or message belongs to: the one that owns the key's partition.
//!
//! Shards share a store and nothing else; what keeps each to its own keys is that the code that hands requests to engines
//! asks here first. A replica that is given a key of another shard refuses it (`replica`).

use driftless_proto::client::{self, Class};
use driftless_proto::{BucketId, Key};
use driftless_ring::{ArcIndex, NodeId, PartitionId};

use crate::configurations::Configurations;
use crate::peer::{self, ReplicaRequest};

/// The shard of `node` that serves a client's request; `None` if any shard can.
pub fn of_client(configurations: &Configurations, node: NodeId, request: &client::Request) -> Option<u16> {
    match request.class() {
        Class::Node if matches!(request, client::Request::Cluster(_)) => Some(MEMBERSHIP_SHARD),
        Class::Key { bucket, key, .. } => of_key(configurations, node, bucket, key),
        Class::Arc { bucket, arc } => of_arc(configurations, node, bucket, arc),
        Class::Node => None,
    }
}

/// The shard of `node` that serves a peer's request; `None` if any shard can.
pub fn of_peer(configurations: &Configurations, node: NodeId, request: &peer::Request) -> Option<u16> {
    match request {
        peer::Request::Replica(request) | peer::Request::Traced(peer::Traced { request, .. }) => {
            of_replica(configurations, node, request)
        }
        peer::Request::Ping => None,
        peer::Request::Membership(_) => Some(MEMBERSHIP_SHARD),
        peer::Request::Exchange(peer::Exchange::Step { partition, .. }) => {
            Some(configurations.shard_of(node, *partition))
        }
        // All of one shard; where they are not, that shard says of the others that it does not hold them.
        peer::Request::Exchange(peer::Exchange::Sums(sums)) => {
            sums.lines.first().map(|line| configurations.shard_of(node, line.partition))
        }
        peer::Request::Forward(request) => of_client(configurations, node, request),
    }
}

fn of_replica(configurations: &Configurations, node: NodeId, request: &ReplicaRequest) -> Option<u16> {
    match request {
        ReplicaRequest::Merge(merge) => of_key(configurations, node, merge.bucket, &merge.key),
        ReplicaRequest::Read(read) => of_key(configurations, node, read.bucket, &read.key),
        ReplicaRequest::Scan(scan) => of_arc(configurations, node, scan.bucket, scan.arc),
    }
}

/// The shard whose shell runs the machine of the members.
pub const MEMBERSHIP_SHARD: u16 = 0;

fn of_key(configurations: &Configurations, node: NodeId, bucket: BucketId, key: &Key) -> Option<u16> {
    let topology = configurations.topology();
    let place = topology.place(topology.bucket(bucket)?, key);
    Some(configurations.shard_of(node, place.partition))
}

fn of_arc(configurations: &Configurations, node: NodeId, bucket: BucketId, arc: ArcIndex) -> Option<u16> {
    let n = configurations.topology().bucket(bucket)?.quorum.n();
    Some(configurations.shard_of(node, PartitionId { n, arc }))
}
