//! What happens between two lines of a script: processes start, connect, take their turns, and are handed what is under
//! way.

use std::collections::VecDeque;

use driftless_node::engine::Output;
use driftless_node::liveness::Liveness;
use driftless_node::peer::Message;
use driftless_ring::NodeId;
use driftless_testkit::context_keys;

use crate::gallery::story::{Fate, Lane, NODES};
use crate::gallery::words::{self, Said};
use crate::sim::node::Input;
use crate::sim::observer;

use super::{Cargo, Packet, STEPS_MAX, World, index};

impl World {
    pub(super) fn launch(&mut self, node: usize) {
        self.nodes[node].start(
            self.at,
            &self.topology,
            &context_keys(),
            self.limits.clone(),
            &self.planted,
            &mut self.rng,
        );
        self.turn(node);
    }

    pub(super) fn connect_all(&mut self) {
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                if self.nodes[one].runs() && self.nodes[other].runs() && self.connected.insert((one, other)) {
                    for (here, there) in [(one, other), (other, one)] {
                        let peer = self.nodes[there].id;
                        self.nodes[here].receive(Input::Up(peer));
                        // Detectors hear nothing here: what they think must not matter.
                        self.nodes[here].receive(Input::Misjudged(peer, Some(Liveness::Alive)));
                        self.turn(here);
                    }
                }
            }
        }
    }

    pub(super) fn disconnect(&mut self, one: usize, other: usize) {
        if self.connected.remove(&(one.min(other), one.max(other))) {
            for (here, there) in [(one, other), (other, one)] {
                let peer = self.nodes[there].id;
                self.nodes[here].receive(Input::Lost(peer));
                self.turn(here);
            }
        }
    }

    /// One turn of a node's shell, and as many more as its syncs make necessary.
    pub(super) fn turn(&mut self, node: usize) {
        for _ in 0..STEPS_MAX {
            if !self.nodes[node].runs() {
                return;
            }
            let turn = self.nodes[node].turn(self.at, 0);
            self.learn(node);
            let mut synced = None;
            for output in turn.outputs {
                match output {
                    Output::Send { to, message } => self.send(node, to, message),
                    Output::Reply { to, response } => {
                        let (number, response) = (to.request, Box::new(response));
                        let said = Said::Words(words::response_text(&response));
                        let (from, to) = (Lane::Node(node), self.asked[number as usize].by);
                        let cargo = Cargo::Answer(number, response);
                        self.under_way.push_back(Packet { from, to, cargo, said, held: false });
                    }
                    Output::Behind(_) => {}
                    Output::Sync(_) => synced = Some(self.nodes[node].store.applied()),
                    Output::Halt(reason) => self.check(false, &format!("{} goes on: {reason}", NODES[node])),
                }
            }
            let Some(up_to) = synced else { return };
            self.nodes[node].store.sync_up_to(up_to);
            self.nodes[node].receive(Input::Synced(0, up_to));
        }
        self.check(false, "syncs come to an end");
    }

    /// Names what the node has stamped: whatever its batches hold that nobody has seen before.
    pub(super) fn learn(&mut self, node: usize) {
        for batch in self.nodes[node].store.take_log() {
            for (key, value) in &batch.changes {
                let Some(value) = value else { continue };
                if let Some((_, siblings)) = observer::decode(key, value).or_else(|| observer::decode_hint(key, value))
                {
                    self.names.learn(node, &siblings);
                }
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let to = self.nodes.iter().position(|node| node.id == to).expect("nodes speak to members");
        if !self.connected.contains(&(from.min(to), from.max(to))) {
            return;
        }
        self.names.note(&message);
        let said = self.names.message(&message);
        let cargo = Cargo::Peer(Box::new(message.to_wire(self.nodes[from].clock.now(self.at).instant)));
        self.under_way.push_back(Packet { from: Lane::Node(from), to: Lane::Node(to), cargo, said, held: false });
    }

    pub(super) fn hand_over(&mut self, at: usize) {
        let Packet { from, to, cargo, said, held } = self.under_way.remove(at).expect("was found there");
        self.tell(from, to, said, if held { Fate::Late } else { Fate::Arrives });
        match cargo {
            Cargo::Answer(number, response) => {
                self.answers.entry(number).or_insert(*response);
            }
            Cargo::Peer(wire) => {
                let from = self.nodes[index(from)].id;
                let node = &mut self.nodes[index(to)];
                let message = Message::from_wire(*wire, node.clock.now(self.at).instant);
                node.receive(Input::Peer { from, shard: 0, message });
                self.turn(index(to));
            }
        }
    }

    pub(super) fn lose_where(&mut self, is_lost: impl Fn(&Packet) -> bool) {
        let under_way = std::mem::take(&mut self.under_way);
        let (lost, rest): (VecDeque<_>, VecDeque<_>) = under_way.into_iter().partition(is_lost);
        self.under_way = rest;
        for packet in lost {
            self.tell(packet.from, packet.to, packet.said, Fate::Lost);
        }
    }
}
