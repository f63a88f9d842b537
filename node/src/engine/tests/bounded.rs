//! A turn of a shard is bounded, whatever is asked and whatever is stored.

use super::*;
use crate::bounds::TurnBounds;
use crate::peer::{Page, Purpose, Scan};
use crate::replica::local::{AddHint, LocalRequest};

const VALUE_BYTES: usize = 100 << 10;

/// Little more than a record of [`VALUE_BYTES`].
const RECORD_BYTES: usize = VALUE_BYTES + 1_000;

impl Trio {
    /// Distinct keys of the partition of the usual one.
    fn names(&self, how_many: usize) -> Vec<Key> {
        let bucket = self.topology.bucket(SIBLINGS).expect("exists");
        let partition = self.topology.place(bucket, &key()).partition;
        let names = (0..).map(|number| Key::new(format!("key {number}")).expect("valid"));
        names.filter(|name| self.topology.place(bucket, name).partition == partition).take(how_many).collect()
    }

    /// Gives a node a value of each key, so many bytes large.
    fn store(&mut self, i: usize, names: &[Key], value_bytes: usize) {
        for (number, name) in names.iter().enumerate() {
            let mut siblings = Siblings::new();
            let value = Some(Bytes::from(vec![7; value_bytes]));
            let version = Version { value, write_id: WriteId(1), written_at: Hlc(1) };
            let dot = driftless_proto::Dot::new(driftless_proto::ActorId(7), number as u64 + 1);
            siblings.event(&VersionVector::new(), dot, version);
            let purpose = Purpose::AntiEntropy;
            let merge = Merge { bucket: SIBLINGS, key: name.clone(), siblings, hint_for: None, purpose };
            self.tell((i + 1) % 3, i, 4 * number as u64, Request::Replica(ReplicaRequest::Merge(merge)));
        }
        self.settle();
    }

    fn largest_turn(&self) -> usize {
        self.limits.turn.bytes_read_max(RECORD_BYTES)
    }
}

/// A marker is a byte, and what it refers to may be megabytes: a page of 64 of them loaded 64 MiB.
#[test]
fn a_page_of_hints_counts_the_records_that_markers_refer_to() {
    read_pages_of_markers(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_page_that_ignores_markers_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::PageIgnoresMarkers, read_pages_of_markers);
}

