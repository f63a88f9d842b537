//! The watermark: the newest batch known to be synced, remembered in the file `synced` after each sync. It is not itself synced: it need
//! only be there after `kill -9`, and after a power cut an older one is as true.
//!
//! ```text
//! slot   magic 8 | batch 8 | secret of the index 8 | xxh3-64 of these 8
//! ```
//! There are two slots, at byte 0 and at byte 512, written in turn: no sector holds both.

use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::folder::{Blocks, Folder};

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Mark {
    /// The newest batch known to be synced.
    pub(super) batch: u64,
    /// See [`Index`](super::index::Index).
    pub(super) secret: u64,
}

/// The open file.
pub(super) struct Watermark {
    file: Arc<dyn Blocks>,
    next_slot: u64,
}

impl Watermark {
    /// What a file of that name says: nothing if both slots are damaged.
    pub(super) fn read(folder: &dyn Folder) -> io::Result<Option<Mark>> {
        let file = folder.open(FILE)?;
        let mut bytes = vec![0; file.bytes()?.min(FILE_BYTES) as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(newest(&bytes))
    }

    /// Opens or makes the file with this mark, durably.
    pub(super) fn open(folder: &dyn Folder, mark: Mark) -> io::Result<Watermark> {
        let mut opened = Watermark { file: folder.create(FILE, FILE_BYTES)?, next_slot: 0 };
        for _ in 0..SLOTS {
            opened.write(mark)?;
            opened.file.sync()?;
        }
        folder.sync()?;
        Ok(opened)
    }

    /// The file, to make it durable without keeping those waiting who write to it. That is done for each segment, so that no whole
    /// segment can be missing unnoticed.
    pub(super) fn file(&self) -> Arc<dyn Blocks> {
        Arc::clone(&self.file)
    }

    /// Remembers a mark. Not durable at once, and need not be.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        self.file.write_at(&encode(mark), self.next_slot * SLOT_STEP)?;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        Ok(())
    }
}

/// The newer of the marks in the whole slots of a file.
pub(super) fn newest(bytes: &[u8]) -> Option<Mark> {
    (0..SLOTS).filter_map(|slot| decode(bytes.get((slot * SLOT_STEP) as usize..)?)).max()
}

pub(super) fn encode(mark: Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&mark.batch.to_le_bytes());
    slot[16..24].copy_from_slice(&mark.secret.to_le_bytes());
    let checksum = xxh3_64(&slot[..24]);
    slot[24..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let slot: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
    let batch = u64::from_le_bytes(slot[8..16].try_into().ok()?);
    let secret = u64::from_le_bytes(slot[16..24].try_into().ok()?);
    let mark = Mark { batch, secret };
    (*slot == encode(mark)).then_some(mark)
}

pub(super) const FILE: &str = "synced";
const FILE_BYTES: u64 = 1024;
const MAGIC: &[u8; 8] = b"DLSYNC02";
const SLOT_BYTES: usize = 32;
const SLOT_STEP: u64 = 512;
const SLOTS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_as_the_page_of_the_disk_shows_it() {
        let page = include_str!("../../../../docs/disk-format.md");
        let code =
            [("FILE_BYTES", FILE_BYTES), ("SLOT_BYTES", SLOT_BYTES as u64), ("SLOT_STEP", SLOT_STEP), ("SLOTS", SLOTS)];
        driftless_testkit::pages::assert_constants(page, "node/src/store/log/watermark.rs", &code);
        driftless_testkit::pages::assert_bytes(
            page,
            "synced",
            &encode(Mark { batch: 41, secret: 0x1122_3344_5566_7788 }),
        );
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let mark = |batch| Mark { batch, secret: 9 };
        let mut bytes = vec![0; FILE_BYTES as usize];
        assert_eq!(newest(&bytes), None);
        bytes[..SLOT_BYTES].copy_from_slice(&encode(mark(8)));
        assert_eq!(newest(&bytes), Some(mark(8)));
        bytes[512..512 + SLOT_BYTES].copy_from_slice(&encode(mark(9)));
        assert_eq!(newest(&bytes), Some(mark(9)));
        bytes[512 + 9] ^= 1;
        assert_eq!(newest(&bytes), Some(mark(8)), "the other slot");
        assert_eq!(newest(&[1, 2, 3]), None);
    }
}
