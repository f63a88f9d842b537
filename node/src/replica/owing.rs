//! Hints: what this node holds, or owes, for primaries that could not be reached.
//!
//! ```text
//!                       this node owns the key                    it does not (it stands in)
//! Merge, hint_for T     into the record, and a marker for T       into the copy for T
//! Write, hint_for T     stamps over record ⊔ copies               stamps over all copies, for any node; kept for T
//! Write, owed_to U      a marker for U                            a copy for U
//! Owe to U              a marker for U                            a copy for U of what it holds, if it holds anything
//! Read                  record ⊔ copies                           all copies
//! delivered to T        the marker goes, if the record is still as sent; the copy goes, if it is
//! ```
//! A removed copy takes knowledge with it. If it knew writes of the partition's present actor, that actor is retired in
//! the same batch: were it to stamp the key again, its vector would claim to have seen what is gone, and the next merge
//! would drop it as overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{BucketId, Conflict, Header, Key, Refusal, Siblings};
use driftless_ring::NodeId;

use crate::planted::Bug;
use crate::shard::{Located, Shard};
use crate::time::{Instant, Now};

use super::hints::{Tally, Weight};
use super::local::{Owe, Write};
use super::record::{self, HintKey, RecordKey};
use super::store::{ApplyError, Store, StoreError};
use super::turn::{After, Held, HintChange, Place, Turn};
use super::{Output, Replica, Trouble};

/// In what capacity this node takes a write or a merge.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// It stores the key, and may owe what it takes to another primary.
    Owner { owes: Option<NodeId> },
    /// It does not, and keeps what it takes for this primary.
    StandIn { target: NodeId },
}

/// What is held of a key, without values as far as that is enough.
pub(super) struct Known {
    /// The own record.
    pub(super) own: Arc<Header>,
    /// The merge of everything, where there are copies for others too.
    pub(super) merged: Option<(Header, Siblings)>,
}

/// Some of what is held for a target, in order.
#[derive(Debug)]
pub(crate) struct HintPage {
    pub(crate) owed: Vec<Owed>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Vec<u8>>,
}

/// What a target is to have of one key.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Owed {
    pub(crate) record: RecordKey,
    pub(crate) bucket: BucketId,
    pub(crate) key: Key,
    /// Of the state: only a hint that still has it may be removed once the state has arrived.
    pub(crate) digest: Digest,
    /// Empty if there is a marker without a record: nothing is left to deliver.
    pub(crate) siblings: Siblings,
}

impl Role {
    /// Where a node in this capacity holds a key's state.
    pub(super) fn place(self, located: &Located<'_>) -> Place {
        match self {
            Role::Owner { .. } => Place::Record(located.record.clone()),
            Role::StandIn { target } => Place::Copy(HintKey::new(target, &located.record)),
        }
    }
}

impl Known {
    pub(super) fn header(&self) -> &Header {
        self.merged.as_ref().map_or(&*self.own, |(header, _)| header)
    }
}

impl<S: Store> Replica<S> {
    /// Adds a marker, or a copy of what is held for others. There is no answer: what cannot be noted is left to
    /// anti-entropy.
    pub(super) fn owe(&mut self, shard: &Shard, owe: &Owe) -> Result<(), Trouble> {
        let located = self.locate(shard, owe.bucket, &owe.key)?;
        if owe.to == shard.node || !shard.ring().owns(owe.to, located.partition) {
            return Ok(());
        }
        if located.is_mine {
            self.mark(shard, owe.to, &located)?;
        } else {
            let known = self.known(shard, &located)?;
            let siblings = self.everything(shard, &located, &known)?;
            if !siblings.is_empty() && self.has_room(shard, owe.to) {
                self.keep_for(shard, owe.to, &located, &owe.key, siblings, shard.limits.state_bytes_max)?;
            }
        }
        Ok(())
    }

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

