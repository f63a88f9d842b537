//! The hunt for planted bugs: a rig that does not find a mistake that is there says nothing by finding none.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{panic, thread};

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

    /// Looks for every bug, on all cores.
    pub fn all() -> Vec<Hunt> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {})); // an engine that trips over its own mistake is a catch
        let (next, hunts) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                scope.spawn(|| {
                    while let at = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(bug) = Bug::ALL.get(at)
                    {
                        let hunt = Hunt::of(*bug);
                        hunts.lock().expect("a seed's panic is caught").insert(at, hunt);
                    }
                });
            }
        });
        panic::set_hook(hook);
        hunts.into_inner().expect("a seed's panic is caught").into_values().collect()
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
