//! Rig D on one store: a single real process whose every acknowledged write must be on that very disk, killed and robbed of power
//! again and again.
//!
//! ```text
//! strikes ──▶ campaign ── driftless serve ── disk (a loop-mounted image)
//!                │              ▲
//!                │           writers ──▶ ledger ◀── what is read after each start
//!                └─ segments: how often the log's files were begun and used again
//! ```
//! [`torment`](crate::torment) does the same and more to five nodes, where another replica may have what one disk has lost. Here is one
//! copy of everything, and one writer to each key: what a key may hold afterwards is one value, or the one under way beside it.

mod campaign;
mod ledger;
mod options;
mod segments;
mod strikes;
mod summary;
mod value;
mod writers;

pub use campaign::run;
pub use options::{Options, Planted, USAGE};
pub use summary::Summary;
