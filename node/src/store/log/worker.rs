//! Threads that work behind everybody's back, in steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::append::{Log, lock};
use crate::replica::store::StoreError;

/// Wakes a thread.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
    bell: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Rung {
    #[default]
    No,
    Yes,
    ForTheLastTime,
}

/// When to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// After a pause that leaves the disk to others.
    After(Duration),
    /// When something has happened.
    WhenRung,
}

/// Does one thing after the other. A step is one call, so that tests can let anything happen between two of them.
pub(super) trait Worker {
    fn log(&self) -> &Arc<Log>;

    /// What wakes it.
    fn bell(log: &Log) -> &Bell;

    /// One step of whatever is most urgent.
    ///
    /// # Errors
    /// The log has failed.
    fn step(&mut self) -> Result<Next, StoreError>;
}

/// Works until the log is closed or has failed.
pub(super) fn run<W: Worker>(mut worker: W) {
    let log = Arc::clone(worker.log());
    loop {
        let step = catch_unwind(AssertUnwindSafe(|| worker.step())).unwrap_or_else(|_| {
            // Without it the log would grow and grow, and nobody would know why.
            Err(log.fail(StoreError::Io("a thread of the store has panicked".into())))
        });
        let goes_on = match step {
            Ok(Next::After(pause)) => W::bell(&log).pause(pause),
            Ok(Next::WhenRung) => W::bell(&log).wait(LOOK_INTERVAL),
            Err(_) => false,
        };
        if !goes_on {
            return;
        }
    }
}

impl Bell {
    /// There is something to do.
    pub(super) fn ring(&self) {
        let mut rung = lock(&self.rung);
        if *rung == Rung::No {
            *rung = Rung::Yes;
            self.bell.notify_all();
        }
    }

    /// There will be nothing to do any more.
    pub(super) fn ring_for_the_last_time(&self) {
        *lock(&self.rung) = Rung::ForTheLastTime;
        self.bell.notify_all();
    }

    /// Waits until it rings, or for so long; answers whether to go on.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let rung = lock(&self.rung);
        let (mut rung, _) = self
            .bell
            .wait_timeout_while(rung, at_most, |rung| *rung == Rung::No)
            .unwrap_or_else(PoisonError::into_inner);
        let goes_on = *rung != Rung::ForTheLastTime;
        if goes_on {
            *rung = Rung::No;
        }
        goes_on
    }

    /// Waits for so long, unless it rings for the last time; answers whether to go on.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let rung = lock(&self.rung);
        let waited = self.bell.wait_timeout_while(rung, pause, |rung| *rung != Rung::ForTheLastTime);
        *waited.unwrap_or_else(PoisonError::into_inner).0 != Rung::ForTheLastTime
    }
}

/// When it is looked whether there is something to do, if nobody has rung.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
