//! A read that meets a write half way, and one that does not.

use crate::gallery::Scenario;
use crate::gallery::ask::{Ask, get, put};
use crate::gallery::story::Lane;
use crate::gallery::world::{A, ANN, B, BOB, C, RequestNo, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "write-racing-a-read",
    title: "New, then old: a read during a write",
    story: "Ann's put has reached C and is on its way to A and B. Bob reads at C, which knows it, then at B, which does not \
        yet. Both reads ask two replicas, as w + r > n demands. The second one shows less than the first.",
    setting: Setting::PLAIN,
    play,
    sloppy: "new, then old again, until the write or the read repair arrives",
    strict: "a read that shows the new value writes it back first: no later strict read shows less",
    remedy: "`--strict` reads",
    answer: "A sloppy read answers as soon as r replicas have, and repairs in the background. A strict read answers only \
        when n − r + 1 replicas hold what it is about to show, on disk, so that the r of any later read include one of them: \
        it pays one more round trip, and only if replicas differ.",
    others: "Cassandra repairs before it answers, and calls the result monotonic quorum reads; the table option \
        `read_repair = 'NONE'` gives them up. That linearizable reads have to write was shown for registers in 1995 (Attiya, \
        Bar-Noy, Dolev).",
    sources: &[
        ("Read repair (Cassandra)", "https://cassandra.apache.org/doc/latest/operating/read_repair.html"),
        ("Sharing Memory Robustly in Message-Passing Systems", "https://dl.acm.org/doi/10.1145/200836.200869"),
    ],
    advice: "Read with `--strict` where a user would notice that time runs backwards. Reads at one node are less likely to go \
        back, but not safe from it.",
    broken_by: &[Bug::NoWriteBack],
};

fn play(w: &mut World) {
    let red = w.given("red");
    let write = w.begin(ANN, C, put("blue").having(red));
    w.hold(C, A);
    w.hold(C, B);

    w.scene("sloppy reads");
    let first = read(w, C, get());
    let second = read(w, B, get());
    w.check(w.shows(first, &["blue"]), "Bob's first sloppy read shows the new value");
    w.check(w.shows(second, &["red"]), "his second one, later, shows the old value");

    w.scene("strict reads; Ann's put and the repair are still on their way");
    let first = read(w, C, get().strict());
    let second = read(w, B, get().strict());
    w.check(w.is_waiting(write), "Ann's put is still under way");
    w.check(w.shows(first, &["blue"]), "Bob's first strict read shows the new value");
    w.check(w.shows(second, &["blue"]), "and so does his second");
}

/// Bob reads. What the node sends to A after its answer, to repair it, takes its time.
fn read(w: &mut World, at: Lane, ask: Ask) -> RequestNo {
    let read = w.begin(BOB, at, ask);
    w.deliver_until_answered(read);
    w.hold(at, A);
    w.deliver();
    read
}
