//! One shard of a node: an engine, and what waits for its next turn.

use std::collections::VecDeque;

use driftless_antientropy::{Held, Tree};
use driftless_node::engine::{Engine, Output};
use driftless_node::liveness::clocks::Clocks;
use driftless_node::liveness::detector::Detector;
use driftless_node::peer::{Body, Request};
use driftless_node::replica::store::BatchSeq;
use driftless_node::time::Now;
use driftless_ring::PartitionId;

use super::agreement::Heard;
use super::node::Input;
use super::schedule::Micros;
use super::store::SimStore;

/// A shard of a process that runs.
pub struct Shard {
    engine: Engine<SimStore>,
    inbox: VecDeque<Input>,
    /// Whether a turn is planned.
    pub turn_planned: bool,
    /// When its timer is planned for.
    pub timer_planned: Option<Micros>,
    /// The batch that the next sync of the node is to cover.
    pub wish: Option<BatchSeq>,
}

impl Shard {
    /// Has just started.
    pub fn new(engine: Engine<SimStore>) -> Shard {
        Shard { engine, inbox: VecDeque::new(), turn_planned: false, timer_planned: None, wish: None }
    }

    /// Leaves something for the next turn.
    pub fn receive(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    /// What waits for its next turn.
    pub fn inbox(&self) -> impl Iterator<Item = &Input> {
        self.inbox.iter()
    }

    /// Whether something waits for a turn.
    pub fn has_input(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Gives the engine what has arrived, as far as its turn goes; the detector hears of it as well. What is about members is left in `heard`.
    pub fn take_in(&mut self, now: Now, detector: &mut Detector, clocks: &mut Clocks, heard: &mut Vec<Heard>) {
        let engine = &mut self.engine;
        while !engine.is_full()
            && let Some(input) = self.inbox.pop_front()
        {
            match input {
                Input::Client { from, deadline, request } => {
                    engine.handle_client(now, from, now.instant, deadline, request);
                }
                Input::Peer { from, message, .. } => {
                    detector.handle_heard(now.instant, from);
                    match message.body {
                        Body::Request { request: Request::Membership(letter), .. } => {
                            heard.push(Heard::Letter(from, *letter));
                        }
                        _ => engine.handle_peer(now, from, message),
                    }
                }
                Input::Heard(news) => heard.push(news),
                Input::Configurations(configurations) => engine.handle_configurations(now, configurations),
                Input::Datagram { from, bytes } => {
                    let bytes = clocks.open(now, from, &bytes).expect("nodes send what they can read");
                    if detector.liveness(from).is_some() {
                        detector.handle_datagram(now, from, bytes);
                    }
                }
                Input::Clock(bounds) => engine.handle_clock(bounds),
                Input::Up(peer) => {
                    engine.handle_peer_up(now, peer);
                    if detector.liveness(peer).is_some() {
                        detector.handle_connected(now.instant, peer);
                    }
                    heard.push(Heard::Up(peer));
                }
                Input::Lost(peer) => {
                    engine.handle_peer_lost(now, peer);
                    heard.push(Heard::Lost(peer));
                }
                Input::Liveness(peer, liveness) => engine.handle_liveness(now, peer, liveness),
                Input::Understood(peer) => {
                    if let Some(liveness) = detector.liveness(peer) {
                        engine.handle_liveness(now, peer, liveness);
                    }
                }
                Input::Synced(_, up_to) => engine.handle_synced(now, up_to),
                Input::Misjudged(..) => unreachable!("a node keeps this to itself and tells its shards what to think"),
            }
        }
    }

    /// The engine, between taking in and ending a turn.
    pub fn engine(&mut self) -> &mut Engine<SimStore> {
        &mut self.engine
    }

    /// Ends a turn. Answers what the engine wants done, and how many inputs are left for the next.
    pub fn end_turn(&mut self, now: Now) -> (Vec<Output>, usize) {
        if self.engine.poll_timeout().is_some_and(|due| due <= now.instant) {
            self.engine.handle_timeout(now);
        }
        self.engine.commit(now);
        (std::iter::from_fn(|| self.engine.poll_output()).collect(), self.inbox.len())
    }

    /// The records that it has set apart.
    pub fn damaged(&self) -> impl Iterator<Item = &[u8]> {
        self.engine.damaged()
    }

    /// Its trees; `None` for one that is still being built.
    pub fn trees(&self) -> impl Iterator<Item = (PartitionId, Option<Tree>)> + '_ {
        let tree = |held: Held<'_>| match held {
            Held::Tree(tree) => Some(tree.clone()),
            Held::Rebuilding | Held::Nothing => None,
        };
        self.engine.trees().map(move |(partition, held)| (partition, tree(held)))
    }

    /// When the engine wants to be woken.
    pub fn poll_timeout(&self) -> Option<driftless_node::time::Instant> {
        self.engine.poll_timeout()
    }
}
