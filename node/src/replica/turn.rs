//! What one turn of the engine has built: changes not yet applied, and the answers that wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{BucketId, Durability, Header, Key, Siblings, VersionVector, WriteId};
use driftless_ring::{NodeId, PartitionId};

use crate::peer::{Read, Reply, RequestId};

use super::hints::HintWeight;
use super::local::Made;
use super::record::{self, HintKey, RecordKey};
use super::stamp::{Actor, Actors};
use super::store::Batch;

/// Everything between two commits. Later reads of the same turn go through it.
#[derive(Default)]
pub(super) struct Turn {
    /// New states by record, each with what it replaces.
    pub(super) changes: BTreeMap<RecordKey, Change>,
    /// New and removed hints.
    pub(super) hints: BTreeMap<HintKey, HintChange>,
    /// Partitions whose actor was retired because this turn removes state that knows writes of it.
    pub(super) retired: BTreeSet<PartitionId>,
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
    /// Its stored form; `None` if nothing is left of the key.
    encoded: Option<Bytes>,
}

/// What becomes of a hint.
pub(super) struct HintChange {
    /// What the store holds until the batch is applied.
    pub(super) stored: Option<HintWeight>,
    pub(super) after: After,
}

/// What there is of a hint once the batch is applied.
pub(super) enum After {
    /// This, and its stored form.
    Kept(StoredHint, Bytes),
    /// Nothing: its target has it.
    Delivered,
    /// Nothing: the same batch gives what was held to the present owners.
    Moved,
    /// Nothing: it was damaged.
    Lost,
}

/// A hint as it is held.
#[derive(Clone)]
pub(super) enum StoredHint {
    /// The state of the key.
    Copy { siblings: Siblings, digest: Digest },
    /// The own record is the copy.
    Marker,
}

/// An answer held back.
pub(super) struct Waiting {
    pub(super) to: NodeId,
    pub(super) id: RequestId,
    pub(super) waits: Waits,
}

/// What kind of answer it is.
pub(super) enum Waits {
    /// A write: what became of it once applied, its acknowledgement as the bucket asks.
    Write { made: Made, write_id: WriteId, place: Place, durability: Durability },
    /// A merge of a state with this vector: its acknowledgement as the bucket asks.
    Ack { merged: VersionVector, place: Place, durability: Durability },
    /// A read, perhaps through the batch: its answer once applied, or as durable as asked; another look if the batch is
    /// refused.
    Read { reply: Reply, durability: Durability, again: Read },
}

/// Where the state is held that an acknowledgement is about.
pub(super) enum Place {
    /// In the own record.
    Record(RecordKey),
    /// In the copy for a node that this one stands in for.
    Copy(HintKey),
}

impl Change {
    /// The digests of what the store holds until the batch is applied, and of what it holds then.
    pub(super) fn digests(&self) -> (Option<Digest>, Option<Digest>) {
        (self.before, self.encoded.as_ref().map(record::digest_of))
    }
}

impl HintChange {
    /// What is held then.
    pub(super) fn held(&self) -> Option<&StoredHint> {
        match &self.after {
            After::Kept(held, _) => Some(held),
            After::Delivered | After::Moved | After::Lost => None,
        }
    }

    /// What is stored then.
    pub(super) fn encoded(&self) -> Option<&Bytes> {
        match &self.after {
            After::Kept(_, encoded) => Some(encoded),
            After::Delivered | After::Moved | After::Lost => None,
        }
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
        let encoded = (!header.vv().is_empty()).then(|| record::encode(bucket, key, &header, &siblings));
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

    /// A record that cannot be read goes, whatever it held.
    pub(super) fn remove_damaged(&mut self, record: RecordKey) {
        let nothing = || Arc::new(Header::default());
        let (stored, header, siblings) = (nothing(), nothing(), Siblings::new());
        self.changes.entry(record).or_insert(Change { stored, before: None, header, siblings, encoded: None });
    }

    /// A hint's new value, or its end, in place of what the store holds.
    pub(super) fn put_hint(&mut self, key: HintKey, stored: Option<HintWeight>, after: After) {
        self.hints.insert(key, HintChange { stored, after });
    }

    /// Whether there is anything to apply.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty() || !self.hints.is_empty()
    }

    /// Holds an answer back.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Whether there is nothing to apply and nobody to answer.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_changes() && self.waiting.is_empty()
    }

    /// The store's batch: every changed record and hint, the counters of every actor that stamped, and the end of every
    /// actor that was retired and has no successor yet.
    pub(super) fn batch(&self, actors: &Actors) -> Batch {
        let mut changes = Vec::with_capacity(self.changes.len() + self.hints.len() + self.actors_before.len());
        for (record, change) in &self.changes {
            changes.push((record.to_bytes(), change.encoded.clone()));
        }
        for (key, change) in &self.hints {
            changes.push((key.to_bytes(), change.encoded().cloned()));
        }
        let stamped = self.actors_before.keys().filter(|partition| !self.retired.contains(partition));
        for &partition in stamped.chain(&self.retired) {
            let key = record::actor_key(partition);
            match actors.get(partition) {
                Some(actor) => changes.push((key, Some(record::encode_actor(actor.id, actor.counter)))),
                None if self.retired.contains(&partition) => changes.push((key, None)),
                None => {}
            }
        }
        Batch { changes }
    }

    /// What of a refused turn only takes away: the hints that were delivered or damaged, and the actors that knew them. None
    /// of this rests on anything else in the turn: such a hint is as it was sent, and its target holds it, or is of no use.
    pub(super) fn removals(self) -> Turn {
        let mut hints = self.hints;
        hints.retain(|_, change| matches!(change.after, After::Delivered | After::Lost));
        Turn { hints, retired: self.retired, ..Turn::default() }
    }
}
