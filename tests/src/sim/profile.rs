//! How kind a world is: the regime gives ranges, the seed draws from them.
//!
//! A kind world hides bugs. One that lost acknowledged writes in no run of a plain world lost them in nearly all runs
//! of a fast one, where disks are slower than messages by orders of magnitude.

use std::fmt;

use driftless_node::config::{AaeLimits, Limits};
use rand::Rng;
use rand::rngs::StdRng;

use super::faults::{DiskErrors, FaultSet};
use super::schedule::Micros;

/// Three kinds of world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Regime {
    /// Ordinary machines: syncs of 0.2 to 4 ms.
    Plain,
    /// Syncs of up to 60 ms, crashes right after a stamp, wrong suspicion, large batches.
    Stress,
    /// Stress, and half of the disks take up to 400 ms for a sync.
    Fast,
}

/// What a seed drew for its world.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The kind of world.
    pub regime: Regime,
    /// Members of the cluster.
    pub nodes: usize,
    /// Shards of each: engines that share its disk.
    pub shards: Vec<u16>,
    /// Clients, each with one operation under way at a time.
    pub clients: usize,
    /// Keys in each bucket: few, so that clients meet.
    pub keys: usize,
    /// Whether all keys are in one leaf of the trees.
    pub crowded: bool,
    /// How long clients and faults are active.
    pub active: Micros,
    /// Shortest and longest pause of a client between operations.
    pub think: (Micros, Micros),
    /// Shortest and longest patience of a client with one attempt.
    pub patience: (Micros, Micros),
    /// One-way latency, most of the time.
    pub latency: (Micros, Micros),
    /// Longest wait of an input for its node's next turn: the longer, the larger the batches.
    pub turn: Micros,
    /// Bytes that a turn takes in or reads before it is full; `None` is what real nodes take, and never full.
    pub turn_bytes: Option<usize>,
    /// Duration of a sync, for each node.
    pub sync: Vec<(Micros, Micros)>,
    /// Chance that a node which has just applied a batch will crash within 20 ms.
    pub crash_after_batch: f64,
    /// Chance that a fallback which has just stamped loses power, while all fallbacks lose the key's primaries.
    pub fallback_dies: f64,
    /// Bytes of each engine's header cache.
    pub header_cache_bytes: u64,
    /// How long an engine waits for a replica before it asks another as well.
    pub attempt_timeout: Micros,
    /// Write ids that an engine remembers.
    pub write_ids_max: usize,
    /// Requests that an engine coordinates at once.
    pub requests_max: usize,
    /// Bytes that an engine holds for others.
    pub hint_bytes_max: u64,
    /// Bytes that it holds for any one of them.
    pub hint_target_bytes_max: u64,
    /// Answers that may wait for a replica's disk.
    pub replica_waiting_max: usize,
    /// How likely each bucket is, as weights in the order of [`BUCKETS`].
    pub bucket_weights: [u32; BUCKETS],
    /// How long a node has been back before hints are delivered to it.
    pub handoff_delay: Micros,
    /// Chance of a put by somebody who has read nothing, beside those that come by themselves.
    pub blind: f64,
    /// Chance that an operation is a delete without a context instead.
    pub blind_deletes: f64,
    /// Bound of the attempts after the first.
    pub retries: u32,
    /// Chance that a request has an r or a w of its own.
    pub odd_quorums: f64,
    /// Chance that a client asks one of a key's primaries; else it asks anybody.
    pub asks_primary: f64,
    /// Chance that a request asks for strict quorums.
    pub strict: f64,
    /// Bytes of values in one answer to a read. One means a page for each sibling.
    pub read_page_bytes: usize,
    /// Bytes of states under way to one peer. With a few of them nearly every state is larger, and goes beside the window.
    pub window_bytes: usize,
    /// What makes replicas equal again.
    pub healing: Healing,
    /// How often nodes compare what they share.
    pub aae_interval: Micros,
    /// How long a difference must last before it is repaired.
    pub aae_confirm: Micros,
    /// Keys that an exchange repairs at a time.
    pub repaired_at_once: usize,
    /// Keys that it lists in a message.
    pub listed_at_once: usize,
    /// What becomes of one node's disk at the end, behind its back.
    pub damage: Option<Damage>,
    /// Which faults happen at all.
    pub faults: FaultSet,
}

