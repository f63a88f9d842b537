//! A run: lives of a process, each ended by a strike, each begun by reading what the one before had acknowledged.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftless_client::Client;
use futures::{StreamExt as _, TryStreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use super::ledger::{Found, Ledger};
use super::options::{Options, Planted};
use super::segments::{self, Segments};
use super::strikes::{Left, Plan, Strike};
use super::summary::{Met, Summary};
use super::value::{Key, decode};
use super::writers::{Writers, lock, profile};
use crate::fleet::{Disk, Fleet, Member, alarming_lines, alarms, power_cut};
use crate::processes::{stop_signals, strace};

/// Runs; `outside` says why this program is not in a namespace of its own, if it is not.
///
/// # Panics
/// If no node can be set up here.
pub fn run(options: &Options, outside: Option<&str>) -> Summary {
    let left_out = outside.map(str::to_owned).or_else(Disk::missing);
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("crashes-");
    let dir = match &options.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let dir = dir.expect("a directory can be made");
    let member = Member { shards: SHARDS, settings: SETTINGS.to_owned() };
    let fleet = Fleet::create(dir.path(), &[member], left_out.is_none().then_some(DISK_BYTES));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    say(&format!("seed {}, in {}", options.seed, dir.path().display()));
    if let Some(reason) = &left_out {
        say(&format!("SKIPPED: power cuts: {reason}"));
    }
    let power_cuts = if left_out.is_some() { 0 } else { options.power_cuts };
    let ended = stop_signals(&runtime);
    let mut campaign = Campaign {
        fleet,
        runtime,
        ledger: Arc::new(Mutex::new(Ledger::new())),
        rng: StdRng::seed_from_u64(options.seed),
        planted: options.planted,
        met: Met::default(),
        segments: Segments::default(),
        began: Instant::now(),
        told: Instant::now(),
    };
    let mut left = Left { kills: options.kills, power_cuts };
    let done = campaign.go_on(&mut left, power_cuts > 0, &ended);
    let Campaign { fleet, ledger, met, segments, began, .. } = campaign;
    // The process ends and the disk is unmounted before their directory goes, or is looked into.
    drop(fleet);
    let (writes, reasons) = {
        let mut ledger = lock(&ledger);
        (ledger.counts, std::mem::take(&mut ledger.reasons))
    };
    let mut summary = Summary {
        seed: options.seed,
        took: began.elapsed(),
        met,
        writes,
        reasons,
        segments,
        left_out,
        broken: done.err().into_iter().collect(),
        missed: Vec::new(),
        kept: None,
    };
    let all_done = left.kills + left.power_cuts == 0;
    if all_done && options.planted.is_none() && options.kills >= COVERS_ALL {
        summary.missed = summary.coverage();
    }
    summary.kept = (!summary.holds()).then(|| dir.keep());
    summary
}

struct Campaign {
    fleet: Fleet,
    runtime: Runtime,
    ledger: Arc<Mutex<Ledger>>,
    rng: StdRng,
    planted: Option<Planted>,
    met: Met,
    segments: Segments,
    began: Instant,
    told: Instant,
}

impl Campaign {
    fn go_on(&mut self, left: &mut Left, cuts: bool, ended: &AtomicBool) -> Result<(), String> {
        self.begin()?;
        while !ended.load(Ordering::SeqCst)
            && let Some(mut plan) = left.next(&mut self.rng, cuts)
        {
            if self.planted.is_some() {
                // Each further strike is one more under which a lie can hide.
                plan.while_starting.clear();
            }
            self.live(&plan)?;
            let lives = u64::from(lock(&self.ledger).life);
            let all = matches!(plan.strike, Strike::PowerCut { .. }) || lives.is_multiple_of(FULL_CHECK_EVERY);
            self.check(all)?;
            self.fleet.nodes[0].trim_log();
            self.tell();
        }
        self.check(true)
    }

    /// The first start, of which nothing is expected but that one after it succeeds.
    fn begin(&mut self) -> Result<(), String> {
        for _ in 0..self.rng.random_range(0..4) {
            self.launch(false);
            std::thread::sleep(Duration::from_millis(self.rng.random_range(0..200)));
            self.strike(Strike::Kill)?;
            self.met.kills_while_starting += 1;
        }
        // What is skipped later must not be what makes a store.
        self.launch(false);
        self.fleet.nodes[0].wait_serving()?;
        if self.planted == Some(Planted::SyncsSkipped) {
            self.strike(Strike::Stop)?;
            self.launch(true);
            self.fleet.nodes[0].wait_serving()?;
        }
        Ok(())
    }

    /// From when the node serves to when it serves again.
    fn live(&mut self, plan: &Plan) -> Result<(), String> {
        let seed = self.rng.random();
        let earlier = self.fleet.nodes[0].data().with_extension("earlier");
        if self.planted == Some(Planted::StoreRolledBack) {
            self.fleet.nodes[0].pause();
            copy_folder(&self.fleet.nodes[0].data(), &earlier)
                .map_err(|e| format!("the store cannot be copied: {e}"))?;
            self.fleet.nodes[0].resume();
        }
        let client = self.runtime.block_on(self.fleet.client(profile()));
        let mut writers = self.runtime.block_on(async { Writers::start(&client, &self.ledger, seed) });
        std::thread::sleep(plan.load);
        if let Some(linger) = plan.linger {
            self.runtime.block_on(writers.rest());
            std::thread::sleep(linger);
        }
        self.strike(plan.strike)?;
        self.runtime.block_on(writers.abandon());
        // Nothing of this life may reach the next one.
        drop(client);
        match plan.strike {
            Strike::Kill => {
                self.met.kills += 1;
                self.met.kills_at_rest += u64::from(plan.linger.is_some());
            }
            Strike::PowerCut { .. } => self.met.power_cuts += 1,
            Strike::Stop => self.met.stops += 1,
        }
        if self.planted == Some(Planted::StoreRolledBack) {
            let data = self.fleet.nodes[0].data();
            let back = fs::remove_dir_all(&data).and_then(|()| fs::rename(&earlier, &data));
            back.map_err(|e| format!("the store cannot be rolled back: {e}"))?;
        }
        self.keep()?;
        for (after, strike) in &plan.while_starting {
            self.launch(true);
            std::thread::sleep(*after);
            self.strike(*strike)?;
            match strike {
                Strike::PowerCut { .. } => self.met.power_cuts_while_starting += 1,
                _ => self.met.kills_while_starting += 1,
            }
        }
        self.launch(true);
        self.fleet.nodes[0].wait_serving()
    }

    /// Ends the process, which must have run until now, and looks at what it has left.
    fn strike(&mut self, strike: Strike) -> Result<(), String> {
        let node = &mut self.fleet.nodes[0];
        if let Some(status) = node.ended() {
            return Err(format!("the node ended by itself ({status}):\n{}", node.log_tail()));
        }
        match strike {
            Strike::Kill => node.kill(),
            Strike::Stop => node.stop()?,
            Strike::PowerCut { some_written } => {
                let (rng, share) = (&mut self.rng, if some_written { 0.3 } else { 0.0 });
                power_cut::cut(&mut [node], |_| rng.random_bool(share))?;
                self.met.power_cuts_some_written += u64::from(some_written);
            }
        }
        let node = &self.fleet.nodes[0];
        self.met.secured += u64::from(node.log().contains(SECURED));
        self.segments.look(&node.files());
        none(alarming_lines(node))
    }

    /// Puts a copy of the store aside, for whoever has to find out why it is not what it should be.
    fn keep(&self) -> Result<(), String> {
        let data = self.fleet.nodes[0].data();
        let before = self.fleet.dir().join("n1").join(BEFORE);
        let _ = fs::remove_dir_all(&before);
        copy_folder(&data, &before).map_err(|error| format!("the store cannot be copied: {error}"))
    }

    fn launch(&mut self, may_lie: bool) {
        lock(&self.ledger).life += 1;
        let strace = strace::lying_syncs();
        let lies = may_lie && self.planted == Some(Planted::SyncsSkipped);
        let program: Vec<&str> = strace.iter().map(String::as_str).filter(|_| lies).collect();
        self.fleet.nodes[0].start_under(&program);
    }

    /// Reads keys, those that may have changed or all; nobody writes meanwhile.
    fn check(&mut self, all: bool) -> Result<(), String> {
        let keys = if all { lock(&self.ledger).keys() } else { lock(&self.ledger).changed() };
        let client = self.runtime.block_on(self.fleet.client(profile()));
        let found = self.runtime.block_on(read(&client, keys))?;
        self.met.read += found.len() as u64;
        let mut ledger = lock(&self.ledger);
        let wrong = found.into_iter().filter_map(|(key, found)| ledger.check(key, found).err()).collect::<Vec<_>>();
        if !wrong.is_empty() {
            return Err(format!("{} keys are wrong\n{}", wrong.len(), wrong[..wrong.len().min(SHOWN_MAX)].join("")));
        }
        if all {
            let listed = client.bucket("default").scan().profile(profile()).keys().try_collect::<Vec<_>>();
            let listed = self.runtime.block_on(listed).map_err(|error| format!("keys are not listed: {error}"))?;
            let listed = listed.iter().map(ToString::to_string).collect();
            let expected = ledger.live();
            let odd: Vec<&String> = expected.symmetric_difference(&listed).take(SHOWN_MAX).collect();
            if !odd.is_empty() {
                return Err(format!("keys that are listed and hold nothing, or the other way round: {odd:?}"));
            }
            self.met.full_checks += 1;
        }
        none(alarms(&self.fleet.nodes[0]))
    }

    /// Says how it goes, if it has been silent for long enough.
    fn tell(&mut self) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let line = self.met.line(&lock(&self.ledger).counts, &self.segments);
            say(&format!("{:>5.0} s  {line}", self.began.elapsed().as_secs_f64()));
        }
    }
}

