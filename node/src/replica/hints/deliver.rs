//! What is delivered: pages of what is held for a target, and the end of a hint once its target has it.

use std::ops::ControlFlow;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{BucketId, Key, Siblings};
use driftless_ring::NodeId;

use crate::planted::Bug;
use crate::replica::record::{self, HintKey, RecordError, RecordKey};
use crate::replica::store::Store;
use crate::replica::turn::{After, StoredHint};
use crate::replica::{Output, Replica};
use crate::shard::Shard;

/// Some of what is held for a target, in order.
#[derive(Debug)]
pub(crate) struct HintPage {
    pub(crate) hints: Vec<Hint>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Vec<u8>>,
}

/// What a target is to have of one key.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Hint {
    pub(crate) record: RecordKey,
    pub(crate) bucket: BucketId,
    pub(crate) key: Key,
    /// Of the state: only a hint that still has it may be removed once the state has arrived.
    pub(crate) digest: Digest,
    /// Empty if there is a marker without a record: nothing is left to deliver.
    pub(crate) siblings: Siblings,
}

impl<S: Store> Replica<S> {
    /// Some of what is held for a target, as applied: up to [`PAGE_HINTS`] keys, and a step's worth of bytes or one key
    /// more. What a marker refers to counts, not the marker.
    pub(crate) fn hints_for(&mut self, shard: &Shard, target: NodeId, from: Option<Vec<u8>>) -> Option<HintPage> {
        match self.read_hints(shard, target, from) {
            Ok(page) => Some(page),
            Err(error) => {
                self.fail(shard, error);
                None
            }
        }
    }

    /// The target holds this state of the key, and no power cut can take it: removes the hint, unless it has changed
    /// since.
    pub(crate) fn hint_delivered(&mut self, shard: &Shard, target: NodeId, record: &RecordKey, digest: Digest) {
        if let Err(error) = self.remove_delivered(shard, target, record, digest) {
            self.fail(shard, error);
        }
    }

    /// The target does not own the key any more: gives what is held for it to the owners.
    pub(crate) fn readdress_hint(&mut self, shard: &Shard, target: NodeId, record: &RecordKey) {
        if let Err(error) = self.readdress(shard, target, record) {
            self.fail(shard, error);
        }
    }

