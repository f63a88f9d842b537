use std::collections::BTreeMap;

use driftless_ring::{ArcIndex, Partitions};
use proptest::prelude::*;

use super::*;

/// Keys of a partition by token.
#[derive(Clone, Default)]
struct Keys(BTreeMap<u64, Digest>);

impl Records for Keys {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        for (&token, &digest) in self.0.range(tokens.first.0..=tokens.last.0) {
            if visit(Token(token), digest).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn map() -> LeafMap {
    LeafMap::new(Partitions::new(4).unwrap(), ArcIndex(2))
}

fn built(keys: &Keys, bits: Bits) -> Tree {
    let mut build = Build::new(map(), bits);
    assert!(build.step(keys, usize::MAX).unwrap());
    build.tree
}

fn checked(tree: &Tree, leaf: u32, keys: &Keys) -> Option<Drift> {
    let mut check = Check::new(tree, leaf);
    assert!(check.step(keys).unwrap());
    check.finish(tree)
}

/// Records of which one is enough at a time.
struct Large<'a>(&'a Keys);

impl Records for Large<'_> {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.0.visit(tokens, visit)
    }

    fn is_enough(&self) -> bool {
        true
    }
}

fn bits() -> impl Strategy<Value = Bits> {
    (6..=18_u8).prop_map(|bits| Bits::new(bits).unwrap())
}

/// Few tokens, so that updates meet; spread over the arc, and crowded at its ends.
fn token() -> impl Strategy<Value = u64> {
    let tokens = map().tokens();
    (0..3_u8, 0..40_u64).prop_map(move |(place, at)| match place {
        0 => tokens.first.0 + at,
        1 => tokens.last.0 - at,
        _ => tokens.first.0 + at * (u64::MAX / 4 / 40),
    })
}

fn writes() -> impl Strategy<Value = Vec<(u64, Option<u128>)>> {
    proptest::collection::vec((token(), proptest::option::of(any::<u128>())), 0..200)
}

/// Applies a write to the keys; the answer is what a tree has to be told.
fn write(keys: &mut Keys, token: u64, new: Option<u128>) -> (Option<Digest>, Option<Digest>) {
    let new = new.map(Digest);
    let old = match new {
        Some(digest) => keys.0.insert(token, digest),
        None => keys.0.remove(&token),
    };
    (old, new)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_equals_its_recomputation_after_any_updates(writes in writes(), bits in bits()) {
        let (mut keys, mut tree) = (Keys::default(), Tree::new(map(), bits));
        for (token, new) in writes {
            let (old, new) = write(&mut keys, token, new);
            tree.update(Token(token), old, new);
        }
        prop_assert_eq!(tree.sum().count, keys.0.len() as u64);
        prop_assert_eq!(&tree, &built(&keys, bits));
        for &token in keys.0.keys() {
            prop_assert_eq!(checked(&tree, tree.map().leaf_of(Token(token), bits), &keys), None);
        }
    }

    #[test]
    fn folding_equals_building_smaller(writes in writes(), large in bits(), small in bits()) {
        let (large, small) = (large.max(small), large.min(small));
        let mut keys = Keys::default();
        for (token, new) in writes {
            write(&mut keys, token, new);
        }
        let (mut folded, direct) = (built(&keys, large), built(&keys, small));
        prop_assert_eq!(folded.fold(small), direct.fold(small));
        prop_assert_eq!(folded.layers(small), direct.layers(small));
        for leaf in [0, 1, small.leaves() / 2, small.leaves() - 1] {
            prop_assert_eq!(folded.leaf(leaf, small), Some(direct.leaves[leaf as usize]));
        }
        prop_assert_eq!(folded.leaf(small.leaves(), small), None);
        folded.shrink(small);
        prop_assert_eq!(folded, direct);
    }

    #[test]
    fn a_tree_built_while_writes_go_on_misses_none_and_counts_none_twice(
        before in writes(),
        during in writes(),
        step in 1..30_usize,
        bits in bits(),
    ) {
        let mut keys = Keys::default();
        for (token, new) in before {
            write(&mut keys, token, new);
        }
        let mut build = Build::new(map(), bits);
        let mut during = during.into_iter();
        let mut progress = 0.0;
        loop {
            let whole = build.step(&keys, step).unwrap();
            prop_assert!(build.progress() >= progress && build.progress() <= 1.0);
            progress = build.progress();
            for (token, new) in during.by_ref().take(7) {
                let (old, new) = write(&mut keys, token, new);
                build.update(Token(token), old, new);
            }
            if whole && during.len() == 0 {
                break;
            }
        }
        let tree = build.finish().unwrap();
        prop_assert_eq!(&tree, &built(&keys, tree.bits()));
    }

    #[test]
    fn a_leaf_checked_while_writes_go_on_is_what_its_records_come_to(
        before in writes(),
        during in writes(),
        leaf in 0..64_u32,
    ) {
        let mut keys = Keys::default();
        for (token, new) in before {
            write(&mut keys, token, new);
        }
        let mut tree = built(&keys, Bits::MIN);
        let mut check = Check::new(&tree, leaf);
        let mut during = during.into_iter();
        loop {
            let whole = check.step(&Large(&keys)).unwrap();
            for (token, new) in during.by_ref().take(7) {
                let (old, new) = write(&mut keys, token, new);
                check.update(Token(token), old, new);
                tree.update(Token(token), old, new);
            }
            if whole && during.len() == 0 {
                break;
            }
        }
        prop_assert_eq!(check.finish(&tree), None);
    }
}

