//! Who is responsible for a key, and who moves when the members change.
//!
//! A key is hashed to a [`Token`], one of 2^64 positions on a circle. The circle is cut into Q equal
//! arcs ([`Partitions`]), and a [`Ring`] says for every arc which members own it: one explicit table
//! for each replication factor in use. Nobody walks round the circle; a row of the table is the answer.
//!
//! ```text
//!  (bucket, key)                     table of class n = 3
//!       │ Token::of                 ┌──────┬─────────────────┐
//!       ▼                           │ n3/0 │  b     d     a  │
//!  0 ───┬────┬────┬─x──┬─── 2^64    │ n3/1 │  c     a     d  │
//!   arc 0    1    2    3      ─────▶│ n3/2 │  a     c     b  │ ◀ first choice as coordinator: a
//!       top bits of the token       │ n3/3 │  d     b     c  │   primaries: a, c, b
//!                                   └──────┴─────────────────┘   fallbacks: computed when asked for
//! ```
//!
//! ```
//! use std::collections::BTreeSet;
//! use driftless_ring::{Member, Partitions, Ring, RingDiff, RingSpec};
//!
//! let member = |name: &str| Member::new(name, format!("{name}.example:7400"));
//! let mut spec = RingSpec {
//!     partitions: Partitions::new(256)?,
//!     hash_seed: 7,
//!     members: ["ada", "bob", "cyd"].map(member).to_vec(),
//!     classes: BTreeSet::from([3]),
//! };
//! let first = Ring::first(spec.clone())?;
//!
//! // Who holds this key?
//! let partition = first.partition(3, first.token(1, b"cart/42"));
//! assert_eq!(first.owners(partition).len(), 3);
//!
//! // A fourth member joins: it takes its quarter, and nothing else moves.
//! spec.members.push(member("dan"));
//! let second = first.next(spec)?;
//! assert_eq!(RingDiff::between(&first, &second).slots_moved(), 256 * 3 / 4);
//! # Ok::<(), driftless_ring::RingError>(())
//! ```
//!
//! A **partition** is (replication factor, arc), written `n3/17`. Buckets of different replication
//! factor live in different tables and never disturb each other.
//!
//! A **ring never changes**: a change of members makes the next version, which names its parent by
//! digest. Equal inputs give equal tables, bit for bit, on every machine: placement knows no floats,
//! no hash maps, no clock and no randomness. Which of two versions is *decided* is not this crate's
//! business; neither is who is up. The ring knows who should hold a key, never who does.

mod diff;
mod member;
mod partition;
mod placement;
mod preference;
mod ring;
mod token;

pub use diff::{BytesToMove, NodeChange, PartitionChange, RingDiff};
pub use member::{Member, NodeId};
pub use partition::{ArcIndex, PartitionId, Partitions, TokenRange};
pub use preference::PreferenceList;
pub use ring::{MEMBERS_MAX, Ring, RingError, RingSpec, RingVersion};
pub use token::Token;
