//! What the detector and the clocks find out, told to all shards; and the datagrams that tell them.

use driftless_ring::NodeId;

use crate::liveness::Liveness;
use crate::liveness::clocks::ClockBounds;

/// What engines are told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finding {
    /// What is thought of a peer now.
    Liveness(NodeId, Liveness),
    /// What the own clock may show.
    Clock(Option<ClockBounds>),
}

/// The shard that runs the detector.
pub(crate) const DETECTING_SHARD: u16 = 0;
