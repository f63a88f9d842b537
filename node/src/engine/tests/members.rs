//! Members that come and go while requests are under way: versions of the ring side by side, passes, and what is dropped in the end.

use std::collections::BTreeMap;

use driftless_proto::membership::{Record, StoreId};
use driftless_proto::topology::Topology;

use super::*;
use crate::configurations::{Configurations, Marks, Ready};

mod doubling;

/// Five engines, of which not all are members at first, and what all of them have agreed on.
struct Changing {
    quad: Trio,
    /// Versions that are not done with, the newest last.
    records: Vec<Arc<Record>>,
    marks: BTreeMap<NodeId, Marks>,
}

impl Changing {
    /// So many are members; the others only run.
    fn of(count: usize, limits: Limits) -> Changing {
        Changing::with_planted(count, limits, Planted::default())
    }

    fn with_planted(count: usize, limits: Limits, planted: Planted) -> Changing {
        let everybody = members(5).partitions(8).shared();
        let first = ring_of(&(0..count).collect::<Vec<_>>());
        let record = record_of(&first, 0, &[]);
        let mut changing =
            Changing { quad: Trio::of(5, limits.clone()), records: vec![record], marks: BTreeMap::new() };
        changing.quad = Trio::launch(everybody, limits, planted, |_| MemoryStore::new());
        for i in 0..5 {
            changing.note(i, 2, 2, 2);
            changing.switch(i);
        }
        changing.quad.settle();
        changing
    }

    fn note(&mut self, i: usize, ready: u64, closed: u64, left: u64) {
        let node = self.quad.id(i);
        let told = Marks { store: Some(store_of(node)), ready: Ready::of(ready), closed, left };
        self.marks.entry(node).or_default().take_in(told, Some(store_of(node)));
    }

    fn configurations(&self, i: usize) -> Arc<Configurations> {
        self.configurations_of(i, store_of(self.quad.id(i)))
    }

    fn configurations_of(&self, i: usize, store: StoreId) -> Arc<Configurations> {
        Arc::new(Configurations::of_records(self.quad.id(i), store, &self.records, None, &self.marks))
    }

    fn switch(&mut self, i: usize) {
        let configurations = self.configurations(i);
        self.quad.engines[i].handle_configurations(self.quad.now, configurations);
        self.quad.turn(i);
    }

    /// The next version is decided: these are members. Nobody has heard of it yet.
    fn decide(&mut self, nodes: &[usize], lost: &[usize]) {
        let before = self.records.last().expect("there is one").clone();
        let mut spec = before.topology.ring().spec();
        let all = members(5).shared();
        spec.members = nodes.iter().map(|i| all.ring().members()[*i].clone()).collect();
        let ring = before.topology.ring().next(spec).expect("enough members");
        let topology = before.topology.with_ring(ring).expect("fits");
        let lost: Vec<NodeId> = lost.iter().map(|i| self.quad.id(*i)).collect();
        self.records.push(record_of(&topology, before.digest(), &lost));
    }

    /// Everybody says how far it is, and hears how far the others are, until nothing is left to be done.
    fn finish(&mut self, run: &[usize]) {
        for _ in 0..60 {
            for &i in run {
                self.switch(i);
            }
            self.quad.settle();
            self.quad.pass(Duration::from_millis(700));
            self.quad.settle();
            for &i in run {
                let progress = self.quad.engines[i].progress();
                self.quad.turn(i);
                self.note(i, progress.ready, progress.closed, progress.left);
            }
            self.quad.settle();
            if self.configurations(run[0]).is_settled() {
                break;
            }
        }
        assert!(self.configurations(run[0]).is_settled(), "the change comes to its end: {:?}", self.marks);
        let newest = self.records.pop().expect("there is one");
        self.records = vec![newest];
        for &i in run {
            self.switch(i);
        }
        (0..40).for_each(|_| self.quad.pass(Duration::from_millis(50)));
        self.quad.settle();
    }

