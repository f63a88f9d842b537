//! How a key is laid out in the store.
//!
//! ```text
//! key of a record                              value of a record
//!  0      space, 1                              0      format, 1
//!  1      n, the replication factor             1      digest, big endian (16)
//!  2      token, big endian (8)                 17     length of the header, little endian (4)
//!  10     bucket id, big endian (4)             21     header: postcard of the vector and the live outlines
//!  14     key                                   …      values of the live writes, in order; lengths in the header
//!
//! key of an actor                              value of an actor
//!  0      space, 0                              0      format, 1
//!  1      'a'                                   1      actor, big endian (8)
//!  2      n                                     9      counter, big endian (8)
//!  3      arc, big endian (4)
//! ```
//! Records sort by (n, token, bucket, key): a partition is one contiguous range, whatever its buckets.

use std::borrow::Borrow;
use std::ops::Range;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, BucketId, Dot, Header, Key, Outline, Siblings, Version};
use driftless_ring::{PartitionId, Partitions, Token, TokenRange};

use super::store::StoreError;

/// A record's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKey(Bytes);

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

    /// The key of a record that is in the store.
    pub(super) fn from_stored(key: Vec<u8>) -> RecordKey {
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

    /// Bucket and key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if this is not what [`RecordKey::new`] made.
    pub fn name(&self) -> Result<(BucketId, Key), StoreError> {
        let Some((prefix, key)) = self.0.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(corrupt("a record's key is too short"));
        };
        let bucket = BucketId(u32::from_be_bytes(prefix[10..].try_into().expect("four bytes")));
        let key = Key::new(self.0.slice_ref(key)).map_err(|error| corrupt(&error.to_string()))?;
        Ok((bucket, key))
    }

    /// The smallest possible key after this one.
    pub fn successor(&self) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes.push(0);
        bytes
    }
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
    bytes.extend([0; 4]);
    let mut bytes = postcard::to_extend(header, bytes).expect("a header has no type that postcard cannot write");
    let header_len = (bytes.len() - HEADER_AT) as u32;
    bytes[HEADER_AT - 4..HEADER_AT].copy_from_slice(&header_len.to_le_bytes());
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

/// Token and digest of a stored record, without reading any further.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_digest(record: &[u8], value: &[u8]) -> Result<(Token, Digest), StoreError> {
    let (Some((prefix, _)), Some((front, _))) =
        (record.split_first_chunk::<PREFIX_BYTES>(), value.split_first_chunk::<HEADER_AT>())
    else {
        return Err(corrupt("a record is too short"));
    };
    check_format(front)?;
    let token = Token(u64::from_be_bytes(prefix[2..10].try_into().expect("eight bytes")));
    Ok((token, digest_in(front)))
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

/// Where an actor's counter is stored.
pub(super) fn actor_key(partition: PartitionId) -> Bytes {
    let mut bytes = vec![SPACE_META, b'a', partition.n];
    bytes.extend(partition.arc.0.to_be_bytes());
    bytes.into()
}

/// The stored form of an actor's counter.
pub(super) fn encode_actor(actor: ActorId, counter: u64) -> Bytes {
    let mut bytes = vec![FORMAT];
    bytes.extend(actor.0.to_be_bytes());
    bytes.extend(counter.to_be_bytes());
    bytes.into()
}

fn split(value: &[u8]) -> Result<(Digest, Header, usize), StoreError> {
    let Some((front, rest)) = value.split_first_chunk::<HEADER_AT>() else {
        return Err(corrupt("a record is too short"));
    };
    check_format(front)?;
    let digest = digest_in(front);
    let header_len = u32::from_le_bytes(front[17..].try_into().expect("four bytes")) as usize;
    let Some(header) = rest.get(..header_len) else {
        return Err(corrupt("a record ends inside its header"));
    };
    let header = postcard::from_bytes(header).map_err(|error| corrupt(&error.to_string()))?;
    Ok((digest, header, HEADER_AT + header_len))
}

fn check_format(front: &[u8; HEADER_AT]) -> Result<(), StoreError> {
    match front[0] {
        FORMAT => Ok(()),
        other => Err(corrupt(&format!("a record has format {other}, this release reads {FORMAT}"))),
    }
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

const FORMAT: u8 = 1;
const SPACE_META: u8 = 0;
const SPACE_RECORDS: u8 = 1;
const PREFIX_BYTES: usize = 14;
const HEADER_AT: usize = 21;

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
    fn every_flipped_bit_of_a_value_is_noticed() {
        let good = encoded(&siblings(&[Some(b"precious")]));
        for bit in 0..8 * 8 {
            let mut bad = good.to_vec();
            let at = bad.len() - 8 + bit / 8;
            bad[at] ^= 1 << (bit % 8);
            assert!(matches!(decode(bad.into()), Err(StoreError::Corrupt(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut newer = encoded(&siblings(&[Some(b"v")])).to_vec();
        newer[0] = 2;
        let Err(StoreError::Corrupt(reason)) = decode(newer.into()) else { panic!("must be refused") };
        assert!(reason.contains("format 2"), "{reason}");
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
        assert_eq!(record.name(), Ok((BucketId(9), key())));
        let value = encoded(&siblings(&[Some(b"v")]));
        let entry = decode_entry(record.as_bytes(), &value).expect("well formed");
        assert_eq!(decode_digest(record.as_bytes(), &value), Ok((entry.token, entry.digest)));
        assert_eq!(
            (entry.n, entry.token, entry.bucket, entry.key),
            (3, Token(0x0102_0304_0506_0708), BucketId(9), key())
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(record in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_entry(&record, &value);
            let _ = decode_digest(&record, &value);
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
