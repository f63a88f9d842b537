//! The planted bugs that take more than a line.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_antientropy::Digest;
use driftless_proto::{ActorId, Siblings};
use driftless_ring::{ArcIndex, NodeId, PartitionId};
use rand::rngs::StdRng;

use crate::planted::{Bug, Planted};
use crate::shard::Shard;
use crate::time::Now;

use super::Replica;
use super::hints::Capacity;
use super::record::{self, HintKey, RecordError, RecordKey};
use super::stamp::{Actor, Actors};
use super::store::Store;
use super::turn::StoredHint;

/// The actors of a start: the actors that it finds on the disk, where it goes on with them.
pub(super) fn actors<S: Store>(planted: &Planted, store: &S, rng: StdRng) -> Actors {
    use Bug::{ActorKeptAfterCrash, ActorKeptAfterRollback, ActorKeptInCopy};
    let kept = [ActorKeptAfterCrash, ActorKeptAfterRollback, ActorKeptInCopy];
    if !kept.into_iter().any(|bug| planted.may_be(bug)) {
        return Actors::new(rng);
    }
    let found = actors_found(store);
    if !found.is_empty() {
        planted.hit();
    }
    Actors::kept(found, rng)
}

/// The actors that an earlier process has left on the disk.
fn actors_found<S: Store>(store: &S) -> BTreeMap<PartitionId, Actor> {
    let mut found = BTreeMap::new();
    let read = store.scan(&[0, b'a']..&[0, b'b'], &mut |key, value| {
        if let ([_, _, n, arc @ ..], Some(&[_, ref actor @ ..])) = (key, value.first_chunk::<17>())
            && let (Ok(arc), Some((id, counter))) = (arc.try_into(), actor.split_first_chunk())
        {
            let partition = PartitionId { n: *n, arc: ArcIndex(u32::from_be_bytes(arc)) };
            let counter = counter.try_into().map_or(0, u64::from_be_bytes);
            found.insert(partition, Actor { id: ActorId(u64::from_be_bytes(*id)), counter });
        }
        ControlFlow::Continue(())
    });
    read.expect("a store that was opened just now can be read");
    found
}

impl<S: Store> Replica<S> {
    /// A record whose checksums nobody looks at.
    pub(super) fn as_it_is(&self, shard: &Shard, record: &RecordKey) -> Option<Siblings> {
        let stored = shard.planted.may_be(Bug::DamagedServed).then(|| self.store.get(record.as_bytes()))?.ok()??;
        if record::read_state(record, stored.clone()).is_err() {
            shard.planted.hit();
        }
        record::decode_as_it_is(&stored)
    }

    /// The same of a hint.
    pub(super) fn hint_as_it_is(&self, shard: &Shard, hint: &HintKey, value: &[u8]) -> Option<StoredHint> {
        let siblings = shard.planted.may_be(Bug::DamagedHintServed).then(|| record::decode_as_it_is(value))??;
        if record::read_copy(hint, Bytes::copy_from_slice(value)).is_err() {
            shard.planted.hit();
        }
        let (bucket, key) = hint.record().bucket_and_key().ok()?;
        Some(StoredHint::Copy { digest: Digest::of(bucket, &key, &siblings.header()), siblings })
    }

    /// Whether what is to be kept for a primary is kept already, for whichever primary.
    pub(super) fn is_held_for_another(
        &mut self,
        shard: &Shard,
        target: NodeId,
        record: &RecordKey,
        siblings: &Siblings,
    ) -> Result<bool, RecordError> {
        let others = if shard.planted.may_be(Bug::CopyFillsAnySlot) { self.holders(shard, record) } else { Vec::new() };
        for other in others.into_iter().filter(|other| *other != target) {
            if let (Some(StoredHint::Copy { siblings: held, .. }), _) =
                self.stored_hint(shard, &HintKey::new(other, record))?
                && held.includes(siblings)
            {
                shard.planted.hit();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a fallback does not keep the retry that it recognises for the primary that it is for now.
    pub(super) fn forgets_to_hold(
        &mut self,
        shard: &Shard,
        record: &RecordKey,
        capacity: Capacity,
        siblings: &Siblings,
    ) -> Result<bool, RecordError> {
        let Capacity::Fallback { target } = capacity else { return Ok(false) };
        if !shard.planted.may_be(Bug::RetryNotKept) {
            return Ok(false);
        }
        let (held, _) = self.stored_hint(shard, &HintKey::new(target, record))?;
        let is_kept = matches!(held, Some(StoredHint::Copy { siblings: held, .. }) if held.includes(siblings));
        Ok(!is_kept && shard.planted.is(Bug::RetryNotKept))
    }

    /// Forgets keys that were deleted a while ago.
    pub(super) fn reap_tombstones(&mut self, shard: &Shard, now: Now) {
        let mut old = Vec::new();
        let read = self.store.scan(&[1]..&[2], &mut |key, value| {
            let Ok(entry) = record::decode_entry(key, &value) else { return ControlFlow::Continue(()) };
            let age = Duration::from_millis(now.wall.millis().saturating_sub(entry.header.written_at().millis()));
            if !entry.header.has_values() && !entry.header.is_empty() && age > GRACE {
                old.push(entry);
            }
            ControlFlow::Continue(())
        });
        if read.is_ok() {
            for entry in old {
                let record = RecordKey::new(entry.n, entry.token, entry.bucket, &entry.key);
                if !self.turn.changes.contains_key(&record) {
                    shard.planted.hit();
                    self.turn.put(record, entry.bucket, &entry.key, Arc::new(entry.header), Siblings::new());
                }
            }
        }
    }
}

const GRACE: Duration = Duration::from_millis(20);
