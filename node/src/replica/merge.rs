//! A merge: what others know of a key is joined with what is held of it, whoever sends it and why.

use driftless_proto::{BucketDefinition, Conflict, Durability, Header, Key, Refusal, Siblings};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, RequestId};
use crate::planted::Bug;
use crate::shard::Shard;

use super::hints::Capacity;
use super::located::Located;
use super::record::RecordError;
use super::store::Store;
use super::turn::{Waiting, Waits};
use super::{Replica, RequestError};

impl<S: Store> Replica<S> {
    pub(super) fn merge(
        &mut self,
        shard: &Shard,
        from: NodeId,
        id: RequestId,
        merge: Merge,
    ) -> Result<(), RequestError> {
        let mut located = Located::new(shard, merge.bucket, &merge.key)?;
        match merge.purpose {
            // A client waits for these, or their sender forgets them: they must not wait until a record is restored.
            Purpose::Write | Purpose::Handoff => self.check_load(shard, merge.purpose)?,
            Purpose::ReadRepair | Purpose::AntiEntropy | Purpose::Transfer => {
                self.check_load(shard, merge.purpose)?;
                self.check_sound(&located.record)?;
            }
        }
        let is_repair = matches!(merge.purpose, Purpose::AntiEntropy | Purpose::Transfer);
        if is_repair && from != shard.node && !shard.configurations.keeps(from, located.partition) {
            return Err(shard.not_owner().into());
        }
        // Who hands a partition over compares it with its owners, and that is done when both hold the same.
        located.is_mine |= is_repair && shard.configurations.keeps(shard.node, located.partition);
        let capacity = self.capacity(shard, &mut located, merge.hint_for)?;
        self.witness(shard, located.partition, merge.siblings.vv());
        let (merged, place) = (merge.siblings.vv().clone(), capacity.place(&located));
        let mut durability = match merge.purpose {
            // The hint goes away on the strength of this answer.
            Purpose::Handoff
                if located.bucket.durability == Durability::Sync
                    || !shard.planted.is(Bug::HandoffAckedAsBucketAsks) =>
            {
                Durability::Sync
            }
            Purpose::Transfer => Durability::Sync,
            _ => located.bucket.durability,
        };
        match capacity {
            Capacity::Owner { .. } if shard.planted.replaces(merge.purpose) => {
                let before = self.header(shard, &located.record)?;
                if !merge.siblings.includes(&*before) {
                    shard.planted.hit();
                }
                let changed = !before.includes(&merge.siblings);
                shard.metrics.aae_keys_repaired.inc_by(u64::from(changed && is_repair));
                self.turn.put(located.record, merge.bucket, &merge.key, before, merge.siblings);
            }
            Capacity::Owner { hint_for } => {
                self.check_size(shard, &located, &merge.siblings)?;
                let bytes = merge.siblings.value_bytes();
                let changed = self.take_in(shard, &located, &merge.key, merge.siblings)?;
                if changed && merge.purpose == Purpose::Transfer {
                    self.moving.count(bytes);
                }
                shard.metrics.aae_keys_repaired.inc_by(u64::from(changed && is_repair));
                if !changed && durability == Durability::Sync && shard.planted.is(Bug::NoopAckBeforeSync) {
                    durability = Durability::Buffered;
                }
                if let Some(target) = hint_for {
                    self.add_marker(shard, target, &located)?;
                }
            }
            Capacity::Fallback { target } => {
                let (siblings, bytes) = (merge.siblings.live().len() as u32, merge.siblings.value_bytes() as u64);
                if !self.keep_copy(shard, target, &located, &merge.key, merge.siblings, shard.limits.state_bytes_max)? {
                    return Err(Refusal::TooManySiblings { siblings, bytes }.into());
                }
                if durability == Durability::Sync && shard.planted.is(Bug::HintAckedInMemory) {
                    durability = Durability::Buffered;
                }
            }
        }
        self.turn.wait(Waiting { to: from, id, waits: Waits::Ack { merged, place, durability } });
        Ok(())
    }

    /// Refuses a merge that would leave more of a key than a replica keeps. Nothing is lost by it: the node that sent it
    /// keeps what it has, a read brings both together, and a write that has seen that leaves less.
    pub(super) fn check_size(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        incoming: &Siblings,
    ) -> Result<(), RequestError> {
        let max = shard.limits.state_bytes_max;
        let held = self.header(shard, &located.record)?;
        if held.value_bytes() + incoming.value_bytes() <= max || located.bucket.conflict == Conflict::Lww {
            return Ok(());
        }
        let mut merged = Header::clone(&held);
        merged.merge(&incoming.header());
        let bytes = merged.value_bytes();
        if bytes > max && bytes > held.value_bytes() {
            shard.metrics.merges_too_large.inc();
            return Err(Refusal::TooManySiblings { siblings: merged.live().len() as u32, bytes: bytes as u64 }.into());
        }
        Ok(())
    }

    /// Merges into the own record. Whether that changed anything.
    pub(super) fn take_in(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        key: &Key,
        mut merged: Siblings,
    ) -> Result<bool, RecordError> {
        let Located { bucket, record, .. } = located;
        let header = self.header(shard, record)?;
        if header.includes(&merged) {
            shard.metrics.merges_unchanged.inc();
            return Ok(false);
        }
        if !merged.merge_header(&header) {
            // Some value of ours survives: it has to be read.
            merged.merge(&self.siblings(shard, record)?);
        }
        self.apply_conflict_policy(shard, bucket, &mut merged);
        self.turn.put(record.clone(), bucket.id, key, header, merged);
        Ok(true)
    }

    /// Applies the bucket's conflict policy to a merged state.
    pub(super) fn apply_conflict_policy(&self, shard: &Shard, bucket: &BucketDefinition, siblings: &mut Siblings) {
        if bucket.conflict == Conflict::Lww || (siblings.live().len() > 1 && shard.planted.is(Bug::LastWriteWins)) {
            shard.metrics.lww_discarded.inc_by(siblings.keep_last() as u64);
        }
    }

    /// Refuses before anything is applied, when too many answers wait for the disk already. What no client waits for
    /// gives way first.
    pub(super) fn check_load(&self, shard: &Shard, purpose: Purpose) -> Result<(), Refusal> {
        let waiting = self.syncs.held_back() + self.turn.waiting.len();
        let most = shard.limits.replica_waiting_max;
        if waiting < if purpose.is_urgent() { most } else { most / 2 } {
            return Ok(());
        }
        shard.metrics.overloaded.inc();
        Err(Refusal::Overloaded { retry_after_ms: shard.limits.retry_after_ms() })
    }
}
