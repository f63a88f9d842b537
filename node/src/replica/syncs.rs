//! Which batches are applied, which are durable, and the answers that wait in between.

use std::collections::VecDeque;

use driftless_ring::NodeId;

use crate::peer::{Reply, RequestId};
use crate::time::Instant;

use super::store::BatchSeq;

/// The way of batches to the disk.
pub(super) struct Syncs {
    applied: BatchSeq,
    asked: BatchSeq,
    /// The newest batch known to be durable; `None` until the first sync after the start, which covers what a process
    /// before this one may have left unsynced.
    synced: Option<BatchSeq>,
    /// When applied batches that nobody waits for are to be synced.
    due: Option<Instant>,
    /// Answers that wait for a sync, oldest batch first.
    waiting: VecDeque<(BatchSeq, Answer)>,
}

/// An answer, and whose it is.
pub(super) struct Answer {
    pub(super) to: NodeId,
    pub(super) id: RequestId,
    pub(super) reply: Reply,
}

impl Syncs {
    /// A start: nothing has been applied by this process, and `synced` is what is taken to be durable.
    pub(super) fn new(synced: Option<BatchSeq>) -> Syncs {
        Syncs { applied: BatchSeq(0), asked: BatchSeq(0), synced, due: None, waiting: VecDeque::new() }
    }

    /// A batch has been applied.
    pub(super) fn handle_applied(&mut self, seq: BatchSeq) {
        assert!(seq > self.applied, "batches are numbered in order");
        self.applied = seq;
    }

    /// Everything up to this batch is durable: gives out the answers that waited for it.
    pub(super) fn handle_synced(&mut self, up_to: BatchSeq) -> impl Iterator<Item = Answer> + '_ {
        assert!(up_to <= self.applied, "a sync covers only what was applied");
        self.synced = self.synced.max(Some(up_to));
        std::iter::from_fn(|| {
            let is_covered = self.waiting.front().is_some_and(|(seq, _)| Some(*seq) <= self.synced);
            if is_covered { self.waiting.pop_front().map(|(_, answer)| answer) } else { None }
        })
    }

    /// The newest batch that has been applied.
    pub(super) fn applied(&self) -> BatchSeq {
        self.applied
    }

    /// Whether everything up to a batch is durable.
    pub(super) fn is_durable_up_to(&self, batch: BatchSeq) -> bool {
        self.synced >= Some(batch)
    }

    /// Whether everything applied so far is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.synced >= Some(self.applied)
    }

    /// Holds an answer back until everything applied so far is durable.
    pub(super) fn hold_back(&mut self, answer: Answer) {
        self.waiting.push_back((self.applied, answer));
    }

    /// How many are held back.
    pub(super) fn held_back(&self) -> usize {
        self.waiting.len()
    }

    /// What to sync now, unless a sync that covers it was asked for before.
    pub(super) fn ask(&mut self) -> Option<BatchSeq> {
        if self.applied == self.asked {
            return None;
        }
        self.due = None;
        self.asked = self.applied;
        Some(self.applied)
    }

    /// Asks by then for what nobody waits for.
    pub(super) fn ask_by(&mut self, at: Instant) {
        if self.applied > self.asked {
            self.due.get_or_insert(at);
        }
    }

    /// When that is.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}
