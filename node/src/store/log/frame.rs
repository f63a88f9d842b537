//! Frames: what a log consists of, and how it is seen that one is whole.
//!
//! ```text
//! frame    magic 4 | kind 4 | bytes of the body 4 | records in it 4 | salt 8 | batch 8 | synced 8 | hash of the body 8 | hash of the head 8
//! record   hash 8 | bytes of the value 4 | bytes of the key 2 | flags 2 | key | value
//! ```
//! All numbers are little-endian, hashes xxh3-64 of what follows them (of the head: of what is before). A frame begins at a multiple of
//! eight bytes. The *salt* belongs to one use of a segment: what an earlier use has left is not taken for a frame, nor is what a value
//! contains. The *batch* numbers frames through all segments, without gaps. *synced* is the newest batch known to be synced when the
//! frame was written: proof that nothing up to there can be a torn tail.

use xxhash_rust::xxh3::xxh3_64;

/// What a frame is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Records: a batch, or copies of records.
    Records,
    /// Which segments are in use.
    Manifest,
    /// A segment is in use no more.
    Freed,
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) body: u32,
    pub(super) count: u32,
    pub(super) salt: u64,
    pub(super) batch: u64,
    pub(super) synced: u64,
}

/// A record in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    /// `None` removes.
    pub(super) value: Option<&'a [u8]>,
    /// Whether its hash is right.
    pub(super) whole: bool,
    pub(super) length: usize,
}

/// A buffer that becomes a frame: its body is written first, the head when everything is known.
pub(super) fn begin(bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + bytes + ALIGN);
    frame.resize(HEAD_BYTES, 0);
    frame
}

/// Bytes of a record.
pub(super) fn record_bytes(key: &[u8], value: Option<&[u8]>) -> usize {
    RECORD_HEAD_BYTES + key.len() + value.map_or(0, <[u8]>::len)
}

/// Appends a record to a frame.
pub(super) fn push_record(frame: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let at = frame.len();
    let flags: u16 = if value.is_none() { REMOVES } else { 0 };
    frame.extend([0; 8]);
    frame.extend((value.map_or(0, <[u8]>::len) as u32).to_le_bytes());
    frame.extend((key.len() as u16).to_le_bytes());
    frame.extend(flags.to_le_bytes());
    frame.extend(key);
    frame.extend(value.unwrap_or_default());
    let hash = xxh3_64(&frame[at + 8..]);
    frame[at..at + 8].copy_from_slice(&hash.to_le_bytes());
}

/// Completes a frame: pads its body, and writes its head.
pub(super) fn finish(frame: &mut Vec<u8>, kind: Kind, count: u32, salt: u64, batch: u64, synced: u64) {
    frame.resize(frame.len().next_multiple_of(ALIGN), 0);
    let body = (frame.len() - HEAD_BYTES) as u32;
    let head = Head { kind, body, count, salt, batch, synced };
    let body_hash = xxh3_64(&frame[HEAD_BYTES..]);
    write_head(&head, body_hash, &mut frame[..HEAD_BYTES]);
}

fn write_head(head: &Head, body_hash: u64, to: &mut [u8]) {
    to[..4].copy_from_slice(MAGIC);
    to[4..8].copy_from_slice(&head.kind.number().to_le_bytes());
    to[8..12].copy_from_slice(&head.body.to_le_bytes());
    to[12..16].copy_from_slice(&head.count.to_le_bytes());
    to[16..24].copy_from_slice(&head.salt.to_le_bytes());
    to[24..32].copy_from_slice(&head.batch.to_le_bytes());
    to[32..40].copy_from_slice(&head.synced.to_le_bytes());
    to[40..48].copy_from_slice(&body_hash.to_le_bytes());
    let hash = xxh3_64(&to[..48]);
    to[48..56].copy_from_slice(&hash.to_le_bytes());
}

/// The frame at the beginning of these bytes with its body, if there is a whole one of this salt.
pub(super) fn read(bytes: &[u8], salt: u64) -> Option<(Head, &[u8])> {
    let (head, body) = unchecked(bytes, salt)?;
    let is_whole = number(bytes, 48) == xxh3_64(&bytes[..48]) && number(bytes, 40) == xxh3_64(body);
    is_whole.then_some((head, body))
}

/// What would be the frame at the beginning of these bytes, whole or not.
pub(super) fn unchecked(bytes: &[u8], salt: u64) -> Option<(Head, &[u8])> {
    if !may_begin(bytes, salt) {
        return None;
    }
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let short = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let kind = Kind::of_number(short(4))?;
    let (body, count) = (short(8), short(12));
    let read = Head { kind, body, count, salt, batch: number(head, 24), synced: number(head, 32) };
    Some((read, rest.get(..body as usize)?))
}

/// The salt of a frame, whole or not, and whichever use of the segment it is of.
pub(super) fn salt(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEAD_BYTES && bytes[..4] == *MAGIC).then(|| number(bytes, 16))
}

/// The record at the beginning of these bytes, if its lengths fit into them.
pub(super) fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let value = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let key = usize::from(u16::from_le_bytes([head[12], head[13]]));
    let flags = u16::from_le_bytes([head[14], head[15]]);
    let contents = rest.get(..key.checked_add(value)?)?;
    let length = RECORD_HEAD_BYTES + contents.len();
    let whole = xxh3_64(&bytes[8..length]) == number(head, 0);
    let (key, value) = contents.split_at(key);
    Some(Record { key, value: (flags & REMOVES == 0).then_some(value), whole, length })
}

