//! The world of one seed: everything that exists, and what each event does to it.
//!
//! Which events there are says `schedule`; how a run goes through its phases says `run`. Clients' side of the events
//! is in `world/clients.rs` and `world/walks.rs`, that of syncs in `world/disks.rs`, the nemesis' in `world/strikes.rs`; what a reader of
//! the trace is told beside them in `world/story.rs`; who joins and leaves in `world/membership.rs`.
//!
//! What exists is in four parts: the `cluster`, the `workload`, the `judges` and the `nemesis`, each in a file of its own.

mod archive;
mod changes;
pub(super) mod claims;
mod clients;
mod disaster;
mod disks;
mod membership;
mod story;
mod strikes;
mod walks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use driftless_antientropy::message::{Answer, Ask, Refused};
use driftless_node::engine::{ClientTag, Output};
use driftless_node::liveness::Liveness;
use driftless_node::peer::{
    Body, Exchange, Exchanged, Lane, Message, Purpose, ReplicaRequest, Reply, Request, WireMessage,
};
use driftless_node::planted::Planted;
use driftless_node::time::Instant;
use driftless_proto::client::{Deleted, Response, Sibling, Stored};
use driftless_proto::{Conflict, Failure, Header, Refusal};
use driftless_ring::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::agreement::Heard;
use super::archivist::Archivist;
use super::check::Violation;
use super::check::durability::{DurabilityOracle, Scene};
use super::client::Client;
use super::clock::SKEW_MS_MAX;
use super::cluster::Cluster;
use super::describe;
use super::faults::{DiskErrors, Fault, downtime};
use super::generator::Intention;
use super::hints::HintWatch;
use super::history::{History, OpId, Slot, slot_text};
use super::judges::Judges;
use super::nemesis::Nemesis;
use super::network::Arrival;
use super::node::{Input, Node, Turn};
use super::observer::Stamp;
use super::profile::{Healing, Profile, Regime};
use super::reused_ids::ReusedIds;
use super::schedule::{Event, Micros, Schedule};
use super::shape;
use super::shard::Shard;
use super::trace::{Line, Trace};
use super::walker::Walker;
use super::workload::{Attempt, Workload};
use changes::Operator;
use claims::Claims;
use disaster::ACTIVE_LONGER;
use story::{SENDS, Story};

/// Everything that exists.
pub struct World {
    /// What the seed drew.
    pub profile: Profile,
    /// Whether clients draw operations, and faults happen.
    pub phase: Phase,
    /// What will happen.
    pub schedule: Schedule,
    /// What happened.
    pub trace: Trace,
    /// The nodes, their ring, and the network between them.
    pub cluster: Cluster,
    /// Who asks, and what they were told.
    pub workload: Workload,
    /// Who looks on.
    pub judges: Judges,
    nemesis: Nemesis,
    /// Who changes the members, where they change.
    operator: Option<Operator>,
    story: Story,
    /// Dice of starts and turns.
    rng: StdRng,
    disk_rng: StdRng,
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Clients ask, the nemesis acts.
    Active,
    /// Nothing is wrong any more; clients follow their scripts.
    Calm,
}

