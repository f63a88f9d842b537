//! Write ids that clients use again: for another key, which makes another write of it, or for another value of the same
//! key, which is refused wherever the first is remembered. Users do so who name their writes themselves.

use driftless_proto::WriteId;
use rand::Rng;
use rand::rngs::StdRng;

use super::generator::Intention;
use super::history::{History, Kind};

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
        let mut of_key = history.named(id).filter(|(_, op)| op.slot == intention.slot).peekable();
        let is_known = of_key.peek().is_some();
        // Two deletes of one key under one id are one delete, whoever makes them.
        let is_same = intention.kind == Kind::Delete && of_key.any(|(_, op)| op.kind == Kind::Delete);
        if !is_same && (!is_known || self.rng.random_bool(0.2)) {
            intention.write_id = id;
        }
    }
}

/// These ids are below all that clients draw for themselves, and the calm phase counts.
const FIRST: u128 = 1 << 90;

/// So many operations see about the same ids.
const OPERATIONS_PER_EPOCH: u64 = 48;
