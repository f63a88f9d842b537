//! Most of the voters are gone, or seem to be, and an operator has one that is left decide alone.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, MemberState, Record, Recovery};
use driftless_ring::NodeId;

use super::flows::{CALM, ask, commit, join, leave, plan, settle, state};
use super::world::World;
use crate::membership::letter::Ballot;
use crate::membership::{Candidate, DecidedRecord, Letter, Membership, MembershipConfig};
use crate::planted::Planted;

fn id(name: &str) -> NodeId {
    NodeId::of_name(name)
}

/// So many founders, and two that have called, all for long enough to be asked.
fn cluster(founders: usize) -> World {
    let mut world = World::new(1, founders, 2, CALM);
    settle(&mut world);
    world.run_for(Duration::from_secs(10));
    world
}

fn bury(world: &mut World, names: &[&str]) {
    names.iter().for_each(|name| world.bury(id(name)));
    world.run_for(Duration::from_secs(5));
}

/// Those of one side hear those of the other no more.
fn split(world: &mut World, names: &[&str]) {
    world.split(&names.iter().map(|name| id(name)).collect::<BTreeSet<_>>());
    world.run_for(Duration::from_secs(5));
}

fn recover(world: &mut World, at: &str, lost: &[&str], force: bool) -> Result<ClusterAnswer, String> {
    let lost = lost.iter().map(|&name| name.to_owned()).collect();
    ask(world, at, ClusterCommand::Recover { lost, force })
}

fn would(world: &mut World, at: &str, lost: &[&str]) -> Recovery {
    match recover(world, at, lost, false) {
        Ok(ClusterAnswer::Recovery(recovery)) => recovery,
        other => panic!("it is not said what it would mean: {other:?}"),
    }
}

fn force(world: &mut World, at: &str, lost: &[&str]) -> u64 {
    match recover(world, at, lost, true) {
        Ok(ClusterAnswer::Decided(decided)) => decided.version,
        other => panic!("not forced: {other:?}"),
    }
}

/// Stages, plans and commits.
fn change(world: &mut World, at: &str, change: Change) -> Result<u64, String> {
    ask(world, at, ClusterCommand::Stage(change))?;
    let name = plan(world, at).name;
    commit(world, at, &name)
}

fn replace(name: &str, with: &str) -> Change {
    Change::Replace { name: name.to_owned(), with: with.to_owned(), force: false }
}

fn member(world: &mut World, at: &str, name: &str) -> MemberState {
    let members = state(world, at).members;
    members.into_iter().find(|member| member.name == name).expect("it is a member")
}

/// How it shows at this node that another goes by another history.
fn apart(world: &World, at: &str, other: &str) -> Option<String> {
    world.nodes[&id(at)].apart.iter().find(|apart| apart.name == other).map(|apart| apart.what.clone())
}

fn version(world: &World, at: &str) -> u64 {
    world.machine(id(at)).chain.version()
}

#[test]
fn with_two_of_three_gone_the_third_decides_alone_and_the_cluster_is_made_whole_the_ordinary_way() {
    let mut world = cluster(3);
    bury(&mut world, &["n2", "n3"]);
    assert!(change(&mut world, "n1", replace("n3", "n4")).unwrap_err().starts_with("no majority of voters: n2, n3"));
    let told = would(&mut world, "n1", &["n3", "n2"]);
    assert_eq!((told.base, told.version), (2, 1000));
    assert_eq!((told.lost, told.voters), (["n2", "n3"].map(str::to_owned).to_vec(), vec!["n1".to_owned()]));
    assert!(told.warnings[0].starts_with("what only they hold is given up for ever"), "{:?}", told.warnings);
    assert_eq!(version(&world, "n1"), 2, "so far it was only asked");

    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    assert_eq!(force(&mut world, "n1", &["n3"]), 1000, "an answer that was lost is asked for again");
    let after = state(&mut world, "n1");
    assert_eq!((after.version, after.forced_on, after.voters), (1000, Some(2), vec!["n1".to_owned()]));
    assert!(["n2", "n3"].iter().all(|name| member(&mut world, "n1", name).is_lost));
    let refused = change(&mut world, "n1", join("n4")).unwrap_err();
    let why = "version 2 is unfinished (n2, n3 are declared lost, and still named as members): replace them, let them `leave NAME --lost`, or start them with an empty directory";
    assert_eq!(refused, why);
    ask(&mut world, "n1", ClusterCommand::Clear).unwrap();

    assert_eq!(change(&mut world, "n1", replace("n2", "n4")), Ok(1001));
    assert_eq!(state(&mut world, "n1").voters, ["n1"], "n3 has no vote while it is lost");
    world.run_for(Duration::from_secs(2));
    assert_eq!(change(&mut world, "n4", replace("n3", "n5")), Ok(1002));
    settle(&mut world);
    let after = state(&mut world, "n5");
    assert_eq!((after.version, after.forced_on), (1002, None));
    assert_eq!(after.voters, ["n1", "n4", "n5"]);
    let lost = &world.records[&1002].lost;
    assert_eq!(lost.len(), 2, "each store once: {lost:?}");
}

