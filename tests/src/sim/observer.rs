//! What no client can see: every dot, from the batches of all stores and from the wire.
//!
//! A dot is *stamped* where a batch first holds it, because nothing that carries a dot may leave a node before its
//! batch is applied. What the next write of the same batch has replaced no batch holds: engines show it to us. From this follow checks that need no client: no dot is stamped twice or seen before its batch, no
//! actor serves two lives or two partitions, and a live actor's counters have no gap.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use driftless_node::peer::{Body, Message, ReplicaRequest, Reply, State};
use driftless_node::replica::record::{self, HintKey, RecordKey};
use driftless_node::replica::store::Batch;
use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, BucketId, Conflict, Dot, Header, Key, Siblings, Topology, VersionVector, WriteId};
use driftless_ring::{ArcIndex, PartitionId};

use super::history::{Operation, Slot};
use super::schedule::Micros;

/// One life of one node.
pub type Life = (usize, u64);

/// A write as it was stamped.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Where.
    pub by: Life,
    /// When.
    pub at: Micros,
    /// Of which key.
    pub slot: Slot,
    /// The client's name for it.
    pub write_id: WriteId,
    /// Fingerprint of the value; 0 for a tombstone.
    pub value_hash: u64,
    /// The key's state that the stamp left behind.
    pub after: Header,
}

impl Stamp {
    /// Whether it was a delete.
    pub fn is_tombstone(&self) -> bool {
        self.value_hash == 0
    }
}

/// All that was observed so far.
#[derive(Debug, Default)]
pub struct Observer {
    stamps: BTreeMap<Dot, Stamp>,
    by_write_id: BTreeMap<WriteId, BTreeSet<Dot>>,
    by_slot: BTreeMap<Slot, BTreeSet<Dot>>,
    actors: BTreeMap<ActorId, (Life, PartitionId, u64)>,
    /// The ring of the beginning, and in which of its arcs each actor has stamped. However often partitions are doubled, each lies in one.
    founded: Option<Topology>,
    arcs: BTreeMap<ActorId, ArcIndex>,
    /// What must not be.
    pub wrong: Vec<(Option<Slot>, String)>,
    lww: BTreeSet<BucketId>,
    /// Dots that no batch ever held alive: the last writer won within one batch.
    hidden: BTreeSet<Dot>,
    /// What each node holds of a key, record and hints, as vectors.
    knows: BTreeMap<(usize, Slot), BTreeMap<Bytes, VersionVector>>,
    /// Actors of which somebody has claimed more than they have stamped.
    claimed: BTreeSet<ActorId>,
    /// Whether what stores hold may be damaged: then vectors are looked at as well.
    suspicious: bool,
}

impl Observer {
    /// Has seen nothing yet.
    pub fn new(topology: &Topology, suspicious: bool) -> Observer {
        let lww = topology.buckets().iter().filter(|bucket| bucket.conflict == Conflict::Lww).map(|bucket| bucket.id);
        Observer { lww: lww.collect(), suspicious, founded: Some(topology.clone()), ..Observer::default() }
    }

