//! A tree for each partition of this shard, changed together with every batch.
//!
//! ```text
//! start ──▶ building: records are read in steps, and counted on the way ──▶ kept
//!                                                                            │ too many keys for its leaves
//!                                            kept, while a larger one is built beside it
//! ```
//! Every record is read whole on the way, and what is damaged is reported and left out. Now and then a leaf is recomputed from
//! the records. A leaf that drifted is a bug, or damage that went unnoticed: it is reported, made right, and the tree built
//! anew beside it.

use std::cell::Cell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use driftless_antientropy::{Bits, Build, Check, Digest, Held, LeafMap, Records, Resize, Tree, Unreadable};
use driftless_proto::Header;
use driftless_ring::{PartitionId, Partitions, Token, TokenRange};
use rand::Rng;
use rand::rngs::StdRng;

use crate::bounds::TurnBounds;
use crate::metrics::Metrics;
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Instant;

use super::commit::Applied;
use super::record::{self, RecordError, RecordKey};
use super::store::Store;
use super::stored::Stored;
use super::turn::Change;

/// The trees of one shard.
pub(super) struct Trees {
    partitions: Partitions,
    kept: BTreeMap<PartitionId, Kept>,
    /// Trees to be built, the first one under way.
    queue: VecDeque<PartitionId>,
    next_step: Instant,
    bounds: TurnBounds,
    /// The leaf that is being recomputed.
    check: Option<(PartitionId, Check)>,
    scrub_interval: Duration,
    next_scrub: Instant,
    rng: StdRng,
}

/// One partition.
struct Kept {
    /// `None` until the first build is done: neither compared nor counted.
    tree: Option<Tree>,
    /// What its keys weigh.
    weight: ArcWeight,
    /// The tree that will take its place, and what that has read so far.
    build: Option<(Build, ArcWeight)>,
}

/// Keys that have values, and the bytes of those.
#[derive(Clone, Copy, Default)]
struct ArcWeight {
    keys: i64,
    bytes: i64,
}

impl ArcWeight {
    fn of(header: &Header) -> ArcWeight {
        ArcWeight { keys: header.has_values().into(), bytes: header.value_bytes() as i64 }
    }

    fn change(&mut self, from: ArcWeight, to: ArcWeight) {
        self.keys += to.keys - from.keys;
        self.bytes += to.bytes - from.bytes;
    }

    fn count(&mut self, from: ArcWeight, to: ArcWeight, metrics: &Metrics) {
        self.change(from, to);
        metrics.keys.inc_by(to.keys - from.keys);
        metrics.value_bytes.inc_by(to.bytes - from.bytes);
    }
}

/// What was met in reading on.
#[derive(Default)]
pub(super) struct Met {
    /// A leaf had drifted.
    pub(super) drift: bool,
    /// Records that are not what was written.
    pub(super) damage: Vec<RecordError>,
}

impl Trees {
    /// Nothing has been read yet.
    pub(super) fn new(
        partitions: Partitions,
        owned: impl Iterator<Item = PartitionId>,
        bounds: TurnBounds,
        scrub_interval: Duration,
        now: Instant,
        rng: StdRng,
        metrics: &Metrics,
    ) -> Trees {
        let kept: BTreeMap<_, _> = owned
            .map(|partition| (partition, Kept { tree: None, weight: ArcWeight::default(), build: None }))
            .collect();
        metrics.partitions_uncounted.inc_by(kept.len() as i64);
        let queue = kept.keys().copied().collect();
        Trees {
            partitions,
            kept,
            queue,
            next_step: now,
            bounds,
            check: None,
            scrub_interval,
            next_scrub: now + scrub_interval,
            rng,
        }
    }

    /// How many partitions there are, by which those that are kept are numbered.
    pub(super) fn divided_into(&self) -> Partitions {
        self.partitions
    }