/// What keys hold.
async fn read(client: &Client, keys: Vec<Key>) -> Result<Vec<(Key, Found)>, String> {
    let bucket = client.bucket("default").with_profile(&profile());
    let read = |key: Key| {
        let get = bucket.get(key.to_string());
        async move {
            let read = get.send().await.map_err(|error| format!("{key} cannot be read: {error}"))?;
            let values = read.values().map(|value| decode(value)).collect();
            Ok((key, Found { values, context: read.context().cloned() }))
        }
    };
    futures::stream::iter(keys).map(read).buffered(READS_AT_ONCE).try_collect().await
}

fn none(alarms: Vec<String>) -> Result<(), String> {
    if alarms.is_empty() { Ok(()) } else { Err(format!("alarms:\n    {}", alarms.join("\n    "))) }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
fn say(line: &str) {
    println!("{line}");
}

/// Where the store is kept as the last strike has left it.
pub(super) const BEFORE: &str = "before";

/// The shortest segments, so that they are soon full, merged and used again.
const SETTINGS: &str = "
[store]
segment = \"1MiB\"
free_space_reserve = \"32MiB\"
";
const _: () = assert!(segments::BYTES == 1 << 20, "what SETTINGS say");

/// Several, so that one store has several that append to it.
const SHARDS: u16 = 3;

/// Three times what the store needs.
const DISK_BYTES: u64 = 256 << 20;

/// Of a start that has found what the process before it had not synced.
const SECURED: &str = "is not known to be synced is synced now";

/// All keys are read after each power cut, and after one life in so many.
const FULL_CHECK_EVERY: u64 = 10;

const READS_AT_ONCE: usize = 64;

/// Of keys that are wrong.
const SHOWN_MAX: usize = 8;

/// From so many kills on everything must have been met.
const COVERS_ALL: u64 = 20;

const TELL_EVERY: Duration = Duration::from_secs(10);
