//! What the trace tells beside the events, so that a stranger can follow it: which key a reply is about, what a batch
//! changes on a disk, and where a promise was first seen broken. None of it is in the hash.

use std::collections::BTreeMap;

use driftless_node::peer::{Body, Message, Reply, Request};
use driftless_node::replica::record::{self, HintKey};
use driftless_node::replica::store::Batch;

use super::super::describe;
use super::super::history::{History, Slot, slot_text};
use super::super::observer;
use super::super::shape;
use super::super::trace::Line;
use super::World;

/// What has to be remembered to tell it.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Which key a request of a node was about: its reply does not say.
    asked: BTreeMap<(usize, u64), Slot>,
    /// How much of what is wrong was told: found on the way, by the oracle, by the observer, by clients.
    told: [usize; 4],
}

impl Story {
    pub(super) fn sent(&mut self, from: usize, message: &Message) {
        if let Some(slot) = describe::slot_of_message(message) {
            self.asked.insert((from, message.id.0), slot);
        }
    }

    pub(super) fn line_of_message(
        &self,
        verb: &str,
        node: usize,
        peer: usize,
        message: &Message,
        history: &History,
    ) -> Line {
        let text = format!("{verb} n{peer}: {}", describe::message(message, history));
        let asker = if verb == SENDS { peer } else { node };
        let slot = match &message.body {
            Body::Request { .. } => describe::slot_of_message(message),
            Body::Reply(_) => self.asked.get(&(asker, message.id.0)).cloned(),
        };
        match (&message.body, slot) {
            (_, Some(slot)) => Line::about(shape::name_of(node), slot_text(&slot), text),
            (Body::Request { request: Request::Ping, .. } | Body::Reply(Reply::Pong), None) => {
                Line::routine(shape::name_of(node), text)
            }
            (_, None) => Line::exchange(shape::name_of(node), text),
        }
    }
}

impl World {
    /// What a batch changes on a disk, key by key.
    pub(super) fn tell_batch(&mut self, node: usize, number: u64, batch: &Batch) {
        if !self.trace.keeps_lines() {
            return;
        }
        let now = self.schedule.now();
        for (key, value) in &batch.changes {
            let state = |siblings| describe::siblings(&siblings, &self.workload.history);
            let told = if record::is_hint(key) {
                let hint = HintKey::from_stored(key).expect("a store holds what its node wrote");
                let slot = hint.record().bucket_and_key().expect("a store holds what its node wrote");
                let target = describe::node(hint.target());
                Some(match value {
                    None => (slot, format!("removes its hint for {target}")),
                    Some(value) => match observer::decode_hint(key, value) {
                        Some((_, siblings)) => (slot, format!("keeps as a hint for {target} {}", state(siblings))),
                        None => (slot, format!("marks that {target} misses its state")),
                    },
                })
            } else {
                let written = value.as_ref().and_then(|value| observer::decode(key, value));
                written.map(|(slot, siblings)| (slot, format!("holds {}", state(siblings))))
            };
            if let Some((slot, text)) = told {
                let text = format!("{text}, in batch {number}");
                self.trace.tell(now, || Line::about(shape::name_of(node), slot_text(&slot), text));
            }
        }
    }

    /// Marks the places at which promises are found broken.
    pub(super) fn tell_what_broke(&mut self) {
        if !self.trace.keeps_lines() {
            return;
        }
        let [on_the_way, by_oracle, by_observer, by_clients] = self.story.told;
        let violations = self.judges.violations[on_the_way..].iter().chain(&self.judges.oracle.violations[by_oracle..]);
        let found = violations.map(|violation| (violation.promise, &violation.slot, &violation.text));
        let seen = self.judges.observer.wrong[by_observer..].iter().map(|(slot, text)| ("dots", slot, text));
        let odd =
            self.workload.history.oddities[by_clients..].iter().map(|(slot, text)| ("answers make sense", slot, text));
        let now = self.schedule.now();
        for (promise, slot, text) in found.chain(seen).chain(odd) {
            self.trace.tell(now, || Line::broken(slot.as_ref().map(slot_text), format!("{promise}: {text}")));
        }
        self.story.told = [
            self.judges.violations.len(),
            self.judges.oracle.violations.len(),
            self.judges.observer.wrong.len(),
            self.workload.history.oddities.len(),
        ];
    }
}

/// What a line of a sent message begins with.
pub(super) const SENDS: &str = "sends to";
