//! A clock that is behind, and a write that is not lost.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-skew",
    title: "The write from a slow clock",
    story: "The clock of B is 30 seconds behind. Ann writes at A; her value has not reached B when Bob, who has not read it, writes \
        there, a moment later. By the clocks, his write is half a minute older than hers.",
    setting: Setting::PLAIN,
    play,
    sloppy: "both values: no clock decides between them",
    strict: "the same",
    remedy: "nothing; NTP all the same",
    answer: "Bob's value is a sibling of Ann's, as it would be with right clocks. Times are recorded for people to look at, and \
        decide nothing. A node whose clock is more than a minute from those of most others takes no writes and says so, so \
        that one wrong clock is noticed instead of spreading.",
    others: "With timestamps deciding, an acknowledged write from a slow clock disappears at once and without a trace; so does \
        everybody's next write after one from a clock that is ahead. Cassandra's drivers stamp on the client by \
        default, so that the clocks that matter are those of all clients.",
    sources: &[
        (
            "Query timestamps (Cassandra)",
            "https://docs.datastax.com/en/datastax-drivers/developing/query-timestamps.html",
        ),
        ("The trouble with timestamps", "https://aphyr.com/posts/299-the-trouble-with-timestamps"),
    ],
    advice: "Run NTP all the same, for the times people see and for buckets that chose last-writer-wins.",
    broken_by: &[Bug::LastWriteWins],
};

fn play(w: &mut World) {
    w.set_clock(B, -30);
    w.note(B, "B's clock is 30 s behind");
    let ann = w.begin(ANN, A, put("red"));
    w.hold(A, B);
    w.deliver();
    w.wait(Duration::from_millis(100), "a moment later");
    let bob = w.ask(BOB, B, put("blue"));
    w.arrive(A, B);
    let read = w.ask(BOB, C, get());
    w.check(w.is_stored(ann) && w.is_stored(bob), "both are acknowledged");
    w.check(w.shows(read, &["blue", "red"]), "and both are read");
}
