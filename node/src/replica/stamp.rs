//! Stamping: the one place where dots are made, and the rules that keep a dot from being made twice.
//!
//! - A dot's counter counts the writes that its actor stamped in its partition, over all keys, without gaps.
//! - An actor is drawn at the first stamp in a partition after a start: a store that was stopped, however cleanly, may
//!   be an older copy of itself, so no start goes on with the actors of another: two writes would have one name,
//!   and of two writes with one name one is dropped.
//! - A batch that was not applied gives its counters back: a vector past a gap claims a write that does not exist.
//! - A client's retry is recognised by its write id, and never stamped again: it would come back over what has
//!   replaced it.
//! - A write id names a write of one key. Used for another key it is another write: a key's vector may cover any dot of
//!   its partition's actor, so that a dot remembered for one key would count as stored at another.
//! - A delete is stamped only if it takes a value away. What it takes for granted else is merged like any other state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use driftless_proto::causality::Payload;
use driftless_proto::{
    ActorId, BucketDefinition, Conflict, Context, ContextError, Dot, Header, Hlc, Outline, Refusal, Siblings, Version,
    VersionVector, WriteId,
};
use driftless_ring::PartitionId;
use rand::Rng;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128_with_seed};

use crate::config::Limits;
use crate::plausible;
use crate::time::Instant;

use super::local::{Covered, Write};
use super::record::RecordKey;

/// An actor and how many writes it has stamped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Actor {
    pub(super) id: ActorId,
    pub(super) counter: u64,
}

/// The live actors of this shard, one per partition that has stamped since the start.
pub(super) struct Actors {
    live: BTreeMap<PartitionId, Actor>,
    rng: StdRng,
}

impl Actors {
    /// None yet: every start draws its own.
    pub(super) fn new(rng: StdRng) -> Actors {
        Actors { live: BTreeMap::new(), rng }
    }

    /// The actors that an earlier process has left, as if a start could go on with them.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn kept(live: BTreeMap<PartitionId, Actor>, rng: StdRng) -> Actors {
        Actors { live, rng }
    }

    /// Names the next write of a partition.
    pub(super) fn next_dot(&mut self, partition: PartitionId) -> Dot {
        let rng = &mut self.rng;
        let actor = self.live.entry(partition).or_insert_with(|| Actor { id: ActorId(rng.random()), counter: 0 });
        actor.counter += 1;
        Dot::new(actor.id, actor.counter)
    }

    /// A partition's live actor.
    pub(super) fn get(&self, partition: PartitionId) -> Option<Actor> {
        self.live.get(&partition).copied()
    }

    /// The partition's actor, if `vv` knows writes of it that it never stamped.
    pub(super) fn contradicted_by(&self, partition: PartitionId, vv: &VersionVector) -> Option<ActorId> {
        self.live.get(&partition).filter(|actor| vv.counter(actor.id) > actor.counter).map(|actor| actor.id)
    }

    /// Whether no partition has one.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Ends the actors of all partitions but these.
    pub(super) fn keep(&mut self, partitions: &BTreeSet<PartitionId>) {
        self.live.retain(|partition, _| partitions.contains(partition));
    }

    /// Ends an actor: the next stamp of the partition draws a new one.
    pub(super) fn retire(&mut self, partition: PartitionId) {
        self.live.remove(&partition);
    }

    /// Returns to what was before a refused batch: nothing of it has left, so its dots may be used again. A
    /// partition that drew its actor in that batch, or has retired one meanwhile, draws anew.
    pub(super) fn restore(&mut self, before: BTreeMap<PartitionId, Option<Actor>>) {
        for (partition, actor) in before {
            match (actor, self.live.get_mut(&partition)) {
                (Some(actor), Some(live)) if live.id == actor.id => *live = actor,
                _ => self.retire(partition),
            }
        }
    }
}

