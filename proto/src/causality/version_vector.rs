//! Everything up to here: for each actor, the largest counter seen.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dot::{ActorId, Dot};

/// A map from actor to the largest counter seen, sorted by actor; an absent actor counts as zero.
///
/// Vectors form a lattice: [`join`](VersionVector::join) is commutative, associative and idempotent, and `a.covers_all(b)`
/// is its order. No entry is ever pruned by size or age: an entry dropped too early brings overwritten values back.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(ActorId, u64)>", into = "Vec<(ActorId, u64)>")]
pub struct VersionVector(Vec<(ActorId, u64)>);

/// A vector that was not sorted by actor, named an actor twice, or held a zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a version vector: actors must be sorted and distinct, counters above zero")]
pub struct MalformedVector;

impl VersionVector {
    /// The vector that has seen nothing.
    pub const fn new() -> VersionVector {
        VersionVector(Vec::new())
    }

    /// Adds one dot. *O(actors)*.
    pub fn add(&mut self, dot: Dot) {
        match self.0.binary_search_by_key(&dot.actor, |entry| entry.0) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(dot.counter),
            Err(at) if dot.counter > 0 => self.0.insert(at, (dot.actor, dot.counter)),
            Err(_) => {}
        }
    }

    /// The least vector that covers both. *O(actors)*.
    pub fn join(&mut self, other: &VersionVector) {
        if self.covers_all(other) {
            return;
        }
        if other.covers_all(self) {
            self.0.clone_from(&other.0);
            return;
        }
        for &(actor, counter) in &other.0 {
            self.add(Dot::new(actor, counter));
        }
    }

    /// The largest counter seen of an actor, zero if none.
    pub fn counter(&self, actor: ActorId) -> u64 {
        self.0.binary_search_by_key(&actor, |entry| entry.0).map_or(0, |at| self.0[at].1)
    }

    /// Whether this dot has been seen.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.counter(dot.actor)
    }

    /// Whether everything that `other` has seen has been seen here. *O(actors)*.
    pub fn covers_all(&self, other: &VersionVector) -> bool {
        let mut mine = self.0.iter();
        other.0.iter().all(|theirs| {
            mine.by_ref()
                .find(|entry| entry.0 >= theirs.0)
                .is_some_and(|entry| entry.0 == theirs.0 && entry.1 >= theirs.1)
        })
    }

    /// The entries, sorted by actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ActorId, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many actors it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has seen nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> VersionVector {
        let mut vector = VersionVector::new();
        dots.into_iter().for_each(|dot| vector.add(dot));
        vector
    }
}

impl From<VersionVector> for Vec<(ActorId, u64)> {
    fn from(vector: VersionVector) -> Self {
        vector.0
    }
}

impl TryFrom<Vec<(ActorId, u64)>> for VersionVector {
    type Error = MalformedVector;

    fn try_from(entries: Vec<(ActorId, u64)>) -> Result<VersionVector, MalformedVector> {
        let sorted = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let positive = entries.iter().all(|entry| entry.1 > 0);
        if sorted && positive { Ok(VersionVector(entries)) } else { Err(MalformedVector) }
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(actor, counter)| (actor, counter))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = VersionVector> {
        proptest::collection::vec((0..6_u64, 0..5_u64), 0..8)
            .prop_map(|dots| dots.into_iter().map(|(actor, counter)| Dot::new(ActorId(actor), counter)).collect())
    }

    fn joined(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut out = a.clone();
        out.join(b);
        out
    }

    proptest! {
        #[test]
        fn join_is_commutative_associative_idempotent(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn join_is_the_least_cover(a in vector(), b in vector(), actor in 0..6_u64, counter in 1..6_u64) {
            let dot = Dot::new(ActorId(actor), counter);
            prop_assert_eq!(joined(&a, &b).covers(dot), a.covers(dot) || b.covers(dot));
        }

        #[test]
        fn covers_all_agrees_with_covering_each(a in vector(), b in vector()) {
            let each = b.iter().all(|(actor, counter)| a.covers(Dot::new(actor, counter)));
            prop_assert_eq!(a.covers_all(&b), each);
        }
    }

    #[test]
    fn malformed_vectors_are_refused() {
        let unsorted = vec![(ActorId(2), 1), (ActorId(1), 1)];
        let twice = vec![(ActorId(1), 1), (ActorId(1), 2)];
        let zero = vec![(ActorId(1), 0)];
        for bad in [unsorted, twice, zero] {
            assert_eq!(VersionVector::try_from(bad), Err(MalformedVector));
        }
    }
}
