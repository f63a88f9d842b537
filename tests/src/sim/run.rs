//! One seed from the beginning to the verdict.
//!
//! ```text
//! active     clients ask, the nemesis acts
//! calm       everything heals and restarts; what is under way ends; then clients ask some more, undisturbed
//! reads      every key is read strictly from all its replicas, until they are equal or it took too long
//! verdict    every checker looks at all the evidence
//! ```

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use driftless_node::liveness::Liveness;
use driftless_node::planted::{Bug, Planted};
use driftless_proto::WriteId;

use super::check::{self, Evidence, Violation, past::Past};
use super::coverage::Coverage;
use super::describe;
use super::generator::Intention;
use super::history::{Ending, Kind, Slot, slot_text};
use super::profile::{Healing, Regime};
use super::schedule::Micros;
use super::world::World;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The mistake that its engines made.
    pub bug: Option<Bug>,
    /// How many nodes its world had.
    pub nodes: usize,
    /// How long the world lived, by its own clock.
    pub simulated: Micros,
    /// Hash of all events: the same for the same seed and the same code.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How many operations clients began.
    pub operations: usize,
    /// What was met.
    pub coverage: Coverage,
    /// How often the mistake changed what happened.
    pub hits: u64,
    /// Promises not kept.
    pub violations: Vec<Violation>,
    /// The trace, if it was asked for.
    pub trace: Option<String>,
}

/// Whether to keep a trace, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Only the hash.
    Nothing,
    /// Lines about the first key of a violation; nothing if there is none.
    Violation,
    /// All lines.
    Everything,
}

/// Runs a seed.
pub fn run(seed: u64, keep: Keep) -> Outcome {
    run_planted(seed, keep, None)
}

/// Runs a seed with engines that make a mistake.
pub fn run_planted(seed: u64, keep: Keep, bug: Option<Bug>) -> Outcome {
    let planted = bug.map_or_else(Planted::default, Planted::bug);
    let mut world = World::new(seed, planted.clone(), keep != Keep::Nothing);
    let lived = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let violations = match lived {
        Ok(violations) => violations,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            vec![Violation::general("no panic", text.unwrap_or_default())]
        }
    };
    let trace = match keep {
        Keep::Nothing => None,
        Keep::Everything => Some(world.trace.text()),
        Keep::Violation => violations.first().map(|violation| {
            let key = violation.slot.as_ref().map(slot_text);
            let story = world.trace.story(key.as_deref());
            match &violation.slot {
                Some(slot) => format!("{}\n{story}", describe::place(slot, world.cluster.topology())),
                None => story,
            }
        }),
    };
    Outcome {
        seed,
        bug,
        nodes: world.cluster.len(),
        simulated: world.schedule.now(),
        hash: world.trace.hash(),
        events: world.trace.events(),
        operations: world.workload.history.len(),
        coverage: std::mem::take(&mut world.judges.coverage),
        hits: planted.hits(),
        violations,
        trace,
    }
}

impl Outcome {
    /// What to tell somebody whose build just failed: the promise, the command that replays it, and the trace.
    pub fn report(&self) -> String {
        let regime = Regime::of_seed(self.seed);
        let mut text = format!("seed {} ({regime}) broke {}:\n", self.seed, counted(self.violations.len(), "promise"));
        for violation in self.violations.iter().take(REPORTED_MAX) {
            let key = violation.slot.as_ref().map(|slot| slot_text(slot) + ": ").unwrap_or_default();
            text += &format!("  {}: {key}{}\n", violation.promise, violation.text);
        }
        text += &format!("replay it, with everything that happened:\n  {}\n", self.replay());
        if let Some(trace) = &self.trace {
            let about = self.violations.first().and_then(|violation| violation.slot.as_ref()).map(slot_text);
            let about = about.map_or("what happened last".to_owned(), |key| format!("what happened to {key}"));
            text += &format!("\n{about}:\n{HOW_TO_READ}\n{trace}");
        }
        text
    }

    /// The command that repeats it.
    pub fn replay(&self) -> String {
        let planted = self.bug.map(|bug| format!(" --planted {}", bug.name())).unwrap_or_default();
        format!("cargo run --release -p driftless-tests --bin simulate --{planted} --seed {} --trace", self.seed)
    }
}

