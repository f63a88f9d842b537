//! What keeps anti-entropy waiting does so for a bounded time: deliveries to the same peer, and peers that refuse.

use super::*;
use crate::peer::Purpose;

/// Distinct keys of the partition of the usual one.
fn keys(trio: &Trio) -> impl Iterator<Item = Key> + use<> {
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists").clone();
    let (topology, partition) = (trio.topology.clone(), trio.topology.place(&bucket, &key()).partition);
    let names = (0..).map(|number| Key::new(format!("key {number}")).expect("valid"));
    names.filter(move |name| topology.place(&bucket, name).partition == partition)
}

impl Trio {
    fn with_rounds() -> Trio {
        let aae = AaeLimits { interval: Duration::from_secs(30), ..AaeLimits::default() };
        let mut trio = Trio::with_limits(Limits { aae, ..Limits::default() });
        trio.pass(Duration::from_millis(10));
        trio.settle();
        trio
    }

    /// Another process in the place of a node that lost its disk.
    fn replace_disk(&mut self, i: usize) {
        self.cut_off(i);
        self.restart(i, 77 + i as u8, MemoryStore::new());
        let back = self.id(i);
        for j in (0..3).filter(|j| *j != i) {
            self.engines[j].handle_peer_up(self.now, back);
        }
        self.settle();
    }

    /// Lets everything happen, except that `refuses` decides about each merge, by its target and purpose, whether that is
    /// refused as too much for now.
    fn settle_with(&mut self, refuses: &mut dyn FnMut(usize, &Merge) -> bool) {
        loop {
            (0..3).for_each(|i| self.turn(i));
            while let Some((from, to, message)) = self.wire.pop_front() {
                let i = self.index(to);
                if let Body::Request { request: Request::Replica(ReplicaRequest::Merge(merge)), .. } = &message.body
                    && refuses(i, merge)
                {
                    let body = Body::Reply(Reply::Refused(Refusal::Overloaded { retry_after_ms: 50 }));
                    self.wire.push_back((to, from, Message { id: message.id, ring_version: 1, body }));
                } else {
                    self.engines[i].handle_peer(self.now, from, message);
                    self.turn(i);
                }
            }
            if self.syncs.is_empty() {
                break;
            }
            (0..3).for_each(|i| self.sync(i));
        }
    }

    fn holds_key(&self, i: usize, key: &Key) -> bool {
        let definition = self.topology.bucket(SIBLINGS).expect("exists");
        let place = self.topology.place(definition, key);
        let record = RecordKey::new(place.partition.n, place.token, SIBLINGS, key);
        self.engines[i].store().get(record.as_bytes()).expect("readable").is_some()
    }

    fn give(&mut self, i: usize, name: &Key, counter: u64) {
        let mut siblings = Siblings::new();
        let version = Version { value: Some(Bytes::from_static(b"v")), write_id: WriteId(1), written_at: Hlc(1) };
        siblings.event(&VersionVector::new(), driftless_proto::Dot::new(driftless_proto::ActorId(7), counter), version);
        let merge =
            Merge { bucket: SIBLINGS, key: name.clone(), siblings, hint_for: None, purpose: Purpose::AntiEntropy };
        self.tell((i + 1) % 3, i, 4 * counter, Request::Replica(ReplicaRequest::Merge(merge)));
    }
}

/// A node whose disk was replaced missed fifty writes a second, so that there was always something new to deliver to it, and
/// exchanges with it were put off: it was not refilled in half an hour.
#[test]
fn a_replaced_disk_is_refilled_though_new_hints_are_kept_all_the_time() {
    let mut trio = Trio::with_rounds();
    trio.put_and_settle(0, put(SIBLINGS, "old", None));
    trio.replace_disk(2);
    let mut names = keys(&trio);
    let mut written = 0;
    for _ in 0..2 * 60 * 10 {
        trio.pass(Duration::from_millis(100));
        for _ in 0..5 {
            let Ask::Put(mut one) = put_with_id(SIBLINGS, "new", None, WriteId(1_000 + written)) else {
                unreachable!()
            };
            one.key = names.next().expect("without end");
            written += 1;
            // Either of the others coordinates, and keeps hints.
            trio.ask((written % 2) as usize, Ask::Put(one));
        }
        trio.settle_with(&mut |to, merge| to == 2 && merge.purpose == Purpose::Write);
    }
    let delivered: u64 = (0..2).map(|i| trio.engines[i].shard.metrics.hints_delivered.get()).sum();
    assert!(delivered > 1_000, "deliveries went on all the time: {delivered}");
    assert_eq!(trio.holds(2, SIBLINGS), trio.holds(0, SIBLINGS));
}

/// Each refusal was charged to the budget on its own: 128 refusals of 50 ms held up all anti-entropy of the shard for six
/// seconds, though all of them had asked for the same 50 ms.
#[test]
fn refusals_of_the_same_moment_overlap() {
    let mut trio = Trio::with_rounds();
    let names: Vec<Key> = keys(&trio).take(600).collect();
    for (i, name) in names.iter().enumerate() {
        (0..2).for_each(|node| trio.give(node, name, i as u64 + 1));
    }
    trio.settle();
    trio.replace_disk(2);
    let (mut refused_at, mut next) = (None, None);
    while next.is_none() {
        trio.pass(Duration::from_millis(10));
        let now = trio.now.instant;
        trio.settle_with(&mut |to, merge| {
            if to != 2 || merge.purpose != Purpose::AntiEntropy {
                return false;
            }
            // All that are under way at that moment.
            let refuses = refused_at.is_none_or(|at| at == now);
            match refuses {
                true => refused_at = Some(now),
                false => next = Some(now),
            }
            refuses
        });
    }
    let (refused_at, next) = (refused_at.expect("some were"), next.expect("more came"));
    let waited = next.since(refused_at);
    assert!(waited <= Duration::from_millis(60), "they asked for 50 ms, and waited {waited:?}");
}

#[test]
fn a_peer_that_refuses_repairs_holds_up_no_others() {
    let mut trio = Trio::with_rounds();
    let names: Vec<Key> = keys(&trio).take(600).collect();
    for (i, name) in names.iter().enumerate() {
        trio.give(0, name, i as u64 + 1);
    }
    trio.settle();
    for _ in 0..60 * 10 {
        trio.pass(Duration::from_millis(100));
        trio.settle_with(&mut |to, merge| to == 2 && merge.purpose == Purpose::AntiEntropy);
        if names.iter().all(|name| trio.holds_key(1, name)) {
            break;
        }
    }
    assert!(names.iter().all(|name| trio.holds_key(1, name)), "within one round");
    assert!(names.iter().all(|name| !trio.holds_key(2, name)));
}
