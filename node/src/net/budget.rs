//! A bounded amount of something that many hold parts of, so that nobody's part keeps others from theirs.
//!
//! ```text
//! ├── held by ada ──┼── held by bob ──┼────── free ──────┤ max
//!  ada may take more while what she holds then is at most what is free then
//! ```
//! So one holder alone gets a half. Those that come later find less and less, but something; and as what is held comes back, *k*
//! greedy ones draw near to one part in *k* + 1 each, with one free. Nobody has to be told how many there are. (Dynamic thresholds, as Choudhury
//! and Hahne have them for the buffers of switches, IEEE/ACM Transactions on Networking 6(2), 1998, with their factor at 1.)
//!
//! Threads that take at the same moment may each find room where together they find none; what is held beyond `max` is so at
//! most what each thread takes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// So much, of whatever its user counts.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    held: AtomicUsize,
    /// Holders that wait for room.
    waiting: AtomicUsize,
    freed: Notify,
}

/// The part of one holder.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    held: AtomicUsize,
}

/// What is held, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    share: Arc<Share>,
    amount: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { max, held: AtomicUsize::new(0), waiting: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// What all hold.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

impl Share {
    /// A new holder's, that holds nothing.
    pub(crate) fn of(budget: &Arc<Budget>) -> Arc<Share> {
        Arc::new(Share { budget: budget.clone(), held: AtomicUsize::new(0) })
    }

    /// What this holder holds.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// What there is for all holders together.
    pub(crate) fn max(&self) -> usize {
        self.budget.max
    }

    /// How much more may be taken at once.
    pub(crate) fn room(&self) -> usize {
        let (own, all) = (self.held(), self.budget.held());
        let free = self.budget.max.saturating_sub(all);
        // Whoever has nothing gets something as long as there is anything.
        (free.saturating_sub(own) / 2).max(usize::from(own == 0 && free > 0))
    }

    /// Takes so much, if there is room.
    pub(crate) fn take(self: &Arc<Share>, amount: usize) -> Option<Held> {
        (amount <= self.room()).then(|| self.charge(amount))
    }

    /// Takes so much whether there is room or not: what is held already and can only be counted.
    pub(crate) fn charge(self: &Arc<Share>, amount: usize) -> Held {
        self.add(amount);
        Held { share: self.clone(), amount }
    }

    /// The same, to be given back by whoever keeps count.
    pub(crate) fn add(&self, amount: usize) {
        self.held.fetch_add(amount, Ordering::Relaxed);
        self.budget.held.fetch_add(amount, Ordering::Relaxed);
    }

    /// Gives back what was added.
    pub(crate) fn give_back(&self, amount: usize) {
        self.held.fetch_sub(amount, Ordering::SeqCst);
        let before = self.budget.held.fetch_sub(amount, Ordering::SeqCst);
        // One that waits has said so before it looked for room. Not every bit of room is worth waking them all: a part is, and the
        // last of it. They look again by themselves before long.
        let step = (self.budget.max / STEPS).max(1);
        let is_step = before / step != (before - amount) / step || before == amount;
        if is_step && self.budget.waiting.load(Ordering::SeqCst) > 0 {
            self.budget.freed.notify_waiters();
        }
    }

    /// Returns once there is room for so much.
    pub(crate) async fn has_room(&self, amount: usize) {
        if self.room() >= amount {
            return;
        }
        let _waiting = Waiting::of(&self.budget);
        loop {
            let freed = self.budget.freed.notified();
            if self.room() >= amount {
                return;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }
}

impl Held {
    /// Returns once it holds `amount` in all.
    pub(crate) async fn grow_to(&mut self, amount: usize) {
        let more = amount.saturating_sub(self.amount);
        self.share.has_room(more).await;
        self.share.add(more);
        self.amount += more;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.give_back(self.amount);
    }
}

/// After how long one that waits looks for room that nobody has told of.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Parts of a budget whose return wakes those that wait.
const STEPS: usize = 64;

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a Budget);

impl Waiting<'_> {
    fn of(budget: &Budget) -> Waiting<'_> {
        budget.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Takes one after the other until there is no more room.
    fn greedy(share: &Arc<Share>) -> Vec<Held> {
        std::iter::from_fn(|| share.take(1)).collect()
    }

    #[test]
    fn each_holder_leaves_as_much_free_as_it_holds() {
        let budget = Budget::new(600);
        let shares: Vec<_> = (0..3).map(|_| Share::of(&budget)).collect();
        let ada = greedy(&shares[0]);
        assert_eq!(ada.len(), 300);
        let bob = greedy(&shares[1]);
        assert_eq!(bob.len(), 150);
        let eve = greedy(&shares[2]);
        assert_eq!(eve.len(), 75, "what is left when two have come before");
        drop(ada);
        let (more, again) = (greedy(&shares[1]), greedy(&shares[0]));
        assert!(bob.len() + more.len() > 200 && again.len() > 100, "{} and {}", more.len(), again.len());
        drop((bob, eve, more, again));
        assert_eq!(budget.held(), 0);
        assert_eq!(greedy(&shares[2]).len(), 300);
    }

    /// In which the waiting can look again.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("can be made")
    }

    #[test]
    fn what_is_held_grows_once_there_is_room_and_is_given_back_whole() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let budget = Budget::new(100);
        let (ada, bob) = (Share::of(&budget), Share::of(&budget));
        let mut held = ada.take(10).expect("there is room");
        let other = bob.charge(60);
        {
            let mut growing = std::pin::pin!(held.grow_to(30));
            assert!(growing.as_mut().now_or_never().is_none(), "40 and 60 are all there is");
            drop(other);
            assert!(growing.now_or_never().is_some());
        }
        assert_eq!(budget.held(), 30);
        assert!(held.grow_to(20).now_or_never().is_some(), "it has as much");
        drop(held);
        assert_eq!((budget.held(), ada.room()), (0, 50));
    }

    #[test]
    fn one_that_gives_up_waiting_leaves_nothing_behind() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let budget = Budget::new(10);
        let share = Share::of(&budget);
        let mut held = share.take(5).expect("there is room");
        assert!(held.grow_to(9).now_or_never().is_none());
        assert_eq!((budget.held(), budget.waiting.load(Ordering::SeqCst)), (5, 0));
    }
}
