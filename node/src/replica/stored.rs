//! Records as anti-entropy sees them: tokens and digests, straight from the store.

use std::cell::RefCell;
use std::ops::ControlFlow;

use driftless_antientropy::{Digest, Records, Unreadable};
use driftless_ring::{Token, TokenRange};

use super::record;
use super::store::{Store, StoreError};

/// The records of one replication factor, as applied.
pub(crate) struct Stored<'a, S> {
    store: &'a S,
    n: u8,
    failure: RefCell<Option<StoreError>>,
}

impl<'a, S: Store> Stored<'a, S> {
    pub(super) fn new(store: &'a S, n: u8) -> Stored<'a, S> {
        Stored { store, n, failure: RefCell::new(None) }
    }

    /// Why something was unreadable.
    pub(crate) fn into_failure(self) -> Option<StoreError> {
        self.failure.into_inner()
    }

    /// Like [`Records::visit`], with each record's value.
    pub(super) fn visit_values(&self, tokens: TokenRange, visit: &mut VisitValue<'_>) -> Result<(), Unreadable> {
        let range = record::token_range(self.n, tokens);
        let mut bad = None;
        let scanned = self.store.scan(&range.start[..]..&range.end[..], &mut |key, value| {
            let visited = record::decode_digest(key, &value).and_then(|(token, digest)| visit(token, digest, &value));
            visited.unwrap_or_else(|error| {
                bad = Some(error.in_record(key));
                ControlFlow::Break(())
            })
        });
        match scanned.err().or(bad) {
            None => Ok(()),
            Some(error) => {
                self.failure.replace(Some(error));
                Err(Unreadable)
            }
        }
    }
}

/// Takes token, digest and stored form of a record.
pub(super) type VisitValue<'a> = dyn FnMut(Token, Digest, &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

impl<S: Store> Records for Stored<'_, S> {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.visit_values(tokens, &mut |token, digest, _| Ok(visit(token, digest)))
    }
}
