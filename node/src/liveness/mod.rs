//! Who is up: a local opinion, used for routing and never for safety. Who is a member is decided elsewhere.
//!
//! ```text
//! connections ─────────────────┐
//! detector (SWIM, per node) ───┼──▶ Reachability (per shard) ──▶ coordinator, handoff: may this peer be counted on?
//! answers, and late ones ──────┘        └── Ping ──▶ a peer that is late, until it answers
//! datagrams ─────────────────────▶ Clocks (per node) ──▶ coordinator: may this node stamp?
//! ```

pub mod clocks;
pub mod detector;
pub(crate) mod reachability;

pub use driftless_proto::client::Liveness;
