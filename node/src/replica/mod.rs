//! One shard's replica: what it holds of the keys it owns, and for nodes that it stands in for, and the only place where
//! that changes.
//!
//! ```text
//!            Write (own coordinator)      Merge (anybody)       Read · Scan
//!                     │                        │                   │
//!                 stamp a dot                  │                   │      all read through the turn's batch
//!                     └────── new state ───────┘                   │
//!                                 │                                │
//!                 commit():  one atomic batch  ── Stamped, State ──┤      nothing with a dot leaves earlier
//!                                 │                                │
//!             handle_synced():  Acked, once the newest batch queued before it is durable
//! ```
//! What is held for other nodes (`owing`) is read, written and removed in the same turns and batches.
//!
//! If a batch cannot be applied for lack of room, nothing of it has happened: its writes and merges are refused, its
//! counters return to what they were, its reads are read again.

mod damage;
mod headers;
mod hints;
mod holdings;
pub(crate) mod local;
mod metered;
#[cfg(feature = "planted-bugs")]
mod mistakes;
#[cfg(feature = "planted-bugs")]
mod observed;
mod owing;
pub mod record;
mod scanning;
mod stamp;
pub mod store;
mod stored;
mod trees;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::{
    ActorId, BucketDefinition, BucketId, Conflict, Context, Durability, Header, Key, Refusal, Siblings, VersionVector,
};
use driftless_ring::{NodeId, PartitionId};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::peer::{Merge, Purpose, Read, ReplicaRequest, Reply, RequestId, Scan, State, Want};
use crate::planted::Bug;
use crate::shard::{Located, Shard};
use crate::time::{Instant, Now};

use damage::Damage;
use headers::HeaderCache;
use hints::Hints;
use local::{LocalRequest, Made, Stamped, Write};
use metered::Metered;
use owing::Role;
pub(crate) use owing::{HintPage, Owed};
use record::RecordKey;
use stamp::{Actors, WriteIds};
use store::{ApplyError, BatchSeq, Store, StoreError};
use trees::Trees;
use turn::{Turn, Waiting, Waits};

/// What the replica wants its engine to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Answer a request.
    Reply { to: NodeId, id: RequestId, reply: Reply },
    /// Tell the own coordinator what has become of its write.
    Made { id: RequestId, made: Made },
    /// Sync everything up to this batch.
    Sync(BatchSeq),
    /// The record of this key is damaged: it is to be restored from the other replicas, within this time.
    Damaged { bucket: BucketId, key: Key, patience: Duration },
    /// The record of this key has been restored: what is still under way for that is of no use any more.
    Restored { bucket: BucketId, key: Key },
    /// An actor must not be trusted any more: no put stamped by it may be acknowledged.
    Retired(ActorId),
    /// There is something to be delivered to this node that was not there before.
    Owes(NodeId),
    /// The store cannot be trusted any more.
    Halt(String),
}

/// One shard's share of the node's keys.
pub(crate) struct Replica<S> {
    store: Metered<S>,
    actors: Actors,
    write_ids: WriteIds,
    headers: HeaderCache,
    trees: Trees,
    hints: Hints,
    damage: Damage,
    /// Scans that wait for a page, and who asked.
    scans: VecDeque<(NodeId, RequestId, Scan)>,
    turn: Turn,
    /// Answers that wait for a sync, oldest batch first.
    after_sync: VecDeque<(BatchSeq, NodeId, RequestId, Reply)>,
    applied: BatchSeq,
    sync_asked: BatchSeq,
    /// The newest batch known to be durable; `None` until the first sync after the start, which covers what a process
    /// before this one may have left unsynced.
    synced: Option<BatchSeq>,
    /// A batch was refused for lack of room, and its reads are read again.
    is_reading_again: bool,
    /// The store cannot be trusted any more: nothing is applied, and the process stops.
    has_failed: bool,
    /// When applied batches that nobody waits for are to be synced.
    sync_due: Option<Instant>,
    outputs: VecDeque<Output>,
    #[cfg(feature = "planted-bugs")]
    stamps: Vec<(RecordKey, driftless_proto::Dot, Header)>,
}

