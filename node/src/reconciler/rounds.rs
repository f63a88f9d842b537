//! Who is compared with whom, when, and what came of it.
//!
//! ```text
//! a peer's round is due ──▶ sums of all shared partitions ──▶ equal: done until the next round
//!                                                      └────▶ unequal: waits for an exchange, oldest first
//! ```
//! Of two owners the one with the smaller id begins, so that they do not compare the same twice. What changes hands is an exception: whoever
//! takes it or gives it away begins too, since that comparison is one of its own passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use driftless_antientropy::{Bits, Digest};
use driftless_ring::{NodeId, PartitionId, Partitions, Token};
use rand::Rng;
use rand::rngs::StdRng;

use crate::meter::{Meter, REPAIR_WINDOW};
use crate::shard::Shard;
use crate::time::Instant;

/// All peers that share a partition of this shard.
#[derive(Debug)]
pub(super) struct Rounds {
    interval: Duration,
    /// Something changes hands, and is waited for: what could not be done is tried again soon, whatever the reason.
    is_awaited: bool,
    /// All peers that can be reached, whether or not they share anything.
    up: BTreeSet<NodeId>,
    /// How many partitions there are.
    partitions: Partitions,
    peers: BTreeMap<NodeId, Peer>,
    /// Unequal partitions of peers that can be reached, by the moment from which they are known to be, then by lot: two peers that fill a third
    /// should not both begin with the same partition.
    waiting: BTreeSet<(Instant, u32, NodeId, PartitionId)>,
    rng: StdRng,
}

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) reachable: bool,
    /// Whether this node is the one that begins.
    begins: bool,
    next_round: Instant,
    /// Takes part in as many exchanges as it can bear, so it is left alone until then.
    busy_until: Instant,
    /// Asked for by the operator.
    wanted: Option<BTreeSet<PartitionId>>,
    /// Sums sent and not answered yet.
    open: usize,
    /// Some partition could not be compared: the next round comes soon.
    again: bool,
    pub(super) shared: BTreeMap<PartitionId, SharedPartition>,
    /// Keys repaired at it.
    repaired: Meter,
}

/// What is known of one partition that a peer shares.
#[derive(Debug, Default)]
pub(super) struct SharedPartition {
    /// When everything was last equal, or made so.
    pub(super) last_full_round: Option<Instant>,
    pub(super) unequal: Option<Unequal>,
    /// Keys compared one by one.
    pub(super) compared: u64,
    /// Keys that differed, and were repaired.
    pub(super) repaired: u64,
    /// In how many successive rounds a key differed.
    unrepaired: BTreeMap<Token, Unrepaired>,
}

impl SharedPartition {
    /// What is known of each half of a partition: when it was equal, but not how many of the keys were whose.
    fn of_a_half(&self) -> SharedPartition {
        SharedPartition { last_full_round: self.last_full_round, ..SharedPartition::default() }
    }
}

/// A partition known to differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unequal {
    pub(super) since: Instant,
    lot: u32,
    not_before: Instant,
    pub(super) peer_bits: Bits,
    /// The peer's number of keys.
    pub(super) peer_count: u64,
}

impl Rounds {
    /// Nothing is known yet; rounds begin as soon as there are trees.
    pub(super) fn new(
        shard: &Shard,
        partitions: impl Iterator<Item = PartitionId>,
        interval: Duration,
        now: Instant,
        rng: StdRng,
    ) -> Rounds {
        // Peers are hardly connected yet; when one is, its round comes soon.
        let interval = interval.min(INTERVAL_MAX);
        let peers = Rounds::sharing(shard, partitions, now, now + interval);
        let (is_awaited, partitions) = (shard.configurations.is_moving(), shard.ring().partitions());
        Rounds { interval, is_awaited, up: BTreeSet::new(), partitions, peers, waiting: BTreeSet::new(), rng }
    }

