//! The inner layers of a tree, made when two replicas have to look for a difference and dropped when they found it.
//!
//! ```text
//! layer 0                 root
//! layer 1            ┌─────┴─────┐             a node is the hash of its two children
//!   …              ┌─┴─┐       ┌─┴─┐
//! layer k          leaf …      … leaf          layer k: the leaves themselves
//! ```
//! The hashing is done by [`rs_merkle::PartialTree`]: its `MerkleTree` does not show inner layers.

use rs_merkle::{Hasher, PartialTree};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Bits, Digest};

/// All layers of one tree at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layers {
    bits: Bits,
    /// Layer l, from the root, has 2^l nodes.
    layers: Vec<Vec<[u8; 16]>>,
}

impl Layers {
    /// Hashes 2^k leaves up to their root. *O(2^k)*.
    ///
    /// # Panics
    /// If the number of leaves is not that of `bits`.
    pub(crate) fn of(bits: Bits, leaves: &[Digest]) -> Layers {
        assert_eq!(leaves.len(), bits.leaves() as usize);
        let leaves: Vec<[u8; 16]> = leaves.iter().map(|leaf| leaf.0.to_be_bytes()).collect();
        let mut layers = PartialTree::<Node>::from_leaves(&leaves)
            .expect("a power of two of leaves leaves no node without a sibling")
            .layer_nodes();
        // It hashes once more above the root, where a single node has no sibling.
        layers.truncate(usize::from(bits.get()) + 1);
        layers.reverse();
        assert!(layers.iter().enumerate().all(|(layer, nodes)| nodes.len() == 1 << layer));
        Layers { bits, layers }
    }

    /// The k of the tree.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// One node: layer 0 is the root, layer k are the leaves.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, layer: u8, index: u32) -> Digest {
        Digest(u128::from_be_bytes(self.layers[usize::from(layer)][index as usize]))
    }
}

/// How nodes are hashed: 16 bytes of xxh3, which is enough against accidents. Who could forge a node is a member of the
/// cluster and can send what it likes anyway.
#[derive(Clone)]
struct Node;

impl Hasher for Node {
    type Hash = [u8; 16];

    fn hash(data: &[u8]) -> [u8; 16] {
        xxh3_128(data).to_be_bytes()
    }

    /// Without the allocations of the default.
    fn concat_and_hash(left: &[u8; 16], right: Option<&[u8; 16]>) -> [u8; 16] {
        let Some(right) = right else { return *left };
        let mut both = [0; 32];
        both[..16].copy_from_slice(left);
        both[16..].copy_from_slice(right);
        Node::hash(&both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_the_hash_of_its_children() {
        let leaves: Vec<Digest> = (0..64).map(|leaf| Digest(leaf * leaf)).collect();
        let layers = Layers::of(Bits::MIN, &leaves);
        assert_eq!(layers.bits(), Bits::MIN);
        for (index, leaf) in leaves.iter().enumerate() {
            assert_eq!(layers.node(6, index as u32), *leaf);
        }
        for layer in 0..6 {
            for index in 0..1 << layer {
                let child = |side| layers.node(layer + 1, 2 * index + side).0.to_be_bytes();
                let both = [child(0), child(1)].concat();
                assert_eq!(layers.node(layer, index), Digest(xxh3_128(&both)));
            }
        }
    }

    #[test]
    fn one_leaf_changes_its_ancestors_and_nothing_else() {
        let mut leaves = vec![Digest(7); 64];
        let before = Layers::of(Bits::MIN, &leaves);
        leaves[37] = Digest(8);
        let after = Layers::of(Bits::MIN, &leaves);
        for layer in 0..=6_u8 {
            for index in 0..1 << layer {
                assert_eq!(before.node(layer, index) != after.node(layer, index), index == 37 >> (6 - layer));
            }
        }
    }
}