fn live(world: &mut World) -> Vec<Violation> {
    let active = world.profile.active;
    world.run_until(active, |_| false);

    world.make_calm();
    wait_for_rest(world);
    let settled = world.schedule.now() + SETTLE;
    world.run_until(settled, |_| false);
    // Of most voters lost at once more follows, and who has just started may not decide alone.
    for _ in 0..CHANGES_STEPS {
        wait_until(world, World::members_are_settled);
    }
    if !world.members_are_settled() {
        let standing = |(number, node): (usize, &super::node::Node)| {
            let progress = node.agreement.as_ref().map(|agreement| agreement.progress().to_vec());
            format!("n{number} {progress:?}, {} hints", node.store.hints())
        };
        let standing: Vec<String> = world.cluster.iter().map(standing).collect();
        let text = format!("a change of members does not come to its end: {}", standing.join("; "));
        let mut violations = std::mem::take(&mut world.judges.violations);
        violations.push(Violation::general("changes end", text));
        return violations;
    }
    ask_undisturbed(world);
    wait_for_rest(world);

    if world.profile.healing == Healing::AntiEntropy {
        wait_until(world, converged);
    } else {
        for _ in 0..READ_ROUNDS {
            read_everything(world);
            wait_for_rest(world);
            let late = world.schedule.now() + LATE_REPAIRS;
            world.run_until(late, |_| false);
            if converged(world) {
                break;
            }
        }
    }
    if world.profile.healing != Healing::AntiEntropy {
        // Where replicas have few places, hints are taken one by one.
        wait_until(world, |world| world.cluster.iter().all(|(_, node)| node.store.hints() == 0));
    }
    if world.profile.healing != Healing::Reads && converged(world) {
        // What nobody reads or writes may still be on its way, and would be repaired beside what is damaged.
        let have_spread = |world: &World| world.slots_claimed().all(|slot| world.cluster.agrees_on(slot));
        wait_until(world, have_spread);
        if have_spread(world) {
            damage(world);
        }
    }
    verdict(world)
}

/// Damages a disk behind its node's back: exactly what was damaged must be repaired, with nobody reading.
fn damage(world: &mut World) {
    let Some(damage) = world.profile.damage else { return };
    let records = |world: &World| -> Vec<_> { world.cluster.iter().map(|(_, node)| node.store.records()).collect() };
    // What clients have sent, and what is not synced, may still be on its way.
    let settled = world.schedule.now() + LATE_REPAIRS;
    world.run_until(settled, |_| false);
    let before = records(world);
    let repaired = |world: &World| -> BTreeMap<usize, u64> {
        world.cluster.iter().map(|(number, node)| (number, node.metrics.aae_keys_repaired.get())).collect()
    };
    let mut expected = repaired(world);
    let (node, altered) = world.damage(damage);
    *expected.entry(node).or_default() += altered as u64;
    let has_trees =
        |world: &World| world.cluster.iter().flat_map(|(_, node)| node.trees()).all(|(_, tree)| tree.is_some());
    wait_until(world, |world| records(world) == before && has_trees(world));
    let synced = world.schedule.now() + LATE_REPAIRS;
    world.run_until(synced, |_| false);
    if records(world) != before {
        let text = format!("n{node} did not get back what it lost: {damage:?}, {altered} records");
        world.judges.violations.push(Violation::general("healing", text));
    } else if repaired(world) != expected {
        let text = format!("{altered} records of n{node} were damaged, {:?} repaired", repaired(world));
        world.judges.violations.push(Violation::general("healing", text));
    }
    world.judges.coverage.add("damaged records healed", altered as u64);
}

pub(super) fn wait_until(world: &mut World, done: impl Fn(&World) -> bool) {
    for _ in 0..HEALING_STEPS {
        if done(world) {
            break;
        }
        let later = world.schedule.now() + LATE_REPAIRS;
        world.run_until(later, |_| false);
    }
}

pub(super) fn wait_for_rest(world: &mut World) {
    let deadline = world.schedule.now() + REST;
    world.run_until(deadline, World::clients_rest);
}

/// A little of everything, on keys that the active phase has used.
fn ask_undisturbed(world: &mut World) {
    let slots: Vec<Slot> = world.workload.history.slots().cloned().collect();
    if slots.is_empty() {
        return;
    }
    let clients = world.workload.clients.len();
    for turn in 0..clients * CALM_OPERATIONS {
        let slot = slots[turn % slots.len()].clone();
        let kind = [Kind::Get, Kind::Put, Kind::Get, Kind::Put, Kind::Delete][turn % 5];
        let write_id = WriteId(CALM_WRITE_IDS + turn as u128);
        world.assign(turn % clients, Intention::plain(kind, slot, write_id));
    }
    world.list_all_buckets();
}

