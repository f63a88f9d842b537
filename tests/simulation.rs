//! The simulator's seeds: every promise, in every kind of world, replayable by one number.
//!
//! `DRIFTLESS_SEEDS=N` runs more of them, `DRIFTLESS_SEED=N` replays one.
#![allow(clippy::print_stdout, reason = "a failing seed tells its story")]

use driftless_tests::sim::coverage::Coverage;
use driftless_tests::sim::run::{Keep, run};

/// Enough to meet everything that the coverage demands, several times, in a minute on one busy core.
const SEEDS: u64 = 900;

#[test]
fn every_promise_holds_in_every_seed() {
    let seeds = number("DRIFTLESS_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    for seed in 0..seeds {
        let outcome = run(seed, Keep::Nothing);
        if !outcome.violations.is_empty() {
            panic!("{}", run(seed, Keep::Violation).report());
        }
        coverage.join(&outcome.coverage);
    }
    println!("{coverage}");
    if seeds >= SEEDS {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "never met in {seeds} seeds; green means nothing");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [0, 1, 2, 17, 18, 19] {
        let (once, again) = (run(seed, Keep::Nothing), run(seed, Keep::Everything));
        assert_eq!((once.hash, once.events), (again.hash, again.events), "seed {seed}, with and without lines");
        assert_ne!(once.hash, run(seed + 1000, Keep::Nothing).hash);
    }
}

/// Replays `DRIFTLESS_SEED` with its whole trace.
#[test]
fn replay() {
    let Some(seed) = number("DRIFTLESS_SEED") else { return };
    let outcome = run(seed, Keep::Everything);
    if outcome.violations.is_empty() {
        println!("{}seed {seed} keeps every promise", outcome.trace.unwrap_or_default());
    } else {
        panic!("{}", outcome.report());
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
