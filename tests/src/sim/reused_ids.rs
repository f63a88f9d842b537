//! Write ids that clients use again: for another key, which makes another write of it, or for another value of the same
//! key, which is refused wherever the first is remembered. Users do so who name their writes themselves.

use driftless_proto::WriteId;
use rand::Rng;
use rand::rngs::StdRng;

use super::generator::Intention;
use super::history::{History, Kind, Operation};

/// Chooses among a few ids, and goes on to others after a while.
#[derive(Debug)]
pub struct ReusedIds {
    /// How many are in use at a time.
    pub pool: u64,
    rng: StdRng,
}

impl ReusedIds {
    /// Draws how many; most worlds have none.
    pub fn draw(mut rng: StdRng) -> Option<ReusedIds> {
        let pool = rng.random_range(1..8);
        rng.random_bool(0.3).then_some(ReusedIds { pool, rng })
    }

    /// Gives a write another name, most of the time: seldom one that its key knows already.
    pub fn rename(&mut self, intention: &mut Intention, history: &History) {
        if intention.kind == Kind::Get || self.rng.random_bool(0.3) {
            return;
        }
        let epoch = history.len() as u64 / OPERATIONS_PER_EPOCH;
        let id = WriteId(FIRST + u128::from(epoch * self.pool + self.rng.random_range(0..self.pool)));
        let is_known = history.named(id).any(|(_, op)| op.slot == intention.slot);
        // Two deletes of one key under one id are one delete, whoever makes them.
        let is_delete = |op: &Operation| op.slot == intention.slot && op.kind == Kind::Delete;
        let is_same = intention.kind == Kind::Delete && history.named(id).any(|(_, op)| is_delete(op));
        if !is_same && (!is_known || self.rng.random_bool(0.2)) {
            intention.write_id = id;
            self.repeat(intention, history);
        }
    }

    /// Now and then the same value as well, of somebody who has read as little: as one does who loads the same into two
    /// buckets.
    fn repeat(&mut self, intention: &mut Intention, history: &History) {
        let is_free = |op: &Operation| {
            (op.kind, &op.seen) == (Kind::Put, &None) && history.repeated(&intention.slot, op.value).is_none()
        };
        let of_others = history.named(intention.write_id).filter(|(_, op)| op.slot != intention.slot);
        let other = of_others.filter(|(_, op)| is_free(op)).last().map(|(_, op)| (op.value, op.length));
        if let Some((value, length)) = other
            && intention.kind == Kind::Put
            && history.get(value).slot != intention.slot
            && self.rng.random_bool(0.5)
        {
            (intention.context, intention.stale, intention.damaged) = (None, false, false);
            (intention.repeats, intention.length) = (Some(value), length);
        }
    }
}

/// These ids are below all that clients draw for themselves, and the calm phase counts.
const FIRST: u128 = 1 << 90;

/// So many operations see about the same ids.
const OPERATIONS_PER_EPOCH: u64 = 48;