impl World {
    /// A world with all nodes running and no connection made yet.
    pub fn new(seed: u64, planted: Planted, keep_lines: bool) -> World {
        // One generator for each concern: that a client asks once more does not change the network's dice.
        let mut source = StdRng::seed_from_u64(seed);
        let mut split = || StdRng::seed_from_u64(source.random());
        let (mut draw, network, rng, disk_rng, fault_rng, mut client_rng, mut error_rng) =
            (split(), split(), split(), split(), split(), split(), split());
        let reused_ids = ReusedIds::draw(split());
        let walkers = Walker::draw(split());
        let (mut ack_rng, mut rot_rng) = (split(), split());
        let mut explain_rng = split();
        let explain_rng = explain_rng.random_bool(0.3).then_some(explain_rng);
        let mut profile = Profile::draw(Regime::of_seed(seed), &mut draw);
        let mut delete_rng = split();
        profile = profile.with_blind_deletes(&mut delete_rng);
        profile.faults.errors = DiskErrors::draw(profile.faults.rollback, &mut error_rng);
        profile.faults.errors.two_disks = !profile.faults.rollback && rot_rng.random_bool(0.4);
        if profile.faults.errors.damage && error_rng.random_bool(0.4) {
            profile = profile.of_damage();
        }
        profile.faults = profile.faults.with_lost_handoff_acks(&mut ack_rng);
        profile = profile.with_shards(&mut split()).with_bounds(&mut split()).with_a_crowd(&mut split());
        let mut claim_rng = split();
        profile.faults.claims = claim_rng.random_bool(0.25);
        profile = profile.with_dying_fallbacks(&mut split());
        let mut operator_rng = split();
        let steps = profile.change_members(&mut operator_rng);
        let archivists = Archivist::draw(split());
        let strikes_at = profile.with_a_disaster(steps, &mut split());
        let mut cluster = Cluster::new(&profile, planted, network);
        if steps > 0 {
            cluster.agree_on_members();
        }
        let mut world = World {
            phase: Phase::Active,
            schedule: Schedule::default(),
            trace: Trace::new(keep_lines),
            judges: Judges::new(&cluster, profile.faults.errors.damage),
            cluster,
            workload: Workload {
                clients: (0..profile.clients)
                    .map(|_| Client::new(StdRng::seed_from_u64(client_rng.random())))
                    .collect(),
                history: History::default(),
                walkers,
                archivists,
                attempts: BTreeMap::new(),
                gone: BTreeMap::new(),
                deleting: None,
                reused_ids,
                explain_rng,
                delete_rng,
            },
            nemesis: Nemesis {
                rotting: BTreeMap::new(),
                copied: None,
                set_back: None,
                claims: Claims::new(claim_rng),
                rng: fault_rng,
                error_rng,
                rot_rng,
                ack_rng,
            },
            operator: None,
            story: Story::default(),
            rng,
            disk_rng,
            profile,
        };
        if steps > 0 {
            world.operator = Some(Operator::new(steps, strikes_at, operator_rng));
            world.schedule.at(50_000, Event::Operate);
        }
        world.begin();
        if strikes_at.is_some() {
            // What the nemesis has planned is over by then.
            world.profile.active += ACTIVE_LONGER;
        }
        world
    }

    /// Lets time pass until a moment, or until an event for which `enough` holds afterwards.
    pub fn run_until(&mut self, until: Micros, mut enough: impl FnMut(&World) -> bool) {
        while let Some(event) = self.schedule.next(until) {
            self.happen(event);
            self.tell_what_broke();
            assert!(self.trace.events() < EVENTS_MAX, "the world does not come to rest: {EVENTS_MAX} events");
            if enough(self) {
                return;
            }
        }
    }

    /// Asks the oracle whether what was acknowledged is where it has to be.
    pub fn judge(&mut self, when: &str) {
        self.ask_oracle(|oracle, scene| oracle.again(when, scene));
    }

    /// The same of some keys. Not in the calm phase, where a disk may be damaged behind its node's back.
    fn judge_keys(&mut self, slots: &BTreeSet<Slot>, when: &str) {
        if self.phase == Phase::Calm {
            return;
        }
        self.ask_oracle(|oracle, scene| slots.iter().for_each(|slot| oracle.again_of(slot, when, scene)));
    }

