//! Values: what is stored of a key, of a hint and of an actor, and what is noticed when it is not what was written.

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, BucketId, Dot, Header, Key, Outline, Siblings, Version};
use driftless_ring::Token;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::key::{HintKey, PREFIX_BYTES, RecordKey};
use super::{Malformed, RecordError};

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
/// [`Malformed`] if this is not what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<Siblings, Malformed> {
    let (_, header, values_at) = split(&value)?;
    let mut at = values_at;
    let mut live = Vec::with_capacity(header.live().len());
    for (dot, outline) in header.live() {
        live.push((*dot, version(&value, &mut at, *dot, outline)?));
    }
    if at != value.len() {
        return Err(malformed("bytes left over after the last value"));
    }
    Siblings::from_parts(header.vv().clone(), live).map_err(|error| malformed(&error.to_string()))
}

/// Only the header of a stored state.
///
/// # Errors
/// [`Malformed`].
pub fn decode_header(value: &[u8]) -> Result<Header, Malformed> {
    split(value).map(|(_, header, _)| header)
}

/// The digest in what [`encode`] has just made.
pub(in crate::replica) fn digest_of(encoded: &Bytes) -> Digest {
    digest_in(encoded.first_chunk().expect("it begins with the digest"))
}

/// Token and digest of a stored record, whose header is as it was written.
///
/// # Errors
/// [`Malformed`].
pub fn decode_digest(record: &[u8], value: &[u8]) -> Result<(Token, Digest), Malformed> {
    let Some((prefix, _)) = record.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("a record's key is too short"));
    };
    let token = Token(u64::from_be_bytes(prefix[2..10].try_into().expect("eight bytes")));
    check(value).map(|(digest, _)| (token, digest))
}

/// The digest that a state was stored with.
///
/// # Errors
/// [`Malformed`].
pub fn stored_digest(value: &[u8]) -> Result<Digest, Malformed> {
    split(value).map(|(digest, ..)| digest)
}

/// The header of a record, checked against the digest that it was stored with.
///
/// # Errors
/// [`RecordError::Damaged`].
pub fn read_header(record: &RecordKey, value: &[u8]) -> Result<Header, RecordError> {
    let checked = split(value).and_then(|(digest, header, _)| {
        let (bucket, key) = record.bucket_and_key().map_err(Malformed::from)?;
        if Digest::of(bucket, &key, &header) != digest {
            return Err(malformed("its header does not have the digest that it was stored with"));
        }
        Ok(header)
    });
    checked.map_err(|error| error.in_record(record.as_bytes()))
}

/// The state of a record, checked against the digest and the hashes that it was stored with.
///
/// # Errors
/// [`RecordError::Damaged`].
pub fn read_state(record: &RecordKey, value: Bytes) -> Result<Siblings, RecordError> {
    read_header(record, &value)?;
    decode(value).map_err(|error| error.in_record(record.as_bytes()))
}

/// The state in a copy held for another node, checked in the same way.
///
/// # Errors
/// [`RecordError::Damaged`].
pub fn read_copy(hint: &HintKey, value: Bytes) -> Result<Siblings, RecordError> {
    read_state(&hint.record(), value).map_err(|error| match error {
        RecordError::Damaged { reason, .. } => RecordError::Damaged { record: hint.to_bytes(), reason },
        other => other,
    })
}

/// The header of a record of which everything was checked, values included.
///
/// # Errors
/// [`RecordError::Damaged`].
pub fn audit(record: &RecordKey, value: Bytes) -> Result<Header, RecordError> {
    let header = read_header(record, &value)?;
    decode(value).map_err(|error| error.in_record(record.as_bytes()))?;
    Ok(header)
}

/// As much of a stored state as can be understood, whatever was checked before.
#[cfg(feature = "planted-bugs")]
pub(in crate::replica) fn decode_as_it_is(value: &[u8]) -> Option<Siblings> {
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
/// [`Malformed`].
pub fn decode_entry(record: &[u8], value: &[u8]) -> Result<Entry, Malformed> {
    let Some((prefix, key)) = record.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("a record's key is too short"));
    };
    let [_, n, t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3] = *prefix;
    let key = Key::new(Bytes::copy_from_slice(key)).map_err(|error| malformed(&error.to_string()))?;
    let (digest, header, _) = split(value)?;
    let token = Token(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
    Ok(Entry { n, token, bucket: BucketId(u32::from_be_bytes([b0, b1, b2, b3])), key, digest, header })
}