    /// A batch was applied, with these stamps in it. Returns the dots that it stamped.
    pub fn applied(&mut self, at: Micros, by: Life, shown: Vec<(RecordKey, Dot, Header)>, batch: &Batch) -> Vec<Dot> {
        let mut fresh = Vec::new();
        let mut counted: Vec<Dot> = Vec::new();
        for (record, dot, after) in shown {
            let Some(outline) = after.get(dot).copied().filter(|_| !self.stamps.contains_key(&dot)) else { continue };
            let slot = record.bucket_and_key().expect("an engine shows what it has written");
            let (write_id, value_hash) = (outline.write_id, outline.value_hash);
            fresh.push(dot);
            counted.push(dot);
            self.stamp(dot, Stamp { by, at, slot, write_id, value_hash, after });
        }
        let mut excused: BTreeSet<ActorId> = BTreeSet::new();
        for (key, value) in &batch.changes {
            let Some(value) = value else { continue };
            let Some((slot, state)) = decode(key, value).or_else(|| decode_hint(key, value)) else {
                continue;
            };
            let header = state.header();
            for (dot, outline) in header.live() {
                counted.push(*dot);
                self.know(*dot, outline, &slot);
                if !self.stamps.contains_key(dot) {
                    fresh.push(*dot);
                    self.stamp(
                        *dot,
                        Stamp {
                            by,
                            at,
                            slot: slot.clone(),
                            write_id: outline.write_id,
                            value_hash: outline.value_hash,
                            after: header.clone(),
                        },
                    );
                }
            }
            for (actor, counter) in state.vv().iter() {
                counted.push(Dot::new(actor, counter));
                if self.lww.contains(&slot.0) {
                    self.hidden.insert(Dot::new(actor, counter));
                    excused.insert(actor);
                }
            }
        }
        for dot in &fresh {
            self.check_memory(by, *dot, &fresh);
        }
        for (key, value) in &batch.changes {
            let Some(slot) = slot_of(key) else { continue };
            let known = self.knows.entry((by.0, slot)).or_default();
            match value.as_ref().and_then(|value| decode(key, value).or_else(|| decode_hint(key, value))) {
                Some((_, state)) => known.insert(key.clone(), state.vv().clone()),
                None => known.remove(key),
            };
        }
        for (key, value) in &batch.changes {
            if let Some((partition, actor, counter)) = value.as_ref().and_then(|value| decode_actor(key, value)) {
                let seen = counted.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter).collect();
                self.counter(by, partition, actor, counter, &seen, excused.contains(&actor));
            }
        }
        fresh
    }

    /// A message is about to travel.
    pub fn sent(&mut self, at: Micros, by: Life, message: &Message) {
        let (slot, header) = match &message.body {
            Body::Request { request, .. } => match request.asks_replica() {
                Some(ReplicaRequest::Merge(merge)) => {
                    (Some((merge.bucket, merge.key.clone())), merge.siblings.header())
                }
                _ => return,
            },
            Body::Reply(Reply::State(State::Full(siblings))) => (None, siblings.header()),
            Body::Reply(Reply::State(State::Header(header))) => (None, header.clone()),
            _ => return,
        };
        if self.suspicious
            && let Some((actor, counter)) =
                header.vv().iter().find(|(actor, counter)| self.is_invented(*actor, *counter))
        {
            let text =
                format!("node {} says that actor {actor} has stamped {counter} writes, which nobody has seen", by.0);
            self.wrong.push((slot.clone(), text));
        }
        for (dot, outline) in header.live() {
            match self.stamps.get(dot) {
                None if self.hidden.contains(dot) => {
                    let Some(slot) = slot.clone() else { continue };
                    let (write_id, value_hash) = (outline.write_id, outline.value_hash);
                    self.stamp(*dot, Stamp { by, at, slot, write_id, value_hash, after: header.clone() });
                }
                None => {
                    let text = format!("dot {dot} left node {} before a batch with it was applied", by.0);
                    self.wrong.push((slot.clone(), text));
                }
                Some(stamp) => {
                    let slot = stamp.slot.clone();
                    self.know(*dot, outline, &slot);
                }
            }
        }
    }

    /// Whether no vector that anybody wrote has this entry. Nearly: the last counters of an actor that was retired within
    /// the batch of its last stamps are not on any disk.
    fn is_invented(&self, actor: ActorId, counter: u64) -> bool {
        let stamped = self.actors.get(&actor).map_or(0, |(_, _, stamped)| *stamped);
        counter > stamped + STAMPS_PER_TURN && !self.claimed.contains(&actor)
    }

    /// The actors that a node has stamped with in this life, where, and how often.
    pub fn actors_of(&self, life: Life) -> impl Iterator<Item = (ActorId, PartitionId, u64)> {
        let of_life = self.actors.iter().filter(move |(_, (by, ..))| *by == life);
        of_life.map(|(actor, (_, partition, counter))| (*actor, *partition, *counter))
    }

    /// Somebody will claim that this actor has stamped more than it has.
    pub fn claimed(&mut self, actor: ActorId) {
        self.claimed.insert(actor);
    }

    /// The stamp of a dot.
    pub fn stamp_of(&self, dot: Dot) -> Option<&Stamp> {
        self.stamps.get(&dot)
    }

    /// All dots under which a write was stamped.
    pub fn dots_of(&self, op: &Operation) -> impl Iterator<Item = (Dot, &Stamp)> {
        self.stamps_as(&op.slot, op.write_id, op.value_hash)
    }

    /// All dots of a key.
    pub fn dots_in(&self, slot: &Slot) -> impl Iterator<Item = (Dot, &Stamp)> {
        self.by_slot.get(slot).into_iter().flatten().map(|dot| (*dot, &self.stamps[dot]))
    }

    /// Whether a write was stamped by more than one life of a node.
    pub fn stamped_apart(&self, op: &Operation) -> bool {
        let lives: BTreeSet<Life> = self.dots_of(op).map(|(_, stamp)| stamp.by).collect();
        lives.len() > 1
    }

    fn stamps_as<'a, 'b>(
        &'a self,
        slot: &'b Slot,
        id: WriteId,
        value_hash: u64,
    ) -> impl Iterator<Item = (Dot, &'a Stamp)> + use<'a, 'b> {
        let named = self.by_write_id.get(&id).into_iter().flatten().map(|dot| (*dot, &self.stamps[dot]));
        named.filter(move |(_, stamp)| stamp.value_hash == value_hash && stamp.slot == *slot)
    }

    /// How many dots were stamped.
    pub fn stamps(&self) -> usize {
        self.stamps.len()
    }

    /// An actor knows its own earlier stamps of a key when it stamps the key again, or else its vector says that it has seen
    /// what is gone.
    fn check_memory(&mut self, by: Life, dot: Dot, fresh: &[Dot]) {
        let slot = self.stamps[&dot].slot.clone();
        let of_slot = self.by_slot.get(&slot).into_iter().flatten();
        let earlier = of_slot.filter(|other| other.actor == dot.actor && !fresh.contains(other));
        let Some(last) = earlier.map(|other| other.counter).max() else { return };
        let known = self.knows.get(&(by.0, slot.clone())).into_iter().flatten();
        if known.map(|(_, vv)| vv.counter(dot.actor)).max() < Some(last) {
            let text = format!("node {} stamps {dot} without knowing any more that it stamped {last} of the key", by.0);
            self.wrong.push((Some(slot), text));
        }
    }

    fn stamp(&mut self, dot: Dot, stamp: Stamp) {
        let again = self
            .stamps_as(&stamp.slot, stamp.write_id, stamp.value_hash)
            .find(|(_, other)| other.by == stamp.by)
            .map(|(other, _)| other);
        if let Some(other) = again
            && stamp.after.get(other).is_some()
        {
            let text = format!("write {:x} was stamped as {dot} though its {other} was live there", stamp.write_id.0);
            self.wrong.push((Some(stamp.slot.clone()), text));
        }
        if let Some(ring) = self.founded.as_ref().map(Topology::ring) {
            let (bucket, key) = &stamp.slot;
            let arc = ring.partitions().arc_of(ring.token(bucket.0, key.as_bytes()));
            let first = *self.arcs.entry(dot.actor).or_insert(arc);
            if first != arc {
                let text =
                    format!("actor {} has stamped in arc {}, and stamps {dot} in arc {}", dot.actor, first.0, arc.0);
                self.wrong.push((Some(stamp.slot.clone()), text));
            }
        }
        self.by_write_id.entry(stamp.write_id).or_default().insert(dot);
        self.by_slot.entry(stamp.slot.clone()).or_default().insert(dot);
        self.stamps.insert(dot, stamp);
    }

    /// A dot is the same write wherever it is seen.
    fn know(&mut self, dot: Dot, outline: &driftless_proto::Outline, slot: &Slot) {
        let Some(stamp) = self.stamps.get(&dot) else { return };
        if stamp.write_id != outline.write_id() || stamp.value_hash != outline.value_hash || stamp.slot != *slot {
            let text =
                format!("dot {dot} was stamped twice: as write {:x} and {:x}", stamp.write_id.0, outline.write_id.0);
            self.wrong.push((Some(slot.clone()), text));
        }
    }

    fn counter(
        &mut self,
        by: Life,
        partition: PartitionId,
        actor: ActorId,
        counter: u64,
        seen: &BTreeSet<u64>,
        excused: bool,
    ) {
        let (life, place, last) = *self.actors.entry(actor).or_insert((by, partition, 0));
        if (life, place) != (by, partition) {
            let [by, life] = [by, life].map(|(node, life)| format!("n{node} in its life {life}"));
            let text =
                format!("actor {actor} stamps for {by} and partition {partition}, it belongs to {life} and {place}");
            self.wrong.push((None, text));
        }
        if counter < last {
            self.wrong.push((None, format!("the counter of actor {actor} went back from {last} to {counter}")));
        }
        // What was stamped and overwritten in one turn is in none of its batches; the engine has shown it with the first.
        let is_missing =
            |counter: &u64| !seen.contains(counter) && !self.stamps.contains_key(&Dot::new(actor, *counter));
        let leapt = counter.saturating_sub(last) > LEAP_MAX;
        if leapt {
            // Damaged bytes can be any number; to name each that is missing would take all memory.
            self.wrong.push((None, format!("the counter of actor {actor} leapt from {last} to {counter}")));
        }
        let first = if leapt { counter } else { last + 1 };
        let skipped: Vec<u64> = (first..=counter).filter(is_missing).collect();
        for missing in skipped {
            if excused {
                self.hidden.insert(Dot::new(actor, missing));
            } else {
                let text = format!("actor {actor} skipped {missing}: from {last} to {counter} with {seen:?}");
                self.wrong.push((None, text));
            }
        }
        self.actors.insert(actor, (life, place, counter.max(last)));
    }
}

