//! What anti-entropy may see of what a shard holds: all of it as applied, nothing of the turn.

use driftless_antientropy::{Held, Records};
use driftless_proto::{BucketId, Key, Siblings};
use driftless_ring::{NodeId, PartitionId, Token};

use crate::replica::record::RecordError;
use crate::shard::Shard;
use crate::time::Now;

/// A key with everything that is known of it.
pub(crate) type KeyState = (BucketId, Key, Siblings);

/// What a shard holds.
pub(crate) trait Holdings {
    /// All partitions of the shard.
    fn partitions(&self) -> impl Iterator<Item = PartitionId>;

    /// What is held of a partition of the shard.
    fn tree(&self, partition: PartitionId) -> Held<'_>;

    /// Whether some record of a partition cannot be read: what is compared without it proves nothing.
    fn is_damaged(&self, shard: &Shard, partition: PartitionId) -> bool;

    /// Shows the records of a replication factor, of which a step's worth is enough. With the answer comes what could not be
    /// read.
    fn with_records<T>(&self, shard: &Shard, n: u8, show: impl FnOnce(&dyn Records) -> T) -> (T, Vec<RecordError>);

    /// The keys at a token.
    ///
    /// # Errors
    /// [`RecordError`].
    fn states_at(&self, n: u8, token: Token) -> Result<Vec<KeyState>, RecordError>;

    /// Bytes read since the turn began.
    fn bytes_read(&self) -> usize;
}

/// What the reconciler has to go by.
pub(crate) struct View<'a, H> {
    /// The shard.
    pub(crate) shard: &'a Shard,
    /// The time.
    pub(crate) now: Now,
    /// What it holds.
    pub(crate) holdings: &'a H,
    /// Whether clients suffer.
    pub(crate) pressed: bool,
    /// Peers that are being given what this node holds for them: most of what they lack is on its way already.
    pub(crate) recipients: Vec<NodeId>,
}
