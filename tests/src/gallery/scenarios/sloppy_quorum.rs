//! Two quorums that do not meet, because one of them was filled by a stand-in.

use std::time::Duration;

use crate::gallery::Scenario;
use crate::gallery::ask::{get, put};
use crate::gallery::world::{A, ANN, B, BOB, C, D, Setting, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sloppy-quorum",
    title: "A sloppy quorum, and a stale read",
    story: "The network splits. Ann's side has one of the key's replicas, A, and a node D that stands in; Bob's side has \
        the other two. Both sides find two nodes to answer, so w = 2 and r = 2 are met, and w + r > n. They do not meet each \
        other.",
    setting: Setting { nodes: 4, ..Setting::PLAIN },
    play,
    sloppy: "stored with 2 acks, 1 by a primary; others read the old value until the hint is delivered",
    strict: "the put is refused at once, nothing is written",
    remedy: "`--strict` for reads and writes; or look at `primaries` in the answer",
    answer: "The write is taken, and the answer says how many of its acks came from primaries: 1 of 2. Until the network \
        heals, readers on the other side see the old value, strict readers too: strictness is for both sides of a quorum. A strict write is refused before anything is applied, because \
        only one of the replicas that count is within reach. Both halves are the bargain of the mode that was asked for; \
        neither loses the write.",
    others: "Dynamo describes the sloppy quorum as operating on the first N healthy nodes instead of the first N nodes, and \
        so gives up the overlap. Riak does the same by default and has PR and PW for those who want primaries to count. \
        Cassandra's quorums are always strict: hints do not count, except at consistency level ANY.",
    sources: &[
        ("Dynamo (SOSP 2007), 4.6", "https://www.allthingsdistributed.com/files/amazon-dynamo-sosp2007.pdf"),
        ("Be careful with sloppy quorums", "https://jimdowney.net/2012/03/05/be-careful-with-sloppy-quorums/"),
        ("Riak, HTTP Fetch Object: pr", "https://docs.riak.com/riak/kv/latest/developing/api/http/fetch-object/"),
        (
            "About hinted handoff writes (Cassandra)",
            "https://docs.datastax.com/en/cassandra/2.0/cassandra/dml/dml_about_hh_c.html",
        ),
    ],
    advice: "Where a stale read does harm, use `--strict` on both reads and writes, or `sloppy = false` in the bucket, and \
        expect refusals while replicas are away. Elsewhere look at `primaries` in the answer: fewer than w means that the \
        write is safe on disks but not yet where readers look.",
    broken_by: &[],
};

fn play(w: &mut World) {
    let red = w.given("red");
    w.scene("the network splits: Ann, A and D on one side, Bob, B and C on the other");
    w.cut(&[A, D], &[B, C]);

    let write = w.ask(ANN, A, put("blue").having(red));
    let read = w.ask(BOB, B, get());
    w.check(w.is_stored(write), "Ann's put is acknowledged: A and a stand-in for B hold it");
    w.check(w.shows(read, &["red"]), "Bob, who asks later, reads only red");

    let strict = w.for_clients(|w| w.ask(BOB, B, get().strict()));
    w.check(w.shows(strict, &["red"]), "nor does a strict read help where the write was sloppy");

    let strict = w.ask(ANN, A, put("green").strict());
    w.check(w.is_refused(strict), "a strict put is refused instead");

    w.mend();
    w.wait(Duration::from_secs(6), "the network heals; some seconds later hints are delivered");
    let read = w.ask(BOB, B, get());
    w.check(w.shows(read, &["blue"]), "Bob reads what Ann wrote");
    w.check(w.agree(&[A, B, C]), "the three replicas are equal again");
}
