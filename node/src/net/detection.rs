//! The detector's way to the network: QUIC datagrams on the connections between nodes. Each carries its sender's clocks as well,
//! and so the nodes find out whose clock is wrong.
//!
//! One shard runs it for all. What arrives at another is handed over; what cannot be sent by one goes to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use driftless_ring::NodeId;

use super::findings::Finding;
use super::node_context::{NodeContext, ShardMessage};
use super::peers::Links;
use super::shard_context::ShardContext;
use crate::configurations::Configurations;
use crate::liveness::Liveness;
use crate::liveness::clocks::{self, ClockSettings, Clocks};
use crate::liveness::detector::{Detector, DetectorConfig, DetectorSettings, Output};
use crate::time::{Instant, Now};

/// The detector, the clocks, and what they have found since the engine was told.
pub(crate) struct Detection {
    detector: Detector,
    clocks: Clocks,
    members: Vec<NodeId>,
    changes: Vec<Finding>,
}

impl Detection {
    pub(crate) fn start(shared: &Arc<NodeContext>) -> Detection {
        let members = members(&shared.configurations(), shared.node);
        let settings = ClockSettings { off_max: shared.limits.clock_off_max };
        let clocks = Clocks::new(shared.node, members.iter().copied(), settings);
        let config = DetectorConfig {
            node: shared.node,
            incarnation: shared.lives.current(),
            members: members.clone(),
            settings: DetectorSettings::default(),
            seed: (shared.environment.random)(),
            metrics: shared.metrics.clone(),
        };
        Detection { detector: Detector::new(config, shared.clock.instant()), clocks, members, changes: Vec::new() }
    }

    /// Other versions of the cluster count.
    pub(crate) fn adopt(&mut self, now: Now, context: &ShardContext, configurations: &Configurations) {
        let (before, members) = (std::mem::take(&mut self.members), members(configurations, context.shared.node));
        self.detector.handle_members(now.instant, &members);
        self.clocks.handle_members(now, context.shared.node, &members);
        // What was thought of a node that is a member no more is not to be thought of it if it comes to be one again.
        for gone in before.iter().filter(|node| !members.contains(node)) {
            self.found(context, Finding::Liveness(*gone, Liveness::Alive));
        }
        self.members = members;
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: NodeId) {
        self.detector.handle_connected(now, peer);
    }

    pub(crate) fn datagram(&mut self, now: Now, context: &ShardContext, from: NodeId, bytes: &[u8]) {
        if !self.members.contains(&from) {
            return;
        }
        self.listen(context);
        match self.clocks.open(now, from, bytes) {
            Some(bytes) => self.detector.handle_datagram(now, from, bytes),
            None => {
                context.shared.metrics.protocol_violations.inc();
            }
        }
    }

    /// To be called in every turn, after the inputs: what has been waiting is read before anybody is blamed.
    pub(crate) fn turn(&mut self, now: Now, context: &ShardContext, links: &Links) {
        if self.detector.poll_timeout() <= now.instant {
            self.listen(context);
            self.detector.handle_timeout(now.instant);
        }
        self.look_at_clock(now, context);
        while let Some(output) = self.detector.poll_output() {
            match output {
                Output::Send { to, bytes } => Detection::send(context, links, to, self.clocks.seal(now, to, &bytes)),
                Output::Changed { peer, liveness } => {
                    context.shared.peer_liveness(peer, liveness);
                    self.found(context, Finding::Liveness(peer, liveness));
                }
            }
        }
    }

    fn look_at_clock(&mut self, now: Now, context: &ShardContext) {
        self.clocks.look(now);
        context.shared.publish_clock(self.clocks.standing());
        while let Some(output) = self.clocks.poll_output() {
            match output {
                clocks::Output::Bounds(bounds) => self.found(context, Finding::Clock(bounds)),
                clocks::Output::Changed(_) => context.shared.look_at_conditions(),
            }
        }
    }

    /// This shard's engine is told in this turn, the others' by message.
    fn found(&mut self, context: &ShardContext, finding: Finding) {
        self.changes.push(finding);
        for shard in 1..context.shared.shards.len() {
            context.shared.tell(shard as u16, ShardMessage::Found(finding));
        }
    }

    /// Looks which peers have spoken lately, on connections of whatever shard: before any of them may be blamed.
    fn listen(&mut self, context: &ShardContext) {
        for peer in &context.shared.peers {
            let at = peer.heard.load(Ordering::Relaxed);
            if at > 0 {
                self.detector.handle_heard(Instant(at), *peer.key());
            }
        }
    }

    /// What was found since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.detector.poll_timeout()
    }

    /// Sends from this shard, or from the first after it that has a connection.
    pub(crate) fn send(context: &ShardContext, links: &Links, to: NodeId, bytes: Bytes) {
        let next = context.shard + 1;
        if !links.send_datagram(to, bytes.clone()) && usize::from(next) < context.shared.shards.len() {
            context.shared.tell(next, ShardMessage::SendDatagram { to, bytes });
        }
    }
}

/// Whom this node watches, and whose clocks count for it. Nobody, as long as it is no member: nobody would answer.
fn members(configurations: &Configurations, me: NodeId) -> Vec<NodeId> {
    if configurations.member(me).is_none() {
        return Vec::new();
    }
    configurations.members().into_iter().map(|member| member.id).collect()
}
