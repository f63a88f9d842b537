//! How many hints there are, and for whom: counted from the store after a start, a few at a time, then kept in step with
//! every batch. Nothing else about hints is kept in memory, so a million of them cost no more than one.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use bytes::Bytes;
use driftless_ring::NodeId;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::time::Instant;

use super::weight::HintWeight;

use crate::replica::commit::Applied;
use crate::replica::record::{self, HintKey};
use crate::replica::store::{Store, StoreError};

/// What is held for others.
pub(in crate::replica) struct HintCounts {
    /// The nodes that something is or was held for.
    targets: BTreeMap<NodeId, HintCount>,
    /// Bytes of all hints in the store.
    stored: u64,
    /// Copies of keys that this node owns itself: what an older ring has left.
    strays: u64,
    /// The first hint that was not counted yet, while there are such.
    uncounted: Option<Vec<u8>>,
    next_step: Instant,
    changed: bool,
}

/// What is held for one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HintCount {
    copies: u64,
    markers: u64,
    copy_bytes: u64,
    marker_bytes: u64,
    /// Since when there has been something for it: the oldest hint is no older.
    since: Option<Instant>,
}

impl HintCount {
    /// Keys held for it.
    pub(crate) fn keys(&self) -> u64 {
        self.copies + self.markers
    }

    /// Bytes of the copies.
    pub(crate) fn bytes(&self) -> u64 {
        self.copy_bytes
    }

    /// Since when something has been held for it without a break, as far as this start knows.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    fn counters(&mut self, is_marker: bool) -> (&mut u64, &mut u64) {
        if is_marker { (&mut self.markers, &mut self.marker_bytes) } else { (&mut self.copies, &mut self.copy_bytes) }
    }
}

