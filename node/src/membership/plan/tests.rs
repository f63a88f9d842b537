//! What changes make of a record, and which cannot be made.

use driftless_proto::{BucketName, Conflict, Quorum};
use driftless_ring::{Partitions, RingSpec};

use super::*;

fn member(name: &str, zone: &str) -> Member {
    Member::new(name, format!("{name}:7400")).in_zone(zone)
}

fn store(name: &str) -> StoreId {
    StoreId(u128::from(NodeId::of_name(name).0))
}

fn candidate(name: &str) -> Candidate {
    Candidate { member: member(name, "b"), store: store(name) }
}

/// Version 2 of three members and sixteen arcs.
fn record(names: &[&str]) -> Record {
    let members: Vec<Member> = names.iter().zip(["a", "b", "c"].iter().cycle()).map(|(n, z)| member(n, z)).collect();
    let stores: Vec<_> = names.iter().map(|name| (NodeId::of_name(name), store(name))).collect();
    let voters = voters::next(&[], &members, &stores, &[]);
    let spec = RingSpec { partitions: Partitions::new(16).unwrap(), hash_seed: 0, members, classes: [3].into() };
    let first = Ring::first(spec).unwrap();
    let topology = Topology::new("test", first.again(&first).unwrap(), vec![BucketDefinition::built_in(3)]).unwrap();
    Record::new(7, 1, topology, stores, voters, vec![], vec![], "n1".to_owned(), String::new()).unwrap()
}

fn plan(record: &Record, changes: &[Change]) -> Result<Planned, String> {
    let called = [candidate("n4"), candidate("n5")];
    let basis = Basis {
        record,
        digest: record.digest(),
        candidates: called.iter().collect(),
        leaving: Vec::new(),
        unfinished: Vec::new(),
        slot_bytes: 100,
    };
    basis.plan(changes, "n1")
}

fn three() -> Record {
    record(&["n1", "n2", "n3"])
}

fn join(name: &str) -> Change {
    Change::Join { name: name.to_owned(), zone: None, weight: None }
}

fn leave(name: &str, lost: bool) -> Change {
    Change::Leave { name: name.to_owned(), lost }
}

fn replace(name: &str, with: &str) -> Change {
    Change::Replace { name: name.to_owned(), with: with.to_owned(), force: false }
}

fn bucket(name: &str, n: u8) -> BucketDefinition {
    let (name, quorum) = (BucketName::new(name).unwrap(), Quorum::majority(n).unwrap());
    BucketDefinition { name, quorum, ..BucketDefinition::built_in(3) }
}

#[test]
fn a_join_is_planned_with_what_moves() {
    let base = three();
    let Planned { plan, record } = plan(&base, &[join("n4")]).unwrap();
    assert_eq!((plan.base, plan.version, record.version(), record.parent), (2, 3, 3, base.digest()));
    assert_eq!(
        (plan.slots, plan.slots_moved, plan.slots_minimum),
        (48, 8, 8),
        "the members of a zone share its replicas"
    );
    assert_eq!((plan.spread, plan.zones), ((16, 16), (3, 3)));
    let n4 = plan.nodes.iter().find(|node| node.name == "n4").unwrap();
    assert_eq!((n4.now, n4.then, n4.gains, n4.bytes_in), (0, n4.then, n4.then, n4.then * 100));
    assert_eq!(record.store_of(NodeId::of_name("n4")), Some(store("n4")));
    assert_eq!(record.reason, format!("n4 joins, plan {}", plan.name));
    assert_eq!(record.voters, base.voters, "voters stay, and four members have three");
}

#[test]
fn the_same_plan_makes_the_same_record_at_every_node() {
    let (base, changes) = (three(), [join("n4"), Change::CreateBucket(bucket("carts", 2))]);
    let (a, b) = (plan(&base, &changes).unwrap(), plan(&base, &changes).unwrap());
    assert_eq!((&a.plan.name, a.record), (&b.plan.name, b.record));
    assert_ne!(a.plan.name, plan(&base, &changes[..1]).unwrap().plan.name);
}

#[test]
fn a_replacement_takes_the_slots_and_the_old_store_is_lost() {
    let base = three();
    let Planned { plan, record } = plan(&base, &[replace("n3", "n4")]).unwrap();
    assert_eq!((plan.slots_moved, plan.slots_minimum), (16, 16));
    assert!(record.is_lost(NodeId::of_name("n3"), store("n3")));
    assert!(record.topology.ring().member_by_name("n3").is_none());
    assert!(plan.warnings.iter().any(|warning| warning.starts_with("n3 is declared lost")), "{:?}", plan.warnings);
}

