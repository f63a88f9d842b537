//! How a key is laid out in the store.
//!
//! ```text
//! key of a record                              value of a record
//!  0      space, 1                              0      format, 2
//!  1      n, the replication factor             1      digest, big endian (16)
//!  2      token, big endian (8)                 17     length of the header, little endian (4)
//!  10     bucket id, big endian (4)             21     checksum of digest, length and header, big endian (8)
//!  14     key                                   29     header: postcard of the vector and the live outlines
//!                                               …      values of the live writes, in order; lengths in the header
//!
//! key of a hint                                value of a hint
//!  0      space, 2                              a copy: as the value of a record
//!  1      target, big endian (8)                a marker: the one byte 129
//!  9      the record's key without its space
//!
//! key of an actor                              value of an actor
//!  0      space, 0                              0      format, 1
//!  1      'a'                                   1      actor, big endian (8)
//!  2      n                                     9      counter, big endian (8)
//!  3      arc, big endian (4)
//! ```
//! Every byte of a record is covered: the front and the header by the checksum, a value by the hash of it in the header. The
//! digest alone would not do, since it leaves out what replicas need not agree on at once: times and write ids.
//!
//! Records sort by (n, token, bucket, key): a partition is one contiguous range, whatever its buckets; hints by target,
//! then like records. A *copy* is the state of a key held for its target by a node that does not own the key. A *marker*
//! says that the target misses something of a key that the node owns itself: the record is the copy, it never goes away
//! while the node owns it, and what is delivered is its state then, which includes what was owed.

use std::borrow::Borrow;
use std::ops::Range;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, BucketId, Dot, Header, Key, Outline, Siblings, Version};
use driftless_ring::{NodeId, PartitionId, Partitions, Token, TokenRange};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::store::StoreError;

/// A record's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKey(Bytes);

/// A hint's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HintKey(Bytes);

/// What a scan sees of one record.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Replication factor of its bucket.
    pub n: u8,
    /// Position on the ring.
    pub token: Token,
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// Digest stored with it.
    pub digest: Digest,
    /// What is known of the key, without values.
    pub header: Header,
}

impl RecordKey {
    /// The record of a key.
    pub fn new(n: u8, token: Token, bucket: BucketId, key: &Key) -> RecordKey {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + key.as_bytes().len());
        bytes.extend([SPACE_RECORDS, n]);
        bytes.extend(token.0.to_be_bytes());
        bytes.extend(bucket.0.to_be_bytes());
        bytes.extend(key.as_bytes());
        RecordKey(bytes.into())
    }

    /// Where the records of a bucket at a token begin.
    pub fn first_of(n: u8, token: Token, bucket: BucketId) -> Vec<u8> {
        [&[SPACE_RECORDS, n][..], &token.0.to_be_bytes(), &bucket.0.to_be_bytes()].concat()
    }

    /// The key of a record that is in the store.
    pub fn from_stored(key: impl Into<Bytes>) -> RecordKey {
        RecordKey(key.into())
    }

    /// As stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As stored, sharing the allocation.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Replication factor and token: which partition the record belongs to.
    pub fn position(&self) -> (u8, Token) {
        let token = self.0[2..10].try_into().expect("eight bytes");
        (self.0[1], Token(u64::from_be_bytes(token)))
    }

    /// The smallest possible key after this one.
    pub fn successor(&self) -> Vec<u8> {
        successor(&self.0)
    }

    /// Bucket and key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if no key that was written by a replica looks like this.
    pub fn bucket_and_key(&self) -> Result<(BucketId, Key), StoreError> {
        let Some((prefix, _)) = self.0.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(corrupt("a record's key is too short"));
        };
        let bucket = prefix[10..].try_into().expect("four bytes");
        let key = Key::new(self.0.slice(PREFIX_BYTES..)).map_err(|error| corrupt(&error.to_string()))?;
        Ok((BucketId(u32::from_be_bytes(bucket)), key))
    }
}

