//! All that is known of a key, read and merged again: what was replaced or deleted since stays so, and what was lost comes back.

use driftless_proto::causality::Payload as _;
use driftless_proto::client::{GetState, MergeState};
use driftless_proto::state_pages::Turned;
use driftless_proto::{ActorId, Dot, StatePages};

use super::*;

impl Trio {
    /// All pages of it, through this node.
    fn state(&mut self, i: usize, bucket: BucketId) -> Siblings {
        let (mut pages, mut answers) = (StatePages::default(), 0);
        loop {
            let request = self.ask(i, Ask::GetState(GetState { bucket, key: key(), r: None, shown: pages.shown() }));
            self.settle();
            let Some(Response::State(page)) = self.reply(request).cloned() else { panic!("{:?}", self.reply(request)) };
            answers += 1;
            assert!(answers < 100, "it comes to an end");
            match pages.turn(page) {
                Turned::Whole(state) => return state,
                Turned::More => {}
                Turned::Misread => panic!("it makes no state"),
            }
        }
    }

    fn merge_state(&mut self, i: usize, bucket: BucketId, state: &Siblings, w: Option<u8>) -> u64 {
        self.ask(i, Ask::MergeState(MergeState { bucket, key: key(), state: state.clone(), w }))
    }

    fn merged(&mut self, i: usize, bucket: BucketId, state: &Siblings) -> u8 {
        let request = self.merge_state(i, bucket, state, None);
        self.settle();
        match self.reply(request) {
            Some(Response::Merged(merged)) => merged.acks,
            other => panic!("expected Merged, got {other:?}"),
        }
    }
}

#[test]
fn what_was_known_once_takes_nothing_back_and_brings_back_what_is_lost() {
    for bucket in [SIBLINGS, LWW, STRICT, BUFFERED] {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(bucket, "old", None));
        let old = trio.state(1, bucket);
        let read = trio.read(0, bucket, 2);
        trio.put_and_settle(0, put(bucket, "new", read.context));
        let newer = trio.state(1, bucket);
        assert!(trio.merged(2, bucket, &old) >= 2);
        assert_eq!(values(&trio.read(1, bucket, 3)), ["new"]);
        assert_eq!(trio.state(1, bucket), newer, "it knew all of that");

        let read = trio.read(0, bucket, 3);
        let request = trio.ask(0, delete(bucket, read.context));
        trio.settle();
        assert!(matches!(trio.reply(request), Some(Response::Deleted(deleted)) if deleted.existed));
        assert!(trio.merged(2, bucket, &newer) >= 2);
        assert_eq!(values(&trio.read(1, bucket, 3)), [""; 0], "what is deleted stays so");

        // Another cluster, or this one after it has lost everything.
        let mut other = Trio::new();
        assert!(other.merged(2, bucket, &newer) >= 2);
        assert_eq!(other.merged(0, bucket, &old), other.merged(1, bucket, &newer), "again and in any order");
        assert_eq!((0..3).map(|i| other.holds(i, bucket)).collect::<Vec<_>>(), vec![newer.clone(); 3]);
        assert_eq!(other.state(0, bucket), newer);
        let read = other.read(0, bucket, 2);
        other.put_and_settle(1, put(bucket, "after", read.context));
        assert_eq!(values(&other.read(2, bucket, 3)), ["after"], "it is replaced as any other value");
    }
}

#[test]
fn a_state_that_does_not_fit_into_an_answer_comes_in_several_and_is_that_of_the_last() {
    let mut trio = Trio::with_limits(Limits { read_page_bytes: 300, ..Limits::default() });
    let values: [&str; 5] = ["one", "two", "three", "four", "five"];
    for value in values {
        trio.put_and_settle(0, put(SIBLINGS, value, None));
    }
    let whole = trio.holds(0, SIBLINGS);
    assert_eq!(whole.live().len(), 5);
    assert_eq!(trio.state(1, SIBLINGS), whole);
    // Somebody replaces all of it between two answers.
    let request = trio.ask(1, Ask::GetState(GetState { bucket: SIBLINGS, key: key(), r: None, shown: Vec::new() }));
    trio.settle();
    let Some(Response::State(first)) = trio.reply(request).cloned() else { panic!("it is one") };
    assert!(first.vv.is_none() && first.live.len() < 5);
    let read = trio.read(0, SIBLINGS, 3);
    trio.put_and_settle(0, put(SIBLINGS, "all", read.context));
    let shown: Vec<Dot> = first.live.iter().map(|(dot, _)| *dot).collect();
    let request = trio.ask(2, Ask::GetState(GetState { bucket: SIBLINGS, key: key(), r: None, shown: shown.clone() }));
    trio.settle();
    let Some(Response::State(last)) = trio.reply(request).cloned() else { panic!("it is one") };
    assert_eq!((last.gone, last.vv.as_ref()), (shown, Some(trio.holds(0, SIBLINGS).vv())));
    assert_eq!(last.live.len(), 1);
}

