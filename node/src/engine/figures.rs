//! How a shard stands, for whoever looks at the node: pulled by the shell, never pushed by a machine.

use driftless_proto::client;
use driftless_proto::top::{Top, TopCommand};
use driftless_ring::NodeId;

use crate::handoff::HintFigures;
use crate::reconciler::Figures;
use crate::replica::record::RecordKey;
use crate::replica::store::{Store, StoreFigures};
use crate::time::Instant;

use super::Engine;

impl<S: Store> Engine<S> {
    /// What is held for others, by target, and how its delivery goes.
    pub fn hints(&self, now: Instant) -> impl Iterator<Item = (NodeId, HintFigures)> {
        self.replica.hint_counts().map(move |(target, count)| {
            let (delivered, rate) = self.handoff.figures(now, target);
            let (keys, bytes, since) = (count.keys(), count.bytes(), count.since());
            (target, HintFigures { keys, bytes, since, delivered, rate })
        })
    }

    /// Whether any of that may have changed since the last call.
    pub fn take_hints_changed(&mut self) -> bool {
        std::mem::take(&mut self.hints_changed) | self.replica.take_hint_counts_changed()
    }

    /// How anti-entropy stands.
    pub fn aae(&self, now: Instant) -> Figures {
        self.reconciler.figures(now, &self.replica)
    }

    /// Which keys clients ask this shard for most, and which of those that it has coordinated are large or have many siblings.
    pub fn top(&mut self, now: Instant, command: &TopCommand) -> Top {
        self.coordinator.top(now, command)
    }

    /// Requests of clients that peers have passed on to this shard, and wait for.
    pub fn passed_on(&self) -> usize {
        self.coordinator.passed_on()
    }

    /// What the store is too short of to take writes, in words.
    pub fn shortage(&self) -> Option<String> {
        self.replica.store().shortage()
    }

    /// How large the store is and what it had to read, if it knows.
    pub fn store_figures(&self) -> Option<StoreFigures> {
        self.replica.store().figures()
    }

    /// So many of them as keys of clients, and how many there are.
    pub fn damaged_keys(&self, most: usize) -> client::DamagedKeys {
        let name = |record: &[u8]| RecordKey::from_stored(record.to_vec()).bucket_and_key().ok();
        let keys = self.damaged().take(most).filter_map(name);
        let keys = keys.map(|(bucket, key)| client::DamagedKey { bucket, key }).collect();
        client::DamagedKeys { keys, count: self.damaged().count() as u64 }
    }
}
