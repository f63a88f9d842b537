//! Which tokens belong to which leaf, and what a side is asked to show of its records.

use std::ops::ControlFlow;

use driftless_ring::{ArcIndex, Partitions, Token, TokenRange};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// The k of a tree: it has 2^k leaves. From [`Bits::MIN`] to [`Bits::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Bits(u8);

/// Not between [`Bits::MIN`] and [`Bits::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a tree of 2^{0} leaves: 2^6 to 2^18 are possible")]
pub struct BadBits(u8);

impl Bits {
    /// 64 leaves: one kilobyte, which any partition can spare.
    pub const MIN: Bits = Bits(6);
    /// 262,144 leaves: four megabytes, enough for four million keys at the wanted fill. Larger partitions get fuller
    /// leaves, and should be split by doubling Q.
    pub const MAX: Bits = Bits(18);

    /// For a [`Build`](crate::Build) of nobody knows how many keys: 256 KiB while it lasts, and folded in the end.
    pub const UNKNOWN: Bits = Bits(14);

    /// 2^`bits` leaves.
    ///
    /// # Errors
    /// [`BadBits`] if out of bounds.
    pub fn new(bits: u8) -> Result<Bits, BadBits> {
        if (Bits::MIN.0..=Bits::MAX.0).contains(&bits) { Ok(Bits(bits)) } else { Err(BadBits(bits)) }
    }

    /// What a new tree of so many keys should have: 10 to 20 keys a leaf.
    pub fn for_keys(keys: u64) -> Bits {
        let mut bits = Bits::MIN;
        while bits < Bits::MAX && keys > FILL_MAX << bits.0 {
            bits.0 += 1;
        }
        bits
    }

    /// What a tree that has `self` should have for so many keys. Like [`Bits::for_keys`], except that it does not shrink
    /// before its leaves are nearly empty: a key more or less must not make a tree change back and forth.
    ///
    /// Above the smallest tree a leaf of 16 bytes never has fewer than 8 keys, so a tree takes at most 2 bytes a key.
    pub fn adjusted(self, keys: u64) -> Bits {
        if self > Bits::MIN && keys < FILL_MIN << self.0 {
            Bits::for_keys(keys).min(Bits(self.0 - 1))
        } else {
            Bits::for_keys(keys).max(self)
        }
    }

    /// As a number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// 2^k.
    pub fn leaves(self) -> u32 {
        1 << self.0
    }
}

impl TryFrom<u8> for Bits {
    type Error = BadBits;

    fn try_from(bits: u8) -> Result<Bits, BadBits> {
        Bits::new(bits)
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> u8 {
        bits.0
    }
}

/// Where a partition's tokens lie, and so its leaves: the leaf of a token is its next k bits after those that chose the
/// arc. A leaf is one run of tokens, and 2^j neighbouring leaves are one leaf of a tree with j bits fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafMap {
    partitions: Partitions,
    arc: ArcIndex,
}

impl LeafMap {
    /// The leaves of one arc of Q.
    pub fn new(partitions: Partitions, arc: ArcIndex) -> LeafMap {
        LeafMap { partitions, arc }
    }

    /// Q.
    pub fn partitions(self) -> Partitions {
        self.partitions
    }

    /// The arc.
    pub fn arc(self) -> ArcIndex {
        self.arc
    }

    /// All tokens of the arc.
    pub fn tokens(self) -> TokenRange {
        self.partitions.range(self.arc)
    }

    /// The leaf of a token, which must be one of the arc. *O(1)*.
    pub fn leaf_of(self, token: Token, bits: Bits) -> u32 {
        assert_eq!(self.partitions.arc_of(token), self.arc, "a token of another arc");
        ((token.0 << self.arc_bits()) >> (64 - u32::from(bits.0))) as u32
    }

    /// The tokens of a leaf. *O(1)*.
    pub fn tokens_of(self, leaf: u32, bits: Bits) -> TokenRange {
        assert!(leaf < bits.leaves(), "leaf {leaf} of {}", bits.leaves());
        let shift = 64 - self.arc_bits() - u32::from(bits.0);
        let first = self.tokens().first.0 | u64::from(leaf) << shift;
        let last = first | (u64::MAX >> (64 - shift));
        TokenRange { first: Token(first), last: Token(last) }
    }

    /// At most 16.
    fn arc_bits(self) -> u32 {
        self.partitions.get().trailing_zeros()
    }
}

/// The records of one partition as a machine asks for them.
pub trait Records {
    /// Visits the token and digest of every record in a range of tokens, in the order of tokens, until `visit` breaks.
    /// Must agree with the tree that is handed over at the same moment.
    ///
    /// # Errors
    /// [`Unreadable`]: the machine gives up; the reason is for the owner to keep.
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable>;

