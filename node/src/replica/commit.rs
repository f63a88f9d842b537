//! The one place where a replica changes: a turn's changes become a batch of the store, all of them or none.
//!
//! ```text
//! turn ──▶ Store::apply ──▶ Applied ──▶ trees · headers · damage · hints     each follows what has been applied
//!             │ no room                └▶ answers leave, or wait for the sync
//!             └▶ undone: counters and write ids return, writes are refused, reads are read again;
//!                what the turn only removes is applied alone, since it makes room
//! ```
//! Whatever else is to follow the records of a shard, an index or a stream of changes, is one more that is shown [`Applied`].

use std::collections::{BTreeMap, BTreeSet};

use driftless_proto::{Durability, Refusal, VersionVector};
use driftless_ring::NodeId;

use crate::peer::{Read, Reply, RequestId};
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Now;

use super::local::Made;
use super::record::{HintKey, RecordKey};
use super::store::{ApplyError, BatchSeq, Store};
use super::syncs::Answer;
use super::turn::{Change, HintChange, Place, StoredHint, Turn, Waiting, Waits};
use super::{Output, Replica, RequestError};

/// What a batch has changed.
#[derive(Default)]
pub(super) struct Applied {
    /// The new states by record, each with what it replaces.
    pub(super) records: BTreeMap<RecordKey, Change>,
    /// New and removed hints.
    pub(super) hints: BTreeMap<HintKey, HintChange>,
}

impl<S: Store> Replica<S> {
    /// Whether there is something to commit.
    pub(crate) fn has_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Applies what this turn has built, and answers what waited for that.
    pub(crate) fn commit(&mut self, shard: &Shard, now: Now) {
        if self.turn.is_empty() {
            return;
        }
        #[cfg(feature = "planted-bugs")]
        if shard.planted.may_be(Bug::TimerReaping) {
            self.reap_tombstones(shard, now);
        }
        let mut turn = std::mem::take(&mut self.turn);
        if self.has_failed {
            // What broke off half way is in it as well: a counter, say, without the write that it counted.
            return;
        }
        if !turn.has_changes() {
            return self.release(shard, now, &Applied::default(), turn.waiting);
        }
        match shard.planted.soften(self.apply(shard, &mut turn)) {
            Ok(applied) => {
                self.follow(shard, now, &applied);
                self.release(shard, now, &applied, turn.waiting);
            }
            Err(ApplyError::Full(reason)) => {
                // What is short is said once, by the node.
                tracing::debug!(reason, "a batch was refused for lack of room; nothing of it was applied");
                if turn.actors_before.is_empty() || !shard.planted.is(Bug::CounterSkipped) {
                    self.actors.restore(std::mem::take(&mut turn.actors_before));
                }
                if turn.write_ids == 0 || !shard.planted.is(Bug::RefusedIdRemembered) {
                    self.write_ids.forget_newest(turn.write_ids);
                }
                if shard.planted.is(Bug::CounterReused) {
                    return self.release(shard, now, &Applied::default(), turn.waiting);
                }
                self.refuse(shard, std::mem::take(&mut turn.waiting));
                self.remove_all_the_same(shard, now, turn);
            }
            Err(ApplyError::Failed(error)) => {
                // It may have been applied.
                #[cfg(feature = "planted-bugs")]
                self.show_stamps(&turn.waiting);
                self.fail(shard, error);
            }
        }
    }

    /// Everything up to this batch is durable: answers what waited for it.
    pub(crate) fn handle_synced(&mut self, up_to: BatchSeq) {
        let answers = self.syncs.handle_synced(up_to);
        self.outputs.extend(answers.map(|Answer { to, id, reply }| Output::Reply { to, id, reply }));
    }

    /// Answers once everything applied so far is durable.
    pub(crate) fn reply_durably(&mut self, shard: &Shard, to: NodeId, id: RequestId, reply: Reply) {
        self.reply_once(shard, Durability::Sync, to, id, reply);
    }

    /// Asks for a sync of everything applied, unless that has been asked for.
    pub(super) fn ask_sync(&mut self) {
        self.outputs.extend(self.syncs.ask().map(Output::Sync));
    }

    /// Answers once everything applied so far is as durable as that: also an acknowledgement of "nothing changed" may
    /// rest on the newest batch.
    pub(super) fn reply_once(
        &mut self,
        shard: &Shard,
        durability: Durability,
        to: NodeId,
        id: RequestId,
        reply: Reply,
    ) {
        match durability {
            Durability::Sync if !self.syncs.is_durable() && !shard.planted.is_rash(&reply) => {
                self.syncs.hold_back(Answer { to, id, reply });
                self.ask_sync();
            }
            Durability::Sync | Durability::Buffered => self.reply(to, id, reply),
        }
    }

    /// The only call of [`Store::apply`]. What it says of the store is what everybody else is told.
    fn apply(&mut self, shard: &Shard, turn: &mut Turn) -> Result<Applied, ApplyError> {
        debug_assert!(turn.has_changes(), "a batch changes something");
        debug_assert!(
            shard.planted.is_asserted_away()
                || turn.changes.keys().all(|record| shard.is_mine(record.partition(shard))),
            "a shard changes its own records"
        );
        let seq = self.store.apply(turn.batch(&self.actors))?;
        self.syncs.handle_applied(seq);
        shard.metrics.batches.inc();
        shard.metrics.batch_changes.inc_by((turn.changes.len() + turn.hints.len()) as u64);
        Ok(Applied { records: std::mem::take(&mut turn.changes), hints: std::mem::take(&mut turn.hints) })
    }

