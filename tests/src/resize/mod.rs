//! A live cluster that grows and shrinks under load, on real processes: whether its clients lose anything, read anything old, are
//! refused for good or slowed down, and whether no more is moved than must be.
//!
//! ```text
//! recipe ──▶ run ──▶ fleet::change: stage, plan, commit ──▶ settled?     fleet::strike: kill -9 of who gives and who takes, meanwhile
//!                      │ fleet ── driftless serve ×3…6
//!                      │            ▲
//!                      │         workload ──▶ history ──▶ check
//!                      ▼            ▼
//!                    moved        tally ──▶ summary
//! ```
//! The one idea of the checker: **each key has one client that writes it**, one write after the other. So its writes are
//! numbered, what a key must hold is known exactly, and what a strict read shows is a point in that order.
//! Readers are other clients, with connections and a ring of their own.

mod check;
mod history;
mod moved;
mod options;
mod run;
mod summary;
mod tally;
mod value;
mod workload;

pub use options::{Options, Recipe, USAGE};
pub use run::run;
pub use summary::Summary;