impl HintKey {
    /// What is owed to `target` of a record.
    pub fn new(target: NodeId, record: &RecordKey) -> HintKey {
        let record = &record.0[1..];
        let mut bytes = Vec::with_capacity(TARGET_BYTES + record.len());
        bytes.push(SPACE_HINTS);
        bytes.extend(target.0.to_be_bytes());
        bytes.extend(record);
        HintKey(bytes.into())
    }

    /// A key found in the store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is not the key of a hint.
    pub fn from_stored(key: &[u8]) -> Result<HintKey, StoreError> {
        if key.len() < TARGET_BYTES + PREFIX_BYTES || key[0] != SPACE_HINTS {
            return Err(corrupt("a hint's key is too short"));
        }
        Ok(HintKey(Bytes::copy_from_slice(key)))
    }

    /// The node that is to have it.
    pub fn target(&self) -> NodeId {
        NodeId(u64::from_be_bytes(self.0[1..TARGET_BYTES].try_into().expect("eight bytes")))
    }

    /// The record that it is about.
    pub fn record(&self) -> RecordKey {
        RecordKey([&[SPACE_RECORDS], &self.0[TARGET_BYTES..]].concat().into())
    }

    /// As stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As stored, sharing the allocation.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The smallest possible key after this one.
    pub fn successor(&self) -> Vec<u8> {
        successor(&self.0)
    }

    /// The smallest possible key after all hints for the same target in the same arc.
    pub fn end_of_arc(&self, partitions: Partitions) -> Vec<u8> {
        let (n, token) = self.record().position();
        let end = arc_range(PartitionId { n, arc: partitions.arc_of(token) }, partitions).end;
        match end[..] {
            [SPACE_RECORDS, ref rest @ ..] => [&self.0[..TARGET_BYTES], rest].concat(),
            _ => hints_of(self.target()).end,
        }
    }
}

/// The range of all hints for a target.
pub fn hints_of(target: NodeId) -> Range<Vec<u8>> {
    let bound = |target: u64| [&[SPACE_HINTS][..], &target.to_be_bytes()].concat();
    bound(target.0)..target.0.checked_add(1).map_or_else(|| vec![SPACE_HINTS + 1], bound)
}

/// The range of all hints.
pub fn all_hints() -> Range<Vec<u8>> {
    vec![SPACE_HINTS]..vec![SPACE_HINTS + 1]
}

/// Whether a key found in the store is that of a hint.
pub fn is_hint(key: &[u8]) -> bool {
    key.first() == Some(&SPACE_HINTS)
}

/// Whether a key found in the store is that of a hint about this record.
pub fn is_hint_of(key: &[u8], record: &RecordKey) -> bool {
    is_hint(key) && key.get(TARGET_BYTES..) == Some(&record.0[1..])
}

/// The stored form of a marker.
pub(super) fn marker() -> Bytes {
    Bytes::from_static(&[FORMAT_MARKER])
}

/// Whether the value of a hint is a marker, not a copy.
pub fn is_marker(value: &[u8]) -> bool {
    value == [FORMAT_MARKER]
}

/// Whether the value of a hint is too short for a copy: it is, or was, a marker.
pub(super) fn is_no_copy(value: &[u8]) -> bool {
    value.len() <= 1
}

impl Borrow<[u8]> for RecordKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The range of all records of a partition.
pub fn arc_range(partition: PartitionId, partitions: Partitions) -> Range<Vec<u8>> {
    token_range(partition.n, partitions.range(partition.arc))
}

/// The range of all records of one replication factor at some tokens.
pub fn token_range(n: u8, tokens: TokenRange) -> Range<Vec<u8>> {
    let bound = |token: u64| [&[SPACE_RECORDS, n][..], &token.to_be_bytes()].concat();
    let end = match tokens.last.0.checked_add(1) {
        Some(next) => bound(next),
        None => match n.checked_add(1) {
            Some(n) => vec![SPACE_RECORDS, n],
            None => vec![SPACE_RECORDS + 1],
        },
    };
    bound(tokens.first.0)..end
}

