//! A stand-in that gives away what it has stamped, and stamps the same key again.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, D, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stand-in-forgets",
    title: "A stand-in that forgets what it stamped",
    story: "D can reach none of the key's replicas, and takes Ann's put for them. It hands the value over when they are back, and \
        keeps nothing. Then it is cut off again, and takes Bob's put, who has read nothing.",
    setting: Setting { nodes: 4, ..Setting::PLAIN },
    play,
    sloppy: "both values: the second stamp belongs to a new actor",
    strict: "refused: a stand-in takes nothing",
    remedy: "nothing",
    answer: "`d2` would say that `d1` has been seen, by the rules of version vectors, while D's state no longer shows it: the \
        others would take red for replaced, by somebody who never read it. So the batch that removes the delivered hint also \
        retires the actor, and Bob's write is `d′1`.",
    others: "Riak numbered the writes of each key from 1 again once a vnode no longer held it (\"key amnesia\"): the new write \
        was called as an old one was, and vanished under it. Epochs per key and actor fixed that.",
    sources: &[
        ("riak_kv pull request 1094", "https://github.com/basho/riak_kv/pull/1094"),
        ("riak_kv pull request 1643", "https://github.com/basho/riak_kv/pull/1643"),
    ],
    advice: "Nothing.",
    broken_by: &[Bug::ActorKeptWithHintsRemoved],
};

fn play(w: &mut World) {
    w.scene("D is cut off from A, B and C, and Ann and Bob reach only D");
    w.cut(&[D], &[A, B, C]);
    let red = w.ask(ANN, D, put("red").w(1));
    w.mend();
    w.wait(Duration::from_secs(6), "D is back; some seconds later it has handed over what it holds");

    w.scene("D is cut off again");
    w.cut(&[D], &[A, B, C]);
    let blue = w.ask(BOB, D, put("blue").w(1));
    w.mend();
    w.for_clients(|w| w.wait(Duration::from_secs(6), "D is back, and hands over again"));
    w.look(A);
    let read = w.ask(ANN, B, get());
    w.check(w.is_stored(red) && w.is_stored(blue), "both puts are acknowledged");
    w.check(w.shows(read, &["blue", "red"]), "and both are read");
    w.check(w.agree(&[A, B, C]), "on every replica");
}
