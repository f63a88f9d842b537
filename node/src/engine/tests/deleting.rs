//! Deletes.

use super::*;

impl Trio {
    fn delete_and_settle(&mut self, i: usize, ask: Ask) -> Deleted {
        let request = self.ask(i, ask);
        self.settle();
        self.deleted(request)
    }

    fn deleted(&self, request: u64) -> Deleted {
        match self.reply(request) {
            Some(Response::Deleted(deleted)) => deleted.clone(),
            other => panic!("expected Deleted, got {other:?}"),
        }
    }

    /// On how many replicas the key has no value.
    fn without_values(&self) -> usize {
        (0..self.engines.len()).filter(|i| !self.holds(*i, SIBLINGS).has_values()).count()
    }

    fn batches(&self) -> u64 {
        self.engines.iter().map(|engine| engine.shard.metrics.batches.get()).sum()
    }
}

fn delete_with_id(context: Option<ContextToken>, id: u128) -> Ask {
    let Ask::Delete(delete) = delete(SIBLINGS, context) else { unreachable!() };
    Ask::Delete(Delete { write_id: WriteId(id), ..delete })
}

#[test]
fn a_delete_removes_what_it_has_seen_and_nothing_else() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    let request = trio.ask(1, delete(SIBLINGS, context));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, siblings: 1, .. }))));
    assert_eq!(values(&trio.read(2, SIBLINGS, 3)), ["v2"]);
}

#[test]
fn a_delete_without_context_reads_first_and_writes_nothing_if_there_is_nothing() {
    let mut trio = Trio::new();
    let nothing = trio.ask(0, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(nothing), Some(Response::Deleted(Deleted { existed: false, .. }))));
    assert!(trio.holds(0, SIBLINGS).is_empty());
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    let request = trio.ask(1, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, siblings: 0, .. }))));
    let read = trio.read(2, SIBLINGS, 3);
    assert!(read.siblings.is_empty() && read.context.is_some());
    assert!((0..3).all(|i| trio.engines[i].requests_open() == 0));
}

#[test]
fn a_delete_that_finds_a_tombstone_makes_it_stay_before_it_says_that_nothing_is_there() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.ask(0, delete(SIBLINGS, context));
    trio.wire.clear();
    let again = trio.ask(0, delete_with_id(None, 1));
    trio.settle();
    assert!(matches!(trio.reply(again), Some(Response::Deleted(Deleted { existed: false, .. }))));
    let deleted = (0..3).filter(|i| !trio.holds(*i, SIBLINGS).has_values()).count();
    assert!(deleted >= 2, "the tombstone that was seen on one replica is on {deleted}");
}

/// An attack from outside: from the 64th repetition on, puts were refused for want of room among siblings.
#[test]
fn a_delete_that_covers_nothing_live_writes_nothing_however_often_it_is_repeated() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    assert!(trio.delete_and_settle(0, delete(SIBLINGS, context.clone())).existed);
    trio.put_and_settle(1, put(SIBLINGS, "v2", None));
    let (held, batches) = (trio.holds(0, SIBLINGS), trio.batches());
    for id in 0..100 {
        let again = trio.delete_and_settle(id % 3, delete_with_id(context.clone(), id as u128));
        assert_eq!((again.existed, again.siblings), (false, 1));
        assert!(again.acks >= 2, "as good as any other: {again:?}");
    }
    assert_eq!((trio.holds(0, SIBLINGS), trio.batches()), (held, batches));
    assert_eq!(trio.put_and_settle(0, put(SIBLINGS, "v3", None)).siblings, 2);
}

#[test]
fn a_delete_that_covers_nothing_live_here_makes_sure_of_it_elsewhere() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    trio.ask(0, delete(SIBLINGS, context.clone()));
    trio.wire.clear();
    let again = trio.ask(0, delete_with_id(context, 1));
    trio.sync(0);
    assert_eq!((trio.reply(again), trio.without_values()), (None, 1), "on one disk");
    trio.settle();
    assert!(!trio.deleted(again).existed);
    assert_eq!(trio.without_values(), 3);
}

#[test]
fn a_put_takes_the_place_of_a_tombstone_that_it_has_not_seen() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    assert!(trio.delete_and_settle(0, delete(SIBLINGS, None)).existed);
    let blind = trio.put_and_settle(1, put(SIBLINGS, "v2", None));
    assert_eq!(blind.siblings, 1);
    let replaced = trio.put_and_settle(2, put(SIBLINGS, "v3", blind.context.clone()));
    assert!(blind.context.is_some(), "it is the only value");
    assert_eq!(replaced.siblings, 1);
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["v3"]);
}

#[test]
fn a_key_with_as_many_siblings_as_are_allowed_can_be_deleted() {
    let mut trio = Trio::new();
    let most = driftless_proto::key::SIBLINGS_MAX;
    let mut old = None;
    for id in 0..most {
        let stored = trio.put_and_settle(0, put_with_id(SIBLINGS, "v", None, WriteId(id as u128)));
        old = old.or(stored.context);
    }
    let one_more = trio.ask(0, put_with_id(SIBLINGS, "v", None, WriteId(most as u128)));
    assert!(matches!(trio.failure(one_more), Failure::Refused(Refusal::TooManySiblings { .. })));
    let deleted = trio.delete_and_settle(0, delete(SIBLINGS, old));
    assert_eq!((deleted.existed, deleted.siblings as usize), (true, most - 1));
    trio.put_and_settle(0, put_with_id(SIBLINGS, "v", None, WriteId(most as u128)));
}

/// An attack from outside: `WriteIdReused`, to a user who had never chosen an id.
#[test]
fn the_retry_of_a_delete_is_the_same_delete_whatever_it_reads() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context;
    assert!(trio.delete_and_settle(0, delete(SIBLINGS, None)).existed);
    trio.put_and_settle(1, put(SIBLINGS, "v2", None));
    for (node, context) in [(0, None), (0, context), (0, None)] {
        let again = trio.delete_and_settle(node, delete(SIBLINGS, context));
        assert_eq!((again.existed, again.siblings), (true, 1), "as the first was answered");
    }
    assert_eq!(values(&trio.read(2, SIBLINGS, 3)), ["v2"], "it was written after the delete");
    let put = trio.ask(0, put_with_id(SIBLINGS, "v3", None, WriteId(4711)));
    assert_eq!(trio.failure(put), Failure::Refused(Refusal::WriteIdReused));
}

#[test]
fn the_retry_of_a_delete_that_removed_all_says_so_again() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    for _ in 0..2 {
        let deleted = trio.delete_and_settle(0, delete(SIBLINGS, None));
        assert_eq!((deleted.existed, deleted.siblings), (true, 0));
    }
    assert!(!trio.delete_and_settle(0, delete_with_id(None, 1)).existed, "another delete");
}

#[test]
fn a_delete_where_the_last_writer_wins_removes_also_what_it_has_not_seen() {
    let mut trio = Trio::new();
    let context = trio.put_and_settle(0, put(LWW, "v1", None)).context;
    trio.put_and_settle(1, put(LWW, "v2", context.clone()));
    assert!(trio.delete_and_settle(0, delete(LWW, context.clone())).existed);
    assert_eq!(values(&trio.read(2, LWW, 3)), [""; 0]);
    let Ask::Delete(again) = delete(LWW, context) else { unreachable!() };
    assert!(!trio.delete_and_settle(0, Ask::Delete(Delete { write_id: WriteId(1), ..again })).existed);
}
