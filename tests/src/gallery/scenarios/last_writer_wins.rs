//! What a bucket gives up that lets the clock decide.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;
use driftless_proto::Conflict;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "last-writer-wins",
    title: "A bucket where the last writer wins",
    story: "The same clocks and the same two writes, in a bucket with `conflict = \"lww\"`. Bob's is acknowledged and discarded. Then he \
        reads, and writes with a context, still at the node with the slow clock.",
    setting: Setting { conflict: Conflict::Lww, ..Setting::PLAIN },
    play,
    sloppy: "a blind write with an older time is discarded, and counted; one with a context is not",
    strict: "the same",
    remedy: "choose `lww` only for values that a newer one makes worthless",
    answer: "The bucket's owner chose one value over all values, so one is dropped; each drop is counted in \
        `lww_discarded_total` (on every replica that does it, so the sum is an upper bound). The times are hybrid logical \
        clocks: what a writer has read is always older than what it writes, whatever its coordinator's clock says, so that \
        read-modify-write works even here.",
    others: "In Cassandra an update after a read can still lose to the value that was read if its timestamp is smaller: \
        timestamps come from clients' clocks and know nothing of what was read. Nothing counts what was dropped.",
    sources: &[
        (
            "Query timestamps (Cassandra)",
            "https://docs.datastax.com/en/datastax-drivers/developing/query-timestamps.html",
        ),
        ("Jepsen: Cassandra", "https://aphyr.com/posts/294-call-me-maybe-cassandra"),
    ],
    advice: "Choose `lww` only for values that are worthless once there is a newer one, write with contexts, and watch \
        `lww_discarded_total`.",
    broken_by: &[Bug::StampBeforeContext],
};

fn play(w: &mut World) {
    w.set_clock(B, -30);
    w.note(B, "B's clock is 30 s behind");
    w.begin(ANN, A, put("red"));
    w.hold(A, B);
    w.for_clients(World::deliver);
    let blind = w.ask(BOB, B, put("blue"));
    let read = w.for_clients(|w| w.ask(BOB, C, get()));
    w.check(w.is_stored(blind) && w.shows(read, &["red"]), "Bob's blind put is acknowledged, and gone");
    w.check(w.discarded() >= 1, "the loss is counted");

    let informed = w.for_clients(|w| w.ask(BOB, B, put("green").having(read)));
    w.arrive(A, B);
    let after = w.for_clients(|w| w.ask(ANN, A, get()));
    w.look(B);
    w.check(w.is_stored(informed) && w.shows(after, &["green"]), "his put after a read wins, at the same slow clock");
    w.check(w.written_at(after) > w.written_at(read), "and is dated later than what he had read");
}
