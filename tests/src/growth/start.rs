//! How long a node that was killed takes until it serves again, and until it knows what it holds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::processes::{Cluster, bench_command};

/// One start after `kill -9`.
#[derive(Clone, Debug, Serialize)]
pub struct Started {
    /// Keys on the node.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: u64,
    /// Until it answers requests, in seconds.
    pub serving_seconds: f64,
    /// Until all its trees are built, in seconds.
    pub trees_seconds: f64,
    /// Memory of its process then, in MiB.
    pub resident_mib: u64,
}

/// Fills a cluster with so many keys, kills a node and starts it again.
pub fn starts(keys: u64, value_bytes: u64) -> Started {
    let mut cluster = Cluster::start(3);
    let filled = bench_command(&cluster)
        .args(["--op", "get", "--clients", "128", "--seconds", "1"])
        .args(["--keys", &keys.to_string(), "--value-size", &value_bytes.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(filled.is_ok_and(|status| status.success()), "the cluster could not be filled");
    let name = cluster.names()[0].clone();
    cluster.kill(&name);
    let began = Instant::now();
    cluster.restart(&name);
    let serving = until(began, || cluster.page(&name, "/ready").is_some_and(|(status, _)| status == 200));
    let trees = until(began, || {
        let metrics = cluster.page(&name, "/metrics").map(|(_, body)| body).unwrap_or_default();
        let uncounted = metrics.lines().find_map(|line| line.strip_prefix("driftless_partitions_uncounted "));
        uncounted.is_some_and(|count| count == "0")
    });
    Started {
        keys,
        value_bytes,
        serving_seconds: serving.as_secs_f64(),
        trees_seconds: trees.as_secs_f64(),
        resident_mib: cluster.resident_kib().into_iter().max().unwrap_or_default() >> 10,
    }
}

fn until(began: Instant, holds: impl Fn() -> bool) -> Duration {
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "the node does not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

const PATIENCE: Duration = Duration::from_secs(300);
