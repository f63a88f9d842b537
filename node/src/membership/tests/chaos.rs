//! Networks, disks, nodes and operators at their worst: no version is ever decided twice, and when it is over, all agree and are done.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, Record};
use driftless_proto::{AccessChange, BucketDefinition, BucketId, BucketName, Denial, Quorum};
use driftless_ring::NodeId;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::world::{Weather, World};

/// Of one run, so that a rig in which nothing happens is noticed.
#[derive(Default, Debug)]
struct Tally {
    versions: u64,
    wiped: u64,
    buried: u64,
    named_anew: u64,
    refused: u64,
    forced: u64,
    left_out: u64,
}

#[test]
fn no_version_is_decided_twice_and_all_come_to_agree() {
    let (seeds, total) = each_seed(300, run);
    if seeds >= 100 {
        let Tally { versions, wiped, buried, named_anew, refused, .. } = total;
        assert!(versions > 3 * seeds, "{total:?}");
        assert!(wiped.min(buried).min(named_anew).min(refused) > 5, "{total:?}");
    }
}

/// The same node is killed and started again and again while several propose at once: what a voter has said it must still know.
#[test]
fn duels_among_voters_that_crash_have_one_winner() {
    let (seeds, total) = each_seed(200, duel);
    if seeds >= 100 {
        assert!(total.versions > 3 * seeds && total.refused > seeds, "{total:?}");
    }
}

/// Most voters are gone for ever, in the middle of whatever was under way, and one of those that are left is told so.
#[test]
fn those_that_are_left_go_on_by_force() {
    let (seeds, total) = each_seed(150, bereave);
    if seeds >= 100 {
        let Tally { wiped, buried, named_anew, forced, .. } = total;
        assert!(forced > seeds / 2 && wiped.min(buried).min(named_anew) > seeds / 2, "{total:?}");
    }
}

/// Some of those whom the file names never come, or come late, and operators at several nodes have it founded without them.
#[test]
fn it_is_founded_once_whoever_is_left_out() {
    let (seeds, total) = each_seed(150, found);
    if seeds >= 100 {
        let Tally { buried, named_anew, refused, left_out, .. } = total;
        assert!(left_out > seeds / 4 && buried.min(named_anew).min(refused) > 5, "{total:?}");
    }
}

