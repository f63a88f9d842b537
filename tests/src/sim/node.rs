//! Nodes: one to three shards, an engine each, over one disk and one clock, driven as the real shell drives them.
//!
//! Each node has a detector as well, for all its shards; the first one runs it. What arrives is given to the shard that it
//! is for, as `net` would: to the one that owns the key, or, a reply, to the one that asked.
//!
//! A turn feeds a shard what has arrived, commits once, and drains the outputs; nothing else ever calls an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use driftless_antientropy::Tree;
use driftless_node::config::Limits;
use driftless_node::configurations::Configurations;
use driftless_node::engine::{ClientTag, Engine, EngineConfig, Output};
use driftless_node::liveness::Liveness;
use driftless_node::liveness::clocks::{self, ClockBounds, ClockSettings, Clocks, Stance};
use driftless_node::liveness::detector::{self, Detector, DetectorConfig};
use driftless_node::metrics::Metrics;
use driftless_node::peer::{Body, Incarnation, Message, RequestId};
use driftless_node::planted::{Bug, Planted};
use driftless_node::replica::record::RecordKey;
use driftless_node::replica::store::BatchSeq;
use driftless_node::route;
use driftless_node::time::{Instant, Now};
use driftless_proto::client::Request;
use driftless_proto::{ContextKeys, Dot, Header, Topology};
use driftless_ring::{NodeId, PartitionId};
use rand::Rng;
use rand::rngs::StdRng;

use super::agreement::{Agreed, Agreement, Heard};
use super::clock::Clock;
use super::counts::Counts;
use super::history::Slot;
use super::schedule::Micros;
use super::shape;
use super::shard::Shard;
use super::store::SimStore;

/// One node, running or not.
pub struct Node {
    /// Its id on the ring.
    pub id: NodeId,
    /// Its disk.
    pub store: SimStore,
    /// Its clocks.
    pub clock: Clock,
    /// Which life this is, or the last one was.
    pub life: u64,
    /// Whether it stands still.
    pub paused: bool,
    /// Whether it will never run again.
    pub is_dead: bool,
    /// Counts over all its lives.
    pub metrics: Arc<Metrics>,
    /// Keys of hints that were removed and whose removal is not durable yet.
    pub removed: BTreeSet<Slot>,
    /// What the next process will find in the place of its disk.
    pub found: Found,
    /// Requests that came to one of its shards and were for another.
    pub handed_over: u64,
    /// The sync under way.
    pub syncing: bool,
    /// Whether the sync under way, or else the next one, will fail.
    pub sync_fails: bool,
    /// The shortest and longest duration of a sync of its disk.
    pub sync: (Micros, Micros),
    /// What had been applied when the last sync was done, if that is more than it covered.
    pub noted_late: Option<BatchSeq>,
    /// Its shards; none while it is down.
    pub shards: Vec<Shard>,
    detector: Option<Detector>,
    /// Where members come and go while nodes run.
    pub agreement: Option<Agreement>,
    /// The versions that count for it.
    pub configurations: Option<Arc<Configurations>>,
    /// Which shard of a peer waits for the reply to a request of its, if that is not the first.
    returns: BTreeMap<(NodeId, RequestId), u16>,
    clocks: Option<Clocks>,
    /// What the engine is told of a peer, whatever the detector thinks.
    misjudged: BTreeMap<NodeId, Liveness>,
}

/// Whose disk a process finds when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The one that the process before it has left, however it ended.
    Own,
    /// An earlier durable state of it: a restored backup.
    Backup,
    /// A copy made of the directory while an earlier process wrote to it.
    Copy,
}

impl Found {
    /// The mistake that a process makes which starts so: some belong to one kind of start.
    fn planted(self, planted: &Planted) -> Planted {
        let at = match planted.planted() {
            Some(Bug::ActorKeptAfterCrash) => Some(Found::Own),
            Some(Bug::ActorKeptAfterRollback) => Some(Found::Backup),
            Some(Bug::ActorKeptInCopy) => Some(Found::Copy),
            _ => None,
        };
        if at.is_none_or(|at| at == self) { planted.clone() } else { Planted::default() }
    }
}

