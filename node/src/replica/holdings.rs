//! What anti-entropy may see of a replica: trees and records as applied, and whole states to send.

use std::ops::ControlFlow;

use driftless_antientropy::Held;
use driftless_proto::{BucketId, Key, Siblings};
use driftless_ring::{PartitionId, Token, TokenRange};

use crate::shard::Shard;

use super::Replica;
use super::metered::Metered;
use super::record::{self, RecordError, RecordKey};
use super::store::Store;
use super::stored::Stored;

impl<S: Store> Replica<S> {
    /// What is held of a partition of this shard.
    pub(crate) fn tree(&self, partition: PartitionId) -> Held<'_> {
        self.trees.held(partition)
    }

    /// All partitions of this shard.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.trees.partitions()
    }

    /// The records of a replication factor, of which a step's worth is enough.
    pub(crate) fn stored(&self, shard: &Shard, n: u8) -> Stored<'_, Metered<S>> {
        Stored::new(&self.store, n, shard.limits.turn.step_bytes)
    }

    /// The keys at a token, each with everything that is known of it and has been applied.
    pub(crate) fn states_at(&self, n: u8, token: Token) -> Result<Vec<(BucketId, Key, Siblings)>, RecordError> {
        let range = record::token_range(n, TokenRange { first: token, last: token });
        let mut found = Vec::new();
        self.store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
            found.push((key.to_vec(), value));
            ControlFlow::Continue(())
        })?;
        let state = |(key, value): (Vec<u8>, bytes::Bytes)| {
            let name = RecordKey::from_stored(key);
            let (bucket, key) = name.bucket_and_key()?;
            Ok((bucket, key, record::read_state(&name, value)?))
        };
        found.into_iter().map(state).collect()
    }
}
