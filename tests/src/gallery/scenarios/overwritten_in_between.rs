//! The documented exception: a put stamped twice, of which one stamp was overwritten before the other arrived.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put, retry};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "overwritten-in-between",
    title: "One put, two coordinators, and a writer in between",
    story: "A has stamped Ann's put when it is cut off; her client repeats it at B, which stamps it as well. Bob reads what B \
        stamped and replaces it. Only then is A back, with its stamp of the same put.",
    setting: Setting::PLAIN,
    play,
    sloppy: "Ann's value again, beside Bob's: a false sibling",
    strict: "the same: this is the documented exception to \"one put, one value\"",
    remedy: "resolvers that cope with a replaced value",
    answer: "Bob's context could not cover a stamp that nobody had shown him. To the replicas it is a write that he has not seen, \
        and such a write is never dropped. Nothing is lost; a value that Bob replaced is back beside his, and stays until \
        somebody replaces both.",
    others: "The same in every system that lets more than one node name a write. Systems that agree on each write first do not \
        have it, and do not take writes while a majority is away.",
    sources: &[("riak_kv #1188", "https://github.com/basho/riak_kv/issues/1188")],
    advice: "Resolvers must cope with a value that was replaced: keep in the value itself what tells old from new where it \
        matters, and merge as sets do.",
    broken_by: &[],
};

fn play(w: &mut World) {
    let write = w.begin(ANN, A, put("red"));
    w.scene("A is cut off from B and C; Ann's client asks B");
    w.cut(&[A], &[B, C]);
    let again = w.ask(ANN, B, retry(write));
    w.check(w.is_stored(again), "the retry is acknowledged");
    let read = w.ask(BOB, C, get());
    let next = w.ask(BOB, C, put("blue").having(read));
    w.check(w.shows(read, &["red"]) && w.is_stored(next), "Bob has read red and replaced it");

    w.mend();
    w.for_clients(|w| {
        w.wait(Duration::from_secs(6), "A is back; some seconds later all have delivered their hints");
    });
    w.look(B);
    let after = w.for_clients(|w| w.ask(BOB, B, get()));
    w.check(w.shows(after, &["blue", "red"]), "red is back, beside blue");
    w.for_clients(|w| w.ask(BOB, B, put("blue").having(after)));
    let last = w.for_clients(|w| w.ask(ANN, C, get()));
    w.check(w.shows(last, &["blue"]), "a put that has read both ends it");
}
