//! Which peers may be counted on: connected, thought alive by the detector, and answering what this shard asks.
//!
//! ```text
//!              connected, and Alive            three attempts in a row too late
//! unreachable ─────────────────────▶ reachable ────────────────────────────────▶ unresponsive ── Ping, until Pong ──┐
//!      ▲                                 │ ▲                                        │                               │
//!      └── connection lost, Suspect, Down ┘ └──────────────── any answer ───────────┼───────────────────────────────┘
//!      ▲                                                                            │
//!      └────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Answers are the one proof that messages go both ways: a peer whose requests still arrive, but which hears nothing of
//! ours, is unresponsive.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use driftless_ring::NodeId;

use super::Liveness;
use crate::time::Instant;

/// What a shard knows of its peers.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    peers: BTreeMap<NodeId, Peer>,
    outputs: VecDeque<Output>,
}

/// What follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// This peer may be counted on from now on.
    Up(NodeId),
    /// It may not, though it may still answer what it was asked.
    Unresponsive(NodeId),
    /// The connection is gone: what it was asked will not be answered.
    Lost(NodeId),
    /// Ask it for a sign of life.
    Ping(NodeId),
}

#[derive(Debug)]
struct Peer {
    connected: bool,
    liveness: Liveness,
    /// Attempts without an answer in time, since the last answer.
    late: u32,
    /// When to ask for a sign of life, while it is unresponsive.
    ping_at: Option<Instant>,
    /// What the others were told last.
    reachable: bool,
}

impl Reachability {
    /// There is a connection, and whatever was held against the last one is forgotten.
    pub(crate) fn handle_connected(&mut self, peer: NodeId) {
        self.change(peer, |peer| {
            peer.connected = true;
            peer.late = 0;
            peer.ping_at = None;
        });
    }

    /// There is none any more.
    pub(crate) fn handle_disconnected(&mut self, peer: NodeId) {
        self.change(peer, |peer| peer.connected = false);
        self.outputs.push_back(Output::Lost(peer));
    }

    /// The detector has made up its mind.
    pub(crate) fn handle_liveness(&mut self, peer: NodeId, liveness: Liveness) {
        self.change(peer, |peer| peer.liveness = liveness);
    }

    /// It has answered something.
    pub(crate) fn handle_answer(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(|peer| peer.late > 0) {
            self.change(peer, |peer| {
                peer.late = 0;
                peer.ping_at = None;
            });
        }
    }

    /// It has not answered in the time that it usually takes.
    pub(crate) fn handle_overdue(&mut self, now: Instant, peer: NodeId) {
        self.change(peer, |peer| {
            peer.late = peer.late.saturating_add(1);
            if peer.late >= LATE_MAX {
                peer.ping_at.get_or_insert(now);
            }
        });
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for (id, peer) in &mut self.peers {
            if peer.connected && peer.ping_at.is_some_and(|at| at <= now) {
                peer.ping_at = Some(now + PING_INTERVAL);
                self.outputs.push_back(Output::Ping(*id));
            }
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Reachability::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter(|peer| peer.connected).filter_map(|peer| peer.ping_at).min()
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.entry(id).or_insert(Peer {
            connected: false,
            liveness: Liveness::Alive,
            late: 0,
            ping_at: None,
            reachable: false,
        });
        change(peer);
        let reachable = peer.connected && peer.liveness == Liveness::Alive && peer.late < LATE_MAX;
        debug_assert!(peer.ping_at.is_none() || peer.late >= LATE_MAX, "a peer that answers is not pinged");
        if reachable != peer.reachable {
            peer.reachable = reachable;
            if reachable {
                self.outputs.push_back(Output::Up(id));
            } else if peer.connected {
                self.outputs.push_back(Output::Unresponsive(id));
            }
        }
    }
}

/// So many attempts in a row without an answer in time make a peer unresponsive.
const LATE_MAX: u32 = 3;

/// How often an unresponsive peer is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// How long a peer has for it before its answer would be of no use.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    fn outputs(reach: &mut Reachability) -> Vec<Output> {
        std::iter::from_fn(|| reach.poll_output()).collect()
    }

    fn connected() -> Reachability {
        let mut reach = Reachability::default();
        reach.handle_connected(A);
        assert_eq!(outputs(&mut reach), [Output::Up(A)]);
        reach
    }

    #[test]
    fn three_late_answers_in_a_row_make_a_peer_unresponsive_until_it_answers() {
        let mut reach = connected();
        let now = Instant(5_000_000);
        reach.handle_overdue(now, A);
        reach.handle_overdue(now, A);
        reach.handle_answer(A);
        reach.handle_overdue(now, A);
        reach.handle_overdue(now, A);
        assert_eq!((outputs(&mut reach), reach.poll_timeout()), (vec![], None));
        reach.handle_overdue(now, A);
        assert_eq!((outputs(&mut reach), reach.poll_timeout()), (vec![Output::Unresponsive(A)], Some(now)));
        reach.handle_timeout(now);
        reach.handle_overdue(now, A);
        assert_eq!(outputs(&mut reach), [Output::Ping(A)]);
        assert_eq!(reach.poll_timeout(), Some(now + PING_INTERVAL));
        reach.handle_answer(A);
        assert_eq!((outputs(&mut reach), reach.poll_timeout()), (vec![Output::Up(A)], None));
    }

    #[test]
    fn a_peer_counts_only_while_connected_and_thought_alive() {
        let mut reach = connected();
        reach.handle_liveness(A, Liveness::Suspect);
        reach.handle_liveness(A, Liveness::Down);
        assert_eq!(outputs(&mut reach), [Output::Unresponsive(A)]);
        reach.handle_disconnected(A);
        assert_eq!(outputs(&mut reach), [Output::Lost(A)], "what was under way is lost now");
        reach.handle_liveness(A, Liveness::Alive);
        assert_eq!(outputs(&mut reach), []);
        reach.handle_connected(A);
        assert_eq!(outputs(&mut reach), [Output::Up(A)]);
    }
}
