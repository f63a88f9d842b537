//! Machines, their disks, the network between them, and operators. What a machine puts out is carried out one thing at a time: a crash
//! drops the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, Moving, Record, StoreId};
use driftless_proto::{BucketDefinition, Failure, ProtocolVersion, ProtocolVersions, Topology};
use driftless_ring::{Member, NodeId, Partitions, Ring, RingSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::membership::letter::Ballot;
use crate::membership::paxos::Standing;
use crate::membership::{
    Apart, Candidate, DecidedRecord, Letter, Membership, MembershipConfig, Output, Progress, files,
};
use crate::planted::Planted;
use crate::time::Instant;

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    founding: Arc<Topology>,
    /// Pairs that do not hear each other.
    cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) weather: Weather,
    /// What anybody has written down as decided.
    pub(super) records: BTreeMap<u64, Record>,
    /// Who has durably accepted what.
    accepted: BTreeMap<(u64, Ballot), BTreeSet<(NodeId, StoreId)>>,
    /// What a majority has durably accepted.
    chosen: BTreeMap<u64, u128>,
    /// Whom operators would have left out when it was founded, where enough others were left; at first nobody.
    left_out: Vec<BTreeSet<NodeId>>,
    /// What was decided by one alone.
    pub(super) forced: BTreeSet<u128>,
    operations: BTreeMap<u64, Operation>,
    pub(super) answers: BTreeMap<u64, Result<ClusterAnswer, Failure>>,
    tags: u64,
}

/// How the network is.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) twice: f64,
    pub(super) delay: Duration,
    /// Of shards, to do what a version asks of them.
    pub(super) shards: Duration,
}

pub(super) struct Node {
    pub(super) member: Member,
    /// The highest version of the protocol that its release speaks.
    pub(super) speaks: ProtocolVersion,
    pub(super) store: StoreId,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) machine: Option<Membership>,
    /// It will never come back.
    pub(super) is_dead: bool,
    is_wiped: bool,
    life: u64,
    wakes_at: Option<Instant>,
    executes: bool,
    version: u64,
    /// Whom it shows as one with another history.
    pub(super) apart: Vec<Apart>,
}

enum Event {
    Deliver { from: NodeId, to: NodeId, letter: Box<Letter> },
    Wake { node: NodeId, life: u64 },
    Execute { node: NodeId, life: u64 },
    Shards { node: NodeId, life: u64 },
}

/// An operator who stages, plans and commits.
struct Operation {
    node: NodeId,
}

impl Node {
    /// Whether it has another store than it began with.
    pub(super) fn store_changed(&self) -> bool {
        self.is_wiped || self.is_dead
    }
}

impl World {
    pub(super) fn new(seed: u64, founders: usize, spares: usize, weather: Weather) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let member = |number: usize| {
            Member::new(format!("n{number}"), format!("n{number}:7400")).in_zone(["a", "b", "c"][number % 3])
        };
        let members: Vec<Member> = (1..=founders).map(member).collect();
        let spec = RingSpec {
            partitions: Partitions::new(16).unwrap(),
            hash_seed: 7,
            members,
            classes: BTreeSet::from([founders.min(3) as u8]),
        };
        let buckets = vec![BucketDefinition::built_in(founders)];
        let founding = Arc::new(Topology::new("test", Ring::first(spec).unwrap(), buckets).unwrap());
        let nodes = (1..=founders + spares).map(member).map(|member| {
            let node = Node {
                store: StoreId(rng.random()),
                member,
                speaks: ProtocolVersions::OURS.highest(),
                files: BTreeMap::new(),
                machine: None,
                is_dead: false,
                is_wiped: false,
                life: 0,
                wakes_at: None,
                executes: false,
                version: 0,
                apart: Vec::new(),
            };
            (node.member.id, node)
        });
        let nodes = nodes.collect();
        let mut world = World {
            now: Instant(1_000_000),
            rng,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes,
            founding,
            cut: BTreeSet::new(),
            weather,
            records: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            left_out: vec![BTreeSet::new()],
            forced: BTreeSet::new(),
            operations: BTreeMap::new(),
            answers: BTreeMap::new(),
            tags: 0,
        };
        for node in world.ids() {
            world.start(node);
        }
        world
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn founding(&self) -> &Arc<Topology> {
        &self.founding
    }

