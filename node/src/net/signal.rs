//! Waking tasks of the same thread: one as often as there is something to do, or all of them once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

/// Set by anybody on the thread, waited for by one task, without atomics. Set twice is set once.
#[derive(Default)]
pub(crate) struct Signal {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, or lets its next wait return at once.
    pub(crate) fn set(&self) {
        if !self.set.replace(true) {
            let waiter = self.waiter.borrow_mut().take();
            if let Some(waker) = waiter {
                waker.wake();
            }
        }
    }

    /// Returns once the signal was set, and clears it. Nothing is lost if the future is dropped before.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            if self.set.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.waiter.borrow_mut();
            match &mut *waiter {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

/// Happens once, and wakes all tasks that wait for it, in the order in which they came: a `watch` would draw lots.
#[derive(Default)]
pub(crate) struct Closing {
    closed: Cell<bool>,
    waiters: Notify,
}

impl Closing {
    /// Makes it happen.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.waiters.notify_waiters();
    }

    /// Returns once it has happened.
    pub(crate) async fn wait(&self) {
        let waiting = self.waiters.notified();
        if !self.closed.get() {
            waiting.await;
        }
    }
}
