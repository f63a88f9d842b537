//! The tree of one partition: 2^k leaves, each the exclusive or of the digests of its keys.
//!
//! ```text
//! sum      count of keys, xor of all           compared every round; equal: nothing else is done
//! inner    made only when the sums differ      `Layers`, by rs_merkle
//! leaves   2^k sums of about 16 keys           kept; one write changes one leaf: leaf ^= old ^ new
//! ```
//! Exclusive or makes a leaf independent of the order of writes, changeable without reading its other keys, and
//! foldable: neighbouring leaves combine to the leaf of a smaller tree, so peers of different size can compare.
//!
//! A tree must never drift from the data [riak_kv #473]: it changes together with the batch that it describes, is
//! rebuilt by a [`Build`] after a start, and a [`Check`] recomputes a leaf now and then.

use std::ops::ControlFlow;

use driftless_ring::{Token, TokenRange};

use crate::leaf::{Bits, LeafMap, Records, Unreadable};
use crate::{Digest, Layers};

/// What all keys of a partition come to: equal sums are equal partitions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sum {
    /// How many keys.
    pub count: u64,
    /// The sum of their digests.
    pub xor: Digest,
}

/// The tree of one partition.
///
/// Laws: a tree depends on its keys and its size only, not on the order of updates; and folding a tree to k bits gives
/// the tree that was built with k bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    map: LeafMap,
    bits: Bits,
    sum: Sum,
    leaves: Vec<Digest>,
}

/// What a tree's number of keys asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resize {
    /// Call [`Tree::shrink`] with this: cheap, done at once.
    Shrink(Bits),
    /// Make a new tree of this size by a [`Build`], when there is time: until then leaves are fuller than they should
    /// be, nothing else.
    Grow(Bits),
}

/// A leaf that is not what its records come to: a bug, or damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drift {
    /// Which leaf.
    pub leaf: u32,
    /// What the tree said.
    pub kept: Digest,
    /// What the records come to.
    pub found: Digest,
}

impl Tree {
    /// The tree of a partition without keys. *O(2^k)*.
    pub fn new(map: LeafMap, bits: Bits) -> Tree {
        Tree { map, bits, sum: Sum::default(), leaves: vec![Digest::default(); bits.leaves() as usize] }
    }

    /// A key at this token had the digest `old` (`None`: there was no such key) and now has `new` (`None`: it is gone).
    /// *O(1)*.
    ///
    /// # Panics
    /// If the token is not of this partition.
    pub fn update(&mut self, token: Token, old: Option<Digest>, new: Option<Digest>) {
        let change = old.unwrap_or_default().combine(new.unwrap_or_default());
        let leaf = &mut self.leaves[self.map.leaf_of(token, self.bits) as usize];
        *leaf = leaf.combine(change);
        self.sum.xor = self.sum.xor.combine(change);
        match (old, new) {
            (None, Some(_)) => self.sum.count += 1,
            // A key removed that was never counted is drift, which the scrub reports; it must not stop a node.
            (Some(_), None) => self.sum.count = self.sum.count.saturating_sub(1),
            _ => {}
        }
    }

    /// Folds the tree in place to a smaller size; does nothing if it is not larger. *O(2^k)*.
    pub fn shrink(&mut self, bits: Bits) {
        if bits < self.bits {
            self.leaves = self.fold(bits);
            self.bits = bits;
        }
    }

    /// Whether the tree has too many or too few leaves for its keys. *O(1)*; ask after updates.
    pub fn resize(&self) -> Option<Resize> {
        let wanted = self.bits.adjusted(self.sum.count);
        match wanted.cmp(&self.bits) {
            std::cmp::Ordering::Less => Some(Resize::Shrink(wanted)),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Resize::Grow(wanted)),
        }
    }

    /// What all keys come to. *O(1)*.
    pub fn sum(&self) -> Sum {
        self.sum
    }

    /// Its size.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Which tokens belong to which leaf.
    pub fn map(&self) -> LeafMap {
        self.map
    }

    /// One leaf of this tree folded to `bits`; `None` if the tree is smaller than that or has no such leaf.
    /// *O(2^(k - bits))*.
    pub fn leaf(&self, index: u32, bits: Bits) -> Option<Digest> {
        let width = 1 << self.bits.get().checked_sub(bits.get())?;
        let first = index as usize * width;
        let leaves = self.leaves.get(first..first + width)?;
        Some(leaves.iter().copied().fold(Digest::default(), Digest::combine))
    }

    /// All leaves, folded to a smaller size, or as they are if `bits` is not smaller. *O(2^k)*.
    pub fn fold(&self, bits: Bits) -> Vec<Digest> {
        let width = 1 << self.bits.get().saturating_sub(bits.get());
        let sum_of = |leaves: &[Digest]| leaves.iter().copied().fold(Digest::default(), Digest::combine);
        self.leaves.chunks_exact(width).map(sum_of).collect()
    }

    /// The inner layers of this tree folded to `bits`, which is at most its size; `None` if it is smaller.
    /// *O(2^k)*, about a millisecond for 2^16 leaves.
    pub fn layers(&self, bits: Bits) -> Option<Layers> {
        (bits <= self.bits).then(|| Layers::of(bits, &self.fold(bits)))
    }

    /// Makes a leaf what its records come to. The number of keys may still be wrong: build the tree anew when there is
    /// time.
    ///
    /// # Panics
    /// If there is no such leaf.
    pub fn correct(&mut self, drift: Drift) {
        let leaf = &mut self.leaves[drift.leaf as usize];
        self.sum.xor = self.sum.xor.combine(*leaf).combine(drift.found);
        *leaf = drift.found;
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of::<Tree>() + self.leaves.capacity() * size_of::<Digest>()
    }
}

