//! Puts: siblings and contexts.

use driftless_proto::observed::Profile;
use driftless_proto::{TraceContext, greeting};

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

/// Where it belongs in a trace is the shell's to know: nothing that is done depends on it.
#[test]
fn a_traced_put_names_its_trace_to_every_replica_and_is_a_put_as_any_other() {
    let trace = TraceContext { trace_id: [7; 16], parent_id: [9; 8], sampled: true };
    let mut trio = Trio::new();
    let asked = trio.ask(0, put(SIBLINGS, "v1", None).observed(Profile { explain: false, trace: Some(trace) }));
    let of = |(_, _, message): &(NodeId, NodeId, Message)| match &message.body {
        Body::Request { request: Request::Traced(Traced { trace, request: ReplicaRequest::Merge(_) }), .. } => {
            Some(*trace)
        }
        _ => None,
    };
    assert_eq!(trio.wire.iter().filter_map(of).collect::<Vec<_>>(), [trace, trace]);
    let older = trio.wire[0].2.clone().in_version(greeting::FIGURES);
    assert!(
        matches!(older.body, Body::Request { request: Request::Replica(ReplicaRequest::Merge(_)), .. }),
        "{older:?}"
    );
    trio.settle();
    assert_eq!(trio.stored(asked).acks, 2);
    for i in 0..3 {
        assert_eq!(values(&trio.read(i, SIBLINGS, 3)), ["v1"]);
    }
}
