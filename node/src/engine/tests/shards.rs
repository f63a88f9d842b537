//! Several shards over one store: each takes the keys of its own partitions, and knows nothing of the others'.

use std::collections::BTreeMap;

use driftless_proto::client;
use driftless_proto::membership::{Record, StoreId};
use driftless_proto::topology::Topology;
use driftless_proto::{BucketDefinition, BucketName};

use super::*;
use crate::configurations::Configurations;
use crate::handoff::HintFigures;
use crate::peer::{Message, RequestId};

/// Engines of which some share a disk.
type Sharded = EngineCluster<SharedStore>;

const SHARDS: u16 = 2;

impl Sharded {
    /// Three nodes of two shards each.
    fn of_shards(limits: Limits) -> Sharded {
        let stores: Vec<SharedStore> = (0..3).map(|_| SharedStore::default()).collect();
        let topology = members(3).shards(SHARDS).shared();
        Sharded::launch(topology, without_rounds(limits), Planted::default(), |node| stores[node].clone())
    }

    /// A key for each shard of a node, in order.
    fn key_of_each(&self, i: usize) -> Vec<Key> {
        let names = || (0..).map(|number| Key::new(format!("key {number}")).expect("valid"));
        let shard = |key: &Key| self.topology.shard_of(self.id(i), self.place(key).partition);
        (0..SHARDS).map(|wanted| names().find(|key| shard(key) == wanted).expect("keys lie everywhere")).collect()
    }

    fn place(&self, key: &Key) -> driftless_proto::topology::Place {
        self.topology.place(self.topology.bucket(SIBLINGS).expect("exists"), key)
    }

    fn record_of(&self, key: &Key) -> RecordKey {
        let place = self.place(key);
        RecordKey::new(place.partition.n, place.token, SIBLINGS, key)
    }

    /// What is on the disk of the node that an engine belongs to.
    fn is_durable(&self, i: usize, key: &Key) -> bool {
        let store = self.engines[i].store().0.borrow();
        store.durable_view().durable_get(self.record_of(key).as_bytes()).is_some()
    }

    /// What the node's disk holds of a key.
    fn held(&self, i: usize, key: &Key) -> Option<Bytes> {
        self.engines[i].store().get(self.record_of(key).as_bytes()).expect("readable")
    }

    /// What has been answered and is still on its way.
    fn answers(&self) -> Vec<(RequestId, Reply)> {
        let answer = |message: &Message| match &message.body {
            Body::Reply(reply) => Some((message.id, reply.clone())),
            Body::Request { .. } => None,
        };
        self.wire.iter().filter_map(|(.., message)| answer(message)).collect()
    }

    /// The shards of the first node set apart so many records.
    fn damaged(&self) -> [Vec<Vec<u8>>; 2] {
        [0, 1].map(|i| self.engines[i].damaged().map(<[u8]>::to_vec).collect())
    }
}

fn put_key(key: &Key, w: u8) -> Ask {
    Ask::Put(Put {
        bucket: SIBLINGS,
        key: key.clone(),
        value: Bytes::copy_from_slice(key.as_bytes()),
        context: None,
        w: Some(w),
        sloppy: None,
        write_id: WriteId(xxhash_rust::xxh3::xxh3_128(key.as_bytes())),
    })
}

#[test]
fn two_shards_of_a_node_take_keys_of_their_own_partitions_at_once() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let keys = cluster.key_of_each(0);
    let asked = [0, 1].map(|shard| {
        assert_eq!(cluster.engine_for(cluster.id(0), &put_key(&keys[shard], 1)), shard);
        cluster.hand_in(shard, put_key(&keys[shard], 1))
    });
    [0, 1].into_iter().for_each(|shard| cluster.turn(shard));
    assert!(keys.iter().all(|key| cluster.held(0, key).is_some() && !cluster.is_durable(0, key)));
    assert_eq!(cluster.replies, [], "nothing is synced");

    // The first batch is the first shard's: a sync that covers it says nothing of the second's.
    cluster.sync(0);
    assert_eq!([0, 1].map(|shard| cluster.is_durable(0, &keys[shard])), [true, false]);
    assert_eq!([0, 1].map(|shard| cluster.reply(asked[shard]).is_some()), [true, false]);
    cluster.sync(1);
    assert!(cluster.is_durable(0, &keys[1]) && cluster.reply(asked[1]).is_some());

    cluster.settle();
    for key in &keys {
        let copies: Vec<_> = [0, 2, 4].map(|first| cluster.held(first, key)).into();
        assert!(copies[0].is_some() && copies.windows(2).all(|pair| pair[0] == pair[1]), "all nodes hold the same");
    }
    assert!(cluster.engines.iter().all(|engine| engine.shard.metrics.protocol_violations.get() == 0));
}

