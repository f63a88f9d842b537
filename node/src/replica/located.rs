//! Where a key is.

use driftless_proto::{BucketDefinition, BucketId, Key, Refusal};
use driftless_ring::PartitionId;

use crate::shard::Shard;

use super::record::RecordKey;

/// A key with everything that follows from it.
pub(super) struct Located<'a> {
    pub(super) bucket: &'a BucketDefinition,
    pub(super) partition: PartitionId,
    pub(super) record: RecordKey,
    /// Whether this node owns the key. One that did in an older version may hold it all the same.
    pub(super) is_mine: bool,
}

impl Located<'_> {
    /// A key of this shard.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBucket`]; what [`Shard::assert_mine`] refuses.
    pub(super) fn new<'a>(shard: &'a Shard, bucket: BucketId, key: &Key) -> Result<Located<'a>, Refusal> {
        let bucket = shard.topology.bucket(bucket).ok_or(Refusal::NoSuchBucket)?;
        let place = shard.topology.place(bucket, key);
        shard.assert_mine(place.partition)?;
        let is_mine = shard.owns(place.partition);
        let record = RecordKey::new(place.partition.n, place.token, bucket.id, key);
        Ok(Located { bucket, partition: place.partition, record, is_mine })
    }
}
