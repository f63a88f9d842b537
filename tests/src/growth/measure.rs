//! The measurements along one axis.

use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::Cell;
use crate::processes::{Cluster, bench_command};

/// What is changed while everything else stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Keys in the bucket.
    Keys,
    /// Bytes of a value.
    Size,
    /// Requests under way.
    Clients,
    /// Members of the cluster.
    Nodes,
    /// Values that stand side by side under a key.
    Siblings,
}

/// How long and how far.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of each measurement.
    pub seconds: u32,
    /// The most keys of [`Axis::Keys`].
    pub keys_max: u64,
}

impl Axis {
    /// All of them.
    pub const ALL: [Axis; 5] = [Axis::Keys, Axis::Size, Axis::Clients, Axis::Nodes, Axis::Siblings];

    /// As it is chosen on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Keys => "keys",
            Axis::Size => "size",
            Axis::Clients => "clients",
            Axis::Nodes => "nodes",
            Axis::Siblings => "siblings",
        }
    }

    /// The heading of its column.
    pub fn title(self) -> &'static str {
        match self {
            Axis::Size => "bytes of a value",
            axis => axis.name(),
        }
    }

    /// A place on it, as people write it.
    pub fn shown(self, at: u64) -> String {
        match self {
            Axis::Size if at >= 1 << 10 => format!("{} KiB", at >> 10),
            _ if at >= 1_000_000 => format!("{} M", at / 1_000_000),
            _ if at >= 10_000 => format!("{} k", at / 1_000),
            _ => at.to_string(),
        }
    }

    fn places(self, plan: &Plan) -> Vec<u64> {
        match self {
            Axis::Keys => {
                [10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|at| *at <= plan.keys_max).collect()
            }
            Axis::Size => vec![100, 1 << 10, 10 << 10, 100 << 10],
            Axis::Clients => vec![1, 4, 16, 64, 256, 512],
            Axis::Nodes => vec![3, 5, 7],
            Axis::Siblings => vec![1, 2, 5, 10],
        }
    }
}

/// Measures along an axis, each place on a new cluster; `said` hears of each cell.
pub fn measure(axis: Axis, plan: &Plan, said: &mut dyn FnMut(&Cell)) -> Vec<Cell> {
    let mut cells = Vec::new();
    for at in axis.places(plan) {
        let cluster = Cluster::start(if axis == Axis::Nodes { at as u16 } else { 3 });
        let measured = match axis {
            Axis::Siblings => of_siblings(&cluster, at, plan),
            _ => ["put", "get"].into_iter().map(|op| by_bench(&cluster, axis, at, op, plan)).collect(),
        };
        measured.iter().for_each(&mut *said);
        cells.extend(measured);
    }
    cells
}

/// As many keys of a size as fit into an ordinary measurement.
fn by_bench(cluster: &Cluster, axis: Axis, at: u64, op: &'static str, plan: &Plan) -> Cell {
    let of = |own: Axis, usual: u64| if axis == own { at } else { usual };
    let (bytes, clients) = (of(Axis::Size, if axis == Axis::Keys { 100 } else { 1 << 10 }), of(Axis::Clients, 64));
    // Not more than a gigabyte of values on each node.
    let keys = of(Axis::Keys, 100_000.min((1 << 30) / bytes));
    let output = bench_command(cluster)
        .args(["--op", op, "--format", "json"])
        .args(["--clients", &clients.to_string(), "--seconds", &plan.seconds.to_string()])
        .args(["--keys", &keys.to_string(), "--value-size", &bytes.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("the binary runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("bench says JSON");
    let of = |field: &str| report[op][field].as_f64().expect("bench has measured it");
    let errors =
        ["refused", "unknown", "failed"].map(|kind| report["errors"][kind].as_u64().expect("bench has counted it"));
    Cell {
        axis,
        at,
        op,
        per_second: report["ops_per_second"].as_f64().expect("bench has measured it"),
        p50_ms: of("p50_ms"),
        p99_ms: of("p99_ms"),
        p99_9_ms: of("p99_9_ms"),
        server_cpu_us: report["server_cpu_us_per_op"].as_f64(),
        resident_mib: resident_mib(cluster),
        errors: errors.iter().sum(),
    }
}

/// Reads, and replacements of all by one, of keys with so many siblings of 100 bytes each.
fn of_siblings(cluster: &Cluster, siblings: u64, plan: &Plan) -> Vec<Cell> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let client = cluster.client().await;
        let bucket = client.bucket("default");
        let key = |number: u64| format!("siblings {}", number % SIBLING_KEYS);
        let value = |number: u64| Bytes::from(format!("{number:0>100}"));
        for round in 0..siblings {
            let blind = |number| {
                let bucket = bucket.clone();
                async move { bucket.put(key(number), value(round)).await.map(drop).expect("stored") }
            };
            futures::stream::iter((0..SIBLING_KEYS).map(blind))
                .buffer_unordered(UNDER_WAY)
                .for_each(|()| async {})
                .await;
        }
        let mut cells = Vec::new();
        let get = |number| {
            let bucket = bucket.clone();
            async move {
                let read = bucket.get(key(number)).await.expect("read");
                assert_eq!(read.values().count() as u64, siblings, "nobody has resolved them");
            }
        };
        cells.push(timed(cluster, siblings, "get", plan, get).await);
        // Each key once: then it has one value.
        let replace = |number| {
            let bucket = bucket.clone();
            async move {
                let context = bucket.get(key(number)).await.expect("read").context().cloned();
                let mut put = bucket.put(key(number), value(number));
                if let Some(context) = context {
                    put = put.context(context);
                }
                put.await.expect("stored");
            }
        };
        cells.push(timed(cluster, siblings, "get, put", plan, replace).await);
        cells
    })
}

async fn timed<F: Future<Output = ()>>(
    cluster: &Cluster,
    at: u64,
    op: &'static str,
    plan: &Plan,
    one: impl Fn(u64) -> F,
) -> Cell {
    let mut latencies = Histogram::<u64>::new(3).expect("three digits are few");
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds.into());
    let measured = |number| {
        let (due, one) = (Instant::now(), one(number));
        async move {
            one.await;
            due.elapsed()
        }
    };
    let numbers = (0..).take_while(|number| *number < SIBLING_KEYS || op == "get");
    let mut under_way = std::pin::pin!(futures::stream::iter(numbers).map(measured).buffer_unordered(UNDER_WAY));
    while let Some(took) = under_way.next().await {
        latencies.record(took.as_micros() as u64).expect("it grows as it must");
        if Instant::now() >= until {
            break;
        }
    }
    let quantile = |q| latencies.value_at_quantile(q) as f64 / 1e3;
    Cell {
        axis: Axis::Siblings,
        at,
        op,
        per_second: latencies.len() as f64 / began.elapsed().as_secs_f64(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p99_9_ms: quantile(0.999),
        server_cpu_us: None,
        resident_mib: resident_mib(cluster),
        errors: 0,
    }
}

fn resident_mib(cluster: &Cluster) -> u64 {
    cluster.resident_kib().into_iter().max().unwrap_or_default() >> 10
}

const SIBLING_KEYS: u64 = 20_000;

const UNDER_WAY: usize = 64;