fn read_pages_of_markers(planted: Planted) {
    let mut trio = Trio::with_planted(3, planted);
    let names = trio.names(40);
    trio.store(0, &names, VALUE_BYTES);
    let (now, target) = (trio.now, trio.id(2));
    for name in &names {
        let add = AddHint { bucket: SIBLINGS, key: name.clone(), target };
        let engine = &mut trio.engines[0];
        engine.replica.handle_local(&engine.shard, now, RequestId(4), LocalRequest::AddHint(add));
    }
    trio.turn(0);
    let (mut from, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let engine = &mut trio.engines[0];
        let page = engine.replica.hints_for(&engine.shard, target, from).expect("readable");
        let bytes: usize = page.hints.iter().map(|hint| hint.siblings.value_bytes()).sum();
        assert!(bytes <= TurnBounds::default().step_bytes + RECORD_BYTES, "{bytes} bytes on a page");
        assert!(trio.engines[0].replica.bytes_read() < trio.largest_turn());
        trio.turn(0);
        found.extend(page.hints.into_iter().map(|hint| hint.key));
        pages += 1;
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    found.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(found, names, "each once");
    assert!(pages > 10, "{pages} pages");
}

/// 500 records were read in one step, however large they were: 454 MiB in one turn.
#[test]
fn the_scan_after_a_start_and_the_scrub_read_so_many_bytes_a_turn() {
    let mut trio = Trio::new();
    let names = trio.names(40);
    trio.store(0, &names, VALUE_BYTES);
    let store = trio.engines[0].store().clone();
    trio.restart(0, 78, store);
    let (mut steps, mut largest) = (0, 0);
    while trio.engines[0].trees().any(|(_, held)| matches!(held, Held::Rebuilding)) {
        trio.now.instant = trio.now.instant + Duration::from_millis(2);
        trio.engines[0].handle_timeout(trio.now);
        largest = largest.max(trio.engines[0].replica.bytes_read());
        trio.turn(0);
        steps += 1;
        assert!(steps < 1_000, "it comes to an end");
    }
    assert!(steps > 10, "{steps} steps");
    // The scrub: all 64 leaves of eight partitions come up.
    for _ in 0..8_000 {
        trio.now.instant = trio.now.instant + Duration::from_millis(100);
        trio.engines[0].handle_timeout(trio.now);
        largest = largest.max(trio.engines[0].replica.bytes_read());
        trio.turn(0);
    }
    let most = 2 * (TurnBounds::default().step_bytes + 2 * RECORD_BYTES);
    assert!((RECORD_BYTES..most).contains(&largest), "{largest} bytes in one turn");
    assert_eq!(trio.engines[0].shard.metrics.aae_drift.get(), 0);
}

/// A leaf with many keys: what it holds was read in one go.
#[test]
fn a_crowded_leaf_is_checked_a_part_at_a_time_while_writes_go_on() {
    let mut limits = Limits::default();
    limits.turn.step_bytes = 100;
    let mut trio = Trio::with_limits(limits);
    let names = trio.names(200);
    trio.store(0, &names, 10);
    for i in 0..10_000 {
        trio.pass(Duration::from_millis(10));
        if i % 500 == 0 {
            trio.put_and_settle(0, put_with_id(SIBLINGS, "again", None, WriteId(i + 2)));
        }
    }
    assert_eq!(trio.engines[0].shard.metrics.aae_drift.get(), 0);
}

/// Keys of all buckets with the same n lie between each other: an empty bucket had whole arcs to walk through, in one turn.
#[test]
fn a_scan_of_an_empty_bucket_beside_a_full_one_takes_many_short_steps() {
    let mut trio = Trio::new();
    let names = trio.names(3_000);
    trio.store(0, &names, 10);
    let arc = trio.topology.place(trio.topology.bucket(SIBLINGS).expect("exists"), &key()).partition.arc;
    let mut lists = [(SIBLINGS, Vec::new()), (LWW, Vec::new())];
    for (bucket, found) in &mut lists {
        let (mut after, mut pages) = (None, 0);
        loop {
            let page = trio.page(Scan { bucket: *bucket, arc, after: after.take(), limit: 10_000, counted_for: 1 });
            assert!(page.entries.len() <= TurnBounds::default().step_records);
            found.extend(page.entries.into_iter().filter_map(|(at, _)| at.key));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert!(pages >= 3_000 / TurnBounds::default().step_records, "{pages} pages");
    }
    let mut names = names;
    names.sort_unstable();
    lists[0].1.sort_unstable();
    assert_eq!(lists[0].1, names, "each once");
    assert_eq!(lists[1].1, []);
}

#[test]
fn a_page_of_a_scan_reads_so_many_bytes_however_large_the_values_are() {
    let mut trio = Trio::new();
    let names = trio.names(20);
    trio.store(0, &names, VALUE_BYTES);
    let arc = trio.topology.place(trio.topology.bucket(SIBLINGS).expect("exists"), &key()).partition.arc;
    let page = trio.page(Scan { bucket: SIBLINGS, arc, after: None, limit: 10_000, counted_for: 1 });
    assert_eq!(page.entries.len(), TurnBounds::default().step_bytes.div_ceil(RECORD_BYTES));
    assert!(page.next.is_some());
}

#[test]
fn a_turn_makes_one_step_of_one_scan_after_everything_else() {
    let mut trio = Trio::new();
    let names = trio.names(10);
    trio.store(0, &names, 10);
    let arc = trio.topology.place(trio.topology.bucket(SIBLINGS).expect("exists"), &key()).partition.arc;
    let from = trio.id(1);
    for id in 0..16 {
        let scan = Scan { bucket: LWW, arc, after: None, limit: 10, counted_for: 1 };
        let body = Body::Request {
            deadline: trio.now.instant + Duration::from_secs(1),
            request: Request::Replica(ReplicaRequest::Scan(scan)),
        };
        let message = Message { id: RequestId(4 * id), ring_version: 1, body };
        trio.engines[0].handle_peer(trio.now, from, message);
    }
    for left in (0..16).rev() {
        trio.turn(0);
        assert_eq!(trio.wire.len(), 16 - left);
        let due = trio.engines[0].poll_timeout().is_some_and(|at| at <= trio.now.instant);
        assert!(due || left == 0, "the next turn comes at once");
    }
}

#[test]
fn a_turn_takes_no_more_inputs_once_they_have_cost_enough() {
    let mut trio = Trio::new();
    let names = trio.names(60);
    trio.store(0, &names, VALUE_BYTES);
    let mut taken = 0;
    for name in &names {
        if trio.engines[0].is_full() {
            break;
        }
        trio.hand_in(
            0,
            Ask::Get(Get {
                key: name.clone(),
                r: Some(1),
                bucket: SIBLINGS,
                sloppy: None,
                explain: false,
                shown: Vec::new(),
            }),
        );
        taken += 1;
    }
    assert!((40..45).contains(&taken), "{taken} gets of a tenth of a megabyte");
    assert!(trio.engines[0].replica.bytes_read() < trio.largest_turn());
    trio.turn(0);
    assert!(!trio.engines[0].is_full());
}

impl Trio {
    /// What a node answers to a scan by another.
    fn page(&mut self, scan: Scan) -> Page {
        self.wire.clear();
        self.tell(1, 0, 4, Request::Replica(ReplicaRequest::Scan(scan)));
        match self.wire.pop_back().map(|(.., message)| message.body) {
            Some(Body::Reply(Reply::Page(page))) => page,
            other => panic!("expected a page, got {other:?}"),
        }
    }
}
