//! Who may do what, agreed on as any other change, and kept whatever becomes of the members.

use std::time::Duration;

use driftless_proto::greeting::AGREED_ACCESS;
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, Moving, StoreId};
use driftless_proto::{AccessChange, AgreedAccess, Denial, Grant, ProtocolVersions, Role};
use driftless_ring::{Member, NodeId};

use super::flows::{CALM, ask, commit, founded, join, leave, plan, settle, state};
use super::world::World;
use crate::membership::{Ballot, Candidate, Letter, News, StagedChanges};

fn deny(name: &str) -> AccessChange {
    AccessChange::Deny(Denial::Client(name.to_owned()))
}

fn allow(name: &str) -> AccessChange {
    AccessChange::Allow(Denial::Client(name.to_owned()))
}

fn deny_node(name: &str) -> AccessChange {
    AccessChange::Deny(Denial::Node(name.to_owned()))
}

fn grant(name: &str) -> AccessChange {
    AccessChange::Grant { name: name.to_owned(), grant: Grant { role: Role::Reader, buckets: None } }
}

fn apply(world: &mut World, at: &str, change: AccessChange) -> Result<u64, String> {
    match ask(world, at, ClusterCommand::Apply(Change::SetAccess(change)))? {
        ClusterAnswer::Decided(decided) => Ok(decided.version),
        other => panic!("not decided: {other:?}"),
    }
}

/// Stages, plans and commits.
fn change(world: &mut World, at: &str, change: Change) -> Result<u64, String> {
    ask(world, at, ClusterCommand::Stage(change))?;
    let name = plan(world, at).name;
    commit(world, at, &name)
}

/// What a running node goes by.
fn access(world: &World, name: &str) -> AgreedAccess {
    AgreedAccess::clone(world.machine(NodeId::of_name(name)).configurations().access())
}

fn expected(changes: &[AccessChange]) -> AgreedAccess {
    changes.iter().try_fold(AgreedAccess::default(), |access, change| access.with(change)).expect("fits")
}

#[test]
fn what_is_agreed_on_holds_at_all_nodes_and_is_taken_back() {
    let mut world = founded();
    let first = ask(&mut world, "n1", ClusterCommand::Access);
    assert!(matches!(&first, Ok(ClusterAnswer::Access(state)) if state.version == 2 && state.access.is_empty()));
    assert_eq!(apply(&mut world, "n1", deny("mallory")), Ok(3));
    world.run_for(Duration::from_millis(100));
    for name in ["n1", "n2", "n3", "n4"] {
        assert_eq!(access(&world, name), expected(&[deny("mallory")]), "{name}, also if it has only called");
    }
    settle(&mut world);
    assert_eq!(apply(&mut world, "n2", grant("web")), Ok(4));
    assert!(world.records[&4].reason.starts_with("client web is reader, plan "), "{}", world.records[&4].reason);
    world.run_for(Duration::from_millis(100));
    let shown = ask(&mut world, "n3", ClusterCommand::Access).expect("is told");
    let ClusterAnswer::Access(shown) = shown else { panic!("{shown:?}") };
    assert_eq!((shown.version, shown.access), (4, expected(&[deny("mallory"), grant("web")])));
    settle(&mut world);
    let why = apply(&mut world, "n1", deny("mallory")).expect_err("it is so");
    assert_eq!(why, "client mallory is denied: that is agreed on already");
    apply(&mut world, "n1", AccessChange::Allow(Denial::Client("mallory".to_owned()))).expect("was denied");
    settle(&mut world);
    apply(&mut world, "n1", AccessChange::Revoke { name: "web".to_owned() }).expect("was granted");
    settle(&mut world);
    assert!(access(&world, "n3").is_empty());
}

#[test]
fn it_stands_after_a_start_before_anybody_is_heard() {
    let mut world = founded();
    apply(&mut world, "n1", deny("mallory")).expect("all are there");
    settle(&mut world);
    for node in world.ids() {
        world.crash(node);
    }
    world.start(NodeId::of_name("n2"));
    assert_eq!(access(&world, "n2"), expected(&[deny("mallory")]));
}