#[test]
fn a_member_that_was_declared_lost_by_force_may_leave_as_one_that_is_lost() {
    let mut world = cluster(5);
    bury(&mut world, &["n1", "n2", "n3"]);
    assert_eq!(force(&mut world, "n4", &["n1", "n2", "n3"]), 1000);
    world.run_for(Duration::from_secs(2));
    assert_eq!(version(&world, "n5"), 1000);
    let refused = change(&mut world, "n5", leave("n2", false)).unwrap_err();
    assert!(refused.starts_with("version 2 is unfinished (n1, n2, n3 are declared lost"), "{refused}");
    ask(&mut world, "n5", ClusterCommand::Clear).unwrap();
    ask(&mut world, "n5", ClusterCommand::Stage(leave("n1", true))).unwrap();
    assert_eq!(change(&mut world, "n5", leave("n2", true)), Ok(1001), "both at once");
    world.run_for(Duration::from_secs(2));
    assert_eq!(change(&mut world, "n5", replace("n3", "n6")), Ok(1002));
    settle(&mut world);
    assert_eq!(state(&mut world, "n6").voters, ["n4", "n5", "n6"]);
}

#[test]
fn the_other_of_two_goes_on_without_the_one_that_votes() {
    let mut world = cluster(2);
    let voters = state(&mut world, "n1").voters;
    let [voter] = &voters[..] else { panic!("of two one votes: {voters:?}") };
    let other = if voter == "n1" { "n2" } else { "n1" };
    bury(&mut world, &[voter]);
    assert_eq!(force(&mut world, other, &[voter]), 1000);
    assert_eq!(change(&mut world, other, replace(voter, "n3")), Ok(1001));
    settle(&mut world);
    assert_eq!(state(&mut world, "n3").members.len(), 2);
}

/// An empty directory under the old name is filled and named, without a command.
#[test]
fn the_lost_come_back_with_empty_directories_and_all_vote_again() {
    let mut world = cluster(3);
    ["n2", "n3"].iter().for_each(|name| world.wipe(id(name)));
    world.run_for(Duration::from_secs(5));
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    world.start(id("n2"));
    world.run_for(Duration::from_secs(3));
    world.start(id("n3"));
    world.run_for(Duration::from_secs(20));
    settle(&mut world);
    let after = state(&mut world, "n2");
    assert_eq!((after.version, after.voters.len()), (1002, 3));
    assert!(after.members.iter().all(|member| !member.is_lost && member.is_whole));
}

/// Here nothing but the machines themselves refuses those who are lost.
#[test]
fn the_lost_that_come_back_decide_nothing_with_those_that_are_left() {
    let mut world = cluster(5);
    split(&mut world, &["n1", "n2"]);
    assert_eq!(force(&mut world, "n1", &["n3", "n4", "n5"]), 1000);
    world.run_for(Duration::from_secs(2));
    assert_eq!(version(&world, "n2"), 1000);
    // They have not gone on, and take what they hear: that they are lost.
    let before = world.nodes[&id("n3")].store;
    world.mend();
    world.run_for(Duration::from_secs(5));
    assert_eq!(version(&world, "n3"), 1000);
    assert!(world.machine(id("n3")).is_lost(id("n3"), before));
    split(&mut world, &["n1"]);
    let weight = Change::Set { name: "n3".to_owned(), weight: Some(2), zone: None };
    let refused = "the data of n3 was declared lost: ask another node";
    assert_eq!(change(&mut world, "n3", weight.clone()).unwrap_err(), refused);
    assert_eq!(recover(&mut world, "n3", &["n1", "n2"], true).unwrap_err(), refused);
    // Nor is it waited for less, because it says that it has all that it must.
    assert!(
        change(&mut world, "n2", weight)
            .unwrap_err()
            .starts_with("version 2 is unfinished (n3, n4, n5 are declared lost")
    );
    assert_eq!(version(&world, "n2"), 1000);
}

