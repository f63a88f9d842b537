//! What a ring promises: versions, lookups, digests, and that no bytes make a malformed one.

use super::*;

fn spec(names: &[&str]) -> RingSpec {
    RingSpec {
        partitions: Partitions::new(16).unwrap(),
        hash_seed: 7,
        members: names.iter().map(|name| Member::new(*name, format!("{name}:7400")).with_weight(100)).collect(),
        classes: BTreeSet::from([1, 3]),
    }
}

fn record(ring: &Ring) -> RingRecord {
    ring.clone().into()
}

#[test]
fn digests_and_tables_never_change() {
    let first = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    let second = first.next(spec(&["ada", "bob", "cyd", "dan", "eve"])).unwrap();
    let third = second.next(spec(&["ada", "cyd", "dan", "eve"])).unwrap();
    let digests = [first, second, third].map(|ring| ring.digest());
    assert_eq!(digests, KAT, "got {digests:#034x?}");
}

#[test]
fn each_version_names_its_parent() {
    let first = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    assert_eq!((first.version(), first.parent_digest()), (RingVersion(1), 0));
    let second = first.next(first.spec()).unwrap();
    assert_eq!((second.version(), second.parent_digest()), (RingVersion(2), first.digest()));
    assert_ne!(second.digest(), first.digest());
}

#[test]
fn the_digest_covers_everything() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd", "dan"])).unwrap();
    let changes: [fn(&mut Ring); 12] = [
        |ring| ring.version.0 += 1,
        |ring| ring.parent_digest += 1,
        |ring| ring.partitions = ring.partitions.doubled().unwrap(),
        |ring| ring.hash_seed += 1,
        |ring| ring.members[0].id.0 += 1,
        |ring| ring.members[0].name.push('x'),
        |ring| ring.members[0].address.push('x'),
        |ring| ring.members[0].zone.push('x'),
        |ring| ring.members[0].weight += 1,
        |ring| ring.members[0].shards += 1,
        |ring| ring.tables[0].n += 1,
        |ring| ring.tables[1].owners.swap(0, 1),
    ];
    let mut digests = BTreeSet::from([ring.digest()]);
    for change in changes {
        let mut changed = ring.clone();
        change(&mut changed);
        assert!(digests.insert(digest(&changed)));
    }
}

#[test]
fn lookups_answer_nothing_for_the_unknown() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    assert_eq!(ring.owners(PartitionId { n: 3, arc: ArcIndex(15) }).len(), 3);
    for (n, arc) in [(3, 16), (3, u32::MAX), (2, 0), (0, 0), (255, 0)] {
        let partition = PartitionId { n, arc: ArcIndex(arc) };
        assert_eq!(ring.owners(partition), []);
        assert!(ring.preference(partition).primaries.is_empty());
    }
    assert_eq!(ring.member(NodeId(1)), None);
    assert_eq!(ring.member_by_name("zoe"), None);
    assert_eq!(ring.owned(NodeId(1)).count(), 0);
}

#[test]
fn members_are_found_by_id_and_by_name() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    for name in ["ada", "bob", "cyd"] {
        assert_eq!(ring.member_by_name(name).unwrap().id, NodeId::of_name(name));
        assert_eq!(ring.member(NodeId::of_name(name)).unwrap().name, name);
        assert_eq!(ring.owned(NodeId::of_name(name)).filter(|partition| partition.n == 3).count(), 16);
    }
}

#[test]
fn impossible_specs_are_refused() {
    let refused = |change: fn(&mut RingSpec)| {
        let mut spec = spec(&["ada", "bob", "cyd"]);
        change(&mut spec);
        Ring::first(spec).unwrap_err()
    };
    assert_eq!(refused(|spec| spec.members.clear()), RingError::NoMembers);
    assert_eq!(refused(|spec| spec.members[0].weight = 0), RingError::ZeroWeight { name: "ada".into() });
    assert_eq!(refused(|spec| spec.members[0].shards = 0), RingError::NoShards { name: "ada".into() });
    assert_eq!(refused(|spec| spec.members[0].address.clear()), RingError::EmptyAddress { name: "ada".into() });
    assert_eq!(refused(|spec| spec.members[0].name.clear()), RingError::EmptyName { address: "ada:7400".into() });
    assert_eq!(refused(|spec| spec.members[0].name = "bob".into()), RingError::DuplicateName { name: "bob".into() });
    assert_eq!(
        refused(|spec| spec.members[1].id = spec.members[0].id),
        RingError::DuplicateId { id: NodeId::of_name("ada"), first: "ada".into(), second: "bob".into() }
    );
    assert_eq!(refused(|spec| spec.classes.clear()), RingError::NoClasses);
    assert_eq!(refused(|spec| spec.classes = BTreeSet::from([0])), RingError::ZeroReplicas);
    assert_eq!(refused(|spec| spec.classes = BTreeSet::from([4])), RingError::NotEnoughMembers { n: 4, members: 3 });
    assert_eq!(
        refused(|spec| spec.members = (0..1025).map(|i| Member::new(i.to_string(), "h:1")).collect()),
        RingError::TooManyMembers { count: 1025 }
    );
}