impl Profile {
    /// In some worlds members come and go; answers how often. Losses of a disk are the operator's there.
    pub fn change_members(&mut self, rng: &mut StdRng) -> usize {
        if !rng.random_bool(CHANGING) {
            return 0;
        }
        self.faults.rollback = false;
        self.faults.claims = false;
        self.faults.errors = DiskErrors::default();
        self.damage = None;
        self.fallback_dies = 0.0;
        if self.healing == Healing::Reads {
            self.healing = Healing::Both;
        }
        self.aae_interval = self.aae_interval.min(400_000);
        self.active *= 3;
        rng.random_range(1..=4)
    }
}

impl Profile {
    /// In some of the worlds in which members change most voters are lost, before as many changes as it says are left.
    pub fn with_a_disaster(&mut self, steps: usize, rng: &mut StdRng) -> Option<usize> {
        if steps == 0 || !rng.random_bool(WITH_A_DISASTER) {
            return None;
        }
        // They live long.
        self.think = (1_000, 60_000);
        Some(rng.random_range(0..steps))
    }
}

/// The part of the worlds in which members change.
const CHANGING: f64 = 0.2;

/// The part of those in which most voters are lost at once.
const WITH_A_DISASTER: f64 = 0.3;

/// What makes replicas equal again. Each must do so alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Healing {
    /// Reads and anti-entropy.
    Both,
    /// Reads: anti-entropy never runs.
    Reads,
    /// Anti-entropy: nobody reads in the end, and what reads or hints would repair is lost on the way.
    AntiEntropy,
}

/// What a disk loses while its node is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Some records, or the newest write of them.
    Some,
    /// All records.
    All,
}

/// No world has more keys in a bucket.
pub const KEYS_MAX: usize = 20;

/// How many buckets every simulated cluster has (see `shape::topology`).
pub const BUCKETS: usize = 6;

impl Regime {
    /// All of them: seeds take them in turn.
    pub const ALL: [Regime; 3] = [Regime::Plain, Regime::Stress, Regime::Fast];

    /// Every third seed lives in each of them.
    pub fn of_seed(seed: u64) -> Regime {
        Regime::ALL[(seed % 3) as usize]
    }
}

