//! Waking one task of the same thread: a flag and a waker, without atomics.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Set by anybody on the thread, waited for by one task. Set twice is set once.
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
