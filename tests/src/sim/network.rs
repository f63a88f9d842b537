//! Links between nodes, and the connections on them.
//!
//! A *link* is one direction between two nodes; it can be cut. A *connection* is what two nodes have while both
//! directions work: either side sees it until it notices that the other is gone, at a time of its own, and only when
//! both have noticed can the next one be made. As with QUIC, what was sent during a short cut arrives after it, and
//! what was under way on a lost connection is lost (but see [`FaultSet::ghosts`](super::faults::FaultSet::ghosts)).
//! *Datagrams* travel on a connection as well, and nobody sends them again.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

use super::faults::FaultSet;
use super::schedule::{Event, Micros, Schedule};

/// All links and connections of a cluster.
#[derive(Debug)]
pub struct Network {
    latency: (Micros, Micros),
    faults: FaultSet,
    cut: BTreeSet<(usize, usize)>,
    /// Whether each node runs, by number.
    running: Vec<bool>,
    /// All pairs, ordered by the higher number: those of one node more come after all others.
    pairs: Vec<Pair>,
    connections: u64,
    rng: StdRng,
    /// Messages that arrived twice.
    pub duplicated: u64,
    /// Messages lost one by one.
    pub lost: u64,
}

/// What happens to a message on its arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// The receiver gets it.
    Delivered,
    /// The link is cut: it is sent again later.
    Retransmitted,
    /// Its connection is gone.
    Dropped,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Number of the connection that the lower and the higher node see.
    seen: [Option<u64>; 2],
    /// Whether a `Connect` is planned.
    connecting: bool,
}

impl Network {
    /// Links between nodes that are all about to start, without any connection yet.
    pub fn new(nodes: usize, latency: (Micros, Micros), faults: FaultSet, rng: StdRng) -> Network {
        Network {
            latency,
            faults,
            cut: BTreeSet::new(),
            running: vec![true; nodes],
            pairs: vec![Pair::default(); nodes * nodes.saturating_sub(1) / 2],
            connections: 0,
            rng,
            duplicated: 0,
            lost: 0,
        }
    }

    /// Links to one node more, which does not run yet.
    pub fn add(&mut self) {
        self.pairs.extend(self.running.iter().map(|_| Pair::default()));
        self.running.push(false);
    }

    /// Ends random loss, duplicates and delays.
    pub fn calm(&mut self) {
        self.faults = FaultSet { ghosts: self.faults.ghosts, ..FaultSet::default() };
        self.latency = (self.latency.0, self.latency.0 + 500);
    }

    /// The connection on which `from` would send to `to` now.
    pub fn connection(&self, from: usize, to: usize) -> Option<u64> {
        self.pairs[pair(from, to)].seen[side(from, to)]
    }

    /// After what times a message sent now arrives: never, once, or, if that makes sense for it, twice.
    pub fn deliveries(&mut self, repeatable: bool) -> Vec<Micros> {
        if self.rng.random_bool(self.faults.loss) {
            self.lost += 1;
            return Vec::new();
        }
        let first = self.latency();
        if self.rng.random_bool(self.faults.duplication) && repeatable {
            self.duplicated += 1;
            let late = if self.rng.random_bool(0.3) { self.rng.random_range(0..400_000) } else { 0 };
            return vec![first, self.latency() + late];
        }
        vec![first]
    }

    /// After what times a datagram sent now arrives.
    pub fn datagram_deliveries(&mut self) -> Vec<Micros> {
        if self.rng.random_bool((2.0 * self.faults.loss).min(1.0)) {
            return Vec::new();
        }
        let copies = if self.rng.random_bool(self.faults.duplication) { 2 } else { 1 };
        (0..copies).map(|_| self.latency()).collect()
    }

    /// Whether a datagram that comes to its end now is received.
    pub fn receives(&self, from: usize, to: usize, connection: u64) -> bool {
        self.running[to] && self.connection(to, from) == Some(connection) && !self.cut.contains(&(from, to))
    }

    /// How long a message between a client and a node takes; `None` if it is lost. Clients are near: what they have seen
    /// at one node they look for at the next before the nodes have told each other.
    pub fn client_delivery(&mut self) -> Option<Micros> {
        let latency = self.rng.random_range(50..800);
        (!self.rng.random_bool(self.faults.client_loss)).then_some(latency)
    }

    /// What happens to a message that arrives now.
    pub fn arrival(&mut self, from: usize, to: usize, connection: u64) -> Arrival {
        let same = self.connection(to, from) == Some(connection);
        if !self.running[to] || !(same || self.faults.ghosts) {
            Arrival::Dropped
        } else if !self.cut.contains(&(from, to)) {
            Arrival::Delivered
        } else if same {
            Arrival::Retransmitted
        } else {
            Arrival::Dropped
        }
    }

