//! Q equal arcs of the ring.
//!
//! Q is a power of two and an arc is the top bits of the token, so doubling Q cuts every arc in two
//! and no key changes sides:
//!
//! ```text
//! Q = 2   |        0        |        1        |
//! Q = 4   |   0    |   1    |   2    |   3    |      arc a becomes arcs 2a and 2a + 1
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RingError, Token};

/// The number Q of arcs: a power of two, from 1 to [`Partitions::MAX`].
///
/// More partitions spread the load more evenly (a good value is 10 or more per member) and move in
/// smaller pieces; each costs every owner a few counters and one line in every anti-entropy round.
/// Q can be doubled later, never halved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Partitions(u32);

impl Partitions {
    /// The largest Q. At three replicas a table of this size is 1.5 MiB in memory; beyond it the ring
    /// itself becomes a burden to send around.
    pub const MAX: u32 = 1 << 16;

    /// Q arcs. Refuses what is not a power of two in `1..=MAX`.
    pub fn new(q: u32) -> Result<Partitions, RingError> {
        if q.is_power_of_two() && q <= Self::MAX { Ok(Partitions(q)) } else { Err(RingError::BadPartitions { q }) }
    }

    /// Q as a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Twice as many arcs; `None` beyond [`Partitions::MAX`].
    pub fn doubled(self) -> Option<Partitions> {
        Partitions::new(self.0.checked_mul(2)?).ok()
    }

    /// The arc that holds a token: its top bits.
    pub fn arc_of(self, token: Token) -> ArcIndex {
        // Shifting by all 64 bits, which happens for Q = 1, is not a shift; it leaves arc 0.
        let top = token.0.checked_shr(self.shift()).unwrap_or(0);
        ArcIndex(top as u32) // fewer than 17 bits are left
    }

    /// The tokens of an arc. An arc beyond the last one is taken modulo Q; check it with
    /// [`Partitions::contains`] where it comes from outside.
    pub fn range(self, arc: ArcIndex) -> TokenRange {
        let index = u64::from(arc.0 & (self.0 - 1));
        let first = index.checked_shl(self.shift()).unwrap_or(0);
        let last = first | u64::MAX.checked_shr(64 - self.shift()).unwrap_or(0);
        TokenRange { first: Token(first), last: Token(last) }
    }

    /// Whether there is such an arc.
    pub fn contains(self, arc: ArcIndex) -> bool {
        arc.0 < self.0
    }

    /// All arcs, in order.
    pub fn arcs(self) -> impl ExactSizeIterator<Item = ArcIndex> + DoubleEndedIterator {
        (0..self.0).map(ArcIndex)
    }

    /// How far a token is shifted to leave the arc: 48 to 64.
    fn shift(self) -> u32 {
        64 - self.0.trailing_zeros()
    }
}

impl TryFrom<u32> for Partitions {
    type Error = RingError;

    fn try_from(q: u32) -> Result<Partitions, RingError> {
        Partitions::new(q)
    }
}

impl From<Partitions> for u32 {
    fn from(partitions: Partitions) -> u32 {
        partitions.0
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an arc, from 0 to Q - 1, in the order of tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ArcIndex(pub u32);

impl fmt::Display for ArcIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition: one arc in the table of one replication factor. Everything that is "per partition"
/// (owners, trees, exchanges, counters, transfers) is per this pair. Written `n3/17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PartitionId {
    /// The replication factor: how many members own the partition.
    pub n: u8,
    /// The arc.
    pub arc: ArcIndex,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}/{}", self.n, self.arc)
    }
}

/// Not a partition as [`PartitionId`] is written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} names no partition: write it as n3/17, the replication factor and the number of the arc")]
pub struct BadPartitionId(String);

impl std::str::FromStr for PartitionId {
    type Err = BadPartitionId;

    fn from_str(text: &str) -> Result<PartitionId, BadPartitionId> {
        let numbers = text.strip_prefix('n').and_then(|rest| rest.split_once('/'));
        let parsed = numbers.and_then(|(n, arc)| Some((n.parse().ok()?, arc.parse().ok()?)));
        let (n, arc) = parsed.ok_or_else(|| BadPartitionId(text.to_owned()))?;
        Ok(PartitionId { n, arc: ArcIndex(arc) })
    }
}

/// A run of tokens, both ends included (so that the last arc needs no 65th bit).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TokenRange {
    /// The first token of the range.
    pub first: Token,
    /// The last token of the range.
    pub last: Token,
}

impl TokenRange {
    /// Whether the token lies in the range.
    pub fn contains(self, token: Token) -> bool {
        self.first <= token && token <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_are_taken() {
        for q in [1, 2, 256, 65_536] {
            assert_eq!(Partitions::new(q).unwrap().get(), q);
        }
        for q in [0, 3, 255, 65_537, 131_072, u32::MAX] {
            assert_eq!(Partitions::new(q), Err(RingError::BadPartitions { q }));
        }
        assert_eq!(Partitions::new(1 << 15).unwrap().doubled(), Partitions::new(1 << 16).ok());
        assert_eq!(Partitions::new(1 << 16).unwrap().doubled(), None);
    }

    #[test]
    fn arcs_cover_the_ring_without_gap_or_overlap() {
        for q in [1, 2, 8, 65_536] {
            let partitions = Partitions::new(q).unwrap();
            let mut next = Some(0);
            for arc in partitions.arcs() {
                let range = partitions.range(arc);
                assert_eq!(Some(range.first.0), next);
                assert_eq!(partitions.arc_of(range.first), arc);
                assert_eq!(partitions.arc_of(range.last), arc);
                assert!(range.contains(range.first) && range.contains(range.last));
                next = range.last.0.checked_add(1);
            }
            assert_eq!(next, None, "the last arc ends at the last token");
        }
    }

    #[test]
    fn doubling_cuts_every_arc_in_two() {
        let (four, eight) = (Partitions::new(4).unwrap(), Partitions::new(8).unwrap());
        for arc in four.arcs() {
            let (left, right) = (eight.range(ArcIndex(2 * arc.0)), eight.range(ArcIndex(2 * arc.0 + 1)));
            assert_eq!(four.range(arc), TokenRange { first: left.first, last: right.last });
        }
    }

    #[test]
    fn a_foreign_arc_does_no_harm() {
        let partitions = Partitions::new(4).unwrap();
        assert!(!partitions.contains(ArcIndex(4)));
        assert_eq!(partitions.range(ArcIndex(7)), partitions.range(ArcIndex(3)));
        assert_eq!(partitions.range(ArcIndex(u32::MAX)), partitions.range(ArcIndex(3)));
    }

    #[test]
    fn a_partition_prints_its_class_and_arc() {
        assert_eq!(PartitionId { n: 3, arc: ArcIndex(17) }.to_string(), "n3/17");
    }
}