/// What can arrive at a node between two turns.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks.
    Client {
        /// Who wants the answer.
        from: ClientTag,
        /// Until when.
        deadline: Instant,
        /// What.
        request: Request,
    },
    /// A peer speaks.
    Peer {
        /// Which.
        from: NodeId,
        /// The shard of the peer that asks; for a reply, the shard of this node that waits for it.
        shard: u16,
        /// What it says.
        message: Message,
    },
    /// There is a connection.
    Up(NodeId),
    /// There is none any more.
    Lost(NodeId),
    /// A datagram of a peer's detector.
    Datagram {
        /// Which peer.
        from: NodeId,
        /// What it says.
        bytes: Bytes,
    },
    /// Something makes this node think so of a peer; or nothing any more.
    Misjudged(NodeId, Option<Liveness>),
    /// The detector, or what misleads it, thinks so of a peer.
    Liveness(NodeId, Liveness),
    /// Nothing misleads the detector any more: what it thinks of a peer counts, as it thinks when this is taken in.
    Understood(NodeId),
    /// What the wall clock may show.
    Clock(Option<ClockBounds>),
    /// A sync is done that covers this batch of a shard.
    Synced(u16, BatchSeq),
    /// The machine of the members is told something.
    Heard(Heard),
    /// Other versions of the ring count.
    Configurations(Arc<Configurations>),
}

/// What came of a turn.
#[derive(Default)]
pub struct Turn {
    /// What the engine wants done.
    pub outputs: Vec<Output>,
    /// What the machine of the members wants done.
    pub agreed: Agreed,
    /// What the detector sends.
    pub datagrams: Vec<(NodeId, Bytes)>,
    /// What it has changed its mind about.
    pub opinions: Vec<(NodeId, Liveness)>,
    /// Whether it has found its own clock to be off.
    pub found_clock_off: bool,
    /// Inputs that it has not been given.
    pub left: usize,
    /// Bytes that it has read from its store, and those of the largest record among them.
    pub read: (usize, usize),
    /// What it has stamped, each with the state that it left; retries as well.
    pub stamps: Vec<(RecordKey, Dot, Header)>,
}

impl Node {
    /// A node with an empty disk, not yet started.
    pub fn new(id: NodeId, sync: (Micros, Micros)) -> Node {
        Node {
            id,
            sync,
            store: SimStore::default(),
            clock: Clock { origin: 0, skew_ms: 0 },
            life: 0,
            paused: false,
            is_dead: false,
            metrics: Arc::new(Metrics::default()),
            removed: BTreeSet::new(),
            found: Found::Own,
            handed_over: 0,
            syncing: false,
            sync_fails: false,
            noted_late: None,
            shards: Vec::new(),
            detector: None,
            agreement: None,
            configurations: None,
            returns: BTreeMap::new(),
            clocks: None,
            misjudged: BTreeMap::new(),
        }
    }

    /// A new life, with fresh randomness and a monotonic clock of another origin.
    pub fn start(
        &mut self,
        at: Micros,
        topology: &Arc<Topology>,
        keys: &ContextKeys,
        limits: Limits,
        planted: &Planted,
        rng: &mut StdRng,
    ) {
        assert!(!self.runs(), "a node starts only when it is down");
        self.store.open();
        self.clock.origin = rng.random_range(0..1 << 40);
        let configurations = match &mut self.agreement {
            Some(agreement) => agreement.start(self.clock.now(at).instant, topology, planted.clone(), rng.random()),
            None => Arc::new(Configurations::of_file(Arc::clone(topology))),
        };
        let members: Vec<NodeId> = configurations.members().iter().map(|member| member.id).collect();
        let settings = ClockSettings { off_max: limits.clock_off_max };
        self.clocks = Some(Clocks::new(self.id, members.iter().copied(), settings));
        let now = self.clock.now(at);
        let shards = configurations.shards_of(self.id).unwrap_or(1);
        for shard in 0..shards {
            let config = EngineConfig {
                node: self.id,
                shard,
                configurations: configurations.clone(),
                context_keys: keys.clone(),
                limits: limits.clone(),
                metrics: Arc::clone(&self.metrics),
                seed: rng.random(),
                planted: self.found.planted(planted),
            };
            let counts = Counts::of(self.id, configurations.topology());
            self.shards.push(Shard::new(Engine::new(config, self.store.clone(), now), counts));
        }
        self.configurations = Some(configurations);
        let config = DetectorConfig {
            node: self.id,
            incarnation: Incarnation { starts: self.life + 1, nonce: 0 },
            members,
            settings: shape::detector_settings(),
            seed: rng.random(),
            metrics: Arc::clone(&self.metrics),
        };
        self.detector = Some(Detector::new(config, now.instant));
    }

