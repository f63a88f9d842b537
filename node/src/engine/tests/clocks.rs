//! Clocks that are wrong, and what was stamped by them.

use driftless_proto::{ActorId, Dot};

use super::*;
use crate::liveness::clocks::{self, ClockSettings, Clocks};
use crate::peer::Purpose;

const DAY: Duration = Duration::from_secs(86_400);

impl Trio {
    /// Sets all clocks.
    fn set_clocks(&mut self, wall: Hlc) {
        self.now.wall = wall;
    }

    fn ahead_by(&mut self, time: Duration) -> Hlc {
        let right = self.now.wall;
        self.set_clocks(Hlc::from_millis(right.millis() + time.as_millis() as u64));
        right
    }

    /// Writes at a coordinator whose clock is so far ahead, unnoticed, and sets it right.
    fn put_in_the_future(&mut self, bucket: BucketId, value: &'static str) -> Stored {
        let right = self.ahead_by(DAY);
        let stored = self.put_and_settle(0, put(bucket, value, None));
        self.set_clocks(right);
        stored
    }

    /// A state that a peer sends.
    fn merge(&mut self, to: usize, bucket: BucketId, written_at: Hlc) {
        let mut siblings = Siblings::new();
        let version = Version { value: Some(Bytes::from_static(b"theirs")), write_id: WriteId(9), written_at };
        siblings.event(&VersionVector::new(), Dot::new(ActorId(u64::MAX), 1), version);
        let merge = Merge { bucket, key: key(), siblings, hint_for: None, purpose: Purpose::Write };
        self.tell((to + 1) % 3, to, 4711 * 4, Request::Replica(ReplicaRequest::Merge(merge)));
        self.settle();
    }

    fn stamped_ahead(&self) -> u64 {
        self.engines.iter().map(|engine| engine.shard.metrics.stamps_ahead.get()).sum()
    }
}

/// A key written by a clock a day ahead refused puts with and without context, and deletes, at every node until real time had
/// caught up; in buckets of siblings too, where no time decides anything.
#[test]
fn what_a_wrong_clock_has_written_freezes_no_key() {
    for bucket in [SIBLINGS, LWW, STRICT] {
        for other in 0..3 {
            let mut trio = Trio::new();
            trio.put_in_the_future(bucket, "future");
            // With what was read, without, and a delete of either kind.
            let context = trio.read(other, bucket, 3).context;
            assert!(context.is_some());
            trio.put_and_settle(other, put(bucket, "later", context));
            assert_eq!(values(&trio.read(1, bucket, 3)), ["later"]);
            trio.put_and_settle(other, put(bucket, "blind", None));
            let shown = if bucket == LWW { vec!["blind"] } else { vec!["blind", "later"] };
            let mut read = values(&trio.read(1, bucket, 3)).into_iter().map(str::to_owned).collect::<Vec<_>>();
            read.sort();
            assert_eq!(read, shown);
            let context = trio.read(other, bucket, 3).context;
            for context in [context, None] {
                let request = trio.ask(other, delete(bucket, context));
                trio.settle();
                assert!(matches!(trio.reply(request), Some(Response::Deleted(_))), "{:?}", trio.reply(request));
                assert!(values(&trio.read(1, bucket, 3)).is_empty());
            }
            assert!(trio.stamped_ahead() >= 2, "and it is counted");
        }
    }
}

#[test]
fn stamps_by_right_clocks_are_not_counted_as_ahead() {
    let mut trio = Trio::new();
    for value in ["v1", "v2", "v3"] {
        trio.put_and_settle(0, put(LWW, value, None));
    }
    assert_eq!(trio.stamped_ahead(), 0);
}

#[test]
fn a_state_from_the_future_is_merged_like_any_other() {
    let mut trio = Trio::new();
    for i in 0..3 {
        trio.merge(i, LWW, Hlc::from_millis(trio.now.wall.millis() + 2 * DAY.as_millis() as u64));
    }
    assert_eq!(values(&trio.read(0, LWW, 3)), ["theirs"]);
    trio.put_and_settle(1, put(LWW, "blind", None));
    assert_eq!(values(&trio.read(2, LWW, 3)), ["blind"], "it was stamped above what its coordinator holds");
}