#[test]
fn what_would_move_every_key_is_refused() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    let other_seed = RingSpec { hash_seed: 8, ..ring.spec() };
    assert_eq!(ring.next(other_seed), Err(RingError::SeedChanged { old: 7, new: 8 }));
    let fewer = RingSpec { partitions: Partitions::new(8).unwrap(), ..ring.spec() };
    assert_eq!(ring.next(fewer), Err(RingError::PartitionsShrank { old: 16, new: 8 }));
}

#[test]
fn doubling_keeps_the_owners_of_every_key() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd", "dan", "eve"])).unwrap();
    let doubled = ring.doubled().unwrap();
    assert_eq!(doubled.partitions().get(), 32);
    assert_eq!(doubled.parent_digest(), ring.digest());
    for key in 0..1000u32 {
        let token = ring.token(1, &key.to_be_bytes());
        assert_eq!(ring.owners(ring.partition(3, token)), doubled.owners(doubled.partition(3, token)));
    }
}

#[test]
fn an_older_version_is_the_same_in_the_arcs_of_a_later_one() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd", "dan", "eve"])).unwrap();
    let later = ring.doubled().unwrap().doubled().unwrap();
    let cut = ring.cut_into(later.partitions());
    assert_eq!((cut.version(), cut.digest(), cut.parent_digest()), (ring.version(), ring.digest(), 0));
    for partition in later.all_partitions() {
        assert_eq!(cut.owners(partition), later.owners(partition));
    }
    assert_eq!(cut.cut_into(ring.partitions()), cut, "arcs are never joined");
    // Whatever it was cut from stays known, through versions and encodings.
    let next = later.next(RingSpec { partitions: Partitions::new(128).unwrap(), ..later.spec() }).unwrap();
    let arc = ArcIndex(127);
    assert_eq!((next.partitions().get(), next.partitions().founding_arc(arc)), (128, ArcIndex(15)));
    assert_eq!(Ring::try_from(record(&next)).unwrap(), next);
}

#[test]
fn to_go_back_before_a_doubling_is_to_go_back_to_the_owners() {
    let before = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    let joined = before.doubled().unwrap();
    let more = RingSpec { members: spec(&["ada", "bob", "cyd", "dan"]).members, ..joined.spec() };
    let joined = joined.next(more).unwrap();
    let again = joined.again(&before).unwrap();
    assert_eq!((again.version(), again.partitions()), (RingVersion(4), joined.partitions()));
    for partition in again.all_partitions() {
        assert_eq!(again.owners(partition), before.cut_into(again.partitions()).owners(partition));
    }
    let refused = before.again(&joined).map(|ring| ring.version());
    assert_eq!(refused, Err(RingError::PartitionsShrank { old: 32, new: 16 }));
}

#[test]
fn a_replacement_takes_exactly_the_slots_of_whom_it_replaces() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd", "dan"])).unwrap();
    let (bob, zoe) = (NodeId::of_name("bob"), Member::new("zoe", "zoe:7400").with_weight(3));
    let next = ring.replaced(bob, zoe.clone()).unwrap();
    assert_eq!((next.version(), next.parent_digest()), (RingVersion(2), ring.digest()));
    assert_eq!((next.member(bob), next.member(zoe.id)), (None, Some(&zoe)));
    for partition in ring.all_partitions() {
        let expected: Vec<NodeId> =
            ring.owners(partition).iter().map(|owner| if *owner == bob { zoe.id } else { *owner }).collect();
        assert_eq!(next.owners(partition), expected);
    }
    // It is a ring that everybody takes: sorted, and with indexes that fit.
    assert_eq!(Ring::try_from(record(&next)).unwrap(), next);
}

