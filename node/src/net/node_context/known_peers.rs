//! What a node knows of the others: whether it is connected to them, what the detector thinks of them, and where they are.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use driftless_proto::client::{Liveness, Response};
use driftless_proto::membership::{Change, ClusterCommand};
use driftless_proto::{AccessChange, Denial, Failure, Refusal};
use driftless_ring::{Member, NodeId};

use super::NodeContext;
use crate::conditions::Problem;
use crate::metrics::LivenessLabels;
use crate::time::Instant;

/// What a node knows of another.
pub(crate) struct PeerState {
    /// Connections of all shards.
    pub(crate) connections: usize,
    /// How many there are when none is missing.
    expected: usize,
    /// Round trip as QUIC measures it.
    pub(crate) rtt: Duration,
    /// What the detector thinks of it.
    liveness: Liveness,
    /// What was seen when a connection to it was tried last, if it is not connected.
    pub(crate) problem: Option<Problem>,
    /// When that was noted.
    noted: Instant,
    /// When a message of it arrived last, on the node's clock.
    pub(crate) heard: Arc<AtomicU64>,
}

impl PeerState {
    /// Of a node that this one with so many shards is not connected to yet.
    pub(super) fn new(member: &Member, shards: usize) -> PeerState {
        PeerState {
            connections: 0,
            expected: shards.max(usize::from(member.shards)),
            rtt: Duration::ZERO,
            liveness: Liveness::Alive,
            problem: None,
            noted: Instant::default(),
            heard: Arc::default(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connections >= self.expected
    }

    pub(crate) fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// Connections that there are when none is missing.
    pub(super) fn expected(&self) -> usize {
        self.expected
    }

    /// It may have come to have another number of shards.
    pub(super) fn expect_as(&mut self, fresh: usize) {
        self.expected = fresh;
    }
}

impl NodeContext {
    /// Whether it has been connected to no other node for a while, though there are others.
    pub(crate) fn is_alone(&self) -> bool {
        let since = *self.alone_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| self.clock.instant().since(since) >= ALONE_AFTER)
    }

    pub(super) fn look_whether_alone(&self) {
        let is_alone = !self.peers.is_empty() && self.peers.iter().all(|peer| peer.connections == 0);
        let mut since = self.alone_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = is_alone.then(|| since.unwrap_or_else(|| self.clock.instant()));
    }

    /// Whether a member is, or was lately, at this address.
    pub(crate) fn is_member_address(&self, address: IpAddr) -> bool {
        self.member_addresses.lock().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }

    /// A member was found there.
    pub(crate) fn note_member_address(&self, address: IpAddr) {
        let mut known = self.member_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MEMBER_ADDRESSES_MAX {
            *known = literal_addresses(&self.configurations().members());
        }
        known.insert(address.to_canonical());
    }

    /// Records that a shard has one connection more or less to a peer.
    pub(crate) fn peer_connections(&self, peer: NodeId, change: isize) {
        if let Some(mut state) = self.peers.get_mut(&peer) {
            state.connections = state.connections.saturating_add_signed(change);
            if change > 0 {
                state.problem = None;
            }
        }
        self.count_peers();
    }

    pub(super) fn count_peers(&self) {
        let count = |is: fn(&PeerState) -> bool| {
            i64::try_from(self.peers.iter().filter(|peer| is(peer)).count()).unwrap_or(i64::MAX)
        };
        self.metrics.peers_connected.set(count(PeerState::is_connected));
        self.metrics.peers_alive.set(count(|peer| peer.liveness == Liveness::Alive));
    }

    /// Keeps why there is no connection to a peer. Of one that is connected it says nothing: somebody else was turned away, or
    /// another attempt came first.
    pub(crate) fn note_problem(&self, peer: NodeId, problem: Problem) {
        if let Some(mut state) = self.peers.get_mut(&peer)
            && !state.is_connected()
        {
            state.problem = Some(problem);
            state.noted = self.clock.instant();
        }
    }

    /// What speaks against an order, and the machine of the members cannot know.
    pub(crate) fn contradicts(&self, command: &ClusterCommand) -> Option<Response> {
        let why = match command {
            ClusterCommand::Recover { lost, .. } => self.is_there(lost, ", and not lost"),
            ClusterCommand::Found { without, .. } => self.is_there(without, ""),
            ClusterCommand::Stage(Change::SetAccess(AccessChange::Deny(Denial::Serial(serial))))
            | ClusterCommand::Apply(Change::SetAccess(AccessChange::Deny(Denial::Serial(serial)))) => {
                let rests_on_it = self.credentials.allowed().1.is_own(serial);
                rests_on_it.then(|| {
                    format!(
                        "serial number {serial} is of the certificate of {}, or of an authority that it rests on: give the nodes others first",
                        self.name
                    )
                })
            }
            _ => None,
        };
        why.map(|why| Response::Failed(Failure::Refused(Refusal::Membership(why))))
    }

    /// That one of those is there who are to be declared lost by force, or are said never to come, though the two do not listen to each other. It may
    /// know that this node was declared lost itself.
    fn is_there(&self, named: &[String], and: &str) -> Option<String> {
        let now = self.clock.instant();
        let (name, problem) = self.peers.iter().find_map(|peer| {
            // Of one that this node does not call itself, nothing else takes it back.
            let is_present = !peer.is_connected() && now.since(peer.noted) < THERE_FOR;
            let problem = peer.problem.as_ref().filter(|problem| problem.is_there && is_present)?;
            let name = self.name_of(*peer.key());
            named.contains(&name).then(|| (name, problem.text.clone()))
        })?;
        Some(format!("{name} is there{and}: {problem}; stop it for good, or see `driftless status`"))
    }

    /// Takes over what the detector thinks of a peer, and tells the other shards.
    pub(crate) fn peer_liveness(&self, peer: NodeId, liveness: Liveness) {
        if let Some(mut state) = self.peers.get_mut(&peer) {
            state.liveness = liveness;
        }
        self.count_peers();
        let to = match liveness {
            Liveness::Alive => "alive",
            Liveness::Suspect => "suspect",
            Liveness::Down => "down",
        };
        self.metrics.liveness_changes.get_or_create(&LivenessLabels { to }).inc();
        let name = self.name_of(peer);
        match liveness {
            Liveness::Alive => tracing::info!(node = self.name, peer = name, "peer alive again"),
            Liveness::Suspect => tracing::warn!(node = self.name, peer = name, "peer suspected"),
            Liveness::Down => tracing::warn!(node = self.name, peer = name, "peer down"),
        }
    }

    /// Whether every shard of this node can reach every shard of another, or is it.
    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        node == self.node || self.peers.get(&node).is_some_and(|peer| peer.is_connected())
    }

    /// Whether another node may be counted on, or is this one.
    pub(crate) fn counts_on(&self, node: NodeId) -> bool {
        let is_alive = |peer: &PeerState| peer.is_connected() && peer.liveness == Liveness::Alive;
        node == self.node || self.peers.get(&node).is_some_and(|peer| is_alive(&peer))
    }
}

/// The addresses of members that the cluster file gives as addresses. Names are noted when they are resolved.
pub(super) fn literal_addresses(members: &[Member]) -> BTreeSet<IpAddr> {
    members
        .iter()
        .filter_map(|member| member.address.parse::<SocketAddr>().ok())
        .map(|address| address.ip().to_canonical())
        .collect()
}

/// After which time without any connection a node calls others whose part it is to call, and those that only its cluster file names:
/// it may be that it is no member any more, and nobody calls it. Longer than a start or a moment of the network takes.
const ALONE_AFTER: Duration = Duration::from_secs(5);

/// Enough for every member of a large cluster to move a few times.
const MEMBER_ADDRESSES_MAX: usize = 1024;

/// Whoever was there, and is heard of no more for so long, is not: it would have called again within a second or two.
const THERE_FOR: Duration = Duration::from_secs(10);