impl HintCounts {
    /// Finds out for whom there are hints, and counts none of them yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::replica) fn new<S: Store>(shard: &Shard, store: &S, now: Instant) -> Result<HintCounts, StoreError> {
        let mut hints = HintCounts::none(now);
        hints.targets = targets_in(store)?.into_iter().map(|id| (id, HintCount::default())).collect();
        if !hints.targets.is_empty() {
            hints.uncounted = Some(record::all_hints().start);
            shard.metrics.hints_uncounted.inc();
        }
        Ok(hints)
    }

    /// None at all.
    pub(in crate::replica) fn none(now: Instant) -> HintCounts {
        HintCounts { targets: BTreeMap::new(), stored: 0, strays: 0, uncounted: None, next_step: now, changed: false }
    }

    /// Counts some more hints, if it is time for that.
    pub(in crate::replica) fn step<S: Store>(
        &mut self,
        shard: &Shard,
        now: Instant,
        store: &S,
    ) -> Result<(), StoreError> {
        if now < self.next_step {
            return Ok(());
        }
        let Some(cursor) = &self.uncounted else { return Ok(()) };
        self.next_step = now + STEP_INTERVAL;
        let range = cursor.clone()..record::all_hints().end;
        let mut found = Vec::new();
        let (bounds, mut bytes) = (shard.limits.turn, 0);
        let next = visit(shard, store, range, bounds.step_records, &mut |key, value| {
            let weight = HintWeight::of(&key, &value);
            bytes += weight.bytes as usize;
            found.push((key, weight));
            if bytes >= bounds.step_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for (key, weight) in found {
            self.add(shard, now, &key, None, Some(weight));
        }
        if next.is_none() {
            shard.metrics.hints_uncounted.dec();
        }
        self.uncounted = next;
        Ok(())
    }

    /// What was counted may not be what is there: begins again.
    pub(in crate::replica) fn count_anew(&mut self, metrics: &Metrics) {
        for count in self.targets.values_mut() {
            let HintCount { copies, markers, copy_bytes, marker_bytes, .. } = std::mem::take(count);
            metrics.hint_keys.dec_by((copies + markers) as i64);
            metrics.hint_bytes.dec_by((copy_bytes + marker_bytes) as i64);
        }
        (self.stored, self.strays, self.changed) = (0, 0, true);
        if self.uncounted.replace(record::all_hints().start).is_none() {
            metrics.hints_uncounted.inc();
        }
    }

    /// A batch has been applied: counts its hints, and gives out the targets for which there is something new.
    pub(in crate::replica) fn follow(&mut self, shard: &Shard, now: Instant, applied: &Applied) -> Vec<NodeId> {
        let mut targets = Vec::new();
        for (key, change) in &applied.hints {
            let after = change.encoded().map(|value| HintWeight::of(key, value));
            self.count(shard, now, key, change.stored, after);
            if after.is_some() {
                shard.metrics.hints_stored.inc();
                // Changes are sorted by target.
                if targets.last() != Some(&key.target()) {
                    targets.push(key.target());
                }
            }
        }
        targets
    }

    /// A batch has changed a hint. What was not counted yet will be seen later as it is then.
    fn count(
        &mut self,
        shard: &Shard,
        now: Instant,
        key: &HintKey,
        before: Option<HintWeight>,
        after: Option<HintWeight>,
    ) {
        if self.uncounted.as_ref().is_none_or(|cursor| key.as_bytes() < cursor.as_slice()) {
            self.add(shard, now, key, before, after);
        } else {
            // Known from now on as somebody whose hints have to be looked for.
            self.targets.entry(key.target()).or_default();
        }
    }

    /// Whose copies have to be looked for when everything held of a key is wanted; nobody's, if there are none.
    pub(in crate::replica) fn holders_of_copies(&self) -> impl Iterator<Item = NodeId> + '_ {
        let uncounted = self.uncounted.is_some();
        self.targets.iter().filter(move |(_, count)| uncounted || count.copies > 0).map(|(id, _)| *id)
    }

    /// Whether there may be copies of keys that this node owns itself.
    pub(in crate::replica) fn may_stray(&self) -> bool {
        self.strays > 0 || self.uncounted.is_some()
    }

    /// Whether one more hint may be kept for this target. Looked at before, so that the last one may exceed the bound.
    pub(in crate::replica) fn has_room(&self, limits: &Limits, target: NodeId) -> bool {
        let held = self.targets.get(&target).map_or(0, |count| count.copy_bytes + count.marker_bytes);
        self.stored < limits.hint_bytes_max && held < limits.hint_target_bytes_max
    }

    /// Visits this shard's hints for a target from a key on, so many at most. Answers where to go on.
    pub(in crate::replica) fn visit<S: Store>(
        &self,
        shard: &Shard,
        store: &S,
        target: NodeId,
        from: Option<Vec<u8>>,
        most: usize,
        visit: &mut dyn FnMut(HintKey, Bytes) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Range { start, end } = record::hints_of(target);
        self::visit(shard, store, from.unwrap_or(start)..end, most, visit)
    }

    /// The nodes that something is or was held for.
    pub(in crate::replica) fn hint_counts(&self) -> impl Iterator<Item = (NodeId, HintCount)> + '_ {
        self.targets.iter().map(|(id, count)| (*id, *count))
    }

    /// Whether anything was counted since the last call.
    pub(in crate::replica) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When to go on counting.
    pub(in crate::replica) fn poll_timeout(&self) -> Option<Instant> {
        self.uncounted.as_ref().map(|_| self.next_step)
    }

    fn add(
        &mut self,
        shard: &Shard,
        now: Instant,
        key: &HintKey,
        before: Option<HintWeight>,
        after: Option<HintWeight>,
    ) {
        let (metrics, is_stray) = (&shard.metrics, key.record().is_owned(shard));
        let count = self.targets.entry(key.target()).or_default();
        if let Some(weight) = before {
            let (keys, bytes) = count.counters(weight.is_marker);
            *keys -= 1;
            *bytes -= weight.bytes;
            self.stored -= weight.bytes;
            self.strays -= u64::from(is_stray && !weight.is_marker);
            metrics.hint_keys.dec();
            metrics.hint_bytes.dec_by(weight.bytes as i64);
        }
        if let Some(weight) = after {
            let (keys, bytes) = count.counters(weight.is_marker);
            *keys += 1;
            *bytes += weight.bytes;
            self.stored += weight.bytes;
            self.strays += u64::from(is_stray && !weight.is_marker);
            metrics.hint_keys.inc();
            metrics.hint_bytes.inc_by(weight.bytes as i64);
        }
        count.since = if count.keys() == 0 { None } else { count.since.or(Some(now)) };
        self.changed = true;
    }
}

