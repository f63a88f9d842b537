//! A node's disk: the memory store behind a handle that outlives the engine, with a log of what was applied.
//!
//! It fails once when it is told to, and works again afterwards: a process that does not stop at the first error goes on
//! with what it has made of it. What was damaged holds nothing for whoever judges.
//!
//! The engine owns its store; the world has to crash it, sync it and look into it all the same. One thread, so a
//! shared cell does it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use bytes::Bytes;
use driftless_node::replica::record::{self, HintKey, RecordKey};
use driftless_node::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};
use driftless_node::store::memory::{DiskImage, MemoryStore};
use driftless_proto::Siblings;
use driftless_ring::NodeId;

use super::history::Slot;
use super::observer;

/// A handle to one node's disk.
#[derive(Clone, Debug, Default)]
pub struct SimStore(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    memory: MemoryStore,
    log: Vec<Batch>,
    /// Hints that those batches have removed.
    removed: Vec<RemovedHint>,
    refused: u64,
    errors: Errors,
    /// Keys whose bytes were damaged, and what they are now.
    damaged: BTreeMap<Bytes, Bytes>,
    /// What its process has read since somebody asked: bytes, and those of the largest record.
    read: Cell<(usize, usize)>,
    /// Newest batch when the present process opened the store: numbers begin anew with each handle.
    opened_at: u64,
}

/// What will fail, and what has.
#[derive(Debug, Default)]
struct Errors {
    /// The next batch, which may have been written all the same.
    apply: Option<bool>,
    /// The next read of this kind.
    read: Option<Reading>,
    applies_failed: u64,
    reads_failed: u64,
}

/// How a store is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// One key.
    Get,
    /// A range of them.
    Scan,
}

/// A hint that a batch has removed.
#[derive(Clone, PartialEq, Debug)]
pub struct RemovedHint {
    /// Its key.
    pub key: Bytes,
    /// Whether it was a marker.
    pub is_marker: bool,
    /// What it held for its target; of a marker, the record that the batch has left.
    pub owed: Siblings,
}

/// What a disk holds of a key.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    /// As stored: replicas that agree have equal bytes.
    pub bytes: Bytes,
    /// The same, read.
    pub siblings: Siblings,
}

impl SimStore {
    /// A new process opens the store.
    pub fn open(&self) {
        let mut inner = self.0.borrow_mut();
        inner.opened_at = inner.memory.applied().0;
    }

    /// Takes the batches applied since the last call.
    pub fn take_log(&self) -> Vec<Batch> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    /// Takes the hints that those batches have removed.
    pub fn take_removed(&self) -> Vec<RemovedHint> {
        std::mem::take(&mut self.0.borrow_mut().removed)
    }

    /// Bytes that the process has read since the last call, and those of the largest record among them.
    pub fn take_reads(&self) -> (usize, usize) {
        self.0.borrow().read.take()
    }

    /// How many batches the disk did not take.
    pub fn refused(&self) -> u64 {
        self.0.borrow().refused
    }

    /// How many batches have failed so that nobody knows what became of them, and how many reads.
    pub fn failed(&self) -> (u64, u64) {
        let errors = &self.0.borrow().errors;
        (errors.applies_failed, errors.reads_failed)
    }

    /// Newest batch applied by the present process.
    pub fn applied(&self) -> BatchSeq {
        let inner = self.0.borrow();
        BatchSeq(inner.memory.applied().0 - inner.opened_at)
    }

    /// A sync that began when `up_to` was the newest batch is done.
    pub fn sync_up_to(&self, up_to: BatchSeq) {
        let mut inner = self.0.borrow_mut();
        let up_to = BatchSeq(inner.opened_at + up_to.0);
        inner.memory.sync_up_to(up_to);
    }

    /// A sync that began when `up_to` was the newest batch fails: some of what it was for is on the disk, and no later
    /// sync will see to the rest.
    pub fn fail_sync(&self, up_to: BatchSeq, keep: impl FnMut() -> bool) {
        let (mut keep, mut inner) = (keep, self.0.borrow_mut());
        let up_to = BatchSeq(inner.opened_at + up_to.0);
        inner.memory.fail_sync(up_to, |_| keep());
    }

    /// The process dies; its machine goes on. What was written stays readable, but a power cut can still take what
    /// was not synced: the next process must not take it for durable because it finds it there.
    pub fn process_death(&self) {
        self.0.borrow_mut().clear_faults();
    }

    /// The machine loses power. Answers how many applied batches are gone.
    pub fn power_cut(&self, mut keep: impl FnMut() -> bool) -> u64 {
        let mut lost = 0;
        let mut inner = self.0.borrow_mut();
        inner.memory.crash_keeping(|_| {
            let kept = keep();
            lost += u64::from(!kept);
            kept
        });
        inner.clear_faults();
        lost
    }

    /// Takes back all planted faults.
    pub fn repair(&self) {
        self.0.borrow_mut().clear_faults();
    }

