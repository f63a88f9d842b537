//! The hunt for planted bugs: a rig that does not find a mistake that is there says nothing by finding none.
//!
//! A mistake escapes in one of two ways, which ask for different things. Either no world ever gets to where it makes a
//! difference: then the worlds are too kind. Or it made one, and nobody noticed: then a checker is missing.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{panic, thread};

use driftless_node::planted::Bug;

use super::profile::Regime;
use super::run::{Keep, run_planted};
use super::summary::grouped;

/// A bug, and how it was found.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Which.
    pub bug: Bug,
    /// `None` if it was not.
    pub catch: Option<Catch>,
    /// What it did in each kind of world.
    pub made: BTreeMap<Regime, Made>,
    /// The first seed that broke a promise in which the mistake had changed nothing: a fault of somebody else's.
    pub broken_without: Option<u64>,
}

/// The first seed that gave a bug away.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// The seed.
    pub seed: u64,
    /// The first promise that it was seen to break.
    pub promise: &'static str,
}

/// How often a mistake was made.
#[derive(Clone, Copy, Default, Debug)]
pub struct Made {
    /// In how many seeds it might have been.
    pub seeds: u64,
    /// In how many of them it was.
    pub seeds_hit: u64,
    /// How often it changed what happened, in all of them.
    pub hits: u64,
}

/// Why a bug was not found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Escape {
    /// It made no difference in any seed.
    NeverReached {
        /// Of how many.
        seeds: u64,
    },
    /// It did, and no promise was seen broken.
    NotNoticed {
        /// How often.
        hits: u64,
        /// In how many seeds.
        seeds_hit: u64,
        /// Of how many.
        seeds: u64,
    },
    /// A seed in which it made no difference broke a promise.
    BrokenWithout {
        /// Which.
        seed: u64,
    },
}

/// A bug that is not found within this many seeds of some regime shows that the rig is too weak.
pub const SEEDS_PER_REGIME: u64 = 600;

/// Seeds of each regime in which hits are counted, however soon the bug is found.
pub const SEEDS_COUNTED: u64 = 10;

const REGIMES: u64 = Regime::ALL.len() as u64;

impl Hunt {
    /// Looks for one bug, from the first seed on through all regimes in turn.
    pub fn of(bug: Bug) -> Hunt {
        let mut hunt = Hunt { bug, catch: None, made: BTreeMap::new(), broken_without: None };
        for seed in 0..SEEDS_PER_REGIME * REGIMES {
            if hunt.catch.is_some() && seed >= SEEDS_COUNTED * REGIMES {
                break;
            }
            let outcome = run_planted(seed, Keep::Nothing, Some(bug));
            let made = hunt.made.entry(Regime::of_seed(seed)).or_default();
            made.seeds += 1;
            made.seeds_hit += u64::from(outcome.hits > 0);
            made.hits += outcome.hits;
            match outcome.violations.first() {
                Some(_) if outcome.hits == 0 => {
                    hunt.broken_without.get_or_insert(seed);
                }
                Some(violation) => {
                    hunt.catch.get_or_insert(Catch { seed, promise: violation.promise });
                }
                None => {}
            }
        }
        hunt
    }