/// A tree under construction, in steps, while writes go on.
///
/// The records are read in the order of tokens. A write behind the reader changes the new tree; one ahead of it does
/// not, because the reader will come to it. Steps end between two tokens, never between two keys of one token, so
/// that every write is on one side.
#[derive(Clone, Debug)]
pub struct Build {
    tree: Tree,
    /// Where the reader goes on; `None` once it is through.
    next: Option<Token>,
}

impl Build {
    /// Begins a tree of a size: [`Bits::for_keys`] of the number expected. A guess too large is folded in the end, one
    /// too small asks to grow at once.
    pub fn new(map: LeafMap, bits: Bits) -> Build {
        Build { tree: Tree::new(map, bits), next: Some(map.tokens().first) }
    }

    /// Reads on for about so many records, or until that is enough; the answer is whether that was all. *O(records_max)*,
    /// and a little more if many keys share a token.
    ///
    /// # Errors
    /// [`Unreadable`]: begin anew.
    pub fn step(&mut self, records: &dyn Records, records_max: usize) -> Result<bool, Unreadable> {
        let Some(first) = self.next else { return Ok(true) };
        let last = self.tree.map.tokens().last;
        let (mut seen, mut at, mut next) = (0, first, None);
        let tree = &mut self.tree;
        records.visit(TokenRange { first, last }, &mut |token, digest| {
            if seen > 0 && (seen >= records_max || records.is_enough()) && token != at {
                next = Some(token);
                return ControlFlow::Break(());
            }
            (seen, at) = (seen + 1, token);
            tree.update(token, None, Some(digest));
            ControlFlow::Continue(())
        })?;
        self.next = next;
        Ok(next.is_none())
    }

    /// A write, like [`Tree::update`], applied to the records between two steps.
    pub fn update(&mut self, token: Token, old: Option<Digest>, new: Option<Digest>) {
        if self.has_read(token) {
            self.tree.update(token, old, new);
        }
    }

    /// Whether the reader is past this token, so that a write there is no longer ahead of it.
    pub fn has_read(&self, token: Token) -> bool {
        self.next.is_none_or(|next| token < next)
    }

    /// What the reader has not come to yet.
    pub fn unread(&self) -> Option<TokenRange> {
        Some(TokenRange { first: self.next?, last: self.tree.map.tokens().last })
    }

    /// The part of the partition that has been read, from 0 to 1.
    pub fn progress(&self) -> f64 {
        let tokens = self.tree.map.tokens();
        let width = (tokens.last.0 - tokens.first.0) as f64;
        self.next.map_or(1.0, |next| (next.0 - tokens.first.0) as f64 / width)
    }

    /// The tree, once a step has answered that it is whole; `None` before. Folded if it has too many leaves.
    pub fn finish(self) -> Option<Tree> {
        let Build { mut tree, next } = self;
        if next.is_some() {
            return None;
        }
        if let Some(Resize::Shrink(bits)) = tree.resize() {
            tree.shrink(bits);
        }
        Some(tree)
    }
}

/// A leaf that is recomputed from the records, in steps, while writes go on: to see whether the tree says what they come to.
#[derive(Clone, Debug)]
pub struct Check {
    map: LeafMap,
    bits: Bits,
    leaf: u32,
    found: Digest,
    /// Where the reader goes on; `None` once it is through.
    next: Option<Token>,
}

impl Check {
    /// Begins with one of a tree's leaves.
    ///
    /// # Panics
    /// If there is no such leaf.
    pub fn new(tree: &Tree, leaf: u32) -> Check {
        let (map, bits) = (tree.map, tree.bits);
        Check { map, bits, leaf, found: Digest::default(), next: Some(map.tokens_of(leaf, bits).first) }
    }

    /// Reads on, until that is enough; the answer is whether that was all. *O(records of the leaf)*.
    ///
    /// # Errors
    /// [`Unreadable`]: begin anew.
    pub fn step(&mut self, records: &dyn Records) -> Result<bool, Unreadable> {
        let Some(first) = self.next else { return Ok(true) };
        let last = self.map.tokens_of(self.leaf, self.bits).last;
        let (mut at, mut next, found) = (None, None, &mut self.found);
        records.visit(TokenRange { first, last }, &mut |token, digest| {
            if at.is_some_and(|at| at != token) && records.is_enough() {
                next = Some(token);
                return ControlFlow::Break(());
            }
            at = Some(token);
            *found = found.combine(digest);
            ControlFlow::Continue(())
        })?;
        self.next = next;
        Ok(next.is_none())
    }

    /// A write, like [`Tree::update`], applied to the records between two steps.
    pub fn update(&mut self, token: Token, old: Option<Digest>, new: Option<Digest>) {
        let tokens = self.map.tokens_of(self.leaf, self.bits);
        if tokens.contains(token) && self.next.is_none_or(|next| token < next) {
            self.found = self.found.combine(old.unwrap_or_default().combine(new.unwrap_or_default()));
        }
    }

    /// Which leaf.
    pub fn leaf(&self) -> u32 {
        self.leaf
    }

    /// What was found, once a step has answered that it is whole: `None` if the tree says the same, or has another size by
    /// now, so that it has no such leaf.
    pub fn finish(self, tree: &Tree) -> Option<Drift> {
        let kept = *tree.leaves.get(self.leaf as usize).filter(|_| tree.bits == self.bits)?;
        let whole = self.next.is_none() && kept != self.found;
        whole.then_some(Drift { leaf: self.leaf, kept, found: self.found })
    }
}

#[cfg(test)]
mod tests;
