//! What is damaged: not served, not counted, and restored from the other replicas.
//!
//! A record whose bytes are not what was written has forgotten something that its node has acknowledged. From then on
//! this replica fills no slot for the key, neither of a read nor of a write: it refuses, and others fill it. The
//! partition's actor is retired, and the key is read from n − w + 1 of the other owners, of which one must have seen
//! whatever a quorum of w has acknowledged. Their merge takes the record's place; until then the damaged bytes stay where
//! they are, so that a restart finds them again. What the node takes in meanwhile (writes, and hints that go away where they
//! came from) it keeps beside the record, as a copy held for itself: it is durable and counts for a write, but no read sees
//! it. The merge that restores the record takes it in. If that copy is damaged too, what others have answered by then may be older than
//! what was acknowledged on its strength: they are asked anew.
//!
//! If too few other owners are sound, nothing is restored by itself: an acknowledged write may be on no other disk. An operator
//! may accept that (`Loss::Accepted`).
//!
//! Damage is met where a record is read, by the scan after a start, which reads every record whole, and by the scrub. Trees
//! are built as if what is damaged were not there.
//!
//! A copy held for another node is of no use once it is damaged. It goes, as with a lost disk, and the actor that it may have
//! known with it. A marker says all in its key, and cannot be damaged.
//!
//! This is for single records. A store that cannot read its own files stops the process.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use driftless_proto::{BucketId, Durability, Key, Refusal};
use driftless_ring::{PartitionId, Token};

use crate::peer::RequestId;
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Instant;

use super::commit::Applied;
use super::local::{Loss, Restore};
use super::located::Located;
use super::record::{HintKey, RecordError, RecordKey};
use super::store::Store;
use super::turn::{After, Place, StoredHint, Waiting, Waits};
use super::{Output, Replica, RequestError};

/// The damaged records of a shard.
#[derive(Debug)]
pub(super) struct Damage {
    records: BTreeSet<RecordKey>,
    /// Records that the others have not been asked for yet.
    waiting: VecDeque<RecordKey>,
    /// Records that they have been asked for, oldest first, and when; `None` is since the last look at the clock.
    asked: VecDeque<(Option<Instant>, RecordKey)>,
    /// How long the others may take.
    patience: Duration,
}

impl Damage {
    /// Nothing is damaged as far as is known. `attempt` is how long a replica may take to answer.
    pub(super) fn new(attempt: Duration) -> Damage {
        Damage {
            records: BTreeSet::new(),
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            patience: attempt.saturating_mul(PATIENCE_ATTEMPTS),
        }
    }

    /// When to ask the others, or to ask them again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let is_new = self.asked.back().is_some_and(|(at, _)| at.is_none());
        if is_new || (!self.waiting.is_empty() && self.asked.len() < ASKED_MAX) {
            return Some(Instant::default());
        }
        self.asked.front().map(|(at, _)| at.unwrap_or_default() + self.patience)
    }

    /// A batch has been applied: gives out the records that are damaged no more.
    pub(super) fn follow(&mut self, applied: &Applied) -> Vec<RecordKey> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let restored: Vec<_> = applied.records.keys().filter(|record| self.records.remove(*record)).cloned().collect();
        self.asked.retain(|(_, asked)| !restored.contains(asked));
        restored
    }

    /// Owners that did not answer may do so now.
    pub(super) fn ask_again(&mut self) {
        self.waiting.extend(self.asked.drain(..).map(|(_, record)| record));
    }

    /// What they have been asked for is too old.
    fn ask_anew(&mut self, record: RecordKey) {
        self.asked.retain(|(_, asked)| *asked != record);
        self.waiting.retain(|waiting| *waiting != record);
        self.waiting.push_back(record);
    }

    fn handle_timeout(&mut self, now: Instant) {
        for (at, _) in self.asked.iter_mut().rev().take_while(|(at, _)| at.is_none()) {
            *at = Some(now);
        }
        while let Some((at, _)) = self.asked.front()
            && at.unwrap_or_default() + self.patience <= now
            && let Some((_, record)) = self.asked.pop_front()
        {
            self.waiting.push_back(record);
        }
    }

    fn next(&mut self) -> Option<RecordKey> {
        while self.asked.len() < ASKED_MAX
            && let Some(record) = self.waiting.pop_front()
        {
            if self.records.contains(&record) {
                self.asked.push_back((None, record.clone()));
                return Some(record);
            }
        }
        None
    }
}