/// What a client meant to write: a retry must mean the same. That of a delete does, whatever its context: one without a
/// context removes what its read has found, and the retry's read finds what has been written since.
pub(super) struct WriteFingerprint {
    name: Name,
    /// Of the value alone: all that the stored header can be compared with.
    len: Option<u32>,
    value_hash: u64,
    /// Of bucket, key, value and context; of a delete, that it is one at this key.
    digest: u128,
}

/// A write id at the key that it was used for. Keys are told apart by a hash that nobody outside can compute, so that the
/// table is bounded in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    key: u128,
    id: WriteId,
}

/// Write ids stamped lately, bounded in number and age. What falls out is still recognised while its version is live.
pub(super) struct WriteIds {
    stamps: BTreeMap<Name, (Dot, u128)>,
    order: VecDeque<(Instant, Name)>,
    max: usize,
    age: Duration,
    /// Of the hashes.
    seed: u64,
}

impl WriteIds {
    /// `seed` is this process's secret.
    pub(super) fn new(max: usize, age: Duration, seed: u64) -> WriteIds {
        WriteIds { stamps: BTreeMap::new(), order: VecDeque::new(), max, age, seed }
    }

    /// What a write of this record means.
    pub(super) fn fingerprint(&self, record: &RecordKey, write: &Write) -> WriteFingerprint {
        let value_hash = write.value.as_ref().map_or(0, |value| xxh3_64(value));
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(&(record.as_bytes().len() as u64).to_be_bytes());
        hasher.update(record.as_bytes());
        hasher.update(&value_hash.to_be_bytes());
        hasher.update(&[write.value.is_some().into()]);
        for (actor, counter) in write.context.vv.iter().filter(|_| write.value.is_some()) {
            hasher.update(&actor.0.to_be_bytes());
            hasher.update(&counter.to_be_bytes());
        }
        let name = Name { key: xxh3_128_with_seed(record.as_bytes(), self.seed), id: write.write_id };
        let len = write.value.as_ref().map(|value| value.len() as u32);
        WriteFingerprint { name, len, value_hash, digest: hasher.digest128() }
    }

    /// The dot under which this very write of this key was stamped before, if it was. `header` is the key's.
    ///
    /// # Errors
    /// [`Refusal::WriteIdReused`] if the id was used at this key for another value or context.
    pub(super) fn recognise(
        &mut self,
        now: Instant,
        header: &Header,
        fingerprint: &WriteFingerprint,
    ) -> Result<Option<Dot>, Refusal> {
        self.forget(now);
        if let Some(&(dot, digest)) = self.stamps.get(&fingerprint.name) {
            return if digest == fingerprint.digest { Ok(Some(dot)) } else { Err(Refusal::WriteIdReused) };
        }
        match header.with_write_id(fingerprint.name.id) {
            Some((dot, outline)) if outline.len == fingerprint.len && outline.value_hash == fingerprint.value_hash => {
                Ok(Some(*dot))
            }
            Some(_) => Err(Refusal::WriteIdReused),
            None => Ok(None),
        }
    }

    /// Keeps what was stamped. The oldest makes room.
    pub(super) fn remember(&mut self, now: Instant, fingerprint: &WriteFingerprint, dot: Dot) {
        if self.order.len() >= self.max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.stamps.remove(&oldest);
        }
        self.order.push_back((now, fingerprint.name));
        self.stamps.insert(fingerprint.name, (dot, fingerprint.digest));
    }

    /// Forgets the newest ones: their batch was refused, so nothing was stamped.
    pub(super) fn forget_newest(&mut self, count: usize) {
        for (_, name) in self.order.drain(self.order.len().saturating_sub(count)..) {
            self.stamps.remove(&name);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(since, name)) = self.order.front()
            && now.since(since) > self.age
        {
            self.order.pop_front();
            self.stamps.remove(&name);
        }
    }
}

/// When a write happened: after what the clock says, what is held, and what its writer had read. However far ahead of the
/// clock that is: what is stored or shown is never a reason to refuse, since it would be one until real time catches up. Wrong
/// clocks are kept out by the nodes that have them (`liveness::clocks`). At the end of time stamps stay there, and dots decide.
pub(super) fn written_at(wall: Hlc, header: &Header, read: &Context) -> Hlc {
    Hlc::after(wall, header.written_at(), read.written_at)
}

