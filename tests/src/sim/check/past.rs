//! Which write has overwritten which, by what its author had read.
//!
//! Values are seen as clients saw them. Tombstones are never shown, so for them the context token is opened; and a
//! delete without a context reads for itself, so what it saw is what its stamp no longer held alive.

use std::collections::BTreeSet;

use driftless_proto::VersionVector;

use super::super::history::{History, Kind, OpId, Operation, Slot};
use super::super::observer::Observer;

/// `past` of every operation, and which writes are exempt.
///
/// A delete without a context that was stamped twice read twice, and who has seen one of its stamps need not have seen
/// what the other overwrote. So there are two pasts: what a write *may* have overwritten, for those who look for what
/// is missing, and what it *must* have, for those who look for what is back.
#[derive(Debug, Default)]
pub struct Past {
    may: Vec<BTreeSet<OpId>>,
    must: Vec<BTreeSet<OpId>>,
    exempt: BTreeSet<OpId>,
}

impl Past {
    /// Works it out.
    ///
    /// Exempt are writes that were stamped by two lives of nodes: who saw one stamp only and overwrote it left the
    /// other. With `forgetful` engines, which remember few write ids, one life may do it too.
    pub fn new(history: &History, observer: &Observer, forgetful: bool) -> Past {
        let twice = |op: &Operation| {
            observer.stamped_apart(op.write_id) || (forgetful && observer.dots_of(op.write_id).count() > 1)
        };
        let writes = history.iter().filter(|(_, op)| op.kind != Kind::Get);
        let exempt: BTreeSet<OpId> = writes.filter(|(_, op)| twice(op)).map(|(id, _)| id).collect();
        let mut seen: Vec<BTreeSet<OpId>> = history.iter().map(|(id, op)| seen(id, op, history, observer)).collect();
        let may = close(&seen);
        for &id in &exempt {
            if history.get(id).seen.is_none() {
                seen[id].clear();
            }
        }
        Past { may, must: close(&seen), exempt }
    }

    /// All that this write has surely overwritten, directly or through others.
    pub fn of(&self, id: OpId) -> &BTreeSet<OpId> {
        &self.must[id]
    }

    /// All that it may have overwritten.
    pub fn at_most(&self, id: OpId) -> &BTreeSet<OpId> {
        &self.may[id]
    }

    /// Whether this write was stamped twice, so that one stamp may survive the other.
    pub fn is_exempt(&self, id: OpId) -> bool {
        self.exempt.contains(&id)
    }

    /// What a read knows: what it shows, the tombstones it has seen, and all that they have overwritten.
    pub fn known_to_read(&self, read: &Operation, history: &History, observer: &Observer) -> BTreeSet<OpId> {
        let mut known: BTreeSet<OpId> = read.values.iter().copied().collect();
        known.extend(tombstones(&read.slot, &read.vv, history, observer));
        let pasts: Vec<OpId> = known.iter().flat_map(|id| self.may[*id].iter().copied()).collect();
        known.extend(pasts);
        known
    }
}

/// `past` from `seen`. Contexts only know earlier writes, except through a second stamp: goes on until nothing changes.
fn close(seen: &[BTreeSet<OpId>]) -> Vec<BTreeSet<OpId>> {
    let mut past = seen.to_vec();
    loop {
        let mut changed = false;
        for id in 0..past.len() {
            let further: Vec<OpId> =
                seen[id].iter().flat_map(|x| past[*x].iter().copied()).filter(|y| *y != id).collect();
            let before = past[id].len();
            past[id].extend(further);
            changed |= past[id].len() > before;
        }
        if !changed {
            return past;
        }
    }
}

fn seen(id: OpId, op: &Operation, history: &History, observer: &Observer) -> BTreeSet<OpId> {
    let mut seen = BTreeSet::new();
    match &op.seen {
        Some(read) => {
            seen.extend(read.values.iter().copied());
            seen.extend(tombstones(&op.slot, &read.inside.vv, history, observer));
        }
        None if op.kind == Kind::Delete => {
            for (_, stamp) in observer.dots_of(op.write_id) {
                let overwritten = observer
                    .dots_in(&op.slot)
                    .filter(|(dot, _)| stamp.after.covers(*dot) && stamp.after.get(*dot).is_none());
                seen.extend(overwritten.filter_map(|(_, other)| history.with_write_id(other.write_id)));
            }
        }
        None => {}
    }
    seen.remove(&id);
    seen
}

fn tombstones<'a>(
    slot: &'a Slot,
    vv: &'a VersionVector,
    history: &'a History,
    observer: &'a Observer,
) -> impl Iterator<Item = OpId> + 'a {
    observer
        .dots_in(slot)
        .filter(|(dot, _)| vv.covers(*dot))
        .filter_map(|(_, stamp)| history.with_write_id(stamp.write_id))
        .filter(|id| history.get(*id).kind == Kind::Delete)
}
