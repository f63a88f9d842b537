//! What goes wrong, and when. Each seed draws which kinds of faults it has, sometimes none; a kind that is never alone
//! hides what it does alone.
//!
//! Faults stay within the promises: at most one disk of a run is set back, or holds bytes that rot; the others lose only what
//! was not synced, and everything heals before the calm phase.

use driftless_node::liveness::Liveness;
use rand::Rng;
use rand::rngs::StdRng;

use super::cluster::Cluster;
use super::generator::key_of;
use super::profile::{Profile, Regime};
use super::schedule::Micros;
use super::store::Reading;

/// One act of the nemesis. Those that begin something name when it ends.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// A process dies; its machine keeps running, or loses power.
    Crash {
        /// Whose.
        node: usize,
        /// Until it starts again.
        down: Micros,
    },
    /// All machines lose power at the same moment.
    PowerCut,
    /// The nodes of one side hear none of the others, and the other way round.
    Partition {
        /// Nodes of one side.
        side: Vec<usize>,
        /// For how long.
        lasts: Micros,
    },
    /// The nodes of two groups lose each other, and notice at once.
    Split {
        /// Some nodes.
        these: Vec<usize>,
        /// Others.
        those: Vec<usize>,
        /// For how long.
        lasts: Micros,
    },
    /// `to` hears nothing of `from`.
    OneWayCut {
        /// Unheard.
        from: usize,
        /// Deaf.
        to: usize,
        /// For how long.
        lasts: Micros,
    },
    /// All cuts end.
    Heal,
    /// A process stands still, as after SIGSTOP.
    Pause {
        /// Which.
        node: usize,
        /// For how long.
        lasts: Micros,
    },
    /// It goes on.
    Resume {
        /// Which.
        node: usize,
    },
    /// The wall clock of a node jumps to another skew.
    ClockJump {
        /// Whose.
        node: usize,
        /// The new skew.
        skew_ms: i64,
    },
    /// A disk has no room left.
    DiskFull {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: Micros,
    },
    /// It has room again.
    DiskRoom {
        /// Whose.
        node: usize,
    },
    /// The next batch of a node fails so that nobody knows what was applied.
    DiskFails {
        /// Whose.
        node: usize,
    },
    /// The sync under way at a node, or its next one, fails.
    SyncFails {
        /// Whose.
        node: usize,
    },
    /// A read fails.
    ReadFails {
        /// Whose.
        node: usize,
        /// Of which kind.
        reading: Reading,
    },
    /// Bytes that a disk holds become others.
    Rot {
        /// Whose.
        node: usize,
        /// At how many places.
        how_many: usize,
        /// How long the node is down meanwhile; `None` if it goes on.
        down: Option<Micros>,
    },
    /// Somebody copies the disk of a node.
    CopyDisk {
        /// Whose.
        node: usize,
        /// Whether what its process sees is copied, or what is durable.
        live: bool,
    },
    /// The node whose disk was copied stops, and starts on the copy.
    RollBack {
        /// Until it starts.
        down: Micros,
    },
    /// A node thinks wrongly of a peer.
    Misjudge {
        /// Who.
        node: usize,
        /// Of whom.
        peer: usize,
        /// What.
        liveness: Liveness,
        /// For how long.
        lasts: Micros,
    },
    /// It thinks as its detector does again.
    Understand {
        /// Who.
        node: usize,
        /// Of whom.
        peer: usize,
    },
    /// A peer shows a node writes of its own that it has never stamped, as if its disk had been set back under it.
    Claim {
        /// Whom.
        node: usize,
    },
    /// A node gives up a connection that was fine.
    Suspect {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
    },
}

