//! Nodes: an engine each, over a disk and a clock of its own, driven as the real shell drives it.
//!
//! Each has a detector as well, as a node has one for its shards.
//!
//! A turn feeds what has arrived, commits once, and drains the outputs; nothing else ever calls an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_antientropy::{Held, Tree};
use driftless_node::config::{AaeLimits, Limits};
use driftless_node::engine::{ClientTag, Engine, EngineConfig, Output};
use driftless_node::liveness::Liveness;
use driftless_node::liveness::clocks::{self, ClockSettings, Clocks, Stance};
use driftless_node::liveness::detector::{self, Detector, DetectorConfig, DetectorSettings};
use driftless_node::metrics::Metrics;
use driftless_node::peer::{Incarnation, Message};
use driftless_node::planted::{Bug, Planted};
use driftless_node::replica::store::BatchSeq;
use driftless_node::time::Instant;
use driftless_proto::causality::ContextKey;
use driftless_proto::client::Request;
use driftless_proto::{BucketDefinition, BucketId, BucketName, Conflict, ContextKeys, Durability, Quorum, Topology};
use driftless_ring::{Member, NodeId, PartitionId, Partitions, Ring, RingSpec};
use rand::Rng;
use rand::rngs::StdRng;

use super::clock::Clock;
use super::history::Slot;
use super::profile::{BUCKETS, Healing, Profile};
use super::schedule::Micros;
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
    /// Counts over all its lives.
    pub metrics: Arc<Metrics>,
    /// Keys of hints that were removed and whose removal is not durable yet.
    pub removed: BTreeSet<Slot>,
    /// What the next process will find in the place of its disk.
    pub found: Found,
    /// The sync under way.
    pub syncing: bool,
    /// Whether another was asked for meanwhile.
    pub sync_wanted: bool,
    /// Whether the sync under way, or else the next one, will fail.
    pub sync_fails: bool,
    /// What had been applied when the last sync was done, if that is more than it covered.
    pub noted_late: Option<BatchSeq>,
    /// Whether a turn is planned.
    pub turn_planned: bool,
    /// When its timer is planned for.
    pub timer_planned: Option<Micros>,
    engine: Option<Engine<SimStore>>,
    detector: Option<Detector>,
    clocks: Option<Clocks>,
    /// What the engine is told of a peer, whatever the detector thinks.
    misjudged: BTreeMap<NodeId, Liveness>,
    inbox: Vec<Input>,
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
#[derive(Debug)]
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
    /// A sync is done.
    Synced(BatchSeq),
}

/// What came of a turn.
#[derive(Default)]
pub struct Turn {
    /// What the engine wants done.
    pub outputs: Vec<Output>,
    /// What the detector sends.
    pub datagrams: Vec<(NodeId, Bytes)>,
    /// What it has changed its mind about.
    pub opinions: Vec<(NodeId, Liveness)>,
    /// Whether it has found its own clock to be off.
    pub found_clock_off: bool,
}

