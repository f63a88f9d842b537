//! Rig D: a cluster of real processes, real faults, and clients that keep writing through them.
//!
//! ```text
//! Cluster    five `driftless serve` under a `driftless dev`; kill -9, SIGSTOP, start again, slow syncs, cut wires
//! Load       64 clients that put keys of their own, and a few that add elements to shared sets
//! History    what was acknowledged and when, what failed and why
//! run        load, fault, healing, end of load ─▶ Report: was anything lost, is every replica complete, how long did it hurt
//! ```
//! Real processes take real time, and a busy machine stretches it. So tests assert what must hold on any machine:
//! nothing acknowledged is lost, every replica becomes complete, no client meets a failure for good. How long
//! throughput fell is measured by the binary `faults`, on a machine that is otherwise quiet.
//!
//! Everything waits for a bounded time, and no process outlives its [`Cluster`].

pub(crate) mod binary;
pub(crate) mod cluster;
pub(crate) mod fault;
mod history;
mod load;
mod namespace;
mod noted_retry;
mod options;
pub(crate) mod page;
mod reason;
mod report;
mod scenario;
mod stop;
pub(crate) mod strace;
mod verify;
pub(crate) mod wires;

pub use cluster::Cluster;
pub(crate) use cluster::bench_command;
pub use fault::Fault;
pub use history::{Bout, History};
pub use load::Load;
pub use namespace::{Inside, inside, inside_with_disks};
pub(crate) use noted_retry::NotedRetry;
pub use options::Format;
pub(crate) use options::{minutes, number};
pub(crate) use reason::kind_of;
pub use report::Report;
pub use scenario::{Plan, run};
pub(crate) use stop::stop_signals;
pub use verify::Verdict;
pub(crate) use verify::handed_off;