impl Fault {
    /// The nodes that have to be there for it.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Fault::Crash { node, .. }
            | Fault::Pause { node, .. }
            | Fault::Resume { node }
            | Fault::ClockJump { node, .. }
            | Fault::DiskFull { node, .. }
            | Fault::DiskRoom { node }
            | Fault::DiskFails { node }
            | Fault::SyncFails { node }
            | Fault::ReadFails { node, .. }
            | Fault::Rot { node, .. }
            | Fault::CopyDisk { node, .. }
            | Fault::Claim { node } => vec![*node],
            Fault::Misjudge { node, peer, .. } | Fault::Understand { node, peer } | Fault::Suspect { node, peer } => {
                vec![*node, *peer]
            }
            Fault::OneWayCut { from, to, .. } => vec![*from, *to],
            Fault::PowerCut | Fault::Partition { .. } | Fault::Split { .. } | Fault::Heal | Fault::RollBack { .. } => {
                Vec::new()
            }
        }
    }
}

/// What goes wrong with disks beside running full.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskErrors {
    /// Syncs fail.
    pub syncs: bool,
    /// Reads fail.
    pub reads: bool,
    /// Bytes of one disk rot: the one that is set back, if there is such.
    pub damage: bool,
    /// Those of another one do as well, about other keys at any moment.
    pub two_disks: bool,
    /// Chance that those of a key rot which its node has just stamped: others may not know yet what is lost then.
    pub damage_after_stamp: f64,
}

/// The kinds of faults that a world has.
#[derive(Clone, Debug, Default)]
pub struct FaultSet {
    /// Single processes die.
    pub crashes: bool,
    /// All die at once.
    pub power_cuts: bool,
    /// Groups of nodes lose each other.
    pub partitions: bool,
    /// One direction of a link fails.
    pub one_way_cuts: bool,
    /// The same nodes lose each other again and again, and notice at once: what was left with fallbacks is under way
    /// when more of it comes.
    pub flaps: bool,
    /// Processes stand still.
    pub pauses: bool,
    /// Wall clocks are wrong, and jump.
    pub clocks: bool,
    /// Chance that the acknowledgement of a delivered hint is lost, and whoever waits for it may die.
    pub lost_handoff_acks: f64,
    /// Disks fill up.
    pub full_disks: bool,
    /// Disks fail in the middle of a batch.
    pub failing_disks: bool,
    /// One disk is set back to what it held earlier.
    pub rollback: bool,
    /// Disks report errors, or hold what nobody wrote.
    pub errors: DiskErrors,
    /// Working connections are given up.
    pub suspicion: bool,
    /// Peers that are well are thought to be gone.
    pub misjudgement: bool,
    /// Nodes are shown writes of their own that they have never stamped.
    pub claims: bool,
    /// Chance that a message between nodes is lost.
    pub loss: f64,
    /// Chance that it arrives twice.
    pub duplication: f64,
    /// Chance that it takes much longer, so that others overtake it.
    pub delay: f64,
    /// Chance that a request or answer of a client is lost.
    pub client_loss: f64,
    /// Whether messages outlive the connection they were sent on.
    pub ghosts: bool,
    /// Chance that the crash of a process is its machine's loss of power. Where it seldom is, what a process left
    /// unsynced is what the next one finds, and must not take for durable.
    pub power: f64,
    /// Chance that a crash keeps some of what was not synced, instead of nothing.
    pub keep_some: f64,
}

