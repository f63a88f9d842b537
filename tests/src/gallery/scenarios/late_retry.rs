//! A retry that arrives after its first attempt was stored, read and replaced.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put, retry};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "late-retry",
    title: "The retry that comes too late",
    story: "Ann's put is stored everywhere, but the answer is lost. Bob reads her value and replaces it. Then her client tries \
        again: first at A, which took the put, and then at C, which did not.",
    setting: Setting::PLAIN,
    play,
    sloppy: "at the node that took it: recognised, nothing comes back. Elsewhere: a false sibling",
    strict: "the same",
    remedy: "resolvers that cope with a replaced value",
    answer: "A remembers the write ids that it has stamped, for five minutes or its newest 131,072 writes: it answers that the put \
        is stored, which it was, and brings nothing back. C knows only what it holds, and what it holds has no write with this \
        id any more. It stamps a new one, and red stands beside blue: the other way round of the exception above.",
    others: "Cassandra's retry carries the timestamp that the driver gave it, and loses to blue if the clocks are right; an update \
        that depends on the value read is not safe to retry there. Riak's retry is a sibling at any node, at once.",
    sources: &[
        (
            "Query timestamps (Cassandra)",
            "https://docs.datastax.com/en/datastax-drivers/developing/query-timestamps.html",
        ),
        (
            "Retries and idempotence (Cassandra, draft)",
            "https://pmcfadin.github.io/cassandra6-docs-workzone/developers/draft/guides/retries-and-idempotence.html",
        ),
        ("riak-python-client #282", "https://github.com/basho/riak-python-client/issues/282"),
    ],
    advice: "The client crate goes back to a node that answered \"unknown\" and leaves one that says nothing, so that this can \
        happen to it too; it takes somebody who reads and writes the key within its patience. Give requests deadlines of \
        seconds, not minutes, and resolve as above.",
    broken_by: &[Bug::RetryDuplicates],
};

fn play(w: &mut World) {
    let write = w.quietly(|w| {
        let write = w.begin(ANN, A, put("red"));
        w.deliver_until_answered(write);
        write
    });
    w.scene("Ann has put red at A; A, B and C hold red@a1");
    w.lose(A, ANN);
    w.quietly(World::deliver);
    let (read, replaced) = w.for_clients(|w| {
        let read = w.ask(BOB, B, get());
        (read, w.ask(BOB, B, put("blue").having(read)))
    });
    w.check(w.shows(read, &["red"]) && w.is_stored(replaced), "Bob has read red and replaced it");

    w.scene("no answer: Ann's client asks A again");
    let again = w.begin(ANN, A, retry(write));
    w.deliver_until_answered(again);
    w.lose(A, ANN);
    w.deliver();
    w.look(A);
    w.check(w.live(A) == 1, "A recognises the put, and brings nothing back");

    w.scene("still no answer, as far as she knows: it asks C");
    let again = w.ask(ANN, C, retry(write));
    w.check(w.is_stored(again), "C acknowledges it");
    let read = w.for_clients(|w| w.ask(BOB, A, get()));
    w.check(w.shows(read, &["blue", "red"]), "but did not recognise it: red is back, beside blue");
}
