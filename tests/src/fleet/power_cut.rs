//! A power cut: what the device held stays, what only the system's memory held is gone.
//!
//! `kill -9` takes nothing that a process has written, synced or not: the page cache outlives it. Here the processes
//! are stopped, the images beneath their mounted file systems copied, the processes killed, and the copies mounted in
//! place of the images.

use std::fs::File;
use std::io;
use std::path::Path;

use super::node::Node;

/// Cuts the power of these nodes at one moment. They are down then.
///
/// What was not synced is gone. A system writes some of it all the same, in an order of its own: `kept` says of which
/// files all is there.
///
/// # Panics
/// If a node has no disk of its own.
pub(crate) fn cut(nodes: &mut [&mut Node], mut kept: impl FnMut(&Path) -> bool) -> Result<(), String> {
    nodes.iter().for_each(|node| node.pause());
    for file in nodes.iter().flat_map(|node| node.files()).filter(|file| kept(file)) {
        // It may be gone by now, as far as anything can be gone that stands still.
        let _ = File::open(file).and_then(|file| file.sync_data());
    }
    let remains = nodes.iter_mut().map(|node| node.disk.as_ref().expect("it has a disk").copy());
    let remains = remains.collect::<io::Result<Vec<_>>>();
    let restored = remains.and_then(|remains| {
        nodes.iter_mut().for_each(|node| node.kill());
        let mut pairs = nodes.iter().zip(&remains);
        pairs.try_for_each(|(node, remains)| node.disk.as_ref().expect("it has a disk").restore(remains))
    });
    restored.map_err(|error| format!("the power cannot be cut: {error}"))
}
