//! What is not in memory is fetched first: nothing that can wait makes a turn wait for a disk.

use std::cell::{Cell, RefCell};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use driftless_proto::client::Scan;

use super::*;
use crate::peer::{Purpose, Read as Look, Want};
use crate::replica::store::{ApplyError, Batch};
use crate::testkit::Syncs;

/// A store whose test says whether what it holds is in memory.
#[derive(Clone, Default)]
struct Cold {
    inner: SharedStore,
    is_cold: Rc<Cell<bool>>,
    asked: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Store for Cold {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.inner.scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        self.inner.apply(batch)
    }

    fn prepare(&self, key: &[u8]) -> bool {
        self.asked.borrow_mut().push(key.to_vec());
        !self.is_cold.get()
    }

    fn prepare_range(&self, _: Range<&[u8]>, records: usize, bytes: usize) -> bool {
        assert!(records > 0 && bytes > 0);
        !self.is_cold.get()
    }
}

impl Syncs for Cold {
    fn make_durable(&mut self, up_to: BatchSeq) {
        self.inner.make_durable(up_to);
    }
}

/// Three nodes that know a key, the first of them started again since: no header is in memory.
fn cold_start() -> (EngineCluster<Cold>, Cold) {
    let limits = without_rounds(Limits::default());
    let mut stores = Vec::new();
    let mut trio = EngineCluster::launch(members(3).shared(), limits, Planted::default(), |_| {
        stores.push(Cold::default());
        stores.last().expect("just made").clone()
    });
    trio.ask(0, put(SIBLINGS, "v", None));
    trio.settle();
    let store = stores.swap_remove(0);
    store.is_cold.set(true);
    store.asked.borrow_mut().clear();
    trio.restart(0, 9, store.clone());
    trio.settle();
    (trio, store)
}

fn merge() -> ReplicaRequest {
    let (siblings, purpose) = (Siblings::new(), Purpose::ReadRepair);
    ReplicaRequest::Merge(Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose })
}

fn look(want: Want) -> ReplicaRequest {
    ReplicaRequest::Read(Look { bucket: SIBLINGS, key: key(), want, durable: false, counted_for: None })
}

fn message(request: ReplicaRequest) -> Message {
    let deadline = Instant(u64::MAX);
    let body = Body::Request { deadline, request: Request::Replica(request) };
    Message { id: RequestId(1), ring_version: 1, body }
}

#[test]
fn an_input_is_ready_once_what_it_reads_is_in_memory() {
    let (mut trio, store) = cold_start();
    let client = [get(SIBLINGS, None), put(SIBLINGS, "w", None), delete(SIBLINGS, None)];
    let peer = [merge(), look(Want::Full), look(Want::Header)].map(message);
    assert!(client.iter().all(|ask| !trio.engines[0].prepare_for_client(ask)));
    assert!(peer.iter().all(|message| !trio.engines[0].prepare_for_peer(message)));
    let asked = store.asked.take();
    assert_eq!(asked.len(), 6);
    assert!(asked.iter().all(|key| store.get(key).expect("readable").is_some()), "for the key's record");
    let forward = Body::Request { deadline: Instant(u64::MAX), request: Request::Forward(get(SIBLINGS, None)) };
    let forward = Message { id: RequestId(1), ring_version: 1, body: forward };
    assert!(!trio.engines[0].prepare_for_peer(&forward));
    assert!(trio.engines[0].prepare_for_client(&Ask::Status), "that reads nothing");
    assert!(trio.engines[0].prepare_for_client(&get(BucketId(99), None)), "that is refused");

    store.is_cold.set(false);
    trio.engines[0].handle_fetched();
    assert!(client.iter().all(|ask| trio.engines[0].prepare_for_client(ask)));
    assert!(peer.iter().all(|message| trio.engines[0].prepare_for_peer(message)));
}

#[test]
fn a_header_in_memory_is_enough_for_what_needs_no_value() {
    let (mut trio, store) = cold_start();
    trio.ask(0, put(SIBLINGS, "w", None));
    trio.settle();
    assert!(store.is_cold.get());
    assert!(!trio.engines[0].prepare_for_client(&get(SIBLINGS, None)));
    assert!(trio.engines[0].prepare_for_client(&put(SIBLINGS, "x", None)));
    assert!(trio.engines[0].prepare_for_peer(&message(merge())));
    assert!(trio.engines[0].prepare_for_peer(&message(look(Want::Header))));
    assert!(!trio.engines[0].prepare_for_peer(&message(look(Want::Full))));
}

#[test]
fn a_scan_waits_for_its_page_and_lets_the_shard_sleep_meanwhile() {
    let (mut trio, store) = cold_start();
    let arc = trio.topology.place(trio.topology.bucket(SIBLINGS).expect("exists"), &key()).partition.arc;
    let scan =
        Scan { bucket: SIBLINGS, arc, after: None, limit: 10, r: Some(1), prefix: Bytes::new(), ring_version: 1 };
    let request = trio.ask(0, Ask::Scan(scan));
    trio.settle();
    assert_eq!(trio.reply(request), None);
    assert_ne!(trio.engines[0].poll_timeout(), Some(Instant::default()), "it would turn and turn");
    store.is_cold.set(false);
    trio.engines[0].handle_fetched();
    assert_eq!(trio.engines[0].poll_timeout(), Some(Instant::default()));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Page(page)) if page.keys.len() == 1));
}

#[test]
fn trees_are_built_of_what_has_been_fetched() {
    let (mut trio, store) = cold_start();
    let are_there = |trio: &EngineCluster<Cold>| trio.engines[0].trees().all(|(_, held)| matches!(held, Held::Tree(_)));
    (0..50).for_each(|_| trio.pass(Duration::from_millis(10)));
    assert!(!are_there(&trio));
    store.is_cold.set(false);
    (0..500).for_each(|_| trio.pass(Duration::from_millis(10)));
    assert!(are_there(&trio));
}
