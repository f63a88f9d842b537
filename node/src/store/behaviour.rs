//! What every store must do alike: one suite, run against each of them.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::replica::store::{Batch, BatchSeq, Store};

/// A store under test, and how it is closed and opened again.
pub(crate) trait Subject: Sized {
    type Store: Store;

    fn create() -> Self;
    fn store(&mut self) -> &mut Self::Store;
    /// Syncs, and lets something happen while the sync is at the disk.
    fn sync_during(&mut self, meanwhile: impl FnOnce(&mut Self::Store));
    /// The power goes: what no sync has brought to the disk is gone, as much as ever can be. Opened again.
    fn power_cut(self) -> Self;
    /// Closed in an orderly way without a sync, and opened again.
    fn reopen(self) -> Self;
}

/// Makes one `#[test]` of each promise, for a [`Subject`].
macro_rules! suite {
    ($subject:ty) => {
        crate::store::behaviour::suite!(
            $subject:
            a_batch_is_visible_at_once,
            a_later_change_of_a_key_in_a_batch_wins,
            a_removed_key_is_gone,
            a_scan_goes_in_order_within_its_bounds,
            a_scan_stops_when_told,
            numbers_of_batches_increase,
            data_is_there_after_reopening,
            what_is_synced_survives_a_power_cut_and_nothing_else,
            what_is_applied_during_a_sync_is_not_covered_by_it,
            what_is_applied_during_a_sync_is_covered_by_the_next,
            any_bytes_are_a_key_and_a_value,
            the_suite_agrees_with_a_map
        );
    };
    ($subject:ty: $($promise:ident),+) => {
        $(
            #[test]
            fn $promise() {
                crate::store::behaviour::$promise::<$subject>();
            }
        )+
    };
}
pub(crate) use suite;

/// A batch of text, for readable tests.
pub(crate) fn batch<'a>(changes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Batch {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Batch { changes: changes.into_iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect() }
}

/// A batch of one.
pub(crate) fn put(store: &mut impl Store, key: &str, value: &str) -> BatchSeq {
    store.apply(batch([(key, Some(value))])).expect("the store has room and works")
}

/// A value as text.
pub(crate) fn value_of(store: &impl Store, key: &str) -> Option<String> {
    let value = store.get(key.as_bytes()).expect("the store works");
    value.map(|value| String::from_utf8(value.to_vec()).expect("tests store text"))
}

/// Everything with a key below `~`, as text.
pub(crate) fn contents(store: &impl Store) -> Vec<(String, String)> {
    scanned(store, "\0", "~", usize::MAX)
}

