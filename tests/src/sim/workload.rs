//! The part of a world that asks: clients, those who list keys, and what all of them were told.

use std::collections::BTreeMap;

use driftless_proto::Dot;
use rand::rngs::StdRng;

use super::archivist::Archivist;
use super::client::Client;
use super::history::{History, OpId, Slot};
use super::reused_ids::ReusedIds;
use super::walker::Walker;

/// Who asks, and what was asked.
pub struct Workload {
    /// The clients.
    pub clients: Vec<Client>,
    /// What clients asked and were told.
    pub history: History,
    /// Those who list the keys of buckets.
    pub(super) walkers: Vec<Walker>,
    /// Those who keep what was known of keys.
    pub(super) archivists: Vec<Archivist>,
    /// What each attempt was for, by its number.
    pub(super) attempts: BTreeMap<u64, Attempt>,
    /// What the node that was asked to delete a key knew to be gone of it, by attempt.
    pub(super) gone: BTreeMap<u64, Vec<Dot>>,
    /// The key that a client has last begun to delete.
    pub(super) deleting: Option<Slot>,
    /// Ids that clients use more than once.
    pub(super) reused_ids: Option<ReusedIds>,
    /// Whether, and when, clients want their reads explained.
    pub(super) explain_rng: Option<StdRng>,
    pub(super) delete_rng: StdRng,
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    /// A client's operation.
    Operation { client: usize, op: OpId },
    /// A page of a walk.
    Page { walker: usize },
    /// A state to keep, or to merge again.
    Archive { archivist: usize },
}

impl Workload {
    /// Whether no operation is under way or waiting.
    pub fn rests(&self) -> bool {
        self.clients.iter().all(|client| client.current.is_none() && client.script.is_empty())
            && self.walkers.iter().all(Walker::rests)
            && self.archivists.iter().all(Archivist::rests)
    }

    /// Notes one attempt more, and answers its number.
    pub(super) fn number_attempt(&mut self, attempt: Attempt) -> u64 {
        let number = self.attempts.len() as u64 + 1;
        self.attempts.insert(number, attempt);
        number
    }
}
