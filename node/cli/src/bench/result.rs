//! The result of a benchmark, as `--format json` prints it and `--output` keeps it, and `--compare` reads it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::keys::Distribution;
use super::record::{Second, millis};
use super::workload::{Kind, Operation, Workload};
use crate::output::grouped;

/// What was asked for, and what it came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) settings: Settings,
    /// Of this program, which should be that of the nodes.
    pub(super) release: String,
    /// When the measured time ended.
    pub(super) unix_ms: u64,
    /// How long was measured.
    pub(super) seconds: f64,
    pub(super) interrupted: bool,
    pub(super) operations: u64,
    pub(super) ops_per_second: f64,
    pub(super) errors: Errors,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) open_loop: Option<OpenLoop>,
    pub(super) server_cpu_us_per_op: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server_cpu_reason: Option<String>,
    pub(super) client_cpu_us_per_op: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) put: Option<Latencies>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) get: Option<Latencies>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) insert: Option<Latencies>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read_modify_write: Option<Latencies>,
    /// In files only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) time_line: Vec<Second>,
    /// In files only: by kind, latencies in nanoseconds, as [`encoded`](super::hdr::encoded) writes them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) histograms: BTreeMap<String, String>,
}

/// What a run must have in common with another to be compared with it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Absent with a workload.
    pub(super) op: Option<Operation>,
    pub(super) read_ratio: f64,
    pub(super) workload: Option<Workload>,
    pub(super) distribution: Distribution,
    pub(super) clients: u32,
    /// Requests a second; absent in a closed loop.
    pub(super) rate: Option<f64>,
    pub(super) warmup_seconds: f64,
    pub(super) value_bytes: u64,
    pub(super) keys: u32,
    pub(super) bucket: String,
    pub(super) n: u8,
    pub(super) r: u8,
    pub(super) w: u8,
    pub(super) sloppy: bool,
    pub(super) durability: String,
    pub(super) nodes: usize,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Errors {
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) failed: u64,
    pub(super) kinds: BTreeMap<String, u64>,
    /// In words, by kind.
    pub(super) first: BTreeMap<String, String>,
}

/// What became of the requests that were due. Those that are neither in the latencies nor among the errors are counted here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct OpenLoop {
    /// Within the measured time.
    pub(super) due: u64,
    /// Began more than a millisecond after they were due.
    pub(super) late: u64,
    /// The longest that one waited before it began.
    pub(super) delay_max_ms: f64,
    /// Were still waiting for a client when the time was over.
    pub(super) not_begun: u64,
    /// Were under way when the run was interrupted.
    pub(super) unfinished: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Latencies {
    pub(super) operations: u64,
    pub(super) ops_per_second: f64,
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p99_9_ms: f64,
    pub(super) max_ms: f64,
}

impl Report {
    /// What there is by kind, under the names of the kinds.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (Kind, &Latencies)> {
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, self.latencies(kind)?)))
    }

    pub(super) fn latencies(&self, kind: Kind) -> Option<&Latencies> {
        match kind {
            Kind::Get => self.get.as_ref(),
            Kind::Put => self.put.as_ref(),
            Kind::Insert => self.insert.as_ref(),
            Kind::ReadModifyWrite => self.read_modify_write.as_ref(),
        }
    }

    /// What is printed, without what only files have.
    pub(super) fn brief(&self) -> Report {
        Report { time_line: Vec::new(), histograms: BTreeMap::new(), ..self.clone() }
    }
}

impl Settings {
    /// The operation or the workload.
    pub(super) fn what(&self) -> String {
        match (self.workload, self.op) {
            (Some(workload), _) => format!("workload {}", format!("{workload:?}").to_lowercase()),
            (None, Some(Operation::Put)) => "put".to_owned(),
            (None, Some(Operation::Get)) => "get".to_owned(),
            (None, _) => format!("mixed ({:.0} % gets)", self.read_ratio * 100.0),
        }
    }

