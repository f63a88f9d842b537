//! What clients ask for: read-modify-write, blind writes, deletes, old contexts, odd quorums, the wrong node.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use driftless_proto::client::{Delete, Get, Put, Request};
use driftless_proto::observed::Profile as Observation;
use driftless_proto::{BucketDefinition, ContextToken, Key, Topology, TraceContext, WriteId};
use rand::Rng;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::xxh3_64;

use super::history::{Kind, OpId, Seen, Slot, value_of};
use super::profile::{KEYS_MAX, Profile};
use super::shape;

/// What a client remembers of a key: the last context it was given, and one of long ago.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    contexts: BTreeMap<Slot, Vec<(ContextToken, Seen)>>,
    read_last: Option<Slot>,
}

/// What a client wants next.
#[derive(Clone, Debug)]
pub struct Intention {
    /// What.
    pub kind: Kind,
    /// Of which key.
    pub slot: Slot,
    /// A context to use, with what it stands for.
    pub context: Option<(ContextToken, Seen)>,
    /// Whether that context is not the newest the client has.
    pub stale: bool,
    /// Whether the token has been tampered with, so that the request must be refused.
    pub damaged: bool,
    /// Overrides of the bucket's numbers.
    pub r: Option<u8>,
    /// Overrides of the bucket's numbers.
    pub w: Option<u8>,
    /// Override of the bucket's mode.
    pub sloppy: Option<bool>,
    /// Length of the value.
    pub length: usize,
    /// The operation whose value it repeats.
    pub repeats: Option<OpId>,
    /// Whether the answer is to say what each replica said.
    pub explain: bool,
    /// Whether that is asked for as clients of older releases do, who know it of gets alone.
    pub as_older: bool,
    /// The write's name.
    pub write_id: WriteId,
}

impl Memory {
    /// The client was given a context.
    pub fn learn(&mut self, slot: Slot, context: ContextToken, seen: Seen) {
        let known = self.contexts.entry(slot.clone()).or_default();
        known.push((context, seen));
        if known.len() > CONTEXTS_KEPT {
            let _ = known.remove(1); // the first one stays: it grows old
        }
        self.read_last = Some(slot);
    }
}

impl Intention {
    /// Draws the next operation of a client.
    pub fn draw(profile: &Profile, topology: &Topology, memory: &mut Memory, rng: &mut StdRng) -> Intention {
        if rng.random_bool(profile.blind) {
            return Intention::new(Kind::Put, draw_slot(profile, topology, rng), profile, topology, rng);
        }
        // Most of the time, a client goes on with what it has just read: it replaces it, or looks again.
        if let Some(slot) = memory.read_last.take() {
            let context = memory.contexts.get(&slot).and_then(|known| known.last().cloned());
            match rng.random_range(0..100) {
                0..50 => {
                    let kind = if rng.random_bool(0.15) { Kind::Delete } else { Kind::Put };
                    return Intention { context, ..Intention::new(kind, slot, profile, topology, rng) };
                }
                50..70 => return Intention::new(Kind::Get, slot, profile, topology, rng),
                _ => {}
            }
        }
        let slot = draw_slot(profile, topology, rng);
        let dice = rng.random_range(0..100);
        let kind = match dice {
            0..52 => Kind::Get,
            52..90 => Kind::Put,
            _ => Kind::Delete,
        };
        let mut intention = Intention::new(kind, slot, profile, topology, rng);
        if matches!(dice, 64..80 | 94..) {
            intention.use_old_context(memory, rng);
        }
        intention
    }

    /// The same delete as another client's: what this one finds may be on one disk alone.
    pub fn delete_too(slot: Slot, profile: &Profile, topology: &Topology, rng: &mut StdRng) -> Intention {
        Intention::new(Kind::Delete, slot, profile, topology, rng)
    }

    /// A read that all replicas must answer, of the calm phase.
    pub fn read_of_all(slot: Slot, n: u8) -> Intention {
        Intention { r: Some(n), sloppy: Some(false), ..Intention::plain(Kind::Get, slot, WriteId(0)) }
    }

    /// A write without options, of the calm phase.
    pub fn plain(kind: Kind, slot: Slot, write_id: WriteId) -> Intention {
        Intention {
            kind,
            slot,
            context: None,
            stale: false,
            damaged: false,
            r: None,
            w: None,
            sloppy: None,
            length: 8,
            repeats: None,
            explain: false,
            as_older: false,
            write_id,
        }
    }

    /// A strict look at a key that the client watches.
    pub fn watch(slot: Slot) -> Intention {
        Intention { sloppy: Some(false), ..Intention::plain(Kind::Get, slot, WriteId(0)) }
    }

    /// A key of some bucket.
    pub fn draw_slot(profile: &Profile, topology: &Topology, rng: &mut StdRng) -> Slot {
        draw_slot(profile, topology, rng)
    }

