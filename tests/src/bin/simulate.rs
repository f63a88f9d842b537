//! Runs seeds of the simulator: many, to look for trouble, or one, to look at it.
//!
//! ```sh
//! cargo run --release -p driftless-tests --bin simulate -- --seeds 1000
//! cargo run --release -p driftless-tests --bin simulate -- --seed 42 --trace
//! cargo run --release -p driftless-tests --bin simulate -- --planted all
//! cargo run --release -p driftless-tests --bin simulate -- --planted ack-before-sync --seeds 400
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use driftless_node::planted::Bug;
use driftless_tests::sim::coverage::Coverage;
use driftless_tests::sim::planted::Hunt;
use driftless_tests::sim::profile::Regime;
use driftless_tests::sim::run::{Keep, Outcome, run_planted};

/// Half of a world's time would be the system's allocator's otherwise.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match (options.seed, &options.plants) {
        (Some(seed), _) => one(seed, &options),
        (None, Plants::All) => hunt(),
        (None, Plants::Nothing | Plants::One(_)) => many(&options),
    }
}

fn hunt() -> ExitCode {
    let hunts = Hunt::all();
    print!("{}", Hunt::table(&hunts));
    if hunts.iter().all(|hunt| hunt.catch.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
        "seed {seed} ({}): {} operations, {} events, trace hash {:016x}, {} violations",
        Regime::of_seed(seed),
        outcome.operations,
        outcome.events,
        outcome.hash,
        outcome.violations.len()
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(options: &Options) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a panic is reported as what it is: a violation of a seed
    let began = Instant::now();
    let mut coverage = Coverage::default();
    let (mut events, mut operations) = (0, 0);
    let mut failed: Vec<Outcome> = Vec::new();
    let mut regimes: BTreeMap<Regime, (u64, u64)> = BTreeMap::new();
    let mut promises: BTreeMap<&str, u64> = BTreeMap::new();
    for (done, seed) in (options.first..options.first + options.seeds).enumerate() {
        let outcome = run_planted(seed, Keep::Nothing, options.plants.bug());
        coverage.join(&outcome.coverage);
        events += outcome.events;
        operations += outcome.operations;
        let regime = regimes.entry(Regime::of_seed(seed)).or_default();
        regime.0 += 1;
        if !outcome.violations.is_empty() {
            regime.1 += 1;
            let mut broken: Vec<_> = outcome.violations.iter().map(|violation| violation.promise).collect();
            broken.sort_unstable();
            broken.dedup();
            broken.into_iter().for_each(|promise| *promises.entry(promise).or_default() += 1);
            failed.push(outcome);
        }
        if (done + 1) % 100 == 0 {
            let rate = (done + 1) as f64 / began.elapsed().as_secs_f64();
            eprint!("\r{} seeds, {rate:.0} a second, {} broken ", done + 1, failed.len());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    eprintln!();
    println!("{coverage}");
    println!(
        "{} seeds in {seconds:.1} s: {:.0} seeds, {:.0} operations and {:.0} events a second",
        options.seeds,
        options.seeds as f64 / seconds,
        operations as f64 / seconds,
        events as f64 / seconds
    );
    for (regime, (seeds, broken)) in regimes {
        println!("{regime:>12}: {broken} of {seeds} seeds broken");
    }
    for (promise, seeds) in promises {
        println!("{promise:>32}: broken in {seeds} seeds");
    }
    let missing = coverage.missing();
    if !missing.is_empty() {
        println!("never met: {}", missing.join(", "));
    }
    let Some(first) = failed.first() else {
        return ExitCode::SUCCESS;
    };
    let seeds: Vec<_> = failed.iter().take(20).map(|outcome| outcome.seed.to_string()).collect();
    println!("broken seeds: {}", seeds.join(" "));
    println!("{}", first.report());
    ExitCode::FAILURE
}

struct Options {
    seeds: u64,
    first: u64,
    seed: Option<u64>,
    trace: bool,
    plants: Plants,
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
        let mut options = Options { seeds: 300, first: 0, seed: None, trace: false, plants: Plants::Nothing };
        while let Some(argument) = arguments.next() {
            let mut text = || arguments.next().ok_or(format!("what of {argument}?"));
            let mut number = || {
                let text = text()?;
                text.parse::<u64>().map_err(|error| format!("{argument} {text}: {error}"))
            };
            match argument.as_str() {
                "--seeds" => options.seeds = number()?,
                "--first" => options.first = number()?,
                "--seed" => options.seed = Some(number()?),
                "--trace" => options.trace = true,
                "--planted" => options.plants = Plants::of_name(&text()?)?,
                _ => return Err(format!("what is {argument:?}?")),
            }
        }
        Ok(options)
    }
}

const USAGE: &str =
    "usage: simulate [--planted BUG] [--seeds N] [--first N] | [--planted BUG] --seed N [--trace] | --planted all";
