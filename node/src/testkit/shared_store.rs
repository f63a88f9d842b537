//! A disk that the shards of a node share, as those of a real node do.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use bytes::Bytes;

use crate::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};
use crate::store::memory::MemoryStore;

/// A handle to one node's disk: clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedStore(pub(crate) Rc<RefCell<MemoryStore>>);

/// A store whose test says when its disk has caught up.
pub(crate) trait Syncs: Store {
    /// Makes the batches up to this one durable.
    fn make_durable(&mut self, up_to: BatchSeq);
}

impl Syncs for MemoryStore {
    fn make_durable(&mut self, up_to: BatchSeq) {
        self.sync_up_to(up_to);
    }
}

impl Syncs for SharedStore {
    fn make_durable(&mut self, up_to: BatchSeq) {
        self.0.borrow_mut().sync_up_to(up_to);
    }
}

impl Store for SharedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.borrow().get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.borrow().scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        self.0.borrow_mut().apply(batch)
    }
}
