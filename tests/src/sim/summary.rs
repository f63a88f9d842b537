//! What many seeds come to, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::coverage::{REQUIRED, SEEDS_ENOUGH};
use super::profile::Regime;
use super::run::Outcome;

/// The sum of outcomes, in whatever order they were taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many seeds ran.
    pub seeds: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Everything that happened.
    pub events: u64,
    /// Microseconds that the worlds lived, by their own clocks.
    pub simulated: u64,
    /// The same times the nodes of each.
    pub node_time: u64,
    /// Of all traces: the same for the same seeds and the same code.
    pub hash: u64,
    /// The seeds that broke a promise.
    pub broken: BTreeSet<u64>,
    /// In how many seeds each promise was broken.
    pub promises: BTreeMap<&'static str, u64>,
    /// Of each kind of world: how many there were, and how many broke a promise.
    pub regimes: BTreeMap<Regime, (u64, u64)>,
    coverage: BTreeMap<&'static str, Met>,
    /// The planted mistake.
    made: Met,
}

/// How often something was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Met {
    times: u64,
    seeds: u64,
}

impl Met {
    fn add(&mut self, times: u64) {
        self.times += times;
        self.seeds += u64::from(times > 0);
    }
}

impl Summary {
    /// One seed more.
    pub fn take_in(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.operations += outcome.operations as u64;
        self.events += outcome.events;
        self.simulated += outcome.simulated;
        self.node_time += outcome.simulated * outcome.nodes as u64;
        self.hash = self.hash.wrapping_add(xxh3_64_with_seed(&outcome.hash.to_le_bytes(), outcome.seed));
        let regime = self.regimes.entry(Regime::of_seed(outcome.seed)).or_default();
        regime.0 += 1;
        if !outcome.violations.is_empty() {
            regime.1 += 1;
            self.broken.insert(outcome.seed);
            let promises: BTreeSet<_> = outcome.violations.iter().map(|violation| violation.promise).collect();
            promises.into_iter().for_each(|promise| *self.promises.entry(promise).or_default() += 1);
        }
        for (name, times) in outcome.coverage.iter() {
            self.coverage.entry(name).or_default().add(times);
        }
        self.made.add(outcome.hits);
    }

    /// Whether no promise was broken, and enough was met for that to mean something.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && (self.seeds < SEEDS_ENOUGH || self.missing().is_empty())
    }

    /// What [`SEEDS_ENOUGH`] seeds must meet, and these did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = |name: &&str| self.coverage.get(*name).is_none_or(|met| met.times == 0);
        REQUIRED.iter().copied().filter(never).collect()
    }

    /// Hours that the worlds lived.
    pub fn simulated_hours(&self) -> f64 {
        self.simulated as f64 / MICROS_PER_HOUR
    }

    /// The same times the nodes of each.
    pub fn node_hours(&self) -> f64 {
        self.node_time as f64 / MICROS_PER_HOUR
    }

    /// What was met, as a table.
    pub fn coverage_table(&self) -> String {
        let mut table = format!("{:<42} {:>15}  {:>10}\n", "met", "times", "in seeds");
        for (name, met) in &self.coverage {
            let share = 100.0 * met.seeds as f64 / self.seeds.max(1) as f64;
            let mark = if met.times == 0 && REQUIRED.contains(name) { "  never, and it must be" } else { "" };
            table += &format!("{name:<42} {:>15}  {share:>8.1} %{mark}\n", grouped(met.times));
        }
        for name in self.missing().iter().filter(|name| !self.coverage.contains_key(**name)) {
            table += &format!("{name:<42} {:>15}  {:>8.1} %  never, and it must be\n", 0, 0.0);
        }
        table
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let coverage: BTreeMap<_, _> = self
            .coverage
            .iter()
            .map(|(name, met)| (*name, json!({ "times": met.times, "seeds": met.seeds })))
            .collect();
        let regimes: BTreeMap<_, _> = self
            .regimes
            .iter()
            .map(|(regime, (seeds, broken))| (regime.to_string(), json!({ "seeds": seeds, "broken": broken })))
            .collect();
        json!({
            "seeds": self.seeds,
            "operations": self.operations,
            "events": self.events,
            "simulated_hours": self.simulated_hours(),
            "node_hours": self.node_hours(),
            "trace_hash": format!("{:016x}", self.hash),
            "worlds": regimes,
            "broken_seeds": self.broken,
            "broken_promises": self.promises,
            "coverage": coverage,
            "never_met": self.missing(),
            "made": { "times": self.made.times, "seeds": self.made.seeds },
        })
    }
}

/// What ran and what broke.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds: {:.1} simulated hours ({:.1} of nodes), {} operations, {} events, hash of all traces {:016x}",
            grouped(self.seeds),
            self.simulated_hours(),
            self.node_hours(),
            grouped(self.operations),
            grouped(self.events),
            self.hash
        )?;
        let worlds: Vec<_> = self
            .regimes
            .iter()
            .map(|(regime, (seeds, broken))| format!("{} of {} {regime} worlds", grouped(*broken), grouped(*seeds)))
            .collect();
        writeln!(f, "broke a promise: {}", worlds.join(", "))?;
        for (promise, seeds) in &self.promises {
            writeln!(f, "  {promise}: in {} seeds", grouped(*seeds))?;
        }
        if !self.broken.is_empty() {
            let some: Vec<_> = self.broken.iter().take(BROKEN_SHOWN).map(u64::to_string).collect();
            let more = if self.broken.len() > BROKEN_SHOWN { ", …" } else { "" };
            writeln!(f, "broken seeds: {}{more}", some.join(", "))?;
        }
        if self.made.times > 0 {
            let (times, seeds) = (grouped(self.made.times), grouped(self.made.seeds));
            writeln!(f, "the planted mistake was made {times} times, in {seeds} seeds")?;
        }
        Ok(())
    }
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

const MICROS_PER_HOUR: f64 = 3_600e6;

const BROKEN_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::run::{Keep, run};
    use super::*;

    #[test]
    fn the_order_of_outcomes_does_not_matter() {
        let outcomes: Vec<_> = (0..4).map(|seed| run(seed, Keep::Nothing)).collect();
        let (mut there, mut back) = (Summary::default(), Summary::default());
        outcomes.iter().for_each(|outcome| there.take_in(outcome));
        outcomes.iter().rev().for_each(|outcome| back.take_in(outcome));
        assert_eq!(there, back);
        assert!(there.simulated_hours() > 0.0 && there.node_hours() >= 3.0 * there.simulated_hours());
        let mut other = Summary::default();
        [1, 2, 3, 4].into_iter().for_each(|seed| other.take_in(&run(seed, Keep::Nothing)));
        assert_ne!(there.hash, other.hash);
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
