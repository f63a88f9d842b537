//! What operators do on a good day, and what single nodes promise.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, ClusterState, Plan, StoreId};
use driftless_proto::{Failure, ProtocolVersions, Topology, Unknown};
use driftless_ring::{Member, NodeId};
use driftless_testkit::TopologyBuilder;

use super::world::{Weather, World};
use crate::membership::letter::Ballot;
use crate::membership::{Candidate, Letter, Membership, MembershipConfig, Output, Progress};
use crate::planted::Planted;
use crate::time::Instant;

pub(super) const CALM: Weather =
    Weather { loss: 0.0, twice: 0.0, delay: Duration::from_millis(2), shards: Duration::from_millis(20) };

/// Three founders that are agreed and settled, and two that have called.
pub(super) fn founded() -> World {
    let mut world = World::new(1, 3, 2, CALM);
    settle(&mut world);
    assert_eq!(state(&mut world, "n1").version, 2);
    world
}

pub(super) fn settle(world: &mut World) {
    world.run_for(Duration::from_secs(5));
    for node in world.running() {
        assert!(world.machine(node).configurations().is_settled(), "{:?}", world.machine(node).configurations());
    }
}

pub(super) fn ask(world: &mut World, name: &str, command: ClusterCommand) -> Result<ClusterAnswer, String> {
    world.ask(NodeId::of_name(name), command)
}

pub(super) fn state(world: &mut World, name: &str) -> ClusterState {
    match ask(world, name, ClusterCommand::State) {
        Ok(ClusterAnswer::State(state)) => *state,
        other => panic!("no state: {other:?}"),
    }
}

pub(super) fn plan(world: &mut World, name: &str) -> Plan {
    match ask(world, name, ClusterCommand::Plan) {
        Ok(ClusterAnswer::Plan(plan)) => *plan,
        other => panic!("no plan: {other:?}"),
    }
}

pub(super) fn commit(world: &mut World, name: &str, plan: &str) -> Result<u64, String> {
    match ask(world, name, ClusterCommand::Commit { plan: plan.to_owned() })? {
        ClusterAnswer::Decided(decided) => Ok(decided.version),
        other => panic!("not decided: {other:?}"),
    }
}

pub(super) fn join(name: &str) -> Change {
    Change::Join { name: name.to_owned(), zone: None, weight: None }
}

pub(super) fn leave(name: &str, lost: bool) -> Change {
    Change::Leave { name: name.to_owned(), lost }
}

#[test]
fn a_cluster_founds_itself_when_all_have_been_heard() {
    let mut world = World::new(1, 3, 0, CALM);
    let n3 = NodeId::of_name("n3");
    world.crash(n3);
    world.run_for(Duration::from_secs(20));
    assert!(!state(&mut world, "n1").is_agreed);
    let refused = ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap_err();
    assert_eq!(
        refused,
        "the members of this cluster are not agreed on yet: n3 has not been heard since this node started; who never comes can be left out: \
         `cluster found --without n3`"
    );
    world.start(n3);
    settle(&mut world);
    let state = state(&mut world, "n1");
    assert_eq!((state.version, state.is_agreed, state.voters.len()), (2, true, 3));
    assert!(state.unfinished.is_empty());
    assert!(world.nodes.values().all(|node| node.files.contains_key("2.record")));
}

#[test]
fn a_node_joins_and_another_leaves() {
    let mut world = founded();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    world.run_for(Duration::from_secs(1));
    // Staged at one node, planned at another, committed at a third, which has heard the candidate too.
    assert_eq!(state(&mut world, "n2").staged.changes, ["n4 joins"]);
    let name = plan(&mut world, "n2").name;
    assert_eq!(commit(&mut world, "n3", &name), Ok(3));
    assert_eq!(commit(&mut world, "n1", &name), Ok(3), "a commit whose answer was lost is repeated");
    settle(&mut world);
    ask(&mut world, "n4", ClusterCommand::Stage(leave("n1", false))).unwrap();
    let name = plan(&mut world, "n4").name;
    assert_eq!(commit(&mut world, "n4", &name), Ok(4));
    settle(&mut world);
    let state = state(&mut world, "n2");
    let names: Vec<&str> = state.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["n2", "n3", "n4"]);
    assert!(state.staged.changes.is_empty());
    let refused = ask(&mut world, "n1", ClusterCommand::Stage(join("n5"))).unwrap_err();
    assert_eq!(refused, "n1 is no member: ask one that is");
}

