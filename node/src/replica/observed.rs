//! What only the simulator is shown: every stamp, with the state that it left. The disk does not show them all: a tombstone
//! that the next write of the same batch takes the place of was never there.

use driftless_proto::{Dot, Header};

use super::Replica;
use super::local::{Made, Stamped};
use super::record::RecordKey;
use super::store::Store;
use super::turn::{Place, Waiting, Waits};

/// A key, the dot that a write of it was given, and the state that this has left.
pub(crate) type Stamp = (RecordKey, Dot, Header);

impl<S: Store> Replica<S> {
    /// A batch is applied, or may be.
    pub(super) fn show_stamps(&mut self, waiting: &[Waiting]) {
        for Waiting { waits, .. } in waiting {
            if let Waits::Write { made, place, .. } = waits {
                self.show_stamp(place, made);
            }
        }
    }

    fn show_stamp(&mut self, place: &Place, made: &Made) {
        if let Made::Stamped(Stamped { dot, siblings, .. }) = made
            && self.stamps.len() < SHOWN_MAX
        {
            let record = match place {
                Place::Record(record) => record.clone(),
                Place::Copy(hint) => hint.record(),
            };
            self.stamps.push((record, *dot, siblings.header()));
        }
    }

    /// Takes the stamps whose batches were applied since the last call, and retries of theirs.
    pub(crate) fn take_stamps(&mut self) -> Vec<Stamp> {
        std::mem::take(&mut self.stamps)
    }
}

/// The simulator looks after every turn. Where nobody looks they are not kept.
const SHOWN_MAX: usize = 1000;