    /// Until a lost packet is sent again.
    pub fn retransmit_delay(&mut self) -> Micros {
        self.rng.random_range(5_000..40_000)
    }

    /// `to` does not hear `from` any more.
    pub fn cut(&mut self, from: usize, to: usize, schedule: &mut Schedule) {
        self.cut.insert((from, to));
        self.plan_losses(from, to, schedule);
    }

    /// All links work. Returns how many directions had been cut.
    pub fn heal(&mut self, schedule: &mut Schedule) -> usize {
        let healed = self.cut.len();
        self.cut.clear();
        self.plan_connects(schedule);
        healed
    }

    /// A process is gone, and with it all that it knew of connections.
    pub fn stopped(&mut self, node: usize, schedule: &mut Schedule) {
        self.running[node] = false;
        for peer in self.peers(node) {
            let pair = pair(node, peer);
            self.pairs[pair].seen[side(node, peer)] = None;
            self.plan_losses(node, peer, schedule);
        }
    }

    /// A process is there again. Its peers notice at the latest now that it is not the one they knew.
    pub fn started(&mut self, node: usize, schedule: &mut Schedule) {
        self.running[node] = true;
        for peer in self.peers(node) {
            self.plan_loss(peer, node, 20_000, schedule);
        }
        self.plan_connects(schedule);
    }

    /// Whether a planned loss happens: the connection is still that one, and truly dead (or given up).
    pub fn lose(&mut self, node: usize, peer: usize, connection: u64, schedule: &mut Schedule) -> bool {
        let pair = pair(node, peer);
        if self.pairs[pair].seen[side(node, peer)] != Some(connection) {
            return false;
        }
        let other = self.pairs[pair].seen[side(peer, node)];
        let works = other == Some(connection) && self.hears_both(node, peer);
        if works {
            return false;
        }
        self.pairs[pair].seen[side(node, peer)] = None;
        self.plan_loss(peer, node, 300_000, schedule);
        self.plan_connects(schedule);
        true
    }

    /// Closes a working connection from one side; the other notices soon.
    pub fn close(&mut self, node: usize, peer: usize, schedule: &mut Schedule) -> bool {
        let pair = pair(node, peer);
        let had = self.pairs[pair].seen[side(node, peer)].take().is_some();
        self.plan_loss(peer, node, 30_000, schedule);
        self.plan_connects(schedule);
        had
    }

    /// Whether a planned connection comes to be.
    pub fn connect(&mut self, a: usize, b: usize) -> bool {
        let pair = pair(a, b);
        self.pairs[pair].connecting = false;
        if !self.hears_both(a, b) || self.pairs[pair].seen != [None, None] {
            return false;
        }
        self.connections += 1;
        self.pairs[pair].seen = [Some(self.connections); 2];
        true
    }

    /// Plans a connection for every pair that could have one.
    pub fn plan_connects(&mut self, schedule: &mut Schedule) {
        for a in 0..self.running.len() {
            for b in a + 1..self.running.len() {
                let pair = pair(a, b);
                if self.hears_both(a, b) && self.pairs[pair].seen == [None, None] && !self.pairs[pair].connecting {
                    self.pairs[pair].connecting = true;
                    schedule.after(self.rng.random_range(500..40_000), Event::Connect { a, b });
                }
            }
        }
    }

    fn plan_losses(&mut self, a: usize, b: usize, schedule: &mut Schedule) {
        self.plan_loss(a, b, 300_000, schedule);
        self.plan_loss(b, a, 300_000, schedule);
    }

    fn plan_loss(&mut self, node: usize, peer: usize, within: Micros, schedule: &mut Schedule) {
        if let Some(connection) = self.connection(node, peer) {
            let delay = self.rng.random_range(1_000..=within);
            schedule.after(delay, Event::ConnectionLost { node, peer, connection });
        }
    }

    fn hears_both(&self, a: usize, b: usize) -> bool {
        self.running[a] && self.running[b] && !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    fn latency(&mut self) -> Micros {
        let usual = self.rng.random_range(self.latency.0..=self.latency.1);
        let extra = if self.rng.random_bool(self.faults.delay) { self.rng.random_range(0..150_000) } else { 0 };
        usual + extra
    }

    fn peers(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.running.len()).filter(move |peer| *peer != node)
    }
}

/// The place of two nodes among all pairs.
fn pair(a: usize, b: usize) -> usize {
    let (low, high) = (a.min(b), a.max(b));
    high * (high - 1) / 2 + low
}

fn side(node: usize, peer: usize) -> usize {
    usize::from(node > peer)
}