impl Profile {
    /// Draws a world.
    pub fn draw(regime: Regime, rng: &mut StdRng) -> Profile {
        let harsh = regime != Regime::Plain;
        // From four nodes on there is somebody to stand in for a replica.
        let nodes = [3, 3, 3, 4, 5, 6][rng.random_range(0..6)];
        let faults = FaultSet::draw(regime, rng);
        let profile = Profile {
            regime,
            nodes,
            shards: vec![1; nodes],
            // In a quiet world nothing hides behind the sync of somebody else's write.
            clients: match rng.random_range(0..6) {
                0 => rng.random_range(1..=2),
                _ => rng.random_range(3..=if harsh { 9 } else { 6 }),
            },
            keys: rng.random_range(1..=5),
            crowded: false,
            active: rng.random_range(1_000_000..2_500_000),
            think: [(0, 1_500), (0, 8_000), (0, 8_000), (1_000, 60_000)][rng.random_range(0..4)],
            // Short patience makes retries of writes that are still under way.
            patience: match (harsh, rng.random_bool(0.4)) {
                (_, true) => (20_000, 150_000),
                (true, false) => (150_000, 1_500_000),
                (false, false) => (60_000, 800_000),
            },
            // With a wide range messages overtake each other, and what one replica has may long be missing on others.
            latency: [(100, 900), (100, 900), (200, 8_000), (200, 60_000)][rng.random_range(0..4)],
            turn: if harsh { rng.random_range(50..6_000) } else { rng.random_range(10..400) },
            turn_bytes: None,
            sync: (0..nodes).map(|_| sync_range(regime, rng)).collect(),
            crash_after_batch: if harsh && faults.crashes { rng.random_range(0.002..0.05) } else { 0.0 },
            fallback_dies: 0.0,
            header_cache_bytes: [0, 512, 4_096, 1 << 20][rng.random_range(0..4)],
            attempt_timeout: [10_000, 50_000, 250_000][rng.random_range(0..3)],
            write_ids_max: [4, 4_096, 4_096][rng.random_range(0..3)],
            requests_max: if rng.random_bool(0.1) { rng.random_range(8..14) } else { 1_024 },
            hint_bytes_max: Limits::default().hint_bytes_max,
            hint_target_bytes_max: Limits::default().hint_target_bytes_max,
            replica_waiting_max: Limits::default().replica_waiting_max,
            bucket_weights: bucket_weights(rng),
            // Without a calm delay hints are under way whenever somebody writes.
            handoff_delay: if regime == Regime::Fast { 1_000 } else { [5_000, 100_000][rng.random_range(0..2)] },
            blind: 0.0,
            blind_deletes: 0.0,
            retries: 4,
            odd_quorums: 0.12,
            asks_primary: [0.7, 0.4, 0.0][rng.random_range(0..3)],
            strict: [0.05, 0.3, 0.9][rng.random_range(0..3)],
            read_page_bytes: [1, 20, 16 << 20][rng.random_range(0..3)],
            window_bytes: [10, 100, 1 << 20][rng.random_range(0..3)],
            healing: [Healing::Both, Healing::Both, Healing::Reads, Healing::AntiEntropy][rng.random_range(0..4)],
            aae_interval: rng.random_range(100_000..800_000),
            aae_confirm: [0, 5_000, 100_000][rng.random_range(0..3)],
            repaired_at_once: AaeLimits::default().keys_max,
            listed_at_once: AaeLimits::default().entries_max,
            damage: [None, None, Some(Damage::Some), Some(Damage::All)][rng.random_range(0..4)],
            faults,
        };
        let profile = if profile.nodes > 3 && rng.random_bool(0.5) { profile.of_fallbacks(rng) } else { profile };
        Profile { turn_bytes: [None, Some(64), Some(4_096)][rng.random_range(0..3)], ..profile }
    }

    /// Everybody wants the same few keys, at nodes that often cannot reach their primaries: nearly all that happens
    /// happens at fallbacks.
    fn of_fallbacks(self, rng: &mut StdRng) -> Profile {
        Profile {
            clients: self.clients.max(6),
            keys: self.keys.min(2),
            think: (0, 1_500),
            // Who gives up early comes back with the same write while its first stamp is on the move.
            patience: [(3_000, 40_000), (20_000, 150_000)][rng.random_range(0..2)],
            handoff_delay: [1_000, 20_000][rng.random_range(0..2)],
            blind: 0.3,
            retries: 12,
            odd_quorums: 0.4,
            asks_primary: 0.0,
            bucket_weights: [4, 0, 0, 3, 1, 0],
            strict: 0.02,
            faults: FaultSet {
                client_loss: self.faults.client_loss.max(0.05),
                flaps: true,
                misjudgement: true,
                ..self.faults
            },
            ..self
        }
    }
}

impl Profile {
    /// Some nodes with more than one shard, or none; often not all with the same number.
    pub fn with_shards(self, rng: &mut StdRng) -> Profile {
        let shards = match rng.random_range(0..8) {
            0..5 => vec![1; self.nodes],
            5 => vec![rng.random_range(2..=3); self.nodes],
            _ => (0..self.nodes).map(|_| rng.random_range(1..=3)).collect(),
        };
        Profile { shards, ..self }
    }