fn scanned(store: &impl Store, start: &str, end: &str, limit: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("tests store text");
    store
        .scan(start.as_bytes()..end.as_bytes(), &mut |key, value| {
            found.push((text(key), text(&value)));
            if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .expect("the store works");
    found
}

pub(crate) fn a_batch_is_visible_at_once<S: Subject>() {
    let mut subject = S::create();
    let store = subject.store();
    store.apply(batch([("a", Some("1")), ("b", Some("2"))])).expect("applies");
    assert_eq!(value_of(store, "a").as_deref(), Some("1"));
    store.apply(batch([("a", None), ("b", Some("3")), ("c", Some("4"))])).expect("applies");
    assert_eq!(contents(store), [("b".into(), "3".into()), ("c".into(), "4".into())]);
}

pub(crate) fn a_later_change_of_a_key_in_a_batch_wins<S: Subject>() {
    let mut subject = S::create();
    let changes = [
        ("a", Some("1")),
        ("b", None),
        ("c", Some("1")),
        ("a", Some("2")),
        ("b", Some("1")),
        ("c", None),
        ("a", Some("3")),
    ];
    subject.store().apply(batch(changes)).expect("applies");
    let expected = [("a".to_string(), "3".to_string()), ("b".into(), "1".into())];
    assert_eq!(contents(subject.store()), expected);
    assert_eq!(value_of(subject.store(), "c"), None);
    let mut subject = subject.reopen();
    assert_eq!(contents(subject.store()), expected, "and the journal says the same");
}

pub(crate) fn a_removed_key_is_gone<S: Subject>() {
    let mut subject = S::create();
    put(subject.store(), "a", "1");
    subject.store().apply(batch([("a", None), ("never there", None)])).expect("applies");
    assert_eq!(value_of(subject.store(), "a"), None);
    assert_eq!(contents(subject.store()), []);
    assert_eq!(contents(subject.reopen().store()), []);
}

pub(crate) fn a_scan_goes_in_order_within_its_bounds<S: Subject>() {
    let mut subject = S::create();
    let store = subject.store();
    for key in ["c", "a", "bb", "b", "d", "ba"] {
        put(store, key, key);
    }
    let keys = |start: &str, end: &str| -> Vec<String> {
        scanned(store, start, end, usize::MAX).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys("b", "d"), ["b", "ba", "bb", "c"], "the start is included, the end is not");
    assert_eq!(keys("b", "b"), [""; 0]);
    assert_eq!(keys("d", "b"), [""; 0], "a range that runs backwards is empty");
    assert_eq!(keys("", "b"), ["a"]);
}

pub(crate) fn a_scan_stops_when_told<S: Subject>() {
    let mut subject = S::create();
    let store = subject.store();
    for key in ["a", "b", "c", "d"] {
        put(store, key, key);
    }
    assert_eq!(scanned(store, "a", "z", 2).len(), 2);
}

pub(crate) fn numbers_of_batches_increase<S: Subject>() {
    let mut subject = S::create();
    let mut last = BatchSeq::default();
    for round in 0..10 {
        let seq = match round % 3 {
            0 => subject.store().apply(Batch::default()).expect("an empty batch applies"),
            _ => put(subject.store(), "a", "1"),
        };
        assert!(seq > last, "{seq:?} after {last:?}");
        last = seq;
    }
}

pub(crate) fn data_is_there_after_reopening<S: Subject>() {
    let mut subject = S::create();
    for round in 0..3 {
        put(subject.store(), &format!("key {round}"), &"long ".repeat(1000));
        put(subject.store(), "count", &round.to_string());
        subject = subject.reopen();
        assert_eq!(value_of(subject.store(), "count"), Some(round.to_string()));
        assert_eq!(contents(subject.store()).len(), round + 2);
    }
}

pub(crate) fn what_is_synced_survives_a_power_cut_and_nothing_else<S: Subject>() {
    let mut subject = S::create();
    put(subject.store(), "a", "1");
    subject.sync_during(|_| {});
    put(subject.store(), "a", "2");
    put(subject.store(), "b", "1");
    assert_eq!(contents(subject.power_cut().store()), [("a".into(), "1".into())]);
}

pub(crate) fn what_is_applied_during_a_sync_is_not_covered_by_it<S: Subject>() {
    let mut subject = S::create();
    put(subject.store(), "a", "1");
    subject.sync_during(|store| {
        put(store, "b", "1");
    });
    assert_eq!(contents(subject.power_cut().store()), [("a".into(), "1".into())]);
}

/// The answer to "is there anything new?" has to be of the time before the sync, or the second one does nothing.
pub(crate) fn what_is_applied_during_a_sync_is_covered_by_the_next<S: Subject>() {
    let mut subject = S::create();
    put(subject.store(), "a", "1");
    subject.sync_during(|store| {
        put(store, "b", "1");
    });
    subject.sync_during(|_| {});
    assert_eq!(contents(subject.power_cut().store()), [("a".into(), "1".into()), ("b".into(), "1".into())]);
}

pub(crate) fn any_bytes_are_a_key_and_a_value<S: Subject>() {
    let mut subject = S::create();
    let keys: Vec<Bytes> = vec![
        Bytes::from_static(&[0]),
        Bytes::from_static(&[0, 0]),
        Bytes::from_static(&[0xff; 3]),
        Bytes::from(vec![7; super::STORED_KEY_BYTES_MAX]),
    ];
    let value = |i: usize| Bytes::from(vec![i as u8; [0, 1, 511, 700_000][i]]);
    let changes = keys.iter().enumerate().map(|(i, key)| (key.clone(), Some(value(i)))).collect();
    subject.store().apply(Batch { changes }).expect("applies");
    let mut subject = subject.reopen();
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(subject.store().get(key), Ok(Some(value(i))));
    }
}

/// A thousand batches of pseudo-random changes, with reopenings between.
pub(crate) fn the_suite_agrees_with_a_map<S: Subject>() {
    let mut subject = S::create();
    let mut model = std::collections::BTreeMap::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..1000 {
        let mut changes = Vec::new();
        for _ in 0..draw(8) {
            let key = Bytes::from(format!("key {:02}", draw(50)));
            let value = (draw(4) > 0).then(|| Bytes::from(format!("{round} ").repeat(draw(300) as usize)));
            changes.push((key.clone(), value.clone()));
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        subject.store().apply(Batch { changes }).expect("applies");
        if round % 250 == 249 {
            subject = subject.reopen();
        }
        if round % 50 == 0 || round % 250 == 249 {
            let mut found = Vec::new();
            let visit = &mut |key: &[u8], value| {
                found.push((Bytes::copy_from_slice(key), value));
                ControlFlow::Continue(())
            };
            subject.store().scan(&b"\0"[..]..&b"\xff"[..], visit).expect("the store works");
            assert!(found.into_iter().eq(model.clone()), "round {round}");
        }
    }
}
