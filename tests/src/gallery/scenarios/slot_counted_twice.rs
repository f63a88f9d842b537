//! Two acknowledgements that are one copy.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::put;
use crate::gallery::world::{A, ANN, B, C, Setting, World};
use driftless_node::planted::Bug;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slot-counted-twice",
    title: "Three acks that are two copies",
    story: "Ann asks for w = 3. B is late, so D is asked to stand in for it and acknowledges; then B acknowledges too. With \
        A's own that makes three acks. But D's copy is there for B and goes away once B has it: what stays is on two disks.",
    setting: Setting { nodes: 4, ..Setting::PLAIN },
    play,
    sloppy: "the put waits for C: a quorum counts slots, not nodes and not messages",
    strict: "stand-ins never count",
    remedy: "nothing",
    answer: "Each primary of the key is one slot, which the primary or whoever stands in for it fills, once. A, D and B have \
        filled two slots. The put is acknowledged when the third is, by C.",
    others: "Cassandra is not exposed: its hints never count towards a level above ANY. In a system with sloppy quorums look for \
        how a stand-in's ack is counted once its target answers as well. Planted in ours (`nodes-counted`), the mistake loses \
        acknowledged writes, and the simulator finds it.",
    sources: &[(
        "About hinted handoff writes (Cassandra)",
        "https://docs.datastax.com/en/cassandra/2.0/cassandra/dml/dml_about_hh_c.html",
    )],
    advice: "Nothing: `acks` in an answer is the number of disks that will hold the write.",
    broken_by: &[Bug::NodesCounted],
};

fn play(w: &mut World) {
    let write = w.begin(ANN, A, put("red").w(3));
    w.hold(A, B);
    w.hold(A, C);
    w.wait(Duration::from_millis(300), "B and C are late: D is asked to stand in for B");
    w.note(A, "slots filled: A by A, B by D");
    w.scene("now B has it as well");
    w.arrive(A, B);
    w.note(A, "slots filled: A by A, B by D; B's own ack adds none");
    w.check(w.is_waiting(write), "three nodes have acknowledged, and the put still waits");

    w.arrive(A, C);
    w.check(w.is_stored(write), "it is acknowledged when C has it too");
    w.check(w.agree(&[A, B, C]), "three primaries hold it");
}
