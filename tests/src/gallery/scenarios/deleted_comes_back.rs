//! A replica that missed a delete, and returns after everybody has forgotten about it.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{delete, get};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "deleted-comes-back",
    title: "Deleted, and back after eleven days",
    story: "C holds the value and dies. The value is deleted. Eleven days later C is back, with its old disk, and is read.",
    setting: Setting::PLAIN,
    play,
    sloppy: "nothing: the tombstone is still there and covers the old value",
    strict: "the same",
    remedy: "nothing",
    answer: "The tombstone has seen the value's dot, so that merging the two leaves the tombstone, in whatever order they \
        meet. Tombstones are not removed by age, because no age says that every old copy is gone. That costs space: today they \
        are kept for ever.",
    others: "Cassandra drops tombstones after `gc_grace_seconds`, ten days unless changed; a replica that was away for longer and \
        is not rebuilt or repaired in time brings the data back. Riak's `delete_mode` removes tombstones after three seconds \
        by default, once it has seen them on all replicas, and can keep them instead.",
    sources: &[
        (
            "Tombstones: zombies (Cassandra)",
            "https://cassandra.apache.org/doc/latest/cassandra/managing/operating/compaction/tombstones.html",
        ),
        ("Riak, Object Deletion", "https://docs.riak.com/riak/kv/2.0.4/using/reference/object-deletion"),
    ],
    advice: "Nothing. Watch disks where keys are deleted at a high rate and never used again.",
    broken_by: &[Bug::TimerReaping],
};

fn play(w: &mut World) {
    let red = w.given("red");
    w.stop(C, "dies");
    let gone = w.ask(ANN, A, delete().having(red));
    w.wait(Duration::from_secs(11 * 24 * 3600), "eleven days later");
    w.start(C, "is back, with its old disk");
    w.look(C);
    let read = w.ask(BOB, C, get());
    w.check(w.is_stored(gone), "the delete is acknowledged by two of three");
    w.check(w.shows(read, &[]), "Bob, who asks the replica that missed it, reads nothing");
    w.look(C);
    w.quietly(|w| w.wait(Duration::from_secs(6), "hints"));
    w.check(w.agree(&[A, B, C]), "C has the tombstone now");
}