    /// A copy of the disk: of what is durable, or, if the directory is `live`, of what its process sees.
    pub fn image(&self, live: bool) -> DiskImage {
        let memory = &self.0.borrow().memory;
        if live { memory.copy() } else { memory.snapshot() }
    }

    /// Another disk takes the place of this one.
    pub fn restore(&self, image: DiskImage) {
        self.0.borrow_mut().memory.restore(image);
    }

    /// All keys on the disk.
    pub fn keys(&self) -> Vec<Bytes> {
        let mut keys = Vec::new();
        self.0.borrow().memory.durable_view().durable_scan(ALL, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        });
        keys
    }

    /// Damages the bytes of a key, unless they are already, or the newest of them are not on the disk yet. Answers
    /// whether it did.
    pub fn damage(&self, key: &Bytes, change: impl FnOnce(&Bytes) -> Bytes) -> bool {
        let mut inner = self.0.borrow_mut();
        let is_damaged = !inner.damaged.contains_key(key) && inner.memory.damage(key, change);
        if is_damaged {
            let bytes = inner.memory.durable_view().durable_get(key).expect("it was damaged just now");
            inner.damaged.insert(key.clone(), bytes);
        }
        is_damaged
    }

    /// Whether there is damage left.
    pub fn is_damaged(&self) -> bool {
        !self.0.borrow().damaged.is_empty()
    }

    /// Takes the keys whose damaged bytes are gone since the last call, from the disk as well.
    pub fn take_restored(&self) -> Vec<Bytes> {
        let Inner { memory, damaged, .. } = &mut *self.0.borrow_mut();
        let view = memory.durable_view();
        let is_gone = |(key, bytes): &(&Bytes, &Bytes)| {
            view.durable_get(key).as_ref() != Some(bytes) && memory.get(key).ok().flatten().as_ref() != Some(bytes)
        };
        let gone: Vec<Bytes> = damaged.iter().filter(is_gone).map(|(key, _)| key.clone()).collect();
        damaged.retain(|key, _| !gone.contains(key));
        gone
    }

    /// Alters what the disk holds while no process uses it: each record becomes what `change` makes of it; `None`
    /// leaves it, `Some(None)` removes it. Answers how many were altered.
    pub fn alter(&self, mut change: impl FnMut(&[u8], Bytes) -> Option<Option<Bytes>>) -> usize {
        let inner = &mut *self.0.borrow_mut();
        let mut batch = Batch::default();
        inner
            .memory
            .scan(ALL, &mut |key, value| {
                if observer::is_record(key)
                    && inner.is_sound(key, &value)
                    && let Some(new) = change(key, value)
                {
                    batch.changes.push((Bytes::copy_from_slice(key), new));
                }
                ControlFlow::Continue(())
            })
            .expect("is altered only when the disk works");
        let altered = batch.changes.len();
        inner.memory.apply(batch).expect("is altered only when the disk works");
        inner.memory.sync();
        altered
    }

    /// Fills the disk, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.0.borrow_mut().memory.set_full(full);
    }

    /// The next batch fails, and may have been written all the same.
    pub fn fail_next_apply(&self, written: bool) {
        self.0.borrow_mut().errors.apply = Some(written);
    }

    /// The next read of this kind fails.
    pub fn fail_next_read(&self, reading: Reading) {
        self.0.borrow_mut().errors.read = Some(reading);
    }

    /// What would survive of one key: its record, and the copies held for others, each with whom it is held for.
    pub fn durable_states(&self, record: &RecordKey) -> (Option<Siblings>, Vec<(NodeId, Siblings)>) {
        let inner = self.0.borrow();
        let durable = inner.memory.durable_view();
        let decode = |value: Bytes| record::decode(value).expect("a store holds what its node wrote");
        let own = durable.durable_get(record.as_bytes()).filter(|value| inner.is_sound(record.as_bytes(), value));
        let (hints, mut copies) = (record::all_hints(), Vec::new());
        durable.durable_scan(&hints.start[..]..&hints.end[..], &mut |key, value| {
            if record::is_hint_of(key, record) && inner.is_sound(key, &value) && !record::is_marker(&value) {
                let hint = HintKey::from_stored(key).expect("a store holds what its node wrote");
                copies.push((hint.target(), decode(value)));
            }
            ControlFlow::Continue(())
        });
        (own.map(decode), copies)
    }

    /// The same without the copies whose removal has begun, as what they were for has arrived: it is only not on the disk yet.
    pub fn lasting_states(&self, record: &RecordKey) -> (Option<Siblings>, Vec<(NodeId, Siblings)>) {
        let (own, mut copies) = self.durable_states(record);
        let (mut present, range) = (BTreeSet::new(), record::all_hints());
        let memory = &self.0.borrow().memory;
        let scanned = memory.scan(&range.start[..]..&range.end[..], &mut |key, _| {
            if record::is_hint_of(key, record) {
                present.extend(HintKey::from_stored(key).map(|hint| hint.target()));
            }
            ControlFlow::Continue(())
        });
        copies.retain(|(target, _)| scanned.is_ok() && present.contains(target));
        (own, copies)
    }

    /// Whether a copy of this key is held for somebody, as the process sees it.
    pub fn has_hint_of(&self, record: &RecordKey) -> bool {
        let (mut found, range) = (false, record::all_hints());
        let memory = &self.0.borrow().memory;
        let scanned = memory.scan(&range.start[..]..&range.end[..], &mut |key, value| {
            found |= record::is_hint_of(key, record) && !record::is_marker(&value);
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        scanned.is_ok() && found
    }

    /// How many hints the process sees.
    pub fn hints(&self) -> usize {
        let (mut count, range) = (0, record::all_hints());
        let memory = &self.0.borrow().memory;
        memory
            .scan(&range.start[..]..&range.end[..], &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })
            .expect("is looked at only when the disk works");
        count
    }

    /// What the process sees of a key, as stored, unless it is damaged.
    pub fn record(&self, record: &RecordKey) -> Option<Bytes> {
        let inner = self.0.borrow();
        let value = inner.memory.get(record.as_bytes()).expect("is looked at only when the disk works");
        value.filter(|value| inner.is_sound(record.as_bytes(), value))
    }

    /// What the process sees of all records, as stored, but for damaged ones.
    pub fn records(&self) -> BTreeMap<Bytes, Bytes> {
        let mut records = BTreeMap::new();
        let inner = self.0.borrow();
        inner
            .memory
            .scan(ALL, &mut |key, value| {
                if observer::is_record(key) && inner.is_sound(key, &value) {
                    records.insert(Bytes::copy_from_slice(key), value);
                }
                ControlFlow::Continue(())
            })
            .expect("is looked at only when the disk works");
        records
    }

    /// What the process sees, by key.
    pub fn written(&self) -> BTreeMap<Slot, Held> {
        let mut held = BTreeMap::new();
        let inner = self.0.borrow();
        inner
            .memory
            .scan(ALL, &mut |key, bytes| {
                if inner.is_sound(key, &bytes)
                    && let Some((slot, siblings)) = observer::decode(key, &bytes)
                {
                    held.insert(slot, Held { bytes, siblings });
                }
                ControlFlow::Continue(())
            })
            .expect("is looked at only when the disk works");
        held
    }
}

