//! What disks have lost, so that no more is asked of them than w is for: one disk of a run is set back to an earlier
//! state, or bytes of it are damaged, again and again; all others keep what they have synced.

use bytes::Bytes;

use super::super::history::{Operation, Slot};
use super::super::schedule::Micros;

/// The losses of the one disk.
#[derive(Clone, Debug, Default)]
pub struct DiskLosses {
    set_back: Vec<Micros>,
    damaged: Vec<Damaged>,
}

/// Some bytes about a key were not what had been written, for a while.
#[derive(Clone, Debug)]
struct Damaged {
    stored_at: Bytes,
    slot: Slot,
    began: Micros,
    ended: Option<Micros>,
}

impl DiskLosses {
    /// The disk was set back.
    pub fn set_back(&mut self, at: Micros) {
        self.set_back.push(at);
    }

    /// Whether the disk was set back.
    pub fn was_set_back(&self) -> bool {
        !self.set_back.is_empty()
    }

    /// What is stored there about a key was damaged.
    pub fn damaged(&mut self, stored_at: Bytes, slot: Slot, at: Micros) {
        self.damaged.push(Damaged { stored_at, slot, began: at, ended: None });
    }

    /// That is gone: other bytes have taken its place, on the disk as well, or none.
    pub fn mended(&mut self, stored_at: &Bytes, at: Micros) {
        let is_over = |damaged: &&mut Damaged| damaged.stored_at == *stored_at && damaged.ended.is_none();
        if let Some(damaged) = self.damaged.iter_mut().find(is_over) {
            damaged.ended = Some(at);
        }
    }

    /// How many disks may lack what was promised of a key by an operation that began then. What was damaged earlier counts
    /// too, until it is mended: its node may have acknowledged on the strength of what it still remembered.
    pub fn since(&self, slot: &Slot, began: Micros) -> usize {
        let is_damaged = |damaged: &Damaged| damaged.slot == *slot && damaged.ended.is_none_or(|ended| ended >= began);
        usize::from(self.set_back.iter().any(|at| *at >= began) || self.damaged.iter().any(is_damaged))
    }

    /// Whether what was damaged there must hold this operation once it is restored: it had ended before, and no other state
    /// of the disk has come back since.
    pub fn is_due(&self, stored_at: &Bytes, op: &Operation) -> bool {
        let is_open = |damaged: &&Damaged| damaged.stored_at == *stored_at && damaged.ended.is_none();
        self.set_back.is_empty() && self.damaged.iter().find(is_open).is_some_and(|damaged| op.returned < damaged.began)
    }

    /// Whether quorums that overlap have met in these operations on a key. A disk that was set back does not know, and
    /// answers; what is damaged does not answer until it knows again what the others know. Only what was under way
    /// meanwhile may have counted on it in vain.
    pub fn spare(&self, earlier: &Operation, later: &Operation) -> bool {
        let during = |damaged: &Damaged| {
            damaged.slot == earlier.slot
                && damaged.began <= earlier.returned
                && damaged.ended.is_none_or(|ended| ended >= earlier.invoked)
        };
        !self.set_back.iter().any(|at| (earlier.invoked..=later.returned).contains(at))
            && !self.damaged.iter().any(during)
    }
}