    /// Others share these partitions from now on, and nothing is known of how they stand. What had been compared has been: who does not
    /// begin would else say until the next round that it never was. That holds of each half of a partition that was doubled.
    pub(super) fn begin_anew(&mut self, shard: &Shard, partitions: impl Iterator<Item = PartitionId>, now: Instant) {
        self.waiting.clear();
        self.is_awaited = shard.configurations.is_moving();
        let mut peers = Rounds::sharing(shard, partitions, now, now);
        let (before_it, divided) = (self.partitions, shard.ring().partitions());
        let cut_from = |partition| divided.cut_from(before_it, partition);
        for (id, peer) in &mut peers {
            peer.reachable = self.up.contains(id);
            let Some(before) = self.peers.get_mut(id) else { continue };
            peer.repaired = before.repaired;
            let wanted = before.wanted.take().unwrap_or_default();
            let wanted = peer.shared.keys().copied().filter(|partition| wanted.contains(&cut_from(*partition)));
            peer.wanted = Some(wanted.collect()).filter(|wanted: &BTreeSet<_>| !wanted.is_empty());
            for (partition, shared) in &mut peer.shared {
                let known = match divided == before_it {
                    true => before.shared.remove(partition),
                    false => before.shared.get(&cut_from(*partition)).map(SharedPartition::of_a_half),
                };
                if let Some(known) = known {
                    *shared = SharedPartition { unequal: None, ..known };
                }
            }
        }
        (self.partitions, self.peers) = (divided, peers);
    }

    /// How many partitions there are.
    pub(super) fn divided_into(&self) -> Partitions {
        self.partitions
    }

    fn sharing(
        shard: &Shard,
        partitions: impl Iterator<Item = PartitionId>,
        now: Instant,
        next_round: Instant,
    ) -> BTreeMap<NodeId, Peer> {
        let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
        for partition in partitions {
            let configurations = &shard.configurations;
            // What this node does not own any more is the owners' of today.
            let is_given = !configurations.owns(shard.node, partition);
            let owners = match is_given {
                false => configurations.owners(partition),
                true => configurations.newest_owners(partition).to_vec(),
            };
            let passes = configurations.passes(shard.node, partition);
            for owner in owners.into_iter().filter(|owner| *owner != shard.node) {
                let peer = peers.entry(owner).or_insert_with(|| Peer {
                    reachable: false,
                    begins: shard.node < owner,
                    next_round,
                    busy_until: now,
                    wanted: None,
                    open: 0,
                    again: false,
                    shared: BTreeMap::new(),
                    repaired: Meter::over(REPAIR_WINDOW),
                });
                // What changes hands is compared by who takes it, and by who gives it away.
                peer.begins |= is_given || passes.iter().any(|pass| pass.of.contains(&owner));
                peer.shared.insert(partition, SharedPartition::default());
            }
        }
        peers
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    /// What is known of a partition that this peer shares; `None` if it does not.
    pub(super) fn shared(&mut self, peer: NodeId, partition: PartitionId) -> Option<&mut SharedPartition> {
        self.peers.get_mut(&peer)?.shared.get_mut(&partition)
    }

    /// The most keys of a partition that a peer holds, of those that were found to differ in it.
    pub(super) fn most_held(&self, partition: PartitionId) -> u64 {
        let shared = self.peers.values().filter_map(|peer| peer.shared.get(&partition));
        shared.filter_map(|shared| shared.unequal).map(|unequal| unequal.peer_count).max().unwrap_or(0)
    }

    /// A peer is back: it may have missed something.
    pub(super) fn peer_up(&mut self, now: Instant, peer: NodeId) {
        let soon = now + self.soon();
        self.up.insert(peer);
        let Some(found) = self.peers.get_mut(&peer) else { return };
        found.reachable = true;
        found.next_round = found.next_round.min(soon);
        let unequal = found.shared.iter().filter_map(|(partition, shared)| Some((*partition, shared.unequal?)));
        self.waiting.extend(unequal.map(|(partition, unequal)| (unequal.since, unequal.lot, peer, partition)));
    }

    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.up.remove(&peer);
        if let Some(found) = self.peers.get_mut(&peer) {
            found.reachable = false;
            found.open = 0;
            self.waiting.retain(|(_, _, waiting, _)| *waiting != peer);
        }
    }

