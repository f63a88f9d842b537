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
    ActorId, BucketDefinition, BucketId, Conflict, Context, Durability, Header, Key, Refusal, Siblings, Topology,
    VersionVector,
};
use driftless_ring::{NodeId, PartitionId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Limits;
use crate::engine::EngineConfig;
use crate::metrics::Metrics;
use crate::peer::{Merge, Purpose, Read, ReplicaRequest, Reply, RequestId, Scan, State, Want};
use crate::planted::{Bug, Planted};
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
    node: NodeId,
    shard: u16,
    topology: Arc<Topology>,
    limits: Limits,
    metrics: Arc<Metrics>,
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
    planted: Planted,
}

/// A key with everything that follows from it.
struct Located<'a> {
    bucket: &'a BucketDefinition,
    partition: PartitionId,
    record: RecordKey,
    /// Whether this node stores the key.
    is_mine: bool,
}

impl<S: Store> Replica<S> {
    /// A replica that has just started: every actor is new.
    pub(crate) fn new(config: &EngineConfig, store: S, mut rng: StdRng, now: Now) -> Replica<S> {
        let EngineConfig { node, shard, topology, limits, metrics, planted, .. } = config;
        let mine = |partition: &PartitionId| topology.shard_of(*node, *partition) == *shard;
        let owned = topology.ring().owned(*node).filter(mine);
        let (partitions, scrub) = (topology.ring().partitions(), limits.aae.scrub_interval);
        let trees_rng = StdRng::from_rng(&mut rng);
        let trees = Trees::new(partitions, owned, limits.turn, scrub, now.instant, trees_rng, metrics);
        let (hints, unreadable) = match Hints::new(config, &store, now.instant) {
            Ok(hints) => (hints, None),
            Err(error) => (Hints::none(config, now.instant), Some(Output::Halt(error.to_string()))),
        };
        let owes = hints.tallies().map(|(target, _)| Output::Owes(target));
        let owes = owes.filter(|_| !planted.is(Bug::HintsForgottenAtStart));
        let outputs = [Output::Sync(BatchSeq(0))].into_iter().chain(owes).chain(unreadable).collect();
        Replica {
            node: *node,
            shard: *shard,
            #[cfg(not(feature = "planted-bugs"))]
            actors: Actors::new(rng),
            #[cfg(feature = "planted-bugs")]
            actors: mistakes::actors(planted, &store, rng),
            write_ids: WriteIds::new(limits.write_ids_max, limits.write_ids_age, xxh3_64(&config.seed)),
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
            topology: topology.clone(),
            limits: limits.clone(),
            metrics: metrics.clone(),
            planted: planted.clone(),
            store: Metered::new(store),
        }
    }

    /// What this node's own coordinator asks.
    pub(crate) fn handle_local(&mut self, now: Now, id: RequestId, request: LocalRequest) {
        let outcome = match request {
            LocalRequest::Write(write) => self.write(now, id, write),
            LocalRequest::Owe(owe) => {
                // Nobody waits for an answer.
                return match self.owe(&owe) {
                    Ok(()) | Err(Trouble::Refused(_)) => {}
                    Err(Trouble::Store(error)) => self.fail(error),
                };
            }
            LocalRequest::Restore(restore) => self.restore(id, restore),
            LocalRequest::Replica(request) => return self.handle_request(self.node, id, request),
        };
        self.conclude(self.node, id, outcome);
    }

    /// What a coordinator asks, this node's own or another's.
    pub(crate) fn handle_request(&mut self, from: NodeId, id: RequestId, request: ReplicaRequest) {
        let outcome = match request {
            ReplicaRequest::Merge(merge) => self.merge(from, id, merge),
            ReplicaRequest::Read(read) => self.read(from, id, read),
            ReplicaRequest::Scan(scan) => self.line_up(from, id, scan),
        };
        self.conclude(from, id, outcome);
    }