    fn read_hints(&mut self, shard: &Shard, target: NodeId, from: Option<Vec<u8>>) -> Result<HintPage, RecordError> {
        let (bytes_max, mut found, mut bytes) = (shard.limits.turn.step_bytes, Vec::new(), 0);
        let next = self.hints.visit(shard, &self.store, target, from, PAGE_HINTS, &mut |key, value| {
            bytes += value.len();
            found.push((key, value));
            if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let (read_before, mut hints) = (self.bytes_read(), Vec::with_capacity(found.len()));
        let mut found = found.into_iter();
        while let Some((hint, value)) = found.next() {
            match self.hint_of(shard, &hint, value) {
                Ok(state) => hints.push(state),
                // What a marker stands for is not known until the record is restored; the marker stays.
                Err(error @ RecordError::Damaged { .. }) => self.fail(shard, error),
                Err(error) => return Err(error),
            }
            if self.bytes_read() - read_before >= bytes_max
                && let Some((hint, _)) = found.as_slice().first()
                && !shard.planted.is(Bug::PageIgnoresMarkers)
            {
                return Ok(HintPage { hints, next: Some(hint.to_bytes().to_vec()) });
            }
        }
        Ok(HintPage { hints, next })
    }

    /// What a hint delivers. Of a marker that is the record as applied, not as the turn would have it: nothing with a
    /// dot leaves before its batch.
    fn hint_of(&self, shard: &Shard, hint: &HintKey, value: Bytes) -> Result<Hint, RecordError> {
        let record = hint.record();
        let (bucket, key) = record.bucket_and_key()?;
        let siblings = match self.read_hint(shard, hint, value)? {
            StoredHint::Copy { siblings, .. } => siblings,
            StoredHint::Marker => {
                if let Some(change) = self.turn.changes.get(&record)
                    && shard.planted.is(Bug::HintBeforeApplied)
                {
                    let digest = Digest::of(bucket, &key, &change.header);
                    return Ok(Hint { record, bucket, key, digest, siblings: change.siblings.clone() });
                }
                let stored = self.store.get(record.as_bytes())?;
                stored.map_or_else(|| Ok(Siblings::new()), |value| record::read_state(&record, value))?
            }
        };
        let digest = Digest::of(bucket, &key, &siblings.header());
        Ok(Hint { record, bucket, key, digest, siblings })
    }

    fn remove_delivered(
        &mut self,
        shard: &Shard,
        target: NodeId,
        record: &RecordKey,
        digest: Digest,
    ) -> Result<(), RecordError> {
        let hint = HintKey::new(target, record);
        let (held, stored) = self.stored_hint(shard, &hint)?;
        let is_stored = || {
            let stored = self.store.get(hint.as_bytes()).ok().flatten();
            stored.and_then(|value| record::stored_digest(&value).ok()) == Some(digest)
        };
        match held {
            Some(StoredHint::Copy { siblings, digest: held })
                if held == digest
                    || shard.planted.is_where(Bug::CopyRemovedAsStored, is_stored)
                    || shard.planted.is(Bug::HintRemovedThoughChanged) =>
            {
                self.forget(shard, record, &siblings);
            }
            Some(StoredHint::Marker) => {
                let (bucket, key) = record.bucket_and_key()?;
                let header = self.header(shard, record)?;
                let is_stored = || {
                    let change = self.turn.changes.get(record);
                    change.is_some_and(|change| Digest::of(bucket, &key, &change.stored) == digest)
                };
                if Digest::of(bucket, &key, &header) != digest
                    && !shard.planted.is_where(Bug::MarkerRemovedAsStored, is_stored)
                    && !shard.planted.is(Bug::HintRemovedThoughChanged)
                {
                    // No batch will tell that there is more to deliver: the marker is as it was.
                    self.outputs.push_back(Output::NewHint(target));
                    return Ok(());
                }
            }
            Some(StoredHint::Copy { .. }) | None => return Ok(()),
        }
        self.turn.put_hint(hint, stored, After::Delivered);
        Ok(())
    }

    fn readdress(&mut self, shard: &Shard, target: NodeId, record: &RecordKey) -> Result<(), RecordError> {
        let (bucket, key) = record.bucket_and_key()?;
        let hint = HintKey::new(target, record);
        let Ok(located) = self.locate(shard, bucket, &key) else { return Ok(()) };
        let owners = shard.ring().owners(located.partition);
        if target != shard.node && owners.contains(&target) {
            return Ok(());
        }
        let (held, stored) = self.stored_hint(shard, &hint)?;
        let siblings = match held {
            Some(StoredHint::Copy { siblings, .. }) => siblings,
            Some(StoredHint::Marker) => self.siblings(shard, record)?,
            None => return Ok(()),
        };
        if located.is_mine {
            self.take_in(shard, &located, &key, siblings.clone())?;
        }
        for &owner in owners {
            if owner == shard.node {
                continue;
            }
            if located.is_mine {
                self.add_marker(shard, owner, &located)?;
            } else if !self.keep_copy(shard, owner, &located, &key, siblings.clone(), shard.limits.state_bytes_max)? {
                // It stays as it is held, until less is held for that owner.
                return Ok(());
            }
        }
        self.forget(shard, record, &siblings);
        self.turn.put_hint(hint, stored, After::Moved);
        Ok(())
    }

    /// A state goes away: an actor that it knows must not stamp any more. This says nothing against its writes.
    fn forget(&mut self, shard: &Shard, record: &RecordKey, siblings: &Siblings) {
        let partition = record.partition(shard);
        if self.actors.get(partition).is_some_and(|actor| siblings.vv().counter(actor.id) > 0)
            && !shard.planted.is(Bug::ActorKeptWithHintsRemoved)
        {
            self.actors.retire(partition);
            self.turn.retired.insert(partition);
        }
    }
}

/// Hints looked at in one go.
const PAGE_HINTS: usize = 64;
