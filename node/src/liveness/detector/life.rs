//! Who a member is to the detector: a node, and which of its lives.

use driftless_proto::Hlc;
use driftless_ring::NodeId;
use foca::Identity;
use serde::{Deserialize, Serialize};

use crate::plausible;

/// One life of a node. SWIM never takes back that somebody is down: a node that was called down comes back as a later
/// life of itself, and what is still said of the earlier one concerns nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) node: NodeId,
    pub(super) generation: Generation,
}

/// Later lives are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Generation {
    /// How often the process was started.
    starts: u64,
    /// How often it was called down since.
    renewals: u32,
}

impl Generation {
    /// The latest life of another node that is believed: after a later one, every true life of that node would be too early.
    pub(super) fn latest_of_others(wall: Hlc) -> Generation {
        Generation { starts: plausible::latest_life(wall) + plausible::CLOCKS_APART_S, renewals: u32::MAX }
    }
}

impl Life {
    /// The life that begins with a start of the process.
    pub(super) fn begun(node: NodeId, starts: u64) -> Life {
        Life { node, generation: Generation { starts, renewals: 0 } }
    }

    /// The latest life that this node follows its peers to, if it began with this one. Not earlier than what peers believe of it.
    pub(super) fn latest_after(self, wall: Hlc) -> Generation {
        let counted = self.generation.starts.saturating_add(plausible::AHEAD_MAX_S);
        let starts = counted.max(plausible::latest_life(wall) + 2 * plausible::CLOCKS_APART_S);
        Generation { starts, renewals: u32::MAX }
    }

    /// Stands for a member until it has said which life it is in; any life is later.
    pub(super) fn unknown(node: NodeId) -> Life {
        Life::begun(node, 0)
    }

    pub(super) fn is_known(self) -> bool {
        self.generation > Life::unknown(self.node).generation
    }
}

impl Identity for Life {
    type Addr = NodeId;

    fn renew(&self) -> Option<Life> {
        let Generation { starts, renewals } = self.generation;
        let generation = match renewals.checked_add(1) {
            Some(renewals) => Generation { starts, renewals },
            None => Generation { starts: starts.checked_add(1)?, renewals: 0 },
        };
        Some(Life { generation, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Life) -> bool {
        self.generation > adversary.generation
    }
}
