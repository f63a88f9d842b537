//! What a shard goes on with by itself: a row for each machine, which says when it is due, what is done then, and, in
//! `route`, what becomes of what it wants.
//!
//! The compiler asks for each row in each of the three: none can be forgotten and sleep without a word.

use crate::replica::store::Store;
use crate::time::{Instant, Now};

use super::{Engine, view};

/// One machine's share of what goes on by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// Who can be counted on.
    Reachability,
    /// What clients and peers have asked for.
    Requests,
    /// Syncs that nobody waits for, trees, counting of hints, damaged records.
    Replica,
    /// Giving others what is held for them.
    Handoff,
    /// Comparing and repairing, where that is not what handoff is about to do.
    AntiEntropy,
}

impl Task {
    /// All of them, in the order in which they are run and their outputs are taken. Anti-entropy has to know whom handoff is
    /// at work for, so it comes after it.
    pub(super) const ALL: [Task; Task::AntiEntropy as usize + 1] =
        [Task::Reachability, Task::Requests, Task::Replica, Task::Handoff, Task::AntiEntropy];
}

impl<S: Store> Engine<S> {
    /// When it has to be run.
    pub(super) fn due_at(&self, task: Task) -> Option<Instant> {
        match task {
            Task::Reachability => self.reachability.poll_timeout(),
            Task::Requests => self.coordinator.poll_timeout(),
            Task::Replica => self.replica.poll_timeout(),
            Task::AntiEntropy => self.reconciler.poll_timeout(),
            Task::Handoff => self.handoff.poll_timeout(&self.shard),
        }
    }

    /// Time has passed for it; less than it waits for does no harm.
    pub(super) fn run(&mut self, now: Now, task: Task) {
        match task {
            Task::Reachability => self.reachability.handle_timeout(now.instant),
            Task::Requests => self.time_out_requests(now),
            Task::Replica => self.replica.handle_timeout(&self.shard, now),
            Task::AntiEntropy => {
                let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
                self.reconciler.handle_timeout(&view);
            }
            Task::Handoff => self.handoff.handle_timeout(&self.shard, now.instant),
        }
    }

    /// What is due may make a replica read like any input: it is given one after another until the turn has enough.
    fn time_out_requests(&mut self, now: Now) {
        loop {
            self.coordinator.handle_timeout(&self.shard, now);
            self.route(now);
            self.inputs += 1;
            if self.is_full() || self.coordinator.poll_timeout().is_none_or(|at| now.instant < at) {
                break;
            }
        }
    }
}