    /// The process is gone; what becomes of the disk is the caller's business.
    pub fn stop(&mut self) {
        self.shards.clear();
        self.detector = None;
        if let Some(agreement) = &mut self.agreement {
            agreement.stop();
        }
        self.returns.clear();
        self.clocks = None;
        self.misjudged.clear();
        self.removed.clear();
        self.life += 1;
        self.paused = false;
        self.syncing = false;
        self.sync_fails = false;
        self.noted_late = None;
    }

    /// Whether the process runs, even if it stands still.
    pub fn runs(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Leaves something for the shards that it is for, and answers which; a process that is down never learns of it.
    pub fn receive(&mut self, input: Input) -> Range<usize> {
        let (Some(configurations), Some(_)) = (&self.configurations, &self.detector) else { return 0..0 };
        let all = 0..self.shards.len();
        let landing = |number: u64| (number % all.len() as u64) as u16;
        let only = |shard: u16| usize::from(shard)..usize::from(shard) + 1;
        let has_several = all.len() > 1;
        let (shards, input) = match input {
            Input::Client { from, deadline, request } if has_several => {
                let landed = landing(from.connection);
                let owner = route::of_client(configurations, self.id, &request).unwrap_or(landed);
                self.handed_over += u64::from(owner != landed);
                (only(owner), Input::Client { from, deadline, request })
            }
            Input::Peer { from, shard, message } => {
                let owner = match &message.body {
                    Body::Request { request, .. } => {
                        if shard > 0 {
                            self.returns.insert((from, message.id), shard);
                        }
                        let landed = landing(shard.into());
                        let owner = if has_several { route::of_peer(configurations, self.id, request) } else { None };
                        let owner = owner.unwrap_or(landed);
                        self.handed_over += u64::from(owner != landed);
                        owner
                    }
                    Body::Reply(_) => landing(shard.into()),
                };
                (only(owner), Input::Peer { from, shard, message })
            }
            Input::Synced(shard, up_to) => (only(shard), Input::Synced(shard, up_to)),
            Input::Client { .. } | Input::Datagram { .. } | Input::Heard(_) => (only(0), input),
            Input::Misjudged(peer, Some(liveness)) => {
                self.misjudged.insert(peer, liveness);
                (all, Input::Liveness(peer, liveness))
            }
            Input::Misjudged(peer, None) => match self.misjudged.remove(&peer) {
                Some(_) => (all, Input::Understood(peer)),
                None => return 0..0,
            },
            Input::Up(_)
            | Input::Lost(_)
            | Input::Liveness(..)
            | Input::Understood(_)
            | Input::Configurations(_)
            | Input::Clock(_) => (all, input),
        };
        match &mut self.shards[shards.clone()] {
            [only] => only.receive(input),
            several => several.iter_mut().for_each(|shard| shard.receive(input.clone())),
        }
        shards
    }

    /// Which shard of a peer this is for: the one that asked, if it is a reply, or else whichever the key belongs to.
    pub fn shard_of_asker(&mut self, to: NodeId, message: &Message) -> Option<u16> {
        // Of an answer that is given twice only the first is known to be for somebody.
        matches!(message.body, Body::Reply(_)).then(|| self.returns.remove(&(to, message.id)).unwrap_or(0))
    }

    /// One turn of the shell of a shard.
    pub fn turn(&mut self, at: Micros, shard: usize) -> Turn {
        let mut turn = Turn::default();
        let (Some(detector), Some(clocks)) = (&mut self.detector, &mut self.clocks) else { return turn };
        let now = self.clock.now(at);
        self.store.take_reads();
        let mut heard = Vec::new();
        self.shards[shard].take_in(now, detector, clocks, &mut heard);
        if shard == DETECTION && detector.poll_timeout() <= now.instant {
            detector.handle_timeout(now.instant);
        }
        while shard == DETECTION
            && let Some(output) = detector.poll_output()
        {
            match output {
                detector::Output::Send { to, bytes } => turn.datagrams.push((to, clocks.seal(now, to, &bytes))),
                detector::Output::Changed { peer, liveness } => {
                    turn.opinions.push((peer, liveness));
                    if !self.misjudged.contains_key(&peer) {
                        for (number, other) in self.shards.iter_mut().enumerate() {
                            match number == shard {
                                true => other.engine().handle_liveness(now, peer, liveness),
                                false => other.receive(Input::Liveness(peer, liveness)),
                            }
                        }
                    }
                }
            }
        }
        if shard == DETECTION {
            clocks.look(now);
        }
        while let Some(output) = clocks.poll_output() {
            match output {
                clocks::Output::Bounds(bounds) => {
                    for (number, other) in self.shards.iter_mut().enumerate() {
                        match number == shard {
                            true => other.engine().handle_clock(bounds),
                            false => other.receive(Input::Clock(bounds)),
                        }
                    }
                }
                clocks::Output::Changed(standing) => turn.found_clock_off |= standing.stance == Stance::Off,
            }
        }
        (turn.outputs, turn.left) = self.shards[shard].end_turn(now);
        self.agree(now, shard, heard, &mut turn);
        turn.read = self.store.take_reads();
        turn.stamps = self.shards[shard].engine().take_stamps();
        turn
    }

    /// The machine of the members, which runs on the first shard, hears how far the shards are, and what was said.
    fn agree(&mut self, now: Now, shard: usize, heard: Vec<Heard>, turn: &mut Turn) {
        let Some(agreement) = &mut self.agreement else { return };
        let is_news = agreement.note(shard, self.shards[shard].engine().progress());
        turn.outputs.extend(std::iter::from_fn(|| self.shards[shard].engine().poll_output()));
        if shard != DETECTION {
            turn.agreed.is_for_the_first = is_news;
            return;
        }
        let mut heard = heard;
        turn.outputs.retain(|output| match output {
            Output::Behind(peer) => {
                heard.push(Heard::Behind(*peer));
                false
            }
            _ => true,
        });
        turn.agreed = agreement.turn(now.instant, heard);
        let Some(configurations) = &turn.agreed.configurations else { return };
        let members: Vec<NodeId> = configurations.members().iter().map(|member| member.id).collect();
        if let (Some(detector), Some(clocks)) = (&mut self.detector, &mut self.clocks) {
            detector.handle_members(now.instant, &members);
            clocks.handle_members(now, self.id, &members);
        }
        self.configurations = Some(configurations.clone());
        for shard in &mut self.shards {
            shard.receive(Input::Configurations(configurations.clone()));
        }
    }

    /// The records that it has set apart.
    pub fn damaged(&self) -> Vec<Bytes> {
        self.shards.iter().flat_map(Shard::damaged).map(Bytes::copy_from_slice).collect()
    }

    /// The trees of all engines; `None` for one that is still being built.
    pub fn trees(&self) -> Vec<(PartitionId, Option<Tree>)> {
        self.shards.iter().flat_map(Shard::trees).collect()
    }

    /// When a shard wants to be woken, in the world's time.
    pub fn wakes_at(&self, shard: usize) -> Option<Micros> {
        let detector = self.detector.as_ref().filter(|_| shard == DETECTION).map(Detector::poll_timeout);
        let agreement = self.agreement.as_ref().filter(|_| shard == DETECTION).and_then(Agreement::poll_timeout);
        let due = [self.shards.get(shard)?.poll_timeout(), detector, agreement].into_iter().flatten().min()?;
        Some(self.clock.world_time(due))
    }

    /// What the engine has been told of a peer.
    pub fn liveness(&self, peer: NodeId) -> Option<Liveness> {
        self.misjudged.get(&peer).copied().or_else(|| self.detector.as_ref()?.liveness(peer))
    }
}

/// The shard that runs a node's detector.
const DETECTION: usize = 0;
