//! Puts: siblings and contexts.

use super::*;

#[test]
fn a_put_is_stored_on_every_replica_and_read_from_any() {
    let mut trio = Trio::new();
    let stored = trio.put_and_settle(0, put(SIBLINGS, "v1", None));
    assert_eq!((stored.acks, stored.siblings), (2, 1));
    for i in 0..3 {
        assert_eq!(values(&trio.read(i, SIBLINGS, 3)), ["v1"]);
        assert_eq!(trio.holds(i, SIBLINGS), trio.holds(0, SIBLINGS));
    }
}

#[test]
fn concurrent_puts_become_siblings_and_one_write_with_their_context_replaces_both() {
    let mut trio = Trio::new();
    let (one, two) = (trio.ask(0, put(SIBLINGS, "v1", None)), trio.ask(1, put(SIBLINGS, "v2", None)));
    trio.settle();
    assert_eq!(trio.stored(one).acks + trio.stored(two).acks, 4);
    let read = trio.read(2, SIBLINGS, 3);
    assert_eq!(values(&read).len(), 2);
    let merged = trio.put_and_settle(2, put(SIBLINGS, "v3", read.context));
    assert_eq!(merged.siblings, 1);
    assert!(merged.context.is_some());
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)), ["v3"]);
}

/// With it the client would overwrite siblings that it never saw.
#[test]
fn a_put_that_has_siblings_returns_no_context() {
    let mut trio = Trio::new();
    assert!(trio.put_and_settle(0, put(SIBLINGS, "v1", None)).context.is_some());
    let second = trio.put_and_settle(0, put(SIBLINGS, "v2", None));
    assert_eq!((second.siblings, second.context), (2, None));
}
