//! The nodes that this one hears, and what they said last.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_proto::ProtocolVersion;
use driftless_proto::membership::Moving;
use driftless_ring::NodeId;

use super::letter::{Candidate, News};
use crate::time::Instant;

/// All of them, members or not.
#[derive(Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Default)]
struct Peer {
    /// The version of the protocol that it is connected by, if it is.
    speaks: Option<ProtocolVersion>,
    heard: Option<Heard>,
    /// That it goes by another history, in words.
    apart: Option<String>,
    /// When it may be sent records again that it has not asked for.
    records_from: Instant,
    /// When it may be asked for records again.
    want_from: Instant,
}

/// What a node said last.
#[derive(Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) version: u64,
    pub(super) digest: u128,
    pub(super) candidate: Candidate,
    pub(super) moving: Moving,
}

impl Peers {
    /// There is a connection, or there is none any more.
    pub(super) fn set_connected(
        &mut self,
        node: NodeId,
        is_member: impl Fn(NodeId) -> bool,
        speaks: Option<ProtocolVersion>,
    ) {
        if let Some(peer) = self.entry(node, is_member) {
            peer.speaks = speaks;
        }
    }

    /// The version of the protocol by which a node is connected, if it is.
    pub(super) fn speaks(&self, node: NodeId) -> Option<ProtocolVersion> {
        self.peers.get(&node)?.speaks
    }

    pub(super) fn take_in(&mut self, now: Instant, from: NodeId, news: &News, is_member: impl Fn(NodeId) -> bool) {
        let News { version, digest, moving, .. } = *news;
        if let Some(peer) = self.entry(from, is_member) {
            let candidate = news.sender.clone();
            peer.heard = Some(Heard { at: now, version, digest, candidate, moving });
        }
    }

    /// What is found of the history of a node that is there. Whether that is news.
    pub(super) fn set_apart(&mut self, node: NodeId, what: Option<String>) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let what = what.filter(|_| peer.speaks.is_some());
        let is_news = peer.apart != what;
        peer.apart = what;
        is_news
    }

    /// Those who go by another history.
    pub(super) fn apart(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.apart.as_deref()?)))
    }

    pub(super) fn is_apart(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.apart.is_some())
    }

    pub(super) fn connected(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.speaks.is_some()).map(|(node, _)| *node).collect()
    }

    /// What a node has said since this one started.
    pub(super) fn heard(&self, node: NodeId) -> Option<&Heard> {
        self.peers.get(&node)?.heard.as_ref()
    }

    /// Whether a node is there now.
    pub(super) fn is_heard(&self, now: Instant, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        let is_recent = peer.heard.as_ref().is_some_and(|heard| now.since(heard.at) <= HEARD_FOR);
        peer.speaks.is_some() && is_recent
    }

    /// Those who are there now.
    pub(super) fn there(&self, now: Instant) -> impl Iterator<Item = (NodeId, &Heard)> {
        let there = self.peers.iter().filter(move |(node, _)| self.is_heard(now, **node));
        there.filter_map(|(node, peer)| Some((*node, peer.heard.as_ref()?)))
    }

    /// Who has called and is there, and could become a member: a node that goes by another history takes no record of this one.
    pub(super) fn candidates(&self, now: Instant, is_member: impl Fn(NodeId) -> bool) -> Vec<&Candidate> {
        let candidates = self.peers.iter().filter(|(node, _)| !is_member(**node) && self.is_heard(now, **node));
        candidates
            .filter(|(_, peer)| peer.apart.is_none())
            .filter_map(|(_, peer)| Some(&peer.heard.as_ref()?.candidate))
            .collect()
    }

    /// Whether a node may be sent records that it has not asked for; then not again for a while.
    pub(super) fn may_push(&mut self, now: Instant, node: NodeId) -> bool {
        may(now, self.peers.get_mut(&node).map(|peer| &mut peer.records_from), PUSH_PAUSE)
    }

    /// Whether a node may be asked for records; then not again for a while.
    pub(super) fn may_want(&mut self, now: Instant, node: NodeId) -> bool {
        may(now, self.peers.get_mut(&node).map(|peer| &mut peer.want_from), WANT_PAUSE)
    }

    /// Of nodes that are no members only so many are known: anybody with a certificate may call.
    fn entry(&mut self, node: NodeId, is_member: impl Fn(NodeId) -> bool) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) && !is_member(node) {
            let strangers = self.peers.iter().filter(|(other, _)| !is_member(**other));
            if strangers.count() >= CANDIDATES_MAX {
                let gone = self.peers.iter().find(|(other, peer)| !is_member(**other) && peer.speaks.is_none());
                let gone = gone.map(|(other, _)| *other)?;
                self.peers.remove(&gone);
            }
        }
        Some(self.peers.entry(node).or_default())
    }
}

fn may(now: Instant, from: Option<&mut Instant>, pause: Duration) -> bool {
    let Some(from) = from.filter(|from| **from <= now) else { return false };
    *from = now + pause;
    true
}

/// Most nodes that are no members and are known all the same.
const CANDIDATES_MAX: usize = 64;

/// A node that has said nothing for so long is not there: three times what passes between two of its news, and a little.
pub(super) const HEARD_FOR: Duration = Duration::from_millis(3_500);

/// Between records that were not asked for.
const PUSH_PAUSE: Duration = Duration::from_secs(1);

/// Between two requests for records.
const WANT_PAUSE: Duration = Duration::from_millis(50);