    /// Long enough for many rounds.
    fn wait(&mut self) {
        for _ in 0..40 {
            self.quad.pass(Duration::from_millis(700));
            self.quad.settle();
        }
    }

    fn put(&mut self, i: usize, number: usize) {
        let request = self.quad.ask(i, put_number(STRICT, number));
        self.quad.settle();
        self.quad.stored(request);
    }

    fn read(&mut self, i: usize, number: usize) -> usize {
        let ask = Ask::Get(Get {
            bucket: STRICT,
            key: key_of(number),
            r: None,
            sloppy: None,
            explain: false,
            shown: Vec::new(),
        });
        let request = self.quad.ask(i, ask);
        self.quad.settle();
        match self.quad.reply(request) {
            Some(Response::Read(read)) => read.siblings.len(),
            other => panic!("expected Read, got {other:?}"),
        }
    }

    /// Which engines hold a record of this key.
    fn holders(&self, number: usize) -> Vec<usize> {
        let topology = &self.records.last().expect("there is one").topology;
        let bucket = topology.bucket(STRICT).expect("exists");
        let place = topology.place(bucket, &key_of(number));
        let record = RecordKey::new(place.partition.n, place.token, STRICT, &key_of(number));
        let holds = |i: &usize| self.quad.engines[*i].store().get(record.as_bytes()).expect("readable").is_some();
        (0..5).filter(holds).collect()
    }

    fn owners(&self, number: usize) -> Vec<usize> {
        let topology = &self.records.last().expect("there is one").topology;
        let bucket = topology.bucket(STRICT).expect("exists");
        let owners = topology.ring().owners(topology.place(bucket, &key_of(number)).partition);
        let mut owners: Vec<usize> = owners.iter().map(|node| self.quad.index(*node)).collect();
        owners.sort_unstable();
        owners
    }
}

fn store_of(node: NodeId) -> StoreId {
    StoreId(node.0.into())
}

/// Version 2, with these members of the five.
fn ring_of(nodes: &[usize]) -> Topology {
    let all = members(5).partitions(8).shared();
    let mut spec = all.ring().spec();
    spec.members = nodes.iter().map(|i| all.ring().members()[*i].clone()).collect();
    let first = driftless_ring::Ring::first(spec.clone()).expect("enough members");
    all.with_ring(first.next(spec).expect("the same")).expect("fits")
}

fn record_of(topology: &Topology, parent: u128, lost: &[NodeId]) -> Arc<Record> {
    let nodes: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
    let stores = nodes.iter().map(|node| (*node, store_of(*node))).collect();
    let lost = lost.iter().map(|node| (*node, store_of(*node))).collect();
    let voters = nodes.into_iter().take(3).collect();
    let record = Record::new(7, parent, topology.clone(), stores, voters, lost, Vec::new(), "a".into(), "test".into());
    Arc::new(record.expect("its parts go together"))
}

fn key_of(number: usize) -> Key {
    Key::new(format!("key {number}")).expect("valid")
}

fn put_number(bucket: BucketId, number: usize) -> Ask {
    let write_id = WriteId(xxhash_rust::xxh3::xxh3_128(&number.to_be_bytes()));
    let value = Bytes::from(format!("value {number}"));
    Ask::Put(Put { bucket, key: key_of(number), value, context: None, w: None, sloppy: None, write_id })
}

/// Rounds come soon.
fn brisk() -> Limits {
    let mut limits = Limits::default();
    limits.aae.interval = Duration::from_secs(3);
    limits
}

const KEYS: usize = 60;

#[test]
fn a_node_that_joins_takes_in_what_it_owns_and_the_others_drop_what_they_do_not() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.decide(&[0, 1, 2, 3], &[]);
    changing.finish(&[0, 1, 2, 3]);
    for number in 0..KEYS {
        assert_eq!(changing.holders(number), changing.owners(number), "key {number}");
        assert_eq!(changing.read(number % 4, number), 1, "key {number}");
    }
    assert!((0..KEYS).any(|number| changing.owners(number).contains(&3)));
}

