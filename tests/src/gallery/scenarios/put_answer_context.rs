//! What the answer to a put must not say.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "put-answer-context",
    title: "The answer that would have erased a stranger's write",
    story: "Bob writes without having read, beside Ann's red. If the answer to his put carried a context, it would cover red, \
        which he never saw; with it his next put would erase Ann's value, and nobody would have chosen that.",
    setting: Setting::PLAIN,
    play,
    sloppy: "no context in the answer, but the number of siblings: read first",
    strict: "the same",
    remedy: "read before writing again",
    answer: "The answer to a put carries a context only if the written value is the only one. Else it says how many siblings \
        there are. Bob's next put without a context becomes one more sibling; after a read he replaces what he has seen.",
    others: "Riak returns the merged object's vector clock with `return_body`, and all siblings with it: a client that takes the \
        clock and not the siblings erases them with its next put. Planted in ours (`context-with-siblings`), the simulator \
        finds it at once.",
    sources: &[(
        "Riak, Store Object: return_body",
        "https://docs.riak.com/riak/kv/latest/developing/api/protocol-buffers/store-object/",
    )],
    advice: "After a put whose answer has no context, read before you write again.",
    broken_by: &[Bug::ContextWithSiblings],
};

fn play(w: &mut World) {
    w.quietly(|w| w.ask(ANN, A, put("red")));
    w.scene("Ann has written red");
    let first = w.ask(BOB, A, put("blue"));
    w.check(w.is_stored(first) && !w.has_context(first), "Bob's answer carries no context");
    let second = w.for_clients(|w| w.ask(BOB, A, put("navy").having(first)));
    w.check(w.is_stored(second), "his next put is taken");
    let read = w.for_clients(|w| w.ask(BOB, C, get()));
    w.check(w.shows(read, &["blue", "navy", "red"]), "and red is still there");
    let third = w.for_clients(|w| w.ask(BOB, A, put("purple").having(read)));
    w.check(w.has_context(third), "having read all three, he replaces all three, and has a context again");
    let read = w.for_clients(|w| w.ask(ANN, C, get()));
    w.check(w.shows(read, &["purple"]), "one value is left");
}