#[test]
fn nobody_commits_what_nobody_has_seen() {
    let mut world = founded();
    assert!(commit(&mut world, "n1", "00000000").unwrap_err().starts_with("nothing is staged"));
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let seen = plan(&mut world, "n1").name;
    ask(&mut world, "n2", ClusterCommand::Stage(join("n5"))).unwrap();
    world.run_for(Duration::from_secs(1));
    let refused = commit(&mut world, "n1", &seen).unwrap_err();
    let now = plan(&mut world, "n1").name;
    assert_eq!(
        refused,
        format!("plan {seen} is not the present one: the cluster is at version 2 and {now} is staged: plan again")
    );
    ask(&mut world, "n2", ClusterCommand::Clear).unwrap();
    world.run_for(Duration::from_secs(1));
    assert!(commit(&mut world, "n1", &now).unwrap_err().starts_with("nothing is staged"));
}

#[test]
fn without_a_majority_nothing_is_decided_and_the_operator_is_told_who_is_missing() {
    let mut world = founded();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let name = plan(&mut world, "n1").name;
    let others = ["n2", "n3"].map(NodeId::of_name);
    others.iter().for_each(|node| world.crash(*node));
    let refused = commit(&mut world, "n1", &name).unwrap_err();
    assert_eq!(
        refused,
        "no majority of voters: n2, n3 do not answer, 2 of 3 are needed; this attempt has changed nothing"
    );
    others.iter().for_each(|node| world.start(*node));
    world.run_for(Duration::from_secs(2));
    assert_eq!(commit(&mut world, "n1", &name), Ok(3));
}

/// n1 has accepted its own proposal when the others die; whoever comes back may bring it to its end.
#[test]
fn a_commit_that_a_voter_has_accepted_is_not_called_refused() {
    let mut world = founded();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let plan = plan(&mut world, "n1").name;
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(NodeId::of_name);
    let commit = ClusterCommand::Commit { plan };
    let first = world.command(n1, commit.clone());
    let accepts = |world: &World| world.machine(n1).standing.accepted_for(3).is_some();
    assert!(world.run_until(Duration::from_secs(1), accepts));
    assert_eq!(world.machine(n1).chain.version(), 2, "nobody else has accepted it");
    [n2, n3].iter().for_each(|node| world.crash(*node));
    let again = world.command(n1, commit);
    for tag in [first, again] {
        world.run_until(Duration::from_secs(10), |world| world.answers.contains_key(&tag));
        let answer = world.answers.remove(&tag);
        let is_unknown = |failure: &Failure| matches!(failure, Failure::Unknown(Unknown::Interrupted(why)) if why.ends_with("it may be decided yet"));
        assert!(answer.as_ref().is_some_and(|answer| answer.as_ref().is_err_and(is_unknown)), "{answer:?}");
    }
    [n2, n3].iter().for_each(|node| world.start(*node));
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.machine(n2).chain.version(), 3, "and so it was");
}

#[test]
fn a_change_waits_for_the_one_before_or_cancels_it() {
    let mut world = founded();
    world.weather.shards = Duration::from_secs(3_000);
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let name = plan(&mut world, "n1").name;
    commit(&mut world, "n1", &name).unwrap();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n5"))).unwrap();
    let name = plan(&mut world, "n1").name;
    let refused = commit(&mut world, "n1", &name).unwrap_err();
    assert_eq!(refused, "version 2 is unfinished (n1, n2, n3, n4 are not ready): wait, or cancel");
    assert!(matches!(ask(&mut world, "n2", ClusterCommand::Cancel), Ok(ClusterAnswer::Decided(_))));
    let state = state(&mut world, "n2");
    assert_eq!((state.version, state.unfinished), (4, vec![2, 3]));
    let stays: Vec<bool> = state.members.iter().map(|member| member.stays).collect();
    assert_eq!(stays, [true, true, true, false]);
    assert!(ask(&mut world, "n2", ClusterCommand::Cancel).unwrap_err().contains("there is nothing to go back to"));
}

