//! The second seam: where a replica keeps its bytes.
//!
//! A store is an ordered map of bytes with atomic batches. It knows nothing of records, dots or hints, so that an
//! engine of another kind can take its place.
//!
//! ```text
//! apply   the batch is visible to get and scan, all of it or nothing; not yet durable
//! sync    everything applied before the call survives a power cut (done by the shell, on a thread of its own)
//! ```

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

/// An ordered map of bytes with atomic batches. Calls are synchronous and made by one thread at a time.
pub trait Store {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be trusted any more; stop serving.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the keys of a range in order, until the end or until `visit` breaks.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be trusted any more; stop serving.
    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Makes all changes of the batch visible at once, and answers its number: larger than all before it.
    ///
    /// # Errors
    /// [`ApplyError::Full`]: nothing was applied. [`ApplyError::Failed`]: it is not known what was applied; stop.
    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError>;

    /// What is too short now for batches that add something, in words: they are refused as [`ApplyError::Full`] until it is there again.
    fn shortage(&self) -> Option<String> {
        None
    }

    /// Whether the value of a key can be had without waiting for a disk. If not, it is being fetched; whoever listens is told when it
    /// is there, and asked again then, this says yes. Nothing but speed rests on the answer.
    fn prepare(&self, _key: &[u8]) -> bool {
        true
    }

    /// The same of the first records of a range: so many, or so many bytes of them.
    fn prepare_range(&self, _range: Range<&[u8]>, _records: usize, _bytes: usize) -> bool {
        true
    }

    /// Whom to tell, from any thread, that something has been fetched.
    fn on_fetched(&mut self, _listener: Listener) {}

    /// How large it is with everything of all shards, if that means something.
    fn figures(&self) -> Option<StoreFigures> {
        None
    }
}

/// Is told that something has happened.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

/// How large a store is, and how often it had to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreFigures {
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// Bytes in them that are not void.
    pub live_bytes: u64,
    /// Keys, of whichever kind.
    pub keys: u64,
    /// Memory that it takes to find them.
    pub index_bytes: u64,
    /// Keys and ranges that were not in memory and were read while a shard did something else, since the start.
    pub fetches: u64,
}

/// Changes that become visible together. A later change of a key in the same batch wins.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Keys with their new values; `None` removes.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

/// Number of a batch within its store handle; 0 stands for "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BatchSeq(pub u64);

/// The store failed and cannot be trusted any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system reported an error.
    #[error("storage I/O error: {0}")]
    Io(String),
    /// What was read is not what was written.
    #[error("storage is corrupt: {0}")]
    Corrupt(String),
}

/// A batch was not applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// No room, or something else has run out; nothing was applied, and reads go on.
    #[error("the store is short of what a write needs: {0}")]
    Full(String),
    /// It is not known what was applied.
    #[error(transparent)]
    Failed(#[from] StoreError),
}