#[test]
fn a_bucket_moves_nothing_and_its_number_is_never_used_again() {
    let base = three();
    let created = plan(&base, &[Change::CreateBucket(bucket("carts", 2))]).unwrap();
    assert_eq!((created.plan.slots_moved, created.plan.slots_minimum), (0, 0));
    let topology = &created.record.topology;
    let carts = topology.bucket_named("carts").unwrap().id;
    assert_eq!(topology.ring().classes().collect::<Vec<_>>(), [2, 3]);

    let dropped = plan(&created.record, &[Change::DropBucket { name: "carts".to_owned() }]).unwrap().record;
    assert_eq!(dropped.dropped, [carts]);
    assert_eq!(dropped.topology.ring().classes().collect::<Vec<_>>(), [3], "nobody uses n = 2 any more");
    let again = plan(&dropped, &[Change::CreateBucket(bucket("carts", 2))]).unwrap().record;
    assert_ne!(again.topology.bucket_named("carts").unwrap().id, carts);
}

#[test]
fn a_bucket_that_is_set_keeps_its_slots_and_its_number() {
    let base = three();
    let set = BucketDefinition { sloppy: false, id: BucketId(99), ..bucket("default", 3) };
    let record = plan(&base, &[Change::SetBucket(set)]).unwrap().record;
    assert!(!record.topology.bucket(BucketId::DEFAULT).unwrap().sloppy);
    assert!(RingDiff::between(base.topology.ring(), record.topology.ring()).is_empty());
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let base = three();
    let lww = BucketDefinition { conflict: Conflict::Lww, ..bucket("default", 3) };
    let fewer = BucketDefinition { quorum: Quorum::new(3, 1, 3).unwrap(), ..bucket("default", 3) };
    let cases = [
        (join("n3"), "n3 is a member already"),
        (join("n9"), "n9 has not called: start it with a cluster.toml"),
        (Change::Join { name: "n4".to_owned(), zone: None, weight: Some(0) }, "a weight is 1 or more"),
        (Change::Set { name: "n3".to_owned(), zone: Some(String::new()), weight: None }, "\"\" is no zone"),
        (Change::Set { name: "n3".to_owned(), zone: Some("a\nb".to_owned()), weight: None }, "\"a\\nb\" is no zone"),
        (Change::Set { name: "n3".to_owned(), zone: None, weight: Some(1_000_001) }, "a weight is 1000000 at most"),
        (leave("n9", false), "n9 is no member"),
        (leave("n3", false), "n = 3 needs 3 members: there would be 2 (bucket default)"),
        (replace("n9", "n4"), "n9 is no member"),
        (Change::CreateBucket(bucket("wide", 4)), "n = 4 needs 4 members"),
        (Change::CreateBucket(bucket("default", 3)), "there is a bucket default already"),
        (Change::SetBucket(bucket("carts", 3)), "there is no bucket carts"),
        (Change::SetBucket(bucket("default", 2)), "n of the bucket default is 3 and never changes"),
        (Change::SetBucket(fewer), "r of the bucket default is 2 and is never lowered"),
        (Change::SetBucket(lww), "what becomes of concurrent writes in the bucket default never changes"),
        (Change::DropBucket { name: "default".to_owned() }, "the bucket \"default\" is built in"),
    ];
    for (change, expected) in cases {
        let refused = plan(&base, std::slice::from_ref(&change)).unwrap_err();
        assert!(refused.starts_with(expected), "{change}: {refused}");
    }
    let refused = plan(&base, &[replace("n3", "n4"), join("n5")]).unwrap_err();
    assert!(refused.starts_with("a replacement goes by itself"), "{refused}");
}

#[test]
fn a_lost_store_never_comes_back() {
    let lost = plan(&three(), &[replace("n3", "n4")]).unwrap().record;
    let called = [candidate("n3")];
    let basis = Basis {
        record: &lost,
        digest: lost.digest(),
        candidates: called.iter().collect(),
        leaving: Vec::new(),
        unfinished: vec![2],
        slot_bytes: 0,
    };
    let refused = basis.plan(&[join("n3")], "n1").unwrap_err();
    assert!(refused.starts_with("the data of n3 was declared lost"), "{refused}");
}

#[test]
fn versions_are_listed_as_people_would() {
    assert_eq!(are_unfinished(&[7]), "version 7 is");
    assert_eq!(are_unfinished(&[7, 8]), "versions 7 and 8 are");
    assert_eq!(are_unfinished(&[6, 7, 8]), "versions 6, 7 and 8 are");
}
