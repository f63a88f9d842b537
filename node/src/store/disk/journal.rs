//! Tells a torn tail from corruption, before fjall reads its journal.
//!
//! fjall replays its journal up to the first record it cannot parse and *silently cuts off the rest*; other damage it
//! reports as an error, and refuses to open. Both are wrong for us: one flipped bit in the middle would lose what was
//! synced and acknowledged after it; and a power cut may leave, of what was *not* yet synced, a later page on the disk
//! and an earlier one not, which is no corruption and must not keep a node from starting. So we read the journal
//! first, with a [`Mark`] that says what had been synced:
//!
//! ```text
//!   whole records            bad    whatever follows
//!   ───────────────────────┬──────┬──────────────────
//!   … 7   8   9            │  ##  │ 11   12            whole up to sequence number 9
//!
//!   a record known to be synced has a number of at most 9:  the rest is a torn tail, set aside and cut off
//!                                          at least 10:     synced records are missing: corrupt; nothing is touched
//! ```
//! A journal that is not the newest was synced as a whole before the next one was begun: it ends in zeros or it is
//! corrupt. Journals are removed oldest first, when all of one is in the tables.
//!
//! Format of a record of fjall 3 (a batch), little-endian. The journals are `<number>.jnl`, filled up with zeros:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1: start |
//! | 4 | number of items |
//! | 8 | sequence number, larger than the one before (not covered by the checksum) |
//! | … | items: either 1 byte `2`, 1 value type (0, 1, 2, 4), 1 compression (0, 1), 8 keyspace, 2 length of the key, 4 length of the value, 4 length as stored, key, value as stored; or 1 byte `4`, 8 keyspace |
//! | 1 | 3: end |
//! | 8 | xxh3-64 of all items |
//! | 4 | `FJL\x03` |

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::watermark::Mark;
use crate::replica::store::StoreError;

/// What the journals hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audit {
    /// Number of the newest journal; `None` if there is none, which an open database never is without.
    pub(super) newest: Option<u64>,
    /// Sequence number of the last whole record.
    pub(super) last: Option<u64>,
    /// Number of the journal that it is in.
    pub(super) last_in: Option<u64>,
    /// Bytes after the last whole record of the newest journal that are no record.
    tail: Option<Tail>,
}

/// Where the newest journal stops making sense.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    journal: PathBuf,
    at: u64,
}

/// A tail that was cut off, kept in a file until it is certain that nothing synced was in it.
#[derive(Debug)]
pub(super) struct CutTail(PathBuf);

impl Audit {
    /// Reads all journals in a database directory; changes nothing.
    pub(super) fn of(database: &Path) -> Result<Audit, StoreError> {
        let journals = journals(database)?;
        let mut audit = Audit { newest: journals.last().map(|(number, _)| *number), ..Audit::default() };
        for (i, (number, path)) in journals.iter().enumerate() {
            if i > 0 && journals[i - 1].0 + 1 != *number {
                // They are deleted oldest first.
                return Err(corrupt(path, format_args!("the journal before it, {}.jnl, is missing", number - 1)));
            }
            let bytes = fs::read(path).map_err(|e| StoreError::Io(format!("cannot read {}: {e}", path.display())))?;
            let mut at = 0;
            while let Some((seqno, end)) = record(&bytes, at) {
                // The checksum does not cover the number. Journals are never written over, so a whole record out of
                // order is no leftover: this number or the one before it is damaged.
                if seqno >= SEQNO_END || audit.last.is_some_and(|last| seqno <= last || seqno - last > SEQNO_STEP_MAX) {
                    return Err(corrupt(path, format_args!("the number of the record at byte {at} is out of order")));
                }
                audit.last = Some(seqno);
                audit.last_in = Some(*number);
                at = end;
            }
            if bytes[at..].iter().all(|&byte| byte == 0) {
                continue;
            }
            if i + 1 < journals.len() {
                return Err(corrupt(path, format_args!("the record at byte {at} is damaged")));
            }
            audit.tail = Some(Tail { journal: path.clone(), at: at as u64 });
        }
        Ok(audit)
    }

