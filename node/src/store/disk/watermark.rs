//! Remembers how far the journal had been synced, so that a later start can tell a torn tail from corruption.
//!
//! Written after each sync and never synced itself: after the death of the process it is exact, after a power cut a
//! few seconds old at most and so a lower bound, which is all that is needed. Two slots are written in turn; of a
//! write that was torn the other slot is left.
//!
//! | offset in the slot | bytes | what, little-endian |
//! |---|---|---|
//! | 0 | 8 | `DLSYNC01` |
//! | 8 | 8 | [`Mark::seqno_end`] |
//! | 16 | 8 | [`Mark::journal`] plus 1; 0 for none |
//! | 24 | 8 | xxh3-64 of the 24 bytes before |
//!
//! Slot 0 is at byte 0 of the file, slot 1 at byte 512: no sector holds both.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// What is known of the newest record that is known to be synced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Mark {
    /// Its sequence number plus 1, or less. 0: none is known to be synced.
    pub(super) seqno_end: u64,
    /// It is in this journal or a later one.
    pub(super) journal: Option<u64>,
}

/// The file `synced` in a database directory.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
    next_slot: u64,
}

impl Watermark {
    /// The mark of a database that is to be opened; `None` if there is no such file.
    pub(super) fn read(database: &Path) -> io::Result<Option<Mark>> {
        let bytes = match fs::read(database.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let newest = newest(&bytes);
        if newest.is_none() {
            tracing::warn!(file = FILE, "the record of syncs is damaged: this start cannot check that all is there");
        }
        Ok(Some(newest.unwrap_or_default()))
    }

    /// Opens or makes the file, durably; keeps what is in it.
    pub(super) fn open(database: &Path, mark: Mark) -> io::Result<Watermark> {
        let path = database.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut opened = Watermark { file, next_slot: 0 };
        for _ in 0..SLOTS {
            opened.write(mark)?;
        }
        opened.file.sync_all()?;
        File::open(database)?.sync_all()?;
        Ok(opened)
    }

    /// Remembers a mark. Not durable at once, and need not be.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        self.file.write_all_at(&encode(mark), self.next_slot * SLOT_STEP)?;
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
    slot[8..16].copy_from_slice(&mark.seqno_end.to_le_bytes());
    slot[16..24].copy_from_slice(&mark.journal.map_or(0, |journal| journal + 1).to_le_bytes());
    let checksum = xxh3_64(&slot[..24]);
    slot[24..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let slot: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
    let seqno_end = u64::from_le_bytes(slot[8..16].try_into().ok()?);
    let journal = u64::from_le_bytes(slot[16..24].try_into().ok()?).checked_sub(1);
    let mark = Mark { seqno_end, journal };
    (*slot == encode(mark)).then_some(mark)
}

const FILE: &str = "synced";
const MAGIC: &[u8; 8] = b"DLSYNC01";
const SLOT_BYTES: usize = 32;
const SLOT_STEP: u64 = 512;
const SLOTS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mark = |seqno_end| Mark { seqno_end, journal: seqno_end.checked_sub(5) };
        assert_eq!(Watermark::read(folder.path()).expect("readable"), None);
        let mut watermark = Watermark::open(folder.path(), mark(3)).expect("opens");
        assert_eq!(Watermark::read(folder.path()).expect("readable"), Some(mark(3)));
        watermark.write(mark(8)).expect("written");
        watermark.write(mark(9)).expect("written");
        assert_eq!(Watermark::read(folder.path()).expect("readable"), Some(mark(9)));

        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).expect("there");
        bytes[SLOT_STEP as usize + 9] ^= 1;
        fs::write(&path, &bytes).expect("written");
        assert_eq!(Watermark::read(folder.path()).expect("readable"), Some(mark(8)), "the other slot");
        fs::write(&path, [1, 2, 3]).expect("written");
        assert_eq!(Watermark::read(folder.path()).expect("readable"), Some(Mark::default()), "nothing is known");
    }
}