/// Members that join, leave, are replaced, lost, or come back with an empty disk; changes that are taken back; a cluster that goes on by force.
#[test]
fn it_goes_on_whatever_becomes_of_the_members() {
    let mut world = World::new(1, 4, 3, CALM);
    settle(&mut world);
    let all = [deny("mallory"), grant("web"), AccessChange::Default(Some(Role::Reader))];
    for one in &all {
        apply(&mut world, "n1", one.clone()).expect("nothing is unfinished");
        settle(&mut world);
    }
    let all = expected(&all);
    let held =
        |world: &World| world.running().iter().all(|node| **world.machine(*node).configurations().access() == all);
    assert!(held(&world));
    let mut next = |what: Change, dead: Option<&str>| {
        dead.iter().for_each(|name| world.bury(NodeId::of_name(name)));
        world.run_for(Duration::from_secs(10));
        let version = change(&mut world, "n1", what.clone()).expect("is fine");
        settle(&mut world);
        assert!(*world.records[&version].access() == all && held(&world), "{what}");
    };
    next(join("n5"), None);
    next(Change::Set { name: "n2".to_owned(), weight: Some(2), zone: None }, None);
    next(leave("n2", false), None);
    next(Change::DoublePartitions, None);
    next(Change::Replace { name: "n3".to_owned(), with: "n6".to_owned(), force: false }, Some("n3"));
    let n5 = NodeId::of_name("n5");
    world.wipe(n5);
    world.start(n5);
    world.run_for(Duration::from_secs(30));
    settle(&mut world);
    assert_eq!(world.records.values().last().map(|record| record.reason.as_str()), Some("n5 has a new store"));
    assert!(held(&world));

    // By force, of all that is left.
    let lost = ["n4", "n5", "n6"];
    lost.iter().for_each(|name| world.bury(NodeId::of_name(name)));
    world.run_for(Duration::from_secs(10));
    let lost = lost.map(str::to_owned).to_vec();
    let forced = ask(&mut world, "n1", ClusterCommand::Recover { lost, force: true });
    assert!(matches!(forced, Ok(ClusterAnswer::Decided(_))), "{forced:?}");
    world.run_for(Duration::from_secs(5));
    assert!(world.records.values().last().is_some_and(|record| record.forced_on.is_some() && *record.access() == all));
    assert!(held(&world) && state(&mut world, "n1").forced_on.is_some());
}

#[test]
fn who_was_denied_while_members_changed_stays_denied_when_that_is_taken_back() {
    let mut world = founded();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).expect("has called");
    let name = plan(&mut world, "n1").name;
    world.weather.shards = Duration::from_secs(60);
    commit(&mut world, "n1", &name).expect("all are there");
    let why = apply(&mut world, "n1", grant("web")).expect_err("n4 is not ready");
    assert!(why.contains("unfinished") && why.ends_with("wait, or cancel"), "{why}");
    assert_eq!(apply(&mut world, "n1", deny("mallory")), Ok(4), "a thief does not wait");
    assert_eq!(apply(&mut world, "n1", deny("malory")), Ok(5), "a slip of the pen");
    assert_eq!(apply(&mut world, "n1", allow("malory")), Ok(6), "nor does who was denied by mistake");
    let cancelled = ask(&mut world, "n1", ClusterCommand::Cancel);
    assert!(matches!(&cancelled, Ok(ClusterAnswer::Decided(decided)) if decided.version == 7), "{cancelled:?}");
    assert_eq!(world.records[&7].topology.ring().members().len(), 3);
    world.run_for(Duration::from_secs(1));
    for name in ["n1", "n2", "n3", "n4"] {
        assert_eq!(access(&world, name), expected(&[deny("mallory")]), "{name}");
    }
    world.weather.shards = CALM.shards;
    world.run_for(Duration::from_secs(200));
    settle(&mut world);
    assert_eq!(access(&world, "n2"), expected(&[deny("mallory")]));
}

#[test]
fn denials_do_not_pile_up_without_end_while_members_change() {
    let mut world = founded();
    ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).expect("has called");
    let name = plan(&mut world, "n1").name;
    world.weather.shards = Duration::from_secs(600);
    commit(&mut world, "n1", &name).expect("all are there");
    let mut denied = 0;
    let why = loop {
        match apply(&mut world, "n1", deny(&format!("m{denied}"))) {
            Ok(_) => denied += 1,
            Err(why) => break why,
        }
        assert!(denied <= 16, "one after the other, for ever");
    };
    assert!(denied > 10 && why.contains("unfinished"), "{denied}: {why}");
}

#[test]
fn nobody_denies_a_node_that_takes_part() {
    let mut world = founded();
    let why = apply(&mut world, "n1", deny_node("n3")).expect_err("is a member");
    assert!(why.starts_with("n3 is a member: let another node take its place"), "{why}");
    // Gone for ever, and another in its place: from then on it is nobody's name.
    world.bury(NodeId::of_name("n3"));
    world.run_for(Duration::from_secs(10));
    world.weather.shards = Duration::from_secs(30);
    change(&mut world, "n1", Change::Replace { name: "n3".to_owned(), with: "n4".to_owned(), force: false })
        .expect("n3 is gone");
    apply(&mut world, "n1", deny_node("n3")).expect("it is lost, and no member any more");
    world.weather.shards = CALM.shards;
    world.run_for(Duration::from_secs(120));
    settle(&mut world);
    // One that leaves takes part until it has.
    change(&mut world, "n1", join("n5")).expect("has called");
    settle(&mut world);
    world.weather.shards = Duration::from_secs(30);
    change(&mut world, "n1", leave("n2", false)).expect("all are there");
    let why = apply(&mut world, "n1", deny_node("n2")).expect_err("it hands over what it holds");
    assert_eq!(why, "n2 is still leaving: deny it once that is done");
}

