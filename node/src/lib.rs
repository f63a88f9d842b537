//! A Driftless node: replica, coordinator, and the shell around them.
//!
//! ```text
//!                net/      the only code that awaits, reads the clock, spawns        (feature `net`)
//!                 │  handle_* / commit / poll_output / poll_timeout      ◀── the seam: typed messages, never bytes
//!              Engine      one per shard: lends its `Shard` to the machines, routes what they want, collects outputs
//!       ┌─────────┼──────────┬─────────┐
//!    handoff coordinator reconciler replica     meet only through what the engine routes
//!                                      │  get / scan / apply             ◀── the second seam
//!                    Store     memory (simulator, tests) · disk (feature `disk`)
//! ```
//! Invariants, each asserted where it is made true:
//! - machines do no I/O, read no clock, draw randomness only from the seed they were given;
//! - nothing that carries a dot leaves before the batch that holds it has been applied;
//! - an acknowledgement leaves only after the sync of the newest batch queued before it (buckets with
//!   `durability = sync`);
//! - the one way to change a replica with what others know is `Merge`;
//! - this library knows nothing of the client crate: it is no dependency.

#[cfg(feature = "net")]
pub mod admin;
pub mod bounds;
pub mod conditions;
pub mod config;
pub mod configurations;
pub mod coordinator;
pub mod engine;
pub mod handoff;
#[cfg(feature = "net")]
pub mod jsonl;
pub mod liveness;
mod log_lines;
pub mod membership;
mod meter;
pub mod metrics;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
pub mod node;
pub mod peer;
pub mod planted;
mod plausible;
pub mod pressure;
#[cfg(all(feature = "planted-bugs", feature = "net", feature = "disk"))]
#[doc(hidden)]
pub mod probe;
pub mod reconciler;
pub mod remedy;
pub mod replica;
pub mod route;
mod shard;
pub mod store;
#[cfg(test)]
mod testkit;
pub mod time;
pub mod top;