pub(super) fn read_everything(world: &mut World) {
    let clients = world.workload.clients.len();
    let slots: Vec<Slot> = world.workload.history.slots().cloned().collect();
    for (turn, slot) in slots.into_iter().enumerate() {
        let n = world.cluster.topology().bucket(slot.0).map_or(1, |bucket| bucket.quorum.n());
        world.assign(turn % clients, Intention::read_of_all(slot, n));
    }
}

pub(super) fn converged(world: &World) -> bool {
    world.workload.history.slots().all(|slot| world.cluster.agrees_on(slot))
}

fn verdict(world: &mut World) -> Vec<Violation> {
    world.judge("at the end");
    count_keys(world);
    let forgetful = world.profile.write_ids_max < MANY_WRITE_IDS;
    let past = Past::new(&world.workload.history, &world.judges.observer, forgetful);
    let held = world.cluster.iter().map(|(number, node)| (number, node.store.written())).collect();
    let trees = world.cluster.iter().map(|(number, node)| (number, node.trees())).collect();
    let evidence = Evidence {
        topology: world.cluster.topology(),
        history: &world.workload.history,
        observer: &world.judges.observer,
        held: &held,
        trees: &trees,
        past: &past,
        losses: &world.judges.losses,
        disk_losses: &world.judges.disk_losses,
        members_change: world.cluster.agrees_on_members(),
        forgetful,
    };
    let mut violations = std::mem::take(&mut world.judges.violations);
    violations.append(&mut world.judges.oracle.violations);
    violations.extend(check::all(&evidence));
    for (number, node) in world.cluster.iter() {
        if node.metrics.actor_alarms.get() > world.claims_made(number) {
            violations.push(Violation::general("dots", format!("n{number} met dots of its own that it never stamped")));
        }
        if node.metrics.acks_unproven.get() > 0 {
            let text = format!("n{number} was about to acknowledge what its state does not hold");
            violations.push(Violation::general("durability", text));
        }
        if node.metrics.aae_drift.get() > 0 {
            violations.push(Violation::general("trees", format!("n{number} had a tree that drifted")));
        }
        if world.profile.healing != Healing::AntiEntropy && node.store.hints() > 0 {
            let text = format!("n{number} still holds {} hints", node.store.hints());
            violations.push(Violation::general("convergence", text));
        }
        if node.metrics.protocol_violations.get() > 0 {
            violations.push(Violation::general("the seam", format!("n{number} met messages that made no sense")));
        }
    }
    for (number, node) in world.cluster.iter() {
        let peers = world.cluster.iter().map(|(_, peer)| peer).filter(|peer| peer.id != node.id);
        let missed: Vec<_> = peers.filter(|peer| node.liveness(peer.id) != Some(Liveness::Alive)).collect();
        if let Some(peer) = missed.first() {
            let text = format!("n{number} still thinks {:?} of {}", node.liveness(peer.id), peer.id);
            violations.push(Violation::general("liveness", text));
        }
    }
    let met = met(world, &evidence);
    world.judges.coverage.join(&met);
    violations
}

/// What each shard says of hot keys is what it was asked.
fn count_keys(world: &mut World) {
    let at = world.schedule.now();
    for number in world.cluster.numbers() {
        let node = &mut world.cluster[number];
        let now = node.clock.now(at);
        for shard in &mut node.shards {
            match shard.check_counts(now) {
                Ok(requests) => world.judges.coverage.add("requests counted by key", requests),
                Err(text) => {
                    world.judges.violations.push(Violation::general("counts of keys", format!("n{number}: {text}")));
                }
            }
        }
    }
}

