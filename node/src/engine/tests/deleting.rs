//! Deletes.

use super::*;

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
    let again = trio.ask(0, delete(SIBLINGS, None));
    trio.settle();
    assert!(matches!(trio.reply(again), Some(Response::Deleted(Deleted { existed: false, .. }))));
    let deleted = (0..3).filter(|i| !trio.holds(*i, SIBLINGS).has_values()).count();
    assert!(deleted >= 2, "the tombstone that was seen on one replica is on {deleted}");
}