impl Inner {
    /// Applies a batch, and notes which hints it removes.
    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        let is_removal = |(key, value): &&(Bytes, Option<Bytes>)| value.is_none() && record::is_hint(key);
        let removed = batch.changes.iter().filter(is_removal).filter_map(|(key, _)| {
            let value = self.memory.get(key).ok().flatten()?;
            self.is_sound(key, &value).then(|| (key.clone(), value))
        });
        let removed: Vec<_> = removed.collect();
        let seq = self.memory.apply(batch.clone())?;
        self.log.push(batch);
        for (key, mut value) in removed {
            let is_marker = record::is_marker(&value);
            if is_marker {
                let record = HintKey::from_stored(&key).expect("a store holds what its node wrote").record();
                let Some(stored) = self.memory.get(record.as_bytes()).ok().flatten() else { continue };
                if !self.is_sound(record.as_bytes(), &stored) {
                    continue;
                }
                value = stored;
            }
            let owed = record::decode(value).expect("a store holds what its node wrote");
            self.removed.push(RemovedHint { key, is_marker, owed });
        }
        Ok(seq)
    }

    fn count(&self, key: &[u8], value: &[u8]) {
        let (bytes, (all, largest)) = (key.len() + value.len(), self.read.get());
        self.read.set((all + bytes, largest.max(bytes)));
    }

    fn is_sound(&self, key: &[u8], value: &Bytes) -> bool {
        self.damaged.is_empty() || self.damaged.get(key) != Some(value)
    }

    fn clear_faults(&mut self) {
        self.memory.clear_faults();
        (self.errors.apply, self.errors.read) = (None, None);
    }
}

impl Errors {
    fn reading(&mut self, reading: Reading) -> Result<(), StoreError> {
        if self.read != Some(reading) {
            return Ok(());
        }
        self.read = None;
        self.reads_failed += 1;
        Err(error())
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.borrow_mut().errors.reading(Reading::Get)?;
        let inner = self.0.borrow();
        let value = inner.memory.get(key)?;
        inner.count(key, value.as_deref().unwrap_or_default());
        Ok(value)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.borrow_mut().errors.reading(Reading::Scan)?;
        let inner = self.0.borrow();
        inner.memory.scan(range, &mut |key, value| {
            inner.count(key, &value);
            visit(key, value)
        })
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        let mut inner = self.0.borrow_mut();
        if let Some(written) = inner.errors.apply.take() {
            inner.errors.applies_failed += 1;
            // Nobody knows, but we do.
            if written {
                let _ = inner.apply(batch);
            }
            return Err(error().into());
        }
        let result = inner.apply(batch);
        inner.refused += u64::from(result.is_err());
        result.map(|seq| BatchSeq(seq.0 - inner.opened_at))
    }
}

fn error() -> StoreError {
    StoreError::Io("the nemesis was here".into())
}

/// From the first key to the last: no key begins with this byte.
const ALL: Range<&[u8]> = &[]..&[0xff];
