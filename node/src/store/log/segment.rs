//! Segments: files of a fixed size that are used again and again.
//!
//! ```text
//! page 0      how it is used: length, salt, ordinal, first batch
//! page 1 …    frames
//! behind them, when it is full: the footer
//! ```
//! Its ordinal says where its frames stand among those of others, and whether it is in use: only if a manifest lists it. So a segment
//! that is used no more is left as it is, and becomes void when another use begins: that has another salt. The head of a segment is in one
//! sector, which is the old one or the new one after a power cut. If it is the old one, nothing of the new use was synced.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use super::folder::Blocks;
use super::frame;

/// How a segment is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) salt: u64,
    pub(super) ordinal: u64,
    pub(super) first_batch: u64,
}

/// The name of a segment's file.
pub(super) fn name(segment: u32) -> String {
    format!("{segment:08}{SUFFIX}")
}

/// The segment that a file's name says it is.
pub(super) fn of_name(file: &str) -> Option<u32> {
    let number = file.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(number) == file && number < NUMBERS).then_some(number)
}

/// Begins a use. Durable with the first frames.
pub(super) fn begin(file: &dyn Blocks, used: Used) -> io::Result<()> {
    file.write_at(&encode(used), 0)
}

/// How a file is used, or was used last; `None` if it never was.
pub(super) fn read(file: &dyn Blocks) -> io::Result<Option<Used>> {
    let length = file.bytes()?;
    if length < FRAMES_AT {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_at(&mut head, 0)?;
    Ok(decode(&head).filter(|used| used.bytes <= length))
}

fn encode(used: Used) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    for (at, number) in (8..).step_by(8).zip([used.bytes, used.salt, used.ordinal, used.first_batch]) {
        head[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let hash = xxh3_64(&head[..40]);
    head[40..].copy_from_slice(&hash.to_le_bytes());
    head
}

fn decode(head: &[u8; HEAD_BYTES]) -> Option<Used> {
    let number = |at| frame::number(head, at);
    let used = Used { bytes: number(8), salt: number(16), ordinal: number(24), first_batch: number(32) };
    (*head == encode(used)).then_some(used)
}

/// What is never written again once it is synced, if anything in it was.
pub(super) const PAGE: u64 = 4096;

/// Where the first frame of a segment is.
pub(super) const FRAMES_AT: u64 = PAGE;

/// More segments than can be open.
const NUMBERS: u32 = 1 << 24;

const SUFFIX: &str = ".segment";
const HEAD_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"DLSEGM01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_segment_is_as_the_page_of_the_disk_shows_it() {
        let page = include_str!("../../../../docs/disk-format.md");
        let code = [("HEAD_BYTES", HEAD_BYTES as u64), ("PAGE", PAGE), ("NUMBERS", NUMBERS.into())];
        driftless_testkit::pages::assert_constants(page, "node/src/store/log/segment.rs", &code);
        let used = Used { bytes: 16 << 20, salt: 0x0807_0605_0403_0201, ordinal: 3, first_batch: 40 };
        driftless_testkit::pages::assert_bytes(page, "segment", &encode(used));
        assert_eq!(name(7), "00000007.segment");
        assert!(page.contains(&name(7)));
    }
}