#[test]
fn hints_of_both_shards_are_counted_and_delivered() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let (keys, away) = (cluster.key_of_each(0), 2);
    let target = cluster.id(away);
    cluster.cut_off(away);
    for (shard, key) in keys.iter().enumerate() {
        let request = cluster.ask(shard, put_key(key, 2));
        cluster.settle();
        cluster.stored(request);
    }
    let delay = cluster.limits.handoff_delay;
    cluster.pass(delay);
    let held = |cluster: &Sharded| {
        let of_shards =
            cluster.engines[..usize::from(SHARDS)].iter().flat_map(|engine| engine.hints(cluster.now.instant));
        HintFigures::by_target(of_shards).get(&target).map(|held| held.keys)
    };
    assert_eq!(held(&cluster), Some(2), "one of each shard, counted together");
    assert!(keys.iter().all(|key| cluster.held(away, key).is_none()));

    (0..cluster.engines.len()).for_each(|i| cluster.connect(i));
    for _ in 0..STEPS {
        cluster.pass(delay);
        cluster.settle();
    }
    assert_eq!(held(&cluster), Some(0));
    assert_eq!(cluster.engines[0].shard.metrics.hints_delivered.get(), 2);
    assert!(keys.iter().all(|key| cluster.held(away, key).is_some_and(|held| Some(held) == cluster.held(0, key))));
}

#[test]
fn a_damaged_record_of_one_shard_is_not_set_apart_by_the_other() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let keys = cluster.key_of_each(0);
    for (shard, key) in keys.iter().enumerate() {
        let request = cluster.ask(shard, put_key(key, 3));
        cluster.settle();
        cluster.stored(request);
    }
    let (record, sound) = (cluster.record_of(&keys[0]), cluster.held(0, &keys[0]));
    let store = cluster.engines[0].store().clone();
    let flip = |bytes: &Bytes| {
        let mut other = bytes.to_vec();
        *other.last_mut().expect("is not empty") ^= 1;
        other.into()
    };
    assert!(store.0.borrow_mut().damage(record.as_bytes(), flip), "it is there, and synced");
    // Both walk over the whole store when they start.
    for shard in [0, 1] {
        cluster.restart(shard, 77, store.clone());
    }
    let asked = [0, 1].map(|shard| {
        let key = keys[shard].clone();
        let get = Get { bucket: SIBLINGS, key, r: Some(1), sloppy: None, explain: false, shown: Vec::new() };
        cluster.ask(shard, Ask::Get(get))
    });
    assert_eq!(cluster.damaged(), [vec![record.as_bytes().to_vec()], vec![]]);
    assert!(matches!(cluster.reply(asked[1]), Some(Response::Read(_))), "the other's key is served at once");

    cluster.settle();
    assert_eq!(cluster.damaged(), [Vec::<Vec<u8>>::new(), vec![]]);
    assert_eq!(cluster.held(0, &keys[0]), sound, "restored from the other nodes");
    assert_eq!(cluster.engines[1].shard.metrics.records_damaged.get(), 0);
}

