//! What changes hands with the versions of the ring: partitions that this node keeps no more are dropped, and hints for nodes that
//! own a key no more go to those who do.
//!
//! Nothing is dropped before every owner has it: a partition is kept until all versions in which this node owns it are done with, and
//! they are not before it has handed over what it holds (`reconciler`). Where the versions are not agreed on, nothing is dropped at all.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use driftless_ring::PartitionId;

use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use super::Replica;
use super::headers::HeaderCache;
use super::record::{self, HintKey, RecordError, RecordKey};
use super::store::{BatchSeq, Store};
use super::turn::After;

/// What is still to be done of it.
pub(super) struct Moving {
    /// Partitions that are not kept any more and may hold records.
    dropping: VecDeque<PartitionId>,
    /// From where on hints are to be looked at.
    hints_from: Option<Vec<u8>>,
    /// From where on records are to be looked at for those of buckets that are no more.
    records_from: Option<Vec<u8>>,
    next_step: Instant,
    /// The version that it is about.
    version: u64,
    /// Keys and bytes that others have handed over for it.
    taken_in: (u64, u64),
}

impl Moving {
    /// A start: an earlier process may not have come to an end.
    pub(super) fn new(shard: &Shard) -> Moving {
        let mut moving = Moving {
            dropping: VecDeque::new(),
            hints_from: None,
            records_from: None,
            next_step: Instant::default(),
            version: shard.configurations.version(),
            taken_in: (0, 0),
        };
        moving.begin_anew(shard);
        moving
    }

    /// Something was handed over by another node.
    pub(super) fn count(&mut self, bytes: usize) {
        self.taken_in.0 += 1;
        self.taken_in.1 += bytes as u64;
    }

    /// When to go on.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let is_at_work = !self.dropping.is_empty() || self.hints_from.is_some() || self.records_from.is_some();
        is_at_work.then_some(self.next_step)
    }

    /// Other versions count: everything is looked at again.
    fn begin_anew(&mut self, shard: &Shard) {
        let configurations = &shard.configurations;
        if configurations.version() != self.version {
            (self.version, self.taken_in) = (configurations.version(), (0, 0));
        }
        self.dropping.clear();
        self.records_from = configurations.has_dropped().then(|| record::all_records().start);
        if !configurations.is_agreed() {
            return;
        }
        self.hints_from = Some(record::all_hints().start);
        let kept = shard.kept();
        let all = shard.ring().all_partitions().filter(|partition| shard.is_mine(*partition));
        self.dropping.extend(all.filter(|partition| !kept.contains(partition)));
    }
}

impl<S: Store> Replica<S> {
    /// Other versions of the ring count from now on. The turn has been committed.
    pub(crate) fn handle_configurations(&mut self, shard: &Shard, now: Now) {
        debug_assert!(self.turn.is_empty(), "a turn goes by one version");
        let (kept, partitions) = (shard.kept(), shard.ring().partitions());
        if partitions != self.trees.divided_into()
            && !shard.planted.is_where(Bug::ActorKeptWhenDoubled, || !self.actors.is_empty())
        {
            // An actor counts the writes of one partition: it cannot go on in two, nor in another one that has its number now.
            self.actors.keep(&BTreeSet::new());
        }
        // What is dropped takes knowledge with it: of actors, which must not stamp on, and of headers.
        if shard.configurations.is_agreed() && self.trees.partitions().any(|before| !kept.contains(&before)) {
            self.actors.keep(&kept);
            self.headers = HeaderCache::new(shard.limits.header_cache_bytes);
        }
        self.trees.keep(partitions, &kept, now.instant, &shard.metrics);
        self.hints.count_anew(&shard.metrics);
        self.moving.begin_anew(shard);
        self.moving.next_step = now.instant;
    }

    /// The newest batch that has been applied.
    pub(crate) fn applied(&self) -> BatchSeq {
        self.syncs.applied()
    }

    /// Whether everything up to a batch is durable.
    pub(crate) fn is_durable_up_to(&self, batch: BatchSeq) -> bool {
        self.syncs.is_durable_up_to(batch)
    }

    /// What to sync so that everything applied is durable, unless that was asked for.
    pub(crate) fn sync_wish(&mut self) -> Option<BatchSeq> {
        self.syncs.ask()
    }

    /// Whether nothing is held for anybody else.
    pub(crate) fn holds_no_hints(&self) -> bool {
        self.hints.poll_timeout().is_none() && self.hints.hint_counts().all(|(_, count)| count.keys() == 0)
    }

    /// Keys and bytes that others have handed over for the newest version.
    pub(crate) fn taken_in(&self) -> (u64, u64) {
        self.moving.taken_in
    }

