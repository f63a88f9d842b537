//! Some whom the cluster file names never come, and an operator has it founded without them.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_proto::Failure;
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, Decided, Founding};
use driftless_ring::NodeId;

use super::flows::{CALM, ask, commit, join, leave, plan, settle, state};
use super::world::World;

fn id(name: &str) -> NodeId {
    NodeId::of_name(name)
}

/// So many founders, and two that have called; these have not come yet.
fn unfounded(founders: usize, away: &[&str]) -> World {
    let mut world = World::new(1, founders, 2, CALM);
    away.iter().for_each(|name| world.crash(id(name)));
    world.run_for(Duration::from_secs(15));
    world
}

fn found(world: &mut World, at: &str, without: &[&str], yes: bool) -> Result<ClusterAnswer, String> {
    let without = without.iter().map(|&name| name.to_owned()).collect();
    ask(world, at, ClusterCommand::Found { without, yes })
}

fn decided(answer: Result<ClusterAnswer, String>) -> Decided {
    match answer {
        Ok(ClusterAnswer::Decided(decided)) => decided,
        other => panic!("not founded: {other:?}"),
    }
}

fn split(world: &mut World, names: &[&str]) {
    world.split(&names.iter().map(|name| id(name)).collect::<BTreeSet<_>>());
    world.run_for(Duration::from_secs(5));
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

fn version(world: &World, at: &str) -> u64 {
    world.machine(id(at)).chain.version()
}

#[test]
fn without_one_that_never_comes_the_others_found_it_and_another_takes_its_place() {
    let mut world = unfounded(3, &["n3"]);
    let refused = change(&mut world, "n1", join("n4")).unwrap_err();
    assert!(refused.ends_with("who never comes can be left out: `cluster found --without n3`"), "{refused}");
    let Ok(ClusterAnswer::Founding(Founding { without, by, voters, warnings })) =
        found(&mut world, "n1", &["n3"], false)
    else {
        panic!("it is not said what it would mean")
    };
    assert_eq!((without, by), (vec!["n3".to_owned()], ["n1", "n2"].map(str::to_owned).to_vec()));
    assert_eq!((voters.len(), warnings.len()), (1, 2), "of two one votes");
    assert_eq!(version(&world, "n1"), 1, "so far it was only asked");

    let answer = decided(found(&mut world, "n2", &["n3"], true));
    assert_eq!((answer.version, &*answer.reason), (2, "founded by its file, without n3"));
    assert_eq!(answer.by, ["n1", "n2"]);
    world.run_for(Duration::from_secs(2));
    assert_eq!(
        decided(found(&mut world, "n1", &["n3"], true)).version,
        2,
        "an answer that was lost is asked for again"
    );
    assert!(state(&mut world, "n1").members.iter().all(|member| member.is_lost == (member.name == "n3")));
    let refused = change(&mut world, "n1", join("n4")).unwrap_err();
    assert!(
        refused.starts_with("version 1 is unfinished (n3 is declared lost, and still named as members)"),
        "{refused}"
    );
    ask(&mut world, "n1", ClusterCommand::Clear).unwrap();
    assert_eq!(change(&mut world, "n1", replace("n3", "n4")), Ok(3));
    settle(&mut world);
    assert_eq!(state(&mut world, "n4").voters, ["n1", "n2", "n4"]);
}

#[test]
fn who_never_came_may_leave_as_lost() {
    let mut world = unfounded(5, &["n4", "n5"]);
    assert_eq!(decided(found(&mut world, "n1", &["n5", "n4"], true)).version, 2);
    world.run_for(Duration::from_secs(2));
    ask(&mut world, "n2", ClusterCommand::Stage(leave("n4", true))).unwrap();
    assert_eq!(change(&mut world, "n2", leave("n5", true)), Ok(3));
    settle(&mut world);
    assert_eq!(state(&mut world, "n3").voters, ["n1", "n2", "n3"]);
}

/// It has been there before, and goes by the file: its store is another than the record names, and is filled and named as any other.
#[test]
fn who_comes_after_all_is_filled_and_named_with_the_disk_that_it_has() {
    for is_wiped in [false, true] {
        let mut world = World::new(1, 3, 0, CALM);
        world.crash(id("n2"));
        world.run_for(Duration::from_secs(5));
        world.crash(id("n3"));
        world.start(id("n2"));
        world.run_for(Duration::from_secs(11));
        assert_eq!(decided(found(&mut world, "n1", &["n3"], true)).version, 2);
        if is_wiped {
            world.wipe(id("n3"));
        }
        let store = world.nodes[&id("n3")].store;
        world.start(id("n3"));
        world.run_for(Duration::from_secs(10));
        settle(&mut world);
        let after = state(&mut world, "n3");
        assert_eq!((after.version, after.voters.len()), (3, 3));
        assert!(after.members.iter().all(|member| !member.is_lost && member.is_whole));
        assert_eq!(world.records[&3].store_of(id("n3")), Some(store));
        assert_eq!(world.records[&3].lost.len(), 1, "only the number that was drawn for it");
    }
}

#[test]
fn what_is_not_safe_is_refused() {
    let mut world = unfounded(4, &["n4"]);
    let refused = |world: &mut World, without: &[&str]| found(world, "n1", without, true).unwrap_err();
    assert_eq!(refused(&mut world, &[]), "nobody is named who never comes");
    assert_eq!(refused(&mut world, &["n9"]), "n9 is not named by the cluster file");
    assert_eq!(refused(&mut world, &["n5"]), "n5 is not named by the cluster file", "it has only called");
    assert_eq!(refused(&mut world, &["n1", "n4"]), "n1 is this node: it is there");
    assert_eq!(refused(&mut world, &["n3", "n4"]), "n3 is there: do not name it");
    assert_eq!(
        found(&mut world, "n5", &["n4"], true).unwrap_err(),
        "n5 is not named by the cluster file: ask one that is"
    );
    world.crash(id("n3"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(refused(&mut world, &["n4"]), "n3 is not heard any more: all who are not left out must be there");
    assert_eq!(
        refused(&mut world, &["n3", "n4"]),
        "without n3, n4 2 of 4 would be left: more than half of those whom the cluster file names must be there"
    );
    world.start(id("n3"));
    world.run_for(Duration::from_secs(2));
    assert!(found(&mut world, "n3", &["n4"], true).unwrap_err().starts_with("this node has only just started"));
    assert_eq!(decided(found(&mut world, "n1", &["n4"], true)).version, 2);
    assert!(
        refused(&mut world, &["n3"])
            .starts_with("the members are agreed on, at version 2: who never comes is replaced")
    );
}

/// Each side would leave out the other.
#[test]
fn two_halves_do_not_both_found_it() {
    let mut world = World::new(1, 4, 0, CALM);
    split(&mut world, &["n1", "n2"]);
    world.run_for(Duration::from_secs(10));
    for (at, without) in [("n1", ["n3", "n4"]), ("n3", ["n1", "n2"])] {
        let refused = found(&mut world, at, &without, true).unwrap_err();
        assert!(refused.ends_with("more than half of those whom the cluster file names must be there"), "{refused}");
    }
    let mut world = World::new(1, 5, 0, CALM);
    split(&mut world, &["n1", "n2"]);
    world.run_for(Duration::from_secs(10));
    assert!(found(&mut world, "n2", &["n3", "n4", "n5"], true).is_err());
    assert_eq!(decided(found(&mut world, "n4", &["n1", "n2"], true)).version, 2);
    world.mend();
    world.run_for(Duration::from_secs(20));
    settle(&mut world);
    assert!(world.nodes.values().all(|node| node.apart.is_empty()));
    assert_eq!(state(&mut world, "n1").voters.len(), 5);
}

/// Two that leave out another each have a voter in common, and one of the two is decided.
#[test]
fn of_two_that_leave_out_others_one_is_decided() {
    let mut world = World::new(1, 3, 0, CALM);
    // n1 hears both, and they do not hear each other.
    split(&mut world, &["n2"]);
    world.run_for(Duration::from_secs(10));
    world.crash(id("n2"));
    world.mend();
    world.run_for(Duration::from_secs(1));
    let without_n2 = ClusterCommand::Found { without: vec!["n2".to_owned()], yes: true };
    let n3 = world.command(id("n3"), without_n2);
    // It is accepted by n1, and n3 dies before it hears of that.
    let is_accepted = |world: &World| world.machine(id("n1")).standing.accepted_for(2).is_some();
    assert!(world.run_until(Duration::from_secs(2), is_accepted), "{:?}", world.answers.get(&n3));
    world.crash(id("n3"));
    world.start(id("n2"));
    world.run_for(Duration::from_secs(15));
    let told = found(&mut world, "n1", &["n3"], true);
    assert!(
        told.as_ref()
            .is_err_and(|why| why.contains("version 2 was decided otherwise (n3: founded by its file, without n2)")),
        "{told:?}"
    );
    world.start(id("n3"));
    world.run_for(Duration::from_secs(20));
    settle(&mut world);
    assert!(world.nodes.values().all(|node| node.apart.is_empty()));
}

#[test]
fn founded_at_two_nodes_at_once_it_is_one_version_and_both_are_told() {
    let mut world = unfounded(5, &["n5"]);
    let command = || ClusterCommand::Found { without: vec!["n5".to_owned()], yes: true };
    let tags =
        [world.command(id("n1"), command()), world.command(id("n3"), command()), world.command(id("n1"), command())];
    world.run_for(Duration::from_secs(10));
    for tag in tags {
        let answer: Result<ClusterAnswer, Failure> = world.answers[&tag].clone();
        assert!(matches!(&answer, Ok(ClusterAnswer::Decided(decided)) if decided.version == 2), "{answer:?}");
    }
}

/// What all but one had accepted when that one went away is brought to an end without it.
#[test]
fn what_was_accepted_of_all_is_taken_up() {
    let mut world = World::new(1, 3, 0, CALM);
    let accepted =
        |world: &World| world.running().iter().any(|node| world.machine(*node).standing.accepted_for(2).is_some());
    assert!(world.run_until(Duration::from_secs(20), accepted));
    let last = ["n1", "n2", "n3"].into_iter().find(|name| world.machine(id(name)).standing.accepted_for(2).is_none());
    let away = last.expect("only one has accepted so far");
    world.crash(id(away));
    world.run_for(Duration::from_secs(15));
    let at = if away == "n1" { "n2" } else { "n1" };
    assert_eq!(version(&world, at), 1, "all have to accept it");
    let told = found(&mut world, at, &[away], true);
    assert!(told.as_ref().is_err_and(|why| why.contains("version 2 was decided otherwise")), "{told:?}");
    assert_eq!(version(&world, at), 2);
    assert!(world.records[&2].lost.is_empty());
    world.start(id(away));
    settle(&mut world);
}
