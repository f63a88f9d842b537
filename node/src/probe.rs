//! Decoders that only this crate uses, opened to the rig that gives them damaged bytes (`tests/fuzz`). No release builds
//! this.

use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::Topology;
use driftless_proto::membership::StoreId;
use driftless_ring::NodeId;

use crate::configurations::Configurations;
use crate::net::hello;
use crate::peer::{Hello, Incarnation};
use crate::store::{directory, log};

/// The first frame of a peer connection, as the shell reads it.
pub fn read_hello(body: &[u8]) -> Option<Hello> {
    hello::read(body, "a", "b").ok().map(|(_, hello)| hello)
}

/// What a node says of itself.
pub fn our_hello(node: NodeId, incarnation: Incarnation, topology: &Topology) -> Hello {
    let configurations = Configurations::of_file(Arc::new(topology.clone()));
    hello::our_hello(node, incarnation, Some(incarnation), &configurations, 0, StoreId(0))
}

/// Whether a hello fits our own, from the node that the certificate names.
pub fn hello_fits(ours: &Hello, theirs: &Hello, certified: NodeId, topology: &Topology) -> bool {
    hello::check(ours, theirs, certified, &Configurations::of_file(Arc::new(topology.clone()))).is_ok()
}

/// The frames at the start of these bytes: the batch of each, and where it ends.
pub fn log_frames(bytes: &[u8]) -> Vec<(u64, usize)> {
    log::probe::frames(bytes)
}

/// A frame for each record, as a log writes them; a record without a value removes.
pub fn written_frames(records: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    log::probe::written(records)
}

/// The newest mark in a file of syncs, and that file with this mark in it.
pub fn watermark(bytes: &[u8]) -> Option<((u64, u64), Bytes)> {
    log::probe::watermark(bytes)
}

/// The bytes as `identity.json` and as `topology.json`, each written again if it can be read.
pub fn directory_files(bytes: &[u8]) -> [Option<Vec<u8>>; 2] {
    directory::rewritten(bytes)
}