/// The stored form of a marker.
pub(in crate::replica) fn marker() -> Bytes {
    Bytes::from_static(&[FORMAT_MARKER])
}

/// Whether the value of a hint is a marker, not a copy.
pub fn is_marker(value: &[u8]) -> bool {
    value == [FORMAT_MARKER]
}

/// Whether the value of a hint is too short for a copy: it is, or was, a marker.
pub(in crate::replica) fn is_no_copy(value: &[u8]) -> bool {
    value.len() <= 1
}

/// The stored form of an actor's counter.
pub(in crate::replica) fn encode_actor(actor: ActorId, counter: u64) -> Bytes {
    let mut bytes = vec![FORMAT_ACTOR];
    bytes.extend(actor.0.to_be_bytes());
    bytes.extend(counter.to_be_bytes());
    bytes.into()
}

fn split(value: &[u8]) -> Result<(Digest, Header, usize), Malformed> {
    let (digest, bytes) = check(value)?;
    let header = postcard::from_bytes(bytes).map_err(|error| malformed(&error.to_string()))?;
    Ok((digest, header, HEADER_AT + bytes.len()))
}

/// The digest of a stored state and the bytes of its header, if both are as they were written.
fn check(value: &[u8]) -> Result<(Digest, &[u8]), Malformed> {
    let Some((front, rest)) = value.split_first_chunk::<HEADER_AT>() else {
        return Err(malformed("a record is too short"));
    };
    if front[0] != FORMAT {
        return Err(malformed(&format!("a record has format {}, this release reads {FORMAT}", front[0])));
    }
    let header_len = u32::from_le_bytes(front[LENGTH_AT..CHECKSUM_AT].try_into().expect("four bytes")) as usize;
    let Some(header) = rest.get(..header_len) else {
        return Err(malformed("a record ends inside its header"));
    };
    if front[CHECKSUM_AT..] != checksum(&front[..CHECKSUM_AT], header).to_be_bytes() {
        return Err(malformed("a header does not have the checksum that it was stored with"));
    }
    Ok((digest_in(front), header))
}

fn checksum(front: &[u8], header: &[u8]) -> u64 {
    xxh3_64_with_seed(header, xxh3_64(front))
}

fn digest_in(front: &[u8; HEADER_AT]) -> Digest {
    Digest(u128::from_be_bytes(front[1..17].try_into().expect("sixteen bytes")))
}

fn version(value: &Bytes, at: &mut usize, dot: Dot, outline: &Outline) -> Result<Version, Malformed> {
    let bytes = match outline.len {
        None => None,
        Some(len) => {
            let end = *at + len as usize;
            if end > value.len() {
                return Err(malformed(&format!("a record ends inside the value of {dot}")));
            }
            let bytes = value.slice(*at..end);
            *at = end;
            Some(bytes)
        }
    };
    let version = Version { value: bytes, write_id: outline.write_id, written_at: outline.written_at };
    if version.outline().value_hash != outline.value_hash {
        return Err(malformed(&format!("the value of {dot} does not have the hash it was stored with")));
    }
    Ok(version)
}

fn malformed(what: &str) -> Malformed {
    Malformed(what.to_owned())
}

const FORMAT: u8 = 2;
const FORMAT_ACTOR: u8 = 1;
/// Apart from any format of a record.
const FORMAT_MARKER: u8 = 129;
/// Where the parts of a record's value begin.
const LENGTH_AT: usize = 17;
const CHECKSUM_AT: usize = 21;
pub(super) const HEADER_AT: usize = 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_disk_says_where_the_parts_of_a_value_are() {
        let code = [
            ("FORMAT", FORMAT.into()),
            ("FORMAT_ACTOR", FORMAT_ACTOR.into()),
            ("FORMAT_MARKER", FORMAT_MARKER.into()),
            ("LENGTH_AT", LENGTH_AT as u64),
            ("CHECKSUM_AT", CHECKSUM_AT as u64),
            ("HEADER_AT", HEADER_AT as u64),
        ];
        driftless_testkit::pages::assert_constants(
            include_str!("../../../../docs/disk-format.md"),
            "node/src/replica/record/value.rs",
            &code,
        );
    }
}