#[test]
fn what_is_written_while_a_node_joins_is_read_then_and_afterwards() {
    let mut changing = Changing::of(3, brisk());
    changing.decide(&[0, 1, 2, 3], &[]);
    // They hear of it one after another, and clients ask whichever node they like.
    for i in [3, 0, 2, 1] {
        (0..10).for_each(|number| {
            let request = changing.quad.ask(number % 3, put_number(STRICT, 100 * i + number));
            changing.quad.settle();
            assert!(changing.quad.reply(request).is_none_or(|reply| matches!(reply, Response::Stored(_))), "{request}");
        });
        changing.switch(i);
        changing.quad.settle();
    }
    for i in 0..4 {
        for number in 0..10 {
            assert_eq!(changing.read((i + number) % 4, 100 * i + number), 1, "key {number} of n{i}");
        }
    }
    changing.finish(&[0, 1, 2, 3]);
    for i in 0..4 {
        for number in 0..10 {
            let number = 100 * i + number;
            assert_eq!(changing.read(number % 4, number), 1);
            assert_eq!(changing.holders(number), changing.owners(number), "key {number}");
        }
    }
}

#[test]
fn a_strict_write_needs_a_quorum_of_the_old_owners_and_of_the_new_ones() {
    write_without_most_new_owners(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn one_quorum_of_all_owners_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::OneQuorumOfAll, write_without_most_new_owners);
}

fn write_without_most_new_owners(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    changing.decide(&[0, 3, 4], &[]);
    (0..5).for_each(|i| changing.switch(i));
    changing.quad.settle();
    changing.quad.cut_off(3);
    changing.quad.cut_off(4);
    let request = changing.quad.ask(0, put_number(STRICT, 1));
    changing.quad.settle();
    let failure = changing.quad.failure(request);
    assert!(matches!(failure, Failure::Refused(Refusal::NotEnoughReplicas { .. })), "{failure:?}");
}

#[test]
fn who_has_closed_answers_no_read_that_counts_the_old_owners() {
    read_without_having_heard(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn who_answers_though_it_has_closed_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::ClosedAnswers, read_without_having_heard);
}

fn read_without_having_heard(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    changing.put(0, 1);
    changing.decide(&[0, 1, 2, 3], &[]);
    (0..4).for_each(|i| changing.switch(i));
    changing.quad.settle();
    (0..4).for_each(|i| changing.note(i, 3, 0, 0));
    (1..4).for_each(|i| changing.switch(i));
    // The first one has not heard that all are ready, and counts the old owners.
    let owned_by_all = (0..KEYS).find(|number| changing.owners(*number) == [0, 1, 2]).expect("keys lie everywhere");
    let ask = Ask::Get(Get {
        bucket: STRICT,
        key: key_of(owned_by_all),
        r: None,
        sloppy: None,
        explain: false,
        shown: Vec::new(),
    });
    let request = changing.quad.ask(0, ask);
    changing.quad.settle();
    assert!(changing.quad.reply(request).is_none(), "it waits for news");
    changing.switch(0);
    changing.quad.settle();
    assert!(matches!(changing.quad.reply(request), Some(Response::Read(_))), "and begins again with them");
}

#[test]
fn a_node_leaves_and_hands_over_what_only_it_holds() {
    let mut changing = Changing::of(4, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 4, number));
    changing.decide(&[0, 1, 2], &[]);
    changing.finish(&[0, 1, 2, 3]);
    for number in 0..KEYS {
        assert_eq!(changing.holders(number), [0, 1, 2], "key {number}");
        assert_eq!(changing.read(number % 3, number), 1, "key {number}");
    }
}

