//! A node's disk: the memory store behind a handle that outlives the engine, with a log of what was applied.
//!
//! The engine owns its store; the world has to crash it, sync it and look into it all the same. One thread, so a
//! shared cell does it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use bytes::Bytes;
use driftless_node::replica::record::{self, RecordKey};
use driftless_node::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};
use driftless_node::store::memory::{DiskImage, MemoryStore};
use driftless_proto::Siblings;

use super::history::Slot;
use super::observer;

/// A handle to one node's disk.
#[derive(Clone, Debug, Default)]
pub struct SimStore(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    memory: MemoryStore,
    log: Vec<Batch>,
    refused: u64,
    /// Newest batch when the present process opened the store: numbers begin anew with each handle.
    opened_at: u64,
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

    /// How many batches the disk did not take.
    pub fn refused(&self) -> u64 {
        self.0.borrow().refused
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

    /// The process dies; its machine goes on. What was written stays readable, but a power cut can still take what
    /// was not synced: the next process must not take it for durable because it finds it there.
    pub fn process_death(&self) {
        self.0.borrow_mut().memory.clear_faults();
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
        inner.memory.clear_faults();
        lost
    }

    /// Takes back all planted faults.
    pub fn repair(&self) {
        self.0.borrow_mut().memory.clear_faults();
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

    /// Alters what the disk holds while no process uses it: each record becomes what `change` makes of it; `None`
    /// leaves it, `Some(None)` removes it. Answers how many were altered.
    pub fn alter(&self, mut change: impl FnMut(&[u8], Bytes) -> Option<Option<Bytes>>) -> usize {
        let mut inner = self.0.borrow_mut();
        let mut batch = Batch::default();
        inner
            .memory
            .scan(ALL, &mut |key, value| {
                if observer::is_record(key)
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
        self.0.borrow_mut().memory.fail_next_apply(StoreError::Io("the nemesis was here".into()), written);
    }

    /// What would survive of one key: of its record, and of the copies held for others.
    pub fn durable_record(&self, record: &RecordKey) -> Option<Siblings> {
        let inner = self.0.borrow();
        let durable = inner.memory.durable_view();
        let mut state: Option<Siblings> = None;
        let mut take_in = |value: Bytes| {
            let siblings = record::decode(value).expect("a store holds what its node wrote");
            match &mut state {
                Some(state) => state.merge(&siblings),
                None => state = Some(siblings),
            }
        };
        if let Some(value) = durable.durable_get(record.as_bytes()) {
            take_in(value);
        }
        let hints = record::all_hints();
        durable.durable_scan(&hints.start[..]..&hints.end[..], &mut |key, value| {
            if record::is_hint_of(key, record) && !record::is_marker(&value) {
                take_in(value);
            }
            ControlFlow::Continue(())
        });
        state
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

    /// What the process sees of a key, as stored.
    pub fn record(&self, record: &RecordKey) -> Option<Bytes> {
        self.0.borrow().memory.get(record.as_bytes()).expect("is looked at only when the disk works")
    }

    /// What the process sees of all records, as stored.
    pub fn records(&self) -> BTreeMap<Bytes, Bytes> {
        let mut records = BTreeMap::new();
        let memory = &self.0.borrow().memory;
        memory
            .scan(ALL, &mut |key, value| {
                if observer::is_record(key) {
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
        let memory = &self.0.borrow().memory;
        memory
            .scan(ALL, &mut |key, value| {
                if let Some((slot, siblings)) = observer::decode(key, &value) {
                    held.insert(slot, Held { bytes: value, siblings });
                }
                ControlFlow::Continue(())
            })
            .expect("is looked at only when the disk works");
        held
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.borrow().memory.get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.borrow().memory.scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        let mut inner = self.0.borrow_mut();
        let before = inner.memory.applied();
        let result = inner.memory.apply(batch.clone());
        // A batch that failed may have been written all the same.
        if inner.memory.applied() > before {
            inner.log.push(batch);
        }
        inner.refused += u64::from(result.is_err());
        result.map(|seq| BatchSeq(seq.0 - inner.opened_at))
    }
}

/// From the first key to the last: no key begins with this byte.
const ALL: Range<&[u8]> = &[]..&[0xff];
