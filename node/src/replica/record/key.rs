//! Keys: where in the store the records, hints and actors of a shard are, and in which order.

use std::borrow::Borrow;
use std::ops::Range;

use bytes::Bytes;
use driftless_proto::{BucketId, Key};
use driftless_ring::{NodeId, PartitionId, Partitions, Token, TokenRange};

use crate::replica::store::StoreError;
use crate::shard::Shard;

use super::Malformed;

/// A record's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordKey(Bytes);

/// A hint's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HintKey(Bytes);

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

    /// The partition that the record belongs to.
    pub(crate) fn partition(&self, shard: &Shard) -> PartitionId {
        let (n, token) = self.position();
        shard.ring().partition(n, token)
    }

    /// The nodes that store the record.
    pub(crate) fn owners<'a>(&self, shard: &'a Shard) -> &'a [NodeId] {
        shard.ring().owners(self.partition(shard))
    }

    /// Whether this node is one of them.
    pub(crate) fn is_owned(&self, shard: &Shard) -> bool {
        shard.owns(self.partition(shard))
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
    /// The hint of a record for `target`.
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

/// Where all records are.
pub fn all_records() -> Range<Vec<u8>> {
    vec![SPACE_RECORDS]..vec![SPACE_RECORDS + 1]
}

/// Whether a key found in the store is that of a hint.
pub fn is_hint(key: &[u8]) -> bool {
    key.first() == Some(&SPACE_HINTS)
}

/// Whether a key found in the store is that of a hint about this record.
pub fn is_hint_of(key: &[u8], record: &RecordKey) -> bool {
    is_hint(key) && key.get(TARGET_BYTES..) == Some(&record.0[1..])
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

/// Position and bucket of a record, from its key alone.
///
/// # Errors
/// [`Malformed`].
pub fn token_and_bucket(record: &[u8]) -> Result<(Token, BucketId), Malformed> {
    let Some(([_, _, t0, t1, t2, t3, t4, t5, t6, t7, b0, b1, b2, b3], _)) = record.split_first_chunk::<PREFIX_BYTES>()
    else {
        return Err(Malformed("a record's key is too short".to_owned()));
    };
    let token = u64::from_be_bytes([*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7]);
    Ok((Token(token), BucketId(u32::from_be_bytes([*b0, *b1, *b2, *b3]))))
}

/// Where an actor's counter is stored.
pub(in crate::replica) fn actor_key(partition: PartitionId) -> Bytes {
    let mut bytes = vec![SPACE_META, b'a', partition.n];
    bytes.extend(partition.arc.0.to_be_bytes());
    bytes.into()
}

fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

pub(super) const SPACE_META: u8 = 0;
pub(super) const SPACE_RECORDS: u8 = 1;
/// How the keys of all records begin; replication factor and token follow.
pub const RECORDS_PREFIX: &[u8] = &[SPACE_RECORDS];
pub(super) const SPACE_HINTS: u8 = 2;
/// Of a record's key, before the key itself.
pub(super) const PREFIX_BYTES: usize = 14;
/// Of a hint's key: its space and target.
const TARGET_BYTES: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_disk_says_how_keys_begin() {
        let code = [
            ("SPACE_META", SPACE_META.into()),
            ("SPACE_RECORDS", SPACE_RECORDS.into()),
            ("SPACE_HINTS", SPACE_HINTS.into()),
            ("PREFIX_BYTES", PREFIX_BYTES as u64),
            ("TARGET_BYTES", TARGET_BYTES as u64),
        ];
        driftless_testkit::pages::assert_constants(
            include_str!("../../../../docs/disk-format.md"),
            "node/src/replica/record/key.rs",
            &code,
        );
    }
}
