//! What both sides of an exchange share: what they are given, how long they wait, and how nodes are compared.

mod initiator;
mod responder;

pub use initiator::{Difference, Holder, Initiator, InitiatorOutput, Outcome, Report};
pub use responder::{Responder, ResponderOutput};

use std::collections::VecDeque;

use crate::leaf::Records;
use crate::message::{ExchangeId, NODES_MAX, Nodes};
use crate::wire::Fingerprint;
use crate::{Layers, Tree};

/// A point on the owner's clock, which never runs backwards, in microseconds; also a length of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Micros(pub u64);

/// What this side holds of the partition at the moment of a call. Tree and records must agree.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// The tree; `None` while it is being rebuilt, or once the partition is no longer owned.
    pub tree: Option<&'a Tree>,
    /// The records.
    pub records: &'a dyn Records,
}

/// How long a side waits, and how much it says at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Between finding that leaves differ and looking at them again. Default: 1 s. Longer than any write is under way
    /// between replicas, else keys are repaired that would have become equal by themselves, which is waste but no
    /// harm; a larger value makes rounds longer.
    pub confirm: Micros,
    /// How long an answer may take before the exchange is given up, and how long a responder waits for the next
    /// request, beyond what the initiator is known to wait. Default: 10 s. Smaller values give up on slow peers, larger
    /// ones hold the memory of an exchange whose peer has vanished.
    pub patience: Micros,
    /// How long the repairs of one portion may take on either side. Default: 60 s: a thousand keys of up to 16 MiB.
    pub repair: Micros,
    /// How long an exchange may take as a whole. Default: 1 h. The next one goes on where this one ended, since what
    /// was repaired is equal then.
    pub lifetime: Micros,
    /// Most keys repaired at a time, at most [`DIFFER_MAX`](crate::message::DIFFER_MAX). Default: 1000.
    pub keys_max: usize,
    /// Keys listed in a message, at most [`ENTRIES_MAX`](crate::message::ENTRIES_MAX), which is the default. Both sides
    /// must have the same: a list that ends early must be full. Smaller ones are for tests.
    pub entries_max: usize,
}

impl Settings {
    fn entries_max(&self) -> usize {
        self.entries_max.clamp(1, crate::message::ENTRIES_MAX)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            confirm: Micros::seconds(1),
            patience: Micros::seconds(10),
            repair: Micros::seconds(60),
            lifetime: Micros::seconds(3600),
            keys_max: crate::message::DIFFER_MAX,
            entries_max: crate::message::ENTRIES_MAX,
        }
    }
}

impl Micros {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Micros {
        Micros(seconds.saturating_mul(1_000_000))
    }

    fn after(self, now: Micros) -> Micros {
        Micros(self.0.saturating_add(now.0))
    }
}

/// The nodes of `theirs` that are others here, in order.
fn differing(layers: &Layers, exchange: ExchangeId, theirs: &Nodes) -> Vec<u32> {
    let here = |index| Fingerprint::of(exchange, layers.node(theirs.node_layer(), index));
    theirs.nodes().filter(|(index, there)| here(*index) != *there).map(|(index, _)| index).collect()
}

/// The descendants of the first of some parents, one step down, and how many parents that were.
fn descendants(layers: &Layers, exchange: ExchangeId, layer: u8, parents: &[u32]) -> (Nodes, usize) {
    let down = step_down(layers.bits().get(), layer, parents.len());
    let taken = parents.len().min(NODES_MAX >> down);
    let parents = &parents[..taken];
    let indices = parents.iter().flat_map(|parent| (parent << down)..((parent + 1) << down));
    let fingerprints = indices.map(|index| Fingerprint::of(exchange, layers.node(layer + down, index))).collect();
    (Nodes::new(layer, down, parents, fingerprints), taken)
}

/// How many layers to go down at once. Small steps cost less for scattered differences (16 children with one that
/// differs, twice, are 32 nodes; 256 at once are 256) and more messages; so 16 children, spread evenly over what is left,
/// but 64 where half of all nodes of a layer differ and most children would be sent anyway.
fn step_down(bits: u8, layer: u8, parents: usize) -> u8 {
    let left = bits - layer;
    let dense = parents >= 8 && parents * 2 >= 1 << layer;
    let most = if dense { 6 } else { 4 };
    left.div_ceil(left.div_ceil(most))
}

/// Takes what is queued, and forgets memory that a burst took.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    next
}

#[cfg(test)]
mod tests;
