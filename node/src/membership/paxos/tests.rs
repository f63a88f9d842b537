//! One decision, letter by letter.

use driftless_proto::membership::Record;
use driftless_proto::{BucketDefinition, Topology};
use driftless_ring::{Member, Partitions, Ring, RingSpec};

use super::*;

const STORE: StoreId = StoreId(1);

fn record(by: &str) -> Record {
    let members = vec![Member::new("n1", "n1:1")];
    let node = members[0].id;
    let spec =
        RingSpec { partitions: Partitions::new(1).unwrap(), hash_seed: 0, members, classes: [1].into_iter().collect() };
    let first = Ring::first(spec).unwrap();
    let topology = Topology::new("test", first.again(&first).unwrap(), vec![BucketDefinition::built_in(1)]).unwrap();
    let (stores, voters) = (vec![(node, STORE)], vec![node]);
    Record::new(7, 0, topology, stores, voters, vec![], vec![], by.to_owned(), String::new()).unwrap()
}

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node, nonce: 0 }
}

/// Of version 2, with three voters, begun.
fn proposal(own: Option<Record>) -> Proposal {
    let voters = (1..=3).map(|node| (NodeId(node), Some(STORE))).collect();
    let mut proposal = Proposal::new(2, Electorate { voters, needed: 2 }, own);
    proposal.begin(NodeId(1), 5, Ballot::default());
    proposal
}

#[test]
fn a_majority_of_promises_and_then_of_acceptances_decides() {
    let mut proposal = proposal(Some(record("n1")));
    let ballot = proposal.ballot();
    assert_eq!(proposal.missing(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(proposal.promised(NodeId(1), STORE, ballot, None), Step::Wait);
    assert_eq!(proposal.promised(NodeId(1), STORE, ballot, None), Step::Wait, "nobody counts twice");
    assert_eq!(proposal.promised(NodeId(3), STORE, ballot, None), Step::Accept);
    assert_eq!(proposal.accepting(), Some(&record("n1")));
    assert_eq!(proposal.accepted(NodeId(3), STORE, ballot), Step::Wait);
    let by = vec![NodeId(2), NodeId(3)];
    let decided = Step::Decided { record: Box::new(record("n1")), by };
    assert_eq!(proposal.accepted(NodeId(2), STORE, ballot), decided);
}

#[test]
fn what_was_accepted_with_the_highest_ballot_is_proposed_instead_of_the_own() {
    let mut proposal = proposal(Some(record("n1")));
    let own = proposal.ballot();
    let before = |round, by| Some((ballot(round, 9), Box::new(record(by))));
    proposal.promised(NodeId(2), STORE, own, before(4, "late"));
    assert_eq!(proposal.promised(NodeId(3), STORE, own, before(3, "early")), Step::Accept);
    assert_eq!(proposal.accepting(), Some(&record("late")));
}

#[test]
fn strangers_other_stores_and_other_ballots_do_not_count() {
    let mut proposal = proposal(Some(record("n1")));
    let own = proposal.ballot();
    proposal.promised(NodeId(1), STORE, own, None);
    assert_eq!(proposal.promised(NodeId(4), STORE, own, None), Step::Wait);
    assert_eq!(proposal.promised(NodeId(2), StoreId(2), own, None), Step::Wait);
    assert_eq!(proposal.promised(NodeId(2), STORE, ballot(0, 1), None), Step::Wait);
    assert_eq!(proposal.refused(NodeId(4), ballot(9, 9)), Step::Wait);
    assert_eq!(proposal.silent(), (vec![NodeId(2), NodeId(3)], 2, 3));
}

#[test]
fn who_is_refused_begins_again_above_the_other() {
    let mut proposal = proposal(Some(record("n1")));
    assert_eq!(proposal.refused(NodeId(2), ballot(7, 2)), Step::Beaten);
    assert!(proposal.is_beaten());
    proposal.begin(NodeId(1), 6, Ballot::default());
    assert_eq!(proposal.ballot(), Ballot { round: 8, node: 1, nonce: 6 });
}

#[test]
fn a_finisher_that_finds_nothing_proposes_nothing() {
    let mut proposal = proposal(None);
    let own = proposal.ballot();
    proposal.promised(NodeId(1), STORE, own, None);
    assert_eq!(proposal.promised(NodeId(2), STORE, own, None), Step::Beaten);
}

#[test]
fn a_voter_accepts_nothing_below_what_it_has_promised() {
    let mut standing = Standing::default();
    assert_eq!(standing.promise(2, ballot(2, 1)), Ok(()));
    assert_eq!(standing.promise(2, ballot(1, 9)), Err(ballot(2, 1)));
    assert_eq!(standing.accept(ballot(1, 9), &record("n9")), Err(ballot(2, 1)));
    assert_eq!(standing.accept(ballot(2, 1), &record("n1")), Ok(()));
    assert_eq!(standing.promise(2, ballot(3, 2)), Ok(()));
    assert_eq!(standing.accepted_for(2), Some(&(ballot(2, 1), Box::new(record("n1")))), "a promise forgets nothing");
    assert_eq!(standing.promise(3, ballot(1, 1)), Ok(()), "each version is decided for itself");
    assert_eq!(standing.accepted_for(3), None);
}
