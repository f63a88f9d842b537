//! A store in memory that keeps apart what was written and what would survive a power cut.
//!
//! ```text
//! apply ──▶ written ── get, scan            what the process sees
//!              │ sync: the unsynced batches, oldest first
//!              ▼
//!           synced ── durable view          what the disk would hold after a power cut
//! ```
//! The simulator crashes it, rolls it back, copies it, fills it up and breaks it; all of that is deterministic. It has
//! no clock and does no I/O. Values are reference counted, so the two maps share them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;

use crate::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};

/// A [`Store`] in memory, with the durability of a disk that its owner controls.
///
/// A clone is a copy of the whole thing: written state, unsynced batches and planted faults.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    written: BTreeMap<Bytes, Bytes>,
    synced: BTreeMap<Bytes, Bytes>,
    /// Applied and not yet synced, oldest first.
    unsynced: VecDeque<(BatchSeq, Batch)>,
    /// The newest batch applied.
    applied: BatchSeq,
    faults: Faults,
}

/// What the disk of a [`MemoryStore`] held at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage(BTreeMap<Bytes, Bytes>);

/// What would survive a power cut now.
#[derive(Clone, Copy, Debug)]
pub struct DurableView<'a>(&'a BTreeMap<Bytes, Bytes>);

#[derive(Clone, Debug, Default)]
struct Faults {
    full: bool,
    full_once: bool,
    next_apply: Option<(StoreError, bool)>,
    failed: Option<StoreError>,
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Makes everything applied so far durable. Answers the newest batch covered.
    pub fn sync(&mut self) -> BatchSeq {
        self.sync_up_to(self.applied)
    }

    /// Makes the batches up to this one durable: what a sync does that began before later ones were applied. Answers
    /// the newest batch covered.
    pub fn sync_up_to(&mut self, up_to: BatchSeq) -> BatchSeq {
        while self.unsynced.front().is_some_and(|(seq, _)| *seq <= up_to)
            && let Some((_, batch)) = self.unsynced.pop_front()
        {
            apply_to(&mut self.synced, batch);
        }
        self.durable()
    }

    /// A power cut: everything that was not synced is gone. Planted faults stay.
    pub fn crash(&mut self) {
        self.crash_keeping(|_| false);
    }

    /// A power cut that caught the disk while it was writing: of the unsynced batches those that `keep` names
    /// survive, each whole. They are asked for oldest first. Planted faults stay.
    ///
    /// A journal read up to its first torn record keeps a prefix; a store must be correct with any subset, because
    /// disks write in any order.
    pub fn crash_keeping(&mut self, mut keep: impl FnMut(BatchSeq) -> bool) {
        for (seq, batch) in std::mem::take(&mut self.unsynced) {
            if keep(seq) {
                apply_to(&mut self.synced, batch);
            }
        }
        self.written = self.synced.clone();
    }

    /// A sync of the batches up to this one fails. Of them those that `keep` names are on the disk all the same; the
    /// others are seen by the process and never will be there, since the next sync does not try them again.
    pub fn fail_sync(&mut self, up_to: BatchSeq, mut keep: impl FnMut(BatchSeq) -> bool) {
        while self.unsynced.front().is_some_and(|(seq, _)| *seq <= up_to)
            && let Some((seq, batch)) = self.unsynced.pop_front()
        {
            if keep(seq) {
                apply_to(&mut self.synced, batch);
            }
        }
    }

    /// The stored bytes of a key become others behind everybody's back. Only what is synced and was not written since
    /// can; answers whether the key is so.
    pub fn damage(&mut self, key: &[u8], change: impl FnOnce(&Bytes) -> Bytes) -> bool {
        let touches = |batch: &Batch| batch.changes.iter().any(|(changed, _)| changed == key);
        if self.unsynced.iter().any(|(_, batch)| touches(batch)) {
            return false;
        }
        let Some(value) = self.synced.get_mut(key) else { return false };
        *value = change(value);
        let value = value.clone();
        self.written.insert(Bytes::copy_from_slice(key), value);
        true
    }

    /// The death of the process alone (`kill -9`): what was written survives in the caches of the operating system,
    /// which bring it to the disk.
    pub fn process_death(&mut self) {
        self.sync();
    }

    /// Copies what is durable, to roll the disk back to later or to give it to a second node.
    pub fn snapshot(&self) -> DiskImage {
        DiskImage(self.synced.clone())
    }

    /// Copies what the process sees: a directory copied while it was in use.
    pub fn copy(&self) -> DiskImage {
        DiskImage(self.written.clone())
    }

    /// Replaces everything by an older or foreign disk: what a restored backup does. Planted faults stay.
    pub fn restore(&mut self, image: DiskImage) {
        self.unsynced.clear();
        self.written = image.0.clone();
        self.synced = image.0;
    }

