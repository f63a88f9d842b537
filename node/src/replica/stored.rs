//! Records as anti-entropy sees them: tokens and digests, straight from the store. What is damaged is reported, and as if it
//! were not there.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

use bytes::Bytes;
use driftless_antientropy::{Digest, Records, Unreadable};
use driftless_ring::{Token, TokenRange};

use super::record::{self, RecordError};
use super::store::Store;

/// The records of one replication factor, as applied.
pub(crate) struct Stored<'a, S> {
    store: &'a S,
    n: u8,
    /// How much may be read through this value before it is enough, and how much has been.
    bytes_max: usize,
    bytes: Cell<usize>,
    failures: RefCell<Vec<RecordError>>,
}

impl<'a, S: Store> Stored<'a, S> {
    pub(super) fn new(store: &'a S, n: u8, bytes_max: usize) -> Stored<'a, S> {
        Stored { store, n, bytes_max, bytes: Cell::new(0), failures: RefCell::default() }
    }

    /// Bytes of records read so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// What was unreadable: the store, or a record.
    pub(crate) fn into_failures(self) -> Vec<RecordError> {
        self.failures.into_inner()
    }

    /// Visits the records at these tokens as they are stored.
    pub(super) fn visit_values(&self, tokens: TokenRange, visit: &mut VisitValue<'_>) -> Result<(), Unreadable> {
        let range = record::token_range(self.n, tokens);
        let scanned = self.store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
            self.bytes.set(self.bytes.get() + key.len() + value.len());
            visit(key, value).unwrap_or_else(|error| {
                self.failures.borrow_mut().push(error);
                ControlFlow::Continue(())
            })
        });
        scanned.map_err(|error| {
            self.failures.borrow_mut().push(error.into());
            Unreadable
        })
    }
}

/// Takes a record as it is stored; whichever it cannot read is skipped.
pub(super) type VisitValue<'a> = dyn FnMut(&[u8], Bytes) -> Result<ControlFlow<()>, RecordError> + 'a;

impl<S: Store> Records for Stored<'_, S> {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.visit_values(tokens, &mut |key, value| {
            let (token, digest) = record::decode_digest(key, &value).map_err(|error| error.in_record(key))?;
            Ok(visit(token, digest))
        })
    }

    fn is_enough(&self) -> bool {
        self.bytes.get() >= self.bytes_max
    }
}
