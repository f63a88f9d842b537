//! Twice the partitions, agreed on as any other change, by those who can read what comes of it.

use driftless_proto::greeting::DOUBLING;
use driftless_proto::membership::{Change, ClusterCommand};
use driftless_proto::{ProtocolVersion, ProtocolVersions};
use driftless_ring::NodeId;

use super::flows::{CALM, ask, commit, founded, join, leave, plan, settle, state};
use super::world::World;

const DOUBLE: Change = Change::DoublePartitions;

fn stage(world: &mut World, name: &str, change: Change) -> Result<(), String> {
    ask(world, name, ClusterCommand::Stage(change)).map(|_| ())
}

/// What every running node that is a member says of how many partitions there are.
fn partitions(world: &World) -> Vec<u32> {
    let of = |node: &NodeId| world.machine(*node).configurations().topology().ring().partitions().get();
    world.running().iter().map(of).collect()
}

fn is_of_the_past(world: &World) -> ProtocolVersion {
    let lowest = ProtocolVersions::OURS.lowest();
    assert!(lowest < DOUBLING && world.running().len() > 1);
    lowest
}

#[test]
fn partitions_are_doubled_and_nothing_moves() {
    let mut world = founded();
    let before = world.machine(NodeId::of_name("n1")).configurations().topology().ring().clone();
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let shown = plan(&mut world, "n1");
    assert_eq!((shown.slots_moved, shown.slots_minimum, shown.slots), (0, 0, 2 * 16 * 3));
    assert_eq!(shown.changes, ["partitions are doubled"]);
    assert!(shown.nodes.iter().all(|node| (node.now, node.then, node.gains) == (32, 32, 0)), "{:?}", shown.nodes);
    assert!(shown.warnings.iter().any(|warning| warning.contains("32 partitions instead of 16, for ever")));
    assert_eq!(commit(&mut world, "n2", &shown.name), Ok(3));
    settle(&mut world);
    assert!(partitions(&world).iter().all(|q| *q == 32));
    let configurations = world.machine(NodeId::of_name("n3")).configurations().clone();
    let after = configurations.topology().ring();
    for partition in after.all_partitions() {
        let was = after.partitions().cut_from(before.partitions(), partition);
        assert_eq!(after.owners(partition), before.owners(was));
    }

    // And again, with a member more, which comes to know how the first ones were numbered.
    stage(&mut world, "n1", join("n4")).expect("has called");
    let name = plan(&mut world, "n1").name;
    commit(&mut world, "n1", &name).expect("all are there");
    settle(&mut world);
    stage(&mut world, "n4", DOUBLE).expect("all are there");
    let name = plan(&mut world, "n4").name;
    assert_eq!(commit(&mut world, "n4", &name), Ok(5));
    settle(&mut world);
    let ring = world.machine(NodeId::of_name("n4")).configurations().topology().ring().partitions();
    assert_eq!((ring.get(), ring.founding_arc(driftless_ring::ArcIndex(63)).0), (64, 15));
}

#[test]
fn whoever_starts_again_reads_that_partitions_were_doubled() {
    let mut world = founded();
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let name = plan(&mut world, "n1").name;
    commit(&mut world, "n1", &name).expect("all are there");
    settle(&mut world);
    for node in world.ids().into_iter().take(3) {
        world.crash(node);
        world.start(node);
    }
    settle(&mut world);
    assert!(partitions(&world).iter().all(|q| *q == 32));
}

/// What is applied at once is not held against who understands it.
#[test]
fn a_doubling_is_staged_and_planned_first() {
    let mut world = founded();
    let why = ask(&mut world, "n1", ClusterCommand::Apply(DOUBLE)).expect_err("there is no way back");
    assert_eq!(why, "this cannot be taken back: stage it, and look at the plan");
}

#[test]
fn a_doubling_goes_by_itself() {
    let mut world = founded();
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let why = stage(&mut world, "n1", join("n4")).expect_err("two changes");
    assert!(why.starts_with("a doubling of the partitions goes by itself, so that nothing moves"), "{why}");
    stage(&mut world, "n1", DOUBLE).expect("once is enough");
    assert_eq!(state(&mut world, "n1").staged.changes, ["partitions are doubled"]);
}

