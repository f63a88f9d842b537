//! Nodes, clients and a network in simulated time.
//!
//! ```text
//! Scenario ── run ──▶ turmoil: a host for every node, one for the script, one thread, one clock a host
//!                       │ each node: its real shell as local tasks, quinn, SimulatedSocket ─▶ Network ─▶ turmoil's UDP
//!                       └ the script: asks with real clients or by hand, cuts, crashes and mends through a World
//! ```

mod identity;
mod machine;
mod network;
mod raw;
mod socket;
mod world;

use std::time::{Duration, SystemTime};

pub(crate) use identity::{Authority, Issued};
pub(crate) use network::{Faults, Packet};
pub(crate) use raw::{Raw, config, dial, get, put};
pub(crate) use world::{CLUSTER, SCRIPT, Scenario, World};

/// When every run begins.
pub(crate) fn start_of_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}