#[test]
fn a_node_that_is_denied_does_not_become_a_member() {
    let mut world = founded();
    apply(&mut world, "n1", deny_node("n4")).expect("is no member");
    settle(&mut world);
    let told = "n4 is denied: take that back first (`access allow node n4`), or give the node another name";
    assert_eq!(ask(&mut world, "n1", ClusterCommand::Stage(join("n4"))).expect_err("is denied"), told);
    world.bury(NodeId::of_name("n3"));
    world.run_for(Duration::from_secs(10));
    let replace = Change::Replace { name: "n3".to_owned(), with: "n4".to_owned(), force: false };
    assert_eq!(ask(&mut world, "n1", ClusterCommand::Stage(replace)).expect_err("is denied"), told);
    // Staged before it was denied.
    ask(&mut world, "n1", ClusterCommand::Stage(join("n5"))).expect("has called");
    ask(&mut world, "n1", ClusterCommand::Stage(Change::SetAccess(deny_node("n5")))).expect_err("and is to be denied");
}

#[test]
fn every_member_must_be_there_and_understand_it_the_first_time() {
    let mut world = founded();
    let n3 = NodeId::of_name("n3");
    world.crash(n3);
    world.run_for(Duration::from_secs(10));
    let why = apply(&mut world, "n1", deny("mallory")).expect_err("n3 is away");
    assert!(why.starts_with("n3 does not answer: every member must be there"), "{why}");
    let lowest = ProtocolVersions::OURS.lowest();
    assert!(lowest < AGREED_ACCESS);
    world.nodes.get_mut(&n3).expect("exists").speaks = lowest;
    world.start(n3);
    settle(&mut world);
    let told = "n3 is of a release that cannot agree on who may do what: update it first";
    assert_eq!(apply(&mut world, "n1", deny("mallory")).expect_err("n3 is old"), told);
    let staged = ask(&mut world, "n1", ClusterCommand::Stage(Change::SetAccess(deny("mallory"))));
    assert_eq!(staged.expect_err("n3 is old"), told);
    assert!(access(&world, "n1").is_empty() && state(&mut world, "n1").version == 2);

    world.crash(n3);
    world.run_for(Duration::from_secs(1));
    world.nodes.get_mut(&n3).expect("exists").speaks = ProtocolVersions::OURS.highest();
    world.start(n3);
    settle(&mut world);
    apply(&mut world, "n1", deny("mallory")).expect("all understand it");
    settle(&mut world);
    world.crash(n3);
    world.run_for(Duration::from_secs(10));
    apply(&mut world, "n1", deny("trudy")).expect("n3 is known to understand it");
}

#[test]
fn letters_that_speak_of_access_are_for_those_who_can_read_it() {
    let mut world = founded();
    apply(&mut world, "n1", deny("mallory")).expect("all are there");
    let accept = |version| {
        let record = Box::new(world.records[&version].clone());
        Letter::Accept { ballot: Ballot::default(), record }.spoken_from()
    };
    assert_eq!([accept(2), accept(3)], [ProtocolVersions::OURS.lowest(), AGREED_ACCESS]);
    let news = |change| {
        let staged = Some(StagedChanges { base: 2, serial: 1, by: NodeId(1), changes: vec![change] });
        let sender = Candidate { member: Member::new("n1", "h:1"), store: StoreId(1) };
        let (marks, moving) = (Vec::new(), Moving::default());
        Letter::News(Box::new(News { version: 2, digest: 0, settled: 0, staged, marks, moving, sender })).spoken_from()
    };
    let access = Change::SetAccess(deny("mallory"));
    assert_eq!([news(join("n4")), news(access)], [ProtocolVersions::OURS.lowest(), AGREED_ACCESS]);
}

/// It could not read them: it is told nothing, and the world holds that against each letter that is delivered.
#[test]
fn nobody_of_an_older_release_is_sent_what_it_cannot_read() {
    let mut world = founded();
    let n5 = NodeId::of_name("n5");
    world.crash(n5);
    world.nodes.get_mut(&n5).expect("exists").speaks = ProtocolVersions::OURS.lowest();
    world.start(n5);
    settle(&mut world);
    ask(&mut world, "n1", ClusterCommand::Stage(Change::SetAccess(grant("web")))).expect("n5 is no member");
    world.run_for(Duration::from_secs(10));
    ask(&mut world, "n1", ClusterCommand::Clear).expect("is cleared");
    apply(&mut world, "n1", deny("mallory")).expect("all members understand it");
    world.run_for(Duration::from_secs(5));
    assert!(!access(&world, "n4").is_empty() && access(&world, "n5").is_empty());
    let why =
        ask(&mut world, "n1", ClusterCommand::Stage(join("n5"))).expect_err("it could not read what makes it a member");
    assert_eq!(why, "n5 is of a release that cannot read what the members agree on: update it first");
}
