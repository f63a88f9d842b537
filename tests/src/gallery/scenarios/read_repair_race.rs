//! A repair that arrives after what it did not know.

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "read-repair-race",
    title: "A read repair overtaken by a write",
    story: "B missed red. Bob's read notices and sends red to B as a repair. Before that arrives, Ann replaces red with blue, on \
        all three. Then the repair arrives, with what is old by now.",
    setting: Setting::PLAIN,
    play,
    sloppy: "blue stays: a repair is a merge, and merges what is already replaced into nothing",
    strict: "the same",
    remedy: "nothing",
    answer: "Whatever changes a replica with what others know is the same message, a merge: repairs, hints, anti-entropy, the \
        replication of writes. Order does not matter to it, nor repetition. B has seen that red was replaced, so red stays \
        replaced.",
    others: "Cassandra's repairs carry the original timestamps, so that an old one loses as well, as far as the clocks are right. \
        A system whose repair overwrites has red back on one replica: planted in ours (`repair-replaces`), the simulator \
        finds it.",
    sources: &[("Read repair (Cassandra)", "https://cassandra.apache.org/doc/latest/operating/read_repair.html")],
    advice: "Nothing.",
    broken_by: &[Bug::RepairReplaces],
};

fn play(w: &mut World) {
    let red = w.quietly(|w| {
        let red = w.begin(ANN, A, put("red"));
        w.lose(A, B);
        w.deliver();
        red
    });
    w.scene("A and C hold red@a1; B missed it");
    let read = w.begin(BOB, A, get());
    w.deliver_until_answered(read);
    w.hold(A, B);
    w.deliver();
    w.check(w.shows(read, &["red"]), "Bob reads red, and a repair is on its way to B");

    let blue = w.ask(ANN, A, put("blue").having(red));
    w.look(B);
    w.scene("the repair arrives");
    w.arrive(A, B);
    w.look(B);
    w.check(w.is_stored(blue) && w.agree(&[A, B, C]), "B still holds what Ann wrote");
}
