//! What errors are taken for. Without a mistake planted: for what they are.

use crate::planted::{Bug, Planted};

use super::record::RecordError;
use super::store::{ApplyError, StoreError};

impl Planted {
    /// What was read; or nothing, where that is what an error is taken for.
    pub(crate) fn forgive<T: Default, E: Into<RecordError>>(&self, read: Result<T, E>) -> Result<T, RecordError> {
        match read.map_err(E::into) {
            Err(RecordError::Store(StoreError::Io(_))) if self.is(Bug::ReadErrorIgnored) => Ok(T::default()),
            Err(RecordError::Damaged { .. }) if self.is(Bug::DamagedAsAbsent) => Ok(T::default()),
            read => read,
        }
    }

    /// What became of a batch; a refusal, where that is what an error is taken for.
    pub(crate) fn soften<T>(&self, applied: Result<T, ApplyError>) -> Result<T, ApplyError> {
        match applied {
            Err(ApplyError::Failed(error)) if self.is(Bug::ApplyErrorRefused) => {
                Err(ApplyError::Full(error.to_string()))
            }
            applied => applied,
        }
    }
}
