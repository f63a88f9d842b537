//! What nodes measure, and tell each other while somebody looks at the cluster.
//!
//! ```text
//! status page ── look ──▶ shard 0 ── Forward(Figures) ──▶ every peer, which answers at once, whatever else it does
//!                           heard ◀── Forwarded(Figures) ──┘
//! ```
//! It goes over the connections that there are, in the words that a client would use. Nobody asks, and nothing is kept, while nobody looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::client::AaePartition;
use driftless_proto::figures::{Disk, ExchangesWith, Figures, RoundTrip};
use driftless_ring::NodeId;
use tokio::sync::Notify;

use super::node_context::{NodeContext, ShardMessage};
use super::requests;
use crate::route::MEMBERSHIP_SHARD;
use crate::time::Instant;

/// What peers have said of themselves lately.
#[derive(Default)]
pub(crate) struct Heard {
    looking: AtomicBool,
    by_peer: Mutex<BTreeMap<NodeId, (Instant, Arc<Figures>)>>,
    /// Somebody has answered.
    pub(crate) news: Notify,
}

impl Heard {
    /// Takes in an answer of so many bytes. What nobody has asked for, or is longer than it can be, is dropped.
    pub(super) fn take(&self, from: NodeId, now: Instant, figures: Box<Figures>, bytes: usize) {
        if bytes <= FIGURES_BYTES_MAX && self.looking.load(Ordering::Relaxed) {
            let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
            by_peer.insert(from, (now, Arc::from(figures)));
            drop(by_peer);
            self.news.notify_one();
        }
    }

    /// What a peer has said since then.
    pub(crate) fn since(&self, peer: NodeId, since: Instant) -> Option<Arc<Figures>> {
        let by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        by_peer.get(&peer).filter(|(at, _)| *at >= since).map(|(_, figures)| figures.clone())
    }

    /// Nobody looks any more.
    pub(crate) fn forget(&self) {
        self.looking.store(false, Ordering::Relaxed);
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl NodeContext {
    /// Asks every peer what it measures; who answers is in [`Heard`].
    pub(crate) fn ask_for_figures(&self) {
        self.heard.looking.store(true, Ordering::Relaxed);
        self.tell(MEMBERSHIP_SHARD, ShardMessage::AskForFigures);
    }

    /// What this node measures.
    pub(crate) fn figures(&self) -> Figures {
        let metrics = &self.metrics;
        let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
        let aae = self.aae_status();
        let disk = Disk {
            free: gauge(metrics.disk_free.get()),
            total: gauge(metrics.disk_total.get()),
            store: gauge(metrics.store_disk.get()),
        };
        let connected = self.peers.iter().filter(|peer| peer.connections > 0);
        let mut round_trips: Vec<RoundTrip> = connected
            .map(|peer| RoundTrip {
                peer: self.name_of(*peer.key()),
                microseconds: u64::try_from(peer.rtt.as_micros()).unwrap_or(u64::MAX),
            })
            .collect();
        round_trips.sort_unstable_by(|one, other| one.peer.cmp(&other.peer));
        Figures {
            status: self.status(),
            unfinished: self.configurations().unfinished().collect(),
            moving: self.progress().map(|progress| progress.moving).unwrap_or_default(),
            hints: self.hints(),
            exchanges: by_peer(&aae.partitions),
            compared_ms: aae.partitions.iter().filter_map(|line| line.last_full_round_ms).max(),
            round_trips,
            requests: requests::answered(metrics),
            under_way: self.shards.iter().map(|shard| shard.under_way.count() as u64).sum(),
            client_connections: gauge(metrics.client_connections.get()),
            reads_found: metrics.reads_found.get(),
            siblings_read: metrics.siblings_read.get(),
            writes_discarded: metrics.lww_discarded.get(),
            fallback_coordinated: metrics.fallback_coordinated.get(),
            hints_delivered: metrics.hints_delivered.get(),
            keys_repaired: metrics.aae_keys_repaired.get(),
            disk: (disk.total > 0).then_some(disk),
            partitions_uncounted: gauge(metrics.partitions_uncounted.get()),
            leaves_scrubbed: metrics.leaves_scrubbed.get(),
            damaged: self.damaged_count(),
            aae_paused: aae.paused,
        }
    }
}

/// All partitions that are shared with a peer, together, where anything is to be done.
fn by_peer(partitions: &[AaePartition]) -> Vec<ExchangesWith> {
    let mut sums: BTreeMap<&str, ExchangesWith> = BTreeMap::new();
    for line in partitions {
        let sum = sums.entry(&line.peer).or_insert_with(|| ExchangesWith {
            peer: line.peer.clone(),
            shared: 0,
            never: 0,
            unequal: 0,
            in_progress: 0,
            behind: 0,
            rate: 0.0,
        });
        sum.shared += 1;
        sum.never += u64::from(line.last_full_round_ms.is_none());
        sum.unequal += u64::from(line.unequal);
        sum.in_progress += u64::from(line.in_progress);
        sum.behind += line.behind;
        // Each shard says of each of its partitions how fast all of them are repaired.
        sum.rate = sum.rate.max(line.rate);
    }
    let is_busy = |sum: &ExchangesWith| sum.never + sum.unequal + sum.in_progress + sum.behind > 0;
    sums.into_values().filter(is_busy).collect()
}

/// How long an answer is waited for; who takes longer is asked again.
pub(super) const FIGURES_TIMEOUT: Duration = Duration::from_secs(2);

/// A thousand members and what is the matter with them take less.
const FIGURES_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use driftless_proto::client::AaePartition;
    use driftless_ring::{ArcIndex, PartitionId};

    use super::*;

    #[test]
    fn what_is_shared_with_a_peer_is_summed_up() {
        let line = |peer: &str, arc, last_full_round_ms, behind| AaePartition {
            peer: peer.to_owned(),
            partition: PartitionId { n: 3, arc: ArcIndex(arc) },
            last_full_round_ms,
            compared: 10,
            repaired: 1,
            unequal: behind > 0,
            in_progress: behind > 5,
            behind,
            rate: 2.5,
        };
        let lines =
            [line("c", 0, Some(7), 0), line("b", 0, None, 3), line("c", 1, Some(9), 6), line("a", 2, Some(5), 0)];
        let sums = by_peer(&lines);
        let of_b = ExchangesWith {
            peer: "b".to_owned(),
            shared: 1,
            never: 1,
            unequal: 1,
            in_progress: 0,
            behind: 3,
            rate: 2.5,
        };
        let of_c = ExchangesWith {
            peer: "c".to_owned(),
            shared: 2,
            never: 0,
            unequal: 1,
            in_progress: 1,
            behind: 6,
            rate: 2.5,
        };
        assert_eq!(sums, [of_b, of_c], "there is nothing to do with a");
    }
}
