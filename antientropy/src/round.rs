//! How a round begins: one peer sends the sums of all partitions that it shares with another, the other answers which
//! of them differ. In sync it ends there, and nobody has made a tree.
//!
//! ```text
//! Sums    [(partition, k, count, xor)]   24 to 28 bytes a partition ──▶
//!                 ◀── Unequal  [(partition, why)]   empty in sync
//! ```

use driftless_ring::{PartitionId, Partitions};
use serde::{Deserialize, Serialize};

use crate::message::{FORMAT, encoded_len};
use crate::tree::Sum;
use crate::wire::at_most;
use crate::{Bits, Digest, Tree};

/// The sums of some partitions. Made by [`Sums::of`], which divides what one message cannot hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sums {
    /// [`FORMAT`] of the sender. First, so that every release can read it.
    pub format: u8,
    /// Q.
    pub partitions: Partitions,
    /// What the sender holds.
    #[serde(deserialize_with = "at_most::<_, _, LINES_MAX>")]
    pub lines: Vec<Line>,
}

/// What one side holds of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Which partition.
    pub partition: PartitionId,
    /// The size of the sender's tree.
    pub bits: Bits,
    /// Number of keys.
    pub count: u64,
    xor: [u8; 16],
}

/// The partitions that differ, or cannot be compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unequal {
    /// Each with the reason, in the order of the lines. What is not named is equal.
    #[serde(deserialize_with = "at_most::<_, _, LINES_MAX>")]
    pub partitions: Vec<(PartitionId, Standing)>,
}

/// How a partition stands at the side that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// There are differences to look for.
    Differs {
        /// The size of its tree: an exchange begins with the smaller one.
        bits: Bits,
        /// Its number of keys.
        count: u64,
    },
    /// It has no tree yet.
    Rebuilding,
    /// It does not own the partition, or speaks of partitions or digests in another way.
    NotComparable,
}

/// What a side holds of a partition when it is asked.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    /// Its tree.
    Tree(&'a Tree),
    /// Nothing to compare with yet.
    Rebuilding,
    /// It is not an owner.
    Nothing,
}

impl Line {
    /// The line of a tree. *O(1)*.
    pub fn of(partition: PartitionId, tree: &Tree) -> Line {
        let Sum { count, xor } = tree.sum();
        Line { partition, bits: tree.bits(), count, xor: xor.0.to_be_bytes() }
    }

    /// Count and xor.
    pub fn sum(&self) -> Sum {
        Sum { count: self.count, xor: Digest(u128::from_be_bytes(self.xor)) }
    }
}

impl Sums {
    /// As many messages as the lines need; usually one.
    pub fn of(partitions: Partitions, lines: &[Line]) -> impl Iterator<Item = Sums> + '_ {
        lines.chunks(LINES_MAX).map(move |lines| Sums { format: FORMAT, partitions, lines: lines.to_vec() })
    }

    /// Compares each line with what is held here. *O(lines)*.
    pub fn answer<'a>(&self, partitions: Partitions, held: impl Fn(PartitionId) -> Held<'a>) -> Unequal {
        let comparable = self.format == FORMAT && self.partitions == partitions;
        let standing = |line: &Line| match held(line.partition) {
            Held::Nothing => Some(Standing::NotComparable),
            _ if !comparable => Some(Standing::NotComparable),
            Held::Rebuilding => Some(Standing::Rebuilding),
            Held::Tree(tree) if tree.sum() == line.sum() => None,
            Held::Tree(tree) => Some(Standing::Differs { bits: tree.bits(), count: tree.sum().count }),
        };
        let named = |line: &Line| standing(line).map(|standing| (line.partition, standing));
        Unequal { partitions: self.lines.iter().filter_map(named).collect() }
    }

    /// Its bytes on the wire. *O(lines)*.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self)
    }
}

impl Unequal {
    /// Its bytes on the wire. *O(partitions)*.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self)
    }
}

/// Most partitions in one message, which stays within 64 KiB.
pub const LINES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use driftless_ring::{ArcIndex, Token};

    use super::*;
    use crate::LeafMap;

    fn id(arc: u32) -> PartitionId {
        PartitionId { n: 3, arc: ArcIndex(arc) }
    }

    fn tree(q: Partitions, arc: u32, keys: u64) -> Tree {
        let map = LeafMap::new(q, ArcIndex(arc));
        let mut tree = Tree::new(map, Bits::for_keys(keys));
        for key in 0..keys {
            let token = Token(map.tokens().first.0 + key);
            tree.update(token, None, Some(Digest(u128::MAX / u128::from(key + 1))));
        }
        tree
    }

    #[test]
    fn a_round_in_sync_costs_at_most_forty_bytes_a_partition() {
        let q = Partitions::new(65_536).unwrap();
        let trees: Vec<Tree> = q.arcs().map(|arc| tree(q, arc.0, 3_000 * u64::from(arc.0 % 2))).collect();
        let lines: Vec<Line> = trees.iter().zip(0..).map(|(tree, arc)| Line::of(id(arc), tree)).collect();
        let mut bytes = 0;
        for sums in Sums::of(q, &lines) {
            let unequal = sums.answer(q, |partition| Held::Tree(&trees[partition.arc.0 as usize]));
            assert_eq!(unequal.partitions, []);
            assert!(sums.encoded_len() <= 64 * 1024);
            bytes += sums.encoded_len() + unequal.encoded_len();
        }
        assert!(bytes <= 26 * lines.len(), "{bytes} bytes for {} partitions", lines.len());
        let one = Sums::of(q, &lines[65_535..]).next().unwrap();
        let unequal = one.answer(q, |partition| Held::Tree(&trees[partition.arc.0 as usize]));
        assert!(one.encoded_len() + unequal.encoded_len() <= 40, "a single partition");
    }

    #[test]
    fn every_line_that_cannot_be_called_equal_is_answered() {
        let q = Partitions::new(4).unwrap();
        let mine = tree(q, 0, 10);
        let theirs: Vec<Line> = (0..4).map(|arc| Line::of(id(arc), &tree(q, arc, 11))).collect();
        let held = |partition: PartitionId| match partition.arc.0 {
            0 => Held::Tree(&mine),
            1 => Held::Rebuilding,
            _ => Held::Nothing,
        };
        let sums = Sums::of(q, &theirs).next().unwrap();
        let differs = Standing::Differs { bits: Bits::MIN, count: 10 };
        let expected = [
            (id(0), differs),
            (id(1), Standing::Rebuilding),
            (id(2), Standing::NotComparable),
            (id(3), Standing::NotComparable),
        ];
        assert_eq!(sums.answer(q, held).partitions, expected);
        let other = Sums { format: 2, ..sums };
        assert!(other.answer(q, held).partitions.iter().all(|answer| answer.1 == Standing::NotComparable));
    }

    #[test]
    fn too_many_lines_are_refused() {
        let q = Partitions::new(1).unwrap();
        let line = Line::of(id(0), &tree(q, 0, 1));
        let sums = Sums { format: FORMAT, partitions: q, lines: vec![line; LINES_MAX + 1] };
        assert!(postcard::from_bytes::<Sums>(&postcard::to_stdvec(&sums).unwrap()).is_err());
    }
}