    /// Other partitions are kept from now on, of so many. Of those that are new nothing has been read yet; that are all, if there are more
    /// than there were: the same number means another arc.
    pub(super) fn keep(&mut self, of: Partitions, partitions: &BTreeSet<PartitionId>, now: Instant, metrics: &Metrics) {
        let stays = |kept: &PartitionId| of == self.partitions && partitions.contains(kept);
        let gone: Vec<PartitionId> = self.kept.keys().copied().filter(|kept| !stays(kept)).collect();
        if of != self.partitions {
            self.queue.clear();
        }
        self.partitions = of;
        for partition in gone {
            let Some(kept) = self.kept.remove(&partition) else { continue };
            match kept.tree {
                Some(_) => {
                    metrics.keys.dec_by(kept.weight.keys);
                    metrics.value_bytes.dec_by(kept.weight.bytes);
                }
                None => {
                    metrics.partitions_uncounted.dec();
                }
            }
            self.queue.retain(|queued| *queued != partition);
            self.check.take_if(|(checked, _)| *checked == partition);
        }
        for &partition in partitions {
            if let Entry::Vacant(entry) = self.kept.entry(partition) {
                entry.insert(Kept { tree: None, weight: ArcWeight::default(), build: None });
                metrics.partitions_uncounted.inc();
                self.queue.push_back(partition);
                self.next_step = now;
            }
        }
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

    /// A batch has been applied.
    pub(super) fn follow(&mut self, shard: &Shard, applied: &Applied) {
        for (record, change) in &applied.records {
            if change.stored.is_empty() || !shard.planted.is(Bug::TreeDrift) {
                self.apply(record, change, &shard.metrics);
            }
        }
    }

    /// A partition that was not read yet will be seen later as it is then.
    fn apply(&mut self, record: &RecordKey, change: &Change, metrics: &Metrics) {
        let (n, token) = record.position();
        let partition = PartitionId { n, arc: self.partitions.arc_of(token) };
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        let (old, new) = change.digests();
        let (before, after) = (ArcWeight::of(&change.stored), ArcWeight::of(&change.header));
        if let Some((build, read)) = &mut kept.build
            && build.has_read(token)
        {
            build.update(token, old, new);
            read.change(before, after);
        }
        if let Some((checked, check)) = &mut self.check
            && *checked == partition
        {
            check.update(token, old, new);
        }
        if let Some(tree) = &mut kept.tree {
            kept.weight.count(before, after, metrics);
            tree.update(token, old, new);
            if old.is_none() && !self.queue.contains(&partition) {
                match tree.resize() {
                    Some(Resize::Grow(_)) => self.queue.push_back(partition),
                    Some(Resize::Shrink(bits)) => tree.shrink(bits),
                    None => {}
                }
            }
        }
    }

    /// The tree of this record's partition may not say what is there, nor the one under way: builds another.
    pub(super) fn build_anew(&mut self, record: &RecordKey) {
        let (n, token) = record.position();
        let partition = PartitionId { n, arc: self.partitions.arc_of(token) };
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        kept.build = None;
        self.check.take_if(|(checked, _)| *checked == partition);
        if !self.queue.contains(&partition) {
            self.queue.push_back(partition);
        }
    }

    /// Reads on, and looks at a leaf, if it is time for that.
    pub(super) fn handle_timeout<S: Store>(
        &mut self,
        now: Instant,
        store: &S,
        metrics: &Metrics,
    ) -> Result<Met, RecordError> {
        let mut met = Met::default();
        if self.next_step <= now {
            self.next_step = now + STEP_INTERVAL;
            self.step(store, metrics, &mut met)?;
        }
        if self.next_scrub <= now {
            self.scrub(store, metrics, &mut met)?;
            self.next_scrub = now + if self.check.is_some() { STEP_INTERVAL } else { self.scrub_interval };
        }
        Ok(met)
    }

    /// When to go on.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let step = (!self.queue.is_empty()).then_some(self.next_step);
        step.into_iter().chain([self.next_scrub]).min()
    }

    fn step<S: Store>(&mut self, store: &S, metrics: &Metrics, met: &mut Met) -> Result<(), RecordError> {
        let TurnBounds { step_records: mut keys, step_bytes: mut bytes, .. } = self.bounds;
        while keys > 0
            && bytes > 0
            && let Some(&partition) = self.queue.front()
        {
            let Some(kept) = self.kept.get_mut(&partition) else {
                self.queue.pop_front();
                continue;
            };
            let map = LeafMap::new(self.partitions, partition.arc);
            let bits = kept.tree.as_ref().map_or(Bits::UNKNOWN, |tree| tree.bits().adjusted(tree.sum().count));
            let (build, read) = kept.build.get_or_insert_with(|| (Build::new(map, bits), ArcWeight::default()));
            if let Some(tokens) = build.unread() {
                let range = record::token_range(partition.n, tokens);
                if !store.prepare_range(&range.start[..]..&range.end[..], keys, bytes) {
                    return Ok(());
                }
            }
            let survey = Survey::new(Stored::new(store, partition.n, bytes));
            let done = build.step(&survey, keys);
            keys = keys.saturating_sub(survey.records.get().max(EMPTY_COST));
            bytes = bytes.saturating_sub(survey.stored.bytes());
            read.change(ArcWeight::default(), survey.weight.get());
            survey.end(met)?;
            if done == Ok(true) {
                self.queue.pop_front();
                self.finish(partition, metrics);
            }
        }
        Ok(())
    }

