//! The hunt for planted bugs: a rig that does not find a mistake that is there says nothing by finding none.

use std::fmt::Write;
use std::panic;

use driftless_node::planted::Bug;

use super::profile::Regime;
use super::run::{Keep, run_planted};

/// A bug, and how it was found.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// Which.
    pub bug: Bug,
    /// `None` if it was not.
    pub catch: Option<Catch>,
}

/// The first seed that gave a bug away.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// The seed.
    pub seed: u64,
    /// The first promise that it was seen to break.
    pub promise: &'static str,
}

/// A bug that is not found within this many seeds of some regime shows that the rig is too weak.
pub const SEEDS_PER_REGIME: u64 = 400;

/// Seeds take them in turn.
const REGIMES: u64 = 3;

impl Hunt {
    /// Looks for one bug, from the first seed on through all regimes in turn.
    pub fn of(bug: Bug) -> Hunt {
        let catch = (0..SEEDS_PER_REGIME * REGIMES).find_map(|seed| {
            let outcome = run_planted(seed, Keep::Nothing, Some(bug));
            outcome.violations.first().map(|violation| Catch { seed, promise: violation.promise })
        });
        Hunt { bug, catch }
    }

    /// Looks for every bug, one after the other.
    pub fn all() -> Vec<Hunt> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {})); // an engine that trips over its own mistake is a catch
        let hunts = Bug::ALL.iter().copied().map(Hunt::of).collect();
        panic::set_hook(hook);
        hunts
    }

    /// What was found where, for people and for `docs/simulation.md`.
    pub fn table(hunts: &[Hunt]) -> String {
        let mut table = format!("| {:<30} | {:<28} | {:<6} | seeds |\n|---|---|---|---|\n", "bug", "found by", "world");
        for Hunt { bug, catch } in hunts {
            let (promise, regime, seeds) = match catch {
                Some(Catch { seed, promise }) => (*promise, Regime::of_seed(*seed).to_string(), (seed + 1).to_string()),
                None => ("nothing", "any".to_owned(), format!("> {}", SEEDS_PER_REGIME * REGIMES)),
            };
            let name = format!("`{}`", bug.name());
            writeln!(table, "| {name:<30} | {promise:<28} | {regime:<6} | {seeds:>5} |")
                .expect("a string takes everything");
        }
        table
    }
}