/// The stored form of a key's state.
pub fn encode(bucket: BucketId, key: &Key, header: &Header, siblings: &Siblings) -> Bytes {
    let mut bytes = Vec::with_capacity(128 + siblings.value_bytes());
    bytes.push(FORMAT);
    bytes.extend(Digest::of(bucket, key, header).0.to_be_bytes());
    bytes.extend([0; HEADER_AT - LENGTH_AT]);
    let mut bytes = postcard::to_extend(header, bytes).expect("a header has no type that postcard cannot write");
    let header_len = (bytes.len() - HEADER_AT) as u32;
    bytes[LENGTH_AT..CHECKSUM_AT].copy_from_slice(&header_len.to_le_bytes());
    let checksum = checksum(&bytes[..CHECKSUM_AT], &bytes[HEADER_AT..]);
    bytes[CHECKSUM_AT..HEADER_AT].copy_from_slice(&checksum.to_be_bytes());
    for version in siblings.values() {
        bytes.extend_from_slice(version.value.as_deref().unwrap_or_default());
    }
    bytes.into()
}

/// A key's state from its stored form; values share its allocation.
///
/// # Errors
/// [`StoreError::Corrupt`] if this is not what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<Siblings, StoreError> {
    let (_, header, values_at) = split(&value)?;
    let mut at = values_at;
    let mut live = Vec::with_capacity(header.live().len());
    for (dot, outline) in header.live() {
        live.push((*dot, version(&value, &mut at, *dot, outline)?));
    }
    if at != value.len() {
        return Err(corrupt("bytes left over after the last value"));
    }
    Siblings::from_parts(header.vv().clone(), live).map_err(|error| corrupt(&error.to_string()))
}

/// Only the header of a stored state.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_header(value: &[u8]) -> Result<Header, StoreError> {
    split(value).map(|(_, header, _)| header)
}

/// The digest in what [`encode`] has just made.
pub(super) fn digest_of(encoded: &Bytes) -> Digest {
    digest_in(encoded.first_chunk().expect("it begins with the digest"))
}

/// Token and digest of a stored record, whose header is as it was written.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_digest(record: &[u8], value: &[u8]) -> Result<(Token, Digest), StoreError> {
    let Some((prefix, _)) = record.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(corrupt("a record's key is too short"));
    };
    let token = Token(u64::from_be_bytes(prefix[2..10].try_into().expect("eight bytes")));
    check(value).map(|(digest, _)| (token, digest))
}

/// The digest that a state was stored with.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn stored_digest(value: &[u8]) -> Result<Digest, StoreError> {
    split(value).map(|(digest, ..)| digest)
}

/// The header of a record, checked against the digest that it was stored with.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn read_header(record: &RecordKey, value: &[u8]) -> Result<Header, StoreError> {
    let checked = split(value).and_then(|(digest, header, _)| {
        let (bucket, key) = record.bucket_and_key()?;
        if Digest::of(bucket, &key, &header) != digest {
            return Err(corrupt("its header does not have the digest that it was stored with"));
        }
        Ok(header)
    });
    checked.map_err(|error| error.in_record(record.as_bytes()))
}

/// The state of a record, checked against the digest and the hashes that it was stored with.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn read_state(record: &RecordKey, value: Bytes) -> Result<Siblings, StoreError> {
    read_header(record, &value)?;
    decode(value).map_err(|error| error.in_record(record.as_bytes()))
}

/// The state in a copy held for another node, checked in the same way.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn read_copy(hint: &HintKey, value: Bytes) -> Result<Siblings, StoreError> {
    read_state(&hint.record(), value).map_err(|error| match error {
        StoreError::Damaged { reason, .. } => StoreError::Damaged { record: hint.to_bytes(), reason },
        other => other,
    })
}

/// The header of a record of which everything was checked, values included.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn audit(record: &RecordKey, value: Bytes) -> Result<Header, StoreError> {
    let header = read_header(record, &value)?;
    decode(value).map_err(|error| error.in_record(record.as_bytes()))?;
    Ok(header)
}

