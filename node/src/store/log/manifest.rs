//! Manifests: which segments are in use beside the one that the manifest is in, and where their frames end.
//!
//! ```text
//! manifest   ordinal 8 | end 8 | last batch 8      of each segment
//! freed      ordinal 8
//! ```
//! Each segment begins with one. A frame about a segment that is used no more changes the last one before it. So it is known at a start
//! which segments must be there; what is not listed counts no more, whatever is in it.

use super::append::Head;
use super::frame::{self, number};

/// What a manifest says of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) ordinal: u64,
    pub(super) end: u64,
    pub(super) last_batch: u64,
}

/// A manifest of the segments in use, but for the one that it is to be in. The current one, if it is not that, ends where it is now.
pub(super) fn frame(head: &Head, without: Option<u32>) -> Vec<u8> {
    let mut frame = frame::begin(0);
    for (segment, used) in head.in_use().filter(|(segment, _)| Some(*segment) != without) {
        let is_current = segment == head.current;
        let (end, last_batch) = if is_current { (head.end, head.batch) } else { (used.end, used.last_batch) };
        [used.ordinal, end, last_batch].iter().for_each(|number| frame.extend(number.to_le_bytes()));
    }
    frame
}

/// A frame that says that a segment is used no more.
pub(super) fn freed(ordinal: u64) -> Vec<u8> {
    let mut frame = frame::begin(8);
    frame.extend(ordinal.to_le_bytes());
    frame
}

pub(super) fn decode(body: &[u8]) -> Vec<Listed> {
    body.chunks_exact(24)
        .map(|listed| Listed { ordinal: number(listed, 0), end: number(listed, 8), last_batch: number(listed, 16) })
        .collect()
}

pub(super) fn decode_freed(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|ordinal| u64::from_le_bytes(*ordinal))
}
