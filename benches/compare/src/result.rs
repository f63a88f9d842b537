//! What was measured, as it is kept in a file.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::systems::redis::Wait;
use crate::systems::{EtcdMembers, Meaning, Name};
use crate::usage::Memory;

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) unix_seconds: u64,
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    pub(crate) systems: Vec<Described>,
    pub(crate) absent: Vec<Absent>,
    /// Each system in each round.
    pub(crate) runs: Vec<Run>,
    pub(crate) cells: Vec<Cell>,
    /// It ended before all was measured, and why.
    pub(crate) cut_short: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) ops: Vec<Op>,
    pub(crate) clients: Vec<u32>,
    pub(crate) warmup_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) keys: u32,
    pub(crate) value_bytes: u32,
    pub(crate) etcd_members: EtcdMembers,
    pub(crate) etcd_connections: u16,
    pub(crate) redis_connections: u16,
    pub(crate) redis_wait: Wait,
    pub(crate) read_before_put: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Where the data is, while it is.
    pub(crate) dir: PathBuf,
    pub(crate) in_memory: bool,
    /// Median of a write of 4 KiB with its `fdatasync`, before anything runs.
    pub(crate) sync_us: f64,
}

/// A system that takes part.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) system: Name,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    #[serde(flatten)]
    pub(crate) meaning: Meaning,
}

/// A system that does not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Absent {
    pub(crate) system: Name,
    pub(crate) why: String,
}

/// A system in a round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) system: Name,
    /// Until it took requests.
    pub(crate) start_seconds: f64,
    /// Until all keys were written.
    pub(crate) preload_seconds: f64,
}

/// One operation with so many clients, of a system in a round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) round: u32,
    pub(crate) system: Name,
    pub(crate) op: Op,
    pub(crate) clients: u32,
    /// That succeeded, and ended, within the measured time.
    pub(crate) operations: u64,
    pub(crate) ops_per_second: f64,
    /// Of those that began within the measured time; absent if there were none.
    pub(crate) latency: Option<Latency>,
    /// In the warm-up as well.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Gets that found more than one value; in the warm-up as well.
    pub(crate) siblings: u64,
    /// Of all processes that serve, and of the load; absent if nothing succeeded.
    pub(crate) server_cpu_us_per_op: Option<f64>,
    pub(crate) client_cpu_us_per_op: Option<f64>,
    /// Of all processes that serve, at the end.
    pub(crate) memory: Memory,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Put,
    Get,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Put => "put",
            Op::Get => "get",
        })
    }
}

impl Report {
    /// Whether every request that was made succeeded, and all were made.
    pub(crate) fn is_clean(&self) -> bool {
        self.cut_short.is_none() && self.cells.iter().all(|cell| cell.errors == 0 && cell.operations > 0)
    }
}
