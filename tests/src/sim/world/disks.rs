//! Syncs take time: what is durable when one is done is what had been applied when it began. Now and then one fails; and
//! bytes rot.

use std::collections::BTreeMap;

use bytes::Bytes;
use driftless_node::planted::Bug;
use driftless_node::replica::record::{self, HintKey};
use driftless_node::replica::store::{Batch, BatchSeq};
use driftless_proto::{Dot, Durability, Version};
use driftless_ring::NodeId;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::super::check::{self, Violation};
use super::super::faults::downtime;
use super::super::hints::Come;
use super::super::history::{Operation, Slot, slot_text};
use super::super::node::Input;
use super::super::observer;
use super::super::schedule::Event;
use super::super::shape;
use super::super::store::RemovedHint;
use super::super::trace::Line;
use super::{Phase, World};

impl World {
    /// A shard asks for a sync that covers this batch: the next one, for all shards that have asked by then.
    pub(super) fn sync(&mut self, node: usize, shard: usize, batch: BatchSeq) {
        let wish = &mut self.cluster[node].shards[shard].wish;
        *wish = (*wish).max(Some(batch));
        if !self.cluster[node].syncing {
            self.begin_sync(node);
        }
    }

    fn begin_sync(&mut self, node: usize) {
        let covered = self.cluster[node].shards.iter_mut().map(|shard| shard.wish.take()).collect();
        let up_to = self.cluster[node].store.applied();
        // As the store's own syncer does, which has nothing to do if nothing was applied since it noted what it covers.
        if self.cluster[node].noted_late == Some(up_to) && self.cluster.planted().is(Bug::SyncNotedLate) {
            self.cluster[node].syncing = false;
            return self.tell_synced(node, covered);
        }
        self.cluster[node].syncing = true;
        let (low, high) = match self.phase {
            Phase::Active => self.cluster[node].sync,
            _ => (200, 2_000),
        };
        let delay = self.disk_rng.random_range(low..=high);
        self.schedule.after(delay, Event::SyncDone { node, life: self.cluster[node].life, up_to, covered });
    }

    pub(super) fn sync_done(&mut self, node: usize, up_to: BatchSeq, covered: Vec<Option<BatchSeq>>) {
        if std::mem::take(&mut self.cluster[node].sync_fails) {
            return self.sync_failed(node, up_to, covered);
        }
        self.note("synced", &[node as u64, up_to.0], || {
            Line::general(shape::name_of(node), format!("has synced up to batch {}", up_to.0))
        });
        self.cluster[node].store.sync_up_to(up_to);
        self.note_restored(node);
        self.cluster[node].syncing = false;
        let applied = self.cluster[node].store.applied();
        self.cluster[node].noted_late = (applied > up_to).then_some(applied);
        if up_to == applied {
            let removed = std::mem::take(&mut self.cluster[node].removed);
            self.judge_keys(&removed, "after a hint was removed");
        }
        self.tell_synced(node, covered);
        if self.cluster[node].shards.iter().any(|shard| shard.wish.is_some()) {
            self.begin_sync(node);
        }
    }

    fn tell_synced(&mut self, node: usize, covered: Vec<Option<BatchSeq>>) {
        for (shard, batch) in covered.into_iter().enumerate() {
            if let Some(batch) = batch {
                self.give(node, Input::Synced(shard as u16, batch));
            }
        }
    }

    /// As much of what was to be synced is on the disk as chance would have it, and nobody will try again. The process
    /// stops at once, without a word to those who wait.
    fn sync_failed(&mut self, node: usize, up_to: BatchSeq, covered: Vec<Option<BatchSeq>>) {
        self.judges.coverage.add("syncs failed", 1);
        let rng = &mut self.nemesis.error_rng;
        self.cluster[node].store.fail_sync(up_to, || rng.random_bool(0.5));
        self.note("sync failed", &[node as u64, up_to.0], || {
            Line::general(shape::name_of(node), format!("fails to sync up to batch {}", up_to.0))
        });
        self.judges.losses.push(self.schedule.now());
        if self.cluster.planted().is(Bug::SyncErrorIgnored) {
            self.cluster[node].syncing = false;
            self.tell_synced(node, covered);
        } else if self.cluster.planted().is(Bug::SyncRetried) {
            for (shard, batch) in covered.into_iter().enumerate() {
                let wish = &mut self.cluster[node].shards[shard].wish;
                *wish = (*wish).max(batch);
            }
            self.begin_sync(node);
        } else {
            // What else had not been synced fares no better.
            self.kill(node, true);
            let down = downtime(&mut self.nemesis.error_rng);
            self.schedule.after(down, Event::Restart { node });
        }
    }

