//! One put, stamped twice.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put, retry};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-coordinators",
    title: "One put, two coordinators",
    story: "A takes Ann's put and falls silent. Her client does not wait for it: it asks B, with the same write id. B has not \
        heard of the put and stamps it too. Then A's messages arrive after all.",
    setting: Setting::PLAIN,
    play,
    sloppy: "one value; its context covers both stamps",
    strict: "the same",
    remedy: "one write id per put, the same in each retry",
    answer: "Replicas hold two dots. Readers are shown one value, because both carry the same write id and the same bytes, and \
        the context covers both, so that the next put replaces both. To the merge they are two concurrent writes; the \
        merge knows nothing of ids, and so cannot be led astray by one.",
    others: "In Riak a slow coordinator that was given up on makes siblings of a single put; one issue tells of some ten, and \
        there is a discussion of whether to collapse equal ones.",
    sources: &[
        ("riak_kv #1188", "https://github.com/basho/riak_kv/issues/1188"),
        ("riak_kv pull request 838", "https://github.com/basho/riak_kv/pull/838"),
    ],
    advice: "Nothing, if you write through the client crate. With the protocol itself: one write id per put, the same in each \
        retry.",
    broken_by: &[],
};

fn play(w: &mut World) {
    let write = w.begin(ANN, A, put("red"));
    w.hold(A, B);
    w.hold(A, C);
    w.scene("no answer: Ann's client asks B");
    let again = w.begin(ANN, B, retry(write));
    w.hold(B, A);
    w.deliver();
    w.check(w.is_stored(again), "B's answer is that it is stored");
    w.scene("A speaks again");
    w.arrive(A, B);
    w.arrive(A, C);
    w.arrive(B, A);
    w.look(C);
    let read = w.ask(BOB, C, get());
    w.check(w.live(C) == 2, "two stamps");
    w.check(w.shows(read, &["red"]), "one value");
    let next = w.for_clients(|w| w.ask(BOB, C, put("blue").having(read)));
    w.look(A);
    w.check(w.is_stored(next) && w.live(A) == 1 && w.agree(&[A, B, C]), "and the next put replaces both");
}
