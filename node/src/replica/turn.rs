//! What one turn of the engine has built: changes not yet applied, and the answers that wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{BucketId, Durability, Header, Key, Siblings};
use driftless_ring::{NodeId, PartitionId};

use crate::peer::{Read, Reply, RequestId, Stamped};

use super::record::{self, RecordKey};
use super::stamp::{Actor, Actors};
use super::store::Batch;

/// Everything between two commits. Later reads of the same turn go through it.
#[derive(Default)]
pub(super) struct Turn {
    /// New states by record, each with what it replaces.
    pub(super) changes: BTreeMap<RecordKey, Change>,
    /// How many writes were stamped in this turn: the newest that the shard remembers.
    pub(super) write_ids: usize,
    /// Actors as they were before this turn stamped with them, to return to if the batch is refused.
    pub(super) actors_before: BTreeMap<PartitionId, Option<Actor>>,
    /// Answers held back until the batch is applied.
    pub(super) waiting: Vec<Waiting>,
}

/// A key's new state.
pub(super) struct Change {
    /// What the store holds until the batch is applied.
    pub(super) stored: Arc<Header>,
    /// The digest of that; `None` if there is no record.
    before: Option<Digest>,
    /// The new state without values.
    pub(super) header: Arc<Header>,
    /// The new state.
    pub(super) siblings: Siblings,
    encoded: Bytes,
}

/// An answer held back.
pub(super) struct Waiting {
    pub(super) to: NodeId,
    pub(super) id: RequestId,
    pub(super) waits: Waits,
}

/// What kind of answer it is.
pub(super) enum Waits {
    /// A new write: its state once applied, its acknowledgement as the bucket asks.
    Stamp { stamped: Stamped, durability: Durability },
    /// A merge: its acknowledgement as the bucket asks.
    Ack { durability: Durability },
    /// A read, perhaps through the batch: its answer once applied, or as durable as asked; another look if the batch is
    /// refused.
    Read { reply: Reply, durability: Durability, again: Read },
}

impl Change {
    /// The digests of what the store holds until the batch is applied, and of what it holds then.
    pub(super) fn digests(&self) -> (Option<Digest>, Digest) {
        (self.before, record::digest_of(&self.encoded))
    }
}

impl Turn {
    /// A key's new state, after `before`.
    pub(super) fn put(
        &mut self,
        record: RecordKey,
        bucket: BucketId,
        key: &Key,
        before: Arc<Header>,
        siblings: Siblings,
    ) {
        let header = Arc::new(siblings.header());
        let encoded = record::encode(bucket, key, &header, &siblings);
        match self.changes.get_mut(&record) {
            Some(change) => {
                change.header = header;
                change.siblings = siblings;
                change.encoded = encoded;
            }
            None => {
                let digest = (!before.vv().is_empty()).then(|| Digest::of(bucket, key, &before));
                self.changes.insert(record, Change { stored: before, before: digest, header, siblings, encoded });
            }
        }
    }

    /// Holds an answer back.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Whether there is nothing to apply and nobody to answer.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.waiting.is_empty()
    }

    /// The store's batch: every changed record, and the counters of every actor that stamped.
    pub(super) fn batch(&self, actors: &Actors) -> Batch {
        let mut changes = Vec::with_capacity(self.changes.len() + self.actors_before.len());
        for (record, change) in &self.changes {
            changes.push((record.to_bytes(), Some(change.encoded.clone())));
        }
        for &partition in self.actors_before.keys() {
            if let Some(actor) = actors.get(partition) {
                changes.push((record::actor_key(partition), Some(record::encode_actor(actor.id, actor.counter))));
            }
        }
        Batch { changes }
    }
}