#[test]
fn a_node_that_knows_what_came_after_refuses_what_was_forced_before_it_and_both_say_so() {
    let mut world = World::new(1, 3, 0, CALM);
    world.run_for(Duration::from_secs(15));
    split(&mut world, &["n1"]);
    let weight = Change::Set { name: "n2".to_owned(), weight: Some(2), zone: None };
    assert_eq!(change(&mut world, "n2", weight), Ok(3), "they are not lost at all");
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    world.mend();
    world.run_for(Duration::from_secs(10));
    assert_eq!((version(&world, "n1"), version(&world, "n2"), version(&world, "n3")), (1000, 3, 3));
    let plan = &world.records[&3].reason;
    let what =
        format!("its version 1000 was forced on version 2, but this node knows that version 3 was decided ({plan})");
    assert_eq!(apart(&world, "n2", "n1"), Some(what));
    let what = "it is at version 3, and version 1000 of this node was forced on version 2".to_owned();
    assert_eq!((apart(&world, "n1", "n2"), apart(&world, "n1", "n3")), (Some(what.clone()), Some(what)));
    assert_eq!(apart(&world, "n2", "n3"), None);
    // With an empty directory it is no more of another history.
    ["n2", "n3"].iter().for_each(|name| world.wipe(id(name)));
    ["n2", "n3"].iter().for_each(|name| world.start(id(name)));
    world.run_for(Duration::from_secs(20));
    settle(&mut world);
    assert!(world.nodes.values().all(|node| node.apart.is_empty()));
}