    /// The request, if this becomes operation `id`.
    pub fn request(&self, id: OpId) -> Request {
        let (bucket, key) = self.slot.clone();
        let context = self.context.as_ref().map(|(token, _)| token.clone());
        let Intention { r, w, sloppy, write_id, .. } = *self;
        let request = match self.kind {
            Kind::Get => Request::Get(Get { bucket, key, r, sloppy, explain: self.explain, shown: Vec::new() }),
            Kind::Put => {
                let value = Bytes::from(value_of(self.value(id), self.length));
                Request::Put(Put { bucket, key, value, context, w, sloppy, write_id })
            }
            Kind::Delete => Request::Delete(Delete { bucket, key, context, r, w, sloppy, write_id }),
        };
        // Some carry a place in a trace. Nothing comes of it, here least of all: no lot is drawn for it.
        let trace = id.is_multiple_of(4).then(|| TraceContext {
            trace_id: (id as u128 + 1).to_be_bytes(),
            parent_id: [1; 8],
            sampled: true,
        });
        if self.as_older { request } else { request.observed(Observation { explain: self.explain, trace }) }
    }

    /// Of the value, if this becomes operation `id`; 0 if it writes none.
    pub fn value_hash(&self, id: OpId) -> u64 {
        if self.kind == Kind::Put { xxh3_64(&value_of(self.value(id), self.length)) } else { 0 }
    }

    /// The operation that the value names, if this becomes operation `id`.
    pub fn value(&self, id: OpId) -> OpId {
        self.repeats.unwrap_or(id)
    }

    fn new(kind: Kind, slot: Slot, profile: &Profile, topology: &Topology, rng: &mut StdRng) -> Intention {
        let n = topology.bucket(slot.0).expect("slots are drawn from the buckets").quorum.n();
        let mut number = || rng.random_bool(profile.odd_quorums).then(|| rng.random_range(1..=n));
        let (r, w) = (number(), number());
        let strict = rng.random_bool(profile.strict).then_some(false);
        let sloppy = strict.or_else(|| rng.random_bool(0.05).then_some(true));
        let length = if rng.random_bool(0.05) { rng.random_range(8..5_000) } else { rng.random_range(8..40) };
        Intention { r, w, sloppy, length, ..Intention::plain(kind, slot, WriteId(rng.random())) }
    }

    fn use_old_context(&mut self, memory: &Memory, rng: &mut StdRng) {
        let Some(known) = memory.contexts.get(&self.slot).filter(|known| !known.is_empty()) else {
            return;
        };
        let at = rng.random_range(0..known.len());
        let (mut token, seen) = known[at].clone();
        self.stale = at + 1 < known.len();
        if rng.random_bool(0.04) {
            let mut bytes = token.as_bytes().to_vec();
            let bit = rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            token = ContextToken::from(Bytes::from(bytes));
            self.damaged = true;
        }
        self.context = Some((token, seen));
    }
}

fn draw_slot(profile: &Profile, topology: &Topology, rng: &mut StdRng) -> Slot {
    let mut dice = rng.random_range(0..profile.bucket_weights.iter().sum());
    let chosen = profile.bucket_weights.iter().position(|weight| match dice.checked_sub(*weight) {
        Some(rest) => {
            dice = rest;
            false
        }
        None => true,
    });
    let bucket = &topology.buckets()[chosen.expect("the dice stay below the sum")];
    (bucket.id, key_of(bucket, rng.random_range(0..profile.keys), profile.crowded))
}

/// The keys of a bucket are numbered.
pub fn key_of(bucket: &BucketDefinition, number: usize, crowded: bool) -> Key {
    if crowded {
        return CROWDS[bucket.id.0 as usize][number].clone();
    }
    Key::new(format!("{}-{number}", bucket.name)).expect("short and not empty")
}

/// Keys of each bucket whose tokens are so close that they share a leaf of every tree.
static CROWDS: LazyLock<Vec<Vec<Key>>> = LazyLock::new(|| {
    let topology = shape::topology(&[1; 3]);
    let crowd = |bucket: &BucketDefinition| {
        let keys = (0..).map(|number| Key::new(format!("{}-c{number}", bucket.name)).expect("short and not empty"));
        let is_near = |key: &Key| topology.place(bucket, key).token.0 >> LEAF_SHIFT == 0;
        keys.filter(is_near).take(KEYS_MAX).collect()
    };
    topology.buckets().iter().map(crowd).collect()
});

/// The smallest trees have 64 leaves, and the ring four arcs: a leaf is 1/256 of it.
const LEAF_SHIFT: u32 = 56;

/// Contexts that a client keeps of each key.
const CONTEXTS_KEPT: usize = 4;
