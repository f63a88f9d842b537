//! A delete and a write that have not seen each other.

use crate::gallery::Scenario;
use crate::gallery::ask::{delete, get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "delete-against-write",
    title: "A delete against a write",
    story: "Ann changes the value while Bob, who has read the old one, deletes it. Both are acknowledged. By the \
        clocks the delete is the later one.",
    setting: Setting::PLAIN,
    play,
    sloppy: "the write survives; Bob deleted what he had read",
    strict: "the same",
    remedy: "if the delete has to win: delete again",
    answer: "A delete is a write of a tombstone with the rules of any other: it removes what its context has seen. Ann's value \
        was not in it. The tombstone stays beside it, unseen by readers, until the next write to the key takes its place.",
    others: "In Cassandra the later timestamp wins, and with equal timestamps the delete does.",
    sources: &[(
        "Query timestamps (Cassandra)",
        "https://docs.datastax.com/en/datastax-drivers/developing/query-timestamps.html",
    )],
    advice: "If a delete has to win, read again and delete again: `delete KEY` without a context reads first and removes all that \
        it finds.",
    broken_by: &[Bug::LastWriteWins],
};

fn play(w: &mut World) {
    let red = w.given("red");
    w.set_clock(B, 5);
    w.note(B, "B's clock is 5 s ahead");
    let write = w.begin(ANN, A, put("blue").having(red));
    let gone = w.begin(BOB, B, delete().having(red));
    w.deliver();
    w.check(w.is_stored(write) && w.is_stored(gone), "both are acknowledged");
    w.look(C);
    let read = w.ask(BOB, C, get());
    w.check(w.shows(read, &["blue"]), "Ann's value is there");
}
