//! The detector's way to the network: QUIC datagrams on the connections between nodes.
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
use crate::liveness::detector::{Detector, DetectorConfig, DetectorSettings, Output};
use crate::time::Instant;

/// The detector and what it has found since the engine was told.
pub(crate) struct Detection {
    detector: Detector,
    changes: Vec<(NodeId, Liveness)>,
}

impl Detection {
    /// The shard that runs the detector.
    pub(crate) const SHARD: u16 = 0;

    pub(crate) fn start(shared: &Arc<Shared>) -> Detection {
        let config = DetectorConfig {
            node: shared.node,
            incarnation: shared.incarnation,
            members: shared.topology.ring().members().iter().map(|member| member.id).collect(),
            settings: DetectorSettings::default(),
            seed: (shared.surroundings.random)(),
            metrics: shared.metrics.clone(),
        };
        Detection { detector: Detector::new(config, shared.clock.instant()), changes: Vec::new() }
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: NodeId) {
        self.detector.handle_connected(now, peer);
    }

    pub(crate) fn datagram(&mut self, now: Instant, local: &Local, from: NodeId, bytes: &[u8]) {
        self.listen(local);
        self.detector.handle_datagram(now, from, bytes);
    }

    /// To be called in every turn, after the inputs: what has been waiting is read before anybody is blamed.
    pub(crate) fn turn(&mut self, now: Instant, local: &Local) {
        if self.detector.poll_timeout() <= now {
            self.listen(local);
            self.detector.handle_timeout(now);
        }
        while let Some(output) = self.detector.poll_output() {
            match output {
                Output::Send { to, bytes } => Detection::send(local, to, bytes),
                Output::Changed { peer, liveness } => {
                    local.shared.peer_liveness(peer, liveness);
                    self.changes.push((peer, liveness));
                }
            }
        }
    }

    /// Looks who has spoken lately, on connections of whatever shard: before anybody may be blamed.
    fn listen(&mut self, local: &Local) {
        for peer in &local.shared.peers {
            let at = peer.heard.load(Ordering::Relaxed);
            if at > 0 {
                self.detector.handle_heard(Instant(at), *peer.key());
            }
        }
    }

    /// What the detector has changed its mind about since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<(NodeId, Liveness)> {
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
