//! Two writers who have not read each other.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "concurrent-writes",
    title: "Two writers who have not read each other",
    story: "Ann and Bob both read red, and both replace it, at different nodes. Both puts are acknowledged. Neither has seen \
        the other.",
    setting: Setting::PLAIN,
    play,
    sloppy: "both values, as siblings, until somebody who has read both replaces them",
    strict: "the same: concurrent is not a matter of quorums",
    remedy: "read, merge, write with the context",
    answer: "Both values are kept and shown together. Which one a clock would call later does not matter. A put with the \
        context of that read replaces both at once, everywhere.",
    others: "Cassandra keeps the cell with the larger timestamp and drops the other. Riak keeps siblings if `allow_mult` is on, \
        and otherwise resolves by time; with last-write-wins a Jepsen test lost 30 to 70 % of acknowledged writes.",
    sources: &[
        (
            "Query timestamps (Cassandra)",
            "https://docs.datastax.com/en/datastax-drivers/developing/query-timestamps.html",
        ),
        ("Jepsen: Riak", "https://aphyr.com/posts/285-call-me-maybe-riak"),
        ("Riak, Conflict Resolution", "https://docs.riak.com/riak/kv/2.1.4/developing/usage/conflict-resolution/"),
    ],
    advice: "Read before you write, and write with the context. Be ready for more than one value: the client crate takes a \
        resolver; on the command line `get` shows all of them with one context.",
    broken_by: &[Bug::LastWriteWins],
};

fn play(w: &mut World) {
    let red = w.given("red");
    let ann = w.begin(ANN, A, put("blue").having(red));
    let bob = w.begin(BOB, B, put("green").having(red));
    w.deliver();
    w.check(w.is_stored(ann) && w.is_stored(bob), "both puts are acknowledged");

    let read = w.ask(ANN, C, get());
    w.check(w.shows(read, &["blue", "green"]), "a read shows both");
    let merged = w.for_clients(|w| w.ask(ANN, C, put("teal").having(read)));
    let after = w.for_clients(|w| w.ask(BOB, A, get()));
    w.look(B);
    w.check(w.is_stored(merged) && w.shows(after, &["teal"]), "a put with that read's context replaces both");
}
