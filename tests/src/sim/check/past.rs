//! Which write has overwritten which, by what its author had read.
//!
//! Values are seen as clients saw them. Tombstones are never shown, so for them the context token is opened; and a
//! delete without a context reads for itself, so what it saw is what its stamp no longer held alive.

use driftless_proto::VersionVector;

use super::super::history::{Ending, History, Kind, OpId, Operation, Slot};
use super::super::observer::{Observer, Stamp};

/// `past` of every operation, and which writes are exempt.
///
/// A delete without a context that was stamped twice read twice, and who has seen one of its stamps need not have seen
/// what the other overwrote. So there are two pasts: what a write *may* have overwritten, for those who look for what
/// is missing, and what it *must* have, for those who look for what is back.
#[derive(Debug, Default)]
pub struct Past {
    may: Vec<OpSet>,
    must: Vec<OpSet>,
    exempt: OpSet,
}

impl Past {
    /// Works it out.
    ///
    /// Exempt are writes that were stamped by two lives of nodes: who saw one stamp only and overwrote it left the
    /// other. With `forgetful` engines, which remember few write ids, one life may do it too.
    pub fn new(history: &History, observer: &Observer, forgetful: bool) -> Past {
        let twice = |op: &Operation| observer.stamped_apart(op) || (forgetful && observer.dots_of(op).count() > 1);
        let writes = history.iter().filter(|(_, op)| op.kind != Kind::Get);
        let exempt: OpSet = writes.filter(|(_, op)| twice(op)).map(|(id, _)| id).collect();
        let mut seen: Vec<OpSet> = history.iter().map(|(id, op)| seen(id, op, history, observer)).collect();
        let may = close(&seen);
        let read_twice: Vec<OpId> = exempt.iter().filter(|id| history.get(*id).seen.is_none()).collect();
        let must = if read_twice.is_empty() {
            may.clone()
        } else {
            read_twice.into_iter().for_each(|id| seen[id] = OpSet::default());
            close(&seen)
        };
        Past { may, must, exempt }
    }

    /// All that this write has surely overwritten, directly or through others.
    pub fn of(&self, id: OpId) -> &OpSet {
        &self.must[id]
    }

    /// All that it may have overwritten.
    pub fn at_most(&self, id: OpId) -> &OpSet {
        &self.may[id]
    }

    /// Whether this write was stamped twice, so that one stamp may survive the other.
    pub fn is_exempt(&self, id: OpId) -> bool {
        self.exempt.contains(&id)
    }

    /// What a read knows: what it shows, the tombstones it has seen, and all that they have overwritten.
    pub fn known_to_read(&self, read: &Operation, history: &History, observer: &Observer) -> OpSet {
        let mut known: OpSet = read.values.iter().copied().collect();
        known.extend(tombstones(&read.slot, &read.vv, history, observer));
        for id in known.clone().iter() {
            known.unite(&self.may[id]);
        }
        let met = |(_, op): &(OpId, &Operation)| op.invoked < read.returned;
        if unstamped_deletes(&read.slot, history, observer).any(|delete| met(&delete)) {
            let replaced = |id: &OpId| history.of(&read.slot).filter(met).any(|(by, _)| self.may[by].contains(id));
            let covered = observer.dots_in(&read.slot).filter(|(dot, _)| read.vv.covers(*dot));
            known.extend(covered.filter_map(|(_, stamp)| write_of(stamp, history)).filter(replaced));
        }
        known
    }

    /// Whether a delete that found its work done may have made sure that this write is gone everywhere: it had read the write itself, or
    /// found it replaced by another that was stamped. The other may be lost since, as long as nobody was told of it.
    pub fn may_be_gone(&self, id: OpId, history: &History, observer: &Observer) -> bool {
        let put = history.get(id);
        unstamped_deletes(&put.slot, history, observer).any(|(delete, op)| {
            let ended = op.ending == Ending::Ok;
            let too_early = ended && op.returned < put.invoked;
            let replaced = || {
                history.of(&put.slot).any(|(by, write)| {
                    (!ended || write.invoked < op.returned)
                        && self.may[by].contains(&id)
                        && observer.dots_of(write).next().is_some()
                })
            };
            !too_early && (self.may[delete].contains(&id) || replaced())
        })
    }
}

