//! Stores: memory for the simulator and tests, disk for everything else.
//!
//! ```text
//! memory     what is written and what is durable kept apart; crashes, rollbacks and faults on demand
//! directory  whose data this is: lock, identity, number of starts, what the data depends on     (feature `disk`)
//! log        batches appended to a log, an index of all keys in memory, fail-stop              (feature `disk`)
//! ```
//! Both stores answer alike to everything in `replica::store::Store`: one test suite runs against both.

use crate::replica::store::Batch;

#[cfg(test)]
pub(crate) mod behaviour;
#[cfg(feature = "disk")]
pub mod directory;
#[cfg(feature = "disk")]
pub mod log;
pub mod memory;

/// Longest key a store takes. The log writes lengths of keys in 16 bits.
pub const STORED_KEY_BYTES_MAX: usize = u16::MAX as usize;

/// A batch that takes data away and adds none: let through when the disk is full, because it is the way out.
fn only_removes(batch: &Batch) -> bool {
    batch.changes.iter().all(|(_, value)| value.is_none())
}

/// Keys are made by the replica from bounded parts, so a key of a wrong length is a bug, and would be
/// written under another key: stop before that.
fn assert_keys_fit(batch: &Batch) {
    for (key, value) in &batch.changes {
        let (key, value) = (key.len(), value.as_ref().map_or(0, |value| value.len()));
        assert!(
            (1..=STORED_KEY_BYTES_MAX).contains(&key),
            "a stored key has 1 to {STORED_KEY_BYTES_MAX} bytes, not {key}"
        );
        assert!(u32::try_from(value).is_ok(), "a stored value has less than 4 GiB, not {value} bytes");
    }
}