    /// Everything that goes along with what is stored.
    fn follow(&mut self, shard: &Shard, now: Now, applied: &Applied) {
        self.trees.follow(shard, applied);
        self.headers.follow(shard, applied);
        for record in self.damage.follow(applied) {
            self.go_on_with(shard, &record);
        }
        self.outputs.extend(self.hints.follow(shard, now.instant, applied).into_iter().map(Output::NewHint));
    }

    /// The turn's batch is applied: what may leave leaves, what promises durability waits for the sync.
    fn release(&mut self, shard: &Shard, now: Now, applied: &Applied, mut waiting: Vec<Waiting>) {
        self.prove(shard, applied, &mut waiting);
        #[cfg(feature = "planted-bugs")]
        self.show_stamps(&waiting);
        for Waiting { to, id, waits } in waiting {
            match waits {
                Waits::Read { reply, durability, .. } => self.reply_once(shard, durability, to, id, reply),
                Waits::Ack { durability, .. } => self.reply_once(shard, durability, to, id, Reply::Acked),
                Waits::Write { made, durability, .. } => {
                    self.outputs.push_back(Output::Made { id, made });
                    self.reply_once(shard, durability, to, id, Reply::Acked);
                }
            }
        }
        self.syncs.ask_by(now.instant + shard.limits.buffered_sync_interval);
    }

    /// An answer that says more than what is held is a bug in here: it turns into "not done, and perhaps with effect", so that
    /// nothing is acknowledged that is stored nowhere.
    fn prove(&mut self, shard: &Shard, applied: &Applied, waiting: &mut Vec<Waiting>) {
        let is_unproven = |waiting: &mut Waiting| !applied.proves(&waiting.waits) && !shard.planted.is_asserted_away();
        for Waiting { to, id, .. } in waiting.extract_if(.., is_unproven) {
            shard.metrics.acks_unproven.inc();
            tracing::error!(%to, ?id, "what was to be acknowledged is not what is held: this is a bug, please report it");
            debug_assert!(false, "an acknowledged state holds what it is acknowledged for");
            self.outputs.push_back(Output::Reply { to, id, reply: Reply::Lost });
        }
    }

    /// The turn's batch was not applied, and nothing of it has left.
    fn refuse(&mut self, shard: &Shard, waiting: Vec<Waiting>) {
        for Waiting { to, id, waits } in waiting {
            match waits {
                Waits::Write { .. } | Waits::Ack { .. } => self.reply(to, id, Reply::Refused(Refusal::StorageFull)),
                Waits::Read { reply, durability, .. } if shard.planted.is(Bug::RefusedBatchRead) => {
                    self.reply_once(shard, durability, to, id, reply);
                }
                Waits::Read { again, .. } => self.read_again(shard, to, id, again),
            }
        }
    }

    /// There is no room: a read must not want to write again what was just refused.
    fn read_again(&mut self, shard: &Shard, to: NodeId, id: RequestId, read: Read) {
        self.is_reading_again = true;
        let outcome = self.read(shard, to, id, read);
        self.is_reading_again = false;
        match outcome {
            Err(RequestError::Record(error)) if error.is_damage() => {
                self.reply(to, id, Reply::Refused(Refusal::Damaged));
            }
            outcome => self.conclude(shard, to, id, outcome),
        }
    }

    /// A batch was refused for lack of room. What it only takes away is the way out of that, and goes all the same.
    fn remove_all_the_same(&mut self, shard: &Shard, now: Now, turn: Turn) {
        // Whatever became of hints did not: they are as before, and may have been taken for delivered.
        let targets: BTreeSet<_> = turn.hints.keys().map(HintKey::target).collect();
        let mut removals = turn.removals();
        if !removals.hints.is_empty() && shard.planted.is(Bug::RefusedRemovalForgotten) {
            return;
        }
        self.outputs.extend(targets.into_iter().map(Output::NewHint));
        if removals.hints.is_empty() {
            return;
        }
        match self.apply(shard, &mut removals) {
            Ok(applied) => {
                self.follow(shard, now, &applied);
                self.release(shard, now, &applied, Vec::new());
            }
            Err(ApplyError::Full(_)) => {}
            Err(ApplyError::Failed(error)) => self.fail(shard, error),
        }
    }
}

impl Applied {
    /// Whether the state that was applied holds what an answer says it does. It always does, by what built it; this is where
    /// an acknowledgement relies on it. A state that the turn leaves alone was looked at when the answer was put together.
    fn proves(&self, waits: &Waits) -> bool {
        match waits {
            Waits::Write { made: Made::Stamped(stamped), write_id, place, .. } => {
                stamped.holds(*write_id) && self.shows(place, |vv| vv.covers(stamped.dot))
            }
            Waits::Write { made: Made::Covered(covered), place, .. } => {
                self.shows(place, |vv| vv.covers_all(covered.siblings.vv()))
            }
            Waits::Ack { merged, place, .. } => self.shows(place, |vv| vv.covers_all(merged)),
            Waits::Read { .. } => true,
        }
    }

    /// Whether so much is known there now, as far as the batch tells. What was kept beside a damaged record may have moved into
    /// the record within the turn, and something else been kept there since.
    fn shows(&self, place: &Place, is_enough: impl Fn(&VersionVector) -> bool) -> bool {
        match place {
            Place::Record(record) => self.vector_of(record).is_none_or(is_enough),
            Place::Copy(hint) => match self.hints.get(hint).and_then(HintChange::held) {
                Some(StoredHint::Copy { siblings, .. }) => {
                    is_enough(siblings.vv()) || self.vector_of(&hint.record()).is_some_and(is_enough)
                }
                // Not changed, or taken away because its target has it.
                Some(StoredHint::Marker) | None => true,
            },
        }
    }

    fn vector_of(&self, record: &RecordKey) -> Option<&VersionVector> {
        self.records.get(record).map(|change| change.header.vv())
    }
}