/// A merge that is handed to a shard which does not own the key, and what is answered.
fn hand_to_the_wrong_shard() -> (Sharded, Key) {
    let mut cluster = Sharded::of_shards(Limits::default());
    let key = cluster.key_of_each(0).remove(1);
    let merge = Merge {
        bucket: SIBLINGS,
        key: key.clone(),
        siblings: Siblings::new(),
        hint_for: None,
        purpose: crate::peer::Purpose::AntiEntropy,
    };
    cluster.tell(2, 0, 4, Request::Replica(ReplicaRequest::Merge(merge)));
    (cluster, key)
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a shard was given a key of another one")]
fn a_key_handed_to_the_wrong_shard_stops_a_debug_build() {
    hand_to_the_wrong_shard();
}

#[test]
#[cfg(not(debug_assertions))]
fn a_key_handed_to_the_wrong_shard_is_refused() {
    let (cluster, key) = hand_to_the_wrong_shard();
    let answer = cluster.wire.back().map(|(.., message)| message.body.clone());
    assert_eq!(answer, Some(Body::Reply(Reply::Refused(Refusal::NotOwner { ring_version: 1 }))));
    assert_eq!(cluster.engines[0].shard.metrics.protocol_violations.get(), 1);
    assert!(cluster.held(0, &key).is_none());
}

#[test]
fn what_came_early_and_is_of_another_shard_is_sent_back_to_be_asked_again() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let (node, bucket) = (cluster.id(0), BucketId(77));
    let (next, configurations) = with_bucket(&cluster, bucket);
    let definition = next.bucket(bucket).expect("was made").clone();
    let is_of = |shard: u16| {
        let (next, definition) = (&next, &definition);
        move |key: &Key| next.shard_of(node, next.place(definition, key).partition) == shard
    };
    for (id, shard) in [(8, 1), (9, 0)] {
        let key = (0..).map(|number| Key::new(format!("late {number}")).expect("valid")).find(is_of(shard));
        let merge = Merge {
            bucket,
            key: key.expect("keys lie everywhere"),
            siblings: Siblings::new(),
            hint_for: None,
            purpose: crate::peer::Purpose::AntiEntropy,
        };
        let request = Request::Replica(ReplicaRequest::Merge(merge));
        let body = Body::Request { deadline: cluster.now.instant + Duration::from_secs(5), request };
        cluster.hand_over(2, 0, Message { id: RequestId(id), ring_version: 2, body });
    }
    assert_eq!(cluster.answers(), [], "both wait: nobody knows the bucket yet, and so not whose it is");

    cluster.engines[0].handle_configurations(cluster.now, configurations);
    cluster.turn(0);
    let answers = cluster.answers();
    assert!(
        matches!(answers[..], [(RequestId(8), Reply::Refused(Refusal::Overloaded { .. })), (RequestId(9), _)]),
        "{answers:?}"
    );
    assert!(!matches!(answers[1].1, Reply::Refused(_)), "{answers:?}");
    assert_eq!(cluster.engines[0].shard.metrics.protocol_violations.get(), 0);
}

/// Two shards that wrote one record would each know of its own writes, and not of the other's.
#[test]
fn every_key_stays_with_its_shard_when_partitions_are_doubled() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let keys: Vec<Key> = (0..64).map(|number| Key::new(format!("key {number}")).expect("valid")).collect();
    let mut asked = Vec::new();
    let mut write = |cluster: &mut Sharded, key: &Key, topology: &Topology, value: &'static str| {
        let (node, partition) =
            (cluster.id(0), topology.place(topology.bucket(SIBLINGS).expect("exists"), key).partition);
        let Ask::Put(put) = put_key(key, 3) else { unreachable!("it is one") };
        let name = WriteId(xxhash_rust::xxh3::xxh3_128(format!("{value} {key:?}").as_bytes()));
        let put = Put { value: Bytes::from_static(value.as_bytes()), write_id: name, ..put };
        asked.push(cluster.ask(usize::from(topology.shard_of(node, partition)), Ask::Put(put)));
        cluster.settle();
    };
    let first = Topology::clone(&cluster.topology);
    keys.iter().for_each(|key| write(&mut cluster, key, &first, "one"));
    let (next, configurations) =
        next_version(&cluster, first.ring().doubled().expect("fits"), first.buckets().to_vec());
    for i in 0..cluster.engines.len() {
        cluster.engines[i].handle_configurations(cluster.now, configurations.clone());
        cluster.turn(i);
    }
    keys.iter().for_each(|key| write(&mut cluster, key, &next, "two"));
    asked.into_iter().for_each(|request| drop(cluster.stored(request)));
    for key in &keys {
        let held = cluster.held(0, key).expect("is held");
        let values = record::decode(held).expect("well formed").live().len();
        assert_eq!(values, 2, "neither write knew of the other, and both are there: {key:?}");
    }
    assert!(cluster.engines.iter().all(|engine| engine.shard.metrics.protocol_violations.get() == 0));
}