#[test]
fn a_doubling_waits_for_the_change_before_it_and_cannot_be_taken_back() {
    let mut world = World::new(1, 3, 2, CALM);
    settle(&mut world);
    stage(&mut world, "n1", join("n4")).expect("has called");
    let name = plan(&mut world, "n1").name;
    world.weather.shards = std::time::Duration::from_secs(30);
    commit(&mut world, "n1", &name).expect("all are there");
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let name = plan(&mut world, "n1").name;
    let why = commit(&mut world, "n1", &name).expect_err("n4 is not ready");
    assert!(why.contains("unfinished"), "{why}");
    world.weather.shards = CALM.shards;
    world.run_for(std::time::Duration::from_secs(120));
    settle(&mut world);
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let name = plan(&mut world, "n1").name;
    world.weather.shards = std::time::Duration::from_secs(30);
    commit(&mut world, "n1", &name).expect("nothing is unfinished");
    let why = stage(&mut world, "n1", join("n5")).and_then(|()| {
        let name = plan(&mut world, "n1").name;
        commit(&mut world, "n1", &name).map(|_| ())
    });
    let why = why.expect_err("the doubling is unfinished");
    assert!(why.ends_with("): wait"), "{why}");
    let why = ask(&mut world, "n1", ClusterCommand::Cancel).expect_err("members are the same");
    assert!(why.contains("there is nothing to go back to"), "{why}");
}

#[test]
fn every_member_must_be_there_and_understand_it() {
    let mut world = founded();
    let n3 = NodeId::of_name("n3");
    world.crash(n3);
    world.run_for(std::time::Duration::from_secs(10));
    let why = stage(&mut world, "n1", DOUBLE).expect_err("n3 is away");
    assert!(why.starts_with("n3 does not answer: every member must be there"), "{why}");
    world.nodes.get_mut(&n3).expect("exists").speaks = is_of_the_past(&world);
    world.start(n3);
    settle(&mut world);
    let why = stage(&mut world, "n1", DOUBLE).expect_err("n3 is old");
    assert_eq!(why, "n3 is of a release that cannot double partitions: update it first");
    // It was updated, and put back to the release before once the change was staged.
    let speaks = |world: &mut World, speaks| {
        world.crash(n3);
        world.run_for(std::time::Duration::from_secs(1));
        world.nodes.get_mut(&n3).expect("exists").speaks = speaks;
        world.start(n3);
        settle(world);
    };
    speaks(&mut world, ProtocolVersions::OURS.highest());
    stage(&mut world, "n1", DOUBLE).expect("all are there");
    let name = plan(&mut world, "n1").name;
    speaks(&mut world, ProtocolVersions::OURS.lowest());
    let why = commit(&mut world, "n1", &name).expect_err("n3 is old");
    assert_eq!(why, "n3 is of a release that cannot double partitions: update it first");
    assert!(partitions(&world).iter().all(|q| *q == 16));
}

/// It could not read them: it is told nothing, and the world holds that against each letter that is delivered.
#[test]
fn nobody_of_an_older_release_is_sent_what_it_cannot_read() {
    let mut world = founded();
    let n5 = NodeId::of_name("n5");
    world.crash(n5);
    world.nodes.get_mut(&n5).expect("exists").speaks = is_of_the_past(&world);
    world.start(n5);
    settle(&mut world);
    stage(&mut world, "n1", DOUBLE).expect("n5 is no member");
    world.run_for(std::time::Duration::from_secs(10));
    let seen = state(&mut world, "n5");
    assert!(seen.members.iter().all(|member| member.is_heard), "it is told all but what is staged: {seen:?}");
    let name = plan(&mut world, "n1").name;
    commit(&mut world, "n1", &name).expect("all members are there");
    world.run_for(std::time::Duration::from_secs(5));
    let of = |name: &str| world.machine(NodeId::of_name(name)).configurations().topology().ring().partitions().get();
    assert_eq!((of("n4"), of("n5")), (32, 16), "n4 has called and listens, n5 has not been told");
    stage(&mut world, "n1", leave("n3", false)).expect_err("n = 3 needs 3 members");
}
