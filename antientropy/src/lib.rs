//! Find which keys differ between two replicas of a partition, cheaply.
//!
//! Today this crate holds the [`Digest`] of one key's siblings: sixteen bytes that two replicas share exactly when they
//! know the same of the key. Every stored record carries its digest in front, so that trees over a partition can be
//! built by reading headers only.

mod digest;

pub use digest::Digest;