/// A dump asks whether everything has been compared since a start: it would wait for a whole round more at each change.
#[test]
fn what_was_compared_is_not_forgotten_when_other_versions_come() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.wait();
    let never = |changing: &Changing| {
        let (engines, now) = (&changing.quad.engines[..3], changing.quad.now.instant);
        let figures = engines.iter().map(|engine| engine.aae(now).partitions);
        figures.map(|of| of.iter().filter(|partition| partition.last_full_round.is_none()).count()).collect::<Vec<_>>()
    };
    assert_eq!(never(&changing), [0, 0, 0]);
    changing.decide(&[0, 1, 2], &[]);
    (0..3).for_each(|i| changing.switch(i));
    assert_eq!(never(&changing), [0, 0, 0], "a version with the same owners");
    (0..3).for_each(|i| changing.note(i, 3, 3, 0));
    (0..3).for_each(|i| changing.switch(i));
    assert_eq!(never(&changing), [0, 0, 0], "the same version, further on");
}

#[test]
fn a_dead_node_is_replaced_and_nothing_is_waited_for_that_it_held() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.quad.cut_off(2);
    changing.decide(&[0, 1, 3], &[2]);
    changing.finish(&[0, 1, 3]);
    for number in 0..KEYS {
        let holders = changing.holders(number);
        assert!([0, 1, 3].iter().all(|i| holders.contains(i)), "key {number}: {holders:?}");
        assert_eq!(changing.read(3, number), 1, "key {number}");
    }
}

/// The disk of a node is lost, and an empty one is in its place.
#[test]
fn a_store_that_lost_its_data_answers_no_read_and_feeds_nobody_until_it_is_whole() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.quad.restart(1, 77, MemoryStore::new());
    let configurations = changing.configurations_of(1, StoreId(99));
    assert!(!configurations.is_whole());
    changing.quad.engines[1].handle_configurations(changing.quad.now, configurations);
    changing.quad.turn(1);
    changing.quad.settle();
    assert_eq!(changing.quad.engines[1].progress().ready, 0);
    let missing = (0..KEYS).find(|number| changing.holders(*number) == [0, 2]).expect("its disk is empty");
    assert_eq!(changing.read(1, missing), 1, "it asks the others, and does not count itself");
    for _ in 0..40 {
        changing.quad.pass(Duration::from_millis(700));
        changing.quad.settle();
    }
    assert_eq!(changing.quad.engines[1].progress().ready, 2, "{:?}", changing.quad.engines[1].progress());
    for number in 0..KEYS {
        assert_eq!(changing.holders(number), [0, 1, 2], "key {number}");
    }
}

#[test]
fn a_new_owner_is_not_ready_before_it_has_compared_with_enough_old_ones() {
    join_with_one_old_owner(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn one_pass_that_is_taken_for_enough_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::OnePassIsEnough, join_with_one_old_owner);
}

fn join_with_one_old_owner(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.decide(&[0, 1, 2, 3], &[]);
    changing.quad.cut_off(1);
    changing.quad.cut_off(2);
    [0, 3].into_iter().for_each(|i| changing.switch(i));
    changing.wait();
    let progress = changing.quad.engines[3].progress();
    assert_eq!((progress.ready, progress.moving.taken), (0, 0), "two of the three have whatever was acknowledged");
}

#[test]
fn a_store_that_lost_its_data_is_no_measure_for_who_joins() {
    join_beside_a_lost_store(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_lost_store_that_feeds_others_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::LostStoreFeeds, join_beside_a_lost_store);
}

fn join_beside_a_lost_store(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.decide(&[0, 1, 2, 3], &[]);
    changing.quad.restart(1, 77, MemoryStore::new());
    let configurations = changing.configurations_of(1, StoreId(99));
    changing.quad.engines[1].handle_configurations(changing.quad.now, configurations);
    changing.quad.turn(1);
    changing.quad.cut_off(2);
    [0, 3].into_iter().for_each(|i| changing.switch(i));
    changing.wait();
    assert_eq!(changing.quad.engines[3].progress().ready, 0, "one whole old owner of three is too few");
}

#[test]
fn a_write_that_goes_by_an_older_version_is_refused() {
    write_by_an_older_version(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_stale_write_that_is_taken_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::StaleWriteTaken, write_by_an_older_version);
}