/// More than all clients of a world write.
const LEAP_MAX: u64 = 1_000_000;

/// A record of a store: its key and state. `None` for everything else that stores hold.
pub fn decode(key: &[u8], value: &Bytes) -> Option<(Slot, Siblings)> {
    if !is_record(key) {
        return None;
    }
    let record = RecordKey::from_stored(key.to_vec());
    let slot = record.bucket_and_key().expect("a store holds what its node wrote");
    Some((slot, record::decode(value.clone()).expect("a store holds what its node wrote")))
}

/// Whether this is the key of a record.
pub fn is_record(key: &[u8]) -> bool {
    key.first() == Some(&SPACE_RECORDS)
}

/// What a hint holds of a key, if it is a copy.
pub fn decode_hint(key: &[u8], value: &Bytes) -> Option<(Slot, Siblings)> {
    if !record::is_hint(key) || record::is_marker(value) {
        return None;
    }
    let hint = HintKey::from_stored(key).expect("a store holds what its node wrote");
    let slot = hint.record().bucket_and_key().expect("a store holds what its node wrote");
    Some((slot, record::decode(value.clone()).expect("a store holds what its node wrote")))
}

/// The record of an actor: `[0, 'a', n, arc (4)] -> [format, actor (8), counter (8)]`.
fn decode_actor(key: &[u8], value: &[u8]) -> Option<(PartitionId, ActorId, u64)> {
    let [0, b'a', n, arc @ ..] = key else { return None };
    let arc = u32::from_be_bytes(arc.try_into().ok()?);
    let (actor, counter) = value.get(1..17)?.split_first_chunk()?;
    let partition = PartitionId { n: *n, arc: ArcIndex(arc) };
    Some((partition, ActorId(u64::from_be_bytes(*actor)), u64::from_be_bytes(counter.try_into().ok()?)))
}

/// Which key a stored record or hint is about.
pub fn slot_of(key: &[u8]) -> Option<Slot> {
    let record = if record::is_hint(key) { key.get(8..)? } else { key };
    let (bucket, name) = record.get(10..)?.split_first_chunk()?;
    let is_one = record::is_hint(key) || key.first() == Some(&SPACE_RECORDS);
    is_one.then(|| Some((BucketId(u32::from_be_bytes(*bucket)), Key::new(name.to_vec()).ok()?)))?
}

/// More stamps of one actor than this never share a turn: each client waits for its own.
const STAMPS_PER_TURN: u64 = 32;

/// The first byte of every record's key (`replica::record`).
const SPACE_RECORDS: u8 = 1;
