//! Requests of clients that a shard has not answered yet: only the shard counts them, others look whether there are any.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one shard.
#[derive(Default)]
pub(crate) struct UnderWay {
    /// On its own connections.
    own: AtomicUsize,
    /// Those that other nodes have passed on to it, as of its last turn.
    passed_on: AtomicUsize,
}

impl UnderWay {
    /// One more on a connection of this shard, from before it is looked whether the node is drained: who drains it sets that first, and
    /// looks at this then.
    pub(crate) fn begun(&self) {
        self.own.fetch_add(1, Ordering::SeqCst);
    }

    /// So many of them are no longer.
    pub(crate) fn ended(&self, count: usize) {
        self.own.fetch_sub(count, Ordering::SeqCst);
    }

    /// So many are passed on to this shard.
    pub(crate) fn show_passed_on(&self, count: usize) {
        self.passed_on.store(count, Ordering::SeqCst);
    }

    /// All of them.
    pub(crate) fn count(&self) -> usize {
        self.own.load(Ordering::SeqCst) + self.passed_on.load(Ordering::SeqCst)
    }
}