    /// Goes on with both, a step's worth.
    pub(super) fn move_on(&mut self, shard: &Shard, now: Instant) {
        if self.moving.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        self.moving.next_step = now + STEP_INTERVAL;
        if let Err(error) =
            self.readdress_on(shard).and_then(|()| self.drop_on(shard)).and_then(|()| self.sweep_on(shard))
        {
            self.fail(shard, error);
        }
    }

    /// Hints for nodes that do not own the key any more become hints for those who do.
    fn readdress_on(&mut self, shard: &Shard) -> Result<(), RecordError> {
        let Some(from) = self.moving.hints_from.take() else { return Ok(()) };
        let bounds = shard.limits.turn;
        let (mut found, mut next, mut bytes, mut corrupt) = (Vec::new(), None, 0, None);
        self.store.scan(&from[..]..&record::all_hints().end[..], &mut |key, value| {
            let hint = match HintKey::from_stored(key) {
                Ok(hint) => hint,
                Err(error) => {
                    corrupt = Some(error);
                    return ControlFlow::Break(());
                }
            };
            bytes += value.len();
            next = Some(hint.successor());
            found.push(hint);
            let is_enough = found.len() >= HINTS_A_STEP || bytes >= bounds.step_bytes;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = corrupt {
            return Err(error.into());
        }
        self.moving.hints_from = next;
        for hint in found {
            let record = hint.record();
            let partition = record.partition(shard);
            let is_of_no_bucket =
                record::token_and_bucket(record.as_bytes()).is_ok_and(|(_, of)| shard.topology.bucket(of).is_none());
            if shard.is_mine(partition) && is_of_no_bucket {
                let (_, stored) = self.stored_hint(shard, &hint)?;
                self.turn.put_hint(hint, stored, After::Moved);
                continue;
            }
            let is_beside = hint.target() == shard.node && shard.owns(partition);
            if shard.is_mine(partition) && !shard.ring().owns(hint.target(), partition) && !is_beside {
                self.readdress_hint(shard, hint.target(), &record);
            }
        }
        Ok(())
    }

    /// Records of buckets that are no more go.
    fn sweep_on(&mut self, shard: &Shard) -> Result<(), RecordError> {
        let Some(from) = self.moving.records_from.take() else { return Ok(()) };
        let bounds = shard.limits.turn;
        let (mut found, mut next, mut looked, mut bytes) = (Vec::new(), None, 0, 0);
        self.store.scan(&from[..]..&record::all_records().end[..], &mut |key, value| {
            let at = RecordKey::from_stored(key.to_vec());
            (looked, bytes) = (looked + 1, bytes + key.len() + value.len());
            next = Some(at.successor());
            let is_gone = record::token_and_bucket(key).is_ok_and(|(_, of)| shard.topology.bucket(of).is_none());
            if is_gone && shard.is_mine(at.partition(shard)) {
                found.push(at);
            }
            let is_enough = looked >= bounds.step_records || bytes >= bounds.step_bytes;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let is_more = looked >= bounds.step_records || bytes >= bounds.step_bytes;
        // A batch may be refused: what it was to drop is looked at again.
        self.moving.records_from = if found.is_empty() { next.filter(|_| is_more) } else { Some(from) };
        self.drop_records(shard, found)
    }

    /// Records of partitions that are not kept any more go, and with them what knew this node's actor.
    fn drop_on(&mut self, shard: &Shard) -> Result<(), RecordError> {
        let bounds = shard.limits.turn;
        let mut looked = 0;
        while let Some(&partition) = self.moving.dropping.front() {
            debug_assert!(!shard.configurations.keeps(shard.node, partition), "what is kept is not dropped");
            let range = record::arc_range(partition, shard.ring().partitions());
            let (mut found, mut bytes) = (Vec::new(), 0);
            self.store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
                bytes += value.len();
                found.push(RecordKey::from_stored(key.to_vec()));
                let is_enough = found.len() >= bounds.step_records || bytes >= bounds.step_bytes;
                if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if found.is_empty() {
                self.moving.dropping.pop_front();
                looked += 1;
                if looked >= PARTITIONS_A_STEP {
                    return Ok(());
                }
                continue;
            }
            // A state goes away: an actor that it knows must not stamp any more.
            self.actors.retire(partition);
            self.turn.retired.insert(partition);
            return self.drop_records(shard, found);
        }
        Ok(())
    }

    fn drop_records(&mut self, shard: &Shard, records: Vec<RecordKey>) -> Result<(), RecordError> {
        for record in records {
            match self.header(shard, &record) {
                Ok(before) => {
                    let (bucket, key) = record.bucket_and_key()?;
                    shard.metrics.records_dropped.inc();
                    self.turn.put(record, bucket, &key, before, Default::default());
                }
                Err(error) if error.is_damage() => self.turn.remove_damaged(record),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Hints looked at in one step.
const HINTS_A_STEP: usize = 64;

/// Empty partitions looked at in one step.
const PARTITIONS_A_STEP: usize = 64;

const STEP_INTERVAL: Duration = Duration::from_millis(2);