    /// While set, batches are refused with [`ApplyError::Full`], except those that only remove.
    pub fn set_full(&mut self, full: bool) {
        self.faults.full = full;
    }

    /// The next batch, whatever it does, is refused with [`ApplyError::Full`]; the one after it is not.
    pub fn fail_next_apply_full(&mut self) {
        self.faults.full_once = true;
    }

    /// The next batch fails with [`ApplyError::Failed`], and the store with it. Whether the batch was written all the
    /// same is the second argument: the caller of `apply` cannot know.
    pub fn fail_next_apply(&mut self, error: StoreError, written: bool) {
        self.faults.next_apply = Some((error, written));
    }

    /// From now on every call answers this error.
    pub fn fail(&mut self, error: StoreError) {
        self.faults.failed = Some(error);
    }

    /// Takes all planted faults away, as a repaired disk would. What is stored stays as it is.
    pub fn clear_faults(&mut self) {
        self.faults = Faults::default();
    }

    /// What would survive a power cut now.
    pub fn durable_view(&self) -> DurableView<'_> {
        DurableView(&self.synced)
    }

    /// The newest batch applied.
    pub fn applied(&self) -> BatchSeq {
        self.applied
    }

    /// The newest batch of which it and all before it are durable.
    pub fn durable(&self) -> BatchSeq {
        match self.unsynced.front() {
            Some((seq, _)) => BatchSeq(seq.0 - 1),
            None => self.applied,
        }
    }

    /// Keys stored, as the process sees it.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether nothing is stored, as the process sees it.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.faults.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn write(&mut self, batch: Batch) -> BatchSeq {
        self.applied = BatchSeq(self.applied.0 + 1);
        self.unsynced.push_back((self.applied, batch.clone()));
        apply_to(&mut self.written, batch);
        self.applied
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        Ok(self.written.get(key).cloned())
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.check()?;
        scan_of(&self.written, range, visit);
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        super::assert_keys_fit(&batch);
        self.check()?;
        if std::mem::take(&mut self.faults.full_once) || (self.faults.full && !super::only_removes(&batch)) {
            return Err(ApplyError::Full("the simulated disk is full".into()));
        }
        if let Some((error, written)) = self.faults.next_apply.take() {
            if written {
                self.write(batch);
            }
            self.fail(error.clone());
            return Err(error.into());
        }
        Ok(self.write(batch))
    }
}

impl DurableView<'_> {
    /// The durable value of a key.
    pub fn durable_get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    /// Visits the durable keys of a range in order, until the end or until `visit` breaks.
    pub fn durable_scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>) {
        scan_of(self.0, range, visit);
    }
}

