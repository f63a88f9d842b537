//! A store that counts what is read from it.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use super::store::{ApplyError, Batch, BatchSeq, Listener, Store, StoreError, StoreFigures};

/// The store of a replica, and how many bytes of it this turn has read.
pub(crate) struct Metered<S> {
    store: S,
    read: Cell<usize>,
}

impl<S> Metered<S> {
    pub(super) fn new(store: S) -> Metered<S> {
        Metered { store, read: Cell::new(0) }
    }

    /// Bytes of keys and values since the turn began.
    pub(super) fn read(&self) -> usize {
        self.read.get()
    }

    /// The next turn begins.
    pub(super) fn begin_turn(&self) {
        self.read.set(0);
    }

    /// The store itself, for code outside that looks at it.
    pub(super) fn inner(&self) -> &S {
        &self.store
    }

    /// The store itself, for code outside that changes it.
    pub(super) fn inner_mut(&mut self) -> &mut S {
        &mut self.store
    }

    fn count(&self, bytes: usize) {
        self.read.set(self.read.get().saturating_add(bytes));
    }
}

impl<S: Store> Store for Metered<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.store.get(key)?;
        self.count(key.len() + value.as_ref().map_or(0, Bytes::len));
        Ok(value)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.scan(range, &mut |key, value| {
            self.count(key.len() + value.len());
            visit(key, value)
        })
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        self.store.apply(batch)
    }

    fn shortage(&self) -> Option<String> {
        self.store.shortage()
    }

    fn prepare(&self, key: &[u8]) -> bool {
        self.store.prepare(key)
    }

    fn prepare_range(&self, range: Range<&[u8]>, records: usize, bytes: usize) -> bool {
        self.store.prepare_range(range, records, bytes)
    }

    fn on_fetched(&mut self, listener: Listener) {
        self.store.on_fetched(listener);
    }

    fn figures(&self) -> Option<StoreFigures> {
        self.store.figures()
    }
}