#[test]
fn a_replacement_that_cannot_be_is_refused() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    let zoe = Member::new("zoe", "zoe:7400");
    let nobody = NodeId(1);
    assert_eq!(ring.replaced(nobody, zoe.clone()), Err(RingError::NoSuchMember { id: nobody }));
    let cyd = Member::new("cyd", "elsewhere:7400");
    assert!(ring.replaced(NodeId::of_name("bob"), cyd).is_err(), "a member cannot take a second place");
    assert!(ring.replaced(NodeId::of_name("bob"), zoe.with_weight(0)).is_err());
}

#[test]
fn an_earlier_table_comes_back_as_the_next_version() {
    let first = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap();
    let second = first.next(spec(&["ada", "bob", "cyd", "dan"])).unwrap();
    let third = second.again(&first).unwrap();
    assert_eq!((third.version(), third.parent_digest()), (RingVersion(3), second.digest()));
    assert_eq!(third.members(), first.members());
    assert!(first.all_partitions().all(|partition| third.owners(partition) == first.owners(partition)));
    assert_eq!(Ring::try_from(record(&third)).unwrap(), third);
    assert!(first.again(&second.doubled().unwrap()).is_err(), "arcs never become fewer");
}

#[test]
fn a_forced_version_has_the_same_tables_and_a_number_that_nobody_else_comes_to() {
    let second = Ring::first(spec(&["ada", "bob", "cyd"])).unwrap().next(spec(&["ada", "bob", "cyd", "dan"])).unwrap();
    let forced = second.forced().unwrap();
    assert_eq!((forced.version(), forced.parent_digest()), (RingVersion(1000), second.digest()));
    assert_eq!(forced.members(), second.members());
    assert!(second.all_partitions().all(|partition| forced.owners(partition) == second.owners(partition)));
    assert_eq!(Ring::try_from(record(&forced)), Ok(forced.clone()));
    assert_eq!(forced.forced().unwrap().version(), RingVersion(2000));
    assert_eq!(forced.again(&second).unwrap().version(), RingVersion(1001), "those after it follow as always");
    let last = Ring::try_from(RingRecord { version: RingVersion(u64::MAX - 7), ..record(&second) }).unwrap();
    assert_eq!(last.forced(), Err(RingError::VersionsExhausted));
}

#[test]
fn a_damaged_record_is_refused() {
    let ring = Ring::first(spec(&["ada", "bob", "cyd", "dan"])).unwrap();
    assert_eq!(Ring::try_from(record(&ring)), Ok(ring.clone()));
    let refused = |change: fn(&mut RingRecord)| {
        let mut record = record(&ring);
        change(&mut record);
        Ring::try_from(record).unwrap_err()
    };
    assert_eq!(refused(|record| record.format = 2), RingError::UnknownFormat { found: 2 });
    let changes: [fn(&mut RingRecord); 7] = [
        |record| record.version = RingVersion(0),
        |record| record.members.swap(0, 1),
        |record| record.tables.swap(0, 1),
        |record| record.tables[1] = record.tables[0].clone(),
        |record| record.tables[0].1.truncate(15),
        |record| record.tables[0].1[3] = 4,
        |record| record.tables[1].1[0] = record.tables[1].1[1],
    ];
    for change in changes {
        assert!(matches!(refused(change), RingError::Damaged { .. }));
    }
    assert_eq!(refused(|record| record.members[0].weight = 0).to_string().matches("weight 0").count(), 1);
    assert_eq!(refused(|record| record.tables.clear()), RingError::NoClasses);
    assert_eq!(refused(|record| record.tables[0] = (0, vec![])), RingError::ZeroReplicas);
}

#[test]
fn the_last_version_has_no_successor() {
    let mut last = record(&Ring::first(spec(&["ada", "bob", "cyd"])).unwrap());
    last.version = RingVersion(u64::MAX);
    let last = Ring::try_from(last).unwrap();
    assert_eq!(last.next(last.spec()), Err(RingError::VersionsExhausted));
    assert_eq!(last.doubled(), Err(RingError::VersionsExhausted));
}

const KAT: [u128; 3] = [
    0x60bb_6bfb_3df4_f955_01d3_0b0e_bb11_b40c,
    0xb668_5dd4_a296_91ff_20cb_c5dd_a0ac_9e68,
    0x538c_8515_04e5_ccbf_76d0_f210_1d98_cdc7,
];