impl<S: Store> Replica<S> {
    /// A replica that has just started: every actor is new.
    pub(crate) fn new(shard: &Shard, store: S, write_ids_seed: u64, mut rng: StdRng, now: Now) -> Replica<S> {
        let Shard { limits, metrics, planted, .. } = shard;
        let owned = shard.ring().owned(shard.node).filter(|partition| shard.is_mine(*partition));
        let (partitions, scrub) = (shard.ring().partitions(), limits.aae.scrub_interval);
        let trees_rng = StdRng::from_rng(&mut rng);
        let trees = Trees::new(partitions, owned, limits.turn, scrub, now.instant, trees_rng, metrics);
        let (hints, unreadable) = match Hints::new(shard, &store, now.instant) {
            Ok(hints) => (hints, None),
            Err(error) => (Hints::none(now.instant), Some(Output::Halt(error.to_string()))),
        };
        let owes = hints.tallies().map(|(target, _)| Output::Owes(target));
        let owes = owes.filter(|_| !planted.is(Bug::HintsForgottenAtStart));
        let outputs = [Output::Sync(BatchSeq(0))].into_iter().chain(owes).chain(unreadable).collect();
        Replica {
            #[cfg(not(feature = "planted-bugs"))]
            actors: Actors::new(rng),
            #[cfg(feature = "planted-bugs")]
            actors: mistakes::actors(planted, &store, rng),
            write_ids: WriteIds::new(limits.write_ids_max, limits.write_ids_age, write_ids_seed),
            headers: HeaderCache::new(limits.header_cache_bytes),
            trees,
            hints,
            damage: Damage::new(limits.attempt_timeout),
            scans: VecDeque::new(),
            turn: Turn::default(),
            after_sync: VecDeque::new(),
            applied: BatchSeq(0),
            sync_asked: BatchSeq(0),
            synced: planted.is(Bug::FirstSyncNotAwaited).then_some(BatchSeq(0)),
            is_reading_again: false,
            has_failed: false,
            sync_due: None,
            outputs,
            #[cfg(feature = "planted-bugs")]
            stamps: Vec::new(),
            store: Metered::new(store),
        }
    }

    /// What this node's own coordinator asks.
    pub(crate) fn handle_local(&mut self, shard: &Shard, now: Now, id: RequestId, request: LocalRequest) {
        let outcome = match request {
            LocalRequest::Write(write) => self.write(shard, now, id, write),
            LocalRequest::Owe(owe) => {
                // Nobody waits for an answer.
                return match self.owe(shard, &owe) {
                    Ok(()) | Err(Trouble::Refused(_)) => {}
                    Err(Trouble::Store(error)) => self.fail(shard, error),
                };
            }
            LocalRequest::Restore(restore) => self.restore(shard, id, restore),
            LocalRequest::Replica(request) => return self.handle_request(shard, shard.node, id, request),
        };
        self.conclude(shard, shard.node, id, outcome);
    }

    /// What a coordinator asks, this node's own or another's.
    pub(crate) fn handle_request(&mut self, shard: &Shard, from: NodeId, id: RequestId, request: ReplicaRequest) {
        let outcome = match request {
            ReplicaRequest::Merge(merge) => self.merge(shard, from, id, merge),
            ReplicaRequest::Read(read) => self.read(shard, from, id, read),
            ReplicaRequest::Scan(scan) => self.line_up(shard, from, id, scan),
        };
        self.conclude(shard, from, id, outcome);
    }

