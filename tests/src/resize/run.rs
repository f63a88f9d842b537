//! A run: load, a quiet time, the changes of the recipe one after the other, and the reckoning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Client, Profile};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::check::{Promise, judge};
use super::moved::Moved;
use super::options::{Options, Recipe};
use super::summary::Summary;
use super::tally::Counts;
use super::workload::{STRICT_BUCKET, Shared, Workload, explain, is_strict, place, plant, read_all};
use crate::fleet::{
    Change, Fleet, LOOK_EVERY, Member, Node, Operator, Strikes, Taken, alarming_lines, alarms, is_settled, moving_of,
};
use crate::processes::{handed_off, stop_signals};

/// Runs.
///
/// # Panics
/// If no cluster can be set up here.
pub fn run(options: &Options) -> Summary {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("resize-");
    let dir = match &options.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let dir = dir.expect("a directory can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let ended = stop_signals(&runtime);
    say(&format!("seed {}, in {}", options.seed, dir.path().display()));
    let mut run = Run::start(options, &dir, runtime, ended);
    if let Err(fault) = run.carry_out() {
        run.faults.push(fault);
    }
    run.judge();
    run.end(dir)
}

struct Run<'a> {
    options: &'a Options,
    runtime: Runtime,
    ended: Arc<AtomicBool>,
    fleet: Fleet,
    /// Names of those that are members now.
    members: Vec<String>,
    operator: Operator,
    /// Who reads in the end.
    reader: Client,
    workload: Workload,
    rng: StdRng,
    began: Instant,
    told: (Instant, Counts),
    moved: Vec<Moved>,
    changes: u64,
    judgements: u64,
    reads_judged: (u64, u64),
    promises: BTreeMap<Promise, u64>,
    broken: Vec<String>,
    faults: Vec<String>,
    missed: Vec<String>,
}

