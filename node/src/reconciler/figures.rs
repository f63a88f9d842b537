//! How anti-entropy stands, for operators.

use std::time::Duration;

use driftless_ring::{NodeId, PartitionId};

use crate::time::Instant;

use super::{Holdings, Reconciler, count};

/// How anti-entropy stands on one shard.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Figures {
    /// Stopped by the operator.
    pub paused: bool,
    /// One entry for each partition and peer that shares it.
    pub partitions: Vec<PartitionFigures>,
    /// Partitions of which this node has held nothing while another held some of it.
    pub lacking: usize,
}

/// How one partition stands between this node and a peer.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionFigures {
    /// The peer.
    pub peer: NodeId,
    /// The partition.
    pub partition: PartitionId,
    /// Time since everything was last equal, or made so; `None` if it never was since this node started.
    pub last_full_round: Option<Duration>,
    /// Keys compared one by one.
    pub compared: u64,
    /// Keys that differed, and were repaired.
    pub repaired: u64,
    /// Whether it is known to differ.
    pub unequal: bool,
    /// Whether an exchange is under way.
    pub in_progress: bool,
    /// At least so many keys are still to be repaired.
    pub behind: u64,
    /// Keys repaired at that peer per second, lately, of all partitions.
    pub rate: f64,
}

impl Reconciler {
    /// How things stand.
    pub(crate) fn figures<H: Holdings>(&self, now: Instant, holdings: &H) -> Figures {
        let mut partitions = Vec::new();
        for (id, peer) in self.rounds.peers() {
            let rate = self.rounds.rate(now, id);
            for (&partition, shared) in &peer.shared {
                let begun = self.begun.values().any(|b| b.peer == id && b.initiator.partition() == partition);
                let answering = self.answering.iter();
                let mut answering =
                    answering.filter(|((from, _), a)| *from == id && a.responder.partition() == partition);
                let mine = count(holdings.tree(partition));
                partitions.push(PartitionFigures {
                    peer: id,
                    partition,
                    last_full_round: shared.last_full_round.map(|at| now.since(at)),
                    compared: shared.compared,
                    repaired: shared.repaired,
                    unequal: shared.unequal.is_some(),
                    in_progress: begun || answering.next().is_some(),
                    behind: shared.unequal.map_or(0, |unequal| unequal.peer_count.abs_diff(mine).max(1)),
                    rate,
                });
            }
        }
        Figures { paused: self.paused, partitions, lacking: self.lacking.len() }
    }
}