/// A shell of several shards goes by the newest version a little before or after each of them.
#[test]
fn what_was_routed_by_the_arcs_of_another_version_is_sent_back_to_be_asked_again() {
    let mut cluster = Sharded::of_shards(Limits::default());
    let first = Topology::clone(&cluster.topology);
    let (next, configurations) =
        next_version(&cluster, first.ring().doubled().expect("fits"), first.buckets().to_vec());
    for i in 0..cluster.engines.len() {
        cluster.engines[i].handle_configurations(cluster.now, configurations.clone());
        cluster.turn(i);
    }
    let node = cluster.id(0);
    let arc = next.ring().partitions().arcs().find(|arc| next.shard_of(node, PartitionId { n: 3, arc: *arc }) == 1);
    let arc = arc.expect("each shard has some");
    let scan = client::Scan {
        bucket: SIBLINGS,
        arc,
        after: None,
        limit: 9,
        r: None,
        prefix: Bytes::new(),
        ring_version: next.ring().version().0,
    };
    let request = cluster.ask(0, Ask::Scan(scan));
    let said = cluster.reply(request).cloned();
    assert!(matches!(said, Some(Response::Failed(Failure::Refused(Refusal::Overloaded { .. })))), "{said:?}");

    let scan = crate::peer::Scan { bucket: SIBLINGS, arc, after: None, limit: 9, counted_for: 2 };
    let body = Body::Request {
        deadline: cluster.now.instant + Duration::from_secs(5),
        request: Request::Replica(ReplicaRequest::Scan(scan)),
    };
    cluster.hand_over(2, 0, Message { id: RequestId(8), ring_version: 2, body });
    let answers = cluster.answers();
    assert!(matches!(answers[..], [(RequestId(8), Reply::Refused(Refusal::Overloaded { .. }))]), "{answers:?}");
    assert_eq!(cluster.engines[0].shard.metrics.protocol_violations.get(), 0);
}

/// The next version has one bucket more.
fn with_bucket(cluster: &Sharded, id: BucketId) -> (Topology, Arc<Configurations>) {
    let first = &cluster.topology;
    let mut buckets = first.buckets().to_vec();
    buckets.push(BucketDefinition { id, name: BucketName::new("late").expect("valid"), ..buckets[0].clone() });
    next_version(cluster, first.ring().next(first.ring().spec()).expect("is the same"), buckets)
}

fn next_version(
    cluster: &Sharded,
    ring: driftless_ring::Ring,
    buckets: Vec<BucketDefinition>,
) -> (Topology, Arc<Configurations>) {
    let first = &cluster.topology;
    let second = Topology::new("test", ring, buckets).expect("fits");
    let store = StoreId(1);
    let record = |topology: &Topology, parent| {
        let voters: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
        let stores = voters.iter().map(|node| (*node, store)).collect();
        let (by, what) = ("a".into(), "test".into());
        Record::new(7, parent, topology.clone(), stores, voters, vec![], vec![], by, what).expect("goes together")
    };
    let first = Arc::new(record(first, 0));
    let second = Arc::new(record(&second, first.digest()));
    let topology = second.topology.clone();
    let node = cluster.id(0);
    let configurations = Configurations::of_records(node, store, &[first, second], None, &BTreeMap::new());
    (topology, Arc::new(configurations))
}

/// A page of hints, its delivery and the figures each take a turn.
const STEPS: usize = 10;
