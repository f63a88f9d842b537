//! A replica whose disk is set back must not name two writes alike.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "reused-dot",
    title: "A disk set back, and the next write",
    story: "B has stamped two writes. Its disk is set back to before the second. The next write it takes must not be called \
        `b2`: that name is taken, and all others would think they have seen it.",
    setting: Setting::PLAIN,
    play,
    sloppy: "the new write is kept, beside what the disk had forgotten",
    strict: "the same",
    remedy: "nothing; but see the one before",
    answer: "A store takes new actors at every start, because a start cannot know whether it is on an older disk. Bob's write \
        is `b′1`, which nobody has seen. The others hold blue as well, so that a read shows both, and blue was not lost \
        with B's disk either.",
    others: "Riak reused the name (issue 679, reported 2013): the other replicas covered it, dropped the acknowledged write, and \
        read repair removed the last copy. Actors with epochs fixed the first cases in 2.1, the last in 2017.",
    sources: &[
        ("riak_kv #679", "https://github.com/basho/riak_kv/issues/679"),
        ("riak_kv pull request 1094", "https://github.com/basho/riak_kv/pull/1094"),
        ("riak_kv pull request 1643", "https://github.com/basho/riak_kv/pull/1643"),
    ],
    advice: "Do not start nodes on old disks all the same: see `restored-replica`.",
    broken_by: &[Bug::ActorKeptAfterRollback],
};

fn play(w: &mut World) {
    let red = w.quietly(|w| w.ask(BOB, B, put("red")));
    w.scene("A, B and C hold red@b1");
    let yesterday = w.backup(B);
    let blue = w.ask(ANN, B, put("blue").having(red));
    w.stop(B, "dies; its disk is set back to before blue");
    w.restore(B, yesterday);
    w.start(B, "is back");
    w.look(B);
    let green = w.ask(BOB, B, put("green").having(red));
    w.check(w.is_stored(blue) && w.is_stored(green), "both puts are acknowledged");
    let read = w.ask(ANN, A, get());
    w.check(w.shows(read, &["blue", "green"]), "and both are read");
}