    /// Bytes of some things that a disk holds are not what they were; its node may have been stopped for that.
    pub(super) fn rot(&mut self, node: usize, how_many: usize) {
        let (mut hints, mut records, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // Often what was stamped last: the others may not have it yet.
        let stamped = self.nemesis.rotting.get(&node).cloned().flatten();
        let preferred = stamped.filter(|_| self.nemesis.error_rng.random_bool(0.5));
        for key in self.cluster[node].store.keys() {
            match observer::slot_of(&key) {
                Some(slot) if preferred.as_ref().is_some_and(|preferred| *preferred != slot) => {}
                // With two of its copies damaged at once a key may be lost.
                Some(slot) if self.judges.disk_losses.is_damaged_elsewhere(&slot, node) => {}
                Some(_) if record::is_hint(&key) => hints.push(key),
                Some((bucket, _))
                    if self.cluster.topology().bucket(bucket).is_some_and(|bucket| bucket.quorum.n() > 1) =>
                {
                    records.push(key);
                }
                // It has no other copy: it is lost with its disk.
                Some(_) => {}
                None => others.push(key),
            }
        }
        for _ in 0..how_many {
            let rng = &mut self.nemesis.error_rng;
            let (what, keys) = match rng.random_range(0..8) {
                0 => ("other things damaged", &others),
                1..5 if !hints.is_empty() => ("hints damaged", &hints),
                _ => ("records damaged", &records),
            };
            let Some(key) = keys.choose(rng) else { continue };
            if self.cluster[node].store.damage(key, |bytes| damaged(bytes, rng)) {
                self.judges.coverage.add(what, 1);
                let elsewhere = self.cluster.iter().any(|(other, peer)| other != node && peer.store.is_damaged());
                self.judges.coverage.add("damage on two disks at once", u64::from(elsewhere));
                self.judges.coverage.add("damage while down", u64::from(!self.cluster[node].runs()));
                let now = self.schedule.now();
                let Some(slot) = observer::slot_of(key) else { continue };
                self.note("damage", &[node as u64], || {
                    Line::about(shape::name_of(node), slot_text(&slot), format!("has {what} on its disk"))
                });
                self.judges.disk_losses.damaged(node, key.clone(), slot, now);
            }
        }
    }

    /// A record that is restored holds whatever a strict quorum had acknowledged before it was damaged.
    pub(super) fn check_restored(&mut self, node: usize, set_apart: &[Bytes], batch: &Batch) {
        for (key, value) in batch.changes.iter().filter(|(key, _)| set_apart.contains(key)) {
            let slot = observer::slot_of(key).expect("is a record");
            let state = value.as_ref().and_then(|value| observer::decode(key, value)).map(|(_, state)| state);
            let bucket = self.cluster.topology().bucket(slot.0).expect("slots are drawn from the buckets");
            let quorum = bucket.quorum;
            if bucket.durability == Durability::Buffered {
                continue;
            }
            let is_due = |op: &Operation| {
                check::is_acknowledged(op)
                    && (op.strict && op.slot == slot && op.w >= quorum.w() && op.acks > 1)
                    && self.judges.disk_losses.is_due(node, key, op)
            };
            let holds = |op: &Operation| {
                let mut dots = self.judges.observer.dots_of(op);
                dots.any(|(dot, _)| state.as_ref().is_some_and(|state| state.covers(dot)))
            };
            let missed = self.workload.history.iter().find(|(_, op)| is_due(op) && !holds(op));
            if let Some((id, _)) = missed {
                let text = format!("n{node} has restored its record without acknowledged write {id}");
                self.judges.violations.push(Violation::of("restored records are whole", &slot, text));
            }
        }
    }

    /// A hint goes when its target has on its disk whatever it was for. Of a marker that is the record as the node has it when
    /// it hears that it was delivered, and what has come to it earlier in the same turn is part of that.
    pub(super) fn check_handed_over(&mut self, node: usize, hint: &RemovedHint, before_acks: &BTreeMap<Slot, Come>) {
        let key = HintKey::from_stored(&hint.key).expect("a store holds what its node wrote");
        let record = key.record();
        let slot = record.bucket_and_key().expect("a store holds what its node wrote");
        let target = self.cluster.number_of(key.target()).expect("hints are for members");
        // What was held for a node that does not own the key any more goes to those who do.
        if self.cluster.agrees_on_members() && !self.owns(node, key.target(), &slot) {
            return;
        }
        // What is lost with its disk is not held against who gave it.
        let is_lost = self.nemesis.set_back == Some(target) || self.judges.disk_losses.may_concern(&slot);
        if self.phase == Phase::Calm || is_lost {
            return;
        }
        let (held, copies) = self.cluster[target].store.durable_states(&record);
        let mut held = held.unwrap_or_default();
        // Beside a damaged record.
        let beside = copies.iter().filter(|(kept_for, _)| *kept_for == key.target());
        beside.for_each(|(_, kept)| held.merge(kept));
        let come_before = before_acks.get(&slot).filter(|_| hint.is_marker);
        let is_owed = |(dot, version): &&(Dot, Version)| {
            !held.covers(*dot)
                && (!hint.is_marker || come_before.is_some_and(|come_before| come_before.includes(*dot, version)))
        };
        if hint.owed.live().iter().any(|write| is_owed(&write)) {
            let text =
                format!("n{node} has removed a hint for n{target}, which does not hold on its disk what it was for");
            self.judges.violations.push(Violation::of("hints go when delivered", &slot, text));
        }
    }

    /// Whether a node owns a key, in the newest version that another goes by.
    fn owns(&self, by: usize, node: NodeId, slot: &Slot) -> bool {
        let known = self.cluster[by].configurations.as_ref().map(|configurations| configurations.topology());
        known.is_some_and(|topology| {
            topology
                .bucket(slot.0)
                .is_some_and(|bucket| topology.ring().owns(node, topology.place(bucket, &slot.1).partition))
        })
    }

    /// What took the place of damaged bytes counts again once it is on the disk.
    pub(super) fn note_restored(&mut self, node: usize) {
        if self.cluster[node].store.is_damaged() {
            for key in self.cluster[node].store.take_restored() {
                self.judges.disk_losses.restored(node, &key, self.schedule.now());
            }
        }
    }
}

/// A flipped bit, a range of zeros, or fewer bytes.
fn damaged(bytes: &Bytes, rng: &mut StdRng) -> Bytes {
    let mut other = bytes.to_vec();
    let at = rng.random_range(0..other.len());
    match rng.random_range(0..4) {
        0 => other.truncate(at),
        1 => {
            let end = other.len().min(at + rng.random_range(1..32));
            other[at..end].fill(0);
        }
        _ => other[at] ^= 1 << rng.random_range(0..8),
    }
    if other == bytes[..] {
        other[at] ^= 1;
    }
    other.into()
}