impl Node {
    /// A node with an empty disk, not yet started.
    pub fn new(id: NodeId) -> Node {
        Node {
            id,
            store: SimStore::default(),
            clock: Clock { origin: 0, skew_ms: 0 },
            life: 0,
            paused: false,
            metrics: Arc::new(Metrics::default()),
            removed: BTreeSet::new(),
            found: Found::Own,
            syncing: false,
            sync_wanted: false,
            sync_fails: false,
            noted_late: None,
            turn_planned: false,
            timer_planned: None,
            engine: None,
            detector: None,
            clocks: None,
            misjudged: BTreeMap::new(),
            inbox: Vec::new(),
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
        assert!(self.engine.is_none(), "a node starts only when it is down");
        self.store.open();
        self.clock.origin = rng.random_range(0..1 << 40);
        let members: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
        let settings = ClockSettings { off_max: limits.clock_off_max };
        self.clocks = Some(Clocks::new(self.id, members.iter().copied(), settings));
        let config = EngineConfig {
            node: self.id,
            shard: 0,
            topology: Arc::clone(topology),
            context_keys: keys.clone(),
            limits,
            metrics: Arc::clone(&self.metrics),
            seed: rng.random(),
            planted: self.found.planted(planted),
        };
        let now = self.clock.now(at);
        self.engine = Some(Engine::new(config, self.store.clone(), now));
        let config = DetectorConfig {
            node: self.id,
            incarnation: Incarnation { starts: self.life + 1, nonce: 0 },
            members,
            settings: detector_settings(),
            seed: rng.random(),
            metrics: Arc::clone(&self.metrics),
        };
        self.detector = Some(Detector::new(config, now.instant));
    }

    /// The process is gone; what becomes of the disk is the caller's business.
    pub fn stop(&mut self) {
        self.engine = None;
        self.detector = None;
        self.clocks = None;
        self.misjudged.clear();
        self.inbox.clear();
        self.removed.clear();
        self.life += 1;
        self.paused = false;
        self.syncing = false;
        self.sync_wanted = false;
        self.sync_fails = false;
        self.noted_late = None;
        self.turn_planned = false;
        self.timer_planned = None;
    }

    /// Whether the process runs, even if it stands still.
    pub fn runs(&self) -> bool {
        self.engine.is_some()
    }

    /// Puts something into the inbox; a process that is down never learns of it.
    pub fn receive(&mut self, input: Input) {
        if self.runs() {
            self.inbox.push(input);
        }
    }

    /// What waits for its next turn.
    pub fn inbox(&self) -> &[Input] {
        &self.inbox
    }

    /// One turn of the shell.
    pub fn turn(&mut self, at: Micros) -> Turn {
        let mut turn = Turn::default();
        let (Some(engine), Some(detector), Some(clocks)) = (&mut self.engine, &mut self.detector, &mut self.clocks)
        else {
            return turn;
        };
        let now = self.clock.now(at);
        for input in self.inbox.drain(..) {
            match input {
                Input::Client { from, deadline, request } => engine.handle_client(now, from, deadline, request),
                Input::Peer { from, message } => {
                    detector.handle_heard(now.instant, from);
                    engine.handle_peer(now, from, message);
                }
                Input::Datagram { from, bytes } => {
                    let bytes = clocks.open(now, from, &bytes).expect("nodes send what they can read");
                    detector.handle_datagram(now.instant, from, bytes);
                }
                Input::Up(peer) => {
                    engine.handle_peer_up(now, peer);
                    detector.handle_connected(now.instant, peer);
                }
                Input::Misjudged(peer, Some(liveness)) => {
                    self.misjudged.insert(peer, liveness);
                    engine.handle_liveness(now, peer, liveness);
                }
                Input::Misjudged(peer, None) => {
                    if self.misjudged.remove(&peer).is_some() {
                        engine.handle_liveness(now, peer, detector.liveness(peer).expect("is a member"));
                    }
                }
                Input::Lost(peer) => engine.handle_peer_lost(now, peer),
                Input::Synced(up_to) => engine.handle_synced(now, up_to),
            }
        }
        if detector.poll_timeout() <= now.instant {
            detector.handle_timeout(now.instant);
        }
        while let Some(output) = detector.poll_output() {
            match output {
                detector::Output::Send { to, bytes } => turn.datagrams.push((to, clocks.seal(now, to, &bytes))),
                detector::Output::Changed { peer, liveness } => {
                    turn.opinions.push((peer, liveness));
                    if !self.misjudged.contains_key(&peer) {
                        engine.handle_liveness(now, peer, liveness);
                    }
                }
            }
        }
        clocks.look(now);
        while let Some(output) = clocks.poll_output() {
            match output {
                clocks::Output::Bounds(bounds) => engine.handle_clock(bounds),
                clocks::Output::Changed(standing) => turn.found_clock_off |= standing.stance == Stance::Off,
            }
        }
        if engine.poll_timeout().is_some_and(|due| due <= now.instant) {
            engine.handle_timeout(now);
        }
        engine.commit(now);
        turn.outputs = std::iter::from_fn(|| engine.poll_output()).collect();
        turn
    }

    /// The records that it has set apart.
    pub fn damaged(&self) -> Vec<Bytes> {
        self.engine.iter().flat_map(Engine::damaged).map(Bytes::copy_from_slice).collect()
    }

    /// The trees of the engine; `None` for one that is still being built.
    pub fn trees(&self) -> Vec<(PartitionId, Option<Tree>)> {
        let tree = |held: Held<'_>| match held {
            Held::Tree(tree) => Some(tree.clone()),
            Held::Rebuilding | Held::Nothing => None,
        };
        let trees = self.engine.iter().flat_map(Engine::trees);
        trees.map(|(partition, held)| (partition, tree(held))).collect()
    }