#[test]
fn who_is_up_is_not_declared_lost() {
    let mut world = founded();
    let replace = |force| Change::Replace { name: "n3".to_owned(), with: "n4".to_owned(), force };
    let refused = ask(&mut world, "n1", ClusterCommand::Stage(replace(false))).unwrap_err();
    assert_eq!(refused, "n3 is up: use leave, or --force");
    assert!(ask(&mut world, "n1", ClusterCommand::Stage(replace(true))).is_ok());
    world.bury(NodeId::of_name("n3"));
    world.run_for(Duration::from_secs(5));
    assert!(ask(&mut world, "n1", ClusterCommand::Stage(replace(false))).is_ok());
    let name = plan(&mut world, "n1").name;
    assert_eq!(commit(&mut world, "n1", &name), Ok(3));
    settle(&mut world);
    let node = NodeId::of_name("n3");
    let store = world.nodes[&node].store;
    assert!(world.machine(NodeId::of_name("n4")).is_lost(node, store));
}

#[test]
fn an_empty_disk_is_named_once_it_holds_what_it_must_and_does_not_vote_before() {
    let mut world = founded();
    let n2 = NodeId::of_name("n2");
    world.wipe(n2);
    world.weather.shards = Duration::from_secs(3_000);
    world.start(n2);
    world.run_for(Duration::from_secs(5));
    assert!(!world.machine(n2).configurations().is_whole());
    // The other two are a majority; with one of them gone, the empty one does not help.
    world.crash(NodeId::of_name("n3"));
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let name = plan(&mut world, "n1").name;
    let refused = commit(&mut world, "n1", &name).unwrap_err();
    assert!(refused.starts_with("no majority of voters: n2, n3 do not answer"), "{refused}");
    world.start(NodeId::of_name("n3"));
    world.weather.shards = Duration::from_millis(20);
    world.crash(n2);
    world.start(n2);
    world.run_for(Duration::from_secs(20));
    assert!(world.machine(n2).configurations().is_whole());
    let newest = world.records.values().last().unwrap();
    assert_eq!(newest.store_of(n2), Some(world.nodes[&n2].store));
    assert!(newest.lost.iter().any(|(node, _)| *node == n2));
}

/// What it owns by the file may be others' today.
#[test]
fn who_goes_by_the_file_alone_does_nothing_by_it_before_most_others_do_too() {
    let wants = |machine: &Membership| machine.configurations().in_want_of_company();
    let mut world = founded();
    let n2 = NodeId::of_name("n2");
    world.crash(n2);
    world.wipe(n2);
    world.start(n2);
    assert_eq!(wants(world.machine(n2)), Some((2, 1)), "an empty disk, and a file of long ago");
    world.run_for(Duration::from_secs(5));
    assert_eq!(wants(world.machine(n2)), None);
    assert!(world.machine(n2).configurations().is_agreed(), "it has heard what is later");

    // A cluster that begins, of five.
    let names = ["n1", "n2", "n3", "n4", "n5"];
    let founding = TopologyBuilder::of(names).shared();
    let machine = |name: &str, founding: &Arc<Topology>| {
        let candidate =
            Candidate { member: Member::new(name, "a.test:1"), store: StoreId(NodeId::of_name(name).0.into()) };
        let config = MembershipConfig {
            candidate,
            founding: founding.clone(),
            files: Vec::new(),
            seed: [0; 32],
            planted: Planted::default(),
        };
        Membership::new(config, Instant(0)).unwrap()
    };
    let news_of = |name: &str, founding: &Arc<Topology>| {
        let mut other = machine(name, founding);
        other.handle_connected(Instant(0), NodeId::of_name("n1"), ProtocolVersions::OURS.highest());
        std::iter::from_fn(|| other.poll_output())
            .find_map(|output| match output {
                Output::Send { letter: letter @ Letter::News(_), .. } => Some(letter),
                _ => None,
            })
            .expect("it says how it is")
    };
    let mut n1 = machine("n1", &founding);
    for (from, available) in [("n2", Some((3, 2))), ("n2", Some((3, 2))), ("stranger", Some((3, 2))), ("n3", None)] {
        n1.handle_letter(Instant(0), NodeId::of_name(from), news_of(from, &founding));
        assert_eq!(wants(&n1), available, "{from}");
    }
    assert_eq!(wants(&machine("n1", &TopologyBuilder::of(["n1"]).shared())), None, "it is all there is");
}