#[test]
fn two_that_were_forced_on_the_same_version_refuse_each_other() {
    let mut world = cluster(3);
    // Each is alone, and each is told that the others are lost.
    split(&mut world, &["n1"]);
    world.crash(id("n3"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    assert_eq!(force(&mut world, "n2", &["n1", "n3"]), 1000);
    world.mend();
    world.run_for(Duration::from_secs(5));
    let what = "its version 1000 is not that of this node, which was forced on version 2".to_owned();
    assert_eq!((apart(&world, "n1", "n2"), apart(&world, "n2", "n1")), (Some(what.clone()), Some(what)));
    assert_eq!(world.forced.len(), 2);
    // Who has followed the one would take no record of the other. With an empty directory it does.
    let refused = change(&mut world, "n1", replace("n2", "n4")).unwrap_err();
    assert!(refused.starts_with("n4 has not called"), "{refused}");
    world.wipe(id("n4"));
    split(&mut world, &["n1", "n4"]);
    world.start(id("n4"));
    world.run_for(Duration::from_secs(5));
    // One goes on, and the other is told more of the same history.
    change(&mut world, "n1", replace("n2", "n4")).unwrap();
    world.mend();
    world.run_for(Duration::from_secs(5));
    assert_eq!(version(&world, "n2"), 1000);
    let what = "its version 1001 does not follow on version 1000 of this node".to_owned();
    assert_eq!(apart(&world, "n2", "n1"), Some(what));
}

#[test]
fn what_another_history_has_staged_is_not_taken_for_ones_own() {
    let mut world = cluster(3);
    split(&mut world, &["n1"]);
    world.crash(id("n3"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    assert_eq!(force(&mut world, "n2", &["n1", "n3"]), 1000);
    ask(&mut world, "n2", ClusterCommand::Stage(replace("n1", "n4"))).unwrap();
    world.mend();
    world.run_for(Duration::from_secs(5));
    assert!(apart(&world, "n1", "n2").is_some());
    assert_eq!(state(&mut world, "n2").staged.changes.len(), 1);
    assert!(state(&mut world, "n1").staged.changes.is_empty(), "its numbers mean nothing here");
}

#[test]
fn who_is_leaving_is_heard_or_declared_lost_as_well() {
    let mut world = cluster(5);
    world.weather.shards = Duration::from_secs(3_000);
    assert_eq!(change(&mut world, "n1", leave("n5", false)), Ok(3));
    world.run_for(Duration::from_secs(2));
    let voters = state(&mut world, "n1").voters;
    let lost: Vec<&str> = voters.iter().map(String::as_str).filter(|voter| *voter != "n1").take(2).collect();
    bury(&mut world, &lost);
    world.crash(id("n5"));
    world.run_for(Duration::from_secs(5));
    let refused = recover(&mut world, "n1", &lost, true).unwrap_err();
    assert_eq!(refused, "n5 is neither heard nor declared lost: start it, or name it too");
    assert_eq!(force(&mut world, "n1", &[&lost[..], &["n5"]].concat()), 1000);
}

/// n2 is set back to before, and follows what was decided elsewhere.
#[test]
fn who_goes_by_another_history_and_is_not_lost_keeps_it_from_being_forced_again() {
    let mut world = cluster(5);
    let before = world.nodes[&id("n2")].files.clone();
    split(&mut world, &["n1", "n2"]);
    let weight = Change::Set { name: "n4".to_owned(), weight: Some(2), zone: None };
    assert_eq!(change(&mut world, "n3", weight), Ok(3));
    assert_eq!(force(&mut world, "n1", &["n3", "n4", "n5"]), 1000);
    world.run_for(Duration::from_secs(2));
    assert_eq!(version(&world, "n2"), 1000);
    split(&mut world, &["n1"]);
    world.set_back(id("n2"), before);
    world.start(id("n2"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(version(&world, "n2"), 3);
    bury(&mut world, &["n3", "n4", "n5"]);
    world.mend();
    world.run_for(Duration::from_secs(5));
    let refused = recover(&mut world, "n1", &["n3"], false).unwrap_err();
    assert!(refused.starts_with("n2 goes by another history (it is at version 3"), "{refused}");
}

#[test]
fn forced_at_two_nodes_it_is_the_same() {
    let mut world = cluster(5);
    bury(&mut world, &["n1", "n2", "n3"]);
    let command = || {
        let lost = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        ClusterCommand::Recover { lost, force: true }
    };
    let tags = [world.command(id("n4"), command()), world.command(id("n5"), command())];
    world.run_for(Duration::from_secs(5));
    assert!(tags.iter().all(|tag| matches!(world.answers[tag], Ok(ClusterAnswer::Decided(_)))), "{:?}", world.answers);
    assert_eq!(world.forced.len(), 1);
    assert!(world.nodes.values().all(|node| node.apart.is_empty()));
}

#[test]
fn what_is_not_needed_or_not_safe_is_refused() {
    let mut world = cluster(5);
    let refused = |world: &mut World, lost: &[&str]| recover(world, "n1", lost, true).unwrap_err();
    assert_eq!(refused(&mut world, &[]), "nobody is named who is lost");
    assert_eq!(refused(&mut world, &["n9"]), "n9 is no member");
    assert_eq!(refused(&mut world, &["n1"]), "n1 is this node: it is not lost");
    assert_eq!(refused(&mut world, &["n2"]), "n2 is up, with all data, and not lost: do not name it");
    bury(&mut world, &["n5"]);
    assert_eq!(
        refused(&mut world, &["n5"]),
        "not needed: voters n1, n2, n3, n4 answer: use `leave NAME --lost` or `replace`, then plan and commit"
    );
    bury(&mut world, &["n4"]);
    world.crash(id("n3"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(refused(&mut world, &["n4", "n5"]), "n3 is neither heard nor declared lost: start it, or name it too");
    world.wipe(id("n3"));
    world.weather.shards = Duration::from_secs(3_000);
    world.start(id("n3"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(refused(&mut world, &["n4", "n5"]), "n3 has lost the data agreed on: name it too");
    world.crash(id("n1"));
    world.start(id("n1"));
    world.run_for(Duration::from_secs(4));
    let refusal = refused(&mut world, &["n3", "n4", "n5"]);
    assert_eq!(refusal, "this node has only just started, and may not hear everybody yet: ask again in 10 s");
    world.run_for(Duration::from_secs(7));
    assert_eq!(force(&mut world, "n1", &["n3", "n4", "n5"]), 1000);
}

#[test]
fn who_is_behind_says_whom_to_ask() {
    let mut world = cluster(3);
    split(&mut world, &["n1"]);
    let weight = Change::Set { name: "n2".to_owned(), weight: Some(2), zone: None };
    assert_eq!(change(&mut world, "n2", weight), Ok(3));
    bury(&mut world, &["n3"]);
    // What it is told of is lost on the way, but not that there is something.
    world.mend();
    let n1 = id("n1");
    let hears = |world: &World| world.machine(n1).peers.heard(id("n2")).is_some_and(|heard| heard.version == 3);
    assert!(world.run_until(Duration::from_secs(5), hears));
    assert_eq!(version(&world, "n1"), 2);
    let refused = recover(&mut world, "n1", &["n3"], true).unwrap_err();
    assert_eq!(refused, "n2 knows version 3, and this node version 2: ask n2 (`--node n2`)");
}

/// n1 has accepted its own proposal for version 3 when the others die. Whether they had, nobody knows.
#[test]
fn what_was_accepted_and_not_decided_is_given_up_and_the_operator_is_told() {
    let mut world = cluster(3);
    ask(&mut world, "n1", ClusterCommand::Stage(replace("n3", "n4"))).unwrap_err();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    let name = plan(&mut world, "n1").name;
    let n1 = id("n1");
    let tag = world.command(n1, ClusterCommand::Commit { plan: name });
    assert!(world.run_until(Duration::from_secs(1), |world| world.machine(n1).standing.accepted_for(3).is_some()));
    bury(&mut world, &["n2", "n3"]);
    world.run_for(Duration::from_secs(5));
    assert!(world.answers[&tag].is_err());
    let warnings = would(&mut world, "n1", &["n2", "n3"]).warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("version 3 may have been decided")), "{warnings:?}");
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    world.run_for(Duration::from_secs(20));
    assert_eq!(version(&world, "n1"), 1000, "nobody brings version 3 to its end");
}

#[test]
fn who_waits_for_a_decision_that_is_overtaken_by_force_is_answered() {
    let mut world = cluster(3);
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).unwrap();
    bury(&mut world, &["n2", "n3"]);
    let name = plan(&mut world, "n1").name;
    let tag = world.command(id("n1"), ClusterCommand::Commit { plan: name });
    assert_eq!(force(&mut world, "n1", &["n2", "n3"]), 1000);
    let answer = world.answers[&tag].clone().map_err(|failure| failure.to_string());
    assert!(answer.as_ref().is_err_and(|why| why.contains("there is a version 1000 by now")), "{answer:?}");
}

#[test]
fn what_was_forced_survives_a_restart_and_who_was_away_catches_up_across_the_gap() {
    let mut world = cluster(5);
    let before = world.nodes[&id("n5")].files.clone();
    for weight in [2, 3] {
        let weight = Change::Set { name: "n2".to_owned(), weight: Some(weight), zone: None };
        change(&mut world, "n1", weight).unwrap();
        settle(&mut world);
    }
    bury(&mut world, &["n2", "n3", "n4"]);
    assert_eq!(force(&mut world, "n1", &["n2", "n3", "n4"]), 1000);
    world.crash(id("n1"));
    world.start(id("n1"));
    world.run_for(Duration::from_secs(2));
    assert_eq!(state(&mut world, "n1").forced_on, Some(4));
    assert_eq!(change(&mut world, "n1", replace("n2", "n6")), Ok(1001));
    assert_eq!(change(&mut world, "n1", replace("n3", "n7")), Ok(1002));
    assert_eq!(change(&mut world, "n1", leave("n4", true)), Ok(1003));
    settle(&mut world);
    // As it would be if it had been away since version 2.
    world.set_back(id("n5"), before);
    world.start(id("n5"));
    settle(&mut world);
    assert_eq!(version(&world, "n5"), 1003);
    let past = match ask(&mut world, "n5", ClusterCommand::History) {
        Ok(ClusterAnswer::History(past)) => past,
        other => panic!("no history: {other:?}"),
    };
    let versions: Vec<_> = past.iter().map(|past| (past.version, past.forced_on)).collect();
    let expected = [1, 2, 3, 4, 1000, 1001, 1002, 1003].map(|version| (version, (version == 1000).then_some(4)));
    assert_eq!(versions, expected);
    assert_eq!((past[4].by.as_str(), past[4].reason.as_str()), ("n5", "n2, n3, n4 are lost: forced on version 4"));
}

#[test]
fn what_was_not_rightly_forced_is_not_taken() {
    let world = cluster(3);
    let (n1, n2) = (id("n1"), id("n2"));
    let before = world.machine(n1).chain.newest().unwrap().clone();
    let takes = |lost: &[&str]| {
        let record = &before.record;
        let topology = record.topology.with_ring(record.topology.ring().forced().unwrap()).unwrap();
        let lost = lost.iter().map(|name| (id(name), record.store_of(id(name)).unwrap())).collect();
        let (cluster, stores, words) = (record.cluster_id, record.stores.clone(), String::new());
        let forced =
            Record::new(cluster, before.digest, topology, stores, vec![n1], lost, vec![], words.clone(), words);
        let record = forced.unwrap().forced(record.version()).unwrap();
        let decided = DecidedRecord { record, ballot: Ballot::default(), accepted_by: vec![n2] };
        let state = &world.nodes[&n1];
        let config = MembershipConfig {
            candidate: Candidate { member: state.member.clone(), store: state.store },
            founding: world.founding().clone(),
            files: state.files.clone().into_iter().collect(),
            seed: [0; 32],
            planted: Planted::default(),
        };
        let mut machine = Membership::new(config, world.now).unwrap();
        machine.handle_letter(world.now, n2, Letter::Records { settled: 2, records: vec![decided] });
        machine.chain.version()
    };
    assert_eq!(takes(&["n3"]), 2, "two of three are no minority");
    assert_eq!(takes(&["n2", "n3"]), 1000);
}