    fn finish(&mut self, partition: PartitionId, metrics: &Metrics) {
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        let (build, read) = kept.build.take().expect("its last step was just now");
        let tree = build.finish().expect("that step said that this was all");
        metrics.trees_built.inc();
        if matches!(tree.resize(), Some(Resize::Grow(_))) {
            self.queue.push_back(partition);
        }
        kept.weight.count(kept.weight, read, metrics);
        if kept.tree.replace(tree).is_none() {
            metrics.partitions_uncounted.dec();
        }
    }

    fn scrub<S: Store>(&mut self, store: &S, metrics: &Metrics, met: &mut Met) -> Result<(), RecordError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let (partition, mut check) = match self.check.take() {
            Some(check) => check,
            None => {
                let at = self.rng.random_range(0..self.kept.len());
                let Some((&partition, Kept { tree: Some(tree), .. })) = self.kept.iter().nth(at) else {
                    return Ok(());
                };
                (partition, Check::new(tree, self.rng.random_range(0..tree.bits().leaves())))
            }
        };
        let survey = Survey::new(Stored::new(store, partition.n, self.bounds.step_bytes));
        let done = check.step(&survey);
        // A tree that is to be replaced may be wrong already.
        let is_whole = survey.end(met)? && !self.queue.contains(&partition);
        let Some(Kept { tree: Some(tree), .. }) = self.kept.get_mut(&partition) else { return Ok(()) };
        match done {
            Ok(false) if is_whole => self.check = Some((partition, check)),
            Ok(true) if is_whole => {
                metrics.leaves_scrubbed.inc();
                let leaf = check.leaf();
                let Some(drift) = check.finish(tree) else { return Ok(()) };
                tracing::error!(%partition, leaf, kept = drift.kept.0, found = drift.found.0, "a leaf of the tree \
                    is not what its records come to: a bug, or the store was changed behind its back. The tree is \
                    built anew");
                metrics.aae_drift.inc();
                tree.correct(drift);
                self.queue.push_back(partition);
                met.drift = true;
            }
            Ok(_) | Err(Unreadable) => {}
        }
        Ok(())
    }
}

/// Reads records whole, and weighs them.
struct Survey<'a, S> {
    stored: Stored<'a, S>,
    records: Cell<usize>,
    weight: Cell<ArcWeight>,
}

impl<'a, S: Store> Survey<'a, S> {
    fn new(stored: Stored<'a, S>) -> Survey<'a, S> {
        Survey { stored, records: Cell::new(0), weight: Cell::default() }
    }

    /// Whether all that was read is sound; reports what is damaged.
    fn end(self, met: &mut Met) -> Result<bool, RecordError> {
        let (damage, worse): (Vec<_>, Vec<_>) =
            self.stored.into_failures().into_iter().partition(|error| error.is_damage());
        let is_sound = damage.is_empty();
        met.damage.extend(damage);
        worse.into_iter().next().map_or(Ok(is_sound), Err)
    }
}

impl<S: Store> Records for Survey<'_, S> {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.stored.visit_values(tokens, &mut |key, value| {
            let (token, digest) = record::decode_digest(key, &value).map_err(|error| error.in_record(key))?;
            let header = record::audit(&RecordKey::from_stored(key.to_vec()), value)?;
            if visit(token, digest).is_break() {
                // This record was not taken: it is the first of the next step.
                return Ok(ControlFlow::Break(()));
            }
            self.records.set(self.records.get() + 1);
            let mut weight = self.weight.get();
            weight.change(ArcWeight::default(), ArcWeight::of(&header));
            self.weight.set(weight);
            Ok(ControlFlow::Continue(()))
        })
    }

    fn is_enough(&self) -> bool {
        self.stored.is_enough()
    }
}

/// What reading a partition without keys costs, in keys.
const EMPTY_COST: usize = 20;

/// Pause between steps: a million keys take four seconds and a fifth of a core.
const STEP_INTERVAL: Duration = Duration::from_millis(2);
