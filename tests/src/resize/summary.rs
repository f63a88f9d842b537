//! What a run came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::check::Promise;
use super::moved::Moved;
use super::options::Recipe;
use super::tally::{Counts, Latency, RATIO_MARK};

/// The outcome of a run.
#[derive(Debug)]
pub struct Summary {
    pub(super) recipe: Recipe,
    pub(super) seed: u64,
    pub(super) took: Duration,
    pub(super) keys: usize,
    pub(super) clients: usize,
    pub(super) counts: Counts,
    pub(super) reasons: Vec<(String, u64)>,
    pub(super) latencies: Vec<Latency>,
    pub(super) moved: Vec<Moved>,
    /// Changes that were settled.
    pub(super) changes: u64,
    /// How often all keys were read and judged.
    pub(super) judgements: u64,
    /// Reads that were judged, and strict ones among them.
    pub(super) reads_judged: (u64, u64),
    /// Writes that may have been stamped twice.
    pub(super) doubtful: u64,
    /// How often each promise was broken.
    pub(super) promises: BTreeMap<Promise, u64>,
    /// The first breaches of promises, each with its key's story.
    pub(super) broken: Vec<String>,
    /// Operations that never succeeded, and what else should not be.
    pub(super) faults: Vec<String>,
    /// What should have been met and was not, so that nothing being broken says little.
    pub(super) missed: Vec<String>,
    /// Whether it was ended from outside before its time.
    pub(super) interrupted: bool,
    /// Where the nodes' files are.
    pub(super) kept: Option<PathBuf>,
}

impl Summary {
    /// Whether every promise was kept, in a run that says something.
    pub fn holds(&self) -> bool {
        self.promises.is_empty() && self.faults.is_empty() && self.missed.is_empty() && self.over_minimum().is_empty()
    }

    /// Changes that moved too much.
    fn over_minimum(&self) -> Vec<&Moved> {
        self.moved.iter().filter(|moved| moved.over_minimum() > OVER_MINIMUM_MAX).collect()
    }

    /// As one object.
    pub fn json(&self) -> Value {
        let us = |time: Duration| time.as_micros() as u64;
        let latency = |latency: &Latency| {
            json!({"phase": latency.phase, "operation": latency.operation, "with_kills": latency.with_strikes,
                "count": latency.count, "p50_us": us(latency.p50), "p99_us": us(latency.p99),
                "p999_us": us(latency.p999), "ratio": latency.ratio, "meets_mark": latency.meets_mark()})
        };
        let moved = |moved: &Moved| {
            json!({"name": moved.name, "changes": moved.changes, "slots": moved.slots, "slots_moved": moved.slots_moved,
                "slots_minimum": moved.slots_minimum, "over_minimum_percent": moved.over_minimum(),
                "bytes_planned": moved.bytes_planned, "bytes_taken": moved.bytes_taken, "keys_taken": moved.keys_taken,
                "seconds": moved.took.as_secs_f64(),
                "kills": moved.kills().collect::<Vec<_>>()})
        };
        let promises: BTreeMap<&str, u64> = Promise::ALL
            .into_iter()
            .map(|promise| (promise.text(), self.promises.get(&promise).copied().unwrap_or(0)))
            .collect();
        let reasons: Vec<Value> =
            self.reasons.iter().map(|(reason, count)| json!({"reason": reason, "count": count})).collect();
        json!({
            "recipe": if self.recipe == Recipe::Churn { "churn" } else { "resize" },
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "keys": self.keys,
            "clients": self.clients,
            "operations": {"gets": self.counts.gets, "writes": self.counts.writes},
            "failed_attempts": self.counts.failed_attempts,
            "reasons": reasons,
            "changes": self.changes,
            "steps": self.moved.iter().map(moved).collect::<Vec<_>>(),
            "latency": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "judgements": self.judgements,
            "reads_judged": self.reads_judged.0,
            "strict_reads_judged": self.reads_judged.1,
            "writes_made_again": self.doubtful,
            "broken": promises,
            "stories": self.broken,
            "faults": self.faults,
            "not_met": self.missed,
            "interrupted": self.interrupted,
            "kept": self.kept,
            "holds": self.holds(),
        })
    }

