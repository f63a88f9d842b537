//! What anti-entropy sees of a shard is its replica.

use driftless_antientropy::{Held, Records};
use driftless_ring::{PartitionId, Token};

use crate::reconciler::{Holdings, KeyState};
use crate::replica::Replica;
use crate::replica::record::RecordError;
use crate::replica::store::Store;
use crate::shard::Shard;

impl<S: Store> Holdings for Replica<S> {
    fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions()
    }

    fn tree(&self, partition: PartitionId) -> Held<'_> {
        self.tree(partition)
    }

    fn is_damaged(&self, shard: &Shard, partition: PartitionId) -> bool {
        self.has_damage_in(shard, partition)
    }

    fn with_records<T>(&self, shard: &Shard, n: u8, show: impl FnOnce(&dyn Records) -> T) -> (T, Vec<RecordError>) {
        let stored = self.stored(shard, n);
        let answer = show(&stored);
        (answer, stored.into_failures())
    }

    fn states_at(&self, n: u8, token: Token) -> Result<Vec<KeyState>, RecordError> {
        self.states_at(n, token)
    }

    fn bytes_read(&self) -> usize {
        self.bytes_read()
    }
}
