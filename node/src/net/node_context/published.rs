//! What the shards of a node have last said of themselves, for requests that ask any shard, and for people.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::client::{AaePartition, AaeStatus, DamagedKeys, HintsFor};
use driftless_ring::NodeId;

use super::NodeContext;
use crate::handoff::HintFigures;
use crate::liveness::clocks::{Stance, Standing};
use crate::membership::Progress;
use crate::reconciler::Figures;
use crate::replica::store::StoreFigures;

/// By shard, but for the clock.
#[derive(Default)]
pub(super) struct Published {
    /// How the own clock stands, as shard 0 last said.
    clock_standing: Mutex<Standing>,
    /// How anti-entropy stands.
    aae: Mutex<BTreeMap<u16, Figures>>,
    hints: Mutex<BTreeMap<u16, Vec<(NodeId, HintFigures)>>>,
    damaged: Mutex<BTreeMap<u16, DamagedKeys>>,
    /// How far each has come with the newest version.
    progress: Mutex<BTreeMap<u16, Progress>>,
    /// What the store is short of.
    shortages: Mutex<BTreeMap<u16, String>>,
}

impl NodeContext {
    /// Keeps how far a shard has come, for shard 0 and for people.
    pub(crate) fn publish_progress(&self, shard: u16, progress: Progress) {
        self.published.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, progress);
    }

    /// How far this node has come: as far as the shard that is furthest behind. `None` until all have said something.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let shards = self.published.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all =
            shards.values().copied().reduce(Progress::together).filter(|_| shards.len() == self.shards.len())?;
        drop(shards);
        all.held_bytes = u64::try_from(self.metrics.value_bytes.get()).unwrap_or(0);
        all.held_slots = self.configurations().kept(self.node).len() as u64;
        Some(all)
    }

    /// Keeps how anti-entropy stands on a shard, for requests that ask any shard.
    pub(crate) fn publish_aae(&self, shard: u16, figures: Figures) {
        let mut aae = self.published.aae.lock().unwrap_or_else(PoisonError::into_inner);
        aae.insert(shard, figures);
        let uptime = Duration::from_micros(self.clock.instant().0);
        let lines = aae.values().flat_map(|figures| &figures.partitions);
        let oldest = lines.map(|line| line.last_full_round.unwrap_or(uptime)).max().unwrap_or_default();
        self.metrics.aae_last_round_age.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// How anti-entropy stands on this node.
    pub(crate) fn aae_status(&self) -> AaeStatus {
        let aae = self.published.aae.lock().unwrap_or_else(PoisonError::into_inner);
        let configurations = self.configurations();
        let name = |peer| configurations.member(peer).map_or_else(String::new, |member| member.name.clone());
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lines = aae.values().flat_map(|figures| &figures.partitions);
        AaeStatus {
            paused: aae.values().any(|figures| figures.paused),
            drift: self.metrics.aae_drift.get(),
            building: u64::try_from(self.metrics.partitions_uncounted.get()).unwrap_or(0),
            partitions: lines
                .map(|line| AaePartition {
                    peer: name(line.peer),
                    partition: line.partition,
                    last_full_round_ms: line.last_full_round.map(milliseconds),
                    compared: line.compared,
                    repaired: line.repaired,
                    unequal: line.unequal,
                    in_progress: line.in_progress,
                    behind: line.behind,
                    rate: line.rate,
                })
                .collect(),
        }
    }

    /// Whether an operator has paused anti-entropy.
    pub(crate) fn is_aae_paused(&self) -> bool {
        self.published.aae.lock().unwrap_or_else(PoisonError::into_inner).values().any(|figures| figures.paused)
    }

    /// How many comparisons of a partition with a peer are still to be made since the start, and how many there are in all.
    pub(crate) fn comparisons_left(&self) -> (usize, usize) {
        let aae = self.published.aae.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = || aae.values().flat_map(|figures| &figures.partitions);
        (lines().filter(|line| line.last_full_round.is_none()).count(), lines().count())
    }

    /// Keeps what a shard holds for others, for requests that ask any shard.
    pub(crate) fn publish_hints(&self, shard: u16, figures: Vec<(NodeId, HintFigures)>) {
        self.published.hints.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, figures);
    }

    /// What this node holds for others, and how its delivery goes.
    pub(crate) fn hints(&self) -> Vec<HintsFor> {
        let now = self.clock.instant();
        let name = |id| self.name_of(id);
        let hints_for = |(id, figures): (NodeId, HintFigures)| {
            let HintFigures { keys, bytes, since, delivered, rate } = figures;
            let eta_ms = (rate > 0.0 && keys > 0).then(|| (keys as f64 / rate * 1000.0) as u64);
            let oldest_ms = since.map(|since| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX));
            HintsFor { target: name(id), keys, bytes, oldest_ms, delivered, rate, eta_ms }
        };
        let hints = self.published.hints.lock().unwrap_or_else(PoisonError::into_inner);
        HintFigures::by_target(hints.values().flatten().copied()).into_iter().map(hints_for).collect()
    }

    /// Keys held for other nodes; `None` while they are being counted after a start.
    pub(crate) fn hint_keys(&self) -> Option<u64> {
        let is_known = self.metrics.hints_uncounted.get() == 0;
        is_known.then(|| u64::try_from(self.metrics.hint_keys.get()).unwrap_or(0))
    }

    /// Keeps what the store of a shard is short of.
    pub(crate) fn publish_shortage(&self, shard: u16, shortage: Option<String>) {
        let mut shortages = self.published.shortages.lock().unwrap_or_else(PoisonError::into_inner);
        match shortage {
            Some(shortage) => shortages.insert(shard, shortage),
            None => shortages.remove(&shard),
        };
        self.metrics.store_short.set((!shortages.is_empty()).into());
    }

    /// What the store is short of.
    pub(crate) fn shortage(&self) -> Option<String> {
        self.published.shortages.lock().unwrap_or_else(PoisonError::into_inner).values().next().cloned()
    }

    /// Shows how large the store is, and what it had to read.
    pub(crate) fn publish_store_figures(&self, figures: Option<StoreFigures>) {
        let Some(StoreFigures { disk_bytes, live_bytes, keys, index_bytes, fetches }) = figures else { return };
        let gauge = |figure| i64::try_from(figure).unwrap_or(i64::MAX);
        self.metrics.store_disk.set(gauge(disk_bytes));
        self.metrics.store_live.set(gauge(live_bytes));
        self.metrics.store_keys.set(gauge(keys));
        self.metrics.store_index.set(gauge(index_bytes));
        // Every shard tells of the whole store, and a later one may tell of less.
        self.metrics.store_fetches.inner().fetch_max(fetches, Ordering::Relaxed);
    }

    /// Keeps what is damaged on a shard, for requests that ask any shard.
    pub(crate) fn publish_damaged(&self, shard: u16, damaged: DamagedKeys) {
        self.published.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, damaged);
    }

    /// What is damaged on this node.
    pub(crate) fn damaged(&self) -> DamagedKeys {
        let shards = self.published.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = shards.values().flat_map(|damaged| &damaged.keys).cloned().collect();
        keys.sort_unstable();
        keys.truncate(DAMAGED_SHOWN_MAX);
        DamagedKeys { keys, count: shards.values().map(|damaged| damaged.count).sum() }
    }

    /// How many records are damaged on this node.
    pub(crate) fn damaged_count(&self) -> u64 {
        self.published
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|damaged| damaged.count)
            .sum()
    }

    /// Keeps how the own clock stands, for status and readiness.
    pub(crate) fn publish_clock(&self, standing: Standing) {
        let mut clock = self.published.clock_standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *clock != standing {
            *clock = standing;
            drop(clock);
            self.metrics.clock_offset.set(standing.ahead_ms.unwrap_or(0) as f64 / 1000.0);
            self.metrics.clock_off.set(i64::from(standing.stance == Stance::Off));
        }
    }

    /// How the own clock stands.
    pub(crate) fn clock_standing(&self) -> Standing {
        *self.published.clock_standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all shards have said how they stand and all records have been read since the start; and in how many partitions something is
    /// lacking that other nodes hold.
    pub(super) fn lacking(&self) -> (bool, usize) {
        let aae = self.published.aae.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = aae.len() == self.shards.len() && self.metrics.partitions_uncounted.get() == 0;
        (is_known, aae.values().map(|figures| figures.lacking).sum())
    }
}

/// Damaged records that are named: some tens of kilobytes. If there are more, it is the disk that needs looking after.
pub(crate) const DAMAGED_SHOWN_MAX: usize = 1_000;