impl<'a> Run<'a> {
    /// Starts the founders and the clients.
    fn start(options: &'a Options, dir: &TempDir, runtime: Runtime, ended: Arc<AtomicBool>) -> Run<'a> {
        let nodes = match options.recipe {
            Recipe::Resize => 6,
            Recipe::Churn => 5,
        };
        let members = vec![Member { shards: 1, settings: String::new() }; nodes];
        let mut fleet = Fleet::create_with_guests(dir.path(), &members, FOUNDERS, &buckets(), None);
        fleet.nodes[..FOUNDERS].iter_mut().for_each(Node::start);
        let started = fleet.nodes[..FOUNDERS].iter_mut().try_for_each(Node::wait_serving);
        started.expect("a new cluster starts");
        let members = fleet.names()[..FOUNDERS].to_vec();
        let (operator, reader, workload) = runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..options.clients.min(CONNECTIONS) {
                connections.push(fleet.client(Profile::new()).await);
            }
            let workload = Workload::start(&connections, options.keys, options.clients, options.rate, options.seed);
            (Operator::connect(&fleet).await, fleet.client(Profile::new()).await, workload)
        });
        let began = Instant::now();
        Run {
            options,
            runtime,
            ended,
            fleet,
            members,
            operator,
            reader,
            workload,
            rng: StdRng::seed_from_u64(options.seed),
            began,
            told: (began, Counts::default()),
            moved: Vec::new(),
            changes: 0,
            judgements: 0,
            reads_judged: (0, 0),
            promises: BTreeMap::new(),
            broken: Vec::new(),
            faults: Vec::new(),
            missed: Vec::new(),
        }
    }

    fn carry_out(&mut self) -> Result<(), String> {
        self.runtime.block_on(self.operator.wait_founded(&self.members))?;
        let began = Instant::now();
        while !self.workload.is_loaded() && !self.is_ended() {
            if began.elapsed() > LOAD_MAX {
                return Err(format!("the first values are not written within {LOAD_MAX:?}"));
            }
            self.hold(LOOK_EVERY, "first values")?;
        }
        self.hold(SETTLE, "settling")?;
        match self.options.recipe {
            Recipe::Resize => self.resize(),
            Recipe::Churn => self.churn(),
        }
    }

    fn resize(&mut self) -> Result<(), String> {
        self.shared().tally.begin_phase("quiet");
        self.hold(QUIET, "quiet")?;
        self.shared().tally.end_phase();
        let names = self.fleet.names();
        let mut leavers = names.clone();
        leavers.shuffle(&mut self.rng);
        leavers.truncate(3);
        leavers.sort();
        let steps = [(vec![names[3].clone()], Vec::new()), (names[4..6].to_vec(), Vec::new()), (Vec::new(), leavers)];
        for (joins, leaves) in steps {
            if self.is_ended() {
                return Ok(());
            }
            let before = self.members.len();
            let name = format!("{before} to {}", before + joins.len() - leaves.len());
            let change = Change { name, joins, leaves, ..Change::default() };
            self.invite(&change.joins)?;
            self.shared().tally.begin_phase(&change.name);
            let moved = self.change(&change, self.options.kills);
            self.shared().tally.end_phase();
            let moved = moved?;
            if self.options.kills && !self.is_ended() && !moved.struck.iter().any(|struck| struck.in_the_middle) {
                self.missed.push(format!("{}: nobody was killed while partitions moved", change.name));
            }
            self.moved.push(moved);
            if self.is_ended() {
                // Who leaves may not have left.
                return Ok(());
            }
            self.dismiss(&change.leaves)?;
            self.hold(SETTLE, "settling")?;
        }
        Ok(())
    }

    fn churn(&mut self) -> Result<(), String> {
        self.shared().tally.begin_phase("quiet");
        self.hold(QUIET, "quiet")?;
        self.shared().tally.begin_phase("churn");
        let guests = self.fleet.names()[FOUNDERS..].to_vec();
        let began = Instant::now();
        while began.elapsed() < self.options.time && !self.is_ended() {
            // One of them, or both: who is in leaves, who is out joins.
            let mut turn = guests.clone();
            turn.shuffle(&mut self.rng);
            turn.truncate(self.rng.random_range(1..=2));
            let (leaves, joins): (Vec<String>, Vec<String>) =
                turn.into_iter().partition(|name| self.members.contains(name));
            let name = format!("change {}", self.changes + 1);
            let change = Change { name, joins, leaves, ..Change::default() };
            self.invite(&change.joins)?;
            let moved = self.change(&change, false)?;
            self.moved.push(moved);
            if self.is_ended() {
                break;
            }
            self.dismiss(&change.leaves)?;
            let pause = Duration::from_millis(self.rng.random_range(0..1_000));
            self.hold(pause, "between changes")?;
            if self.changes.is_multiple_of(JUDGED_EVERY) {
                self.judge();
                self.workload.go_on();
            }
        }
        self.shared().tally.end_phase();
        if self.changes < 2 && !self.is_ended() {
            self.missed.push("members did not come and go".to_owned());
        }
        Ok(())
    }

    /// Starts nodes that are to join, each with an empty disk.
    fn invite(&mut self, guests: &[String]) -> Result<(), String> {
        for name in guests {
            let node = node_of(&mut self.fleet, name);
            node.wipe();
            node.start();
            node.wait_serving()?;
        }
        self.runtime.block_on(self.operator.wait_called(&self.members, guests))
    }

    /// Stops nodes that have left.
    fn dismiss(&mut self, gone: &[String]) -> Result<(), String> {
        for name in gone {
            let node = node_of(&mut self.fleet, name);
            self.faults.extend(alarms(node));
            node.stop()?;
        }
        Ok(())
    }

    /// Commits a change and looks until it is settled, with strikes meanwhile.
    fn change(&mut self, change: &Change, kills: bool) -> Result<Moved, String> {
        let stays = |name: &&String| !change.leaves.contains(name);
        let staying: Vec<String> = self.members.iter().filter(stays).cloned().collect();
        let at = staying.choose(&mut self.rng).expect("somebody stays").clone();
        let began = Instant::now();
        let plan = self.runtime.block_on(self.operator.commit(&at, change))?;
        let committed = Instant::now();
        let mut strikes = if kills { Strikes::draw(&plan, &mut self.rng) } else { Strikes::none() };
        let all: Vec<String> = self.members.iter().chain(&change.joins).cloned().collect();
        self.members = staying.into_iter().chain(change.joins.iter().cloned()).collect();
        let (mut taken, mut struck) = (Taken::default(), Vec::new());
        let mut calm_at: Option<Instant> = None;
        loop {
            let look = self.runtime.block_on(self.operator.look(&all));
            for name in &all {
                if let Some(moving) = moving_of(&look, name, plan.version) {
                    taken.note(name, &moving);
                }
            }
            if calm_at.is_some_and(|at| at <= Instant::now()) {
                calm_at = None;
                self.shared().tally.strike();
            }
            if is_settled(&look, &self.members, plan.version) {
                self.changes += 1;
                break;
            }
            if let Some(strike) = strikes.next(&look) {
                if calm_at.take().is_none() {
                    self.shared().tally.strike();
                }
                let victim = strike.victim().clone();
                say(&format!("{:>6.1} s  {}: kill -9 of {strike}", self.began.elapsed().as_secs_f64(), change.name));
                struck.push(strike);
                let node = node_of(&mut self.fleet, &victim.name);
                self.faults.extend(alarming_lines(node));
                node.kill();
                std::thread::sleep(victim.how);
                node.start();
                node.wait_serving()?;
                calm_at = Some(Instant::now() + CALM_AFTER);
            }
            if committed.elapsed() > SETTLED_MAX {
                return Err(format!("{}: not settled within {SETTLED_MAX:?}: {look:?}", change.name));
            }
            if self.is_ended() {
                break;
            }
            self.hold(LOOK_EVERY, &change.name)?;
        }
        if calm_at.is_some() {
            self.shared().tally.strike();
        }
        let took = committed.elapsed();
        let left: Vec<&str> = strikes.left().collect();
        if !left.is_empty() && !self.is_ended() {
            say(&format!("{}: settled before {} could be killed", change.name, left.join(" and ")));
        }
        say(&format!(
            "{:>6.1} s  {}: {}: {} after {:.1} s ({:.1} s to decide)",
            self.began.elapsed().as_secs_f64(),
            change.name,
            plan.changes.join(", "),
            if self.is_ended() { "left as it is" } else { "settled" },
            took.as_secs_f64(),
            (committed - began).as_secs_f64()
        ));
        Ok(Moved {
            name: change.name.clone(),
            bytes_planned: plan.nodes.iter().map(|node| node.bytes_in).sum(),
            changes: plan.changes,
            slots: plan.slots,
            slots_moved: plan.slots_moved,
            slots_minimum: plan.slots_minimum,
            bytes_taken: taken.bytes(),
            keys_taken: taken.keys(),
            took,
            struck,
        })
    }

    /// Lets some time pass. Nodes end only when they are struck or stopped.
    fn hold(&mut self, time: Duration, doing: &str) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            for node in &mut self.fleet.nodes {
                if let Some(status) = node.ended() {
                    return Err(format!("{} ended by itself ({status}):\n{}", node.name, node.log_tail()));
                }
            }
            self.tell(doing);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_ended() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Lets clients rest, reads all keys, and holds what clients were told against that.
    fn judge(&mut self) {
        self.runtime.block_on(self.workload.rest());
        self.judgements += 1;
        if self.runtime.block_on(handed_off(&self.reader, &self.members)).is_none() {
            self.faults.push("hints are not delivered, or nodes do not see each other, a minute after the load".into());
        }
        let shared = Arc::clone(self.shared());
        if self.options.planted {
            let planted = self.runtime.block_on(plant(&self.reader, &shared));
            planted.iter().for_each(|planted| say(&format!("planted: {planted}")));
        }
        let last = self.runtime.block_on(read_all(&self.reader, &shared));
        for (key, last) in last {
            let mut history = shared.history.key(key);
            let broken = judge(&history, last.as_ref(), is_strict(key));
            let strict = history.reads.iter().filter(|read| is_strict(key) && read.strict).count();
            self.reads_judged.0 += history.reads.len() as u64;
            self.reads_judged.1 += strict as u64;
            for broken in &broken {
                *self.promises.entry(broken.promise).or_default() += 1;
            }
            if !broken.is_empty() && self.broken.len() < STORIES_MAX {
                let texts: Vec<String> =
                    broken.iter().take(8).map(|broken| format!("{}: {}", broken.promise.text(), broken.text)).collect();
                let holdings = self.runtime.block_on(explain(&self.reader, key));
                self.broken.push(format!("{}\n  {}\n{}{holdings}", place(key), texts.join("\n  "), history.story()));
            }
            history.forget();
        }
        for node in &self.fleet.nodes {
            if self.members.contains(&node.name) {
                self.faults.extend(alarms(node));
            }
        }
        self.faults.append(&mut shared.faults.lock().expect("nobody panics while noting"));
    }

    fn end(mut self, dir: TempDir) -> Summary {
        let took = self.began.elapsed();
        let Counts { gets, writes, .. } = self.shared().tally.counts();
        if (gets == 0 || writes < self.options.keys as u64) && !self.is_ended() {
            self.missed.push("clients hardly did anything".to_owned());
        }
        let (tally, history) = (&self.shared().tally, &self.shared().history);
        let doubtful = (0..history.len()).map(|key| history.key(key).doubtful.len() as u64).sum();
        let mut summary = Summary {
            recipe: self.options.recipe,
            seed: self.options.seed,
            took,
            keys: self.options.keys,
            clients: self.options.clients,
            counts: tally.counts(),
            reasons: tally.reasons(),
            latencies: tally.latencies(),
            changes: self.changes,
            judgements: self.judgements,
            reads_judged: self.reads_judged,
            doubtful,
            interrupted: self.is_ended(),
            moved: self.moved,
            promises: self.promises,
            broken: self.broken,
            faults: self.faults,
            missed: self.missed,
            kept: None,
        };
        self.runtime.block_on(async {
            self.workload.end().await;
            self.operator.close().await;
            self.reader.close().await;
        });
        // Processes end before their directory goes, or is looked into.
        drop(self.fleet);
        summary.kept = (self.options.keep || !summary.holds()).then(|| dir.keep());
        summary
    }

    fn shared(&self) -> &Arc<Shared> {
        self.workload.shared()
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Says how it goes, if it has been silent for long enough.
    fn tell(&mut self, doing: &str) {
        let since = self.told.0.elapsed();
        if since < INTERVAL {
            return;
        }
        let counts = self.shared().tally.counts();
        let per_second = |now: u64, before: u64| (now - before) as f64 / since.as_secs_f64();
        say(&format!(
            "{:>6.1} s  {doing:<16} {} members; per second: {:.0} gets, {:.0} writes, {:.1} requests failed",
            self.began.elapsed().as_secs_f64(),
            self.members.len(),
            per_second(counts.gets, self.told.1.gets),
            per_second(counts.writes, self.told.1.writes),
            per_second(counts.failed_attempts, self.told.1.failed_attempts)
        ));
        self.told = (Instant::now(), counts);
    }
}