    /// When engine or detector wants to be woken, in the world's time.
    pub fn wakes_at(&self) -> Option<Micros> {
        let detector = self.detector.as_ref()?.poll_timeout();
        let due = self.engine.as_ref()?.poll_timeout().map_or(detector, |due| due.min(detector));
        Some(self.clock.world_time(due))
    }

    /// What the engine has been told of a peer.
    pub fn liveness(&self, peer: NodeId) -> Option<Liveness> {
        self.misjudged.get(&peer).copied().or_else(|| self.detector.as_ref()?.liveness(peer))
    }
}

/// The shape of a simulated cluster: few partitions, so that keys share actors, and a bucket of every kind.
pub fn topology(nodes: usize) -> Topology {
    let ring = Ring::first(RingSpec {
        partitions: Partitions::new(4).expect("a power of two"),
        hash_seed: 7,
        members: (0..nodes).map(|node| Member::new(name_of(node), format!("{}.sim:1", name_of(node)))).collect(),
        classes: BTreeSet::from([1, 3]),
    });
    let buckets: [BucketDefinition; BUCKETS] = [
        BucketDefinition::built_in(nodes),
        BucketDefinition { sloppy: false, ..bucket(1, "strict", 3, 2, 2) },
        BucketDefinition { conflict: Conflict::Lww, ..bucket(2, "lww", 3, 2, 2) },
        bucket(3, "single", 1, 1, 1),
        bucket(4, "loose", 3, 1, 1),
        BucketDefinition { durability: Durability::Buffered, ..bucket(5, "buffered", 3, 2, 2) },
    ];
    Topology::new("sim", ring.expect("three or more members"), buckets.into()).expect("classes 1 and 3 exist")
}

/// Bounds and times of the engines of a world.
pub fn limits(profile: &Profile) -> Limits {
    Limits {
        attempt_timeout: Duration::from_micros(profile.attempt_timeout),
        header_cache_bytes: profile.header_cache_bytes,
        write_ids_max: profile.write_ids_max,
        requests_max: profile.requests_max,
        deadline_max: Duration::from_secs(10),
        buffered_sync_interval: Duration::from_millis(100),
        handoff_delay: Duration::from_micros(profile.handoff_delay),
        aae: AaeLimits {
            interval: match profile.healing {
                Healing::Reads => Duration::from_secs(1_000_000),
                Healing::Both | Healing::AntiEntropy => Duration::from_micros(profile.aae_interval),
            },
            confirm: Duration::from_micros(profile.aae_confirm),
            patience: Duration::from_millis(400),
            repair: Duration::from_millis(1_500),
            scrub_interval: Duration::from_millis(20),
            ..AaeLimits::default()
        },
        // Without room for hints nobody stands in, so that what they would bring is not needed.
        hint_bytes_max: match profile.healing {
            Healing::AntiEntropy => 0,
            Healing::Both | Healing::Reads => Limits::default().hint_bytes_max,
        },
        ..Limits::default()
    }
}

/// Times of the detectors: short, since faults last for less than a second.
fn detector_settings() -> DetectorSettings {
    DetectorSettings {
        probe_period: Duration::from_millis(200),
        probe_rtt: Duration::from_millis(90),
        suspect_to_down: Duration::from_millis(300),
        announce_period: Duration::from_millis(300),
        heard_for: Duration::from_millis(150),
    }
}

/// The key that seals the contexts of every simulated cluster.
pub fn context_keys() -> ContextKeys {
    ContextKeys::new(vec![ContextKey { id: 1, secret: [7; 32] }]).expect("has a key")
}

/// Names of nodes are their numbers.
pub fn name_of(node: usize) -> String {
    format!("n{node}")
}

fn bucket(id: u32, name: &str, n: u8, r: u8, w: u8) -> BucketDefinition {
    BucketDefinition {
        id: BucketId(id),
        name: BucketName::new(name).expect("well formed"),
        quorum: Quorum::new(n, r, w).expect("r and w are at most n"),
        ..BucketDefinition::built_in(usize::from(n))
    }
}
