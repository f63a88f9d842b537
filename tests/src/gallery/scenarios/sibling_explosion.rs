//! Two clients that are always one write behind each other.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, BOB, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sibling-explosion",
    title: "Siblings that do not explode",
    story: "Ann and Bob both read and write the key all the time, always with a context, and always one write behind the other. \
        Each put replaces what its writer has seen, and not the other's latest.",
    setting: Setting::PLAIN,
    play,
    sloppy: "two siblings, however long it goes on",
    strict: "the same",
    remedy: "always write with a context",
    answer: "Every write is a dot of its own, and a context names the dots it has seen. Each put removes exactly those: the \
        writer's own last value and the other's last but one. Two are left, after four puts as after five hundred.",
    others: "With one version vector for the whole set of siblings a stale context dominates nothing, so that nothing is ever \
        removed: Riak before 2.0 called that sibling explosion, and Riak CS added a read before its writes to soften it. Riak \
        2.0 brought dotted version vectors.",
    sources: &[
        ("riak_cs pull request 1011", "https://github.com/basho/riak_cs/pull/1011"),
        ("An experiment with both kinds of vectors", "https://gist.github.com/ricardobcl/4992839"),
        ("Dotted version vectors", "https://github.com/ricardobcl/Dotted-Version-Vectors"),
    ],
    advice: "Always write with a context. `siblings_read_total / reads_found_total` well above 1 shows clients that do not; a \
        key takes at most 64 siblings, then puts are refused.",
    broken_by: &[Bug::FalseSiblings],
};

fn play(w: &mut World) {
    let mut ann = w.given("red");
    let mut bob = ann;
    let mut most = 0;
    for round in 0..250 {
        let behind = |w: &mut World| {
            // Each reads, and the other's next put comes in between.
            ann = w.ask(ANN, A, get());
            w.ask(BOB, A, put("bob's").having(bob));
            bob = w.ask(BOB, A, get());
            w.ask(ANN, A, put("ann's").having(ann));
            most = most.max(w.live(A));
        };
        if round < 2 { w.for_clients(behind) } else { w.quietly(behind) }
    }
    w.scene("and so on, five hundred puts in all");
    w.look(A);
    w.check(most == 2, "there were never more than two siblings");
}
