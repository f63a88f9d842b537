//! The simulator's seeds: every promise, in every kind of world, replayable by one number.
//!
//! `DRIFTLESS_SEEDS=N` runs more of them, `DRIFTLESS_SEED=N` replays one.
#![allow(clippy::print_stdout, reason = "a failing seed tells its story")]

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use driftless_tests::sim::campaign::Campaign;
use driftless_tests::sim::coverage::SEEDS_ENOUGH;
use driftless_tests::sim::run::{Keep, run};

#[test]
fn every_promise_holds_in_every_seed() {
    let seeds = number("DRIFTLESS_SEEDS").unwrap_or(SEEDS_ENOUGH);
    let jobs = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let campaign = Campaign { first: 0, seeds, jobs, bug: None };
    let (summary, _) = campaign.run(|_, _, _| {});
    if let Some(seed) = summary.broken.first() {
        panic!("{summary}{}", run(*seed, Keep::Violation).report());
    }
    println!("{}\n{summary}", summary.coverage_table());
    assert!(summary.holds(), "never met in {seeds} seeds: {:?}; green means nothing", summary.missing());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [0, 1, 2, 17, 18, 19] {
        let (once, again) = (run(seed, Keep::Nothing), run(seed, Keep::Everything));
        assert_eq!((once.hash, once.events), (again.hash, again.events), "seed {seed}, with and without lines");
        assert_ne!(once.hash, run(seed + 1000, Keep::Nothing).hash);
    }
}

#[test]
fn what_comes_out_does_not_depend_on_the_number_of_threads() {
    let [alone, together] = [1, 5].map(|jobs| {
        let jobs = NonZeroUsize::new(jobs).expect("more than none");
        Campaign { first: 7, seeds: 12, jobs, bug: None }.run(|_, _, _| {}).0
    });
    assert_eq!(alone, together);
    assert_eq!(alone.seeds, 12);
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