/// Runs so many seeds, or as many as the environment says, and sums up what they saw.
fn each_seed(seeds: u64, run: fn(u64) -> Tally) -> (u64, Tally) {
    let seeds = std::env::var("MEMBERSHIP_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(seeds);
    let first = std::env::var("MEMBERSHIP_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    let mut total = Tally::default();
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(tally) => {
                total.versions += tally.versions;
                total.wiped += tally.wiped;
                total.buried += tally.buried;
                total.named_anew += tally.named_anew;
                total.refused += tally.refused;
                total.forced += tally.forced;
                total.left_out += tally.left_out;
            }
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    (seeds, total)
}

fn duel(seed: u64) -> Tally {
    let calm = Weather { loss: 0.0, twice: 0.0, delay: Duration::from_millis(5), shards: Duration::from_millis(20) };
    let mut world = World::new(seed, 3 + 2 * (seed % 2) as usize, 0, calm);
    let ids = world.ids();
    for round in 0..5 {
        world.weather = calm;
        ids.iter().for_each(|node| world.start(*node));
        if !world.run_until(Duration::from_secs(60), is_over) {
            panic!("seed {seed}: round {round} is not over after a minute");
        }
        world.weather = Weather { loss: 0.2, twice: 0.1, delay: Duration::from_millis(150), ..calm };
        for number in 0..3_u32 {
            let node = *ids.choose(&mut world.rng).unwrap();
            world.command(node, ClusterCommand::Apply(Change::CreateBucket(bucket(&format!("r{round}.{number}"), 3))));
        }
        for _ in 0..30 {
            let pause = Duration::from_millis(world.rng.random_range(0..60));
            world.run_for(pause);
            let node = *ids.choose(&mut world.rng).unwrap();
            world.crash(node);
            let pause = Duration::from_millis(world.rng.random_range(0..20));
            world.run_for(pause);
            world.start(node);
        }
    }
    heal(&mut world, seed);
    let refused = world.answers.values().filter(|answer| answer.is_err()).count() as u64;
    Tally { versions: world.records.len() as u64, refused, ..Tally::default() }
}

fn bucket(name: &str, n: u8) -> BucketDefinition {
    let (name, quorum) = (BucketName::new(name).unwrap(), Quorum::majority(n).unwrap());
    BucketDefinition { name, id: BucketId(0), quorum, ..BucketDefinition::built_in(3) }
}

fn run(seed: u64) -> Tally {
    let weather = Weather {
        loss: [0.0, 0.05, 0.2][seed as usize % 3],
        twice: 0.05,
        delay: Duration::from_millis([20, 200, 1_000][(seed / 3) as usize % 3]),
        shards: Duration::from_millis([50, 3_000][(seed / 9) as usize % 2]),
    };
    let (founders, spares) = (3 + (seed / 18) as usize % 3, 1 + (seed % 2) as usize);
    let mut world = World::new(seed, founders, spares, weather);
    let mut tally = Tally::default();
    for _ in 0..40 {
        let pause = Duration::from_millis(world.rng.random_range(0..1_500));
        world.run_for(pause);
        disturb(&mut world, &mut tally);
    }
    heal(&mut world, seed);
    tally.versions = world.records.len() as u64;
    tally.refused = world.answers.values().filter(|answer| answer.is_err()).count() as u64;
    tally.named_anew =
        world.records.values().filter(|record| record.reason.ends_with("has a new store")).count() as u64;
    tally
}

fn found(seed: u64) -> Tally {
    let delay = Duration::from_millis([20, 200, 1_000][(seed / 2) as usize % 3]);
    let weather = Weather { loss: 0.1, twice: 0.05, delay, shards: Duration::from_millis(500) };
    let founders = 3 + (seed % 3) as usize;
    let mut world = World::new(seed, founders, 1, weather);
    let ids: Vec<NodeId> = world.founding().ring().members().iter().map(|member| member.id).collect();
    let most_away = (founders - 1) / 2;
    let away: Vec<NodeId> = ids.choose_multiple(&mut world.rng, most_away).copied().collect();
    away.iter().for_each(|node| world.crash(*node));
    // Some have been there for a moment, and know what was proposed then.
    if world.rng.random() {
        let late = away[0];
        world.start(late);
        let pause = Duration::from_millis(world.rng.random_range(0..1_500));
        world.run_for(pause);
        world.crash(late);
    }
    world.run_for(Duration::from_secs(11));
    for _ in 0..12 {
        let pause = Duration::from_millis(world.rng.random_range(0..4_000));
        world.run_for(pause);
        match world.rng.random_range(0..8) {
            0 => {
                // For a moment those on one side are not heard on the other, and may be left out there.
                let side: BTreeSet<NodeId> = ids.choose_multiple(&mut world.rng, founders / 2).copied().collect();
                world.split(&side);
            }
            1 => world.mend(),
            2 => {
                let node = *ids.choose(&mut world.rng).unwrap();
                if !away.contains(&node) {
                    world.crash(node);
                    world.start(node);
                }
            }
            3 if world.rng.random_bool(0.3) => world.start(away[0]),
            _ => {
                let left_out = away.choose_multiple(&mut world.rng, most_away).filter(|_| seed % 4 < 3).copied();
                let mut left_out: BTreeSet<NodeId> = left_out.collect();
                if left_out.len() < most_away || world.rng.random_bool(0.2) {
                    left_out.extend(ids.choose(&mut world.rng));
                }
                let names = left_out.iter().map(|node| world.nodes[node].member.name.clone()).collect();
                let node = *world.running().choose(&mut world.rng).unwrap();
                world.command(node, ClusterCommand::Found { without: names, yes: true });
            }
        }
    }
    world.mend();
    let mut tally = Tally::default();
    // Whoever has not come by now comes after all, or is gone.
    for node in away {
        let is_out = world.records.get(&2).is_some_and(|record| record.is_vacant(node));
        tally.left_out += u64::from(is_out);
        if is_out && founders > 3 && world.nodes[&node].machine.is_none() && world.rng.random() {
            world.bury(node);
            tally.buried += 1;
        }
    }
    heal(&mut world, seed);
    tally.refused = world.answers.values().filter(|answer| answer.is_err()).count() as u64;
    tally.named_anew =
        world.records.values().filter(|record| record.reason.ends_with("has a new store")).count() as u64;
    assert!(world.records.values().all(|record| record.follows_on() + 1 == record.version()), "nothing is forced");
    assert!(world.nodes.values().all(|node| node.apart.is_empty()), "seed {seed}: there are two histories");
    tally
}

fn bereave(seed: u64) -> Tally {
    let delay = Duration::from_millis([20, 200, 1_000][(seed / 2) as usize % 3]);
    let weather = Weather { loss: 0.05, twice: 0.05, delay, shards: Duration::from_millis(500) };
    let mut world = World::new(seed, 3 + 2 * (seed % 2) as usize, 2, weather);
    let mut tally = Tally::default();
    assert!(
        world.run_until(Duration::from_secs(120), |world| world.records.contains_key(&2)),
        "seed {seed}: not founded"
    );
    for _ in 0..15 {
        let pause = Duration::from_millis(world.rng.random_range(0..1_500));
        world.run_for(pause);
        disturb(&mut world, &mut tally);
    }
    let newest = world.records.values().last().unwrap();
    let (majority, voters) = (newest.voters.len() / 2 + 1, newest.voters.clone());
    let gone: Vec<NodeId> = voters.choose_multiple(&mut world.rng, majority).copied().collect();
    for node in gone {
        // As many as the largest n must be left, also of those that can take the place of another.
        let alive = world.nodes.values().filter(|node| !node.is_dead).count();
        if alive > 3 && world.rng.random() {
            world.bury(node);
            tally.buried += 1;
        } else {
            world.wipe(node);
            tally.wiped += 1;
        }
    }
    world.mend();
    (world.weather.loss, world.weather.delay) = (0.0, Duration::from_millis(20));
    world.ids().into_iter().for_each(|node| world.start(node));
    world.run_for(Duration::from_secs(15));
    for _ in 0..10 {
        // With the last store that a version names the cluster is gone.
        let Some(answer) = force(&mut world) else { return tally };
        match answer {
            Ok(_) => tally.forced += 1,
            // Of the voters of the newest version that those who are left know, enough are there.
            Err(why) if why.starts_with("not needed") => {}
            // Not everybody knows yet what there is to know.
            Err(_) => {
                world.run_for(Duration::from_secs(3));
                continue;
            }
        }
        break;
    }
    heal(&mut world, seed);
    assert_eq!(world.forced.len() as u64, tally.forced);
    tally.named_anew =
        world.records.values().filter(|record| record.reason.ends_with("has a new store")).count() as u64;
    tally
}

/// Has one of those that are left force it, who names whoever is dead or has another disk; nothing if nobody is left.
fn force(world: &mut World) -> Option<Result<ClusterAnswer, String>> {
    let is_left = |node: &NodeId| {
        let record = world.machine(*node).chain.newest().map(|newest| newest.record.clone());
        record.is_some_and(|record| record.store_of(*node) == Some(world.nodes[node].store))
    };
    let left: Vec<NodeId> = world.running().into_iter().filter(is_left).collect();
    let node = *left.choose(&mut world.rng)?;
    let record = world.machine(node).chain.newest()?.record.clone();
    let is_gone = |member: &&driftless_ring::Member| {
        let state = &world.nodes[&member.id];
        state.is_dead || record.store_of(member.id) != Some(state.store)
    };
    let lost = record.topology.ring().members().iter().filter(is_gone).map(|member| member.name.clone()).collect();
    Some(world.ask(node, ClusterCommand::Recover { lost, force: true }))
}

fn disturb(world: &mut World, tally: &mut Tally) {
    let ids = world.ids();
    let node = *ids.choose(&mut world.rng).unwrap();
    match world.rng.random_range(0..14) {
        0 | 1 => world.crash(node),
        2..=4 => ids.iter().for_each(|node| world.start(*node)),
        5 => {
            let side: BTreeSet<NodeId> = ids.iter().copied().filter(|_| world.rng.random()).collect();
            world.split(&side);
        }
        // Two operators, in two halves, at the same moment.
        6 => {
            let side: BTreeSet<NodeId> = ids.iter().copied().filter(|_| world.rng.random()).collect();
            world.split(&side);
            operate(world);
            operate(world);
        }
        7 => world.mend(),
        8 if !is_damaged(world) => {
            world.wipe(node);
            tally.wiped += 1;
        }
        9 if !world.records.is_empty() && !is_damaged(world) && world.rng.random_bool(0.3) => {
            world.bury(node);
            tally.buried += 1;
        }
        _ => operate(world),
    }
}

/// Whether a store that the newest record names is gone, or one may be that nobody knows of yet: then no other is destroyed, as a
/// cluster of three does not outlive that.
fn is_damaged(world: &World) -> bool {
    let Some(newest) = world.records.values().last() else {
        return world.nodes.values().any(|node| node.store_changed());
    };
    let is_gone = |node: &NodeId| {
        world.nodes.get(node).is_none_or(|state| state.is_dead || newest.store_of(*node) != Some(state.store))
    };
    let members = newest.topology.ring().members();
    members.iter().any(|member| is_gone(&member.id))
        || world.nodes.values().any(|node| node.is_dead)
        || world.running().len() < world.nodes.len()
        || world.running().iter().any(|node| !world.machine(*node).configurations().is_settled())
}

fn operate(world: &mut World) {
    let Some(node) = world.running().choose(&mut world.rng).copied() else { return };
    let names: Vec<String> = world.nodes.values().map(|node| node.member.name.clone()).collect();
    let name = names.choose(&mut world.rng).unwrap().clone();
    let change = match world.rng.random_range(0..8) {
        0..=2 => Change::Join { name, zone: None, weight: None },
        3 => Change::Leave { name, lost: false },
        4 => Change::Set { name, weight: Some(world.rng.random_range(1..4)), zone: None },
        5 => {
            let with = names.choose(&mut world.rng).unwrap().clone();
            Change::Replace { name, with, force: world.rng.random_bool(0.2) }
        }
        6 => {
            let name = format!("b{}", world.rng.random_range(0..9));
            let change = match world.rng.random_range(0..4) {
                0 => Change::SetAccess(AccessChange::Deny(Denial::Client(name))),
                n => Change::CreateBucket(bucket(&name, n)),
            };
            world.command(node, ClusterCommand::Apply(change));
            return;
        }
        _ => {
            world.command(node, ClusterCommand::Cancel);
            return;
        }
    };
    world.operate(node, change);
}

/// Everything that can come back does, and operators declare lost what cannot.
fn heal(world: &mut World, seed: u64) {
    world.mend();
    (world.weather.loss, world.weather.delay) = (0.0, Duration::from_millis(20));
    for node in world.ids() {
        world.start(node);
    }
    for attempt in 0..12 {
        if world.run_until(Duration::from_secs(20), is_over) {
            assert!(denials_stand(world), "seed {seed}: whoever was denied is let in again");
            return;
        }
        // Whoever was declared lost while it was there is wiped, as it is told.
        for node in world.running() {
            if world.machine(node).is_lost(node, world.nodes[&node].store) {
                world.wipe(node);
                world.start(node);
            }
        }
        let Some(at) = world.running().into_iter().find(|node| world.machine(*node).chain.is_member(*node)) else {
            break;
        };
        let members = world.machine(at).configurations().members();
        let newest = world.machine(at).configurations().topology().clone();
        // Also one that has lost its disk while it was leaving: nobody waits for what it held but by the old store.
        let is_gone = |member: &&driftless_ring::Member| {
            let node = &world.nodes[&member.id];
            let is_leaving = newest.ring().member(member.id).is_none();
            node.is_dead || (is_leaving && world.machine(at).store_of(member.id) != Some(node.store))
        };
        let Some(lost) = members.iter().find(is_gone).cloned() else { continue };
        // Of three members none can leave, and a node that is leaving takes no place: then the leave is cancelled first.
        if attempt % 3 == 2 {
            world.command(at, ClusterCommand::Cancel);
            continue;
        }
        world.command(at, ClusterCommand::Clear);
        let chain = &world.machine(at).chain;
        let stranger = world.nodes.values().find(|node| !node.is_dead && !chain.is_member(node.member.id));
        let with = stranger.filter(|_| attempt % 3 == 1).map(|node| node.member.name.clone());
        let change = match with {
            Some(with) => Change::Replace { name: lost.name, with, force: false },
            None => Change::Leave { name: lost.name, lost: true },
        };
        world.operate(at, change);
    }
    let states: Vec<String> = world
        .running()
        .into_iter()
        .map(|node| {
            let (machine, state) = (world.machine(node), &world.nodes[&node]);
            let configurations = machine.configurations();
            format!(
                "{} version {} settled {} whole {} unfinished {:?} marks {:?} {:?}",
                state.member.name,
                configurations.version(),
                machine.chain.settled(),
                configurations.is_whole(),
                configurations.unfinished().collect::<Vec<_>>(),
                machine.marks.to_tell(),
                machine.deciding.is_some(),
            )
        })
        .collect();
    let refusals: Vec<_> = world.answers.values().rev().take(4).collect();
    panic!("seed {seed} does not come to an end:\n{}\n{refusals:#?}", states.join("\n"));
}

/// Nobody takes back a denial here: each record has those of the one that it follows on, and all nodes go by the newest.
fn denials_stand(world: &World) -> bool {
    let follow = |(before, after): (&Record, &Record)| {
        after.parent != before.digest() || before.access().denied().clients.is_subset(&after.access().denied().clients)
    };
    let records: Vec<&Record> = world.records.values().collect();
    let newest = records.last().map(|record| record.access());
    let goes_by = |node: &NodeId| Some(&**world.machine(*node).configurations().access()) == newest;
    records.windows(2).all(|pair| follow((pair[0], pair[1]))) && world.running().iter().all(goes_by)
}

fn is_over(world: &World) -> bool {
    let Some(newest) = world.records.values().last() else { return false };
    let is_done = |node: NodeId| {
        let configurations = world.machine(node).configurations();
        configurations.version() == newest.version() && configurations.is_settled() && configurations.is_whole()
    };
    let is_dead = |node: &NodeId| world.nodes[node].is_dead;
    world.running().into_iter().all(is_done) && !newest.stores.iter().any(|(node, _)| is_dead(node))
}