    /// When requests begin, and how many are under way.
    pub(super) fn pace(&self) -> String {
        let clients = match self.clients {
            1 => "1 client".to_owned(),
            clients => format!("{} clients", grouped(clients.into())),
        };
        match self.rate {
            Some(rate) if rate.fract() == 0.0 => format!("{} ops/s by at most {clients}", grouped(rate as u64)),
            Some(rate) => format!("{rate} ops/s by at most {clients}"),
            None => clients,
        }
    }
}

impl Latencies {
    /// Absent if there are none.
    pub(super) fn of(histogram: &Histogram<u64>, seconds: f64) -> Option<Latencies> {
        let at = |quantile: f64| millis(histogram.value_at_quantile(quantile).min(histogram.max()));
        (!histogram.is_empty()).then(|| Latencies {
            operations: histogram.len(),
            ops_per_second: histogram.len() as f64 / seconds,
            mean_ms: histogram.mean() / 1e6,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: millis(histogram.max()),
        })
    }
}

/// A result for tests: workload a, of which the puts took so many times as long.
#[cfg(test)]
pub(super) fn sample(factor: f64) -> Report {
    let latencies = |factor: f64| Latencies {
        operations: 3000,
        ops_per_second: 1000.0 / factor,
        mean_ms: 1.5 * factor,
        p50_ms: factor,
        p99_ms: 4.0 * factor,
        p99_9_ms: 9.0 * factor,
        max_ms: 20.0 * factor,
    };
    let second = |start: u32| Second {
        start: f64::from(start),
        seconds: 1.0,
        operations: 2000,
        errors: 0,
        p50_ms: Some(factor),
        p99_ms: Some(4.0 * factor),
        p99_9_ms: Some(9.0 * factor),
        max_ms: Some(20.0 * factor),
    };
    Report {
        settings: Settings {
            op: None,
            read_ratio: 0.5,
            workload: Some(Workload::A),
            distribution: Distribution::Zipfian,
            clients: 64,
            rate: None,
            warmup_seconds: 1.0,
            value_bytes: 1024,
            keys: 1000,
            bucket: "default".to_owned(),
            n: 3,
            r: 2,
            w: 2,
            sloppy: true,
            durability: "sync".to_owned(),
            nodes: 3,
        },
        release: "0.1.0".to_owned(),
        unix_ms: 1_764_400_000_000,
        seconds: 3.0,
        interrupted: false,
        operations: 6000,
        ops_per_second: 1000.0 + 1000.0 / factor,
        errors: Errors::default(),
        open_loop: None,
        server_cpu_us_per_op: Some(100.0 * factor),
        server_cpu_reason: None,
        client_cpu_us_per_op: Some(10.0),
        put: Some(latencies(factor)),
        get: Some(latencies(1.0)),
        insert: None,
        read_modify_write: None,
        time_line: (0..3).map(second).collect(),
        histograms: BTreeMap::from([("put".to_owned(), "HISTFAAA".to_owned())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_back_and_its_json_has_fixed_names() {
        let report = sample(2.0);
        let json = serde_json::to_value(&report).expect("can be written");
        assert_eq!(serde_json::from_value::<Report>(json.clone()).expect("can be read"), report);
        for name in ["op", "workload", "distribution", "clients", "rate", "value_bytes", "n", "durability", "nodes"] {
            assert!(json.get(name).is_some(), "{name}: {json}");
        }
        for name in ["seconds", "operations", "ops_per_second", "errors", "server_cpu_us_per_op", "put", "time_line"] {
            assert!(json.get(name).is_some(), "{name}: {json}");
        }
        assert_eq!((&json["workload"], &json["distribution"]), (&"a".into(), &"zipfian".into()));
        let brief = serde_json::to_value(report.brief()).expect("can be written");
        assert_eq!((brief.get("time_line"), brief.get("histograms"), brief.get("insert")), (None, None, None));
    }
}
