//! What a run came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::changes::{Changed, Changes, Hurried};
use super::plan::Fault;
use super::tally::{Counts, Latency};
use super::watch::Use;

/// The outcome of a run.
#[derive(Debug)]
pub struct Summary {
    pub(super) seed: u64,
    pub(super) took: Duration,
    pub(super) rounds: u64,
    pub(super) counts: Counts,
    pub(super) scans: u64,
    pub(super) reasons: Vec<(String, u64)>,
    pub(super) latencies: Vec<Latency>,
    /// How often each fault struck.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// What came of changes of members.
    pub(super) changes: Changes,
    /// What was left out, and why.
    pub(super) left_out: Vec<(Fault, String)>,
    /// From healed to equal everywhere, by round.
    pub(super) convergence: Vec<Duration>,
    /// Keys read from every replica and judged.
    pub(super) judged: u64,
    /// First and last look at the largest node, and at the rig.
    pub(super) used: Option<[(Use, Use); 2]>,
    pub(super) growth: Vec<String>,
    /// What contradicts a promise, each with its story.
    pub(super) broken: Vec<String>,
    /// Where everything is kept, if something is to be looked into.
    pub(super) kept: Option<PathBuf>,
}

impl Summary {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.growth.is_empty()
    }

    /// As one object.
    pub fn json(&self) -> Value {
        let us = |time: Duration| time.as_micros() as u64;
        let latency = |latency: &Latency| {
            json!({"operation": latency.what, "when": latency.when, "count": latency.count, "p50_us": us(latency.p50),
                "p99_us": us(latency.p99), "p999_us": us(latency.p999), "max_us": us(latency.max)})
        };
        let used = |used: &Use| {
            json!({"resident_bytes": used.resident_bytes, "descriptors": used.descriptors, "threads": used.threads,
                "disk_bytes": used.disk_bytes})
        };
        let faults: BTreeMap<&str, u64> = self.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect();
        let left_out: BTreeMap<&str, &str> =
            self.left_out.iter().map(|(fault, reason)| (fault.name(), reason.as_str())).collect();
        let reasons: Vec<Value> =
            self.reasons.iter().map(|(reason, count)| json!({"reason": reason, "count": count})).collect();
        let changed = |(fault, changed): (&Fault, &Changed)| {
            let Changed { begun, finished, cancelled, bytes, took } = changed;
            let took: Vec<u64> = took.iter().map(|took| took.as_millis() as u64).collect();
            let object =
                json!({"begun": begun, "finished": finished, "cancelled": cancelled, "bytes": bytes, "took_ms": took});
            (fault.name().to_owned(), object)
        };
        let Changes { kinds, hurried: Hurried { accepted, refused }, strikes } = &self.changes;
        let kinds: serde_json::Map<String, Value> = kinds.iter().map(changed).collect();
        json!({
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "rounds": self.rounds,
            "scans": self.scans,
            "operations": {"ok": self.counts.ok, "refused": self.counts.refused, "unknown": self.counts.unknown},
            "reasons": reasons,
            "latency": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "faults": faults,
            "changes": {"kinds": kinds, "hurried": {"accepted": accepted, "refused": refused}, "strikes": strikes},
            "left_out": left_out,
            "convergence_ms": self.convergence.iter().map(|time| time.as_millis() as u64).collect::<Vec<_>>(),
            "keys_judged": self.judged,
            "used": self.used.map(|looks| looks.map(|(node, rig)| json!({"node": used(&node), "rig": used(&rig)}))),
            "growth": self.growth,
            "broken": self.broken,
            "kept": self.kept,
            "holds": self.holds(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { ok, refused, unknown } = self.counts;
        writeln!(f, "\n{} rounds in {:.0} s, seed {}", self.rounds, self.took.as_secs_f64(), self.seed)?;
        writeln!(f, "operations: {ok} ok, {refused} refused, {unknown} unknown; {} scans", self.scans)?;
        for (reason, count) in self.reasons.iter().take(12) {
            writeln!(f, "  {count:>7} × {reason}")?;
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(f, "\n| latency, ms | p50 | p99 | p99.9 | most | of |\n|---|---|---|---|---|---|")?;
        for Latency { what, when, count, p50, p99, p999, max } in &self.latencies {
            let [p50, p99, p999, max] = [p50, p99, p999, max].map(|time| ms(*time));
            writeln!(f, "| {what}, {when} | {p50:.2} | {p99:.2} | {p999:.2} | {max:.1} | {count} |")?;
        }
        writeln!(f, "\nfaults:")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:>5} × {}", fault.name())?;
        }
        for (fault, reason) in &self.left_out {
            writeln!(f, "  left out: {}: {reason}", fault.name())?;
        }
        write!(f, "{}", self.changes)?;
        let mut times = self.convergence.clone();
        times.sort_unstable();
        if let (Some(most), Some(middle)) = (times.last(), times.get(times.len() / 2)) {
            writeln!(f, "\nreplicas equal and no hints {middle:.1?} after all was healed (most: {most:.1?})")?;
        }
        if let Some([first, last]) = &self.used {
            writeln!(f, "\n| | memory, MiB | descriptors | threads | disk, MiB |\n|---|---|---|---|---|")?;
            let rows = [
                ("largest node, first round", first.0),
                ("largest node, last round", last.0),
                ("rig, first round", first.1),
                ("rig, last round", last.1),
            ];
            for (who, Use { resident_bytes, descriptors, threads, disk_bytes }) in rows {
                let (memory, disk) = (resident_bytes >> 20, disk_bytes >> 20);
                writeln!(f, "| {who} | {memory} | {descriptors} | {threads} | {disk} |")?;
            }
        }
        for growth in &self.growth {
            writeln!(f, "\nGROWS WITHOUT END: {growth}")?;
        }
        writeln!(f, "\n{} times a key was read from every replica and its history judged", self.judged)?;
        for broken in self.broken.iter().take(SHOWN_MAX) {
            writeln!(f, "\nBROKEN: {broken}")?;
        }
        if self.broken.len() > SHOWN_MAX {
            writeln!(f, "\n… and {} more", self.broken.len() - SHOWN_MAX)?;
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "\nimages, logs and keys are kept in {}", kept.display())?;
        }
        match self.holds() {
            true => writeln!(f, "\nevery promise was kept: nothing acknowledged was lost, all replicas are equal"),
            false => writeln!(f, "\nNOT every promise was kept; the same plan again: --seed {}", self.seed),
        }
    }
}

/// Where one promise is broken, most often many are.
const SHOWN_MAX: usize = 5;