    /// Bounds that are reached in the middle, in some worlds: few hints, or few answers that wait for a disk.
    pub fn with_bounds(self, rng: &mut StdRng) -> Profile {
        let hints = rng.random_bool(0.25);
        let (all, of_one) = ([300, 1_000, 4_000][rng.random_range(0..3)], [150, 500, 1 << 30][rng.random_range(0..3)]);
        let (is_slow, waiting) = (rng.random_bool(0.2), rng.random_range(2..10));
        Profile {
            hint_bytes_max: if hints { all } else { self.hint_bytes_max },
            hint_target_bytes_max: if hints { of_one } else { self.hint_target_bytes_max },
            replica_waiting_max: if is_slow { waiting } else { self.replica_waiting_max },
            ..self
        }
    }

    /// Fallbacks that die as soon as they have stamped, in some worlds with several of them: what is left of a write is then what
    /// others keep of it, for other primaries.
    pub fn with_dying_fallbacks(self, rng: &mut StdRng) -> Profile {
        let (is_drawn, chance) = (rng.random_bool(0.5), rng.random_range(0.1..0.5));
        let is_of_fallbacks = self.blind > 0.0;
        if self.nodes < 5 || !is_of_fallbacks || self.regime == Regime::Plain || !is_drawn {
            return self;
        }
        Profile { fallback_dies: chance, faults: FaultSet { power: 0.9, ..self.faults }, ..self }
    }

    /// Many deletes without a context, in some worlds with fallbacks, of which one disk forgets what it knew: often there is
    /// nothing left to delete, as far as those know who are asked.
    pub fn with_blind_deletes(self, rng: &mut StdRng) -> Profile {
        let chance = [0.1, 0.3, 0.5][rng.random_range(0..3)];
        if self.nodes < 4 || !rng.random_bool(0.3) {
            return self;
        }
        Profile { blind_deletes: chance, faults: FaultSet { rollback: true, ..self.faults }, ..self }
    }

    /// Many keys in one leaf of the trees, in some worlds, so that exchanges need several messages for it.
    pub fn with_a_crowd(self, rng: &mut StdRng) -> Profile {
        let (is_crowded, keys) = (rng.random_bool(0.12), rng.random_range(8..=KEYS_MAX));
        let (at_once, listed) = (rng.random_range(2..7), rng.random_range(2..6));
        if !is_crowded {
            return self;
        }
        Profile { crowded: true, keys, repaired_at_once: at_once, listed_at_once: listed, ..self }
    }

    /// Few keys, replicas that lack something for long, and nobody who answers from memory: what a replica has
    /// forgotten is missed at once.
    pub fn of_damage(self) -> Profile {
        Profile {
            keys: self.keys.min(2),
            think: (0, 8_000),
            latency: (200, 60_000),
            header_cache_bytes: 0,
            bucket_weights: [6, 4, 0, 0, 1, 0],
            strict: self.strict.max(0.5),
            ..self
        }
    }
}

fn sync_range(regime: Regime, rng: &mut StdRng) -> (Micros, Micros) {
    match regime {
        Regime::Plain => (200, 4_000),
        Regime::Stress => (500, rng.random_range(2_000..60_000)),
        Regime::Fast if rng.random_bool(0.5) => (20_000, rng.random_range(60_000..400_000)),
        Regime::Fast => (200, rng.random_range(1_000..20_000)),
    }
}

fn bucket_weights(rng: &mut StdRng) -> [u32; BUCKETS] {
    let mut weights = [6, 0, 0, 0, 0, 0];
    for weight in &mut weights[1..] {
        *weight = [0, 1, 3, 6][rng.random_range(0..4)];
    }
    weights
}

/// What was drawn, without the faults that it has not.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = format!("{self:?}");
        let drawn = all.split(", ").filter(|field| ![": false", ": 0.0"].iter().any(|no| field.ends_with(no)));
        f.write_str(&drawn.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Regime::Plain => "plain",
            Regime::Stress => "stress",
            Regime::Fast => "fast",
        })
    }
}
