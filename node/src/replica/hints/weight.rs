//! What one hint weighs.

use crate::replica::record::{self, HintKey};

/// What one hint weighs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::replica) struct HintWeight {
    pub(in crate::replica) is_marker: bool,
    /// Of key and value, as stored.
    pub(in crate::replica) bytes: u64,
}

impl HintWeight {
    pub(in crate::replica) fn of(key: &HintKey, value: &[u8]) -> HintWeight {
        HintWeight { is_marker: record::is_no_copy(value), bytes: (key.as_bytes().len() + value.len()) as u64 }
    }
}