    /// Those that run.
    pub(super) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.machine.is_some()).map(|(node, _)| *node).collect()
    }

    pub(super) fn machine(&self, node: NodeId) -> &Membership {
        self.nodes[&node].machine.as_ref().expect("it runs")
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let (now, seed, founding) = (self.now, self.rng.random(), self.founding.clone());
        let state = self.nodes.get_mut(&node).unwrap();
        if state.machine.is_some() || state.is_dead {
            return;
        }
        state.life += 1;
        (state.wakes_at, state.executes) = (None, false);
        state.apart.clear();
        let candidate = Candidate { member: state.member.clone(), store: state.store };
        let files = state.files.clone().into_iter().collect();
        let config = MembershipConfig { candidate, founding, files, seed, planted: Planted::default() };
        let machine = Membership::new(config, now).expect("its files are what it has written");
        assert!(machine.configurations().version() >= state.version, "a version that was followed is forgotten");
        state.machine = Some(machine);
        for peer in self.running().into_iter().filter(|peer| *peer != node) {
            if !self.is_cut(node, peer) {
                self.connect(node, peer);
            }
        }
        self.after_input(node);
        self.shards_soon(node);
    }

    /// What it has not carried out is lost.
    pub(super) fn crash(&mut self, node: NodeId) {
        let state = self.nodes.get_mut(&node).unwrap();
        if state.machine.take().is_none() {
            return;
        }
        let now = self.now;
        for peer in self.running() {
            self.input(peer, |machine| machine.handle_disconnected(now, node));
        }
    }

    /// It comes back with an empty disk.
    pub(super) fn wipe(&mut self, node: NodeId) {
        self.crash(node);
        let store = StoreId(self.rng.random());
        let state = self.nodes.get_mut(&node).unwrap();
        state.files.clear();
        (state.store, state.version, state.is_wiped) = (store, 0, true);
    }

    /// It comes back as it was when it had these files.
    pub(super) fn set_back(&mut self, node: NodeId, files: BTreeMap<String, Vec<u8>>) {
        self.crash(node);
        let state = self.nodes.get_mut(&node).unwrap();
        (state.files, state.version) = (files, 0);
    }

    pub(super) fn bury(&mut self, node: NodeId) {
        self.crash(node);
        self.nodes.get_mut(&node).unwrap().is_dead = true;
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        let (now, speaks) = (self.now, self.nodes[&a].speaks.min(self.nodes[&b].speaks));
        self.input(a, |machine| machine.handle_connected(now, b, speaks));
        self.input(b, |machine| machine.handle_connected(now, a, speaks));
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Those of one side hear those of the other no more.
    pub(super) fn split(&mut self, side: &BTreeSet<NodeId>) {
        self.mend();
        let (now, running) = (self.now, self.running());
        for a in self.ids() {
            for b in self.ids().into_iter().filter(|b| a < *b && side.contains(&a) != side.contains(b)) {
                self.cut.insert((a, b));
                if running.contains(&a) && running.contains(&b) {
                    self.input(a, |machine| machine.handle_disconnected(now, b));
                    self.input(b, |machine| machine.handle_disconnected(now, a));
                }
            }
        }
    }

    pub(super) fn mend(&mut self) {
        let running = self.running();
        for (a, b) in std::mem::take(&mut self.cut) {
            if running.contains(&a) && running.contains(&b) {
                self.connect(a, b);
            }
        }
    }

    /// Gives a command; the answer is under the number.
    pub(super) fn command(&mut self, node: NodeId, command: ClusterCommand) -> u64 {
        self.tags += 1;
        let (now, tag) = (self.now, self.tags);
        if let ClusterCommand::Found { without, yes: true } = &command {
            let left_out: BTreeSet<NodeId> = without.iter().map(|name| NodeId::of_name(name)).collect();
            if left_out.len() * 2 < self.founding.ring().members().len() {
                self.left_out.push(left_out);
            }
        }
        self.input(node, |machine| machine.handle_command(now, tag, command));
        tag
    }

    /// Gives a command and waits for the answer.
    pub(super) fn ask(&mut self, node: NodeId, command: ClusterCommand) -> Result<ClusterAnswer, String> {
        let tag = self.command(node, command);
        self.run_until(Duration::from_secs(10), |world| world.answers.contains_key(&tag));
        let answer = self.answers.remove(&tag).expect("commands are answered within ten seconds");
        answer.map_err(|failure| failure.to_string())
    }

    /// An operator stages this at a node, plans, and commits.
    pub(super) fn operate(&mut self, node: NodeId, change: Change) {
        let tag = self.command(node, ClusterCommand::Stage(change));
        self.operations.insert(tag, Operation { node });
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
    }

    /// Whether it came to be.
    pub(super) fn run_until(&mut self, time: Duration, is_so: impl Fn(&World) -> bool) -> bool {
        let end = self.now + time;
        while !is_so(self) {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
                self.now = end;
                return is_so(self);
            };
            self.now = self.now.max(entry.key().0);
            let event = entry.remove();
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Deliver { from, to, letter } => {
                let speaks = self.nodes[&from].speaks.min(self.nodes[&to].speaks);
                assert!(letter.spoken_from() <= speaks, "{to} could not read {letter:?}");
                if !self.is_cut(from, to) {
                    self.input(to, |machine| machine.handle_letter(now, from, *letter));
                }
            }
            Event::Wake { node, life } => {
                let state = self.nodes.get_mut(&node).unwrap();
                if state.life == life && state.wakes_at.is_some_and(|at| at <= now) {
                    state.wakes_at = None;
                    self.input(node, |machine| machine.handle_timeout(now));
                }
            }
            Event::Execute { node, life } => {
                let state = self.nodes.get_mut(&node).unwrap();
                if state.life != life {
                    return;
                }
                state.executes = false;
                if let Some(output) = state.machine.as_mut().and_then(Membership::poll_output) {
                    self.execute(node, output);
                }
                self.after_input(node);
            }
            Event::Shards { node, life } => {
                let state = &self.nodes[&node];
                let Some(machine) = state.machine.as_ref().filter(|_| state.life == life) else { return };
                let configurations = machine.configurations().clone();
                let version = configurations.version();
                let progress = Progress {
                    version,
                    closed: configurations.closes(),
                    ready: version,
                    left: if configurations.has_active_before() { 0 } else { version },
                    moving: Moving::default(),
                    held_bytes: 4_800,
                    held_slots: 48,
                };
                self.input(node, |machine| machine.handle_progress(now, progress));
            }
        }
    }

    fn execute(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Write { name, bytes: None } => {
                self.nodes.get_mut(&node).unwrap().files.remove(&name);
            }
            Output::Write { name, bytes: Some(bytes) } => {
                if files::version_of(&name).is_some() {
                    self.check_record(files::decode(&name, &bytes).unwrap());
                } else if name == files::BALLOT {
                    self.check_accepted(node, files::decode(&name, &bytes).unwrap());
                }
                self.nodes.get_mut(&node).unwrap().files.insert(name, bytes);
            }
            Output::Send { to, letter } => self.post(node, to, letter),
            Output::Configurations(configurations) => {
                let state = self.nodes.get_mut(&node).unwrap();
                assert!(configurations.version() >= state.version, "versions never go back");
                let is_news = configurations.version() > state.version || configurations.is_agreed();
                state.version = configurations.version();
                let name = files::record(state.version);
                let is_durable = state.files.contains_key(&name) || !configurations.is_agreed();
                assert!(is_durable, "a version is durable before it is followed");
                // That others go by the file too says nothing to those who follow versions.
                if is_news {
                    self.shards_soon(node);
                }
            }
            Output::Apart(apart) => self.nodes.get_mut(&node).unwrap().apart = apart,
            Output::Answer { tag, answer } => self.answered(tag, answer),
        }
    }

    fn answered(&mut self, tag: u64, answer: Result<ClusterAnswer, Failure>) {
        if let Some(Operation { node }) = self.operations.remove(&tag) {
            let next = match &answer {
                Ok(ClusterAnswer::Staged(_)) => Some(ClusterCommand::Plan),
                Ok(ClusterAnswer::Plan(plan)) => Some(ClusterCommand::Commit { plan: plan.name.clone() }),
                _ => None,
            };
            if let Some(next) = next.filter(|_| self.nodes[&node].machine.is_some()) {
                let tag = self.command(node, next);
                self.operations.insert(tag, Operation { node });
            }
        }
        self.answers.insert(tag, answer);
    }

    fn post(&mut self, from: NodeId, to: NodeId, letter: Letter) {
        let Weather { loss, twice, delay, .. } = self.weather;
        let copies = if self.rng.random_bool(loss) { 0 } else { 1 + usize::from(self.rng.random_bool(twice)) };
        for _ in 0..copies {
            let delay = delay.mul_f64(self.rng.random::<f64>().powi(3));
            let letter = Box::new(letter.clone());
            self.schedule(delay, Event::Deliver { from, to, letter });
        }
    }

    fn shards_soon(&mut self, node: NodeId) {
        let (life, delay) = (self.nodes[&node].life, self.weather.shards.mul_f64(self.rng.random()));
        self.schedule(delay, Event::Shards { node, life });
    }

    fn input(&mut self, node: NodeId, input: impl FnOnce(&mut Membership)) {
        let Some(machine) = self.nodes.get_mut(&node).and_then(|state| state.machine.as_mut()) else { return };
        input(machine);
        self.after_input(node);
    }

    fn after_input(&mut self, node: NodeId) {
        let (now, disk) = (self.now, Duration::from_micros(self.rng.random_range(1..2_000)));
        let state = self.nodes.get_mut(&node).unwrap();
        let Some(machine) = &state.machine else { return };
        let (life, wakes_at) = (state.life, machine.poll_timeout().max(now));
        if !std::mem::replace(&mut state.executes, true) {
            if machine.outputs.is_empty() {
                state.executes = false;
            } else {
                self.schedule(disk, Event::Execute { node, life });
            }
        }
        let state = self.nodes.get_mut(&node).unwrap();
        if state.wakes_at.is_none_or(|at| wakes_at < at) {
            state.wakes_at = Some(wakes_at);
            self.schedule(wakes_at.since(now), Event::Wake { node, life });
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    /// At most one record for each version, and none that was not chosen; but for those that were forced.
    fn check_record(&mut self, decided: DecidedRecord) {
        let (version, digest) = (decided.record.version(), decided.record.digest());
        if decided.record.forced_on.is_some() {
            self.forced.insert(digest);
        } else {
            assert_eq!(self.chosen.get(&version), Some(&digest), "version {version} was written down and never chosen");
        }
        self.records.entry(version).or_insert(decided.record);
    }

    /// At most one value is ever accepted by as many as it takes.
    fn check_accepted(&mut self, node: NodeId, standing: Standing) {
        let Some((ballot, record)) = standing.accepted else { return };
        let (slot, store, digest) = (standing.slot, self.nodes[&node].store, record.digest());
        let by = self.accepted.entry((slot, ballot)).or_default();
        by.insert((node, store));
        let needed = match self.records.get(&(slot - 1)) {
            None => {
                assert_eq!(slot, 2);
                let names: BTreeSet<NodeId> = by.iter().map(|(node, _)| *node).collect();
                let all: BTreeSet<NodeId> = self.founding.ring().members().iter().map(|member| member.id).collect();
                let is_enough =
                    self.left_out.iter().any(|left_out| all.difference(left_out).all(|node| names.contains(node)));
                (usize::from(is_enough), 1)
            }
            Some(before) => {
                let is_voter = |(node, store): &&(NodeId, StoreId)| {
                    before.voters.contains(node) && before.store_of(*node) == Some(*store)
                };
                (by.iter().filter(is_voter).count(), before.voters.len() / 2 + 1)
            }
        };
        if needed.0 >= needed.1 {
            let before = *self.chosen.entry(slot).or_insert(digest);
            assert_eq!(before, digest, "two records were decided for version {slot}");
        }
    }
}
