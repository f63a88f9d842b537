//! Stamping: the one place where dots are made, and the rules that keep a dot from being made twice.
//!
//! - A dot's counter counts the writes that its actor stamped in its partition, over all keys, without gaps.
//! - An actor is drawn at the first stamp in a partition after a start: a store that was stopped, however cleanly, may
//!   be an older copy of itself, so no start goes on with the actors of another. [13/400 runs lost data otherwise]
//! - A batch that was not applied gives its counters back. [173/400]
//! - A client's retry is recognised by its write id, and never stamped again. [25/400]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, Context, Dot, Header, Hlc, Refusal, Version, VersionVector, WriteId};
use driftless_ring::PartitionId;
use rand::Rng;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::config::Limits;
use crate::peer::Write;
use crate::time::Instant;

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

    /// Those that an earlier process has left, as if a start could go on with them.
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

/// What a client meant to write: a retry must mean the same.
pub(super) struct Intent {
    id: WriteId,
    /// Of the value alone: all that the stored header can be compared with.
    len: Option<u32>,
    value_hash: u64,
    /// Of value and context.
    digest: u128,
}

impl Intent {
    pub(super) fn new(write: &Write) -> Intent {
        let value_hash = write.value.as_ref().map_or(0, |value| xxh3_64(value));
        let mut bytes = Vec::with_capacity(16 + write.context.vv.len() * 16);
        bytes.extend(value_hash.to_be_bytes());
        bytes.push(write.value.is_some().into());
        for (actor, counter) in write.context.vv.iter() {
            bytes.extend(actor.0.to_be_bytes());
            bytes.extend(counter.to_be_bytes());
        }
        let len = write.value.as_ref().map(|value| value.len() as u32);
        Intent { id: write.write_id, len, value_hash, digest: xxh3_128(&bytes) }
    }
}

/// Write ids stamped lately, bounded in number and age. What falls out is still recognised while its version is live.
pub(super) struct WriteIds {
    stamps: BTreeMap<WriteId, (Dot, u128)>,
    order: VecDeque<(Instant, WriteId)>,
    max: usize,
    age: Duration,
}

impl WriteIds {
    pub(super) fn new(max: usize, age: Duration) -> WriteIds {
        WriteIds { stamps: BTreeMap::new(), order: VecDeque::new(), max, age }
    }

    /// The dot under which this very write was stamped before, if it was.
    ///
    /// # Errors
    /// [`Refusal::WriteIdReused`] if the id was used for another value or context.
    pub(super) fn recognise(&mut self, now: Instant, header: &Header, intent: &Intent) -> Result<Option<Dot>, Refusal> {
        self.forget(now);
        if let Some(&(dot, digest)) = self.stamps.get(&intent.id) {
            return if digest == intent.digest { Ok(Some(dot)) } else { Err(Refusal::WriteIdReused) };
        }
        match header.with_write_id(intent.id) {
            Some((dot, outline)) if outline.len == intent.len && outline.value_hash == intent.value_hash => {
                Ok(Some(*dot))
            }
            Some(_) => Err(Refusal::WriteIdReused),
            None => Ok(None),
        }
    }

    /// Keeps what was stamped. The oldest makes room.
    pub(super) fn remember(&mut self, now: Instant, intent: &Intent, dot: Dot) {
        if self.order.len() >= self.max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.stamps.remove(&oldest);
        }
        self.order.push_back((now, intent.id));
        self.stamps.insert(intent.id, (dot, intent.digest));
    }

    /// Forgets the newest ones: their batch was refused, so nothing was stamped.
    pub(super) fn forget_newest(&mut self, count: usize) {
        for (_, id) in self.order.drain(self.order.len().saturating_sub(count)..) {
            self.stamps.remove(&id);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.order.front()
            && now.since(since) > self.age
        {
            self.order.pop_front();
            self.stamps.remove(&id);
        }
    }
}

/// When a write happened: after what the clock says, what is held, and what its writer had read.
///
/// # Errors
/// [`Refusal::ClockBehind`] if that is more than `ahead_max` ahead of the clock.
pub(super) fn written_at(wall: Hlc, header: &Header, read: &Context, ahead_max: Duration) -> Result<Hlc, Refusal> {
    let stamp = Hlc::after(wall, header.written_at(), read.written_at);
    let ahead_ms = stamp.millis().saturating_sub(wall.millis());
    if u128::from(ahead_ms) > ahead_max.as_millis() {
        return Err(Refusal::ClockBehind { behind_ms: ahead_ms });
    }
    Ok(stamp)
}

/// Refuses a write that would leave more siblings, or more bytes of them, than it found, beyond the limit. A write
/// that leaves fewer is welcome however many there are: so whoever has read all of a key can resolve it, however large
/// merges have made it.
///
/// # Errors
/// [`Refusal::TooManySiblings`].
pub(super) fn check_room(header: &Header, write: &Write, limits: &Limits) -> Result<(), Refusal> {
    let survivors = || header.live().iter().filter(|(dot, _)| !write.context.vv.covers(*dot));
    let siblings = survivors().count() + 1;
    let bytes = survivors().filter_map(|(_, outline)| outline.len).map(|len| len as usize).sum::<usize>()
        + write.value.as_ref().map_or(0, |value| value.len());
    let too_many = siblings > limits.siblings_max && siblings > header.live().len();
    let too_large = bytes > limits.sibling_bytes_max && bytes > header.value_bytes();
    if too_many || too_large {
        return Err(Refusal::TooManySiblings { siblings: siblings as u32, bytes: bytes as u64 });
    }
    Ok(())
}

/// The version that a write becomes.
pub(super) fn version(write: &Write, written_at: Hlc) -> Version {
    let version = Version { value: write.value.clone(), write_id: write.write_id, written_at };
    debug_assert_eq!(version.is_tombstone(), write.value.is_none());
    version
}
