//! A run: rounds of faults until the time is over, each judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Client, Profile};
use tokio::runtime::Runtime;

use super::calm;
use super::check::{Evidence, Left};
use super::nemesis::{Ears, Nemesis};
use super::options::Options;
use super::plan::{Fault, Plan};
use super::shape::{SPARES, members};
use super::summary::Summary;
use super::tally::Counts;
use super::value::Id;
use super::watch::Watch;
use super::workload::{Shared, Workload, is_set};
use crate::fleet::{Disk, Fleet, Node, Operator};
use crate::processes::{Format, stop_signals, strace};

/// Runs; `outside` says why this program is not in a namespace of its own, if it is not.
///
/// # Panics
/// If no cluster can be set up here.
pub fn run(options: &Options, outside: Option<&str>) -> Summary {
    let left_out = left_out(options, outside);
    let faults = options.faults.iter().copied();
    let faults: Vec<Fault> = faults.filter(|fault| left_out.iter().all(|(left, _)| left != fault)).collect();
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("torment-");
    let dir = match &options.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let dir = dir.expect("a directory can be made");
    let has_disks = outside.is_none() && Disk::missing().is_none();
    let founders = usize::from(options.nodes);
    let all = members(options.nodes + SPARES as u16);
    let mut fleet = Fleet::create_with_guests(dir.path(), &all, founders, "", has_disks.then_some(DISK_BYTES));
    fleet.nodes[..founders].iter_mut().for_each(Node::start);
    let started = fleet.nodes[..founders].iter_mut().try_for_each(Node::wait_serving);
    started.expect("a new cluster starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let client = runtime.block_on(fleet.client(Profile::new()));
    let operator = runtime.block_on(Operator::connect(&fleet));
    let names = fleet.names()[..founders].to_vec();
    let gathered = runtime.block_on(async {
        calm::gather(&client, &names).await?;
        operator.wait_founded(&names).await
    });
    let workload = runtime.block_on(async { Workload::start(&client, options.seed) });
    let progress = Progress::new(options.format, Arc::clone(workload.shared()));
    progress.say(&format!("seed {}, {} nodes, {} faults, in {}", options.seed, names.len(), faults.len(), {
        dir.path().display()
    }));
    left_out.iter().for_each(|(fault, reason)| progress.say(&format!("left out: {}: {reason}", fault.name())));
    let (meanwhile, reader, handle) = (progress.clone(), client.bucket("default"), runtime.handle().clone());
    let shared = Arc::clone(workload.shared());
    let ears = Ears {
        meanwhile: Box::new(move |doing| meanwhile.tell(doing)),
        disk_lost: Box::new(move || {
            let mut history = shared.history();
            history.disk_lost = Some(history.now());
        }),
        read_through: Box::new(move |node| {
            let read = reader.get("shared/0").via(node).timeout(READ_THROUGH_MAX).send();
            handle.block_on(read).map(drop).map_err(|error| format!("{node} with a full disk: {error}"))
        }),
    };
    let mut torment = Torment {
        nemesis: Nemesis::new(fleet, founders, operator, runtime.handle().clone(), options.seed, ears),
        runtime,
        client,
        workload,
        progress,
        watch: Watch::default(),
        faults: faults.iter().map(|fault| (*fault, 0)).collect(),
        convergence: Vec::new(),
        broken: gathered.err().into_iter().collect(),
        rounds: 0,
        is_late: false,
    };
    let mut plan = Plan::new(options.seed, faults, names.len());
    let ended = stop_signals(&torment.runtime);
    let began = Instant::now();
    let is_over = || began.elapsed() >= options.time || ended.load(Ordering::SeqCst);
    let left = || options.time.saturating_sub(began.elapsed());
    while torment.broken.is_empty() && (torment.rounds == 0 || !is_over()) && !torment.is_late {
        torment.round(&mut plan, &is_over, &left);
    }
    torment.end(options, began.elapsed(), left_out, dir)
}

struct Torment {
    nemesis: Nemesis,
    runtime: Runtime,
    client: Client,
    workload: Workload,
    progress: Progress,
    watch: Watch,
    faults: BTreeMap<Fault, u64>,
    convergence: Vec<Duration>,
    broken: Vec<String>,
    rounds: u64,
    /// Whether the next thing would be a change of members, for which no time is left.
    is_late: bool,
}

impl Torment {
    fn round(&mut self, plan: &mut Plan, is_over: &dyn Fn() -> bool, left: &dyn Fn() -> Duration) {
        self.rounds += 1;
        self.progress.round.store(self.rounds, Ordering::Relaxed);
        self.workload.go_on();
        if let Err(broken) = self.strike(plan, is_over, left).and_then(|()| self.settle()) {
            return self.broken.push(broken);
        }
        self.judge();
        for node in &mut self.nemesis.fleet.nodes {
            node.trim_log();
        }
    }

    fn strike(
        &mut self,
        plan: &mut Plan,
        is_over: &dyn Fn() -> bool,
        left: &dyn Fn() -> Duration,
    ) -> Result<(), String> {
        self.nemesis.hold(CALM)?;
        self.shared().tally.faulty.store(true, Ordering::Relaxed);
        for step in plan.round(STEPS) {
            // The steps after a change that is left out are of other members.
            self.is_late = step.changing.is_some() && left() < CHANGE_TAKES;
            if is_over() || self.is_late {
                break;
            }
            self.nemesis.carry_out(&step)?;
            for fault in [Some(step.fault), step.beside.map(|(fault, _)| fault)].into_iter().flatten() {
                *self.faults.entry(fault).or_default() += 1;
            }
        }
        Ok(())
    }

    /// All is healed: the cluster must serve as if nothing had been, and become equal everywhere.
    fn settle(&mut self) -> Result<(), String> {
        let names = self.nemesis.names();
        self.runtime.block_on(calm::gather(&self.client, &names))?;
        self.nemesis.hold(SETTLE)?;
        self.shared().tally.faulty.store(false, Ordering::Relaxed);
        let before = self.shared().tally.counts();
        self.nemesis.hold(CALM)?;
        let Counts { ok, refused, unknown } = self.shared().tally.counts() - before;
        // A cluster that refuses everything loses nothing.
        if ok < 50 || (refused + unknown) * 20 > ok {
            return Err(format!("in calm only {ok} requests succeeded, {refused} were refused, {unknown} are unknown"));
        }
        self.runtime.block_on(self.workload.rest());
        self.progress.tell("converging");
        self.convergence.push(self.runtime.block_on(calm::converge(&self.client, &names))?);
        match self.nemesis.alarms() {
            alarms if alarms.is_empty() => Ok(()),
            alarms => Err(format!("alarms:\n    {}", alarms.join("\n    "))),
        }
    }

    fn judge(&mut self) {
        let keys: Vec<String> = self.shared().history().keys().keys().cloned().collect();
        let left = self.runtime.block_on(calm::read_all(&self.client, keys));
        self.progress.judged.fetch_add(left.len() as u64, Ordering::Relaxed);
        let shared = Arc::clone(self.shared());
        let mut history = shared.history();
        for (key, left) in &left {
            let evidence = Evidence {
                operations: history.keys().get(key).map_or(&[], Vec::as_slice),
                left,
                is_set: is_set(key),
                first: history.first(),
                disk_lost: history.disk_lost,
            };
            let broken = evidence.judge();
            if !broken.is_empty() {
                let promises: Vec<String> =
                    broken.iter().take(8).map(|broken| format!("{}: {}", broken.promise, broken.text)).collect();
                let story = history.story(key);
                self.broken.push(format!("{key}\n  {}\n{story}{}", promises.join("\n  "), describe(left)));
            }
        }
        self.broken.append(&mut shared.odd.lock().expect("nobody panics while noting"));
        let left: BTreeMap<String, Vec<Id>> = left.into_iter().map(|(key, left)| (key, left.shown)).collect();
        history.begin_round(&left);
        drop(history);
        self.watch.look(&self.nemesis.fleet);
    }

    fn shared(&self) -> &Arc<Shared> {
        self.workload.shared()
    }

    fn end(
        mut self,
        options: &Options,
        took: Duration,
        left_out: Vec<(Fault, String)>,
        dir: tempfile::TempDir,
    ) -> Summary {
        if took >= COVERS_ALL && self.faults.len() > 1 {
            let missed = self.faults.iter().filter(|(_, count)| **count == 0);
            self.broken.extend(missed.map(|(fault, _)| format!("{} never struck", fault.name())));
        }
        let tally = &self.workload.shared().tally;
        let mut summary = Summary {
            seed: options.seed,
            took,
            rounds: self.rounds,
            counts: tally.counts(),
            scans: tally.scans.load(Ordering::Relaxed),
            reasons: tally.reasons(),
            latencies: tally.latencies(),
            faults: self.faults,
            changes: self.nemesis.changes.clone(),
            left_out,
            convergence: self.convergence,
            judged: self.progress.judged.load(Ordering::Relaxed),
            used: self.watch.ends(),
            growth: self.watch.growth(),
            broken: self.broken,
            kept: None,
        };
        self.runtime.block_on(async {
            self.workload.end().await;
            self.client.close().await;
        });
        // Processes end and disks are unmounted before their directory goes, or is looked into.
        drop(self.nemesis);
        summary.kept = (!summary.holds()).then(|| dir.keep());
        summary
    }
}

fn describe(left: &Left) -> String {
    let list = left.shown.iter().map(|id| format!("#{id:x}")).collect::<Vec<_>>().join(" ");
    let mut text = format!("    left: [{list}]\n");
    for (node, state) in &left.replicas {
        text += &format!("    {node}: {}\n", state.as_deref().unwrap_or("nothing"));
    }
    text
}

fn left_out(options: &Options, outside: Option<&str>) -> Vec<(Fault, String)> {
    let disk = outside.map(str::to_owned).or_else(Disk::missing);
    let strace = strace::missing();
    let reason = |fault: Fault| match fault {
        _ if fault.needs_network() => outside.map(str::to_owned),
        _ if fault.needs_disk() => disk.clone(),
        _ if fault.needs_strace() => strace.clone(),
        _ => None,
    };
    options.faults.iter().filter_map(|fault| Some((*fault, reason(*fault)?))).collect()
}

/// What was left out of these options, with reasons, for `--list`.
pub fn list(options: &Options, outside: Option<&str>) -> String {
    let left_out = left_out(options, outside);
    let line = |(name, fault): (&str, Fault)| {
        let reason = left_out.iter().find(|(left, _)| *left == fault);
        let reason = reason.map_or(String::new(), |(_, reason)| format!(" (left out here: {reason})"));
        format!("{name:<18} {}{reason}\n", fault.about())
    };
    Fault::ALL.into_iter().map(line).collect()
}

/// A line every ten seconds.
#[derive(Clone)]
struct Progress {
    format: Format,
    began: Instant,
    shared: Arc<Shared>,
    round: Arc<AtomicU64>,
    judged: Arc<AtomicU64>,
    last: Arc<std::sync::Mutex<(Instant, Counts)>>,
}

impl Progress {
    fn new(format: Format, shared: Arc<Shared>) -> Progress {
        let began = Instant::now();
        let last = Arc::new(std::sync::Mutex::new((began, Counts::default())));
        Progress { format, began, shared, round: Arc::default(), judged: Arc::default(), last }
    }

    /// Says how it goes, if it has been silent for long enough.
    fn tell(&self, doing: &str) {
        let mut last = self.last.lock().expect("nobody panics while talking");
        let since = last.0.elapsed();
        if since < INTERVAL {
            return;
        }
        let counts = self.shared.tally.counts();
        let Counts { ok, refused, unknown } = counts - last.1;
        *last = (Instant::now(), counts);
        let per_second = |count: u64| count as f64 / since.as_secs_f64();
        self.say(&format!(
            "{:>6.0} s  round {:<3} {doing:<32} per second: {:>5.0} ok {:>4.0} refused {:>4.0} unknown; {} keys judged",
            self.began.elapsed().as_secs_f64(),
            self.round.load(Ordering::Relaxed),
            per_second(ok),
            per_second(refused),
            per_second(unknown),
            self.judged.load(Ordering::Relaxed),
        ));
    }

    #[allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
    fn say(&self, line: &str) {
        match self.format {
            Format::Text => println!("{line}"),
            Format::Json => eprintln!("{line}"),
        }
    }
}

const DISK_BYTES: u64 = 384 << 20;

/// Load without a fault, at the beginning and at the end of a round.
const CALM: Duration = Duration::from_secs(3);

/// After nodes have found each other: clients find them too.
const SETTLE: Duration = Duration::from_secs(2);

/// Of a read that must succeed.
const READ_THROUGH_MAX: Duration = Duration::from_secs(5);

/// Steps of a round.
const STEPS: usize = 8;

/// A change of members with others struck meanwhile; on a machine that is busy, longer.
const CHANGE_TAKES: Duration = Duration::from_secs(20);

/// How often progress is told.
const INTERVAL: Duration = Duration::from_secs(10);

/// From this time on every fault must have struck.
const COVERS_ALL: Duration = Duration::from_secs(600);