impl<S: Store> Replica<S> {
    /// Deals with what a store has reported: what is damaged is set apart, everything else stops the process.
    pub(crate) fn fail(&mut self, shard: &Shard, error: impl Into<RecordError>) {
        let outcome = match error.into() {
            RecordError::Damaged { record, reason } => match HintKey::from_stored(&record) {
                Ok(hint) => self.give_up_hint(shard, hint, &reason),
                Err(_) => self.set_apart(shard, RecordKey::from_stored(record.to_vec()), &reason),
            },
            error @ RecordError::Store(_) => Err(error),
        };
        if let Err(error) = outcome {
            self.has_failed = true;
            self.outputs.push_back(Output::Halt(error.to_string()));
        }
    }

    /// The keys of records that are set apart, as stored.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = &[u8]> {
        self.damage.records.iter().map(RecordKey::as_bytes)
    }

    /// Whether some record of a partition is set apart.
    pub(crate) fn has_damage_in(&self, shard: &Shard, partition: PartitionId) -> bool {
        self.damage.records.iter().any(|record| record.partition(shard) == partition)
    }

    /// Refuses what needs a record that is damaged.
    pub(super) fn check_sound(&self, record: &RecordKey) -> Result<(), Refusal> {
        if self.damage.records.is_empty() || !self.damage.records.contains(record) {
            return Ok(());
        }
        Err(Refusal::Damaged)
    }

    /// Asks the others for what they have not restored yet, some at a time.
    pub(super) fn ask_for_restoring(&mut self, now: Instant) {
        self.damage.handle_timeout(now);
        self.ask_for_more();
        self.damage.handle_timeout(now);
    }

    /// A peer can be counted on that could not be: it may have what is missing.
    pub(crate) fn handle_peer_up(&mut self) {
        self.damage.ask_again();
    }

    /// Whether a record is damaged, as far as reading it whole tells.
    pub(crate) fn is_damaged(&mut self, shard: &Shard, bucket: BucketId, key: &Key) -> bool {
        let Ok(located) = Located::new(shard, bucket, key) else { return false };
        if located.is_mine
            && self.check_sound(&located.record).is_ok()
            && let Err(error) = self.siblings(shard, &located.record)
        {
            self.fail(shard, error);
        }
        self.check_sound(&located.record).is_err()
    }

    /// What the others hold takes the place of a damaged record. The coordinator does not bring it again, so it is taken
    /// however much waits for the disk.
    pub(super) fn restore(&mut self, shard: &Shard, id: RequestId, restore: Restore) -> Result<(), RequestError> {
        let located = Located::new(shard, restore.bucket, &restore.key)?;
        match restore.loss {
            Loss::Excluded => self.replace(shard, located, restore),
            Loss::Accepted => self.accept_loss(shard, id, located, restore),
        }
    }

    /// Together with what this node has taken in since the record is damaged.
    fn replace(&mut self, shard: &Shard, located: Located<'_>, restore: Restore) -> Result<(), RequestError> {
        let Restore { bucket, key, mut siblings, .. } = restore;
        if self.check_sound(&located.record).is_err() {
            let beside = HintKey::new(shard.node, &located.record);
            match self.stored_hint(shard, &beside)? {
                (Some(StoredHint::Copy { siblings: kept, .. }), stored) => {
                    if siblings.includes(&kept) || !shard.planted.is(Bug::RestoreForgetsBeside) {
                        siblings.merge(&kept);
                    }
                    self.turn.put_hint(beside, stored, After::Moved);
                }
                // That is damaged as well: the others may know what it held since they were asked, and are asked anew.
                (None, Some(_))
                    if !self.turn.changes.contains_key(&located.record)
                        && !shard.planted.is(Bug::RestoredFromTooOld) =>
                {
                    return Ok(());
                }
                _ => {}
            }
            // Others may have answered twice within one turn: what was kept beside the record is in what the first answer has made.
            match self.turn.changes.get(&located.record) {
                Some(change) => siblings.merge(&change.siblings),
                None => drop(shard.metrics.records_restored.inc()),
            }
            self.apply_conflict_policy(shard, located.bucket, &mut siblings);
            self.turn.put(located.record, bucket, &key, Default::default(), siblings);
        }
        Ok(())
    }

    /// The same with what there is: an operator accepts what is lost by that.
    fn accept_loss(
        &mut self,
        shard: &Shard,
        id: RequestId,
        located: Located<'_>,
        restore: Restore,
    ) -> Result<(), RequestError> {
        if self.check_sound(&located.record).is_err() {
            let (bucket, values) = (&located.bucket.name, restore.siblings.values().count());
            let token = hex(located.record.position().1);
            tracing::warn!(%bucket, token, values, "a damaged record is replaced by what the other owners hold, as an \
                operator asked who accepts the loss: what only this record held is gone, and what it knew to be deleted \
                may come back");
            shard.metrics.losses_accepted.inc();
        }
        let (merged, place) = (restore.siblings.vv().clone(), Place::Record(located.record.clone()));
        self.replace(shard, located, restore)?;
        let waits = Waits::Ack { merged, place, durability: Durability::Sync };
        self.turn.wait(Waiting { to: shard.node, id, waits });
        Ok(())
    }

    /// What was damaged is there again. Nodes for which there are hints can have it now.
    pub(super) fn go_on_with(&mut self, shard: &Shard, record: &RecordKey) {
        shard.metrics.records_damaged_now.dec();
        if let Ok((bucket, key)) = record.bucket_and_key() {
            self.outputs.push_back(Output::EndRestoring { bucket, key });
        }
        // What was damaged may not have been what the tree knew.
        self.trees.build_anew(record);
        self.deliver_again(shard, record);
    }

    /// A walk that met what was damaged has passed over it.
    fn deliver_again(&mut self, shard: &Shard, record: &RecordKey) {
        let owners = record.owners(shard);
        let targets = self.hints.hint_counts().map(|(target, _)| target).filter(|target| owners.contains(target));
        self.outputs.extend(targets.map(Output::NewHint));
    }

    fn set_apart(&mut self, shard: &Shard, record: RecordKey, reason: &str) -> Result<(), RecordError> {
        // Damage must not be of a key that cannot be told: nobody could be asked for it.
        record.bucket_and_key()?;
        if self.turn.changes.contains_key(&record) {
            // What is about to take its place was made from what it held before.
            self.trees.build_anew(&record);
            self.deliver_again(shard, &record);
            return Ok(());
        }
        if !self.damage.records.insert(record.clone()) {
            return Ok(());
        }
        let partition = record.partition(shard);
        let token = hex(record.position().1);
        tracing::error!(token, %partition, reason, "a record is damaged: this replica does not answer for the key \
            until it has been restored from the others. Check the disk");
        shard.metrics.records_damaged.inc();
        shard.metrics.records_damaged_now.inc();
        self.actors.retire(partition);
        if !shard.planted.is(Bug::TreeKeptWithDamage) {
            self.trees.build_anew(&record);
        }
        self.damage.waiting.push_back(record);
        self.ask_for_more();
        Ok(())
    }

    fn ask_for_more(&mut self) {
        while let Some(record) = self.damage.next() {
            if let Ok((bucket, key)) = record.bucket_and_key() {
                self.outputs.push_back(Output::Damaged { bucket, key, patience: self.damage.patience });
            }
        }
    }

    /// A copy that is damaged is of no use to anybody.
    pub(super) fn give_up_hint(&mut self, shard: &Shard, hint: HintKey, reason: &str) -> Result<(), RecordError> {
        let record = hint.record();
        let (bucket, key) = record.bucket_and_key()?;
        if self.turn.hints.contains_key(&hint) {
            return Ok(());
        }
        if hint.target() == shard.node
            && self.damage.records.contains(&record)
            && !shard.planted.is(Bug::RestoredFromTooOld)
        {
            self.outputs.push_back(Output::EndRestoring { bucket, key });
            self.damage.ask_anew(record.clone());
            self.ask_for_more();
        }
        let partition = record.partition(shard);
        let token = hex(record.position().1);
        tracing::error!(token, %partition, target = %hint.target(), reason, "a hint is damaged: its target has to get the \
            key from others. Check the disk");
        shard.metrics.hints_damaged.inc();
        // What it was counted as cannot be told any more.
        self.hints.count_anew(&shard.metrics);
        self.actors.retire(partition);
        self.turn.retired.insert(partition);
        let stored = self.weight_of(&hint)?;
        self.turn.put_hint(hint, stored, After::Lost);
        Ok(())
    }
}

/// As `driftless ring --key` prints it: a log names no keys.
fn hex(token: Token) -> String {
    format!("{:016x}", token.0)
}

/// The others have as long as so many attempts of a coordinator.
const PATIENCE_ATTEMPTS: u32 = 20;

/// Records that the others are asked for at once: each of them may bring a state as large as a state can be, so many times
/// as there are others.
const ASKED_MAX: usize = 8;