/// As much of a stored state as can be understood, whatever was checked before.
#[cfg(feature = "planted-bugs")]
pub(super) fn decode_as_it_is(value: &[u8]) -> Option<Siblings> {
    let header_len = u32::from_le_bytes(value.get(LENGTH_AT..CHECKSUM_AT)?.try_into().ok()?) as usize;
    let (header, mut values) = value.get(HEADER_AT..)?.split_at_checked(header_len)?;
    let header: Header = postcard::from_bytes(header).ok()?;
    let mut live = Vec::new();
    for (dot, Outline { len, write_id, written_at, .. }) in header.live().iter().cloned() {
        let value = match len {
            None => None,
            Some(len) => {
                let (value, rest) = values.split_at_checked(len as usize)?;
                values = rest;
                Some(Bytes::copy_from_slice(value))
            }
        };
        live.push((dot, Version { value, write_id, written_at }));
    }
    Siblings::from_parts(header.vv().clone(), live).ok()
}

/// Key and header of a stored record.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_entry(record: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let Some((prefix, key)) = record.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(corrupt("a record's key is too short"));
    };
    let [_, n, t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3] = *prefix;
    let key = Key::new(Bytes::copy_from_slice(key)).map_err(|error| corrupt(&error.to_string()))?;
    let (digest, header, _) = split(value)?;
    let token = Token(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
    Ok(Entry { n, token, bucket: BucketId(u32::from_be_bytes([b0, b1, b2, b3])), key, digest, header })
}

/// Position and bucket of a record, from its key alone.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn token_and_bucket(record: &[u8]) -> Result<(Token, BucketId), StoreError> {
    let Some(([_, _, t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3], _)) = record.split_first_chunk::<PREFIX_BYTES>()
    else {
        return Err(corrupt("a record's key is too short"));
    };
    let token = u64::from_be_bytes([*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7]);
    Ok((Token(token), BucketId(u32::from_be_bytes([*b0, *b1, *b2, *b3]))))
}

/// Where an actor's counter is stored.
pub(super) fn actor_key(partition: PartitionId) -> Bytes {
    let mut bytes = vec![SPACE_META, b'a', partition.n];
    bytes.extend(partition.arc.0.to_be_bytes());
    bytes.into()
}

/// The stored form of an actor's counter.
pub(super) fn encode_actor(actor: ActorId, counter: u64) -> Bytes {
    let mut bytes = vec![FORMAT_ACTOR];
    bytes.extend(actor.0.to_be_bytes());
    bytes.extend(counter.to_be_bytes());
    bytes.into()
}

fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn split(value: &[u8]) -> Result<(Digest, Header, usize), StoreError> {
    let (digest, bytes) = check(value)?;
    let header = postcard::from_bytes(bytes).map_err(|error| corrupt(&error.to_string()))?;
    Ok((digest, header, HEADER_AT + bytes.len()))
}

/// The digest of a stored state and the bytes of its header, if both are as they were written.
fn check(value: &[u8]) -> Result<(Digest, &[u8]), StoreError> {
    let Some((front, rest)) = value.split_first_chunk::<HEADER_AT>() else {
        return Err(corrupt("a record is too short"));
    };
    if front[0] != FORMAT {
        return Err(corrupt(&format!("a record has format {}, this release reads {FORMAT}", front[0])));
    }
    let header_len = u32::from_le_bytes(front[LENGTH_AT..CHECKSUM_AT].try_into().expect("four bytes")) as usize;
    let Some(header) = rest.get(..header_len) else {
        return Err(corrupt("a record ends inside its header"));
    };
    if front[CHECKSUM_AT..] != checksum(&front[..CHECKSUM_AT], header).to_be_bytes() {
        return Err(corrupt("a header does not have the checksum that it was stored with"));
    }
    Ok((digest_in(front), header))
}

fn checksum(front: &[u8], header: &[u8]) -> u64 {
    xxh3_64_with_seed(header, xxh3_64(front))
}

fn digest_in(front: &[u8; HEADER_AT]) -> Digest {
    Digest(u128::from_be_bytes(front[1..17].try_into().expect("sixteen bytes")))
}

