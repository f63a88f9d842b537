//! A damaged record: not served, not counted, not stamped upon, and restored from the other replicas.

use super::*;

impl Trio {
    fn record(&self, bucket: BucketId) -> RecordKey {
        let definition = self.topology.bucket(bucket).expect("exists");
        let place = self.topology.place(definition, &key());
        RecordKey::new(place.partition.n, place.token, bucket, &key())
    }

    /// Flips a bit of the key's record, `from_end` bytes before its end, behind the node's back, and starts it again.
    fn damage(&mut self, i: usize, bucket: BucketId, from_end: usize) {
        let record = self.record(bucket);
        let mut store = self.engines[i].store().clone();
        let mut value = store.get(record.as_bytes()).expect("readable").expect("is there").to_vec();
        let at = value.len() - from_end;
        value[at] ^= 1;
        let changes = vec![(record.to_bytes(), Some(value.into()))];
        store.apply(crate::replica::store::Batch { changes }).expect("there is room");
        self.restart(i, 77, store);
        self.settle();
    }
}

#[test]
fn a_damaged_record_is_restored_from_the_others_and_not_served_meanwhile() {
    for from_end in [1, 12] {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(SIBLINGS, "precious", None));
        trio.damage(0, SIBLINGS, from_end);
        let request = trio.ask(0, get(SIBLINGS, Some(3)));
        trio.settle();
        let refusal = Refusal::NotEnoughReplicas { needed: 3, available: 2 };
        assert_eq!(trio.failure(request), Failure::Refused(refusal), "it fills no slot");
        assert_eq!(trio.holds(0, SIBLINGS), trio.holds(1, SIBLINGS), "and has asked the others at once");
        assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["precious"]);
        let metrics = &trio.engines[0].metrics;
        assert_eq!((metrics.records_damaged.get(), metrics.records_mended.get()), (1, 1));
        assert_eq!(trio.halts, Vec::<String>::new());
    }
}

#[test]
fn while_the_others_are_away_it_neither_serves_nor_stamps_nor_takes_in_and_asks_again() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "precious", None));
    trio.damage(0, SIBLINGS, 1);
    trio.cut_off(0);
    let request = trio.ask(0, put(SIBLINGS, "v", None));
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })));
    let Ask::Get(mut one) = get(SIBLINGS, Some(1)) else { unreachable!() };
    one.explain = false;
    let request = trio.ask(0, Ask::Get(one));
    trio.settle();
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { .. })));
    let Ask::Put(mut alone) = put(SIBLINGS, "v", None) else { unreachable!() };
    alone.w = Some(1);
    let request = trio.ask(0, Ask::Put(alone));
    trio.settle();
    assert_eq!(trio.failure(request), Failure::Refused(Refusal::Damaged));
    trio.pass(Duration::from_secs(1));
    trio.connect(0);
    trio.settle();
    assert_eq!(trio.engines[0].metrics.records_mended.get(), 0);
    trio.pass(Duration::from_secs(6));
    trio.settle();
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["precious"]);
}

#[test]
fn the_actor_of_the_partition_is_a_new_one_afterwards() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    trio.damage(0, SIBLINGS, 1);
    let other = key_of_the_same_partition(&trio);
    let actor_of = |trio: &mut Trio, value: &'static str| {
        let Ask::Put(mut ask) = put(SIBLINGS, value, None) else { unreachable!() };
        ask.key = other.clone();
        trio.put_and_settle(0, Ask::Put(ask));
        let definition = trio.topology.bucket(SIBLINGS).expect("exists");
        let place = trio.topology.place(definition, &other);
        let record = RecordKey::new(place.partition.n, place.token, SIBLINGS, &other);
        let value = trio.engines[0].store().get(record.as_bytes()).expect("readable").expect("is there");
        record::decode(value).expect("well formed").live().last().expect("one").0.actor
    };
    let before = actor_of(&mut trio, "a");
    trio.ask(0, get(SIBLINGS, Some(2)));
    trio.settle();
    let live: Vec<_> = [actor_of(&mut trio, "b"), before].into();
    assert_ne!(live[0], live[1]);
}

/// A key that shares its partition, and so its actor, with the usual one.
fn key_of_the_same_partition(trio: &Trio) -> Key {
    let definition = trio.topology.bucket(SIBLINGS).expect("exists");
    let partition = trio.topology.place(definition, &key()).partition;
    let keys = (0..).map(|i| Key::new(format!("other-{i}")).expect("valid"));
    keys.into_iter().find(|key| trio.topology.place(definition, key).partition == partition).expect("one of many")
}