impl FaultSet {
    /// Draws a set; one seed in twelve has no faults.
    pub fn draw(regime: Regime, rng: &mut StdRng) -> FaultSet {
        if rng.random_bool(1.0 / 12.0) {
            return FaultSet::default();
        }
        // A little of it, or, now and then, so much that little else gets through.
        let mut chance = |on: f64, low: f64, high: f64| {
            let drawn =
                if rng.random_bool(0.4) { rng.random_range(high..4.0 * high) } else { rng.random_range(low..high) };
            if rng.random_bool(on) { drawn } else { 0.0 }
        };
        let (loss, duplication) = (chance(0.5, 0.002, 0.08), chance(0.4, 0.01, 0.15));
        let (delay, client_loss) = (chance(0.5, 0.005, 0.1), chance(0.4, 0.01, 0.08));
        let keep_some = chance(0.6, 0.05, 0.25);
        let power = [0.1, 0.5, 0.9][rng.random_range(0..3)];
        let mut on = |chance: f64| rng.random_bool(chance);
        FaultSet {
            crashes: on(0.6),
            power_cuts: on(0.3),
            partitions: on(0.45),
            one_way_cuts: on(0.35),
            flaps: on(if regime == Regime::Plain { 0.25 } else { 0.4 }),
            pauses: on(0.3),
            clocks: on(0.5),
            lost_handoff_acks: 0.0,
            full_disks: on(0.3),
            failing_disks: on(0.2),
            rollback: on(if regime == Regime::Plain { 0.3 } else { 0.7 }),
            errors: DiskErrors::default(),
            suspicion: on(if regime == Regime::Plain { 0.1 } else { 0.4 }),
            misjudgement: on(if regime == Regime::Plain { 0.1 } else { 0.4 }),
            claims: false,
            loss,
            duplication,
            delay,
            client_loss,
            ghosts: on(0.25),
            power,
            keep_some,
        }
    }

    /// Draws all acts of the active phase, with their times.
    pub fn plan(&self, profile: &Profile, cluster: &Cluster, rng: &mut StdRng) -> Vec<(Micros, Fault)> {
        type Draw = fn(&Cluster, &mut StdRng) -> Fault;
        let kinds: [(bool, Draw); 10] = [
            (self.crashes, crash),
            (self.power_cuts, |_, _| Fault::PowerCut),
            (self.partitions, partition),
            (self.one_way_cuts, one_way_cut),
            (self.pauses, |cluster, rng| Fault::Pause {
                node: cluster.any(rng),
                lasts: rng.random_range(5_000..500_000),
            }),
            (self.clocks, |cluster, rng| Fault::ClockJump {
                node: cluster.any(rng),
                skew_ms: rng.random_range(-super::clock::SKEW_MS_MAX..super::clock::SKEW_MS_MAX),
            }),
            (self.full_disks, |cluster, rng| Fault::DiskFull {
                node: cluster.any(rng),
                lasts: if rng.random_bool(0.6) {
                    rng.random_range(500..30_000)
                } else {
                    rng.random_range(2_000..400_000)
                },
            }),
            (self.failing_disks, |cluster, rng| Fault::DiskFails { node: cluster.any(rng) }),
            (self.suspicion, |cluster, rng| {
                let (node, peer) = two_nodes(cluster, rng);
                Fault::Suspect { node, peer }
            }),
            (self.misjudgement, misjudge),
        ];
        let kinds: Vec<Draw> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, draw)| draw).collect();
        let mut acts = Vec::new();
        if self.rollback {
            let copied = rng.random_range(0..profile.active / 2);
            acts.push((copied, Fault::CopyDisk { node: cluster.any(rng), live: rng.random_bool(0.4) }));
            let after = rng.random_range(10_000..profile.active / 2);
            acts.push((copied + after, Fault::RollBack { down: downtime(rng) }));
        }
        if self.flaps {
            let (these, those) = two_groups(profile, cluster, rng);
            // Long enough to connect again, or not quite; too short for a client to give up, or not.
            let (apart, together) = match rng.random_bool(0.5) {
                true => (rng.random_range(20_000..80_000), rng.random_range(30_000..80_000)),
                false => (rng.random_range(10_000..300_000), rng.random_range(2_000..200_000)),
            };
            let mut at = rng.random_range(0..200_000);
            while at < profile.active {
                let lasts = rng.random_range(apart / 4..apart);
                acts.push((at, Fault::Split { these: these.clone(), those: those.clone(), lasts }));
                at += lasts + rng.random_range(together / 4..2 * together);
            }
        }
        // A disk at its limit: room comes and goes, and clients try again between.
        if self.full_disks && rng.random_bool(0.5) {
            let node = cluster.any(rng);
            let mut at = rng.random_range(0..200_000);
            while at < profile.active {
                let lasts = rng.random_range(300..6_000);
                acts.push((at, Fault::DiskFull { node, lasts }));
                at += lasts + rng.random_range(3_000..60_000);
            }
        }
        if kinds.is_empty() {
            return acts;
        }
        let pause = rng.random_range(20_000..400_000);
        let mut at = rng.random_range(0..300_000);
        while at < profile.active {
            let draw = kinds[rng.random_range(0..kinds.len())];
            acts.push((at, draw(cluster, rng)));
            at += rng.random_range(1_000..2 * pause);
        }
        acts
    }
}