#[test]
fn at_the_end_of_time_writes_still_replace_what_was_read_and_what_is_held() {
    for bucket in [SIBLINGS, LWW] {
        let mut trio = Trio::new();
        trio.set_clocks(Hlc(u64::MAX));
        (0..3).for_each(|i| trio.merge(i, bucket, Hlc(u64::MAX)));
        let context = trio.read(0, bucket, 3).context;
        trio.put_and_settle(0, put(bucket, "later", context));
        assert_eq!(values(&trio.read(1, bucket, 3)), ["later"]);
        assert_eq!(trio.holds(1, bucket).written_at(), Hlc(u64::MAX), "it does not wrap");
    }
    // Without a context the dots would decide: those of this state are above all others.
    let mut trio = Trio::new();
    trio.set_clocks(Hlc(u64::MAX));
    (0..3).for_each(|i| trio.merge(i, LWW, Hlc(u64::MAX)));
    for (node, value) in [(0, "one"), (1, "two"), (2, "three")] {
        trio.put_and_settle(node, put(LWW, value, None));
        assert_eq!(values(&trio.read((node + 1) % 3, LWW, 3)), [value]);
    }
    let request = trio.ask(0, delete(LWW, None));
    trio.settle();
    assert!(matches!(trio.reply(request), Some(Response::Deleted(Deleted { existed: true, .. }))));
    assert!(values(&trio.read(1, LWW, 3)).is_empty());
}

#[test]
fn of_equal_times_the_dots_decide_alike_on_every_node() {
    let mut trio = Trio::new();
    trio.set_clocks(Hlc(u64::MAX));
    trio.ask(0, put(LWW, "v1", None));
    trio.ask(1, put(LWW, "v2", None));
    trio.settle();
    let states: Vec<Siblings> = (0..3).map(|i| trio.holds(i, LWW)).collect();
    assert_eq!(states[0].live().len(), 1);
    assert!(states.iter().all(|state| *state == states[0]));
}

/// What the two others make of the time, said to one engine.
fn bounds(trio: &Trio) -> Option<clocks::ClockBounds> {
    let (me, ids) = (trio.id(0), trio.ids());
    let settings = ClockSettings { off_max: trio.limits.clock_off_max };
    let mut clocks: Vec<Clocks> = ids.iter().map(|id| Clocks::new(*id, ids.clone(), settings)).collect();
    for _ in 0..2 {
        for peer in 1..3 {
            let ping = clocks[0].seal(trio.now, ids[peer], b"");
            clocks[peer].open(trio.now, me, &ping).expect("is a stamp");
            let pong = clocks[peer].seal(trio.now, me, b"");
            clocks[0].open(trio.now, ids[peer], &pong).expect("is a stamp");
        }
    }
    std::iter::from_fn(|| clocks[0].poll_output())
        .filter_map(|output| match output {
            clocks::Output::Bounds(bounds) => Some(bounds),
            clocks::Output::Changed(_) => None,
        })
        .last()
        .expect("they are heard")
}

#[test]
fn a_node_whose_clock_is_off_stamps_nothing_and_goes_on_once_it_is_right() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "before", None));
    let before = trio.holds(0, SIBLINGS);
    let bounds = bounds(&trio);
    assert!(bounds.is_some(), "two others are enough to tell");
    trio.engines[0].handle_clock(bounds);
    let right = trio.ahead_by(DAY);
    let context = trio.read(0, SIBLINGS, 3).context;
    for ask in [
        put(SIBLINGS, "v", None),
        put(LWW, "v", None),
        put(SIBLINGS, "w", context.clone()),
        delete(SIBLINGS, context),
        delete(SIBLINGS, None),
    ] {
        let request = trio.ask(0, ask);
        trio.settle();
        assert_eq!(trio.failure(request), Failure::Refused(Refusal::ClockOff { ahead_ms: DAY.as_millis() as i64 }));
    }
    assert_eq!(trio.holds(0, SIBLINGS), before, "before anything was stamped");
    // It still reads, and takes in what others stamp.
    trio.put_and_settle(1, put(SIBLINGS, "elsewhere", None));
    assert_eq!(values(&trio.read(0, SIBLINGS, 3)).len(), 2);
    trio.set_clocks(right);
    trio.put_and_settle(0, put(SIBLINGS, "after", None));
    trio.engines[0].handle_clock(None);
    trio.ahead_by(DAY);
    trio.put_and_settle(0, put(SIBLINGS, "alone", None));
}

/// The delete has read while the clock was right; what it read is not removed by a stamp of the wrong clock.
#[test]
fn a_delete_under_way_is_refused_when_the_clock_jumps() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "v", None));
    let bounds = bounds(&trio);
    trio.engines[0].handle_clock(bounds);
    let request = trio.ask(0, delete(SIBLINGS, None));
    trio.ahead_by(DAY);
    trio.settle();
    assert!(matches!(trio.failure(request), Failure::Refused(Refusal::ClockOff { .. })));
    assert_eq!(values(&trio.read(1, SIBLINGS, 3)), ["v"]);
}
