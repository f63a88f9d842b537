//! Which peers may be counted on: connected, thought alive by the detector, and answering what this shard asks.
//!
//! ```text
//!              connected, and Alive              an attempt is overdue            two more are, and no sign of life
//! unreachable ─────────────────────▶ reachable ───────────────────────▶ doubted ─────────────────────────────────▶ unresponsive
//!      ▲                                 ▲                                 │                                            │
//!      │                                 └────────── any answer, Pong ─────┴────────────────────────────────────────────┘
//!      └── from each: connection lost, Suspect, Down
//! ```
//! Answers are the one proof that messages go both ways: a peer whose requests still arrive, but which hears nothing of
//! ours, is unresponsive. One that is late because its disk has much to do is not: it answers a Ping, which waits for no
//! disk. A doubted peer is counted on like any other; requests that find it late ask others by themselves.

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
    /// While some are.
    doubt: Option<Doubt>,
    /// When it was asked for a sign of life last.
    pinged_at: Option<Instant>,
    /// What the others were told last.
    reachable: bool,
}

/// What a peer is asked while it is late with answers.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When to ask for the next sign of life.
    ping_at: Instant,
    /// By when the first was to come.
    sign_due: Instant,
    /// It did not come.
    unresponsive: bool,
}

impl Reachability {
    /// There is a connection, and whatever was held against the last one is forgotten.
    pub(crate) fn handle_connected(&mut self, peer: NodeId) {
        self.change(peer, |peer| {
            peer.connected = true;
            peer.clear();
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
            self.change(peer, Peer::clear);
        }
    }

    /// It has not answered in the time that it usually takes.
    pub(crate) fn handle_overdue(&mut self, now: Instant, peer: NodeId) {
        self.change(peer, |peer| {
            peer.late = peer.late.saturating_add(1);
            let ping_at = peer.pinged_at.map_or(now, |last| now.max(last + PING_INTERVAL));
            peer.doubt.get_or_insert(Doubt { ping_at, sign_due: ping_at + SIGN_PATIENCE, unresponsive: false });
            peer.look(now);
        });
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.due_at().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.change(id, |peer| peer.look(now));
            if let Some(peer) = self.peers.get_mut(&id)
                && let Some(doubt) = peer.doubt.as_mut().filter(|doubt| doubt.ping_at <= now)
            {
                doubt.ping_at = now + PING_INTERVAL;
                peer.pinged_at = Some(now);
                self.outputs.push_back(Output::Ping(id));
            }
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Reachability::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::due_at).min()
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.entry(id).or_insert(Peer {
            connected: false,
            liveness: Liveness::Alive,
            late: 0,
            doubt: None,
            pinged_at: None,
            reachable: false,
        });
        change(peer);
        debug_assert_eq!(peer.doubt.is_some(), peer.late > 0, "who is late is asked for a sign of life");
        let reachable = peer.connected && peer.liveness == Liveness::Alive && !peer.is_unresponsive();
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

impl Peer {
    /// It has answered, or there is another connection.
    fn clear(&mut self) {
        (self.late, self.doubt) = (0, None);
    }

    /// Whether it has been silent for too long.
    fn look(&mut self, now: Instant) {
        if let Some(doubt) = &mut self.doubt {
            doubt.unresponsive |= self.late >= LATE_MAX && doubt.sign_due <= now;
        }
    }

    fn is_unresponsive(&self) -> bool {
        self.doubt.is_some_and(|doubt| doubt.unresponsive)
    }

    /// When it is to be asked or judged.
    fn due_at(&self) -> Option<Instant> {
        let doubt = self.doubt.filter(|_| self.connected)?;
        let is_judged = self.late >= LATE_MAX && !doubt.unresponsive;
        Some(if is_judged { doubt.ping_at.min(doubt.sign_due) } else { doubt.ping_at })
    }
}

/// So many attempts in a row without an answer in time, and no sign of life, make a peer unresponsive.
const LATE_MAX: u32 = 3;

/// How often a doubted peer is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// How long a doubted peer has for its first sign of life: longer than a turn that is full of large values takes.
const SIGN_PATIENCE: Duration = Duration::from_millis(500);

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
    fn a_peer_that_is_late_is_asked_for_a_sign_of_life_and_counted_on_while_it_gives_one() {
        let mut reach = connected();
        let mut now = Instant(5_000_000);
        for _ in 0..20 {
            (0..10).for_each(|_| reach.handle_overdue(now, A));
            assert_eq!(reach.poll_timeout(), Some(now), "it is asked at once");
            reach.handle_timeout(now);
            assert_eq!(outputs(&mut reach), [Output::Ping(A)]);
            reach.handle_timeout(now + SIGN_PATIENCE / 3);
            assert_eq!(outputs(&mut reach), []);
            reach.handle_answer(A);
            assert_eq!((outputs(&mut reach), reach.poll_timeout()), (vec![], None));
            now = now + SIGN_PATIENCE * 2;
        }
    }

    #[test]
    fn one_that_is_late_and_answers_at_once_is_not_asked_again_and_again() {
        let mut reach = connected();
        let (mut now, mut pings) = (Instant(5_000_000), 0);
        for _ in 0..1_000 {
            reach.handle_overdue(now, A);
            reach.handle_timeout(now);
            pings += outputs(&mut reach).len();
            reach.handle_answer(A);
            now = now + Duration::from_millis(1);
        }
        assert_eq!(pings, 5, "one in {PING_INTERVAL:?}");
    }

    #[test]
    fn three_late_answers_and_no_sign_of_life_make_a_peer_unresponsive_until_it_answers() {
        let mut reach = connected();
        let now = Instant(5_000_000);
        reach.handle_overdue(now, A);
        reach.handle_overdue(now, A);
        for round in 0..=3 {
            reach.handle_timeout(now + PING_INTERVAL * round);
            assert_eq!(outputs(&mut reach), [Output::Ping(A)], "two that are late are not enough");
        }
        let later = now + PING_INTERVAL * 3;
        reach.handle_overdue(later, A);
        assert_eq!(outputs(&mut reach), [Output::Unresponsive(A)]);
        reach.handle_timeout(now + PING_INTERVAL * 4);
        assert_eq!(outputs(&mut reach), [Output::Ping(A)]);
        reach.handle_answer(A);
        assert_eq!((outputs(&mut reach), reach.poll_timeout()), (vec![Output::Up(A)], None));
    }

    #[test]
    fn the_verdict_comes_by_itself_when_no_sign_of_life_does() {
        let mut reach = connected();
        let now = Instant(5_000_000);
        (0..3).for_each(|_| reach.handle_overdue(now, A));
        reach.handle_timeout(now);
        reach.handle_timeout(now + PING_INTERVAL);
        reach.handle_timeout(now + PING_INTERVAL * 2);
        assert_eq!(outputs(&mut reach), [Output::Ping(A); 3]);
        assert_eq!(reach.poll_timeout(), Some(now + SIGN_PATIENCE));
        reach.handle_timeout(now + SIGN_PATIENCE);
        assert_eq!(outputs(&mut reach), [Output::Unresponsive(A)]);
        assert_eq!(reach.poll_timeout(), Some(now + PING_INTERVAL * 3), "it is asked on");
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
