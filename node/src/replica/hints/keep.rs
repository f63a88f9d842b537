//! What is kept: copies and markers, read and changed through the turn's batch.

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{Key, Siblings};
use driftless_ring::NodeId;

use crate::replica::local::{AddHint, Write};
use crate::replica::located::Located;
use crate::replica::record::{self, HintKey, RecordError, RecordKey};
use crate::replica::store::Store;
use crate::replica::turn::{After, HintChange, StoredHint};
use crate::replica::{Replica, RequestError};
use crate::shard::Shard;

use super::Capacity;
use super::weight::HintWeight;

impl<S: Store> Replica<S> {
    /// Adds a marker, or a copy of what is held for others. There is no answer: what cannot be noted is left to
    /// anti-entropy.
    pub(in crate::replica) fn add_hint(&mut self, shard: &Shard, add: &AddHint) -> Result<(), RequestError> {
        let located = self.locate(shard, add.bucket, &add.key)?;
        if add.target == shard.node || !shard.ring().owns(add.target, located.partition) {
            return Ok(());
        }
        if located.is_mine {
            self.add_marker(shard, add.target, &located)?;
        } else {
            let header = self.merged_header(shard, &located)?;
            let siblings = self.merged_state(shard, &located, &header)?;
            if !siblings.is_empty() && self.has_room(shard, add.target) {
                self.keep_copy(shard, add.target, &located, &add.key, siblings, shard.limits.state_bytes_max)?;
            }
        }
        Ok(())
    }

    /// Keeps a state for a primary: merged into what is held for it. Not if that would be more than `most` bytes; what is held
    /// stays then. What this node stamps it keeps in any case: `check_room` has seen all of it.
    pub(in crate::replica) fn keep_copy(
        &mut self,
        shard: &Shard,
        target: NodeId,
        located: &Located<'_>,
        key: &Key,
        mut siblings: Siblings,
        most: usize,
    ) -> Result<bool, RecordError> {
        #[cfg(feature = "planted-bugs")]
        if self.is_held_for_another(shard, target, &located.record, &siblings)? {
            return Ok(true);
        }
        let hint = HintKey::new(target, &located.record);
        let (held, stored) = self.stored_hint(shard, &hint)?;
        let held = match held {
            None => None,
            Some(StoredHint::Copy { siblings, digest }) => Some((siblings, digest)),
            // The record will be delivered once it is restored, together with what is kept beside it.
            Some(StoredHint::Marker) if self.check_sound(&located.record).is_err() => return Ok(true),
            // Left from when this node owned the key: the record is the copy.
            Some(StoredHint::Marker) => Some((self.siblings(shard, &located.record)?, Digest::default())),
        };
        if let Some((held, _)) = &held {
            siblings.merge(held);
        }
        self.apply_conflict_policy(shard, located.bucket, &mut siblings);
        let bytes = siblings.value_bytes();
        if bytes > most && held.as_ref().is_none_or(|(held, _)| bytes > held.value_bytes()) {
            shard.metrics.merges_too_large.inc();
            return Ok(false);
        }
        let header = siblings.header();
        let digest = Digest::of(located.bucket.id, key, &header);
        if held.is_some_and(|(_, before)| before == digest) {
            shard.metrics.merges_unchanged.inc();
            return Ok(true);
        }
        let encoded = record::encode(located.bucket.id, key, &header, &siblings);
        self.turn.put_hint(hint, stored, After::Kept(StoredHint::Copy { siblings, digest }, encoded));
        Ok(true)
    }

    /// Keeps in mind that a primary misses the own record. Where there is no room for the marker, anti-entropy does what it
    /// would have done.
    pub(in crate::replica) fn add_marker(
        &mut self,
        shard: &Shard,
        target: NodeId,
        located: &Located<'_>,
    ) -> Result<(), RecordError> {
        let hint = HintKey::new(target, &located.record);
        let (held, stored) = self.stored_hint(shard, &hint)?;
        match held {
            Some(StoredHint::Marker) => return Ok(()),
            // Left by an older ring: it may know more than the record.
            Some(StoredHint::Copy { siblings, .. }) => {
                let (_, key) = located.record.bucket_and_key()?;
                self.take_in(shard, located, &key, siblings)?;
            }
            None if !self.has_room(shard, target) => return Ok(()),
            None => {}
        }
        self.turn.put_hint(hint, stored, After::Kept(StoredHint::Marker, record::marker()));
        Ok(())
    }