#[test]
fn versions_survive_a_restart_and_damage_stops_it() {
    let mut world = founded();
    let n1 = NodeId::of_name("n1");
    let before = world.machine(n1).configurations().clone();
    world.crash(n1);
    world.start(n1);
    assert_eq!(*world.machine(n1).configurations(), before);
    let config = |world: &World, damaged: &str| {
        let state = &world.nodes[&n1];
        let mut files = state.files.clone();
        files.get_mut(damaged).unwrap()[0] ^= 1;
        MembershipConfig {
            candidate: Candidate { member: state.member.clone(), store: state.store },
            founding: world.founding().clone(),
            files: files.into_iter().collect(),
            seed: [0; 32],
            planted: Planted::default(),
        }
    };
    for file in ["2.record", "ballot", "marks"] {
        let error = Membership::new(config(&world, file), Instant(0)).err().expect("it is damaged");
        assert!(error.starts_with(&format!("the file {file} of the agreement on members is damaged")), "{error}");
    }
}

#[test]
fn what_a_voter_has_promised_it_knows_after_a_crash() {
    let world = founded();
    let (n1, n2) = (NodeId::of_name("n1"), NodeId::of_name("n2"));
    let (slot, parent) = (3, world.machine(n1).chain.digest());
    let mut files = world.nodes[&n1].files.clone();
    let machine = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let candidate = Candidate { member: world.nodes[&n1].member.clone(), store: world.nodes[&n1].store };
        let files = files.clone().into_iter().collect();
        let config = MembershipConfig {
            candidate,
            founding: world.founding().clone(),
            files,
            seed: [0; 32],
            planted: Planted::default(),
        };
        Membership::new(config, Instant(0)).unwrap()
    };
    let prepare = |round| Letter::Prepare { slot, parent, ballot: Ballot { round, node: n2.0, nonce: 0 } };
    let mut first = machine(&files);
    first.handle_letter(Instant(0), n2, prepare(7));
    let Some(Output::Write { name, bytes: Some(bytes) }) = first.poll_output() else {
        panic!("a promise is durable before it is told")
    };
    assert!(matches!(first.poll_output(), Some(Output::Send { letter: Letter::Promise { .. }, .. })));
    files.insert(name, bytes);
    let mut second = machine(&files);
    second.handle_letter(Instant(0), n2, prepare(6));
    let nack = Letter::Nack { slot, promised: Ballot { round: 7, node: n2.0, nonce: 0 } };
    assert_eq!(second.poll_output(), Some(Output::Send { to: n2, letter: nack }));
}

#[test]
fn a_stranger_has_no_say() {
    let mut world = founded();
    let (n1, n5) = (NodeId::of_name("n1"), NodeId::of_name("n5"));
    let (now, parent) = (world.now, world.machine(n1).chain.digest());
    let machine = world.nodes.get_mut(&n1).unwrap().machine.as_mut().unwrap();
    while machine.poll_output().is_some() {}
    let ballot = Ballot { round: 9, node: n5.0, nonce: 0 };
    machine.handle_letter(now, n5, Letter::Prepare { slot: 3, parent, ballot });
    machine.handle_letter(now, n5, Letter::Accepted { slot: 3, ballot, store: StoreId(1) });
    machine.handle_letter(now, n5, Letter::Nack { slot: 3, promised: ballot });
    machine.handle_letter(now, n5, Letter::Records { settled: 0, records: vec![] });
    assert_eq!(machine.poll_output(), None);
}

/// One shard has gone on to version 7, for which there is nothing to take in; the other is ready for 6. That the first ever was is not
/// said.
#[test]
fn shards_are_ready_together_for_the_same_version_or_for_none() {
    let of = |version, ready| Progress { version, closed: version - 1, ready, left: ready, ..Progress::default() };
    assert_eq!(of(7, 7).together(of(6, 6)).ready, 0);
    assert_eq!(of(7, 7).together(of(7, 0)).ready, 0);
    let both = of(7, 7).together(of(7, 7));
    assert_eq!((both.version, both.ready, both.closed), (7, 7, 6));
    assert_eq!(of(7, 7).together(of(6, 6)).closed, 5, "who closes for a later version has closed for the one before");
}
