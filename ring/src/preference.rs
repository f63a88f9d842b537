//! Who should answer for a partition: its primaries, and for each of them a line of stand-ins.
//!
//! ```text
//! primaries   a  b  c        b is down
//!                │
//!                └─▶ e, g    the others in b's zone, best score first
//!                    d, h, f the others elsewhere, best score first
//! ```
//!
//! The score of a member for a partition is weighted rendezvous hashing: every (partition, member) draws
//! a number, and members come in the order of these draws. So each partition has its own line, and the
//! load of a dead member spreads over all others in proportion to their weight. (A walk round the ring
//! gives all of it to the neighbour.) Placement does not use this score: it would spread partitions
//! unevenly, which for a table that stays is not good enough; for stand-ins it is.
//!
//! **The draw.** With `u` uniform in (0, 1], `-ln(u) / weight` is exponentially distributed with rate
//! `weight`, and the smallest of several such numbers belongs to each member with a probability in
//! proportion to its weight (Schindelhauer and Schomaker, *Weighted Distributed Hash Tables*, SPAA 2005,
//! the logarithmic method; unweighted: Thaler and Ravishankar, *A Name-Based Mapping Scheme for
//! Rendezvous*, 1996). The base of the logarithm changes nothing in the order. All machines must agree on
//! it, so it is computed in whole numbers: `u = (hash + 1) / 2^64`, a binary logarithm by repeated
//! squaring, and fractions compared by cross multiplication.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;

use crate::{Member, NodeId, PartitionId, Ring};

/// The primaries of a partition, and who stands in for one of them. See [`Ring::preference`].
///
/// Getting one is cheap; fallbacks are computed only when asked for. A hot path that needs nothing but
/// the primaries can borrow them from [`Ring::owners`].
#[derive(Clone, Debug)]
pub struct PreferenceList<'a> {
    /// The owners of the partition, first choice as coordinator first. Empty for a partition that the
    /// ring does not have.
    pub primaries: Vec<NodeId>,
    partition: PartitionId,
    ring: &'a Ring,
}

impl<'a> PreferenceList<'a> {
    pub(crate) fn new(ring: &'a Ring, partition: PartitionId) -> PreferenceList<'a> {
        PreferenceList { primaries: ring.owners(partition).to_vec(), partition, ring }
    }

    /// The partition that this list is for.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Everybody who may stand in for `dead`, best first: all members that are not primaries, those in
    /// the same zone as `dead` before the others.
    ///
    /// The lines for two primaries overlap: who needs stand-ins for both must not take the same one twice.
    pub fn fallbacks_for(&self, dead: NodeId) -> Vec<NodeId> {
        let zone = self.ring.member(dead).map(|member| member.zone.as_str());
        let mut line: Vec<(bool, Draw, NodeId)> = self
            .ring
            .members()
            .iter()
            .filter(|member| !self.primaries.contains(&member.id))
            .map(|member| (Some(member.zone.as_str()) != zone, Draw::of(self.partition, member), member.id))
            .collect();
        line.sort_unstable();
        line.into_iter().map(|(_, _, id)| id).collect()
    }
}

/// `-log2(u) / weight` of one member for one partition: the smaller, the better.
#[derive(Clone, Copy, Debug)]
struct Draw {
    /// `-log2(u)` times `2^FRACTION_BITS`.
    cost: u64,
    weight: u32,
}

impl Draw {
    fn of(partition: PartitionId, member: &Member) -> Draw {
        let mut bytes = [0; 13];
        bytes[0] = partition.n;
        bytes[1..5].copy_from_slice(&partition.arc.0.to_be_bytes());
        bytes[5..].copy_from_slice(&member.id.0.to_be_bytes());
        Draw { cost: minus_log2(xxh3_64(&bytes)), weight: member.weight }
    }
}

impl Ord for Draw {
    fn cmp(&self, other: &Draw) -> Ordering {
        let own = u128::from(self.cost) * u128::from(other.weight);
        own.cmp(&(u128::from(other.cost) * u128::from(self.weight)))
    }
}

impl PartialOrd for Draw {
    fn partial_cmp(&self, other: &Draw) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Draw {
    fn eq(&self, other: &Draw) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Draw {}

/// `-log2((hash + 1) / 2^64)` in fixed point, rounded up.
///
/// Digit by digit: with `1 <= x < 2`, the next binary digit of `log2(x)` is 1 if `x^2 >= 2`, and the rest
/// are the digits of `x^2` or `x^2 / 2` (Knuth, *The Art of Computer Programming* 1, 1.2.2, exercise 25).
fn minus_log2(hash: u64) -> u64 {
    let Some(value) = hash.checked_add(1) else { return 0 };
    let zeros = value.leading_zeros();
    let mut x = value << zeros; // 1 <= x < 2, with 63 binary places
    let mut log = u64::from(63 - zeros);
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let digit = (square >> 64) as u64;
        x = (square >> digit) as u64;
        log = log << 1 | digit;
    }
    (64 << FRACTION_BITS) - log
}

/// Binary places of a draw. 32 make equal draws as rare as equal 32-bit hashes (they are then in the order
/// of ids, which is just as good) and cost a tenth of a microsecond a member.
const FRACTION_BITS: u32 = 32;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{ArcIndex, Partitions, RingSpec};

