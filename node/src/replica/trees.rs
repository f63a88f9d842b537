//! A tree for each partition of this shard, changed together with every batch.
//!
//! ```text
//! start ──▶ building: records are read in steps, and counted on the way ──▶ kept
//!                                                                            │ too many keys for its leaves
//!                                            kept, while a larger one is built beside it
//! ```
//! Now and then a leaf is recomputed from the records. A leaf that drifted is a bug or damage: it is reported, made
//! right, and the tree built anew beside it.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use driftless_antientropy::{Bits, Build, Digest, Held, LeafMap, Records, Resize, Tree, Unreadable};
use driftless_proto::Header;
use driftless_ring::{PartitionId, Partitions, Token, TokenRange};
use rand::Rng;
use rand::rngs::StdRng;

use crate::metrics::Metrics;
use crate::time::Instant;

use super::record::{self, RecordKey};
use super::store::{Store, StoreError};
use super::stored::Stored;
use super::turn::Change;

/// The trees of one shard.
pub(super) struct Trees {
    partitions: Partitions,
    kept: BTreeMap<PartitionId, Kept>,
    /// Trees to be built, the first one under way.
    queue: VecDeque<PartitionId>,
    next_step: Instant,
    scrub_interval: Duration,
    next_scrub: Instant,
    rng: StdRng,
}

/// One partition.
struct Kept {
    /// `None` until the first build is done: neither compared nor counted.
    tree: Option<Tree>,
    /// One that will take its place.
    build: Option<Build>,
}

impl Trees {
    /// Nothing has been read yet.
    pub(super) fn new(
        partitions: Partitions,
        owned: impl Iterator<Item = PartitionId>,
        scrub_interval: Duration,
        now: Instant,
        rng: StdRng,
        metrics: &Metrics,
    ) -> Trees {
        let kept: BTreeMap<_, _> = owned.map(|partition| (partition, Kept { tree: None, build: None })).collect();
        metrics.partitions_uncounted.inc_by(kept.len() as i64);
        let queue = kept.keys().copied().collect();
        Trees { partitions, kept, queue, next_step: now, scrub_interval, next_scrub: now + scrub_interval, rng }
    }