    /// Looks for every bug, on all cores.
    pub fn all() -> Vec<Hunt> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {})); // an engine that trips over its own mistake is a catch
        let bugs = Bug::hunted();
        let (next, hunts) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                scope.spawn(|| {
                    while let at = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(bug) = bugs.get(at)
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

    /// Why it was not found, if it was not, or not by what it does.
    pub fn escape(&self) -> Option<Escape> {
        let sum = |of: fn(&Made) -> u64| self.made.values().map(of).sum::<u64>();
        let (seeds, seeds_hit, hits) = (sum(|made| made.seeds), sum(|made| made.seeds_hit), sum(|made| made.hits));
        match (self.broken_without, self.catch) {
            (Some(seed), _) => Some(Escape::BrokenWithout { seed }),
            (None, Some(_)) => None,
            (None, None) if hits == 0 => Some(Escape::NeverReached { seeds }),
            (None, None) => Some(Escape::NotNoticed { hits, seeds_hit, seeds }),
        }
    }

    /// What was found where, for people and for `docs/simulation.md`; and below it what was not.
    pub fn table(hunts: &[Hunt]) -> String {
        let mut table =
            format!("| {:<32} | {:<28} | {:<6} | seeds | hits |\n|---|---|---|---|---|\n", "bug", "found by", "world");
        for hunt @ Hunt { bug, catch, .. } in hunts {
            let (promise, regime, seeds) = match catch {
                Some(Catch { seed, promise }) => (*promise, Regime::of_seed(*seed).to_string(), (seed + 1).to_string()),
                None => ("nothing", "any".to_owned(), format!("> {}", SEEDS_PER_REGIME * REGIMES)),
            };
            let name = format!("`{}`", bug.name());
            let hits: Vec<_> = hunt.made.values().map(|made| grouped(made.hits)).collect();
            let hits = hits.join(" / ");
            writeln!(table, "| {name:<32} | {promise:<28} | {regime:<6} | {seeds:>5} | {hits} |")
                .expect("a string takes everything");
        }
        for escaped in Hunt::escaped(hunts) {
            writeln!(table, "{escaped}").expect("a string takes everything");
        }
        table
    }

    /// What was not found, and why.
    pub fn escaped(hunts: &[Hunt]) -> Vec<String> {
        let told = |hunt: &Hunt| Some(format!("{} {}", hunt.bug.name(), hunt.escape()?));
        hunts.iter().filter_map(told).collect()
    }
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Escape::NeverReached { seeds } => {
                write!(f, "was never reached: it made no difference in any of {seeds} worlds, they are too kind")
            }
            Escape::NotNoticed { hits, seeds_hit, seeds } => {
                let hits = grouped(*hits);
                write!(
                    f,
                    "was not noticed: made {hits} times, in {seeds_hit} of {seeds} worlds, and no checker objects"
                )
            }
            Escape::BrokenWithout { seed } => {
                write!(f, "is not to blame: seed {seed} breaks a promise in which it made no difference")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunt(made: &[(Regime, u64, u64)]) -> Hunt {
        let made =
            made.iter().map(|&(regime, seeds_hit, hits)| (regime, Made { seeds: 400, seeds_hit, hits })).collect();
        Hunt { bug: Bug::AckBeforeSync, catch: None, made, broken_without: None }
    }

    #[test]
    fn the_pages_name_every_bug_and_count_them() {
        let page = include_str!("../../../docs/simulation.md");
        let has_row = |bug: &&Bug| page.lines().any(|line| line.starts_with(&format!("| `{}` |", bug.name())));
        let unnamed = Bug::ALL.iter().filter(|bug| !page.contains(&format!("`{}`", bug.name())));
        assert_eq!(unnamed.collect::<Vec<_>>(), [&Bug::AckBeforeSync; 0]);
        let hunted = Bug::hunted();
        assert_eq!(hunted.iter().filter(|bug| !has_row(bug)).collect::<Vec<_>>(), [&Bug::AckBeforeSync; 0]);
        // Those in the log have worlds of their own.
        let held = Bug::HELD_BY_TESTS.iter().filter(has_row).count();
        let found = hunted.len();
        let readme: Vec<&str> = include_str!("../../../README.md").split_whitespace().collect();
        let counted = format!(
            "{found} planted mistakes must each be found within {SEEDS_PER_REGIME} seeds, and {held} that it cannot notice"
        );
        assert!(readme.join(" ").contains(&counted), "README says: {counted}");
    }

    #[test]
    fn what_was_never_reached_is_told_from_what_nobody_noticed() {
        let unreached = hunt(&[(Regime::Plain, 0, 0), (Regime::Stress, 0, 0)]);
        let unnoticed = hunt(&[(Regime::Plain, 0, 0), (Regime::Stress, 3, 1_234)]);
        let told = Hunt::escaped(&[unreached, unnoticed.clone()]);
        assert_eq!(
            told,
            [
                "ack-before-sync was never reached: it made no difference in any of 800 worlds, they are too kind",
                "ack-before-sync was not noticed: made 1,234 times, in 3 of 800 worlds, and no checker objects",
            ]
        );
        let caught = Hunt { catch: Some(Catch { seed: 7, promise: "durability" }), ..unnoticed };
        assert_eq!(caught.escape(), None);
        let elsewhere = Hunt { broken_without: Some(5), ..caught };
        assert_eq!(elsewhere.escape(), Some(Escape::BrokenWithout { seed: 5 }), "something else is wrong");
    }
}