    fn write_checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |broken: u64| if broken == 0 { "kept".to_owned() } else { format!("BROKEN {broken} times") };
        writeln!(f, "\nchecks")?;
        for promise in Promise::ALL {
            let broken = self.promises.get(&promise).copied().unwrap_or(0);
            writeln!(f, "  {:<36} {}", promise.text(), verdict(broken))?;
        }
        writeln!(f, "  {:<36} {}", "no error that a retry does not cure", verdict(self.faults.len() as u64))?;
        if !self.moved.is_empty() {
            let text = format!("at most {OVER_MINIMUM_MAX:.0} % over the minimum");
            writeln!(f, "  {text:<36} {}", verdict(self.over_minimum().len() as u64))?;
        }
        let (all, strict) = self.reads_judged;
        let times = if self.judgements == 1 { String::new() } else { format!(", {} times", self.judgements) };
        writeln!(
            f,
            "  judged: {all} reads, {strict} of them of keys that are always written and read strictly; {} keys in the end{times}; {} \
             writes made more than once",
            self.keys, self.doubtful
        )
    }

    fn write_moved(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.recipe == Recipe::Churn {
            let sum = |of: fn(&Moved) -> u64| self.moved.iter().map(of).sum::<u64>();
            let (slots, minimum) = (sum(|moved| moved.slots_moved), sum(|moved| moved.slots_minimum));
            let most = self.moved.iter().map(Moved::over_minimum).fold(0.0, f64::max);
            let mut times: Vec<Duration> = self.moved.iter().map(|moved| moved.took).collect();
            times.sort_unstable();
            let seconds = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
            return writeln!(
                f,
                "\n{slots} slots moved, minimum {minimum}, at most {most:.1} % over it in a change; settled after {:.1} s in the \
                 median, {:.1} s at most",
                seconds(times.get(times.len() / 2)),
                seconds(times.last())
            );
        }
        writeln!(f, "\nSTEP        SLOTS  MINIMUM  OVER   PLANNED    TAKEN IN   KEYS    TIME")?;
        for moved in &self.moved {
            writeln!(
                f,
                "{:<11} {:<6} {:<8} {:<6} {:<10} {:<10} {:<7} {:.1} s",
                moved.name,
                moved.slots_moved,
                moved.slots_minimum,
                format!("{:.1} %", moved.over_minimum()),
                mib(moved.bytes_planned),
                mib(moved.bytes_taken),
                moved.keys_taken,
                moved.took.as_secs_f64()
            )?;
            for struck in moved.kills() {
                writeln!(f, "            {struck}")?;
            }
        }
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nPHASE                      OPERATION  COUNT    P50       P99       P99.9     P99 TO QUIET")?;
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        for (place, latency) in self.latencies.iter().enumerate() {
            let phase = if latency.with_strikes { latency.phase.clone() } else { "  … with no node down".to_owned() };
            let ratio = match (place < 2, latency.meets_mark()) {
                (true, _) => String::new(),
                (_, true) => format!("{:.1}, mark met", latency.ratio),
                (_, false) => format!("{:.1}, mark missed", latency.ratio),
            };
            let (p50, p99, p999) = (ms(latency.p50), ms(latency.p99), ms(latency.p999));
            let line = format!(
                "{phase:<26} {:<10} {:<8} {p50:<9} {p99:<9} {p999:<9} {ratio}",
                latency.operation, latency.count
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "mark: p99 at most {RATIO_MARK:.0} times that of the quiet time; to miss it is no failure")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { gets, writes, failed_attempts } = self.counts;
        writeln!(
            f,
            "\nseed {}, {:.0} s: {} keys, {} clients, {} changes settled; {gets} gets and {writes} writes succeeded",
            self.seed,
            self.took.as_secs_f64(),
            self.keys,
            self.clients,
            self.changes
        )?;
        if !self.moved.is_empty() {
            self.write_moved(f)?;
        }
        if !self.latencies.is_empty() {
            self.write_latencies(f)?;
        }
        if failed_attempts > 0 {
            writeln!(f, "\n{failed_attempts} requests failed and were made again:")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  {count:>6} {reason}")?;
        }
        self.write_checks(f)?;
        for broken in &self.broken {
            writeln!(f, "\nBROKEN: {broken}")?;
        }
        for moved in self.over_minimum() {
            let Moved { name, slots_moved, slots_minimum, .. } = moved;
            writeln!(f, "BROKEN: {name} moved {slots_moved} slots where {slots_minimum} are enough")?;
        }
        for fault in self.faults.iter().take(FAULTS_SHOWN_MAX) {
            writeln!(f, "FAULT: {fault}")?;
        }
        if self.faults.len() > FAULTS_SHOWN_MAX {
            writeln!(f, "FAULT: … and {} more", self.faults.len() - FAULTS_SHOWN_MAX)?;
        }
        for missed in &self.missed {
            writeln!(f, "NOT MET: {missed}")?;
        }
        if self.interrupted {
            writeln!(f, "ended from outside before its time")?;
        }
        if let Some(kept) = &self.kept {
            let kept = kept.display();
            writeln!(f, "kept: {kept}; the nodes' logs are {kept}/n1/log.txt and so on")?;
        }
        let verdict = match (self.holds(), self.interrupted) {
            (true, false) => "every promise was kept",
            (true, true) => "no promise was broken until then",
            (false, _) => "not every promise was kept, or too little was met to say so",
        };
        write!(f, "\n{verdict}")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Percent.
const OVER_MINIMUM_MAX: f64 = 5.0;

const FAULTS_SHOWN_MAX: usize = 20;
