//! The detector's way to the network: QUIC datagrams on the connections between nodes. Each carries its sender's clocks as well,
//! and so the nodes find out whose clock is wrong.
//!
//! One shard runs it for all. What arrives at another is handed over; what cannot be sent by one goes to the next.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use driftless_ring::NodeId;
use quinn::Connection;

use super::local::{Input, Local};
use super::shared::{Note, Shared};
use crate::liveness::Liveness;
use crate::liveness::clocks::{self, ClockBounds, ClockSettings, Clocks};
use crate::liveness::detector::{Detector, DetectorConfig, DetectorSettings, Output};
use crate::time::{Instant, Now};

/// The detector, the clocks, and what they have found since the engine was told.
pub(crate) struct Detection {
    detector: Detector,
    clocks: Clocks,
    changes: Vec<Finding>,
}

/// What engines are told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finding {
    /// What is thought of a peer now.
    Liveness(NodeId, Liveness),
    /// What the own clock may show.
    Clock(Option<ClockBounds>),
}

impl Detection {
    /// The shard that runs the detector.
    pub(crate) const SHARD: u16 = 0;

    pub(crate) fn start(shared: &Arc<Shared>) -> Detection {
        let members = shared.topology.ring().members().iter().map(|member| member.id);
        let settings = ClockSettings { off_max: shared.limits.clock_off_max };
        let clocks = Clocks::new(shared.node, members, settings);
        let config = DetectorConfig {
            node: shared.node,
            incarnation: shared.lives.current(),
            members: shared.topology.ring().members().iter().map(|member| member.id).collect(),
            settings: DetectorSettings::default(),
            seed: (shared.surroundings.random)(),
            metrics: shared.metrics.clone(),
        };
        Detection { detector: Detector::new(config, shared.clock.instant()), clocks, changes: Vec::new() }
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: NodeId) {
        self.detector.handle_connected(now, peer);
    }

    pub(crate) fn datagram(&mut self, now: Now, local: &Local, from: NodeId, bytes: &[u8]) {
        self.listen(local);
        match self.clocks.open(now, from, bytes) {
            Some(bytes) => self.detector.handle_datagram(now.instant, from, bytes),
            None => {
                local.shared.metrics.protocol_violations.inc();
            }
        }
    }

    /// To be called in every turn, after the inputs: what has been waiting is read before anybody is blamed.
    pub(crate) fn turn(&mut self, now: Now, local: &Local) {
        if self.detector.poll_timeout() <= now.instant {
            self.listen(local);
            self.detector.handle_timeout(now.instant);
        }
        self.look_at_clock(now, local);
        while let Some(output) = self.detector.poll_output() {
            match output {
                Output::Send { to, bytes } => Detection::send(local, to, self.clocks.seal(now, to, &bytes)),
                Output::Changed { peer, liveness } => {
                    local.shared.peer_liveness(peer, liveness);
                    self.found(local, Finding::Liveness(peer, liveness));
                }
            }
        }
    }

    fn look_at_clock(&mut self, now: Now, local: &Local) {
        self.clocks.look(now);
        local.shared.publish_clock(self.clocks.standing());
        while let Some(output) = self.clocks.poll_output() {
            match output {
                clocks::Output::Bounds(bounds) => self.found(local, Finding::Clock(bounds)),
                clocks::Output::Changed(standing) => local.shared.log_clock(standing),
            }
        }
    }

    /// This shard's engine is told in this turn, the others' by note.
    fn found(&mut self, local: &Local, finding: Finding) {
        self.changes.push(finding);
        for shard in 1..local.shared.shards.len() {
            local.shared.tell(shard as u16, Note::Found(finding));
        }
    }

    /// Looks which peers have spoken lately, on connections of whatever shard: before any of them may be blamed.
    fn listen(&mut self, local: &Local) {
        for peer in &local.shared.peers {
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
    pub(crate) fn send(local: &Local, to: NodeId, bytes: Bytes) {
        let next = local.shard + 1;
        if !local.links.borrow().send_datagram(to, bytes.clone()) && usize::from(next) < local.shared.shards.len() {
            local.shared.tell(next, Note::SendDatagram { to, bytes });
        }
    }
}

/// Takes in a peer's datagrams until the connection ends.
pub(crate) async fn read(local: Rc<Local>, connection: Connection, from: NodeId) {
    while let Ok(bytes) = connection.read_datagram().await {
        if local.shard == Detection::SHARD {
            local.push(Input::Datagram { from, bytes });
        } else {
            // Beyond the bound it is lost, as on a lossy network.
            local.shared.hand_over(Detection::SHARD, Note::Datagram { from, bytes });
        }
    }
}
