//! Rig D at length: real processes, each on a small disk of its own, that are killed, cut off, starved and
//! robbed of power again and again, join, leave and are replaced, under clients that remember what they were promised.
//!
//! ```text
//! plan ──▶ nemesis ──▶ fleet ── driftless serve ×5 ── disk (a loop-mounted image each)
//!             │  └─ changes ──▲        ▲                 members come and go, and others are struck meanwhile
//!             │                     workload ──▶ history ──▶ check
//!             ▼                                              ▲
//!           round: faults … all healed ──▶ calm: hints gone, replicas equal, all keys read from every replica
//! ```
//! A run is rounds. Each deals its faults from the seed's plan, ends with everything healed, and judges the history of
//! its keys; what was judged is forgotten, so that a run of ten hours needs no more memory than one of ten minutes.

mod calm;
mod changes;
mod check;
mod history;
mod nemesis;
mod options;
mod plan;
pub mod power_cut;
mod run;
mod shape;
mod summary;
mod tally;
mod value;
mod watch;
mod workload;

pub use options::{Options, USAGE};
pub use plan::Fault;
pub use run::{list, run};
pub use summary::Summary;