/// Its coordinator counts owners that may not be owners any more.
fn write_by_an_older_version(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    changing.decide(&[0, 1, 2, 3], &[]);
    (1..4).for_each(|i| changing.switch(i));
    changing.quad.settle();
    let (bucket, key, siblings) = (STRICT, key_of(1), Siblings::new());
    let merge = Merge { bucket, key, siblings, hint_for: None, purpose: crate::peer::Purpose::Write };
    let request = Request::Replica(ReplicaRequest::Merge(merge));
    let body = Body::Request { deadline: changing.quad.now.instant + Duration::from_secs(5), request };
    changing.quad.hand_over(0, 1, Message { id: RequestId(5), ring_version: 2, body });
    let answer = changing.quad.wire.iter().find(|(.., message)| message.id == RequestId(5));
    let answer = answer.map(|(.., message)| message.body.clone());
    assert_eq!(answer, Some(Body::Reply(Reply::Refused(Refusal::StaleRing { theirs: 2, ours: 3 }))));
}

/// All that counts has closed up to the new version, so that the old owners hand over; one new owner cannot be reached.
#[test]
fn who_leaves_has_not_left_before_it_has_compared_with_every_owner_of_today() {
    let mut changing = Changing::of(4, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 4, number));
    changing.decide(&[0, 1, 2], &[]);
    changing.quad.cut_off(2);
    (0..3).for_each(|i| changing.note(i, 3, 3, 0));
    changing.note(3, 0, 3, 0);
    (0..4).for_each(|i| changing.switch(i));
    changing.wait();
    let progress = changing.quad.engines[3].progress();
    assert_eq!((progress.left, progress.moving.given), (0, 0), "of the three who own everything one is missing");
    assert!(progress.moving.giving > 0);
    (0..4).for_each(|i| changing.quad.connect(i));
    changing.wait();
    let progress = changing.quad.engines[3].progress();
    assert_eq!((progress.left, progress.moving.given), (3, progress.moving.giving));
}

/// What `transfers` shows.
#[test]
fn what_is_left_to_take_in_is_said_and_counted_anew_for_each_version() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.decide(&[0, 1, 2, 3], &[]);
    (0..4).for_each(|i| changing.switch(i));
    let look = |changing: &mut Changing| {
        let now = changing.quad.now.instant;
        changing.quad.engines[3].look_at_taking(now);
        changing.quad.engines[3].progress().moving
    };
    let mut most_left = 0;
    for _ in 0..40 {
        changing.quad.pass(Duration::from_millis(700));
        most_left = most_left.max(look(&mut changing).keys_left);
        changing.quad.settle();
    }
    let owned = (0..KEYS).filter(|number| changing.owners(*number).contains(&3)).count() as u64;
    let moving = look(&mut changing);
    assert!((1..=owned).contains(&most_left), "{most_left} of {owned}");
    assert_eq!((moving.taken, moving.keys, moving.keys_left), (moving.taking, owned, 0));
    changing.finish(&[0, 1, 2, 3]);
    changing.decide(&[0, 1, 2, 3], &[]);
    changing.switch(3);
    assert_eq!(look(&mut changing).keys, 0);
}

/// The disk of a node is lost, and it is the only owner of some keys by a file of long ago.
#[test]
fn who_goes_by_the_file_alone_coordinates_nothing() {
    let mut trio = Trio::new();
    let alone = Configurations::of_file(trio.topology.clone()).in_company_of(1);
    trio.engines[0].handle_configurations(trio.now, Arc::new(alone));
    trio.turn(0);
    let refusal = Failure::Refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 });
    for ask in [get(SIBLINGS, Some(1)), put(SIBLINGS, "v", None), delete(SIBLINGS, None)] {
        let request = trio.ask(0, ask);
        assert_eq!(trio.failure(request), refusal);
    }
    let others = Configurations::of_file(trio.topology.clone()).in_company_of(2);
    trio.engines[0].handle_configurations(trio.now, Arc::new(others));
    trio.put_and_settle(0, put(SIBLINGS, "v", None));
}