    /// Whether so much has been read through this value that the rest had better wait for another call of the machine:
    /// records may be large where digests are small. A machine asks between tokens, and gets on by one at least.
    fn is_enough(&self) -> bool {
        false
    }
}

/// The records cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the records of the partition cannot be read")]
pub struct Unreadable;

/// Some of a side's records, each token once: a token that two keys share carries the sum of their digests, so that it
/// differs when one of them does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) entries: Vec<(Token, Digest)>,
    /// Everything up to here is listed.
    pub(crate) through: Token,
}

/// Lists at most `limit` (one or more) tokens of a range, or fewer if that is enough. *O(limit)*.
pub(crate) fn list(records: &dyn Records, tokens: TokenRange, limit: usize) -> Result<Listed, Unreadable> {
    let mut listed = Listed { entries: Vec::new(), through: tokens.last };
    records.visit(tokens, &mut |token, digest| {
        let full = listed.entries.len() >= limit || records.is_enough();
        match listed.entries.last_mut() {
            Some(last) if last.0 == token => last.1 = last.1.combine(digest),
            Some(last) if full => {
                listed.through = last.0;
                return ControlFlow::Break(());
            }
            _ => listed.entries.push((token, digest)),
        }
        ControlFlow::Continue(())
    })?;
    Ok(listed)
}

/// Fullest leaf on average before a tree should grow. Issue: 16 on average; the tree doubles, so 10 to 20.
const FILL_MAX: u64 = 20;

/// Emptiest leaf on average before a tree should shrink: 16 bytes for 8 keys are the 2 bytes a key that we promise, and
/// twice this is well below [`FILL_MAX`].
const FILL_MIN: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(q: u32, arc: u32) -> LeafMap {
        LeafMap::new(Partitions::new(q).unwrap(), ArcIndex(arc))
    }

    #[test]
    fn leaves_cover_an_arc_without_gap_or_overlap() {
        for (q, arc) in [(1, 0), (256, 0), (256, 77), (65_536, 65_535)] {
            let map = map(q, arc);
            for bits in [Bits::MIN, Bits::MAX] {
                let mut next = Some(map.tokens().first.0);
                for leaf in 0..bits.leaves() {
                    let tokens = map.tokens_of(leaf, bits);
                    assert_eq!(Some(tokens.first.0), next);
                    assert_eq!(map.leaf_of(tokens.first, bits), leaf);
                    assert_eq!(map.leaf_of(tokens.last, bits), leaf);
                    next = tokens.last.0.checked_add(1);
                }
                assert_eq!(next, map.tokens().last.0.checked_add(1));
            }
        }
    }

    #[test]
    fn a_leaf_holds_eight_to_twenty_keys_at_every_size() {
        let mut bits = Bits::for_keys(0);
        let sizes = (0..5_000_000_u32).step_by(997);
        for keys in sizes.clone().chain(sizes.rev()).map(u64::from) {
            bits = bits.adjusted(keys);
            assert_eq!(bits, bits.adjusted(keys), "at once");
            assert!(keys <= FILL_MAX << bits.0, "{keys} keys, {bits:?}");
            assert!(bits == Bits::MIN || u64::from(bits.leaves()) * 16 <= 2 * keys, "{keys} keys, {bits:?}");
        }
        assert_eq!(Bits::for_keys(1_000_000).get(), 16);
        assert_eq!(Bits::for_keys(u64::MAX >> 20), Bits::MAX);
        assert_eq!(Bits::MAX.adjusted(0), Bits::MIN);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(Bits::new(5), Err(BadBits(5)));
        assert_eq!(Bits::new(19), Err(BadBits(19)));
        assert!(postcard::from_bytes::<Bits>(&[255]).is_err());
    }

    struct Shared;

    impl Records for Shared {
        fn visit(
            &self,
            _: TokenRange,
            visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
        ) -> Result<(), Unreadable> {
            for (token, digest) in [(5, 1), (5, 2), (5, 4), (6, 8), (6, 16), (7, 32)] {
                if visit(Token(token), Digest(digest)).is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn keys_that_share_a_token_are_listed_together_or_not_at_all() {
        let all = TokenRange { first: Token(0), last: Token(9) };
        let expected = [(Token(5), Digest(7)), (Token(6), Digest(24)), (Token(7), Digest(32))];
        for limit in 1..5 {
            let listed = list(&Shared, all, limit).unwrap();
            assert_eq!(listed.entries, expected[..limit.min(3)]);
            assert_eq!(listed.through, if limit < 3 { listed.entries[limit - 1].0 } else { Token(9) });
        }
    }
}