    /// Whether a peer can be reached from this shard.
    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.up.contains(&peer)
    }

    /// Compare now, all or one partition, whichever of two owners usually begins.
    pub(super) fn want(&mut self, partition: Option<PartitionId>) {
        for peer in self.peers.values_mut() {
            let shared = peer.shared.keys().copied().filter(|shared| partition.is_none_or(|wanted| wanted == *shared));
            peer.wanted.get_or_insert_default().extend(shared);
        }
    }

    /// A peer whose round is due, and which of the shared partitions to compare.
    pub(super) fn due(&mut self, now: Instant) -> Option<(NodeId, Vec<PartitionId>)> {
        let (&id, peer) = self.peers.iter_mut().find(|(_, peer)| peer.due_at().is_some_and(|due| due <= now))?;
        let wanted = peer.wanted.take().filter(|_| peer.next_round > now || !peer.begins);
        let partitions = match wanted {
            Some(wanted) => wanted.into_iter().collect(),
            None => peer.shared.keys().copied().collect(),
        };
        Some((id, partitions))
    }

    /// So many messages ask for a round.
    pub(super) fn opened(&mut self, now: Instant, peer: NodeId, messages: usize) {
        let pause = self.pause(false);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.open = messages;
            peer.again = false;
            // Whatever becomes of the answers.
            peer.next_round = now + pause;
        }
    }

    /// A round could not begin, because trees are not there yet.
    pub(super) fn defer_round(&mut self, now: Instant, peer: NodeId, partitions: Vec<PartitionId>) {
        let soon = now + self.soon();
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.again = true;
            peer.next_round = soon;
            if !peer.begins {
                peer.wanted = Some(partitions.into_iter().collect());
            }
        }
    }

    /// One of these messages was answered, or never will be.
    pub(super) fn closed(&mut self, now: Instant, peer: NodeId, again: bool) {
        let Some(found) = self.peers.get_mut(&peer) else { return };
        found.again |= again;
        found.open = found.open.saturating_sub(1);
        if found.open == 0 {
            let pause = std::mem::take(&mut found.again);
            let pause = self.pause(pause);
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.next_round = now + pause;
            }
        }
    }

    /// A partition was found equal, or made so.
    pub(super) fn equal(&mut self, now: Instant, peer: NodeId, partition: PartitionId) {
        let Some(shared) = self.shared(peer, partition) else { return };
        shared.last_full_round = Some(now);
        if let Some(unequal) = shared.unequal.take() {
            self.waiting.remove(&(unequal.since, unequal.lot, peer, partition));
        }
    }

    /// A partition was found equal without looking closely: no key of it is unrepaired.
    pub(super) fn forgive(&mut self, peer: NodeId, partition: PartitionId) {
        if let Some(shared) = self.shared(peer, partition) {
            shared.unrepaired.clear();
        }
    }

    /// A partition differs.
    pub(super) fn unequal(&mut self, now: Instant, peer: NodeId, partition: PartitionId, bits: Bits, count: u64) {
        let lot = self.rng.random();
        let Some(shared) = self.shared(peer, partition) else { return };
        let new = Unequal { since: now, lot, not_before: now, peer_bits: bits, peer_count: count };
        let known = shared.unequal.map_or(new, |known| Unequal { peer_bits: bits, peer_count: count, ..known });
        shared.unequal = Some(known);
        self.waiting.insert((known.since, known.lot, peer, partition));
    }

    /// An exchange ended early: not again at once.
    pub(super) fn retry_soon(&mut self, now: Instant, peer: NodeId, partition: PartitionId) {
        let until = now + self.soon();
        if let Some(unequal) = self.shared(peer, partition).and_then(|shared| shared.unequal.as_mut()) {
            unequal.not_before = until;
        }
    }

    /// What was sent to repair it was not taken: not again before the usual time.
    pub(super) fn retry_next_round(&mut self, now: Instant, peer: NodeId, partition: PartitionId) {
        let until = now + self.pause(false);
        if let Some(unequal) = self.shared(peer, partition).and_then(|shared| shared.unequal.as_mut()) {
            unequal.not_before = until;
        }
    }

    /// A peer has enough to do.
    pub(super) fn back_off_peer(&mut self, now: Instant, peer: NodeId) {
        let until = now + self.soon();
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.busy_until = peer.busy_until.max(until);
        }
    }

    /// A peer has too much to do until then.
    pub(super) fn hold(&mut self, peer: NodeId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.busy_until = peer.busy_until.max(until);
        }
    }

    /// These keys differed in a round that was complete. Answers the keys that differed in the round before as well: the
    /// caller goes on with [`Rounds::is_unrepaired`].
    pub(super) fn differed(&mut self, peer: NodeId, partition: PartitionId, tokens: &[Token]) -> Vec<Token> {
        let Some(shared) = self.shared(peer, partition) else { return Vec::new() };
        let before = std::mem::take(&mut shared.unrepaired);
        let again = |token: &Token| before.get(token).cloned().unwrap_or_default().again();
        shared.unrepaired = tokens.iter().map(|token| (*token, again(token))).collect();
        shared.unrepaired.iter().filter(|(_, found)| found.rounds > 1).map(|(token, _)| *token).collect()
    }

    /// Whether a key that differed again has now done so in three successive rounds, without a change of what this node
    /// holds of it since the round before. A key that is written all the time may differ in any round, and is none.
    pub(super) fn is_unrepaired(
        &mut self,
        peer: NodeId,
        partition: PartitionId,
        token: Token,
        held: Vec<Digest>,
    ) -> bool {
        let Some(found) = self.shared(peer, partition).and_then(|shared| shared.unrepaired.get_mut(&token)) else {
            return false;
        };
        if found.held.as_ref() != Some(&held) {
            *found = Unrepaired { rounds: UNREPAIRED_ROUNDS - 1, held: Some(held) };
        }
        found.rounds == UNREPAIRED_ROUNDS
    }

    /// The next exchange to begin: the partition that has been unequal for longest, and is not `busy`.
    pub(super) fn next(
        &self,
        now: Instant,
        busy: impl Fn(NodeId, PartitionId) -> bool,
    ) -> Option<(NodeId, PartitionId, Unequal)> {
        self.startable(busy).find(|(.., at)| *at <= now).map(|(peer, partition, unequal, _)| (peer, partition, unequal))
    }

    /// When the next exchange may begin, if one waits for its time.
    pub(super) fn next_at(&self, busy: impl Fn(NodeId, PartitionId) -> bool) -> Option<Instant> {
        self.startable(busy).map(|(.., at)| at).min()
    }

    fn startable(
        &self,
        busy: impl Fn(NodeId, PartitionId) -> bool,
    ) -> impl Iterator<Item = (NodeId, PartitionId, Unequal, Instant)> {
        self.waiting.iter().filter_map(move |(_, _, id, partition)| {
            let peer = self.peers.get(id).filter(|peer| peer.reachable && !busy(*id, *partition))?;
            let unequal = peer.shared.get(partition)?.unequal?;
            Some((*id, *partition, unequal, unequal.not_before.max(peer.busy_until)))
        })
    }

    /// A key was repaired at this peer.
    pub(super) fn repaired_one(&mut self, now: Instant, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.repaired.count(now, 1);
        }
    }

    /// Keys repaired at this peer per second, lately.
    pub(super) fn rate(&self, now: Instant, peer: NodeId) -> f64 {
        self.peers.get(&peer).map_or(0.0, |peer| peer.repaired.rate(now))
    }

    /// Rounds are so far apart from now on: none is further off than that, and who waits for less goes on waiting.
    pub(super) fn set_interval(&mut self, now: Instant, interval: Duration) {
        let interval = interval.min(INTERVAL_MAX);
        if self.interval == interval {
            return;
        }
        self.interval = interval;
        for peer in self.peers.values_mut() {
            // Not all at once.
            let pause = interval.mul_f64(self.rng.random_range(0.75..1.25));
            peer.next_round = peer.next_round.min(now + pause);
            for unequal in peer.shared.values_mut().filter_map(|shared| shared.unequal.as_mut()) {
                unequal.not_before = unequal.not_before.min(now + pause);
            }
        }
    }

    /// When the next round is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::due_at).min()
    }

    /// The usual pause between rounds, or a short one; never quite the same, so that nodes do not march in step.
    fn pause(&mut self, short: bool) -> Duration {
        if short || self.is_awaited { self.soon() } else { self.interval.mul_f64(self.rng.random_range(0.75..1.25)) }
    }

    fn soon(&mut self) -> Duration {
        (self.interval / SOON_PART).mul_f64(self.rng.random_range(0.5..1.5))
    }
}

/// A key that differed in the last round.
#[derive(Clone, Default, Debug)]
struct Unrepaired {
    /// In how many successive rounds.
    rounds: u8,
    /// What this node held of it in the second of them or later.
    held: Option<Vec<Digest>>,
}

impl Unrepaired {
    fn again(self) -> Unrepaired {
        Unrepaired { rounds: self.rounds.saturating_add(1), ..self }
    }
}

impl Peer {
    /// When its next round is due, if nothing stands in its way.
    fn due_at(&self) -> Option<Instant> {
        let free = self.reachable && self.open == 0;
        match (free, &self.wanted) {
            (false, _) => None,
            (true, Some(_)) if !self.again => Some(Instant::default()),
            (true, Some(_)) => Some(self.next_round),
            (true, None) => self.begins.then_some(self.next_round),
        }
    }
}

/// What could not be done is tried again after this part of the interval: 2 s by default.
const SOON_PART: u32 = 30;

/// More is never: what a part of it is multiplied by must not overflow.
const INTERVAL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A key that differs so often in a row is not being repaired.
const UNREPAIRED_ROUNDS: u8 = 3;