fn version(value: &Bytes, at: &mut usize, dot: Dot, outline: &Outline) -> Result<Version, StoreError> {
    let bytes = match outline.len {
        None => None,
        Some(len) => {
            let end = *at + len as usize;
            if end > value.len() {
                return Err(corrupt(&format!("a record ends inside the value of {dot}")));
            }
            let bytes = value.slice(*at..end);
            *at = end;
            Some(bytes)
        }
    };
    let version = Version { value: bytes, write_id: outline.write_id, written_at: outline.written_at };
    if version.outline().value_hash != outline.value_hash {
        return Err(corrupt(&format!("the value of {dot} does not have the hash it was stored with")));
    }
    Ok(version)
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

const FORMAT: u8 = 2;
const FORMAT_ACTOR: u8 = 1;
/// Apart from any format of a record.
const FORMAT_MARKER: u8 = 129;
const SPACE_META: u8 = 0;
const SPACE_RECORDS: u8 = 1;
const SPACE_HINTS: u8 = 2;
/// Of a record's key, before the key itself.
const PREFIX_BYTES: usize = 14;
/// Of a hint's key: its space and target.
const TARGET_BYTES: usize = 9;
/// Where the parts of a record's value begin.
const LENGTH_AT: usize = 17;
const CHECKSUM_AT: usize = 21;
const HEADER_AT: usize = 29;

#[cfg(test)]
mod tests {
    use driftless_proto::{Hlc, VersionVector, WriteId};
    use driftless_ring::ArcIndex;
    use proptest::prelude::*;

    use super::*;

    fn siblings(values: &[Option<&'static [u8]>]) -> Siblings {
        let mut siblings = Siblings::new();
        for (i, value) in values.iter().enumerate() {
            let version =
                Version { value: value.map(Bytes::from_static), write_id: WriteId(i as u128), written_at: Hlc(9) };
            siblings.event(&VersionVector::new(), Dot::new(ActorId(i as u64), 3), version);
        }
        siblings
    }

    fn key() -> Key {
        Key::new("bat").expect("valid")
    }

    fn encoded(siblings: &Siblings) -> Bytes {
        encode(BucketId(7), &key(), &siblings.header(), siblings)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for values in [vec![], vec![None], vec![Some(&b""[..])], vec![Some(&b"one"[..]), None, Some(&b"two"[..])]] {
            let siblings = siblings(&values);
            assert_eq!(decode(encoded(&siblings)), Ok(siblings.clone()));
            assert_eq!(decode_header(&encoded(&siblings)), Ok(siblings.header()));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let good = encoded(&siblings(&[Some(b"precious"), None]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for bit in 0..8 * good.len() {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_state(&record, bad.into()), Err(StoreError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_values_is_noticed_without_reading_them() {
        let value = b"precious";
        let good = encoded(&siblings(&[Some(value)]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for bit in 0..8 * (good.len() - value.len()) {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            assert!(decode_digest(record.as_bytes(), &bad).is_err(), "bit {bit}");
            assert!(decode_entry(record.as_bytes(), &bad).is_err(), "bit {bit}");
            assert!(decode_header(&bad).is_err() && stored_digest(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_short_or_with_zeros_in_it_is_noticed() {
        let good = encoded(&siblings(&[Some(b"precious"), Some(b"too")]));
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        for at in 0..good.len() {
            assert!(read_state(&record, good.slice(..at)).is_err(), "cut at {at}");
            let mut bad = good.to_vec();
            let end = bad.len().min(at + 16);
            bad[at..end].fill(0);
            assert!(bad == good || read_state(&record, bad.into()).is_err(), "zeros at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut newer = encoded(&siblings(&[Some(b"v")])).to_vec();
        newer[0] = 3;
        let Err(StoreError::Corrupt(reason)) = decode(newer.into()) else { panic!("must be refused") };
        assert!(reason.contains("format 3"), "{reason}");
    }

    #[test]
    fn a_partition_is_one_contiguous_range() {
        let partitions = Partitions::new(4).expect("a power of two");
        for arc in 0..4 {
            let range = arc_range(PartitionId { n: 3, arc: ArcIndex(arc) }, partitions);
            for token in [0, 1, u64::MAX / 4, u64::MAX / 4 + 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                let record = RecordKey::new(3, Token(token), BucketId(u32::MAX), &key());
                let inside = range.start.as_slice() <= record.as_bytes() && record.as_bytes() < range.end.as_slice();
                assert_eq!(inside, partitions.arc_of(Token(token)) == ArcIndex(arc), "token {token} arc {arc}");
                let other_class = RecordKey::new(4, Token(token), BucketId(0), &key());
                assert!(range.end.as_slice() <= other_class.as_bytes());
            }
        }
    }

    #[test]
    fn a_record_key_reads_back() {
        let record = RecordKey::new(3, Token(0x0102_0304_0506_0708), BucketId(9), &key());
        assert_eq!(record.position(), (3, Token(0x0102_0304_0506_0708)));
        assert_eq!(record.bucket_and_key(), Ok((BucketId(9), key())));
        let value = encoded(&siblings(&[Some(b"v")]));
        let entry = decode_entry(record.as_bytes(), &value).expect("well formed");
        assert_eq!(decode_digest(record.as_bytes(), &value), Ok((entry.token, entry.digest)));
        assert_eq!(
            (entry.n, entry.token, entry.bucket, entry.key),
            (3, Token(0x0102_0304_0506_0708), BucketId(9), key())
        );
    }

    #[test]
    fn a_hint_is_about_a_record_and_sorts_by_target_then_like_records() {
        let record = RecordKey::new(3, Token(9), BucketId(7), &key());
        let hint = HintKey::new(NodeId(5), &record);
        assert_eq!((hint.target(), hint.record()), (NodeId(5), record.clone()));
        assert_eq!(record.bucket_and_key(), Ok((BucketId(7), key())));
        assert_eq!(HintKey::from_stored(hint.as_bytes()), Ok(hint.clone()));
        let other = RecordKey::new(3, Token(10), BucketId(7), &key());
        assert!(is_hint(hint.as_bytes()) && !is_hint(record.as_bytes()));
        assert!(is_hint_of(hint.as_bytes(), &record) && !is_hint_of(record.as_bytes(), &record));
        assert!(!is_hint_of(hint.as_bytes(), &other) && !is_hint_of(&[SPACE_HINTS], &record));
        for (target, inside) in [(4, false), (5, true), (6, false)] {
            assert_eq!(hints_of(NodeId(target)).contains(&hint.to_bytes().to_vec()), inside);
        }
        let last = HintKey::new(NodeId(u64::MAX), &RecordKey::new(255, Token(u64::MAX), BucketId(u32::MAX), &key()));
        assert!(hints_of(NodeId(u64::MAX)).contains(&last.to_bytes().to_vec()));
        assert!(all_hints().contains(&last.to_bytes().to_vec()) && !all_hints().contains(&record.to_bytes().to_vec()));
        assert!(is_marker(&marker()) && !is_marker(&encoded(&siblings(&[None]))));
    }

    #[test]
    fn the_end_of_an_arc_is_after_its_hints_and_before_those_of_the_next() {
        let partitions = Partitions::new(4).expect("a power of two");
        let hint = |n, token| HintKey::new(NodeId(5), &RecordKey::new(n, Token(token), BucketId(0), &key()));
        let quarter = u64::MAX / 4 + 1;
        let end = hint(3, 1).end_of_arc(partitions);
        assert!(hint(3, quarter - 1).as_bytes() < end.as_slice() && end.as_slice() < hint(3, quarter).as_bytes());
        let end = hint(3, u64::MAX).end_of_arc(partitions);
        assert!(hint(3, u64::MAX).as_bytes() < end.as_slice() && end.as_slice() < hint(4, 0).as_bytes());
        assert_eq!(hint(255, u64::MAX).end_of_arc(partitions), hints_of(NodeId(5)).end);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(record in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_entry(&record, &value);
            let _ = decode_digest(&record, &value);
            let _ = HintKey::from_stored(&record).map(|hint| hint.record().bucket_and_key());
            let _ = decode(value.into());
        }

        #[test]
        fn damaged_records_never_panic(at in 0..200_usize, byte in any::<u8>()) {
            let mut bytes = encoded(&siblings(&[Some(b"one"), None, Some(b"two")])).to_vec();
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = decode(bytes.into());
        }
    }
}