/// Both stamps of a write that two coordinators have made: a reader sees one value, and who puts it back needs both.
#[test]
fn two_stamps_of_one_write_are_both_in_the_state() {
    let mut trio = Trio::new();
    let twice = put_with_id(SIBLINGS, "v", None, WriteId(5));
    let (first, second) = (trio.ask(0, twice.clone()), trio.ask(1, twice));
    trio.settle();
    assert!(matches!((trio.reply(first), trio.reply(second)), (Some(Response::Stored(_)), Some(Response::Stored(_)))));
    assert_eq!(trio.read(2, SIBLINGS, 3).siblings.len(), 1);
    assert_eq!(trio.state(2, SIBLINGS).live().len(), 2);
}

#[test]
fn a_deleted_key_has_a_state_and_one_that_nobody_has_written_an_empty_one() {
    let mut trio = Trio::new();
    assert!(trio.state(0, SIBLINGS).is_empty());
    trio.put_and_settle(0, put(SIBLINGS, "v", None));
    let context = trio.read(0, SIBLINGS, 2).context;
    trio.ask(0, delete(SIBLINGS, context));
    trio.settle();
    let state = trio.state(1, SIBLINGS);
    assert!(state.live().iter().all(|(_, version)| version.is_tombstone()) && !state.is_empty());
    let mut other = Trio::new();
    assert!(other.merged(0, SIBLINGS, &Siblings::new()) >= 2, "of nothing, nothing comes");
    assert!(other.holds(0, SIBLINGS).is_empty());
}

#[test]
fn it_is_acknowledged_by_w_owners_or_its_outcome_is_said_truly() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v", None));
    let state = trio.state(0, SIBLINGS);

    let mut other = Trio::new();
    other.cut_off(1);
    other.cut_off(2);
    let request = other.merge_state(0, SIBLINGS, &state, None);
    assert!(matches!(other.failure(request), Failure::Refused(Refusal::NotEnoughReplicas { needed: 2, available: 1 })));
    assert!(other.holds(0, SIBLINGS).is_empty(), "refused is refused");

    let mut other = Trio::new();
    let request = other.merge_state(0, SIBLINGS, &state, Some(3));
    other.deliver();
    // Two are lost while they may have it.
    other.cut_off(1);
    other.cut_off(2);
    other.sync(0);
    assert!(matches!(other.failure(request), Failure::Unknown(Unknown::Timeout { needed: 3, .. })));
    assert_eq!(other.holds(0, SIBLINGS), state);
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(STRICT, "v", None));
    let state = trio.state(0, STRICT);
    let mut other = Trio::new();
    let request = other.merge_state(0, STRICT, &state, None);
    other.deliver_all();
    assert_eq!(other.reply(request), None, "applied, and not synced");
    other.sync(0);
    assert_eq!(other.reply(request), None, "one of two");
    other.sync(1);
    other.settle();
    assert!(matches!(other.reply(request), Some(Response::Merged(_))));
}

#[test]
fn what_no_cluster_can_have_known_is_refused_before_anybody_is_asked() {
    let mut trio = Trio::new();
    let version = |written_at| Version { value: Some(Bytes::from_static(b"v")), write_id: WriteId(0), written_at };
    let dot = Dot::new(ActorId(9), 1);
    let of_the_next_century = Siblings::from_parts([dot].into_iter().collect(), vec![(dot, version(Hlc(u64::MAX)))]);
    let request = trio.merge_state(0, SIBLINGS, &of_the_next_century.expect("a state"), None);
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::BadRequest(_))));
    assert!(trio.wire.is_empty() && trio.holds(0, SIBLINGS).is_empty());
    let request = trio.merge_state(0, SIBLINGS, &Siblings::new(), Some(4));
    assert!(matches!(trio.failure(request), Failure::Refused(_)), "there are three");
}