    /// Refuses journals that lack something synced, and cuts off a torn tail.
    pub(super) fn settle(&self, database: &Path, synced: Mark) -> Result<Option<CutTail>, StoreError> {
        let missing = match (self.last, self.newest) {
            (Some(last), _) => last + 1 < synced.seqno_end,
            // Without a single record all that was synced may have gone from the journals into the tables, unless
            // the newest journal is the one that a synced record was written to.
            (None, Some(newest)) => synced.journal.is_some_and(|journal| journal >= newest),
            (None, None) => true,
        };
        if missing {
            let (path, at) = match &self.tail {
                Some(tail) => (tail.journal.as_path(), format!("the record at byte {} is damaged", tail.at)),
                None => (database, "the newest journal is missing or ends too early".into()),
            };
            return Err(corrupt(path, format_args!("{at}, and records that were synced are lost with it")));
        }
        let Some(tail) = &self.tail else { return Ok(None) };
        cut(database, tail).map(Some).map_err(|e| StoreError::Io(format!("cannot cut {}: {e}", tail.journal.display())))
    }
}

impl CutTail {
    /// The opened database has all that was synced: the tail was torn, and is not needed.
    pub(super) fn discard(self) {
        // Whether this works is of no importance: the next cut at this place overwrites it.
        let _ = fs::remove_file(self.0);
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// The record that begins at `at`: its sequence number, and where it ends.
pub(super) fn record(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut rest = Reader { bytes, at };
    if rest.u8()? != START {
        return None;
    }
    let items = rest.u32()?;
    let seqno = rest.u64()?;
    let begin = rest.at;
    for _ in 0..items {
        match rest.u8()? {
            ITEM => {
                let (value_type, compression) = (rest.u8()?, rest.u8()?);
                if !matches!(value_type, 0 | 1 | 2 | 4) || compression > 1 {
                    return None;
                }
                rest.u64()?;
                let key = usize::from(rest.u16()?);
                let value = rest.u32()?;
                let stored = rest.u32()?;
                if compression == 0 && value != stored {
                    return None;
                }
                rest.skip(key)?;
                rest.skip(stored as usize)?;
            }
            CLEAR => {
                rest.u64()?;
            }
            _ => return None,
        }
    }
    let checked = &bytes[begin..rest.at];
    let whole = rest.u8()? == END && rest.u64()? == xxh3_64(checked) && rest.skip(4)? == TRAILER;
    whole.then_some((seqno, rest.at))
}

/// Journals by number.
fn journals(database: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let failed = |e: io::Error| StoreError::Io(format!("cannot list {}: {e}", database.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(database).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let number = number.ok_or_else(|| corrupt(&path, format_args!("this is not a name of a journal")))?;
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn cut(database: &Path, tail: &Tail) -> io::Result<CutTail> {
    let journal = tail.journal.file_stem().unwrap_or_default().to_string_lossy();
    let aside = database.join(format!("{journal}-{}.cut", tail.at));
    let bytes = fs::read(&tail.journal)?;
    fs::write(&aside, &bytes[tail.at as usize..])?;
    File::open(&aside)?.sync_all()?;
    let journal = OpenOptions::new().write(true).open(&tail.journal)?;
    journal.set_len(tail.at)?;
    journal.sync_all()?;
    tracing::warn!(
        journal = %tail.journal.display(), at = tail.at,
        "cut off a torn tail of the journal, which nothing synced was in: the last stop was not an orderly one"
    );
    Ok(CutTail(aside))
}

fn corrupt(path: &Path, what: std::fmt::Arguments<'_>) -> StoreError {
    StoreError::Corrupt(format!("{}: {what}", path.display()))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let skipped = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(skipped)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.skip(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// A larger step between two records is a damaged number. Besides records only flushes and compactions take numbers,
/// a few each, and there are not thousands of them between two records.
const SEQNO_STEP_MAX: u64 = 1 << 16;

/// fjall panics when it hands out this number.
const SEQNO_END: u64 = 1 << 62;

/// How fjall calls its journals.
pub(super) fn file_name(number: u64) -> String {
    format!("{number}.jnl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_before_the_watermark_is_corruption_and_after_it_a_torn_tail() {
        let first: Vec<u8> = (1..=3).flat_map(whole_record).collect();
        for (watermark, torn) in [(0, true), (4, true), (5, false), (7, false)] {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let path = folder.path().join("0.jnl");
            let mut bytes = [first.clone(), whole_record(4), whole_record(5), vec![0; 99]].concat();
            bytes[first.len()] = 9;
            fs::write(&path, &bytes).expect("written");

            let audit = Audit::of(folder.path()).expect("readable");
            assert_eq!(audit.last, Some(3));
            let settled = audit.settle(folder.path(), Mark { seqno_end: watermark, journal: None });

            if torn {
                let cut = settled.expect("a torn tail").expect("cut off");
                assert_eq!(fs::read(&path).expect("there"), first);
                assert_eq!(fs::read(cut.path()).expect("kept aside"), bytes[first.len()..]);
                assert_eq!(
                    Audit::of(folder.path()),
                    Ok(Audit { newest: Some(0), last: Some(3), last_in: Some(0), tail: None })
                );
            } else {
                assert!(matches!(settled, Err(StoreError::Corrupt(_))), "{settled:?}");
                assert_eq!(fs::read(&path).expect("there"), bytes, "nothing is touched");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_what_was_synced_is_noticed_except_in_the_first_and_last_number() {
        let records = 3;
        let bytes: Vec<u8> = (101..=100 + records).flat_map(whole_record).collect();
        let len = bytes.len() / records as usize;
        let synced = Mark { seqno_end: 101 + records, journal: Some(0) };
        for bit in 0..bytes.len() * 8 {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join("0.jnl"), flipped).expect("written");
            let settled = Audit::of(folder.path()).and_then(|audit| audit.settle(folder.path(), synced));
            let (record, at) = (bit / 8 / len, bit / 8 % len);
            let end_number = (5..13).contains(&at) && record != 1;
            assert!(settled.is_err() || end_number, "bit {bit} was not noticed");
        }
    }

    #[test]
    fn an_older_journal_must_be_whole_and_none_may_be_missing() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
        write("4.jnl", &[whole_record(1), vec![0; 10]].concat());
        write("5.jnl", &[whole_record(2), whole_record(3)[..20].to_vec()].concat());
        let audit = Audit::of(folder.path()).expect("a torn tail of the newest is fine");
        assert_eq!((audit.newest, audit.last, audit.tail.is_some()), (Some(5), Some(2), true));
        write("6.jnl", &[]);
        assert!(matches!(Audit::of(folder.path()), Err(StoreError::Corrupt(_))), "5 is torn and not the newest");
        write("5.jnl", &whole_record(2));
        assert_eq!(
            Audit::of(folder.path()),
            Ok(Audit { newest: Some(6), last: Some(2), last_in: Some(5), tail: None })
        );
        fs::remove_file(folder.path().join("5.jnl")).expect("removed");
        assert!(matches!(Audit::of(folder.path()), Err(StoreError::Corrupt(_))), "5 is missing");
    }

    #[test]
    fn a_newest_journal_without_records_is_corrupt_if_something_synced_was_in_it() {
        for (bytes, journal, lost) in [
            (&[0_u8; 50][..], None, false),
            (&[0; 50], Some(7), true),
            (&[0; 50], Some(6), false),
            (&[], Some(7), true),
            (&[9; 50], Some(7), true),
            (&[9; 50], Some(6), false),
        ] {
            let folder = tempfile::tempdir().expect("a temporary directory");
            fs::write(folder.path().join("7.jnl"), bytes).expect("written");
            let settled =
                Audit::of(folder.path()).expect("readable").settle(folder.path(), Mark { seqno_end: 9, journal });
            assert_eq!(settled.is_err(), lost, "{bytes:?} {journal:?}");
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let settled = Audit::of(folder.path()).expect("readable").settle(folder.path(), Mark::default());
        assert!(settled.is_err(), "no journal at all");
    }

    fn whole_record(seqno: u64) -> Vec<u8> {
        let items = [
            &[ITEM, 0, 0][..],
            &1_u64.to_le_bytes(),
            &1_u16.to_le_bytes(),
            &2_u32.to_le_bytes(),
            &2_u32.to_le_bytes(),
            b"kvv",
        ]
        .concat();
        [&[START, 1, 0, 0, 0][..], &seqno.to_le_bytes(), &items, &[END], &xxh3_64(&items).to_le_bytes(), TRAILER]
            .concat()
    }
}