    /// Answers a request that could not be done.
    fn conclude(&mut self, shard: &Shard, from: NodeId, id: RequestId, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => {}
            Err(Trouble::Refused(refusal)) => self.reply(from, id, Reply::Refused(refusal)),
            Err(Trouble::Store(error)) => {
                let damaged = matches!(error, StoreError::Damaged { .. });
                self.fail(shard, error);
                if damaged {
                    self.reply(from, id, Reply::Refused(Refusal::Damaged));
                }
            }
        }
    }

    /// Everything up to this batch is durable: answers what waited for it.
    pub(crate) fn handle_synced(&mut self, up_to: BatchSeq) {
        assert!(up_to <= self.applied, "a sync covers only what was applied");
        self.synced = self.synced.max(Some(up_to));
        while self.after_sync.front().is_some_and(|(seq, ..)| Some(*seq) <= self.synced)
            && let Some((_, to, id, reply)) = self.after_sync.pop_front()
        {
            self.reply(to, id, reply);
        }
    }

    /// Syncs what is due though nobody waits for it, and looks after the trees.
    pub(crate) fn handle_timeout(&mut self, shard: &Shard, now: Now) {
        if self.sync_due.is_some_and(|due| due <= now.instant) {
            self.ask_sync();
        }
        match self.trees.handle_timeout(now.instant, &self.store, &shard.metrics) {
            Ok(met) => {
                if met.drift {
                    // Headers in memory may be of what is no longer there, and a merge would take them at their word.
                    self.headers = HeaderCache::new(shard.limits.header_cache_bytes);
                }
                met.damage.into_iter().for_each(|error| self.fail(shard, error));
            }
            Err(error) => self.fail(shard, error),
        }
        if let Err(error) = self.hints.step(shard, now.instant, &self.store) {
            self.fail(shard, error);
        }
        self.ask_for_mending(now.instant);
    }

    /// Others know this much of a partition. If it includes writes by our own actor that it never stamped, the store
    /// has forgotten something: retire the actor before it names two writes alike.
    pub(crate) fn witness(&mut self, shard: &Shard, partition: PartitionId, vv: &VersionVector) {
        if let Some(actor) = self.actors.contradicted_by(partition, vv) {
            self.distrust(shard, partition, actor);
        }
    }

    fn distrust(&mut self, shard: &Shard, partition: PartitionId, actor: ActorId) {
        tracing::error!(%actor, %partition, "others know writes of our own actor that this store never stamped: \
            was the data directory rolled back or copied? The actor is retired");
        shard.metrics.actor_alarms.inc();
        self.actors.retire(partition);
        self.outputs.push_back(Output::Retired(actor));
    }

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
            let waiting = self.prove(shard, &mut turn);
            return self.release(shard, now, waiting);
        }
        match shard.planted.soften(self.store.apply(turn.batch(&self.actors))) {
            Ok(seq) => {
                assert!(seq > self.applied, "batches are numbered in order");
                self.applied = seq;
                shard.metrics.batches.inc();
                shard.metrics.batch_changes.inc_by((turn.changes.len() + turn.hints.len()) as u64);
                let waiting = self.prove(shard, &mut turn);
                for (record, change) in turn.changes {
                    if change.stored.is_empty() || !shard.planted.is(Bug::TreeDrift) {
                        self.trees.apply(&record, &change, &shard.metrics);
                    }
                    let is_stale = || self.headers.get(record.as_bytes()).is_some();
                    if !shard.planted.is_where(Bug::StaleHeaders, is_stale) {
                        self.headers.insert(record.to_bytes(), change.header);
                    }
                    if self.damage.restored(&record) {
                        self.go_on_with(shard, &record);
                    }
                }
                self.count_hints(shard, now.instant, turn.hints);
                self.release(shard, now, waiting);
            }
            Err(ApplyError::Full(reason)) => {
                tracing::warn!(reason, "a batch was refused for lack of room; nothing of it was applied");
                if turn.actors_before.is_empty() || !shard.planted.is(Bug::CounterSkipped) {
                    self.actors.restore(std::mem::take(&mut turn.actors_before));
                }
                if turn.write_ids == 0 || !shard.planted.is(Bug::RefusedIdRemembered) {
                    self.write_ids.forget_newest(turn.write_ids);
                }
                if shard.planted.is(Bug::CounterReused) {
                    return self.release(shard, now, turn.waiting);
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

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Replica::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.sync_due, self.trees.poll_timeout(), self.hints.poll_timeout(), self.damage.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The store underneath.
    pub(crate) fn store(&self) -> &S {
        self.store.inner()
    }

    /// The store underneath.
    pub(crate) fn store_mut(&mut self) -> &mut S {
        self.store.inner_mut()
    }

    /// Bytes read from it since the turn began.
    pub(crate) fn bytes_read(&self) -> usize {
        self.store.read()
    }

    /// The next turn begins.
    pub(crate) fn begin_turn(&self) {
        self.store.begin_turn();
    }

    fn write(&mut self, shard: &Shard, now: Now, id: RequestId, write: Write) -> Result<(), Trouble> {
        let mut located = shard.place(write.bucket, &write.key)?;
        let role = self.role(shard, &mut located, write.hint_for)?;
        let mut known = self.known(shard, &located)?;
        if known.merged.is_some() && shard.planted.is(Bug::StampWithoutHints) {
            known.merged = None;
        }
        let intent = self.write_ids.intent(&located.record, &write);
        if let Some(dot) = self.write_ids.recognise(now.instant, known.header(), &intent)?
            && !shard.planted.is(Bug::RetryDuplicates)
        {
            shard.metrics.retries_recognised.inc();
            if !known.header().covers(dot) && !shard.planted.is(Bug::RememberedIdWithoutCover) {
                self.reply(shard.node, id, Reply::Lost);
                return Ok(());
            }
            let siblings = self.everything(shard, &located, &known)?;
            let made = Made::Stamped(Stamped { dot, siblings: siblings.clone() });
            #[cfg(feature = "planted-bugs")]
            if self.forgets_to_hold(shard, &located.record, role, &siblings)? {
                return self.wait_for_write(shard, id, &located, &write, role, made);
            }
            self.hold(shard, &located, &write, role, siblings)?;
            return self.wait_for_write(shard, id, &located, &write, role, made);
        }
        self.witness(shard, located.partition, &write.context.vv);
        let header = known.header();
        if !stamp::is_due(located.bucket, header, &write) {
            let covered = stamp::covered(header, &write);
            self.hold(shard, &located, &write, role, covered.siblings.clone())?;
            return self.wait_for_write(shard, id, &located, &write, role, Made::Covered(covered));
        }
        let Located { bucket, partition, .. } = located;
        let nothing = Context::default();
        let is_ahead = write.context.written_at > now.wall.max(header.written_at());
        let read = if is_ahead && shard.planted.is(Bug::StampBeforeContext) { &nothing } else { &write.context };
        let written_at = stamp::written_at(now.wall, header, read);
        shard.metrics.stamps_ahead.inc_by(stamp::is_ahead(written_at, now.wall, shard.limits.clock_off_max).into());
        stamp::check_room(header, &write, &shard.limits)?;

        let mut siblings = if header.survivors(&write.context.vv).next().is_none() {
            Siblings::from_parts(header.vv().clone(), Vec::new()).expect("no live write needs cover")
        } else {
            self.everything(shard, &located, &known)?
        };
        self.turn.actors_before.entry(partition).or_insert_with(|| self.actors.get(partition));
        let mut dot = self.actors.next_dot(partition);
        while siblings.covers(dot) || write.context.vv.covers(dot) {
            // The client or peer that made that up may have named an actor before it was drawn here.
            self.distrust(shard, partition, dot.actor);
            dot = self.actors.next_dot(partition);
        }
        let counter_read = write.context.vv.counter(dot.actor) + 1;
        if counter_read != dot.counter && shard.planted.is(Bug::DotFromContext) {
            dot.counter = counter_read;
        }
        let replaces = || siblings.live().iter().any(|(dot, _)| write.context.vv.covers(*dot));
        let unseen = || write.value.is_none() && header.live().iter().any(|(dot, _)| !write.context.vv.covers(*dot));
        let unseen = shard.planted.is_where(Bug::DeleteUnseen, unseen).then(|| header.vv().clone());
        let stands = shard.planted.is_where(Bug::FalseSiblings, replaces);
        let mut replaced = if stands { &nothing.vv } else { unseen.as_ref().unwrap_or(&write.context.vv) };
        let mut held;
        if bucket.conflict == Conflict::Lww && written_at <= header.written_at() {
            // At the end of time no stamp is later than what is held, and the dots would decide against one in two.
            held = siblings.vv().clone();
            held.join(replaced);
            replaced = &held;
        }
        siblings.event(replaced, dot, stamp::version(&write, written_at));
        self.settle(shard, bucket, &mut siblings);
        self.turn.write_ids += 1;
        self.write_ids.remember(now.instant, &intent, dot);
        match role {
            Role::Owner { .. } => {
                self.turn.put(located.record.clone(), write.bucket, &write.key, known.own, siblings.clone());
            }
            Role::StandIn { target } => {
                self.keep_for(shard, target, &located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.note_owed(shard, &located, &write, role, &siblings)?;
        let made = Made::Stamped(Stamped { dot, siblings });
        if shard.planted.is(Bug::StampedBeforeApplied) {
            self.outputs.push_back(Output::Made { id, made: made.clone() });
        }
        self.wait_for_write(shard, id, &located, &write, role, made)
    }

    /// Nothing new was stamped: makes sure that what is answered is held here for the slot that the answer fills. A
    /// stand-in may have it for another primary, an owner as a copy that an older ring has left.
    fn hold(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        write: &Write,
        role: Role,
        siblings: Siblings,
    ) -> Result<(), StoreError> {
        if siblings.is_empty() {
            return Ok(());
        }
        match role {
            Role::Owner { .. } => drop(self.take_in(shard, located, &write.key, siblings.clone())?),
            Role::StandIn { target } => {
                self.keep_for(shard, target, located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.note_owed(shard, located, write, role, &siblings)
    }

    fn wait_for_write(
        &mut self,
        shard: &Shard,
        id: RequestId,
        located: &Located<'_>,
        write: &Write,
        role: Role,
        made: Made,
    ) -> Result<(), Trouble> {
        let (place, durability) = (role.place(located), located.bucket.durability);
        let waits = Waits::Write { made, write_id: write.write_id, place, durability };
        self.turn.wait(Waiting { to: shard.node, id, waits });
        Ok(())
    }

    fn merge(&mut self, shard: &Shard, from: NodeId, id: RequestId, merge: Merge) -> Result<(), Trouble> {
        let mut located = shard.place(merge.bucket, &merge.key)?;
        match merge.purpose {
            // A client waits for these, or their sender forgets them: they must not wait until a record is restored.
            Purpose::Write | Purpose::Handoff => self.check_load(shard, merge.purpose)?,
            Purpose::ReadRepair | Purpose::AntiEntropy => {
                self.check_load(shard, merge.purpose)?;
                self.check_sound(&located.record)?;
            }
        }
        let role = self.role(shard, &mut located, merge.hint_for)?;
        self.witness(shard, located.partition, merge.siblings.vv());
        let (merged, place) = (merge.siblings.vv().clone(), role.place(&located));
        let mut durability = match merge.purpose {
            // The hint goes away on the strength of this answer.
            Purpose::Handoff
                if located.bucket.durability == Durability::Sync
                    || !shard.planted.is(Bug::HandoffAckedAsBucketAsks) =>
            {
                Durability::Sync
            }
            _ => located.bucket.durability,
        };
        match role {
            Role::Owner { .. } if shard.planted.replaces(merge.purpose) => {
                let before = self.header(shard, &located.record)?;
                if !merge.siblings.includes(&*before) {
                    shard.planted.hit();
                }
                let changed = !before.includes(&merge.siblings);
                shard.metrics.aae_keys_repaired.inc_by(u64::from(changed && merge.purpose == Purpose::AntiEntropy));
                self.turn.put(located.record, merge.bucket, &merge.key, before, merge.siblings);
            }
            Role::Owner { owes } => {
                self.check_size(shard, &located, &merge.siblings)?;
                let changed = self.take_in(shard, &located, &merge.key, merge.siblings)?;
                shard.metrics.aae_keys_repaired.inc_by(u64::from(changed && merge.purpose == Purpose::AntiEntropy));
                if !changed && durability == Durability::Sync && shard.planted.is(Bug::NoopAckBeforeSync) {
                    durability = Durability::Buffered;
                }
                if let Some(target) = owes {
                    self.mark(shard, target, &located)?;
                }
            }
            Role::StandIn { target } => {
                let (siblings, bytes) = (merge.siblings.live().len() as u32, merge.siblings.value_bytes() as u64);
                if !self.keep_for(shard, target, &located, &merge.key, merge.siblings, shard.limits.state_bytes_max)? {
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
    fn check_size(&mut self, shard: &Shard, located: &Located<'_>, incoming: &Siblings) -> Result<(), Trouble> {
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
    fn take_in(
        &mut self,
        shard: &Shard,
        located: &Located<'_>,
        key: &Key,
        mut merged: Siblings,
    ) -> Result<bool, StoreError> {
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
        self.settle(shard, bucket, &mut merged);
        self.turn.put(record.clone(), bucket.id, key, header, merged);
        Ok(true)
    }

    fn read(&mut self, shard: &Shard, from: NodeId, id: RequestId, read: Read) -> Result<(), Trouble> {
        let located = self.locate(shard, read.bucket, &read.key)?;
        let mut known = self.known(shard, &located)?;
        if read.durable && located.is_mine {
            // A strict read counts slots, and what fills an owner's is its record.
            known.merged = None;
        }
        let state = match read.want {
            Want::Full => State::Full(self.everything(shard, &located, &known)?),
            Want::Header => State::Header(known.header().clone()),
        };
        let reply = Reply::State(state);
        let durability = if read.durable { located.bucket.durability } else { Durability::Buffered };
        if self.turn.has_changes() && !shard.planted.is(Bug::ReadBeforeApplied) {
            self.turn.wait(Waiting { to: from, id, waits: Waits::Read { reply, durability, again: read } });
        } else {
            self.reply_once(shard, durability, from, id, reply);
        }
        Ok(())
    }

    /// Applies the bucket's conflict policy to a merged state.
    fn settle(&self, shard: &Shard, bucket: &BucketDefinition, siblings: &mut Siblings) {
        if bucket.conflict == Conflict::Lww || (siblings.live().len() > 1 && shard.planted.is(Bug::LastWriteWins)) {
            shard.metrics.lww_discarded.inc_by(siblings.keep_last() as u64);
        }
    }

    /// Where a key is, unless its record is damaged.
    fn locate<'a>(&self, shard: &'a Shard, bucket: BucketId, key: &Key) -> Result<Located<'a>, Trouble> {
        let located = shard.place(bucket, key)?;
        self.check_sound(&located.record)?;
        Ok(located)
    }

    /// What is held of a key, without values: from this turn's batch, the cache, or the store.
    fn header(&mut self, shard: &Shard, record: &RecordKey) -> Result<Arc<Header>, StoreError> {
        if let Some(change) = self.turn.changes.get(record)
            && !shard.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.header.clone());
        }
        if let Some(header) = self.headers.get(record.as_bytes()) {
            shard.metrics.header_hits.inc();
            return Ok(header);
        }
        shard.metrics.header_misses.inc();
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(shard, record) {
            return Ok(Arc::new(state.header()));
        }
        match shard.planted.forgive(self.store.get(record.as_bytes()))? {
            None => Ok(Arc::default()),
            Some(value) => {
                let header = Arc::new(shard.planted.forgive(record::read_header(record, &value))?);
                self.headers.insert(record.to_bytes(), header.clone());
                Ok(header)
            }
        }
    }

    /// What is held of a key: from this turn's batch, or the store.
    fn siblings(&self, shard: &Shard, record: &RecordKey) -> Result<Siblings, StoreError> {
        if let Some(change) = self.turn.changes.get(record)
            && !shard.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.siblings.clone());
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(shard, record) {
            return Ok(state);
        }
        let stored = shard.planted.forgive(self.store.get(record.as_bytes()))?;
        stored.map_or_else(|| Ok(Siblings::new()), |value| shard.planted.forgive(record::read_state(record, value)))
    }

    /// Refuses before anything is applied, when too many answers wait for the disk already. What no client waits for
    /// gives way first.
    fn check_load(&self, shard: &Shard, purpose: Purpose) -> Result<(), Refusal> {
        let waiting = self.after_sync.len() + self.turn.waiting.len();
        let most = shard.limits.replica_waiting_max;
        if waiting < if purpose.is_urgent() { most } else { most / 2 } {
            return Ok(());
        }
        shard.metrics.overloaded.inc();
        Err(Refusal::Overloaded { retry_after_ms: shard.limits.retry_after.as_millis() as u32 })
    }

    /// The answers of a turn whose batch is applied. An answer that says more than what is held is a bug in here: it turns into
    /// "not done, and perhaps with effect", so that nothing is acknowledged that is stored nowhere.
    fn prove(&mut self, shard: &Shard, turn: &mut Turn) -> Vec<Waiting> {
        let mut waiting = std::mem::take(&mut turn.waiting);
        let is_unproven = |waiting: &mut Waiting| !turn.proves(&waiting.waits) && !shard.planted.is_asserted_away();
        for Waiting { to, id, .. } in waiting.extract_if(.., is_unproven).collect::<Vec<_>>() {
            shard.metrics.acks_unproven.inc();
            tracing::error!(%to, ?id, "what was to be acknowledged is not what is held: this is a bug, please report it");
            debug_assert!(false, "an acknowledged state holds what it is acknowledged for");
            self.reply(to, id, Reply::Lost);
        }
        waiting
    }

    /// The turn's batch is applied: what may leave leaves, what promises durability waits for the sync.
    fn release(&mut self, shard: &Shard, now: Now, waiting: Vec<Waiting>) {
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
        if self.applied > self.sync_asked && self.sync_due.is_none() {
            self.sync_due = Some(now.instant + shard.limits.buffered_sync_interval);
        }
    }

    /// Answers once everything applied so far is as durable as that: also an acknowledgement of "nothing changed" may
    /// rest on the newest batch.
    fn reply_once(&mut self, shard: &Shard, durability: Durability, to: NodeId, id: RequestId, reply: Reply) {
        match durability {
            Durability::Sync if self.synced < Some(self.applied) && !shard.planted.is_rash(&reply) => {
                self.after_sync.push_back((self.applied, to, id, reply));
                if self.applied > self.sync_asked {
                    self.ask_sync();
                }
            }
            Durability::Sync | Durability::Buffered => self.reply(to, id, reply),
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
                Waits::Read { again, .. } => self.handle_read_again(shard, to, id, again),
            }
        }
    }

    /// There is no room: a read must not want to write again what was just refused.
    fn handle_read_again(&mut self, shard: &Shard, to: NodeId, id: RequestId, read: Read) {
        self.is_reading_again = true;
        let outcome = self.read(shard, to, id, read);
        self.is_reading_again = false;
        match outcome {
            Ok(()) => {}
            Err(Trouble::Store(StoreError::Damaged { .. })) => self.reply(to, id, Reply::Refused(Refusal::Damaged)),
            Err(Trouble::Refused(refusal)) => self.reply(to, id, Reply::Refused(refusal)),
            Err(Trouble::Store(error)) => self.fail(shard, error),
        }
    }

    fn ask_sync(&mut self) {
        self.sync_due = None;
        self.sync_asked = self.applied;
        self.outputs.push_back(Output::Sync(self.applied));
    }

    fn reply(&mut self, to: NodeId, id: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply { to, id, reply });
    }
}

/// Why a request ends early.
enum Trouble {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(refusal)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}
