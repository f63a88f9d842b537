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

/// The number Q of arcs: a power of two, from 1 to [`Partitions::MAX`]; and how often it was doubled since the cluster was founded.
///
/// More partitions spread the load more evenly (a good value is 10 or more per member) and move in
/// smaller pieces; each costs every owner a few counters and one line in every anti-entropy round.
/// Q can be doubled later, never halved.
///
/// Stored and sent as a number of 32 bits: Q in the lower 24, the doublings above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Partitions {
    q: u32,
    doublings: u8,
}

impl Partitions {
    /// The largest Q. At three replicas a table of this size is 1.5 MiB in memory; beyond it the ring
    /// itself becomes a burden to send around.
    pub const MAX: u32 = 1 << 16;

    /// Q arcs, never doubled. Refuses what is not a power of two in `1..=MAX`.
    pub fn new(q: u32) -> Result<Partitions, RingError> {
        let is_good = q.is_power_of_two() && q <= Self::MAX;
        if is_good { Ok(Partitions { q, doublings: 0 }) } else { Err(RingError::BadPartitions { q }) }
    }

    /// Q as a number.
    pub fn get(self) -> u32 {
        self.q
    }

    /// Twice as many arcs; `None` beyond [`Partitions::MAX`].
    pub fn doubled(self) -> Option<Partitions> {
        let Partitions { q, doublings } = self;
        (q < Self::MAX).then(|| Partitions { q: q * 2, doublings: doublings + 1 })
    }

    /// Whether there were fewer once.
    pub fn is_doubled(self) -> bool {
        self.doublings > 0
    }

    /// Doubled until there are `q` arcs; the same if there are. `None` if they cannot become so many.
    pub fn doubled_to(self, q: u32) -> Option<Partitions> {
        std::iter::successors(Some(self), |partitions| partitions.doubled()).find(|partitions| partitions.q == q)
    }

    /// As many as the cluster was founded with.
    #[must_use]
    pub fn founding(self) -> Partitions {
        Partitions { q: self.q >> self.doublings, doublings: 0 }
    }

    /// The arc, of those that the cluster was founded with, that this one was cut from. Whatever must stay where it is when Q is doubled
    /// goes by this one.
    pub fn founding_arc(self, arc: ArcIndex) -> ArcIndex {
        ArcIndex(arc.0 >> self.doublings)
    }

    /// The partition, of the fewer ones that there were earlier, that this one was cut from; the same if there were as many.
    pub fn cut_from(self, earlier: Partitions, partition: PartitionId) -> PartitionId {
        let doublings = self.q.trailing_zeros().saturating_sub(earlier.q.trailing_zeros());
        PartitionId { arc: ArcIndex(partition.arc.0 >> doublings), ..partition }
    }

    /// Which of so many shards of a node serves an arc: those of the founding arcs in turn, so that no key is another shard's once Q is
    /// doubled. Two shards that had written one key would each know of its own writes and not of the other's.
    pub fn shard_of(self, arc: ArcIndex, shards: u16) -> u16 {
        (self.founding_arc(arc).0 % u32::from(shards.max(1))) as u16 // less than `shards`
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
        let index = u64::from(arc.0 & (self.q - 1));
        let first = index.checked_shl(self.shift()).unwrap_or(0);
        let last = first | u64::MAX.checked_shr(64 - self.shift()).unwrap_or(0);
        TokenRange { first: Token(first), last: Token(last) }
    }

    /// Whether there is such an arc.
    pub fn contains(self, arc: ArcIndex) -> bool {
        arc.0 < self.q
    }

    /// All arcs, in order.
    pub fn arcs(self) -> impl ExactSizeIterator<Item = ArcIndex> + DoubleEndedIterator {
        (0..self.q).map(ArcIndex)
    }

    /// How far a token is shifted to leave the arc: 48 to 64.
    fn shift(self) -> u32 {
        64 - self.q.trailing_zeros()
    }
}

impl TryFrom<u32> for Partitions {
    type Error = RingError;

    fn try_from(stored: u32) -> Result<Partitions, RingError> {
        let doublings = (stored >> Q_BITS) as u8; // 8 bits are left
        let partitions = Partitions { doublings, ..Partitions::new(stored & Q_MASK)? };
        let is_good = u32::from(doublings) <= partitions.q.trailing_zeros();
        if is_good { Ok(partitions) } else { Err(RingError::BadPartitions { q: stored }) }
    }
}

impl From<Partitions> for u32 {
    fn from(partitions: Partitions) -> u32 {
        partitions.q | u32::from(partitions.doublings) << Q_BITS
    }
}

/// Of the form in which Q is stored: so many bits for Q itself.
const Q_BITS: u32 = 24;
const Q_MASK: u32 = (1 << Q_BITS) - 1;

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.q.fmt(f)
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
        assert_eq!(Partitions::new(1 << 15).unwrap().doubled().unwrap().get(), 1 << 16);
        assert_eq!(Partitions::new(1 << 16).unwrap().doubled(), None);
        let four = Partitions::new(4).unwrap();
        let of = |q| four.doubled_to(q).map(Partitions::get);
        assert_eq!([2, 4, 6, 64, 1 << 16, 1 << 17].map(of), [None, Some(4), None, Some(64), Some(1 << 16), None]);
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
    fn whatever_was_doubled_is_known_by_the_arcs_that_it_was_founded_with() {
        let four = Partitions::new(4).unwrap();
        let sixteen = four.doubled_to(16).unwrap();
        assert_eq!(sixteen.founding(), four);
        for arc in sixteen.arcs() {
            let founding = sixteen.founding_arc(arc);
            assert!(four.range(founding).contains(sixteen.range(arc).first));
            assert_eq!(four.founding_arc(founding), founding);
            assert_eq!(sixteen.shard_of(arc, 3), four.shard_of(founding, 3));
            assert_eq!(sixteen.cut_from(four, PartitionId { n: 3, arc }), PartitionId { n: 3, arc: founding });
            assert_eq!(sixteen.cut_from(sixteen, PartitionId { n: 3, arc }), PartitionId { n: 3, arc });
        }
        assert_ne!(sixteen, Partitions::new(16).unwrap());
    }

    #[test]
    fn what_was_never_doubled_is_stored_as_its_number_alone() {
        let four = Partitions::new(4).unwrap();
        assert_eq!(u32::from(four), 4);
        let sixteen = four.doubled_to(16).unwrap();
        assert_eq!(u32::from(sixteen), 0x0200_0010);
        assert_eq!(Partitions::try_from(0x0200_0010), Ok(sixteen));
        // Not so often doubled as that: it would have been founded with half an arc.
        for stored in [0x0500_0010, 0x0100_0001, 0x0100_0003, 0x0100_0000, u32::MAX] {
            assert_eq!(Partitions::try_from(stored).map_err(|_| ()), Err(()), "{stored:x}");
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
