//! Partitions that are doubled under requests: the same owners, other numbers, and nothing that goes by the old ones.

use driftless_antientropy::Held;
use driftless_proto::client::Scan;
use driftless_proto::{ActorId, Dot};
use driftless_ring::{ArcIndex, PartitionId};

use super::*;

const THREE: [usize; 3] = [0, 1, 2];

impl Changing {
    /// The next version has twice as many partitions. Nobody has heard of it yet.
    fn decide_to_double(&mut self) {
        let before = self.records.last().expect("there is one").clone();
        let ring = before.topology.ring().doubled().expect("there may be more");
        let topology = before.topology.with_ring(ring).expect("fits");
        self.records.push(record_of(&topology, before.digest(), &[]));
    }

    fn topology(&self) -> &Topology {
        &self.records.last().expect("there is one").topology
    }

    fn partition_of(&self, number: usize) -> PartitionId {
        let bucket = self.topology().bucket(STRICT).expect("exists");
        self.topology().place(bucket, &key_of(number)).partition
    }

    /// Where the trees of a node say that its keys are.
    fn counted(&self, i: usize) -> BTreeMap<PartitionId, u64> {
        let replica = &self.quad.engines[i].replica;
        let count = |partition| match replica.tree(partition) {
            Held::Tree(tree) => tree.sum().count,
            Held::Rebuilding | Held::Nothing => panic!("there is a tree of {partition}"),
        };
        let all = replica.partitions().map(|partition| (partition, count(partition)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// The dots of what a node holds of a key.
    fn dots(&self, i: usize, number: usize) -> Vec<Dot> {
        let place = self.topology().place(self.topology().bucket(STRICT).expect("exists"), &key_of(number));
        let record = RecordKey::new(place.partition.n, place.token, STRICT, &key_of(number));
        let held = self.quad.engines[i].store().get(record.as_bytes()).expect("readable").expect("is held");
        record::decode(held).expect("well formed").live().iter().map(|(dot, _)| *dot).collect()
    }
}

#[test]
fn partitions_are_doubled_while_keys_are_written_and_read() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.decide_to_double();
    // They hear of it one after another, and clients ask whichever node they like.
    for i in THREE {
        changing.switch(i);
        changing.quad.settle();
        for node in THREE {
            let number = KEYS + 3 * i + node;
            let request = changing.quad.ask(node, put_number(STRICT, number));
            changing.quad.settle();
            assert!(changing.quad.reply(request).is_none_or(|reply| matches!(reply, Response::Stored(_))), "{request}");
        }
    }
    let written = KEYS + 9;
    assert!((0..written).all(|number| changing.read(number % 3, number) == 1));

    changing.finish(&THREE);
    changing.wait();
    assert_eq!(changing.topology().ring().partitions().get(), 16);
    let mut expected = BTreeMap::new();
    (0..written).for_each(|number| *expected.entry(changing.partition_of(number)).or_insert(0) += 1);
    for i in THREE {
        assert_eq!(changing.counted(i), expected, "node {i}");
        let figures = changing.quad.engines[i].aae(changing.quad.now.instant);
        let unequal: Vec<_> = figures.partitions.iter().filter(|line| line.unequal).collect();
        assert!(unequal.is_empty(), "{unequal:?}");
    }
    for number in 0..written {
        assert_eq!(changing.holders(number), THREE, "key {number}");
        assert_eq!(changing.read(number % 3, number), 1, "key {number}");
    }
}

/// An actor that went on would be that of two partitions, or of another one: counters would have gaps, and a vector would claim what is not.
#[test]
fn no_actor_goes_on_once_partitions_are_doubled() {
    let mut changing = Changing::with_planted(3, brisk(), Planted::default());
    (0..KEYS).for_each(|number| changing.put(0, number));
    let actors = |changing: &Changing, numbers: std::ops::Range<usize>| {
        let dots = numbers.flat_map(|number| changing.dots(0, number).into_iter().map(move |dot| (number, dot)));
        let mut of: BTreeMap<ActorId, Vec<(usize, Dot)>> = BTreeMap::new();
        dots.for_each(|(number, dot)| of.entry(dot.actor).or_default().push((number, dot)));
        of
    };
    let before = actors(&changing, 0..KEYS);
    changing.decide_to_double();
    THREE.into_iter().for_each(|i| changing.switch(i));
    (KEYS..2 * KEYS).for_each(|number| changing.put(0, number));
    let after = actors(&changing, KEYS..2 * KEYS);
    assert!(before.keys().all(|actor| !after.contains_key(actor)));
    for (actor, dots) in after {
        let partitions: Vec<_> = dots.iter().map(|(number, _)| changing.partition_of(*number)).collect();
        assert!(partitions.windows(2).all(|pair| pair[0] == pair[1]), "{actor:?} has stamped in {partitions:?}");
        let mut counters: Vec<u64> = dots.iter().map(|(_, dot)| dot.counter).collect();
        counters.sort_unstable();
        assert!(counters.iter().copied().eq(1..=dots.len() as u64), "{actor:?}: {counters:?}");
    }
}

/// Arc 5 of 8 is not arc 5 of 16: a page of the wrong one would leave out keys without a word.
#[test]
fn a_scan_by_another_version_is_refused_whether_it_is_older_or_newer() {
    scan_by_other_versions(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_scan_that_is_answered_by_whatever_version_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::ScanByAnyVersion, scan_by_other_versions);
}

fn scan_by_other_versions(planted: Planted) {
    let mut changing = Changing::with_planted(3, brisk(), planted);
    let scan = |ring_version| {
        let arc = ArcIndex(5);
        Ask::Scan(Scan { bucket: STRICT, arc, after: None, limit: 9, r: None, prefix: Bytes::new(), ring_version })
    };
    let said = |changing: &mut Changing, ring_version| {
        let request = changing.quad.ask(0, scan(ring_version));
        changing.quad.settle();
        changing.quad.reply(request).cloned().expect("is answered")
    };
    assert!(matches!(said(&mut changing, 2), Response::Page(_)));
    let stale = |theirs, ours| Response::Failed(Refusal::StaleRing { theirs, ours }.into());
    assert_eq!(said(&mut changing, 3), stale(3, 2));
    changing.decide_to_double();
    THREE.into_iter().for_each(|i| changing.switch(i));
    assert_eq!(said(&mut changing, 2), stale(2, 3));
    assert!(matches!(said(&mut changing, 3), Response::Page(_)));
}

/// A scan that is under way when the version comes begins again, and is refused: its arc was one of the old ones.
#[test]
fn a_scan_that_is_under_way_when_partitions_are_doubled_is_refused() {
    let mut changing = Changing::of(3, brisk());
    let arc = ArcIndex(5);
    let scan = Scan { bucket: STRICT, arc, after: None, limit: 9, r: Some(3), prefix: Bytes::new(), ring_version: 2 };
    let request = changing.quad.ask(0, Ask::Scan(scan));
    assert_eq!(changing.quad.reply(request), None, "others are asked");
    changing.decide_to_double();
    changing.switch(0);
    let refused = Response::Failed(Refusal::StaleRing { theirs: 2, ours: 3 }.into());
    assert_eq!(changing.quad.reply(request), Some(&refused));
}

#[test]
fn what_was_compared_with_a_peer_was_so_in_each_half() {
    let mut changing = Changing::of(3, brisk());
    (0..KEYS).for_each(|number| changing.put(number % 3, number));
    changing.wait();
    let never = |changing: &Changing| {
        let figures = changing.quad.engines[0].aae(changing.quad.now.instant);
        (figures.partitions.len(), figures.partitions.iter().filter(|line| line.last_full_round.is_none()).count())
    };
    assert_eq!(never(&changing), (2 * 8, 0));
    changing.decide_to_double();
    THREE.into_iter().for_each(|i| changing.switch(i));
    assert_eq!(never(&changing), (2 * 16, 0));
}
