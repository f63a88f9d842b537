//! The thread that syncs, for all shards at once.
//!
//! ```text
//! shard 0 ── batch 7 ──┐
//! shard 1 ── batch 3 ──┼──▶ wishes: the newest batch per shard ──▶ take all, sync once, tell each shard
//! shard 0 ── batch 8 ──┘
//! ```
//! While one sync runs, wishes gather for the next: a busy node pays one sync for hundreds of writes, an idle one pays
//! one per write. Where time is simulated, a task takes the place of the thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::replica::store::{BatchSeq, StoreError};

/// Makes everything applied so far durable. Called by one thread at a time, while shards go on applying.
pub trait Syncer: Send {
    /// Everything applied before the call survives a power cut once it returns.
    ///
    /// # Errors
    /// [`StoreError`]: nothing that waits for this sync may ever be acknowledged; the process stops.
    fn sync(&self) -> Result<(), StoreError>;
}

/// For stores without a disk: there is nothing to do, and nothing survives.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSync;

impl Syncer for NoSync {
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(feature = "disk")]
impl Syncer for crate::store::log::LogSyncer {
    fn sync(&self) -> Result<(), StoreError> {
        crate::store::log::LogSyncer::sync(self)
    }
}

/// Where shards leave their wishes.
#[derive(Clone)]
pub(crate) struct SyncQueue(Arc<Queue>);

struct Queue {
    wishes: Mutex<Wishes>,
    /// Wakes the thread in [`SyncQueue::run`].
    thread: Condvar,
    /// Wakes the task in [`SyncQueue::run_as_task`].
    task: Notify,
}

struct Wishes {
    /// The newest batch to cover, by shard.
    newest: Vec<Option<BatchSeq>>,
    stop: bool,
}

impl SyncQueue {
    pub(crate) fn new(shards: usize) -> SyncQueue {
        let wishes = Mutex::new(Wishes { newest: vec![None; shards], stop: false });
        SyncQueue(Arc::new(Queue { wishes, thread: Condvar::new(), task: Notify::new() }))
    }

    /// Asks for a sync that covers this batch of this shard.
    pub(crate) fn wish(&self, shard: u16, batch: BatchSeq) {
        let mut wishes = self.lock();
        let first = wishes.newest.iter().all(Option::is_none);
        if let Some(newest) = wishes.newest.get_mut(usize::from(shard)) {
            *newest = (*newest).max(Some(batch));
        }
        drop(wishes);
        if first {
            self.wake();
        }
    }

    /// Lets [`SyncQueue::run`] return after one last sync.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    /// Syncs until told to stop; `synced` hears for each shard which batch is covered.
    ///
    /// # Errors
    /// The first error of the syncer: no sync is tried after it.
    pub(crate) fn run(
        &self,
        syncer: &dyn Syncer,
        metrics: &Metrics,
        synced: impl Fn(u16, BatchSeq),
    ) -> Result<(), StoreError> {
        loop {
            let wishes = self.0.thread.wait_while(self.lock(), |wishes| wishes.are_none());
            let (covered, stop) = wishes.unwrap_or_else(PoisonError::into_inner).take();
            let began = Instant::now();
            syncer.sync()?;
            metrics.sync_seconds.0.observe(began.elapsed().as_secs_f64());
            tell(covered, &synced);
            if stop {
                return Ok(());
            }
        }
    }

    /// The same as a task, for which every sync takes that long.
    ///
    /// # Errors
    /// The first error of the syncer: no sync is tried after it.
    pub(crate) async fn run_as_task(
        &self,
        syncer: &dyn Syncer,
        takes: Duration,
        synced: impl Fn(u16, BatchSeq),
    ) -> Result<(), StoreError> {
        loop {
            while self.lock().are_none() {
                self.0.task.notified().await;
            }
            let (covered, stop) = self.lock().take();
            tokio::time::sleep(takes).await;
            syncer.sync()?;
            tell(covered, &synced);
            if stop {
                return Ok(());
            }
        }
    }

    fn wake(&self) {
        self.0.thread.notify_one();
        self.0.task.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.0.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wishes {
    fn are_none(&self) -> bool {
        !self.stop && self.newest.iter().all(Option::is_none)
    }

    fn take(&mut self) -> (Vec<Option<BatchSeq>>, bool) {
        let shards = self.newest.len();
        (std::mem::replace(&mut self.newest, vec![None; shards]), self.stop)
    }
}

fn tell(covered: Vec<Option<BatchSeq>>, synced: impl Fn(u16, BatchSeq)) {
    for (shard, batch) in covered.into_iter().enumerate() {
        if let Some(batch) = batch {
            synced(shard as u16, batch);
        }
    }
}

#[cfg(test)]
mod tests;