impl FaultSet {
    /// Beside all that: acknowledgements of hints that get lost.
    pub fn with_lost_handoff_acks(self, rng: &mut StdRng) -> FaultSet {
        let chance = if rng.random_bool(0.3) { [0.1, 0.5, 0.9][rng.random_range(0..3)] } else { 0.0 };
        FaultSet { lost_handoff_acks: chance, ..self }
    }

    /// A clock that is a day off for a while, of one node: more than the others can tell from their own could outvote them.
    pub fn wrong_day(&self, profile: &Profile, cluster: &Cluster, rng: &mut StdRng) -> Vec<(Micros, Fault)> {
        if !self.clocks || rng.random_bool(0.5) {
            return Vec::new();
        }
        let node = cluster.any(rng);
        let skew_ms = if rng.random_bool(0.7) { DAY_MS } else { -DAY_MS };
        // Often from the beginning: then its first writes are stamped before it hears anybody.
        let from = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..profile.active) };
        let until = from + rng.random_range(20_000..profile.active);
        vec![(from, Fault::ClockJump { node, skew_ms }), (until, Fault::ClockJump { node, skew_ms: 0 })]
    }
}

/// When nodes are shown writes of their own that they have never stamped.
pub fn claims(profile: &Profile, cluster: &Cluster, rng: &mut StdRng) -> Vec<(Micros, Fault)> {
    let count = if profile.faults.claims { rng.random_range(1..8) } else { 0 };
    let mut draw = || (rng.random_range(0..profile.active), Fault::Claim { node: cluster.any(rng) });
    (0..count).map(|_| draw()).collect()
}

impl DiskErrors {
    /// Draws a set; half of the seeds have none. Damage is seldom where a disk is set back: that excuses too much.
    pub fn draw(rollback: bool, rng: &mut StdRng) -> DiskErrors {
        let has_some = rng.random_bool(0.5);
        let mut on = |chance: f64| rng.random_bool(chance) && has_some;
        let (syncs, reads, damage) = (on(0.4), on(0.3), on(if rollback { 0.2 } else { 0.7 }));
        let damage_after_stamp = if damage { [0.0, 0.02, 0.1, 0.3][rng.random_range(0..4)] } else { 0.0 };
        DiskErrors { syncs, reads, damage, two_disks: false, damage_after_stamp }
    }

