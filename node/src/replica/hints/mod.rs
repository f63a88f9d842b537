//! Hints: what this node holds for primaries that could not be reached, until they have it.
//!
//! ```text
//!                       this node owns the key                    it does not (it is a fallback)
//! Merge, hint_for T     into the record, and a marker for T       into the copy for T
//! Write, hint_for T     stamps over record ⊔ copies               stamps over all copies, for any node; kept for T
//! Write, missed_by U    a marker for U                            a copy for U
//! AddHint for U         a marker for U                            a copy for U of what it holds, if it holds anything
//! Read                  record ⊔ copies                           all copies
//! delivered to T        the marker goes, if the record is still as sent; the copy goes, if it is
//! ```
//! A removed copy takes knowledge with it. If it knew writes of the partition's present actor, that actor is retired in
//! the same batch: were it to stamp the key again, its vector would claim to have seen what is gone, and the next merge
//! would drop it as overwritten.

mod count;
mod deliver;
mod keep;
mod weight;

use driftless_proto::Refusal;
use driftless_ring::NodeId;

use crate::shard::Shard;

pub(crate) use count::HintCount;
pub(super) use count::HintCounts;
pub(crate) use deliver::{Hint, HintPage};
pub(super) use weight::HintWeight;

use super::located::Located;
use super::record::HintKey;
use super::store::Store;
use super::turn::Place;
use super::{Replica, RequestError};

/// In what capacity this node takes a write or a merge.
#[derive(Clone, Copy)]
pub(in crate::replica) enum Capacity {
    /// It stores the key, and keeps a hint of what it takes for another primary, if one is named.
    Owner { hint_for: Option<NodeId> },
    /// It does not, and keeps what it takes for this primary.
    Fallback { target: NodeId },
}

impl Capacity {
    /// Where a node in this capacity holds a key's state.
    pub(in crate::replica) fn place(self, located: &Located<'_>) -> Place {
        match self {
            Capacity::Owner { .. } => Place::Record(located.record.clone()),
            Capacity::Fallback { target } => Place::Copy(HintKey::new(target, &located.record)),
        }
    }
}

impl<S: Store> Replica<S> {
    /// What is held for whom.
    pub(crate) fn hint_counts(&self) -> impl Iterator<Item = (NodeId, HintCount)> + '_ {
        self.hints.hint_counts()
    }

    /// Whether any of it has changed since the last call.
    pub(crate) fn take_hint_counts_changed(&mut self) -> bool {
        self.hints.take_changed()
    }

    /// Whether this node may take a write or a merge, and as what. An owner whose record is damaged is its own fallback:
    /// what it takes is kept beside the record until that is restored, and is no part of what it answers until then.
    ///
    /// # Errors
    /// [`Refusal::NotOwner`] if it neither stores the key nor is asked to stand in for another node that does;
    /// [`Refusal::HintsFull`].
    pub(in crate::replica) fn capacity(
        &self,
        shard: &Shard,
        located: &mut Located<'_>,
        hint_for: Option<NodeId>,
    ) -> Result<Capacity, RequestError> {
        let is_damaged = self.check_sound(&located.record).is_err();
        match hint_for {
            Some(target) if target == shard.node || !shard.ring().owns(target, located.partition) => {
                Err(shard.not_owner().into())
            }
            hint_for if located.is_mine && !is_damaged => Ok(Capacity::Owner { hint_for }),
            None if !located.is_mine => Err(shard.not_owner().into()),
            // A marker for what cannot be read: nobody asks for that.
            Some(_) if located.is_mine => Err(Refusal::Damaged.into()),
            target => {
                let target = target.unwrap_or(shard.node);
                if !self.has_room(shard, target) {
                    return Err(Refusal::HintsFull.into());
                }
                located.is_mine = false;
                Ok(Capacity::Fallback { target })
            }
        }
    }

    /// Whether one more hint may be kept for this target. A refusal is counted.
    fn has_room(&self, shard: &Shard, target: NodeId) -> bool {
        let room = self.hints.has_room(&shard.limits, target);
        shard.metrics.hints_refused.inc_by((!room).into());
        room
    }
}
