//! Which shard of a node a request or message belongs to: the one that owns the key's partition.
//!
//! Shards share a store and nothing else; what keeps each to its own keys is that the code that hands requests to engines
//! asks here first. A replica that is given a key of another shard refuses it (`replica`).

use driftless_proto::client;
use driftless_proto::{BucketId, Key, Topology};
use driftless_ring::{ArcIndex, NodeId, PartitionId};

use crate::peer;

/// The shard of `node` that serves a client's request; `None` if any shard can.
pub fn of_client(topology: &Topology, node: NodeId, request: &client::Request) -> Option<u16> {
    match request {
        client::Request::Get(get) => of_key(topology, node, get.bucket, &get.key),
        client::Request::Put(put) => of_key(topology, node, put.bucket, &put.key),
        client::Request::Delete(delete) => of_key(topology, node, delete.bucket, &delete.key),
        client::Request::Restore(restore) => of_key(topology, node, restore.bucket, &restore.key),
        client::Request::Scan(scan) => of_arc(topology, node, scan.bucket, scan.arc),
        _ => None,
    }
}

/// The shard of `node` that serves a peer's request; `None` if any shard can.
pub fn of_peer(topology: &Topology, node: NodeId, request: &peer::Request) -> Option<u16> {
    match request {
        peer::Request::Write(write) => of_key(topology, node, write.bucket, &write.key),
        peer::Request::Merge(merge) => of_key(topology, node, merge.bucket, &merge.key),
        peer::Request::Read(read) => of_key(topology, node, read.bucket, &read.key),
        peer::Request::Scan(scan) => of_arc(topology, node, scan.bucket, scan.arc),
        peer::Request::Owe(owe) => of_key(topology, node, owe.bucket, &owe.key),
        peer::Request::Ping => None,
        peer::Request::Exchange(peer::Exchange::Step { partition, .. }) => Some(topology.shard_of(node, *partition)),
        // All of one shard; where they are not, that shard says of the others that it does not hold them.
        peer::Request::Exchange(peer::Exchange::Sums(sums)) => {
            sums.lines.first().map(|line| topology.shard_of(node, line.partition))
        }
        peer::Request::Forward(request) => of_client(topology, node, request),
    }
}

fn of_key(topology: &Topology, node: NodeId, bucket: BucketId, key: &Key) -> Option<u16> {
    let place = topology.place(topology.bucket(bucket)?, key);
    Some(topology.shard_of(node, place.partition))
}

fn of_arc(topology: &Topology, node: NodeId, bucket: BucketId, arc: ArcIndex) -> Option<u16> {
    let n = topology.bucket(bucket)?.quorum.n();
    Some(topology.shard_of(node, PartitionId { n, arc }))
}
