//! Runs seeds of the simulator: many, to look for trouble, or one, to look at it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_node::planted::Bug;
use driftless_tests::sim::campaign::{Campaign, Cost};
use driftless_tests::sim::planted::Hunt;
use driftless_tests::sim::profile::Regime;
use driftless_tests::sim::run::{Keep, Outcome, run_planted};
use driftless_tests::sim::summary::{Summary, grouped};
use serde_json::json;

/// A tenth of a world's time would be the system's allocator's otherwise.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match (options.seed, &options.plants) {
        (Some(seed), _) => one(seed, &options),
        (None, Plants::All) => hunt(),
        (None, Plants::Nothing | Plants::One(_)) => many(&options),
    }
}

fn hunt() -> ExitCode {
    let hunts = Hunt::all();
    print!("{}", Hunt::table(&hunts));
    if hunts.iter().all(|hunt| hunt.escape().is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let keep = if options.trace { Keep::Everything } else { Keep::Violation };
    let outcome = run_planted(seed, keep, options.plants.bug());
    match (&outcome.violations[..], &outcome.trace) {
        ([], Some(trace)) => print!("{trace}"),
        ([], None) => {}
        _ => print!("{}", outcome.report()),
    }
    println!(
        "seed {seed} ({}): {:.3} simulated seconds of {} nodes, {} operations, {} events, trace hash {:016x}, \
         {} violations{}",
        Regime::of_seed(seed),
        outcome.simulated as f64 / 1e6,
        outcome.nodes,
        outcome.operations,
        outcome.events,
        outcome.hash,
        outcome.violations.len(),
        outcome.bug.map(|bug| format!(", {} made {} times", bug.name(), outcome.hits)).unwrap_or_default()
    );
    verdict(outcome.violations.is_empty())
}

fn many(options: &Options) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a panic is reported as what it is: a violation of a seed
    let Options { first, seeds, jobs, .. } = *options;
    let campaign = Campaign { first, seeds, jobs, bug: options.plants.bug() };
    let mut progress = Progress::new(seeds);
    let (summary, cost) = campaign.run(|summary, cost, broken| progress.show(summary, cost, broken));
    progress.end();
    // Traces are not kept on the way: the first seed that broke a promise is run again with one.
    let first_broken = summary.broken.first().map(|seed| run_planted(*seed, Keep::Violation, campaign.bug));
    match options.format {
        Format::Text => {
            println!("{}\n{summary}{}", summary.coverage_table(), speed(&summary, cost, jobs));
            if let Some(first) = &first_broken {
                println!("\n{}", first.report());
            }
        }
        Format::Json => {
            let first_broken = first_broken.map(|outcome| {
                json!({
                    "seed": outcome.seed,
                    "replay": outcome.replay(),
                    "violations": outcome.violations.iter()
                        .map(|violation| json!({ "promise": violation.promise, "text": violation.text }))
                        .collect::<Vec<_>>(),
                    "trace": outcome.trace,
                })
            });
            let mut value = summary.to_json();
            value["first_seed"] = json!(first);
            value["planted"] = json!(campaign.bug.map(Bug::name));
            value["first_broken"] = json!(first_broken);
            value["jobs"] = json!(jobs);
            value["seconds"] = json!(cost.elapsed.as_secs_f64());
            value["cpu_seconds"] = json!(cost.cpu.as_secs_f64());
            println!("{value:#}");
        }
    }
    verdict(summary.holds())
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Per second of the clock, and per second of a processor: others may use the machine as well.
fn speed(summary: &Summary, cost: Cost, jobs: NonZeroUsize) -> String {
    let rates = |time: Duration| {
        let seconds = time.as_secs_f64().max(1e-9);
        (summary.seeds as f64 / seconds, summary.events as f64 / seconds)
    };
    let (seeds, events) = rates(cost.elapsed);
    let (seeds_of_core, events_of_core) = rates(cost.cpu);
    format!(
        "took {} with {jobs} threads: {seeds:.0} seeds and {} events a second; a core does {seeds_of_core:.0} seeds and {} \
         events in a second of its time",
        lasting(cost.elapsed),
        grouped(events as u64),
        grouped(events_of_core as u64)
    )
}

/// One line that is written over again, or, if nobody looks, a line now and then.
struct Progress {
    seeds: u64,
    on_terminal: bool,
    next_line: Instant,
    broken_shown: usize,
}

impl Progress {
    fn new(seeds: u64) -> Progress {
        Progress {
            seeds,
            on_terminal: std::io::stderr().is_terminal(),
            next_line: Instant::now() + LINE_INTERVAL,
            broken_shown: 0,
        }
    }

    fn show(&mut self, summary: &Summary, cost: Cost, broken: Option<&Outcome>) {
        if let Some(outcome) = broken
            && self.broken_shown < BROKEN_SHOWN
            && let Some(first) = outcome.violations.first()
        {
            self.broken_shown += 1;
            self.clear();
            eprintln!("seed {} breaks {}: {}", outcome.seed, first.promise, first.text);
        }
        let seconds = cost.elapsed.as_secs_f64().max(1e-9);
        let left = (self.seeds - summary.seeds) as f64 * seconds / summary.seeds.max(1) as f64;
        let line = format!(
            "{} of {} seeds, {:.0} seeds and {} events a second, {:.1} simulated hours, {} broken, {} left",
            grouped(summary.seeds),
            grouped(self.seeds),
            summary.seeds as f64 / seconds,
            grouped((summary.events as f64 / seconds) as u64),
            summary.simulated_hours(),
            summary.broken.len(),
            lasting(Duration::from_secs_f64(left))
        );
        if self.on_terminal {
            eprint!("\r{line}{ERASE_TO_END}");
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_INTERVAL;
            eprintln!("{line}");
        }
    }

    fn clear(&self) {
        if self.on_terminal {
            eprint!("\r{ERASE_TO_END}");
        }
    }

    fn end(&self) {
        self.clear();
    }
}

/// A duration in two digits or so.
fn lasting(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

struct Options {
    help: bool,
    seeds: u64,
    first: u64,
    seed: Option<u64>,
    trace: bool,
    jobs: NonZeroUsize,
    format: Format,
    plants: Plants,
}

enum Format {
    Text,
    Json,
}

/// Which mistakes the engines make.
enum Plants {
    Nothing,
    One(Bug),
    All,
}

impl Plants {
    fn of_name(name: &str) -> Result<Plants, String> {
        let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        match name {
            "all" => Ok(Plants::All),
            _ => Bug::of_name(name)
                .map(Plants::One)
                .ok_or_else(|| format!("no bug is called {name:?}, only {}", names())),
        }
    }

    fn bug(&self) -> Option<Bug> {
        match self {
            Plants::One(bug) => Some(*bug),
            Plants::Nothing | Plants::All => None,
        }
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            help: false,
            seeds: 300,
            first: 0,
            seed: None,
            trace: false,
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            format: Format::Text,
            plants: Plants::Nothing,
        };
        while let Some(argument) = arguments.next() {
            let mut text = || arguments.next().ok_or(format!("what of {argument}?"));
            let mut number = || {
                let text = text()?.replace('_', "");
                text.parse::<u64>().map_err(|error| format!("{argument} {text}: {error}"))
            };
            match argument.as_str() {
                "--help" | "-h" => options.help = true,
                "--seeds" => options.seeds = number()?,
                "--first" => options.first = number()?,
                "--seed" => options.seed = Some(number()?),
                "--trace" => options.trace = true,
                "--jobs" => {
                    options.jobs = usize::try_from(number()?)
                        .ok()
                        .and_then(NonZeroUsize::new)
                        .ok_or("--jobs: at least one thread is needed")?;
                }
                "--format" => {
                    options.format = match text()?.as_str() {
                        "text" => Format::Text,
                        "json" => Format::Json,
                        other => return Err(format!("--format is text or json, not {other:?}")),
                    };
                }
                "--planted" => options.plants = Plants::of_name(&text()?)?,
                _ => return Err(format!("what is {argument:?}?")),
            }
        }
        Ok(options)
    }
}

const USAGE: &str = "\
Runs whole clusters in simulated worlds that go wrong, and checks every promise. A seed determines a world.

  simulate [--seeds N] [--first N]      N seeds (300), from this one on (0); a summary, and the first failure
           [--jobs N]                   threads; as many as there are cores. What comes out does not depend on it
           [--format text|json]         the summary, for people (text) or for programs
  simulate --seed N [--trace]           one seed; with everything that happened in it
  simulate --planted BUG ...            the same with a mistake planted into the engines: it should be found
  simulate --planted all                looks for each planted mistake in turn

Exits with 1 if a promise was broken, if 900 seeds or more never met something that they should have, or if a planted
mistake, of all, was not found; with 2 if it was not understood.";

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Later ones are in the summary.
const BROKEN_SHOWN: usize = 20;

/// Of a terminal's line, from the cursor on.
const ERASE_TO_END: &str = "\x1b[K";
