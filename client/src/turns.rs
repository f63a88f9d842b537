//! Updates of one key through one client, one after the other.
//!
//! Two updaters that read the same and write make siblings of each other, and the next carries both: with many at once each
//! round costs as many values as there are updaters. In turns each sees the result of the one before, and a round costs
//! one value. So each key has a semaphore of one permit. It is a courtesy and no lock: an updater that has waited long enough
//! goes without, and other clients know nothing of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Keys of which updates are under way.
#[derive(Default)]
pub(crate) struct Turns {
    keys: Mutex<HashMap<(Arc<str>, Bytes), Queue>>,
}

struct Queue {
    turn: Arc<Semaphore>,
    /// Updaters that have it, wait for it, or go without.
    members: usize,
}

/// A place among the updates of a key.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: (Arc<str>, Bytes),
    /// Absent if the wait for it was too long.
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for the turn, but not longer than until then.
    pub(crate) async fn take(&self, bucket: &Arc<str>, key: &Bytes, until: Instant) -> Turn<'_> {
        let key = (Arc::clone(bucket), key.clone());
        let semaphore = {
            let mut keys = self.lock();
            let queue =
                keys.entry(key.clone()).or_insert_with(|| Queue { turn: Arc::new(Semaphore::new(1)), members: 0 });
            queue.members += 1;
            Arc::clone(&queue.turn)
        };
        // From here on it leaves the queue however this ends.
        let mut turn = Turn { turns: self, key, permit: None };
        // Never closed, so an error is the end of patience.
        turn.permit = timeout_at(until, semaphore.acquire_owned()).await.ok().and_then(Result::ok);
        turn
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Arc<str>, Bytes), Queue>> {
        // Nothing is half done when a thread panics.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether other updaters wait, which will see what this one has written.
    pub(crate) fn has_successors(&self) -> bool {
        self.turns.lock().get(&self.key).is_some_and(|queue| queue.members > 1)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        if let Entry::Occupied(mut queue) = self.turns.lock().entry(self.key.clone()) {
            queue.get_mut().members -= 1;
            if queue.get().members == 0 {
                queue.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_at_a_time_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let (bucket, far) = (Arc::from("carts"), Instant::now() + Duration::from_secs(30));
        let key = Bytes::from_static(b"k");
        let first = turns.take(&bucket, &key, far).await;
        assert!(first.permit.is_some() && !first.has_successors());
        let other = turns.take(&bucket, &Bytes::from_static(b"other"), far).await;
        assert!(other.permit.is_some());
        let impatient = turns.take(&bucket, &key, Instant::now()).await;
        assert!(impatient.permit.is_none() && first.has_successors());
        let mut second = Box::pin(turns.take(&bucket, &key, far));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(first);
        assert!(second.await.permit.is_some());
        drop((other, impatient));
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn an_updater_that_is_cancelled_while_waiting_leaves_the_queue() {
        let turns = Turns::default();
        let (bucket, key, far) =
            (Arc::from("carts"), Bytes::from_static(b"k"), Instant::now() + Duration::from_secs(30));
        let first = turns.take(&bucket, &key, far).await;
        let mut second = Box::pin(turns.take(&bucket, &key, far));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(second);
        assert!(!first.has_successors());
        drop(first);
        assert!(turns.lock().is_empty());
    }
}