#[test]
fn a_build_of_large_records_goes_on_by_one_token_at_a_time() {
    let tokens = map().tokens();
    let keys = Keys((0..20).map(|key| (tokens.first.0 + key, Digest(key.into()))).collect());
    let (mut build, mut steps) = (Build::new(map(), Bits::MIN), 1);
    while !build.step(&Large(&keys), 500).unwrap() {
        steps += 1;
    }
    assert_eq!((steps, build.finish()), (20, Some(built(&keys, Bits::MIN))));
}

#[test]
fn one_write_changes_one_leaf() {
    let mut tree = Tree::new(map(), Bits::MIN);
    let token = Token(map().tokens_of(17, Bits::MIN).last.0);
    tree.update(token, None, Some(Digest(5)));
    for leaf in 0..64 {
        let expected = if leaf == 17 { Digest(5) } else { Digest(0) };
        assert_eq!(tree.leaf(leaf, Bits::MIN), Some(expected));
    }
    tree.update(token, Some(Digest(5)), None);
    assert_eq!(tree, Tree::new(map(), Bits::MIN));
}

#[test]
fn a_tree_takes_at_most_two_bytes_a_key() {
    let tokens = map().tokens();
    let mut tree = Tree::new(map(), Bits::MIN);
    for key in 0..200_000_u64 {
        tree.update(Token(tokens.first.0 + key), None, Some(Digest(key.into())));
        match tree.resize() {
            // As a rebuild would; the leaves do not matter here.
            Some(Resize::Grow(bits)) => tree = Tree { sum: tree.sum, ..Tree::new(map(), bits) },
            Some(Resize::Shrink(_)) => panic!("a growing tree does not shrink"),
            None => {}
        }
        let leaves = tree.memory() - size_of::<Tree>();
        assert!(leaves <= 1024 || leaves as u64 <= 2 * (key + 1), "{leaves} bytes for {key} keys");
    }
    for key in 0..200_000_u64 {
        tree.update(Token(tokens.first.0 + key), Some(Digest(key.into())), None);
        match tree.resize() {
            Some(Resize::Shrink(bits)) => tree.shrink(bits),
            Some(Resize::Grow(_)) => panic!("a shrinking tree does not grow"),
            None => {}
        }
        let leaves = tree.memory() - size_of::<Tree>();
        assert!(leaves <= 1024 || leaves as u64 <= 2 * (199_999 - key), "{leaves} bytes after {key}");
    }
    assert_eq!(tree.bits(), Bits::MIN);
}

#[test]
fn a_guess_too_large_is_folded_and_one_too_small_asks_to_grow() {
    let tokens = map().tokens();
    let keys = Keys((0..2_000).map(|key| (tokens.first.0 + key, Digest(key.into()))).collect());
    let tree = |bits| {
        let mut build = Build::new(map(), bits);
        while !build.step(&keys, 100).unwrap() {}
        build.finish().unwrap()
    };
    assert_eq!(tree(Bits::MAX).bits(), Bits::for_keys(2_000));
    assert_eq!(tree(Bits::MAX).resize(), None);
    assert_eq!(tree(Bits::MIN).resize(), Some(Resize::Grow(Bits::for_keys(2_000))));
    assert!(Build::new(map(), Bits::MIN).finish().is_none(), "not before it is whole");
}

/// Three keys at the first token of the partition, one at the last.
struct Crowded;

impl Records for Crowded {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let Token(first) = map().tokens().first;
        let Token(last) = map().tokens().last;
        let mut all = [(first, 1), (first, 2), (first, 4), (last, 8)].into_iter().map(|key| (Token(key.0), key.1));
        let _ = all.try_for_each(|(token, digest)| match tokens.contains(token) {
            true => visit(token, Digest(digest)),
            false => ControlFlow::Continue(()),
        });
        Ok(())
    }
}

#[test]
fn a_step_of_a_build_never_ends_between_keys_that_share_a_token() {
    let mut build = Build::new(map(), Bits::MIN);
    assert_eq!(build.step(&Crowded, 1), Ok(false));
    assert_eq!(build.tree.sum(), Sum { count: 3, xor: Digest(7) });
    assert!(build.has_read(map().tokens().first) && !build.has_read(map().tokens().last));
    assert_eq!(build.step(&Crowded, 1), Ok(true));
    assert_eq!(build.tree.sum(), Sum { count: 4, xor: Digest(15) });
}

#[test]
fn the_scrub_sees_a_leaf_that_drifted() {
    let token = map().tokens_of(3, Bits::MIN).first;
    let mut keys = Keys([(token.0, Digest(1))].into());
    let tree = built(&keys, Bits::MIN);
    assert_eq!(checked(&tree, 3, &keys), None);
    keys.0.insert(token.0 + 1, Digest(6));
    let drift = Drift { leaf: 3, kept: Digest(1), found: Digest(7) };
    assert_eq!(checked(&tree, 3, &keys), Some(drift));
    assert_eq!(checked(&tree, 4, &keys), None);
    let mut corrected = tree;
    corrected.correct(drift);
    assert_eq!(checked(&corrected, 3, &keys), None);
    assert_eq!(corrected.sum().xor, built(&keys, Bits::MIN).sum().xor);
}

#[test]
#[should_panic(expected = "a token of another arc")]
fn a_key_of_another_partition_is_refused() {
    Tree::new(map(), Bits::MIN).update(Token(0), None, Some(Digest(1)));
}