fn node_of<'f>(fleet: &'f mut Fleet, name: &str) -> &'f mut Node {
    fleet.nodes.iter_mut().find(|node| node.name == name).expect("it is one of the fleet")
}

/// What the cluster file says of them. The default one is as always: n = 3, r = w = 2, sloppy.
fn buckets() -> String {
    format!("\n[[bucket]]\nname = \"{STRICT_BUCKET}\"\nn = 3\nr = 2\nw = 2\nsloppy = false\n")
}

#[allow(clippy::print_stderr, reason = "it talks to a person")]
fn say(line: &str) {
    eprintln!("{line}");
}

const FOUNDERS: usize = 3;

/// Client libraries that know the ring each for itself.
const CONNECTIONS: usize = 8;

/// Without a change, for a comparison.
const QUIET: Duration = Duration::from_secs(15);

/// After the load, and between steps.
const SETTLE: Duration = Duration::from_secs(2);

/// After a node that was killed serves again: until then operations count as struck.
const CALM_AFTER: Duration = Duration::from_secs(1);

const LOAD_MAX: Duration = Duration::from_secs(600);
const SETTLED_MAX: Duration = Duration::from_secs(300);

/// Changes of a churn after which all is judged and forgotten, so that a long run needs no more memory than a short one.
const JUDGED_EVERY: u64 = 10;

/// Keys whose story is told.
const STORIES_MAX: usize = 5;

/// How often progress is told.
const INTERVAL: Duration = Duration::from_secs(5);