/// All records of a body, each with its offset in there; `None` at the end if what follows is not one.
pub(super) fn records(body: &[u8], count: u32) -> impl Iterator<Item = Option<(usize, Record<'_>)>> {
    let mut at = 0;
    let mut left = count;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let found = body.get(at..).and_then(record).filter(|record| record.whole);
        let Some(record) = found else {
            left = 0;
            return Some(None);
        };
        let start = at;
        at += record.length;
        Some(Some((start, record)))
    })
}

/// Whether a frame of this salt may begin here. Cheap, to look at every place where one could.
pub(super) fn may_begin(bytes: &[u8], salt: u64) -> bool {
    self::salt(bytes) == Some(salt)
}

/// A number of eight bytes, which must be there.
pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::Records => 1,
            Kind::Manifest => 2,
            Kind::Freed => 3,
        }
    }

    fn of_number(number: u32) -> Option<Kind> {
        [Kind::Records, Kind::Manifest, Kind::Freed].into_iter().find(|kind| kind.number() == number)
    }
}

pub(super) const HEAD_BYTES: usize = 56;
pub(super) const RECORD_HEAD_BYTES: usize = 16;
/// Frames begin at multiples of it.
pub(super) const ALIGN: usize = 8;
const MAGIC: &[u8; 4] = b"DLFR";
const REMOVES: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a replica keeps of a key with one value, in a batch of its own.
    #[test]
    fn a_frame_is_as_the_page_of_the_disk_shows_it() {
        use driftless_proto::{ActorId, BucketId, Dot, Hlc, Key, Siblings, Version, VersionVector, WriteId};
        use driftless_ring::Token;

        use crate::replica::record::{self, RecordKey};

        let page = include_str!("../../../../docs/disk-format.md");
        let code = [
            ("HEAD_BYTES", HEAD_BYTES as u64),
            ("RECORD_HEAD_BYTES", RECORD_HEAD_BYTES as u64),
            ("ALIGN", ALIGN as u64),
        ];
        driftless_testkit::pages::assert_constants(page, "node/src/store/log/frame.rs", &code);
        let key = Key::new("bat").expect("a key");
        let mut siblings = Siblings::new();
        let version = Version {
            value: Some("one".into()),
            write_id: WriteId(300),
            written_at: Hlc::from_millis(1_700_000_000_000),
        };
        siblings.event(&VersionVector::new(), Dot::new(ActorId(10), 1), version);
        let record = RecordKey::new(3, Token::of(7, 0, b"bat"), BucketId::DEFAULT, &key);
        let value = record::encode(BucketId::DEFAULT, &key, &siblings.header(), &siblings);
        let mut frame = begin(0);
        push_record(&mut frame, record.as_bytes(), Some(&value));
        finish(&mut frame, Kind::Records, 1, 0x0807_0605_0403_0201, 41, 40);
        driftless_testkit::pages::assert_bytes(page, "frame", &frame);
        let mut frame = super::super::manifest::freed(2);
        finish(&mut frame, Kind::Freed, 0, 0x0807_0605_0403_0201, 42, 41);
        driftless_testkit::pages::assert_bytes(page, "freed", &frame);
    }

    fn framed() -> Vec<u8> {
        let mut frame = begin(100);
        push_record(&mut frame, b"key", Some(b"value"));
        push_record(&mut frame, b"gone", None);
        push_record(&mut frame, b"empty", Some(b""));
        finish(&mut frame, Kind::Records, 3, 77, 5, 4);
        frame
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = framed();
        let (head, body) = read(&frame, 77).expect("is whole");
        assert_eq!((head.kind, head.count, head.batch, head.synced), (Kind::Records, 3, 5, 4));
        let found: Vec<_> =
            records(body, 3).map(|record| record.map(|(_, record)| (record.key, record.value))).collect();
        let expected: [(&[u8], Option<&[u8]>); 3] = [(b"key", Some(b"value")), (b"gone", None), (b"empty", Some(b""))];
        assert_eq!(found, expected.map(Some));
        assert_eq!(frame.len() % ALIGN, 0);
        assert!(may_begin(&frame, 77) && !may_begin(&frame, 78));
    }

    #[test]
    fn no_changed_bit_goes_unnoticed_nor_another_use_of_the_segment() {
        let frame = framed();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, 77), None, "bit {bit}");
        }
        assert_eq!(read(&frame, 78), None);
        (0..frame.len()).for_each(|cut| assert_eq!(read(&frame[..cut], 77), None));
    }

    #[test]
    fn a_record_says_whether_it_is_whole() {
        let mut frame = framed();
        let start = HEAD_BYTES;
        assert!(record(&frame[start..]).is_some_and(|record| record.whole));
        frame[start + RECORD_HEAD_BYTES + 4] ^= 1;
        assert!(record(&frame[start..]).is_some_and(|record| !record.whole));
        frame[start + 11] = 0xff;
        assert_eq!(record(&frame[start..]), None, "longer than there is");
        assert_eq!(records(&frame[start..], 3).collect::<Vec<_>>(), [None]);
    }
}
