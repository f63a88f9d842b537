//! The promises of placement, over random clusters and random changes to them.

// An integration test is all test, helpers included.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use driftless_ring::{Member, NodeId, PartitionId, Partitions, Ring, RingDiff, RingSpec};
use proptest::prelude::*;

/// One thing that an operator does.
#[derive(Clone, Debug)]
enum Change {
    Join { zone: u8, weight: u32 },
    Leave(usize),
    Weight(usize, u32),
    Zone(usize, u8),
}

fn change(zones: u8) -> impl Strategy<Value = Change> {
    let weight = prop_oneof![3 => Just(100u32), 2 => 1u32..1000];
    prop_oneof![
        4 => (0..zones, weight.clone()).prop_map(|(zone, weight)| Change::Join { zone, weight }),
        4 => any::<usize>().prop_map(Change::Leave),
        2 => (any::<usize>(), weight).prop_map(|(who, weight)| Change::Weight(who, weight)),
        1 => (any::<usize>(), 0..zones).prop_map(|(who, zone)| Change::Zone(who, zone)),
    ]
}

/// A ring and what has become of it, version after version.
struct History(Vec<Ring>);

/// Without the tables, of which nobody can read a page.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ring in &self.0 {
            let members: Vec<String> =
                ring.members().iter().map(|m| format!("{} {} {}", m.name, m.zone, m.weight)).collect();
            writeln!(f, "q {} n {:?}: {members:?}", ring.partitions(), ring.classes().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// A random cluster and a few random changes. A leave that would leave too few members is skipped.
fn history(bits_max: u32) -> impl Strategy<Value = History> {
    (1u8..=5, 1u8..=5, 0u32..=bits_max).prop_flat_map(|(n, zones, bits)| {
        let members = proptest::collection::vec((0..zones, prop_oneof![Just(100u32), 1u32..1000]), usize::from(n)..20);
        (members, proptest::collection::vec(change(zones), 0..12)).prop_map(move |(members, changes)| {
            let mut next_name = 0;
            let mut new_member = |zone: u8, weight: u32| {
                next_name += 1;
                Member::new(format!("m{next_name}"), "h:1").in_zone(format!("z{zone}")).with_weight(weight)
            };
            let mut spec = RingSpec {
                partitions: Partitions::new(1 << bits).unwrap(),
                hash_seed: 1,
                members: members.into_iter().map(|(zone, weight)| new_member(zone, weight)).collect(),
                classes: BTreeSet::from([1, n]),
            };
            let mut rings = vec![Ring::first(spec.clone()).unwrap()];
            for change in changes {
                let count = spec.members.len();
                match change {
                    Change::Join { zone, weight } => spec.members.push(new_member(zone, weight)),
                    Change::Leave(_) if count <= usize::from(n) => continue,
                    Change::Leave(who) => drop(spec.members.swap_remove(who % count)),
                    Change::Weight(who, weight) => spec.members[who % count].weight = weight,
                    Change::Zone(who, zone) => spec.members[who % count].zone = format!("z{zone}"),
                }
                let next = rings[rings.len() - 1].next(spec.clone()).unwrap();
                rings.push(next);
            }
            History(rings)
        })
    })
}

fn spec(members: Vec<Member>, q: u32, n: u8) -> RingSpec {
    RingSpec { partitions: Partitions::new(q).unwrap(), hash_seed: 1, members, classes: BTreeSet::from([n]) }
}

fn cluster(count: usize) -> Vec<Member> {
    (0..count).map(|i| Member::new(format!("m{i}"), "h:1")).collect()
}

fn in_zones(count: usize, zones: usize) -> Vec<Member> {
    cluster(count).into_iter().enumerate().map(|(i, member)| member.in_zone(format!("z{}", i % zones))).collect()
}

/// How many slots of class n each member holds, at all positions or at one.
fn held(ring: &Ring, n: u8, position: Option<usize>) -> BTreeMap<NodeId, u32> {
    let mut held: BTreeMap<NodeId, u32> = ring.members().iter().map(|member| (member.id, 0)).collect();
    for partition in ring.all_partitions().filter(|partition| partition.n == n) {
        for (at, owner) in ring.owners(partition).iter().enumerate() {
            if position.is_none_or(|position| position == at) {
                *held.get_mut(owner).expect("owners are members") += 1;
            }
        }
    }
    held
}

/// The number of slots of class n that gain an owner, and the number that must if every member is to hold
/// what it holds in the new ring: what each holds more than before.
fn moved_and_least(old: &Ring, new: &Ring, n: u8) -> (usize, usize) {
    let diff = RingDiff::between(old, new);
    let moved = diff.changes().iter().filter(|change| change.partition.n == n).map(|change| change.gained.len()).sum();
    let (before, after) = (held(old, n, None), held(new, n, None));
    let least = after.iter().map(|(id, &now)| now.saturating_sub(before.get(id).copied().unwrap_or(0)) as usize).sum();
    (moved, least)
}

/// The fewest slots that can move if all other promises are to be kept too: minimum-cost flow, written
/// again in the plainest way, as the oracle.
///
/// ```text
/// source ──n──▶ row ──cap──▶ (row, zone) ──1──▶ member ──its slots──▶ sink
///                                 costs 1 if the member is new in the row
/// ```
fn fewest_moves(old: &Ring, new: &Ring, n: u8) -> usize {
    let (members, q) = (new.members(), new.partitions().get() as usize);
    let zones: BTreeSet<&str> = members.iter().map(|member| member.zone.as_str()).collect();
    let zone_of = |member: &Member| zones.iter().position(|&zone| zone == member.zone).unwrap();
    let (source, sink) = (0, 1);
    let row_node = |row: usize| 2 + row;
    let zone_node = |row: usize, zone: usize| 2 + q + row * zones.len() + zone;
    let member_node = |member: usize| 2 + q + q * zones.len() + member;

    // (from, to, room, cost), each followed by its reverse.
    let mut edges: Vec<(usize, usize, u32, i32)> = vec![];
    let mut edge =
        |from: usize, to: usize, room: u32, cost: i32| edges.extend([(from, to, room, cost), (to, from, 0, -cost)]);
    for arc in new.partitions().arcs() {
        let row = arc.0 as usize;
        edge(source, row_node(row), u32::from(n), 0);
        for zone in 0..zones.len() {
            edge(row_node(row), zone_node(row, zone), new.zone_cap(n), 0);
        }
        for (index, member) in members.iter().enumerate() {
            let is_new = !old.owns(member.id, PartitionId { n, arc });
            edge(zone_node(row, zone_of(member)), member_node(index), 1, i32::from(is_new));
        }
    }
    let slots = held(new, n, None);
    for (index, member) in members.iter().enumerate() {
        edge(member_node(index), sink, slots[&member.id], 0);
    }

    let mut total = 0;
    for _ in 0..q * usize::from(n) {
        let mut best: Vec<Option<(i32, usize)>> = vec![None; member_node(members.len())];
        best[source] = Some((0, usize::MAX));
        let mut changed = true;
        while changed {
            changed = false;
            for (index, &(from, to, room, cost)) in edges.iter().enumerate() {
                let Some((so_far, _)) = best[from] else { continue };
                if room > 0 && best[to].is_none_or(|(known, _)| so_far + cost < known) {
                    best[to] = Some((so_far + cost, index));
                    changed = true;
                }
            }
        }
        total += best[sink].expect("a table with these numbers exists").0;
        let mut at = sink;
        while at != source {
            let (_, index) = best[at].unwrap();
            edges[index].2 -= 1;
            edges[index ^ 1].2 += 1;
            at = edges[index].0;
        }
    }
    total as usize
}

/// Whether some row has more owners in a zone than the new ring allows.
fn is_crowded(old: &Ring, new: &Ring, n: u8) -> bool {
    new.partitions().arcs().any(|arc| {
        let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
        for member in old.owners(PartitionId { n, arc }).iter().filter_map(|&owner| new.member(owner)) {
            *zones.entry(&member.zone).or_default() += 1;
        }
        zones.values().any(|&count| count > new.zone_cap(n))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_two_replicas_of_a_partition_are_on_one_member(History(rings) in history(8)) {
        for ring in &rings {
            for partition in ring.all_partitions() {
                let owners = ring.owners(partition);
                let distinct: BTreeSet<_> = owners.iter().collect();
                prop_assert_eq!(owners.len(), usize::from(partition.n));
                prop_assert_eq!(distinct.len(), owners.len());
            }
        }
    }

    #[test]
    fn no_zone_holds_more_than_its_share_of_a_partition(History(rings) in history(8)) {
        for ring in &rings {
            for partition in ring.all_partitions() {
                let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
                for &owner in ring.owners(partition) {
                    *zones.entry(&ring.member(owner).unwrap().zone).or_default() += 1;
                }
                prop_assert!(zones.values().all(|&count| count <= ring.zone_cap(partition.n)));
            }
        }
    }

    #[test]
    fn members_of_a_zone_hold_in_proportion_to_their_weight(History(rings) in history(8)) {
        // In one zone the level of the water is the same for all, so between two members that are below Q
        // the shares are as the weights, but for rounding.
        for ring in &rings {
            for n in ring.classes() {
                let held = held(ring, n, None);
                let q = ring.partitions().get();
                for a in ring.members().iter().filter(|member| held[&member.id] < q) {
                    for b in ring.members().iter().filter(|b| b.zone == a.zone) {
                        let (more_than, at_most) = (f64::from(held[&b.id]) - 1.0, f64::from(held[&a.id]) + 1.0);
                        prop_assert!(
                            more_than / f64::from(b.weight) <= at_most / f64::from(a.weight) + 1e-9,
                            "{} holds {}, {} holds {}", a.name, held[&a.id], b.name, held[&b.id]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_position_of_the_list_is_spread_like_the_slots(History(rings) in history(8)) {
        for ring in &rings {
            for n in ring.classes() {
                let mut left = held(ring, n, None);
                for position in 0..usize::from(n) {
                    let places = u32::from(n) - position as u32;
                    for (id, at) in held(ring, n, Some(position)) {
                        let slots = left[&id];
                        prop_assert!((slots / places..=slots.div_ceil(places)).contains(&at));
                        left.insert(id, slots - at);
                    }
                }
            }
        }
    }

    #[test]
    fn no_other_table_with_these_quotas_moves_fewer_slots(History(rings) in history(5)) {
        for pair in rings.windows(2) {
            for n in pair[1].classes() {
                let (moved, _) = moved_and_least(&pair[0], &pair[1], n);
                let fewest = fewest_moves(&pair[0], &pair[1], n);
                let crowded = is_crowded(&pair[0], &pair[1], n);
                // Where zones are crowded, the choice whom to evict is made before the paths are sought; in
                // 250 such changes it cost nothing in 220, one slot in 26 and two in 6.
                let allowed = if crowded { fewest + fewest / 4 + 2 } else { fewest };
                prop_assert!(moved <= allowed, "n {n}: moved {moved}, {fewest} would do");
            }
        }
    }

    #[test]
    fn a_ring_survives_encoding(History(rings) in history(8)) {
        for ring in &rings {
            let bytes = postcard::to_stdvec(ring).unwrap();
            let back: Ring = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(back.digest(), ring.digest());
            prop_assert_eq!(&back, ring);
        }
    }

    #[test]
    fn the_order_of_input_does_not_matter(
        members in Just(in_zones(12, 4)).prop_shuffle(), more in Just(in_zones(15, 5)).prop_shuffle()
    ) {
        let ring = Ring::first(spec(members, 64, 3)).unwrap();
        prop_assert_eq!(&ring, &Ring::first(spec(in_zones(12, 4), 64, 3)).unwrap());
        prop_assert_eq!(ring.next(spec(more, 64, 3)), ring.next(spec(in_zones(15, 5), 64, 3)));
    }

    #[test]
    fn damaged_bytes_never_panic(damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>()) {
        let mut bytes = postcard::to_stdvec(&Ring::first(spec(in_zones(6, 3), 16, 3)).unwrap()).unwrap();
        if cut % 4 == 0 {
            bytes.truncate(cut / 4 % bytes.len());
        }
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = value;
            }
        }
        // Most of it is refused. What is not must work: every lookup, and being the parent of the next.
        if let Ok(ring) = postcard::from_bytes::<Ring>(&bytes) {
            for partition in ring.all_partitions() {
                for &owner in ring.owners(partition) {
                    prop_assert!(ring.member(owner).is_some());
                    prop_assert!(ring.preference(partition).fallbacks_for(owner).len() < ring.members().len());
                }
            }
            let _ = ring.next(ring.spec());
            let _ = ring.doubled().map(|doubled| RingDiff::between(&ring, &doubled));
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = postcard::from_bytes::<Ring>(&bytes);
    }
}

#[test]
fn equal_members_differ_by_one_slot_at_most() {
    for (count, q, n) in [(3, 256, 3), (4, 256, 3), (7, 256, 3), (10, 1024, 5), (100, 1024, 3), (33, 64, 1)] {
        let ring = Ring::first(spec(cluster(count), q, n)).unwrap();
        let held = held(&ring, n, None);
        let fewest = q * u32::from(n) / count as u32;
        assert!(held.values().all(|&slots| slots == fewest || slots == fewest + 1), "{count} members: {held:?}");
    }
}

#[test]
fn growing_and_shrinking_moves_exactly_the_least() {
    for (from, to, zones, q) in [
        (3, 4, 1, 256),
        (4, 3, 1, 256),
        (3, 6, 3, 256),
        (9, 10, 1, 1024),
        (10, 9, 1, 1024),
        (12, 15, 3, 256),
        (30, 31, 5, 1024),
        (31, 30, 5, 1024),
        (100, 101, 1, 1024),
        (101, 100, 1, 1024),
        (100, 101, 4, 1024),
    ] {
        let old = Ring::first(spec(in_zones(from, zones), q, 3)).unwrap();
        let new = old.next(spec(in_zones(to, zones), q, 3)).unwrap();
        let (moved, least) = moved_and_least(&old, &new, 3);
        assert_eq!(moved, least, "{from} to {to} members in {zones} zones");
    }
}

#[test]
fn the_same_members_keep_the_same_table() {
    let first = Ring::first(spec(in_zones(17, 4), 256, 3)).unwrap();
    let second = first.next(first.spec()).unwrap();
    for partition in first.all_partitions() {
        assert_eq!(first.owners(partition), second.owners(partition), "not even the order changes");
    }
}

#[test]
fn a_join_leaves_the_lists_of_other_partitions_alone() {
    let old = Ring::first(spec(cluster(10), 1024, 3)).unwrap();
    let new = old.next(spec(cluster(11), 1024, 3)).unwrap();
    let moved: BTreeSet<_> = RingDiff::between(&old, &new).changes().iter().map(|change| change.partition).collect();
    for partition in old.all_partitions().filter(|partition| !moved.contains(partition)) {
        assert_eq!(old.owners(partition), new.owners(partition));
    }
}

#[test]
fn members_share_partitions_with_all_others() {
    // Who loses a neighbour must not be alone in replacing it: with 10 members everyone has partitions in
    // common with all 9 others, and not far from equally many.
    let grown = (4..=10).fold(Ring::first(spec(cluster(3), 256, 3)).unwrap(), |ring, count| {
        ring.next(spec(cluster(count), 256, 3)).unwrap()
    });
    for ring in [Ring::first(spec(cluster(10), 256, 3)).unwrap(), grown] {
        for a in ring.members() {
            let mut shared: BTreeMap<NodeId, u32> = BTreeMap::new();
            for partition in ring.owned(a.id) {
                for &owner in ring.owners(partition).iter().filter(|&&owner| owner != a.id) {
                    *shared.entry(owner).or_default() += 1;
                }
            }
            let mean = 77.0 * 2.0 / 9.0;
            assert_eq!(shared.len(), 9);
            assert!(shared.values().all(|&count| f64::from(count) < 2.0 * mean), "{shared:?}");
        }
    }
}

#[test]
fn doubling_and_then_changing_still_ends_at_exact_quotas() {
    let ring = Ring::first(spec(cluster(7), 64, 3)).unwrap().doubled().unwrap();
    let new = ring.next(ring.spec()).unwrap();
    assert!(held(&new, 3, None).values().all(|&slots| slots == 54 || slots == 55), "128 * 3 / 7 = 54.9");
    let (moved, least) = moved_and_least(&ring, &new, 3);
    assert_eq!(moved, least);
}

/// Two hundred changes, up to a hundred members and down again: what one change leaves must not make the next ones dearer.
#[test]
fn a_long_history_moves_hardly_more_than_the_least_of_each_change() {
    let mut dice = 7_u64;
    let mut draw = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    let n = 3;
    let mut names = 6;
    let mut ring = Ring::first(spec(in_zones(6, 3), 256, n)).unwrap();
    let (mut moved, mut least) = (0, 0);
    for step in 0..200 {
        let mut spec = ring.spec();
        let count = spec.members.len();
        let grows = if step < 100 { 9 } else { 1 };
        match draw(12) {
            11 => {
                let who = draw(count as u64) as usize;
                spec.members[who].weight = 50 + draw(200) as u32;
            }
            dice if dice < grows || count <= 6 => {
                names += 1;
                let member = Member::new(format!("m{names}"), "h:1").in_zone(format!("z{}", draw(3)));
                spec.members.push(member.with_weight(100));
            }
            _ => drop(spec.members.swap_remove(draw(count as u64) as usize)),
        }
        let next = ring.next(spec).unwrap();
        let (this, fewest) = moved_and_least(&ring, &next, n);
        (moved, least) = (moved + this, least + fewest);
        for partition in next.all_partitions() {
            let owners: BTreeSet<NodeId> = next.owners(partition).iter().copied().collect();
            assert_eq!(owners.len(), usize::from(n), "step {step}: {partition} has an owner twice");
        }
        ring = next;
    }
    assert!(moved * 100 <= least * 105, "{moved} slots were moved, and {least} are the least");
}

/// Over a long life little must move as well, and not only from one version to the next.
#[test]
fn two_hundred_changes_among_up_to_two_hundred_members_move_hardly_more_than_they_must() {
    let mut ring = Ring::first(spec(in_zones(150, 6), 1024, 3)).unwrap();
    let (mut next_name, mut dice) = (150, 1u64);
    // Its steps only have to be many and different.
    let mut roll = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    let (mut moved, mut least, mut most_members) = (0, 0, 0);
    for _ in 0..200 {
        let mut next = ring.spec();
        let who = roll(next.members.len() as u64) as usize;
        let zones = |members: &[Member]| -> BTreeMap<NodeId, String> {
            members.iter().map(|member| (member.id, member.zone.clone())).collect()
        };
        let before = zones(&next.members);
        match roll(10) {
            0..5 if next.members.len() < 200 => {
                let member = Member::new(format!("m{next_name}"), "h:1").in_zone(format!("z{}", roll(6)));
                next.members.push(member.with_weight(1 + roll(3) as u32));
                next_name += 1;
            }
            0..7 => drop(next.members.remove(who)),
            7..9 => next.members[who].weight = 1 + roll(3) as u32,
            _ => next.members[who].zone = format!("z{}", roll(6)),
        }
        let changed = ring.next(next).unwrap();
        // Who changes zones moves what it holds without holding more: the lower bound knows nothing of that.
        let stays =
            zones(changed.members()).iter().all(|(id, zone)| before.get(id).is_none_or(|before| before == zone));
        let (step, step_least) = if stays { moved_and_least(&ring, &changed, 3) } else { (0, 0) };
        (moved, least, most_members) = (moved + step, least + step_least, most_members.max(changed.members().len()));
        for partition in changed.all_partitions() {
            assert_eq!(changed.owners(partition).iter().collect::<BTreeSet<_>>().len(), 3);
        }
        ring = changed;
    }
    assert!(most_members > 170, "{most_members}");
    assert!(moved * 100 <= least * 105, "{moved} slots moved, {least} had to");
}
