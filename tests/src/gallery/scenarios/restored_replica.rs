//! A replica whose disk is set back has forgotten what it acknowledged.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, Setting, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restored-replica",
    title: "A disk set back to yesterday",
    story: "Blue is acknowledged by A and B; C is away. Then B's disk is replaced by yesterday's copy of it. Bob reads at B and \
        C, and A, the only one that still knows, is not asked.",
    setting: Setting { anti_entropy: true, ..Setting::PLAIN },
    play,
    sloppy: "the old value, until anti-entropy has compared the replicas",
    strict: "the same, and that is a broken promise: B said it had the write, and has not",
    remedy: "never start a node on an old copy; r = 3 until all is equal",
    answer: "Strict reads promise to see what was acknowledged *until the process of a replica is replaced by an older copy of its \
        data*. Here it was. Quorums count on replicas to remember; a restored one does not know what it has forgotten, and \
        counts all the same. With r = 2 the read misses the write while the only holder is not asked. Blue is not lost: \
        anti-entropy brings it back, with nobody reading, and from then on reads see it.",
    others: "The same in all quorum systems that let a restored replica answer before it is repaired. Scylla's restore \
        procedure truncates the table and restores every node, each from its own backup.",
    sources: &[(
        "Restore from a backup (Scylla)",
        "https://docs.scylladb.com/manual/branch-2026.1/operating-scylla/procedures/backup-restore/restore.html",
    )],
    advice: "Never start a node on a copy or a backup of its directory: start it with an empty one and let the others fill it. Until \
        `aae status` says that all is equal, read with r = 3: an empty replica counts just so. w = 3 survives one such mistake.",
    broken_by: &[],
};

fn play(w: &mut World) {
    let red = w.given("red");
    let yesterday = w.backup(B);
    w.stop(C, "dies");
    let write = w.ask(ANN, A, put("blue").having(red).strict());
    w.check(w.is_stored(write), "blue is acknowledged by two replicas");

    w.stop(B, "stops; its disk is replaced by yesterday's copy");
    w.restore(B, yesterday);
    w.start(C, "is back");
    w.start(B, "is back");
    w.stop(A, "stops for a moment");
    let read = w.ask(BOB, B, get().strict());
    w.check(w.shows(read, &["red"]), "a strict read of two replicas misses it");

    w.start(A, "is back");
    w.wait(Duration::from_secs(60), "some minutes pass, with nobody reading");
    (0..60).for_each(|_| w.pass(Duration::from_secs(2)));
    let read = w.ask(BOB, B, get().strict());
    w.check(w.shows(read, &["blue"]), "later it is there again");
    w.check(w.agree(&[A, B, C]), "and on all replicas");
}
