//! A deterministic world around the real [`Engine`](driftless_node::engine::Engine)s.
//!
//! ```text
//!  generator ─▶ client ──requests──▶ ┌────────── cluster ──────────┐
//!                 ▲                  │ node: Engine over SimStore  │◀─ turns, timers, syncs, crashes
//!                 └───responses───── └──────┬───────────────▲──────┘
//!  nemesis ─▶ cuts, crashes, pauses,        ▼               │
//!             clock jumps, full disks     network: latency, loss, duplicates, connections
//!
//!  history   what clients asked and were told  ┐
//!  observer  every dot, from batches and wire  ├─▶ check/  one file per promise
//!  stores    what is written, what is synced   ┘
//! ```
//! One thread, one seed, ordered maps, no clock of the real world: [`run`](run::run) of one seed gives the same events
//! each time, and [`Outcome::hash`](run::Outcome::hash) says so.

pub mod agreement;
pub mod archivist;
pub mod campaign;
pub mod check;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod counts;
pub mod coverage;
pub mod describe;
pub mod explained;
pub mod faults;
pub mod generator;
pub mod hints;
pub mod history;
pub mod judges;
mod nemesis;
pub mod network;
pub mod node;
pub mod observer;
pub mod planted;
pub mod profile;
pub mod reused_ids;
pub mod run;
pub mod schedule;
pub mod shape;
pub mod shard;
pub mod store;
pub mod summary;
pub mod trace;
pub mod walker;
pub mod workload;
pub mod world;