    /// What is held of a partition.
    pub(super) fn held(&self, partition: PartitionId) -> Held<'_> {
        match self.kept.get(&partition) {
            None => Held::Nothing,
            Some(Kept { tree: None, .. }) => Held::Rebuilding,
            Some(Kept { tree: Some(tree), .. }) => Held::Tree(tree),
        }
    }

    /// All partitions of this shard.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.kept.keys().copied()
    }

    /// A batch with this change has been applied. A partition that was not read yet will be seen later as it is then.
    pub(super) fn apply(&mut self, record: &RecordKey, change: &Change, metrics: &Metrics) {
        let (n, token) = record.position();
        let partition = PartitionId { n, arc: self.partitions.arc_of(token) };
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        let (old, new) = change.digests();
        if kept.tree.is_some() || kept.build.as_ref().is_some_and(|build| build.has_read(token)) {
            let (before, after) = (weigh(&change.stored), weigh(&change.header));
            metrics.keys.inc_by(after.0 - before.0);
            metrics.value_bytes.inc_by(after.1 - before.1);
        }
        if let Some(build) = &mut kept.build {
            build.update(token, old, Some(new));
        }
        if let Some(tree) = &mut kept.tree {
            tree.update(token, old, Some(new));
            if old.is_none() && !self.queue.contains(&partition) {
                match tree.resize() {
                    Some(Resize::Grow(_)) => self.queue.push_back(partition),
                    Some(Resize::Shrink(bits)) => tree.shrink(bits),
                    None => {}
                }
            }
        }
    }

    /// The tree of this record's partition may not say what is there: builds another beside it.
    pub(super) fn build_anew(&mut self, record: &RecordKey) {
        let (n, token) = record.position();
        let partition = PartitionId { n, arc: self.partitions.arc_of(token) };
        let Some(kept) = self.kept.get_mut(&partition).filter(|kept| kept.tree.is_some()) else { return };
        kept.build = None;
        if !self.queue.contains(&partition) {
            self.queue.push_back(partition);
        }
    }

    /// Reads on, and looks at a leaf, if it is time for that. The answer is whether the leaf had drifted.
    pub(super) fn handle_timeout<S: Store>(
        &mut self,
        now: Instant,
        store: &S,
        metrics: &Metrics,
    ) -> Result<bool, StoreError> {
        if self.next_step <= now {
            self.next_step = now + STEP_INTERVAL;
            self.step(store, metrics)?;
        }
        if self.next_scrub <= now {
            self.next_scrub = now + self.scrub_interval;
            return self.scrub(store, metrics);
        }
        Ok(false)
    }

    /// When to go on.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let step = (!self.queue.is_empty()).then_some(self.next_step);
        step.into_iter().chain([self.next_scrub]).min()
    }

    fn step<S: Store>(&mut self, store: &S, metrics: &Metrics) -> Result<(), StoreError> {
        let mut budget = STEP_KEYS;
        while budget > 0
            && let Some(&partition) = self.queue.front()
        {
            let Some(kept) = self.kept.get_mut(&partition) else {
                self.queue.pop_front();
                continue;
            };
            let map = LeafMap::new(self.partitions, partition.arc);
            let bits = kept.tree.as_ref().map_or(Bits::UNKNOWN, |tree| tree.bits().adjusted(tree.sum().count));
            let build = kept.build.get_or_insert_with(|| Build::new(map, bits));
            let survey = Survey::new(Stored::new(store, partition.n), kept.tree.is_none());
            let done = match build.step(&survey, budget) {
                Ok(done) => done,
                Err(Unreadable) => return survey.stored.into_failure().map_or(Ok(()), Err),
            };
            budget = budget.saturating_sub(survey.records.get().max(EMPTY_COST));
            metrics.keys.inc_by(survey.keys.get());
            metrics.value_bytes.inc_by(survey.bytes.get());
            if done {
                self.queue.pop_front();
                self.finish(partition, metrics);
            }
        }
        Ok(())
    }

    fn finish(&mut self, partition: PartitionId, metrics: &Metrics) {
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        let tree = kept.build.take().and_then(Build::finish).expect("its last step said that this was all");
        metrics.trees_built.inc();
        if matches!(tree.resize(), Some(Resize::Grow(_))) {
            self.queue.push_back(partition);
        }
        if kept.tree.replace(tree).is_none() {
            metrics.partitions_uncounted.dec();
        }
    }

    fn scrub<S: Store>(&mut self, store: &S, metrics: &Metrics) -> Result<bool, StoreError> {
        if self.kept.is_empty() {
            return Ok(false);
        }
        let at = self.rng.random_range(0..self.kept.len());
        let Some((&partition, Kept { tree: Some(tree), .. })) = self.kept.iter_mut().nth(at) else {
            return Ok(false);
        };
        let leaf = self.rng.random_range(0..tree.bits().leaves());
        let stored = Stored::new(store, partition.n);
        match tree.verify(leaf, &stored) {
            Ok(None) => Ok(false),
            Ok(Some(drift)) => {
                tracing::error!(%partition, leaf, kept = drift.kept.0, found = drift.found.0, "a leaf of the tree \
                    is not what its records come to: a bug, or the store was changed behind its back. The tree is \
                    built anew");
                metrics.aae_drift.inc();
                tree.correct(drift);
                if !self.queue.contains(&partition) {
                    self.queue.push_back(partition);
                }
                Ok(true)
            }
            Err(Unreadable) => stored.into_failure().map_or(Ok(false), Err),
        }
    }
}

/// What a build reads, counted on the way if it is the first of its partition.
struct Survey<'a, S> {
    stored: Stored<'a, S>,
    counts: bool,
    records: Cell<usize>,
    keys: Cell<i64>,
    bytes: Cell<i64>,
}

impl<'a, S: Store> Survey<'a, S> {
    fn new(stored: Stored<'a, S>, counts: bool) -> Survey<'a, S> {
        Survey { stored, counts, records: Cell::new(0), keys: Cell::new(0), bytes: Cell::new(0) }
    }
}

impl<S: Store> Records for Survey<'_, S> {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.stored.visit_values(tokens, &mut |token, digest, value| {
            if visit(token, digest).is_break() {
                // This record was not taken: it is the first of the next step.
                return Ok(ControlFlow::Break(()));
            }
            self.records.set(self.records.get() + 1);
            if self.counts {
                let (keys, bytes) = weigh(&record::decode_header(value)?);
                self.keys.set(self.keys.get() + keys);
                self.bytes.set(self.bytes.get() + bytes);
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// One key if it has a value, and the bytes of its values.
fn weigh(header: &Header) -> (i64, i64) {
    (header.has_values().into(), header.value_bytes() as i64)
}

/// Keys per step: under a millisecond of the shard's time.
const STEP_KEYS: usize = 500;

/// What reading a partition without keys costs, in keys.
const EMPTY_COST: usize = 20;

/// Pause between steps: a million keys take four seconds and a fifth of a core.
const STEP_INTERVAL: Duration = Duration::from_millis(2);