    /// Keeps hints for the primaries that are known to miss a write, in the batch that holds it.
    pub(in crate::replica) fn add_missed(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        write: &Write,
        capacity: Capacity,
        siblings: &Siblings,
    ) -> Result<(), RecordError> {
        let (hint_for, kept_for) = match capacity {
            Capacity::Owner { hint_for } => (hint_for, None),
            Capacity::Fallback { target } => (None, Some(target)),
        };
        for &target in write.missed_by.iter().chain(&hint_for) {
            if target == shard.node || !shard.ring().owns(target, located.partition) {
                continue;
            }
            if located.is_mine {
                self.add_marker(shard, target, located)?;
            } else if kept_for != Some(target) && self.has_room(shard, target) {
                self.keep_copy(shard, target, located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        Ok(())
    }

    /// For whom copies of a record may be held, the turn's own included.
    pub(in crate::replica) fn holders(&self, shard: &Shard, record: &RecordKey) -> Vec<NodeId> {
        let mut holders: Vec<_> = self.hints.holders_of_copies().collect();
        if !self.turn.hints.is_empty() {
            let owners = record.owners(shard);
            holders.extend(owners.iter().filter(|owner| self.turn.hints.contains_key(&HintKey::new(**owner, record))));
            holders.sort_unstable();
            holders.dedup();
        }
        holders
    }

    /// A hint, from this turn's batch or the store, and what the store holds in its place.
    pub(in crate::replica) fn stored_hint(
        &mut self,
        shard: &Shard,
        hint: &HintKey,
    ) -> Result<(Option<StoredHint>, Option<HintWeight>), RecordError> {
        if let Some(change) = self.turn.hints.get(hint) {
            return Ok((change.held().cloned(), change.stored));
        }
        let Some(value) = self.store.get(hint.as_bytes())? else { return Ok((None, None)) };
        let weight = HintWeight::of(hint, &value);
        match self.read_hint(shard, hint, value) {
            Ok(held) => Ok((Some(held), Some(weight))),
            // The request that needs it may have changed the turn already, so this is no reason to refuse.
            Err(RecordError::Damaged { reason, .. }) if !self.is_reading_again => {
                self.give_up_hint(shard, hint.clone(), &reason)?;
                let held = self.turn.hints.get(hint).and_then(HintChange::held).cloned();
                Ok((held, Some(weight)))
            }
            Err(error) => Err(error),
        }
    }

    /// What the store holds of a hint, as it is counted.
    pub(in crate::replica) fn weight_of(&self, hint: &HintKey) -> Result<Option<HintWeight>, RecordError> {
        Ok(self.store.get(hint.as_bytes())?.map(|value| HintWeight::of(hint, &value)))
    }

    /// A hint, checked like a record.
    pub(super) fn read_hint(&self, shard: &Shard, hint: &HintKey, value: Bytes) -> Result<StoredHint, RecordError> {
        // What a marker says is in its key, whatever became of its byte. What is kept beside a damaged record is never one: no
        // node keeps a marker for itself.
        let is_mine = || hint.record().is_owned(shard);
        if hint.target() != shard.node && (record::is_marker(&value) || (record::is_no_copy(&value) && is_mine())) {
            return Ok(StoredHint::Marker);
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(held) = self.hint_as_it_is(shard, hint, &value) {
            return Ok(held);
        }
        let digest = record::stored_digest(&value).map_err(|error| error.in_record(hint.as_bytes()))?;
        let siblings = record::read_copy(hint, value)?;
        Ok(StoredHint::Copy { siblings, digest })
    }
}