/// Whether a stamp is so far ahead of the clock that some clock must have been wrong.
pub(super) fn is_ahead(stamp: Hlc, wall: Hlc, off_max: Duration) -> bool {
    u128::from(stamp.millis().saturating_sub(wall.millis())) > off_max.as_millis()
}

/// Refuses a write that may leave more actors than other replicas believe of a state: contexts that nobody has read can each name others.
///
/// # Errors
/// [`Refusal::BadContext`].
pub(super) fn check_actors(header: &Header, read: &Context) -> Result<(), Refusal> {
    if header.vv().len() + read.vv.len() >= plausible::ACTORS_MAX_OF_OTHERS {
        return Err(ContextError::Implausible.into());
    }
    Ok(())
}

/// Refuses a put that would leave more siblings, or more bytes of them, than it found, beyond the limit. A put that leaves
/// fewer is welcome however many there are: so a client that has read all of a key can resolve it, however large merges have
/// made it. And so is a delete: a tombstone is no sibling.
///
/// # Errors
/// [`Refusal::TooManySiblings`].
pub(super) fn check_room(header: &Header, write: &Write, limits: &Limits) -> Result<(), Refusal> {
    let Some(value) = &write.value else { return Ok(()) };
    let survivors = || header.survivors(&write.context.vv);
    let siblings = survivors().count() + 1;
    let bytes = survivors().filter_map(|(_, outline)| outline.len).map(|len| len as usize).sum::<usize>() + value.len();
    let too_many = siblings > limits.siblings_max && siblings > header.values().count();
    let too_large = bytes > limits.sibling_bytes_max && bytes > header.value_bytes();
    if too_many || too_large {
        return Err(Refusal::TooManySiblings { siblings: siblings as u32, bytes: bytes as u64 });
    }
    Ok(())
}

/// Whether a write is to be stamped: every put, and a delete that takes a value away which is held here, or which its
/// writer may have read and this replica has not seen. Where the last writer wins a delete takes away whatever there is.
pub(super) fn is_due(bucket: &BucketDefinition, header: &Header, write: &Write) -> bool {
    let context = &write.context.vv;
    if write.value.is_some() || write.found_nothing.is_some() {
        return write.value.is_some();
    }
    let is_meant = |dot: Dot| bucket.conflict == Conflict::Lww || context.covers(dot);
    let mut live = header.live().iter();
    live.any(|(dot, outline)| !outline.is_tombstone() && is_meant(*dot)) || !header.vv().covers_all(context)
}

/// What a delete comes to that is not stamped: what its read has found; else the vector of what its writer had read, with
/// the tombstones of that which are held here, so that it takes nothing away where all this is known.
pub(super) fn covered(header: &Header, write: &Write) -> Covered {
    let context = &write.context.vv;
    let tombstones = header.live().iter().filter(|(dot, outline)| outline.is_tombstone() && context.covers(*dot));
    let version =
        |outline: &Outline| Version { value: None, write_id: outline.write_id, written_at: outline.written_at };
    let live = tombstones.map(|(dot, outline)| (*dot, version(outline))).collect();
    let known =
        || Siblings::from_parts(context.clone(), live).expect("sorted as they were, and covered by the context");
    let siblings = write.found_nothing.as_deref().cloned().unwrap_or_else(known);
    // Two stamps of one write are one value.
    let values: BTreeSet<_> =
        header.survivors(context).map(|(_, outline)| (outline.write_id, outline.len, outline.value_hash)).collect();
    Covered { siblings, values: values.len() as u32 }
}

/// The version that a write becomes.
pub(super) fn version(write: &Write, written_at: Hlc) -> Version {
    let version = Version { value: write.value.clone(), write_id: write.write_id, written_at };
    debug_assert_eq!(version.is_tombstone(), write.value.is_none());
    version
}
