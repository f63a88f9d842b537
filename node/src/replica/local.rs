//! What only a node's own coordinator says to its replica, and what it hears. None of it has a form on the wire: a peer cannot
//! make this node stamp, promise a delivery, or give up what a damaged record held.
//!
//! ```text
//! coordinator                                   replica
//!   │── Write ───────────────────────────────▶ stamps a dot, adds to the batch
//!   │◀── Made ── once the batch is applied           ◀── Acked ── once it is synced
//!   │── AddHint ─────────────────────────────▶ keeps a hint for a primary that misses the key; not answered
//!   │── Restore ─────────────────────────────▶ takes the place of a damaged record
//!   │── Replica ─────────────────────────────▶ the same as to any other replica
//! ```

use bytes::Bytes;
use driftless_proto::{BucketId, Context, Dot, Key, Siblings, WriteId};
use driftless_ring::NodeId;

use crate::peer::ReplicaRequest;

/// What a coordinator asks of its own node's replica.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum LocalRequest {
    /// Stamp a new write. Answered by [`Made`], then as a merge is.
    Write(Write),
    /// Keep a hint for a primary that misses something of a key. Not answered.
    AddHint(AddHint),
    /// Put this in place of a damaged record.
    Restore(Restore),
    /// What other replicas are asked as well.
    Replica(ReplicaRequest),
}

/// Stamp a new write.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Write {
    pub(crate) bucket: BucketId,
    pub(crate) key: Key,
    /// The value; none writes a tombstone.
    pub(crate) value: Option<Bytes>,
    /// The client's name for this write.
    pub(crate) write_id: WriteId,
    /// What its writer had read.
    pub(crate) context: Context,
    /// It is a delete without a context, and this is what its read has found: no value. That only has to stay so.
    pub(crate) found_nothing: Option<Box<Siblings>>,
    /// The primary that this node stands in for, if it is none itself: what it stamps is kept as a hint for it.
    pub(crate) hint_for: Option<NodeId>,
    /// Other primaries that are known to miss this write: the batch that holds it also holds hints for them.
    pub(crate) missed_by: Vec<NodeId>,
}

/// Keep a hint of a key for a primary: a marker without a copy where this node owns the key.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct AddHint {
    pub(crate) bucket: BucketId,
    pub(crate) key: Key,
    /// The primary that misses something.
    pub(crate) target: NodeId,
}

/// What the other owners hold of a key whose record is damaged here.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Restore {
    pub(crate) bucket: BucketId,
    pub(crate) key: Key,
    pub(crate) siblings: Siblings,
    pub(crate) loss: Loss,
}

/// Whether the damaged record may have held what no other owner does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// So many owners were read that one of them has seen whatever was acknowledged. Not answered: the replica asks again for
    /// what is still damaged.
    Excluded,
    /// It may, and an operator accepts that. Acknowledged once it is durable.
    Accepted,
}

/// What has become of a [`Write`]: applied, not yet durable.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Made {
    /// It has its dot.
    Stamped(Stamped),
    /// It is a delete that has nothing to remove, and was not stamped.
    Covered(Covered),
}

/// The state of a key after a write.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Stamped {
    /// The write's dot.
    pub(crate) dot: Dot,
    /// It was made before, and recognised by its write id.
    pub(crate) again: bool,
    /// Everything this replica knows of the key, the write included.
    pub(crate) siblings: Siblings,
}

/// What a delete rests on that has nothing to remove.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Covered {
    /// All that its writer had read, and no value of it: a replica that merges this holds none of them any more.
    pub(crate) siblings: Siblings,
    /// Values that the key has here all the same: the writer has not read them.
    pub(crate) values: u32,
}

impl Made {
    /// What the other replicas are to hold as well.
    pub(crate) fn siblings(&self) -> &Siblings {
        match self {
            Made::Stamped(Stamped { siblings, .. }) | Made::Covered(Covered { siblings, .. }) => siblings,
        }
    }

    /// Whether the state holds what is about to be acknowledged.
    pub(crate) fn holds(&self, write_id: WriteId) -> bool {
        match self {
            Made::Stamped(stamped) => stamped.holds(write_id),
            // Nothing was written: the state itself is what was to be made sure of.
            Made::Covered(_) => true,
        }
    }
}

impl Stamped {
    /// Whether the state holds the write with this id, for which it is about to be acknowledged: it is live there under its
    /// dot, or was overwritten since.
    pub(crate) fn holds(&self, write_id: WriteId) -> bool {
        match self.siblings.get(self.dot) {
            Some(version) => version.write_id == write_id,
            None => self.siblings.covers(self.dot),
        }
    }
}
