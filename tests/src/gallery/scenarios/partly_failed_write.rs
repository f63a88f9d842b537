//! A write that its client was told nothing certain about, and that appears later.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put, retry};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partly-failed-write",
    title: "The write that failed, and appears",
    story: "A writes Ann's value on its own disk and is cut off before B or C get it. Ann is told that one of two replicas \
        answered. Readers see nothing of it; when A is back, they do. Ann, who could not know, tries again.",
    setting: Setting::PLAIN,
    play,
    sloppy: "unknown; the value may appear later; the retry makes no second one",
    strict: "the same: strict quorums do not take back what one replica has written",
    remedy: "read the key, or repeat with the same write id",
    answer: "\"Unknown\", which is a different answer from \"refused\": the write may be on some replicas, and may spread. \
        There is no undo, since other replicas may have passed it on already. Ann's retry carries the same write id, so A \
        recognises it, stamps nothing, and counts anew.",
    others: "Cassandra's WriteTimeoutException means the same: not rolled back, may be applied. A retried put in Riak is a new \
        write and becomes a sibling of the first; its Python client has an issue that asks to turn retries of puts off for \
        that reason.",
    sources: &[
        ("Cassandra error handling done right", "https://www.datastax.com/blog/cassandra-error-handling-done-right"),
        ("riak-python-client #282", "https://github.com/basho/riak-python-client/issues/282"),
    ],
    advice: "Treat exit code 4 (*unknown*) as a question: read the key, or repeat the request. The client crate repeats it by \
        itself while its deadline lasts; programs that repeat it themselves keep the write id.",
    broken_by: &[Bug::RetryDuplicates],
};

fn play(w: &mut World) {
    let write = w.begin(ANN, A, put("red"));
    w.scene("A is cut off from B and C");
    w.cut(&[A], &[B, C]);
    let before = w.ask(BOB, B, get().strict());
    w.check(w.is_unknown(write), "Ann is told that the outcome is unknown");
    w.check(w.shows(before, &[]), "Bob reads nothing of it, strictly");

    w.mend();
    w.wait(Duration::from_secs(6), "A is back; 6 seconds pass");
    let after = w.ask(BOB, B, get().strict());
    w.check(w.shows(after, &["red"]), "later the value is there, though nobody wrote it again");

    let again = w.ask(ANN, A, retry(write));
    w.look(A);
    w.check(w.is_stored(again), "Ann's retry is acknowledged");
    w.check(w.live(A) == 1, "it was not stamped again: one write, one value");
}