/// Some operations.
#[derive(Clone, Debug, Default)]
pub struct OpSet(Vec<u64>);

impl OpSet {
    /// Whether it is one of them.
    pub fn contains(&self, id: &OpId) -> bool {
        self.0.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn insert(&mut self, id: OpId) {
        self.0.resize(self.0.len().max(id / 64 + 1), 0);
        self.0[id / 64] |= 1 << (id % 64);
    }

    fn remove(&mut self, id: OpId) {
        if let Some(word) = self.0.get_mut(id / 64) {
            *word &= !(1 << (id % 64));
        }
    }

    fn unite(&mut self, other: &OpSet) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn iter(&self) -> impl Iterator<Item = OpId> {
        let bits = |(at, word): (usize, &u64)| {
            let lower = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
            let words = std::iter::successors(Some(*word).filter(|word| *word != 0), lower);
            words.map(move |word| at * 64 + word.trailing_zeros() as usize)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

impl Extend<OpId> for OpSet {
    fn extend<T: IntoIterator<Item = OpId>>(&mut self, ids: T) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

impl FromIterator<OpId> for OpSet {
    fn from_iter<T: IntoIterator<Item = OpId>>(ids: T) -> OpSet {
        let mut set = OpSet::default();
        set.extend(ids);
        set
    }
}

/// `past` from `seen`. Contexts only know earlier writes, except through a second stamp: goes on until nothing changes.
fn close(seen: &[OpSet]) -> Vec<OpSet> {
    let mut past = seen.to_vec();
    loop {
        let mut changed = false;
        for id in 0..past.len() {
            let mut further = std::mem::take(&mut past[id]);
            let before = further.len();
            seen[id].iter().for_each(|x| further.unite(&past[x]));
            further.remove(id);
            changed |= further.len() > before;
            past[id] = further;
        }
        if !changed {
            return past;
        }
    }
}

fn seen(id: OpId, op: &Operation, history: &History, observer: &Observer) -> OpSet {
    let mut seen = OpSet::default();
    match &op.seen {
        Some(read) => {
            seen.extend(read.values.iter().copied());
            seen.extend(tombstones(&op.slot, &read.inside.vv, history, observer));
        }
        None if op.kind == Kind::Delete => {
            for (_, stamp) in observer.dots_of(op) {
                let overwritten = observer
                    .dots_in(&op.slot)
                    .filter(|(dot, _)| stamp.after.covers(*dot) && stamp.after.get(*dot).is_none());
                seen.extend(overwritten.filter_map(|(_, other)| write_of(other, history)));
            }
        }
        None => {}
    }
    seen.remove(id);
    seen
}

/// The deletes of a key that a vector knows of, whether or not their tombstones are live.
pub(super) fn tombstones<'a>(
    slot: &'a Slot,
    vv: &'a VersionVector,
    history: &'a History,
    observer: &'a Observer,
) -> impl Iterator<Item = OpId> + 'a {
    observer
        .dots_in(slot)
        .filter(|(dot, _)| vv.covers(*dot))
        .filter_map(|(_, stamp)| write_of(stamp, history))
        .filter(|id| history.get(*id).kind == Kind::Delete)
}

/// The deletes of a key that found their work done: they are stamped nowhere, and what they make sure of tells what is gone, but not by
/// which other write.
fn unstamped_deletes<'a>(
    slot: &'a Slot,
    history: &'a History,
    observer: &'a Observer,
) -> impl Iterator<Item = (OpId, &'a Operation)> {
    history.of(slot).filter(|(_, op)| {
        op.kind == Kind::Delete && op.ending != Ending::Refused && observer.dots_of(op).next().is_none()
    })
}

fn write_of(stamp: &Stamp, history: &History) -> Option<OpId> {
    history.write(&stamp.slot, stamp.write_id, stamp.value_hash)
}