    /// Answers a request that could not be done.
    fn conclude(&mut self, from: NodeId, id: RequestId, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => {}
            Err(Trouble::Refused(refusal)) => self.reply(from, id, Reply::Refused(refusal)),
            Err(Trouble::Store(error)) => {
                let damaged = matches!(error, StoreError::Damaged { .. });
                self.fail(error);
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
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if self.sync_due.is_some_and(|due| due <= now.instant) {
            self.ask_sync();
        }
        match self.trees.handle_timeout(now.instant, &self.store, &self.metrics) {
            Ok(met) => {
                if met.drift {
                    // Headers in memory may be of what is no longer there, and a merge would take them at their word.
                    self.headers = HeaderCache::new(self.limits.header_cache_bytes);
                }
                met.damage.into_iter().for_each(|error| self.fail(error));
            }
            Err(error) => self.fail(error),
        }
        if let Err(error) = self.hints.step(now.instant, &self.store, &self.metrics) {
            self.fail(error);
        }
        self.ask_for_mending(now.instant);
    }

    /// Others know this much of a partition. If it includes writes by our own actor that it never stamped, the store
    /// has forgotten something: retire the actor before it names two writes alike.
    pub(crate) fn witness(&mut self, partition: PartitionId, vv: &VersionVector) {
        if let Some(actor) = self.actors.contradicted_by(partition, vv) {
            self.distrust(partition, actor);
        }
    }

    fn distrust(&mut self, partition: PartitionId, actor: ActorId) {
        tracing::error!(%actor, %partition, "others know writes of our own actor that this store never stamped: \
            was the data directory rolled back or copied? The actor is retired");
        self.metrics.actor_alarms.inc();
        self.actors.retire(partition);
        self.outputs.push_back(Output::Retired(actor));
    }

    /// Whether there is something to commit.
    pub(crate) fn has_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Applies what this turn has built, and answers what waited for that.
    pub(crate) fn commit(&mut self, now: Now) {
        if self.turn.is_empty() {
            return;
        }
        #[cfg(feature = "planted-bugs")]
        if self.planted.may_be(Bug::TimerReaping) {
            self.reap_tombstones(now);
        }
        let mut turn = std::mem::take(&mut self.turn);
        if self.has_failed {
            // What broke off half way is in it as well: a counter, say, without the write that it counted.
            return;
        }
        if !turn.has_changes() {
            let waiting = self.prove(&mut turn);
            return self.release(now, waiting);
        }
        match self.planted.soften(self.store.apply(turn.batch(&self.actors))) {
            Ok(seq) => {
                assert!(seq > self.applied, "batches are numbered in order");
                self.applied = seq;
                self.metrics.batches.inc();
                self.metrics.batch_changes.inc_by((turn.changes.len() + turn.hints.len()) as u64);
                let waiting = self.prove(&mut turn);
                for (record, change) in turn.changes {
                    if change.stored.is_empty() || !self.planted.is(Bug::TreeDrift) {
                        self.trees.apply(&record, &change, &self.metrics);
                    }
                    let is_stale = || self.headers.get(record.as_bytes()).is_some();
                    if !self.planted.is_where(Bug::StaleHeaders, is_stale) {
                        self.headers.insert(record.to_bytes(), change.header);
                    }
                    if self.damage.restored(&record) {
                        self.go_on_with(&record);
                    }
                }
                self.count_hints(now.instant, turn.hints);
                self.release(now, waiting);
            }
            Err(ApplyError::Full(reason)) => {
                tracing::warn!(reason, "a batch was refused for lack of room; nothing of it was applied");
                if turn.actors_before.is_empty() || !self.planted.is(Bug::CounterSkipped) {
                    self.actors.restore(std::mem::take(&mut turn.actors_before));
                }
                if turn.write_ids == 0 || !self.planted.is(Bug::RefusedIdRemembered) {
                    self.write_ids.forget_newest(turn.write_ids);
                }
                if self.planted.is(Bug::CounterReused) {
                    return self.release(now, turn.waiting);
                }
                self.refuse(std::mem::take(&mut turn.waiting));
                self.remove_all_the_same(now, turn);
            }
            Err(ApplyError::Failed(error)) => {
                // It may have been applied.
                #[cfg(feature = "planted-bugs")]
                self.show_stamps(&turn.waiting);
                self.fail(error);
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

    fn write(&mut self, now: Now, id: RequestId, write: Write) -> Result<(), Trouble> {
        let topology = self.topology.clone();
        let mut located = self.place(&topology, write.bucket, &write.key)?;
        let role = self.role(&mut located, write.hint_for)?;
        let mut known = self.known(&located)?;
        if known.merged.is_some() && self.planted.is(Bug::StampWithoutHints) {
            known.merged = None;
        }
        let intent = self.write_ids.intent(&located.record, &write);
        if let Some(dot) = self.write_ids.recognise(now.instant, known.header(), &intent)?
            && !self.planted.is(Bug::RetryDuplicates)
        {
            self.metrics.retries_recognised.inc();
            if !known.header().covers(dot) && !self.planted.is(Bug::RememberedIdWithoutCover) {
                self.reply(self.node, id, Reply::Lost);
                return Ok(());
            }
            let siblings = self.everything(&located, &known)?;
            let made = Made::Stamped(Stamped { dot, siblings: siblings.clone() });
            #[cfg(feature = "planted-bugs")]
            if self.forgets_to_hold(&located.record, role, &siblings)? {
                return self.wait_for_write(id, &located, &write, role, made);
            }
            self.hold(&located, &write, role, siblings)?;
            return self.wait_for_write(id, &located, &write, role, made);
        }
        self.witness(located.partition, &write.context.vv);
        let header = known.header();
        if !stamp::is_due(located.bucket, header, &write) {
            let covered = stamp::covered(header, &write);
            self.hold(&located, &write, role, covered.siblings.clone())?;
            return self.wait_for_write(id, &located, &write, role, Made::Covered(covered));
        }
        let Located { bucket, partition, .. } = located;
        let nothing = Context::default();
        let is_ahead = write.context.written_at > now.wall.max(header.written_at());
        let read = if is_ahead && self.planted.is(Bug::StampBeforeContext) { &nothing } else { &write.context };
        let written_at = stamp::written_at(now.wall, header, read);
        self.metrics.stamps_ahead.inc_by(stamp::is_ahead(written_at, now.wall, self.limits.clock_off_max).into());
        stamp::check_room(header, &write, &self.limits)?;

        let mut siblings = if header.survivors(&write.context.vv).next().is_none() {
            Siblings::from_parts(header.vv().clone(), Vec::new()).expect("no live write needs cover")
        } else {
            self.everything(&located, &known)?
        };
        self.turn.actors_before.entry(partition).or_insert_with(|| self.actors.get(partition));
        let mut dot = self.actors.next_dot(partition);
        while siblings.covers(dot) || write.context.vv.covers(dot) {
            // The client or peer that made that up may have named an actor before it was drawn here.
            self.distrust(partition, dot.actor);
            dot = self.actors.next_dot(partition);
        }
        let counter_read = write.context.vv.counter(dot.actor) + 1;
        if counter_read != dot.counter && self.planted.is(Bug::DotFromContext) {
            dot.counter = counter_read;
        }
        let replaces = || siblings.live().iter().any(|(dot, _)| write.context.vv.covers(*dot));
        let unseen = || write.value.is_none() && header.live().iter().any(|(dot, _)| !write.context.vv.covers(*dot));
        let unseen = self.planted.is_where(Bug::DeleteUnseen, unseen).then(|| header.vv().clone());
        let stands = self.planted.is_where(Bug::FalseSiblings, replaces);
        let mut replaced = if stands { &nothing.vv } else { unseen.as_ref().unwrap_or(&write.context.vv) };
        let mut held;
        if bucket.conflict == Conflict::Lww && written_at <= header.written_at() {
            // At the end of time no stamp is later than what is held, and the dots would decide against one in two.
            held = siblings.vv().clone();
            held.join(replaced);
            replaced = &held;
        }
        siblings.event(replaced, dot, stamp::version(&write, written_at));
        self.settle(bucket, &mut siblings);
        self.turn.write_ids += 1;
        self.write_ids.remember(now.instant, &intent, dot);
        match role {
            Role::Owner { .. } => {
                self.turn.put(located.record.clone(), write.bucket, &write.key, known.own, siblings.clone());
            }
            Role::StandIn { target } => {
                self.keep_for(target, &located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.note_owed(&located, &write, role, &siblings)?;
        let made = Made::Stamped(Stamped { dot, siblings });
        if self.planted.is(Bug::StampedBeforeApplied) {
            self.outputs.push_back(Output::Made { id, made: made.clone() });
        }
        self.wait_for_write(id, &located, &write, role, made)
    }

    /// Nothing new was stamped: makes sure that what is answered is held here for the slot that the answer fills. A
    /// stand-in may have it for another primary, an owner as a copy that an older ring has left.
    fn hold(&mut self, located: &Located<'_>, write: &Write, role: Role, siblings: Siblings) -> Result<(), StoreError> {
        if siblings.is_empty() {
            return Ok(());
        }
        match role {
            Role::Owner { .. } => drop(self.take_in(located, &write.key, siblings.clone())?),
            Role::StandIn { target } => {
                self.keep_for(target, located, &write.key, siblings.clone(), usize::MAX)?;
            }
        }
        self.note_owed(located, write, role, &siblings)
    }

    fn wait_for_write(
        &mut self,
        id: RequestId,
        located: &Located<'_>,
        write: &Write,
        role: Role,
        made: Made,
    ) -> Result<(), Trouble> {
        let (place, durability) = (role.place(located), located.bucket.durability);
        let waits = Waits::Write { made, write_id: write.write_id, place, durability };
        self.turn.wait(Waiting { to: self.node, id, waits });
        Ok(())
    }

    fn merge(&mut self, from: NodeId, id: RequestId, merge: Merge) -> Result<(), Trouble> {
        let topology = self.topology.clone();
        let mut located = self.place(&topology, merge.bucket, &merge.key)?;
        match merge.purpose {
            // A client waits for these, or their sender forgets them: they must not wait until a record is restored.
            Purpose::Write | Purpose::Handoff => self.check_load(merge.purpose)?,
            Purpose::ReadRepair | Purpose::AntiEntropy => {
                self.check_load(merge.purpose)?;
                self.check_sound(&located.record)?;
            }
        }
        let role = self.role(&mut located, merge.hint_for)?;
        self.witness(located.partition, merge.siblings.vv());
        let (merged, place) = (merge.siblings.vv().clone(), role.place(&located));
        let mut durability = match merge.purpose {
            // The hint goes away on the strength of this answer.
            Purpose::Handoff
                if located.bucket.durability == Durability::Sync || !self.planted.is(Bug::HandoffAckedAsBucketAsks) =>
            {
                Durability::Sync
            }
            _ => located.bucket.durability,
        };
        match role {
            Role::Owner { .. } if self.planted.replaces(merge.purpose) => {
                let before = self.header(&located.record)?;
                if !merge.siblings.includes(&*before) {
                    self.planted.hit();
                }
                let changed = !before.includes(&merge.siblings);
                self.metrics.aae_keys_repaired.inc_by(u64::from(changed && merge.purpose == Purpose::AntiEntropy));
                self.turn.put(located.record, merge.bucket, &merge.key, before, merge.siblings);
            }
            Role::Owner { owes } => {
                self.check_size(&located, &merge.siblings)?;
                let changed = self.take_in(&located, &merge.key, merge.siblings)?;
                self.metrics.aae_keys_repaired.inc_by(u64::from(changed && merge.purpose == Purpose::AntiEntropy));
                if !changed && durability == Durability::Sync && self.planted.is(Bug::NoopAckBeforeSync) {
                    durability = Durability::Buffered;
                }
                if let Some(target) = owes {
                    self.mark(target, &located)?;
                }
            }
            Role::StandIn { target } => {
                let (siblings, bytes) = (merge.siblings.live().len() as u32, merge.siblings.value_bytes() as u64);
                if !self.keep_for(target, &located, &merge.key, merge.siblings, self.limits.state_bytes_max)? {
                    return Err(Refusal::TooManySiblings { siblings, bytes }.into());
                }
                if durability == Durability::Sync && self.planted.is(Bug::HintAckedInMemory) {
                    durability = Durability::Buffered;
                }
            }
        }
        self.turn.wait(Waiting { to: from, id, waits: Waits::Ack { merged, place, durability } });
        Ok(())
    }

    /// Refuses a merge that would leave more of a key than a replica keeps. Nothing is lost by it: the node that sent it
    /// keeps what it has, a read brings both together, and a write that has seen that leaves less.
    fn check_size(&mut self, located: &Located<'_>, incoming: &Siblings) -> Result<(), Trouble> {
        let max = self.limits.state_bytes_max;
        let held = self.header(&located.record)?;
        if held.value_bytes() + incoming.value_bytes() <= max || located.bucket.conflict == Conflict::Lww {
            return Ok(());
        }
        let mut merged = Header::clone(&held);
        merged.merge(&incoming.header());
        let bytes = merged.value_bytes();
        if bytes > max && bytes > held.value_bytes() {
            self.metrics.merges_too_large.inc();
            return Err(Refusal::TooManySiblings { siblings: merged.live().len() as u32, bytes: bytes as u64 }.into());
        }
        Ok(())
    }

    /// Merges into the own record. Whether that changed anything.
    fn take_in(&mut self, located: &Located<'_>, key: &Key, mut merged: Siblings) -> Result<bool, StoreError> {
        let Located { bucket, record, .. } = located;
        let header = self.header(record)?;
        if header.includes(&merged) {
            self.metrics.merges_unchanged.inc();
            return Ok(false);
        }
        if !merged.merge_header(&header) {
            // Some value of ours survives: it has to be read.
            merged.merge(&self.siblings(record)?);
        }
        self.settle(bucket, &mut merged);
        self.turn.put(record.clone(), bucket.id, key, header, merged);
        Ok(true)
    }

    fn read(&mut self, from: NodeId, id: RequestId, read: Read) -> Result<(), Trouble> {
        let topology = self.topology.clone();
        let located = self.locate(&topology, read.bucket, &read.key)?;
        let mut known = self.known(&located)?;
        if read.durable && located.is_mine {
            // A strict read counts slots, and what fills an owner's is its record.
            known.merged = None;
        }
        let state = match read.want {
            Want::Full => State::Full(self.everything(&located, &known)?),
            Want::Header => State::Header(known.header().clone()),
        };
        let reply = Reply::State(state);
        let durability = if read.durable { located.bucket.durability } else { Durability::Buffered };
        if self.turn.has_changes() && !self.planted.is(Bug::ReadBeforeApplied) {
            self.turn.wait(Waiting { to: from, id, waits: Waits::Read { reply, durability, again: read } });
        } else {
            self.reply_once(durability, from, id, reply);
        }
        Ok(())
    }

    /// Applies the bucket's conflict policy to a merged state.
    fn settle(&self, bucket: &BucketDefinition, siblings: &mut Siblings) {
        if bucket.conflict == Conflict::Lww || (siblings.live().len() > 1 && self.planted.is(Bug::LastWriteWins)) {
            self.metrics.lww_discarded.inc_by(siblings.keep_last() as u64);
        }
    }

    /// Where a key is, unless its record is damaged.
    fn locate<'a>(&self, topology: &'a Topology, bucket: BucketId, key: &Key) -> Result<Located<'a>, Trouble> {
        let located = self.place(topology, bucket, key)?;
        self.check_sound(&located.record)?;
        Ok(located)
    }

    fn place<'a>(&self, topology: &'a Topology, bucket: BucketId, key: &Key) -> Result<Located<'a>, Trouble> {
        let bucket = topology.bucket(bucket).ok_or(Refusal::NoSuchBucket)?;
        let place = topology.place(bucket, key);
        self.assert_mine(place.partition)?;
        let is_mine = topology.ring().owns(self.node, place.partition);
        let record = RecordKey::new(place.partition.n, place.token, bucket.id, key);
        Ok(Located { bucket, partition: place.partition, record, is_mine })
    }

    /// Shards share a store and nothing else. Two of them that wrote one key would each know of its own batch, cache,
    /// tree and actor, and not of the other's: an acknowledged write would be gone.
    fn assert_mine(&self, partition: PartitionId) -> Result<(), Trouble> {
        let owner = self.topology.shard_of(self.node, partition);
        if owner == self.shard {
            return Ok(());
        }
        let shard = self.shard;
        tracing::error!(%partition, shard, owner, "a shard was given a key of another one: refusing it");
        self.metrics.protocol_violations.inc();
        debug_assert_eq!(shard, owner, "a shard was given a key of another one, of {partition}");
        Err(self.not_owner())
    }

    fn not_owner(&self) -> Trouble {
        Trouble::Refused(Refusal::NotOwner { ring_version: self.topology.ring().version().0 })
    }

    /// What is held of a key, without values: from this turn's batch, the cache, or the store.
    fn header(&mut self, record: &RecordKey) -> Result<Arc<Header>, StoreError> {
        if let Some(change) = self.turn.changes.get(record)
            && !self.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.header.clone());
        }
        if let Some(header) = self.headers.get(record.as_bytes()) {
            self.metrics.header_hits.inc();
            return Ok(header);
        }
        self.metrics.header_misses.inc();
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(record) {
            return Ok(Arc::new(state.header()));
        }
        match self.planted.forgive(self.store.get(record.as_bytes()))? {
            None => Ok(Arc::default()),
            Some(value) => {
                let header = Arc::new(self.planted.forgive(record::read_header(record, &value))?);
                self.headers.insert(record.to_bytes(), header.clone());
                Ok(header)
            }
        }
    }

    /// What is held of a key: from this turn's batch, or the store.
    fn siblings(&self, record: &RecordKey) -> Result<Siblings, StoreError> {
        if let Some(change) = self.turn.changes.get(record)
            && !self.planted.is(Bug::NoReadThrough)
        {
            return Ok(change.siblings.clone());
        }
        #[cfg(feature = "planted-bugs")]
        if let Some(state) = self.as_it_is(record) {
            return Ok(state);
        }
        let stored = self.planted.forgive(self.store.get(record.as_bytes()))?;
        stored.map_or_else(|| Ok(Siblings::new()), |value| self.planted.forgive(record::read_state(record, value)))
    }

    /// Refuses before anything is applied, when too many answers wait for the disk already. What no client waits for
    /// gives way first.
    fn check_load(&self, purpose: Purpose) -> Result<(), Refusal> {
        let waiting = self.after_sync.len() + self.turn.waiting.len();
        let most = self.limits.replica_waiting_max;
        if waiting < if purpose.is_urgent() { most } else { most / 2 } {
            return Ok(());
        }
        self.metrics.overloaded.inc();
        Err(Refusal::Overloaded { retry_after_ms: self.limits.retry_after.as_millis() as u32 })
    }

    /// The answers of a turn whose batch is applied. An answer that says more than what is held is a bug in here: it turns into
    /// "not done, and perhaps with effect", so that nothing is acknowledged that is stored nowhere.
    fn prove(&mut self, turn: &mut Turn) -> Vec<Waiting> {
        let mut waiting = std::mem::take(&mut turn.waiting);
        let is_unproven = |waiting: &mut Waiting| !turn.proves(&waiting.waits) && !self.planted.is_asserted_away();
        for Waiting { to, id, .. } in waiting.extract_if(.., is_unproven).collect::<Vec<_>>() {
            self.metrics.acks_unproven.inc();
            tracing::error!(%to, ?id, "what was to be acknowledged is not what is held: this is a bug, please report it");
            debug_assert!(false, "an acknowledged state holds what it is acknowledged for");
            self.reply(to, id, Reply::Lost);
        }
        waiting
    }

    /// The turn's batch is applied: what may leave leaves, what promises durability waits for the sync.
    fn release(&mut self, now: Now, waiting: Vec<Waiting>) {
        #[cfg(feature = "planted-bugs")]
        self.show_stamps(&waiting);
        for Waiting { to, id, waits } in waiting {
            match waits {
                Waits::Read { reply, durability, .. } => self.reply_once(durability, to, id, reply),
                Waits::Ack { durability, .. } => self.reply_once(durability, to, id, Reply::Acked),
                Waits::Write { made, durability, .. } => {
                    self.outputs.push_back(Output::Made { id, made });
                    self.reply_once(durability, to, id, Reply::Acked);
                }
            }
        }
        if self.applied > self.sync_asked && self.sync_due.is_none() {
            self.sync_due = Some(now.instant + self.limits.buffered_sync_interval);
        }
    }

    /// Answers once everything applied so far is as durable as that: also an acknowledgement of "nothing changed" may
    /// rest on the newest batch.
    fn reply_once(&mut self, durability: Durability, to: NodeId, id: RequestId, reply: Reply) {
        match durability {
            Durability::Sync if self.synced < Some(self.applied) && !self.planted.is_rash(&reply) => {
                self.after_sync.push_back((self.applied, to, id, reply));
                if self.applied > self.sync_asked {
                    self.ask_sync();
                }
            }
            Durability::Sync | Durability::Buffered => self.reply(to, id, reply),
        }
    }

    /// The turn's batch was not applied, and nothing of it has left.
    fn refuse(&mut self, waiting: Vec<Waiting>) {
        for Waiting { to, id, waits } in waiting {
            match waits {
                Waits::Write { .. } | Waits::Ack { .. } => self.reply(to, id, Reply::Refused(Refusal::StorageFull)),
                Waits::Read { reply, durability, .. } if self.planted.is(Bug::RefusedBatchRead) => {
                    self.reply_once(durability, to, id, reply);
                }
                Waits::Read { again, .. } => self.handle_read_again(to, id, again),
            }
        }
    }

    /// There is no room: a read must not want to write again what was just refused.
    fn handle_read_again(&mut self, to: NodeId, id: RequestId, read: Read) {
        self.is_reading_again = true;
        let outcome = self.read(to, id, read);
        self.is_reading_again = false;
        match outcome {
            Ok(()) => {}
            Err(Trouble::Store(StoreError::Damaged { .. })) => self.reply(to, id, Reply::Refused(Refusal::Damaged)),
            Err(Trouble::Refused(refusal)) => self.reply(to, id, Reply::Refused(refusal)),
            Err(Trouble::Store(error)) => self.fail(error),
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