    /// Draws all of them, with their times, beside what is planned already.
    pub fn plan(
        &self,
        profile: &Profile,
        cluster: &Cluster,
        planned: &[(Micros, Fault)],
        rng: &mut StdRng,
    ) -> Vec<(Micros, Fault)> {
        let mut acts = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..profile.active);
            if self.syncs {
                acts.push((at, Fault::SyncFails { node: cluster.any(rng) }));
            }
            let at = rng.random_range(0..profile.active);
            if self.reads {
                let reading = if rng.random_bool(0.7) { Reading::Get } else { Reading::Scan };
                acts.push((at, Fault::ReadFails { node: cluster.any(rng), reading }));
            }
        }
        if self.damage {
            let copied = planned.iter().find_map(|(_, act)| match act {
                Fault::CopyDisk { node, .. } => Some(*node),
                _ => None,
            });
            let set_back =
                planned.iter().find(|(_, act)| matches!(act, Fault::RollBack { .. })).map_or(0, |(at, _)| *at);
            let node = copied.unwrap_or_else(|| cluster.any(rng));
            let often = [300_000, 60_000][rng.random_range(0..2)];
            let mut at = set_back + rng.random_range(1..500_000);
            while at < profile.active {
                let down = rng.random_bool(0.3).then(|| downtime(rng));
                acts.push((at, Fault::Rot { node, how_many: rng.random_range(1..4), down }));
                at += rng.random_range(1_000..2 * often);
            }
        }
        acts
    }

    /// Draws the damage of a second disk, beside that of the first.
    pub fn plan_on_another_disk(
        &self,
        profile: &Profile,
        cluster: &Cluster,
        planned: &[(Micros, Fault)],
        rng: &mut StdRng,
    ) -> Vec<(Micros, Fault)> {
        let first = planned.iter().find_map(|(_, act)| match act {
            Fault::Rot { node, .. } => Some(*node),
            _ => None,
        });
        let Some(first) = first.filter(|_| self.damage && self.two_disks) else { return Vec::new() };
        let node = cluster.any_but(first, rng);
        let (mut acts, mut at) = (Vec::new(), rng.random_range(1..300_000));
        while at < profile.active {
            let down = rng.random_bool(0.3).then(|| downtime(rng));
            acts.push((at, Fault::Rot { node, how_many: rng.random_range(1..4), down }));
            at += rng.random_range(1_000..300_000);
        }
        acts
    }
}

const DAY_MS: i64 = 86_400_000;

fn crash(cluster: &Cluster, rng: &mut StdRng) -> Fault {
    let node = cluster.any(rng);
    Fault::Crash { node, down: downtime(rng) }
}

/// How long a process is down: often so short that what it left unsynced is still unsynced when it is back.
pub fn downtime(rng: &mut StdRng) -> Micros {
    if rng.random_bool(0.4) { rng.random_range(300..8_000) } else { rng.random_range(2_000..500_000) }
}

fn partition(cluster: &Cluster, rng: &mut StdRng) -> Fault {
    let mut side: Vec<usize> = cluster.numbers().filter(|_| rng.random_bool(0.5)).collect();
    if side.is_empty() || side.len() == cluster.len() {
        side = vec![cluster.any(rng)];
    }
    Fault::Partition { side, lasts: rng.random_range(10_000..900_000) }
}

/// One link, one node and all others, or the primaries of a key and all others.
fn two_groups(profile: &Profile, cluster: &Cluster, rng: &mut StdRng) -> (Vec<usize>, Vec<usize>) {
    let (a, b) = two_nodes(cluster, rng);
    let rest = |these: &[usize]| cluster.numbers().filter(|node| !these.contains(node)).collect();
    match rng.random_range(0..4) {
        0 => (vec![a], vec![b]),
        1 => (vec![a], rest(&[a])),
        _ => {
            let bucket = &cluster.topology().buckets()[0];
            let slot = (bucket.id, key_of(bucket, rng.random_range(0..profile.keys), profile.crowded));
            let primaries = cluster.owners(&slot);
            let others = rest(&primaries);
            (primaries, others)
        }
    }
}

fn one_way_cut(cluster: &Cluster, rng: &mut StdRng) -> Fault {
    let (from, to) = two_nodes(cluster, rng);
    Fault::OneWayCut { from, to, lasts: rng.random_range(10_000..900_000) }
}

fn misjudge(cluster: &Cluster, rng: &mut StdRng) -> Fault {
    let (node, peer) = two_nodes(cluster, rng);
    let liveness = if rng.random_bool(0.5) { Liveness::Suspect } else { Liveness::Down };
    Fault::Misjudge { node, peer, liveness, lasts: rng.random_range(5_000..600_000) }
}

fn two_nodes(cluster: &Cluster, rng: &mut StdRng) -> (usize, usize) {
    let node = cluster.any(rng);
    (node, cluster.any_but(node, rng))
}