fn met(world: &World, evidence: &Evidence<'_>) -> Coverage {
    let mut met = Coverage::default();
    for (id, op) in world.workload.history.iter() {
        let writes = op.kind != Kind::Get;
        match op.ending {
            Ending::Ok => met.add(["gets ok", "puts ok", "deletes ok"][op.kind as usize], 1),
            Ending::Refused if writes => met.add("refused writes", 1),
            Ending::Unknown | Ending::Pending if writes => {
                met.add("unknown writes", 1);
                met.add("unknown writes that appeared", u64::from(world.judges.observer.dots_of(op).next().is_some()));
            }
            _ => {}
        }
        let void = op.kind == Kind::Delete && op.ending == Ending::Ok && op.acks == 0;
        met.add("deletes that found nothing", u64::from(void));
        met.add("siblings read", u64::from(op.values.len() > 1));
        met.add("writes stamped twice", u64::from(writes && evidence.past.is_exempt(id)));
    }
    for (_, node) in world.cluster.iter() {
        let metrics = &node.metrics;
        met.add("puts forwarded", metrics.forwards.get());
        met.add("requests begun again by another version", metrics.replans.get());
        met.add("requests of an older version refused", metrics.stale_requests.get());
        met.add("records dropped where they moved away", metrics.records_dropped.get());
        met.add("read repairs", metrics.read_repairs.get());
        met.add("strict write-backs", metrics.write_backs.get());
        met.add("retries recognised", metrics.retries_recognised.get());
        met.add("lww discards", metrics.lww_discarded.get());
        met.add("stamps far ahead of the clock", metrics.stamps_ahead.get());
        met.add("hedges", metrics.hedges.get());
        met.add("hints stored", metrics.hints_stored.get());
        met.add("hints refused", metrics.hints_refused.get());
        let midway = metrics.hints_stored.get() > 0 && world.profile.hint_bytes_max < 1 << 20;
        met.add("hints refused beside others kept", if midway { metrics.hints_refused.get() } else { 0 });
        met.add("requests handed over between shards", node.handed_over);
        met.add("peers unresponsive", metrics.peers_unresponsive.get());
        met.add("peers asked for a sign of life", metrics.pings.get());
        met.add("batch apply failures", node.store.refused());
        let (applies, reads) = node.store.failed();
        met.add("applies failed", applies);
        met.add("reads failed", reads);
        met.add("damaged hints met", metrics.hints_damaged.get());
        met.add("damaged records met", metrics.records_damaged.get());
        met.add("damaged records restored", metrics.records_restored.get());
        met.add("exchanges that found differences", metrics.aae_exchanges_different.get());
        met.add("exchanges that ended early", metrics.aae_exchanges_failed.get());
        met.add("keys repaired by anti-entropy", metrics.aae_keys_repaired.get());
        if node.life > 0 {
            met.add("trees rebuilt", metrics.trees_built.get().saturating_sub(node.trees().len() as u64));
        }
        met.add("overloaded", metrics.overloaded.get());
        met.add("acks by fallbacks", metrics.acks_fallback.get());
        met.add("puts coordinated by fallbacks", metrics.fallback_coordinated.get());
        met.add("hints delivered", metrics.hints_delivered.get());
        met.add("hints put off", metrics.hints_put_off.get());
        met.add("expired work", metrics.expired.get());
    }
    let (duplicated, lost) = world.messages();
    met.add("duplicated messages", duplicated);
    met.add("lost messages", lost);
    met
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("a {what}") } else { format!("{number} {what}s") }
}

/// The words of a trace.
const HOW_TO_READ: &str = "\
  n0, n1, … are nodes, c0, c1, … clients; op 7 is an operation, numbered as clients began them, and its value
  {a1b2:3 c3d4:1 | 7@a1b2:3 x9@c3d4:1} is a key's state: how many writes of each actor are known, then the live ones
    by operation and dot, tombstones with an x
  #c4c4 is on a request between nodes and on its reply; \"in batch 3\" is durable when that node \"has synced up to batch 3\"";

/// Connections, syncs and repairs of a healed cluster are done long before this.
const SETTLE: Micros = 1_500_000;

/// The longest patience of a client, times its retries, and some more.
const REST: Micros = 20_000_000;

/// For repairs that are sent after a read was answered.
const LATE_REPAIRS: Micros = 500_000;

/// A read of all replicas repairs them; a second round is for a replica that answered too late the first time.
const READ_ROUNDS: usize = 2;

/// Half a second each: a few rounds, and a peer that does not answer the first time.
const HEALING_STEPS: usize = 60;

/// As often.
const CHANGES_STEPS: usize = 3;

const CALM_OPERATIONS: usize = 5;

/// Write ids of the calm phase are numbered from here; those of the active phase are random.
const CALM_WRITE_IDS: u128 = 1 << 100;

/// Engines that remember fewer write ids than this may stamp a late retry again.
const MANY_WRITE_IDS: usize = 1_000;

/// More violations than this are one mistake seen many times.
const REPORTED_MAX: usize = 12;