/// Visits this shard's hints in order, so many at most, and leaps over the arcs of other shards. Answers where to
/// go on, if that is not the end of the range.
fn visit<S: Store>(
    shard: &Shard,
    store: &S,
    range: Range<Vec<u8>>,
    most: usize,
    visit: &mut dyn FnMut(HintKey, Bytes) -> ControlFlow<()>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (mut from, mut left) = (range.start, most);
    while left > 0 {
        // Where this scan stopped short, and what went wrong.
        let (mut next, mut corrupt) = (None, None);
        let mut leapt = false;
        store.scan(&from[..]..&range.end[..], &mut |key, value| {
            let key = match HintKey::from_stored(key) {
                Ok(key) => key,
                Err(error) => {
                    corrupt = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if left == 0 {
                next = Some(key.to_bytes().to_vec());
                return ControlFlow::Break(());
            }
            left -= 1;
            if !shard.is_mine(key.record().partition(shard)) {
                next = Some(key.end_of_arc(shard.ring().partitions().founding()));
                leapt = true;
                return ControlFlow::Break(());
            }
            let successor = key.successor();
            let flow = visit(key, value);
            if flow.is_break() {
                next = Some(successor);
            }
            flow
        })?;
        if let Some(error) = corrupt {
            return Err(error);
        }
        match next {
            Some(next) if leapt => from = next,
            next => return Ok(next),
        }
    }
    Ok(Some(from))
}

/// The nodes that the store holds a hint for: one look for each.
fn targets_in<S: Store>(store: &S) -> Result<Vec<NodeId>, StoreError> {
    let Range { start: mut from, end } = record::all_hints();
    let mut targets = Vec::new();
    loop {
        let mut first = None;
        store.scan(&from[..]..&end[..], &mut |key, _| {
            first = Some(HintKey::from_stored(key));
            ControlFlow::Break(())
        })?;
        let Some(hint) = first else { return Ok(targets) };
        let target = hint?.target();
        targets.push(target);
        from = record::hints_of(target).end;
    }
}

/// Pause between steps: a million hints take four seconds and a fifth of a core.
const STEP_INTERVAL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::sync::Arc;

    use driftless_proto::{BucketDefinition, Key};
    use driftless_testkit::TopologyBuilder;

    use super::*;
    use crate::configurations::Configurations;
    use crate::planted::Planted;
    use crate::replica::record::RecordKey;
    use crate::replica::store::Batch;
    use crate::store::memory::MemoryStore;

    const SHARDS: u16 = 3;

    fn shard(number: u16) -> Shard {
        let topology = TopologyBuilder::of(["a", "b", "c", "d"]).shards(SHARDS).partitions(16).hash_seed(0).shared();
        Shard {
            node: NodeId::of_name("a"),
            number,
            configurations: Arc::new(Configurations::of_file(topology.clone())),
            topology,
            limits: Limits::default(),
            metrics: Arc::default(),
            planted: Planted::default(),
        }
    }

    /// A store with so many hints for each of two targets, in the arcs of all shards.
    fn store(keys: usize) -> MemoryStore {
        let (topology, bucket) = (shard(0).topology, BucketDefinition::built_in(3));
        let mut changes = Vec::new();
        for i in 0..keys {
            let key = Key::new(i.to_be_bytes().to_vec()).expect("valid");
            let place = topology.place(&bucket, &key);
            let record = RecordKey::new(3, place.token, bucket.id, &key);
            for target in ["b", "c"] {
                let hint = HintKey::new(NodeId::of_name(target), &record);
                changes.push((hint.to_bytes(), Some(record::marker())));
            }
        }
        let mut store = MemoryStore::new();
        store.apply(Batch { changes }).expect("applies");
        store
    }

    #[test]
    fn shards_that_share_a_store_count_and_deliver_their_own_hints_and_no_others() {
        let store = store(1000);
        let mut seen = BTreeSet::new();
        let mut counted = 0;
        for number in 0..SHARDS {
            let shard = shard(number);
            let mut now = Instant(1);
            let mut hints = HintCounts::new(&shard, &store, now).expect("readable");
            assert_eq!((shard.metrics.hints_uncounted.get(), hints.holders_of_copies().count()), (1, 2));
            while let Some(at) = hints.poll_timeout() {
                now = now.max(at);
                hints.step(&shard, now, &store).expect("readable");
            }
            assert_eq!((shard.metrics.hints_uncounted.get(), hints.holders_of_copies().count()), (0, 0));
            counted += hints.hint_counts().map(|(_, count)| count.keys()).sum::<u64>();
            for target in ["b", "c"].map(NodeId::of_name) {
                let mut next = None;
                loop {
                    let visit = &mut |key: HintKey, _| {
                        assert!(shard.is_mine(key.record().partition(&shard)) && key.target() == target);
                        assert!(seen.insert(key), "visited twice");
                        ControlFlow::Continue(())
                    };
                    next = hints.visit(&shard, &store, target, next, 7, visit).expect("readable");
                    if next.is_none() {
                        break;
                    }
                }
            }
        }
        assert_eq!((counted, seen.len()), (2000, 2000));
    }

    #[test]
    fn what_changes_while_it_is_counted_is_counted_once() {
        let mut store = store(1000);
        let shard = shard(0);
        let mut hints = HintCounts::new(&shard, &store, Instant(1)).expect("readable");
        hints.step(&shard, Instant(1), &store).expect("readable");
        let mut all = Vec::new();
        let range = record::all_hints();
        visit(&shard, &store, range, usize::MAX, &mut |key, value| {
            all.push((HintWeight::of(&key, &value), key));
            ControlFlow::Continue(())
        })
        .expect("readable");
        for (weight, key) in [all.remove(0), all.pop().expect("many")] {
            store.apply(Batch { changes: vec![(key.to_bytes(), None)] }).expect("applies");
            hints.count(&shard, Instant(2), &key, Some(weight), None);
        }
        while let Some(at) = hints.poll_timeout() {
            hints.step(&shard, at, &store).expect("readable");
        }
        assert_eq!(shard.metrics.hint_keys.get(), all.len() as i64);
    }
}