fn apply_to(map: &mut BTreeMap<Bytes, Bytes>, batch: Batch) {
    for (key, value) in batch.changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

fn scan_of(map: &BTreeMap<Bytes, Bytes>, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>) {
    if range.start >= range.end {
        return; // `BTreeMap::range` panics on a range that runs backwards
    }
    let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
    for (key, value) in map.range::<[u8], _>(bounds) {
        if visit(key, value.clone()).is_break() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::behaviour::{batch, contents, put, value_of};

    crate::store::behaviour::suite!(Memory);

    /// The memory store under the suite: "reopened" is the death of a process.
    struct Memory(MemoryStore);

    impl crate::store::behaviour::Subject for Memory {
        type Store = MemoryStore;

        fn create() -> Memory {
            Memory(MemoryStore::new())
        }

        fn store(&mut self) -> &mut MemoryStore {
            &mut self.0
        }

        fn sync_during(&mut self, meanwhile: impl FnOnce(&mut MemoryStore)) {
            let begun = self.0.applied();
            meanwhile(&mut self.0);
            self.0.sync_up_to(begun);
        }

        fn power_cut(mut self) -> Memory {
            self.0.crash();
            self
        }

        fn reopen(mut self) -> Memory {
            self.0.process_death();
            self
        }
    }

    #[test]
    fn a_crash_loses_exactly_what_was_not_synced() {
        let mut store = MemoryStore::new();
        put(&mut store, "a", "1");
        put(&mut store, "b", "1");
        let covered = store.sync();
        put(&mut store, "a", "2");
        store.apply(batch([("b", None), ("c", Some("3"))])).expect("applies");
        assert_eq!(value_of(&store, "b"), None);
        assert_eq!(store.durable(), covered);

        store.crash();

        assert_eq!(contents(&store), [("a".into(), "1".into()), ("b".into(), "1".into())]);
        assert_eq!(store.durable_view().durable_get(b"a").as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn a_crash_that_keeps_some_batches_keeps_each_of_them_whole() {
        for kept in 0..8_u64 {
            let mut store = MemoryStore::new();
            put(&mut store, "x", "0");
            store.sync();
            for round in 1..=3 {
                let text = round.to_string();
                let changes =
                    [("x", Some(text.as_str())), ("y", Some(text.as_str())), (["p", "q", "r"][round - 1], Some("1"))];
                store.apply(batch(changes)).expect("applies");
            }
            store.crash_keeping(|seq| kept >> (seq.0 - 2) & 1 == 1);

            let newest = (1..=3).rev().find(|round| kept >> (round - 1) & 1 == 1);
            assert_eq!(value_of(&store, "x"), Some(newest.unwrap_or(0).to_string()));
            assert_eq!(value_of(&store, "y"), newest.map(|round| round.to_string()));
            for (i, key) in ["p", "q", "r"].into_iter().enumerate() {
                assert_eq!(value_of(&store, key).is_some(), kept >> i & 1 == 1, "batch {i}, kept {kept:03b}");
            }
            assert_eq!(store.snapshot().0, store.written, "after a crash all that is left is durable");
        }
    }

    #[test]
    fn a_sync_covers_what_was_applied_before_it_began_and_no_more() {
        let mut store = MemoryStore::new();
        put(&mut store, "a", "1");
        let begun = put(&mut store, "b", "2");
        put(&mut store, "c", "3");
        assert_eq!(store.sync_up_to(begun), begun);
        assert_eq!(store.durable(), begun);
        let mut durable = Vec::new();
        store.durable_view().durable_scan(b"a"..b"z", &mut |key, _| {
            durable.push(key.to_vec());
            ControlFlow::Continue(())
        });
        assert_eq!(durable, [b"a".to_vec(), b"b".to_vec()]);
        store.crash();
        assert_eq!(value_of(&store, "c"), None);
        assert!(put(&mut store, "c", "3") > begun, "numbers never go back");
    }

    #[test]
    fn what_a_failed_sync_did_not_bring_to_the_disk_no_later_sync_brings_there() {
        for kept in 0..4_u64 {
            let mut store = MemoryStore::new();
            put(&mut store, "a", "1");
            let begun = put(&mut store, "b", "2");
            put(&mut store, "c", "3");
            store.fail_sync(begun, |seq| kept >> (seq.0 - 1) & 1 == 1);
            assert_eq!(value_of(&store, "a").as_deref(), Some("1"), "the process sees it all the same");
            store.sync();
            store.crash();
            let found = ["a", "b", "c"].map(|key| value_of(&store, key).is_some());
            assert_eq!(found, [kept & 1 == 1, kept >> 1 & 1 == 1, true]);
        }
    }

    #[test]
    fn what_is_not_synced_yet_is_not_damaged() {
        let mut store = MemoryStore::new();
        put(&mut store, "a", "1");
        let rot = |store: &mut MemoryStore| store.damage(b"a", |_| Bytes::from_static(b"?"));
        assert!(!rot(&mut store));
        store.sync();
        assert!(rot(&mut store));
        store.crash();
        assert_eq!(value_of(&store, "a").as_deref(), Some("?"));
        put(&mut store, "a", "2");
        assert!(!rot(&mut store));
        assert!(!store.damage(b"b", |_| Bytes::new()));
    }

    #[test]
    fn a_disk_rolled_back_forgets_what_was_durable_since() {
        let mut store = MemoryStore::new();
        put(&mut store, "a", "old");
        store.sync();
        let backup = store.snapshot();
        put(&mut store, "a", "new");
        put(&mut store, "b", "new");
        store.sync();
        store.restore(backup);
        assert_eq!(contents(&store), [("a".into(), "old".into())]);
        store.crash();
        assert_eq!(contents(&store), [("a".into(), "old".into())]);
    }

    #[test]
    fn a_full_disk_applies_nothing_still_removes_and_recovers() {
        let mut store = MemoryStore::new();
        put(&mut store, "a", "1");
        store.set_full(true);
        let refused = store.apply(batch([("a", Some("2")), ("b", None)]));
        assert!(matches!(refused, Err(ApplyError::Full(_))));
        assert_eq!(value_of(&store, "a").as_deref(), Some("1"));
        store.apply(batch([("a", None)])).expect("removing goes on");
        store.set_full(false);
        store.fail_next_apply_full();
        assert!(matches!(store.apply(batch([("a", None)])), Err(ApplyError::Full(_))));
        put(&mut store, "a", "3");
    }

    #[test]
    fn after_a_failure_every_call_answers_the_same_error() {
        for written in [false, true] {
            let mut store = MemoryStore::new();
            let error = StoreError::Io("planted".into());
            store.fail_next_apply(error.clone(), written);
            assert_eq!(store.apply(batch([("a", Some("1"))])), Err(error.clone().into()));
            assert_eq!(store.get(b"a"), Err(error.clone()));
            assert_eq!(store.scan(b"a"..b"b", &mut |_, _| ControlFlow::Continue(())), Err(error.clone()));
            assert_eq!(store.apply(batch([("a", Some("1"))])), Err(error.into()));
            store.clear_faults();
            assert_eq!(value_of(&store, "a").is_some(), written);
        }
    }
}
