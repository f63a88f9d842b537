//! Threads that work behind everybody's back, in steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::log::{Bell, Log};
use crate::replica::store::StoreError;

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

/// When it is looked whether there is something to do, if nobody has rung.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