    /// What is held for whom.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = (NodeId, Tally)> + '_ {
        self.hints.tallies()
    }

    /// Whether any of it has changed since the last call.
    pub(crate) fn take_tallies_changed(&mut self) -> bool {
        self.hints.take_changed()
    }

    /// Whether this node may take a write or a merge, and as what. An owner whose record is damaged stands in for itself:
    /// what it takes is kept beside the record until that is restored, and is no part of what it answers until then.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`] if it neither stores the key nor is asked to stand in for another node that does;
    /// [`Refusal::HintsFull`].
    pub(super) fn role(
        &self,
        shard: &Shard,
        located: &mut Located<'_>,
        hint_for: Option<NodeId>,
    ) -> Result<Role, Trouble> {
        let is_damaged = self.check_sound(&located.record).is_err();
        match hint_for {
            Some(target) if target == shard.node || !shard.ring().owns(target, located.partition) => {
                Err(shard.not_owner().into())
            }
            owes if located.is_mine && !is_damaged => Ok(Role::Owner { owes }),
            None if !located.is_mine => Err(shard.not_owner().into()),
            // An owner that owes what it cannot read: nobody asks for that.
            Some(_) if located.is_mine => Err(Refusal::Damaged.into()),
            target => {
                let target = target.unwrap_or(shard.node);
                if !self.has_room(shard, target) {
                    return Err(Refusal::HintsFull.into());
                }
                located.is_mine = false;
                Ok(Role::StandIn { target })
            }
        }
    }

    /// What is held of a key: the own record, and the copies for others. At an owner there are none unless an older
    /// ring has left some.
    pub(super) fn known(&mut self, shard: &Shard, located: &Located<'_>) -> Result<Known, StoreError> {
        let own = if located.is_mine { self.header(shard, &located.record)? } else { Arc::default() };
        if located.is_mine && !self.hints.may_stray() {
            return Ok(Known { own, merged: None });
        }
        let mut merged: Option<Siblings> = None;
        for target in self.holders(shard, &located.record) {
            if let (Some(Held::Copy { siblings, .. }), _) = self.held(shard, &HintKey::new(target, &located.record))? {
                match &mut merged {
                    Some(merged) => merged.merge(&siblings),
                    None => merged = Some(siblings),
                }
            }
        }
        let Some(mut merged) = merged else { return Ok(Known { own, merged: None }) };
        if located.is_mine {
            merged.merge(&self.siblings(shard, &located.record)?);
        }
        if located.bucket.conflict == Conflict::Lww {
            merged.keep_last();
        }
        Ok(Known { own, merged: Some((merged.header(), merged)) })
    }

    /// The same with values.
    pub(super) fn everything(
        &self,
        shard: &Shard,
        located: &Located<'_>,
        known: &Known,
    ) -> Result<Siblings, StoreError> {
        match &known.merged {
            Some((_, siblings)) => Ok(siblings.clone()),
            None if located.is_mine => self.siblings(shard, &located.record),
            None => Ok(Siblings::new()),
        }
    }

    /// Keeps a state for a primary: merged into what is held for it. Not if that would be more than `most` bytes; what is held
    /// stays then. What this node stamps it keeps in any case: `check_room` has seen all of it.
    pub(super) fn keep_for(
        &mut self,
        shard: &Shard,
        target: NodeId,
        located: &Located<'_>,
        key: &Key,
        mut siblings: Siblings,
        most: usize,
    ) -> Result<bool, StoreError> {
        #[cfg(feature = "planted-bugs")]
        if self.is_held_for_another(shard, target, &located.record, &siblings)? {
            return Ok(true);
        }
        let hint = HintKey::new(target, &located.record);
        let (held, stored) = self.held(shard, &hint)?;
        let held = match held {
            None => None,
            Some(Held::Copy { siblings, digest }) => Some((siblings, digest)),
            // The record is owed, and will be once it is restored, together with what is kept beside it.
            Some(Held::Marker) if self.check_sound(&located.record).is_err() => return Ok(true),
            // Left from when this node owned the key: the record is the copy.
            Some(Held::Marker) => Some((self.siblings(shard, &located.record)?, Digest::default())),
        };
        if let Some((held, _)) = &held {
            siblings.merge(held);
        }
        self.settle(shard, located.bucket, &mut siblings);
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
        self.turn.put_hint(hint, stored, After::Kept(Held::Copy { siblings, digest }, encoded));
        Ok(true)
    }

    /// Owes a primary the own record. Where there is no room for the note, anti-entropy does what it would have done.
    pub(super) fn mark(&mut self, shard: &Shard, target: NodeId, located: &Located<'_>) -> Result<(), StoreError> {
        let hint = HintKey::new(target, &located.record);
        let (held, stored) = self.held(shard, &hint)?;
        match held {
            Some(Held::Marker) => return Ok(()),
            // Left by an older ring: it may know more than the record.
            Some(Held::Copy { siblings, .. }) => {
                let (_, key) = located.record.bucket_and_key()?;
                self.take_in(shard, located, &key, siblings)?;
            }
            None if !self.has_room(shard, target) => return Ok(()),
            None => {}
        }
        self.turn.put_hint(hint, stored, After::Kept(Held::Marker, record::marker()));
        Ok(())
    }

    /// Notes that other primaries are owed a write, in the batch that holds it.
    pub(super) fn note_owed(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        write: &Write,
        role: Role,
        siblings: &Siblings,
    ) -> Result<(), StoreError> {
        let (owes, kept_for) = match role {
            Role::Owner { owes } => (owes, None),
            Role::StandIn { target } => (None, Some(target)),
        };
        for &target in write.owed_to.iter().chain(&owes) {
            if target == shard.node || !shard.ring().owns(target, located.partition) {
                continue;
            }
            if located.is_mine {
                self.mark(shard, target, located)?;
            } else if kept_for != Some(target) && self.has_room(shard, target) {
                self.keep_for(shard, target, located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        Ok(())
    }

    /// A batch is applied: counts its hints, and says for whom there is something new.
    pub(super) fn count_hints(&mut self, shard: &Shard, now: Instant, changes: BTreeMap<HintKey, HintChange>) {
        let mut newest = None;
        for (key, change) in changes {
            let after = change.encoded().map(|value| Weight::of(&key, value));
            self.hints.count(shard, now, &key, change.stored, after);
            if after.is_some() {
                shard.metrics.hints_stored.inc();
                // Changes are sorted by target.
                if newest != Some(key.target()) {
                    newest = Some(key.target());
                    self.outputs.push_back(Output::Owes(key.target()));
                }
            }
        }
    }

    /// A batch was refused for lack of room. What it only takes away is the way out of that, and goes all the same.
    pub(super) fn remove_all_the_same(&mut self, shard: &Shard, now: Now, turn: Turn) {
        // Whatever became of hints did not: they are as before, and may have been taken for delivered.
        let targets: BTreeSet<_> = turn.hints.keys().map(HintKey::target).collect();
        let removals = turn.removals();
        if !removals.hints.is_empty() && shard.planted.is(Bug::RefusedRemovalForgotten) {
            return;
        }
        self.outputs.extend(targets.into_iter().map(Output::Owes));
        if removals.hints.is_empty() {
            return;
        }
        match self.store.apply(removals.batch(&self.actors)) {
            Ok(seq) => {
                assert!(seq > self.applied, "batches are numbered in order");
                self.applied = seq;
                shard.metrics.batches.inc();
                shard.metrics.batch_changes.inc_by(removals.hints.len() as u64);
                self.count_hints(shard, now.instant, removals.hints);
                self.release(shard, now, Vec::new());
            }
            Err(ApplyError::Full(_)) => {}
            Err(ApplyError::Failed(error)) => self.fail(shard, error),
        }
    }

    /// Whether one more hint may be kept for this target. A refusal is counted.
    fn has_room(&self, shard: &Shard, target: NodeId) -> bool {
        let room = self.hints.has_room(&shard.limits, target);
        shard.metrics.hints_refused.inc_by((!room).into());
        room
    }

    /// For whom copies of a record may be held, the turn's own included.
    pub(super) fn holders(&self, shard: &Shard, record: &RecordKey) -> Vec<NodeId> {
        let mut holders: Vec<_> = self.hints.holders_of_copies().collect();
        if !self.turn.hints.is_empty() {
            let owners = shard.owners_of(record);
            holders.extend(owners.iter().filter(|owner| self.turn.hints.contains_key(&HintKey::new(**owner, record))));
            holders.sort_unstable();
            holders.dedup();
        }
        holders
    }

    /// A hint, from this turn's batch or the store, and what the store holds in its place.
    pub(super) fn held(&mut self, shard: &Shard, hint: &HintKey) -> Result<(Option<Held>, Option<Weight>), StoreError> {
        if let Some(change) = self.turn.hints.get(hint) {
            return Ok((change.held().cloned(), change.stored));
        }
        let Some(value) = self.store.get(hint.as_bytes())? else { return Ok((None, None)) };
        let weight = Weight::of(hint, &value);
        match self.read_hint(shard, hint, value) {
            Ok(held) => Ok((Some(held), Some(weight))),
            // The request that needs it may have changed the turn already, so this is no reason to refuse.
            Err(StoreError::Damaged { reason, .. }) if !self.is_reading_again => {
                self.give_up_hint(shard, hint.clone(), &reason)?;
                let held = self.turn.hints.get(hint).and_then(HintChange::held).cloned();
                Ok((held, Some(weight)))
            }
            Err(error) => Err(error),
        }
    }

    /// What the store holds of a hint, as it is counted.
    pub(super) fn weight_of(&self, hint: &HintKey) -> Result<Option<Weight>, StoreError> {
        Ok(self.store.get(hint.as_bytes())?.map(|value| Weight::of(hint, &value)))
    }

    /// A hint, checked like a record.
    fn read_hint(&self, shard: &Shard, hint: &HintKey, value: Bytes) -> Result<Held, StoreError> {
        // What a marker says is in its key, whatever became of its byte. What is kept beside a damaged record is never one: nobody
        // owes anything to itself.
        let is_mine = || shard.owns(&hint.record());
        if hint.target() != shard.node && (record::is_marker(&value) || (record::is_no_copy(&value) && is_mine())) {
            return Ok(Held::Marker);
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(held) = self.hint_as_it_is(shard, hint, &value) {
            return Ok(held);
        }
        let digest = record::stored_digest(&value).map_err(|error| error.in_record(hint.as_bytes()))?;
        let siblings = record::read_copy(hint, value)?;
        Ok(Held::Copy { siblings, digest })
    }

    fn read_hints(&mut self, shard: &Shard, target: NodeId, from: Option<Vec<u8>>) -> Result<HintPage, StoreError> {
        let (bytes_max, mut found, mut bytes) = (shard.limits.turn.step_bytes, Vec::new(), 0);
        let next = self.hints.visit(shard, &self.store, target, from, PAGE_HINTS, &mut |key, value| {
            bytes += value.len();
            found.push((key, value));
            if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let (read_before, mut owed) = (self.bytes_read(), Vec::with_capacity(found.len()));
        let mut found = found.into_iter();
        while let Some((hint, value)) = found.next() {
            match self.owed(shard, &hint, value) {
                Ok(state) => owed.push(state),
                // What a marker owes is not known until the record is restored; the marker stays.
                Err(error @ StoreError::Damaged { .. }) => self.fail(shard, error),
                Err(error) => return Err(error),
            }
            if self.bytes_read() - read_before >= bytes_max
                && let Some((hint, _)) = found.as_slice().first()
                && !shard.planted.is(Bug::PageIgnoresMarkers)
            {
                return Ok(HintPage { owed, next: Some(hint.to_bytes().to_vec()) });
            }
        }
        Ok(HintPage { owed, next })
    }

    /// What a hint delivers. Of a marker that is the record as applied, not as the turn would have it: nothing with a
    /// dot leaves before its batch.
    fn owed(&self, shard: &Shard, hint: &HintKey, value: Bytes) -> Result<Owed, StoreError> {
        let record = hint.record();
        let (bucket, key) = record.bucket_and_key()?;
        let siblings = match self.read_hint(shard, hint, value)? {
            Held::Copy { siblings, .. } => siblings,
            Held::Marker => {
                if let Some(change) = self.turn.changes.get(&record)
                    && shard.planted.is(Bug::OwedBeforeApplied)
                {
                    let digest = Digest::of(bucket, &key, &change.header);
                    return Ok(Owed { record, bucket, key, digest, siblings: change.siblings.clone() });
                }
                let stored = self.store.get(record.as_bytes())?;
                stored.map_or_else(|| Ok(Siblings::new()), |value| record::read_state(&record, value))?
            }
        };
        let digest = Digest::of(bucket, &key, &siblings.header());
        Ok(Owed { record, bucket, key, digest, siblings })
    }

    fn remove_delivered(
        &mut self,
        shard: &Shard,
        target: NodeId,
        record: &RecordKey,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let hint = HintKey::new(target, record);
        let (held, stored) = self.held(shard, &hint)?;
        let is_stored = || {
            let stored = self.store.get(hint.as_bytes()).ok().flatten();
            stored.and_then(|value| record::stored_digest(&value).ok()) == Some(digest)
        };
        match held {
            Some(Held::Copy { siblings, digest: held })
                if held == digest
                    || shard.planted.is_where(Bug::CopyRemovedAsStored, is_stored)
                    || shard.planted.is(Bug::HintRemovedThoughChanged) =>
            {
                self.forget(shard, record, &siblings);
            }
            Some(Held::Marker) => {
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
                    self.outputs.push_back(Output::Owes(target));
                    return Ok(());
                }
            }
            Some(Held::Copy { .. }) | None => return Ok(()),
        }
        self.turn.put_hint(hint, stored, After::Delivered);
        Ok(())
    }

    fn readdress(&mut self, shard: &Shard, target: NodeId, record: &RecordKey) -> Result<(), StoreError> {
        let (bucket, key) = record.bucket_and_key()?;
        let hint = HintKey::new(target, record);
        let Ok(located) = self.locate(shard, bucket, &key) else { return Ok(()) };
        let owners = shard.ring().owners(located.partition);
        if target != shard.node && owners.contains(&target) {
            return Ok(());
        }
        let (held, stored) = self.held(shard, &hint)?;
        let siblings = match held {
            Some(Held::Copy { siblings, .. }) => siblings,
            Some(Held::Marker) => self.siblings(shard, record)?,
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
                self.mark(shard, owner, &located)?;
            } else if !self.keep_for(shard, owner, &located, &key, siblings.clone(), shard.limits.state_bytes_max)? {
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
        let partition = shard.partition_of(record);
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