    fn ask_oracle(&mut self, ask: impl FnOnce(&mut DurabilityOracle, &Scene<'_>)) {
        self.judges.ask_oracle(&self.cluster, &self.workload.history, ask);
    }

    /// How many messages between nodes arrived twice, and how many never.
    pub fn messages(&self) -> (u64, u64) {
        (self.cluster.network.duplicated, self.cluster.network.lost)
    }

    fn begin(&mut self) {
        self.trace.note(0, "world", &[], &[], || Line::general("world", self.profile.to_string()));
        if let Some(ReusedIds { pool, .. }) = self.workload.reused_ids {
            self.say(format_args!("clients share {pool} write ids at a time"));
        }
        for node in self.cluster.numbers() {
            if self.profile.faults.clocks {
                self.cluster[node].clock.skew_ms = self.nemesis.rng.random_range(-SKEW_MS_MAX / 10..SKEW_MS_MAX / 10);
            }
            self.start(node);
        }
        for (at, fault) in self.nemesis.plan(&self.profile, &self.cluster) {
            self.schedule.at(at, Event::Fault(fault));
        }
        for client in 0..self.workload.clients.len() {
            let asks = &mut self.workload.clients[client];
            if client >= 2 && asks.rng.random_bool(0.3) {
                asks.watches = Some(Intention::draw_slot(&self.profile, self.cluster.topology(), &mut asks.rng));
            }
            let delay = self.rng.random_range(0..60_000);
            self.schedule.after(delay, Event::ClientNext { client });
        }
        for walker in 0..self.workload.walkers.len() {
            let delay = self.workload.walkers[walker].rng.random_range(0..60_000);
            self.schedule.after(delay, Event::WalkNext { walker });
        }
        for archivist in 0..self.workload.archivists.len() {
            let delay = self.workload.archivists[archivist].rng.random_range(0..60_000);
            self.schedule.after(delay, Event::ArchiveNext { archivist });
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Peer { from, to, connection, shard, wire, fingerprint } => {
                self.arrive((from, shard), to, connection, wire, fingerprint);
            }
            Event::Datagram { from, to, connection, bytes } => self.datagram_arrives(from, to, connection, bytes),
            Event::Turn { node, life, shard } => {
                if let Some(busy) = self.shard_of_life(node, life, shard)
                    && std::mem::take(&mut busy.turn_planned)
                {
                    self.turn(node, shard);
                }
            }
            Event::Timer { node, life, shard } => {
                let now = self.schedule.now();
                if let Some(idle) = self.shard_of_life(node, life, shard)
                    && idle.timer_planned.take_if(|planned| *planned == now).is_some()
                {
                    self.turn(node, shard);
                }
            }
            Event::SyncDone { node, life, up_to, covered } => {
                if self.cluster[node].life == life {
                    self.sync_done(node, up_to, covered);
                }
            }
            Event::ConnectionLost { node, peer, connection } => {
                if self.cluster.network.lose(node, peer, connection, &mut self.schedule) {
                    self.connection_lost(node, peer);
                }
            }
            Event::Connect { a, b } => {
                if self.cluster.network.connect(a, b) {
                    self.note("connect", &[a as u64, b as u64], || {
                        Line::general("world", format!("n{a} and n{b} connect"))
                    });
                    self.give(a, Input::Up(self.cluster[b].id));
                    self.give(b, Input::Up(self.cluster[a].id));
                }
            }
            Event::Restart { node } => self.start(node),
            Event::Operate => self.operate(),
            Event::CrashSoon { node, life } => {
                if self.cluster[node].life == life && self.cluster[node].runs() && self.phase == Phase::Active {
                    let down = downtime(&mut self.nemesis.rng);
                    self.crash(node, down);
                }
            }
            Event::Fault(fault) => self.strike(fault),
            Event::Request { to, client, attempt, remaining, request } => {
                self.request_arrives(to, client, attempt, remaining, request);
            }
            Event::Response { client, attempt, response } => self.response_arrives(client, attempt, &response),
            Event::ClientNext { client } => self.client_next(client),
            Event::WalkNext { walker } => self.walk_next(walker),
            Event::Page { walker, attempt, response } => self.page_arrives(walker, attempt, response.as_ref()),
            Event::ArchiveNext { archivist } => self.archive_next(archivist),
            Event::Archived { archivist, attempt, response } => self.archive_answered(archivist, attempt, response),
            Event::ClientTimeout { client, attempt } => self.client_timeout(client, attempt),
        }
    }

    fn arrive(&mut self, (from, shard): (usize, u16), to: usize, connection: u64, wire: WireMessage, fingerprint: u64) {
        match self.cluster.network.arrival(from, to, connection) {
            Arrival::Dropped => {
                self.note("dropped", &[from as u64, to as u64], || {
                    Line::general("world", format!("a message n{from} to n{to} dies with its connection"))
                });
            }
            Arrival::Retransmitted => {
                let delay = self.cluster.network.retransmit_delay();
                self.schedule.after(delay, Event::Peer { from, to, connection, shard, wire, fingerprint });
            }
            Arrival::Delivered => {
                let message = Message::from_wire(wire, self.instant(to));
                self.trace.note(self.schedule.now(), "receives", &[to as u64, from as u64, fingerprint], &[], || {
                    self.story.line_of_message("receives from", to, from, &message, &self.workload.history)
                });
                let from = self.cluster[from].id;
                self.give(to, Input::Peer { from, shard, message });
            }
        }
    }

    fn datagram_arrives(&mut self, from: usize, to: usize, connection: u64, bytes: Bytes) {
        if self.cluster.network.receives(from, to, connection) {
            self.trace.note(self.schedule.now(), "datagram", &[from as u64, to as u64], &bytes, || {
                let text = format!("receives a datagram of {} bytes from n{from}", bytes.len());
                Line::routine(shape::name_of(to), text)
            });
            self.give(to, Input::Datagram { from: self.cluster[from].id, bytes });
        }
    }

    /// Leaves an input for the shards of a node that it is for, and plans the turns that take it.
    fn give(&mut self, node: usize, input: Input) {
        for shard in self.cluster[node].receive(input) {
            self.plan_turn(node, shard);
        }
    }

    fn plan_turn(&mut self, node: usize, shard: usize) {
        let Node { life, paused, ref mut shards, .. } = self.cluster[node];
        if let Some(busy) = shards.get_mut(shard)
            && !paused
            && !std::mem::replace(&mut busy.turn_planned, true)
        {
            let delay = self.rng.random_range(0..=self.profile.turn);
            self.schedule.after(delay, Event::Turn { node, life, shard });
        }
    }

    fn shard_of_life(&mut self, node: usize, life: u64, shard: usize) -> Option<&mut Shard> {
        let node = &mut self.cluster[node];
        if node.life == life { node.shards.get_mut(shard) } else { None }
    }

    fn turn(&mut self, node: usize, shard: usize) {
        if self.cluster[node].paused || !self.cluster[node].runs() {
            return;
        }
        let now = self.schedule.now();
        let rots = self.nemesis.rotting.contains_key(&node);
        let set_apart = if rots { self.cluster[node].damaged() } else { Vec::new() };
        let mut news = HintWatch::news(&self.cluster[node].shards[shard]);
        let Turn { outputs, agreed, datagrams, opinions, found_clock_off, mut stamps, left, read } =
            self.cluster[node].turn(now, shard);
        news.truncate(news.len() - left);
        let before_acks = self.judges.hints.before_acks(node, news);
        self.judges.coverage.add("clocks found off", found_clock_off.into());
        self.judge_turn(node, shard, left, read);
        let life = (node, self.cluster[node].life);
        let mut halted = None;
        let retired = self.take_retired(node);
        let log = self.cluster[node].store.take_log();
        let newest = self.cluster[node].store.applied().0;
        for (number, batch) in (newest + 1 - log.len() as u64..).zip(log) {
            let removed = self.judges.hints.applied(node, &batch, &mut self.judges.coverage);
            self.cluster[node].removed.extend(removed);
            self.check_restored(node, &set_apart, &batch);
            let fresh = self.judges.observer.applied(now, life, std::mem::take(&mut stamps), &batch);
            self.note_stamps(node, &fresh);
            self.tell_batch(node, number, &batch);
        }
        for hint in self.cluster[node].store.take_removed() {
            self.check_handed_over(node, &hint, &before_acks);
        }
        for (to, bytes) in datagrams {
            self.send_datagram(node, to, &bytes);
        }
        for (peer, liveness) in opinions {
            self.note_opinion(node, peer, liveness);
        }
        for output in outputs {
            match output {
                Output::Send { to, message } => self.send((node, shard), to, message),
                Output::Reply { to, response } => self.reply(node, to, response),
                Output::Sync(batch) => self.sync(node, shard, batch),
                // Of a shard beside the first.
                Output::Behind(peer) => self.give(node, Input::Heard(Heard::Behind(peer))),
                // Nothing leaves any more.
                Output::Halt(reason) => {
                    halted = Some(reason);
                    break;
                }
            }
        }
        self.take_agreed(node, agreed);
        self.nemesis.claims.retired(retired);
        if let Some(reason) = halted {
            self.note("halt", &[node as u64], || Line::general(shape::name_of(node), format!("halts: {reason}")));
            self.judges.coverage.add("halts", 1);
            let down = downtime(&mut self.nemesis.rng);
            self.crash(node, down);
            return;
        }
        self.plan_timer(node, shard);
        // What the detector thinks is news for the other shards.
        for other in 0..self.cluster[node].shards.len() {
            if other != shard && self.cluster[node].shards[other].has_input() {
                self.plan_turn(node, other);
            }
        }
    }

    /// A turn ends, whatever is asked and whatever is stored.
    fn judge_turn(&mut self, node: usize, shard: usize, left: usize, (read, largest): (usize, usize)) {
        let most = shape::turn_bounds(&self.profile).bytes_read_max(largest);
        if read > most {
            let text = format!("n{node} read {read} bytes in one turn, {largest} at once; at most {most} are right");
            self.judges.violations.push(Violation::general("bounded turns", text));
        }
        if left > 0 {
            self.judges.coverage.add("turns that left something to the next", 1);
            self.plan_turn(node, shard);
        }
    }

    fn plan_timer(&mut self, node: usize, shard: usize) {
        let Some(wakes) = self.cluster[node].wakes_at(shard) else {
            return;
        };
        let now = self.schedule.now();
        let at = wakes.max(now + 1);
        let idle = &mut self.cluster[node].shards[shard];
        if idle.timer_planned.is_none_or(|planned| planned > at || planned <= now) {
            idle.timer_planned = Some(at);
            self.schedule.at(at, Event::Timer { node, life: self.cluster[node].life, shard });
        }
    }

    fn note_stamps(&mut self, node: usize, fresh: &[driftless_proto::Dot]) {
        let mut keys = BTreeSet::new();
        let now = self.schedule.now();
        for dot in fresh {
            let stamp = self.judges.observer.stamp_of(*dot).expect("it was just stamped");
            if !keys.insert(stamp.slot.clone()) {
                self.judges.coverage.add("batches with several stamps of a key", 1);
            }
            let numbers = [node as u64, dot.actor.0, dot.counter];
            self.trace.note(now, "stamp", &numbers, &[], || {
                let op = describe::op(self.workload.history.write(&stamp.slot, stamp.write_id, stamp.value_hash));
                let text = format!("stamps {op} as {}", describe::dot(*dot));
                Line::about(shape::name_of(node), slot_text(&stamp.slot), text)
            });
        }
        self.strike_fallback(node, &keys);
        if let Some(stamped) = self.nemesis.rotting.get_mut(&node)
            && let Some(slot) = keys.pop_last()
        {
            *stamped = Some(slot);
            // A copy of the disk that was made for later must not hold what is damaged.
            let may_rot = !self.profile.faults.rollback || self.judges.disk_losses.was_set_back();
            if may_rot && self.nemesis.error_rng.random_bool(self.profile.faults.errors.damage_after_stamp) {
                let delay = self.nemesis.error_rng.random_range(300..20_000);
                self.schedule.after(delay, Event::Fault(Fault::Rot { node, how_many: 1, down: None }));
            }
        }
        let is_spared = self.operator.as_ref().is_some_and(Operator::waits_for_force);
        if self.phase == Phase::Active && !is_spared && self.nemesis.rng.random_bool(self.profile.crash_after_batch) {
            let delay = self.nemesis.rng.random_range(500..20_000);
            self.schedule.after(delay, Event::CrashSoon { node, life: self.cluster[node].life });
        }
    }

    fn send(&mut self, (from, shard): (usize, usize), to: NodeId, message: Message) {
        let Some(to) = self.cluster.number_of(to).filter(|to| *to != from) else {
            let text = format!("n{from} sends to {to}, which is itself or nobody");
            return self.judges.violations.push(Violation::general("the seam", text));
        };
        self.note_what_is_said(&message);
        self.judges.observer.sent(self.schedule.now(), (from, self.cluster[from].life), &message);
        self.judges.hints.sent(from, self.cluster[to].id, &message);
        let line = self.trace.keeps_lines().then(|| {
            self.story.sent(from, &message);
            self.story.line_of_message(SENDS, from, to, &message, &self.workload.history)
        });
        let mends = |request: &Request| match request.asks_replica() {
            Some(ReplicaRequest::Merge(merge)) => matches!(merge.purpose, Purpose::ReadRepair | Purpose::Handoff),
            _ => false,
        };
        let withheld = self.profile.healing == Healing::AntiEntropy
            && matches!(&message.body, Body::Request { request, .. } if mends(request));
        // A stream delivers once. What arrives twice was sent twice, as merges and reads may be; a forward never is.
        let repeatable = !matches!(&message.body, Body::Request { request: Request::Forward(_), .. });
        let lost = self.loses_ack(to, &message);
        let receiver = self.cluster[to].id;
        let asker = self.cluster[from].shard_of_asker(receiver, &message);
        let wire = message.to_wire(self.instant(from));
        let fingerprint = self.trace.fingerprint(&wire);
        let numbers = [from as u64, to as u64, fingerprint];
        self.trace.note(self.schedule.now(), SENDS, &numbers, &[], || line.expect("lines are kept"));
        let Some(connection) = self.cluster.network.connection(from, to).filter(|_| !withheld && !lost) else {
            return;
        };
        let shard = asker.unwrap_or(shard as u16);
        let delays = self.cluster.network.deliveries(repeatable);
        let copies = std::iter::repeat_n(wire, delays.len());
        for (delay, wire) in delays.into_iter().zip(copies) {
            self.schedule.after(delay, Event::Peer { from, to, connection, shard, wire, fingerprint });
        }
    }

    /// Whether this tells that a hint has arrived, and is lost: its sender still holds the hint, and may die with it.
    fn loses_ack(&mut self, to: usize, message: &Message) -> bool {
        let is_one = matches!(message.body, Body::Reply(Reply::Acked)) && message.id.lane() == Lane::Handoff;
        let chance = self.profile.faults.lost_handoff_acks;
        if !is_one || self.phase == Phase::Calm || !self.nemesis.ack_rng.random_bool(chance) {
            return false;
        }
        self.judges.coverage.add("acks of hints lost", 1);
        if self.nemesis.ack_rng.random_bool(0.3) {
            let delay = self.nemesis.ack_rng.random_range(500..20_000);
            self.schedule.after(delay, Event::CrashSoon { node: to, life: self.cluster[to].life });
        }
        true
    }

    fn note_what_is_said(&mut self, message: &Message) {
        if let Body::Request { request: Request::Exchange(Exchange::Step { request, .. }), .. } = &message.body
            && matches!(&request.ask, Ask::List(list) if list.after.is_some())
        {
            self.judges.coverage.add("leaves listed in several messages", 1);
        }
        self.judges.coverage.add("exchanges said to be over early", is_over_early(&message.body).into());
        let is_traced = matches!(&message.body, Body::Request { request: Request::Traced(_), .. });
        self.judges.coverage.add("requests to replicas with a trace", is_traced.into());
        let is_unready = matches!(&message.body, Body::Reply(Reply::Refused(Refusal::Unready)));
        self.judges.coverage.add("reads refused by a store that is not whole", is_unready.into());
        if let Body::Reply(Reply::Refused(Refusal::Overloaded { .. })) = &message.body {
            let what = match message.id.lane() {
                Lane::Coordinator => "writes refused as overloaded",
                Lane::Handoff => "hints refused as overloaded",
                Lane::AntiEntropy => "repairs refused as overloaded",
                Lane::Reachability => return,
            };
            self.judges.coverage.add(what, 1);
        }
    }

    fn send_datagram(&mut self, from: usize, to: NodeId, bytes: &Bytes) {
        let Some(to) = self.cluster.number_of(to) else { return };
        if let Some(connection) = self.cluster.network.connection(from, to) {
            for delay in self.cluster.network.datagram_deliveries() {
                self.schedule.after(delay, Event::Datagram { from, to, connection, bytes: bytes.clone() });
            }
        }
    }

    fn note_opinion(&mut self, node: usize, peer: NodeId, liveness: Liveness) {
        let Some(peer) = self.cluster.number_of(peer) else { return };
        self.note("thinks", &[node as u64, peer as u64, liveness as u64], || {
            Line::general(shape::name_of(node), format!("thinks that n{peer} is {liveness:?}"))
        });
        let is_well = self.cluster[peer].runs() && !self.cluster[peer].paused;
        match liveness {
            Liveness::Alive => self.judges.coverage.add("peers alive again", 1),
            Liveness::Suspect | Liveness::Down => {
                self.judges.coverage.add("peers suspected", 1);
                self.judges.coverage.add("wrong suspicions", u64::from(is_well));
            }
        }
    }

    fn reply(&mut self, node: usize, to: ClientTag, response: Response) {
        let (client, op) = match self.workload.attempts.get(&to.request) {
            Some(&Attempt::Operation { client, op }) => (client, op),
            Some(&Attempt::Page { walker }) => {
                self.note_other_arcs(node, walker, to.request, &response);
                let delay = self.workload.walkers[walker].rng.random_range(50..800);
                let page = Event::Page { walker, attempt: to.request, response: Some(response) };
                return self.schedule.after(delay, page);
            }
            Some(&Attempt::Archive { archivist }) => {
                let delay = self.workload.archivists[archivist].rng.random_range(50..800);
                let archived = Event::Archived { archivist, attempt: to.request, response: Some(response) };
                return self.schedule.after(delay, archived);
            }
            None => {
                let text = format!("n{node} answers request {}, which nobody made", to.request);
                return self.judges.violations.push(Violation::general("the seam", text));
            }
        };
        let slot = self.workload.history.get(op).slot.clone();
        let bytes = postcard::to_stdvec(&response).expect("an answer can be written");
        self.trace.note(self.schedule.now(), "reply", &[node as u64, to.request], &bytes, || {
            let text = format!("answers op {op} of c{client}: {}", describe::response_text(&response));
            Line::about(shape::name_of(node), slot_text(&slot), text)
        });
        // What is checked here is the answer itself; its explanation is held against it where the client has both.
        let (plain, told) = response.clone().into_plain();
        self.judges.coverage.add("answers that were explained", u64::from(told.is_some()));
        match &plain {
            Response::Stored(Stored { acks, .. }) | Response::Deleted(Deleted { existed: true, acks, .. }) => {
                self.check_trusted(node, op);
                self.check_holds(node, op, &plain);
                self.ask_oracle(|oracle, scene| oracle.acknowledged(op, *acks, scene));
            }
            Response::Read(read) => {
                let written = |sibling: &Sibling| self.workload.history.written(&slot, &sibling.value);
                let values = read.siblings.iter().filter_map(written).collect();
                self.ask_oracle(|oracle, scene| oracle.shown(op, values, scene));
            }
            Response::Failed(Failure::Refused(Refusal::WriteIdReused)) => {
                self.judges.coverage.add("write ids refused as reused", 1);
            }
            Response::Deleted(Deleted { acks, .. }) => {
                self.note_void(op);
                let gone = self.workload.gone.remove(&to.request).unwrap_or_default();
                self.judges
                    .coverage
                    .add("deletes that covered nothing live", u64::from(self.workload.history.get(op).seen.is_some()));
                self.ask_oracle(|oracle, scene| oracle.found_nothing(op, *acks, gone, scene));
            }
            _ => {}
        }
        if let Some(delay) = self.cluster.network.client_delivery() {
            self.schedule.after(delay, Event::Response { client, attempt: to.request, response });
        }
    }

    /// Whether a page was refused since its arc is one of fewer or of more than this node knows.
    fn note_other_arcs(&mut self, node: usize, walker: usize, attempt: u64, response: &Response) {
        let is_stale = matches!(response, Response::Failed(Failure::Refused(Refusal::StaleRing { .. })));
        let theirs = self.workload.walkers[walker].asks_by(attempt);
        let ours = self.cluster[node].configurations.as_ref().map(|ours| ours.topology().ring().partitions());
        let met = is_stale && theirs.is_some() && theirs != ours;
        self.judges.coverage.add("scans that met other arcs", u64::from(met));
    }

    /// A delete has found nothing. Whether others hold copies of the key for nodes that were not reached.
    fn note_void(&mut self, op: OpId) {
        let delete = self.workload.history.get(op);
        if delete.strict || delete.w < 2 {
            return;
        }
        let record = self.cluster.record_of(&delete.slot);
        let is_held = self.cluster.iter().any(|(_, node)| node.store.has_hint_of(&record));
        self.judges.coverage.add("sloppy deletes that found nothing beside hints", u64::from(is_held));
    }

    /// A put that is answered with nothing live has been deleted since, or is answered by a state that never held it.
    fn check_holds(&mut self, node: usize, op: OpId, response: &Response) {
        let write = self.workload.history.get(op);
        let keeps_siblings =
            self.cluster.topology().bucket(write.slot.0).is_some_and(|bucket| bucket.conflict == Conflict::Siblings);
        if !matches!(response, Response::Stored(stored) if stored.siblings == 0) || !keeps_siblings {
            return;
        }
        let is_other = |stamp: &Stamp| (stamp.write_id, stamp.value_hash) != (write.write_id, write.value_hash);
        let mut later = self.judges.observer.dots_in(&write.slot).filter(|(_, stamp)| is_other(stamp));
        let is_gone = |after: &Header| {
            self.judges.observer.dots_of(write).any(|(dot, _)| after.covers(dot) && after.get(dot).is_none())
        };
        if !later.any(|(_, stamp)| is_gone(&stamp.after)) {
            let text = format!("n{node} answered put {op} by a state without it");
            self.judges.violations.push(Violation::of("answers make sense", &write.slot.clone(), text));
        }
    }

    fn connection_lost(&mut self, node: usize, peer: usize) {
        self.judges.coverage.add("connections lost", 1);
        self.note("lost", &[node as u64, peer as u64], || {
            Line::general(shape::name_of(node), format!("loses its connection to n{peer}"))
        });
        self.give(node, Input::Lost(self.cluster[peer].id));
    }

    fn instant(&self, node: usize) -> Instant {
        self.cluster[node].clock.now(self.schedule.now()).instant
    }

    fn note(&mut self, kind: &'static str, numbers: &[u64], line: impl FnOnce() -> Line) {
        self.trace.note(self.schedule.now(), kind, numbers, &[], line);
    }

    fn say(&mut self, text: impl fmt::Display) {
        self.note("world", &[], || Line::general("world", text.to_string()));
    }
}

/// A run of three simulated seconds has some ten thousand events; one that has this many goes in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// Whether one side of an exchange tells the other, which may not know yet, that it is over before it is complete.
fn is_over_early(body: &Body) -> bool {
    match body {
        Body::Request { request: Request::Exchange(Exchange::Step { request, .. }), .. } => request.ask == Ask::Over,
        Body::Reply(Reply::Exchanged(Exchanged::Step(reply))) => {
            reply.answer == Answer::Refused(Refused::NoSuchExchange)
        }
        _ => false,
    }
}