    fn ring(members: Vec<Member>) -> Ring {
        let partitions = Partitions::new(1024).unwrap();
        Ring::first(RingSpec { partitions, hash_seed: 0, members, classes: BTreeSet::from([3]) }).unwrap()
    }

    fn first_stand_ins(ring: &Ring, dead: NodeId) -> BTreeMap<NodeId, usize> {
        let mut load = BTreeMap::new();
        for partition in ring.owned(dead) {
            *load.entry(ring.preference(partition).fallbacks_for(dead)[0]).or_default() += 1;
        }
        load
    }

    #[test]
    fn logarithms_are_exact_to_the_last_place() {
        assert_eq!(minus_log2(u64::MAX), 0);
        assert_eq!(minus_log2((1 << 63) - 1), 1 << 32, "u = 1/2");
        assert_eq!(minus_log2((1 << 62) - 1), 2 << 32, "u = 1/4");
        assert_eq!(minus_log2(0), 64 << 32, "u = 2^-64");
        // u = 3/4: -log2 = 0.41503749927884378..., rounded up in the last of 32 places.
        assert_eq!(minus_log2(3 * (1 << 62) - 1), 1_782_572_487);
    }

    #[test]
    fn draws_never_change() {
        let draws = [(0, "ada"), (1, "ada"), (1, "bob")]
            .map(|(arc, name)| Draw::of(PartitionId { n: 3, arc: ArcIndex(arc) }, &Member::new(name, "h:1")).cost);
        assert_eq!(draws, KAT);
    }

    #[test]
    fn fallbacks_are_all_the_others_once() {
        let ring = ring((0..10).map(|i| Member::new(format!("m{i}"), "h:1")).collect());
        for partition in ring.all_partitions() {
            let list = ring.preference(partition);
            let mut everyone = [list.primaries.clone(), list.fallbacks_for(list.primaries[1])].concat();
            everyone.sort_unstable();
            assert!(everyone.iter().eq(ring.members().iter().map(|member| &member.id)));
        }
    }

    #[test]
    fn the_zone_of_the_dead_primary_comes_first() {
        let zones = ["a", "b", "c"];
        let ring = ring((0..12).map(|i| Member::new(format!("m{i}"), "h:1").in_zone(zones[i % 3])).collect());
        for partition in ring.all_partitions() {
            let list = ring.preference(partition);
            for &dead in &list.primaries {
                let zone = |id: NodeId| ring.member(id).unwrap().zone.as_str();
                let zones: Vec<bool> = list.fallbacks_for(dead).iter().map(|&id| zone(id) == zone(dead)).collect();
                assert_eq!(zones, [true, true, true, false, false, false, false, false, false]);
            }
        }
    }

    #[test]
    fn the_load_of_a_dead_member_spreads_over_all_survivors() {
        let ring = ring((0..10).map(|i| Member::new(format!("m{i}"), "h:1")).collect());
        for dead in ring.members() {
            let load = first_stand_ins(&ring, dead.id);
            let (total, most) = (load.values().sum::<usize>(), load.values().max().unwrap());
            assert_eq!(load.len(), 9, "everybody helps");
            assert!(most * 9 * 10 <= total * 17, "at most 1.7 times the mean, got {load:?}");
        }
    }

    #[test]
    fn stand_ins_are_chosen_in_proportion_to_their_weight() {
        // Without the table in between: the first in line of 60 000 partitions, weights 1 : 2 : 3.
        let members = [1u32, 2, 3].map(|weight| Member::new(format!("w{weight}"), "h:1").with_weight(weight));
        let mut firsts = [0; 3];
        for arc in 0..60_000 {
            let partition = PartitionId { n: 3, arc: ArcIndex(arc) };
            let best = (0..3).min_by_key(|&i| Draw::of(partition, &members[i])).unwrap();
            firsts[best] += 1;
        }
        for (i, &first) in firsts.iter().enumerate() {
            let expected = 10_000 * (i as i64 + 1);
            assert!((i64::from(first) - expected).abs() < 500, "four to five standard deviations: {firsts:?}");
        }
    }

    const KAT: [u64; 3] = [9_368_862_483, 6_096_559_982, 2_363_926_138];
}
