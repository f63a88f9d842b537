//! The same seed sends the same packets: whatever a scenario finds, its seed finds again.

use std::time::Duration;

use futures::future::join_all;

use crate::rig::{Faults, Packet, Scenario, World};

/// A little of everything that the scenarios do.
async fn bad_day(world: World) {
    world.connected().await;
    let client = world.client().await;
    let bucket = client.bucket("default");
    let write = |number: u8| bucket.put(format!("key {}", number % 7), vec![number; 2000]).write_id(world.write_id());
    let wave = || join_all((0..20).map(|number| write(number).into_future()));
    world.network().everywhere(Faults { loss: 0.05, duplication: 0.05, flips: 0.02 });
    let _ = wave().await;
    world.cut("ada", "bob");
    let _ = wave().await;
    world.crash("cyd").await;
    let _ = wave().await;
    world.start("cyd").await;
    world.mend("ada", "bob");
    turmoil::partition("ada", "cyd");
    let _ = wave().await;
    turmoil::repair("ada", "cyd");
    for socket in world.client_sockets() {
        socket.rebind();
    }
    let _ = bucket.put("large", vec![7; 300_000]).write_id(world.write_id()).await;
    world.node("bob").stop();
    let _ = wave().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    client.close().await;
}

/// Packets of the first around the place where two runs differ.
fn first_difference(one: &[Packet], other: &[Packet]) -> Option<String> {
    let at = (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))?;
    let around =
        |packets: &[Packet]| format!("{:#?}", packets.iter().skip(at.saturating_sub(2)).take(5).collect::<Vec<_>>());
    Some(format!("packet {at} of {} and {}:\n{}\n{}", one.len(), other.len(), around(one), around(other)))
}

#[test]
fn the_same_seed_sends_the_same_packets() {
    for shards in [vec![1], vec![1, 2, 3]] {
        let scenario = Scenario { shards: shards.clone(), ..Scenario::default() };
        for seed in Scenario::seeds() {
            let first = scenario.run_seed(seed, bad_day);
            let second = scenario.run_seed(seed, bad_day);
            if let Some(difference) = first_difference(&first, &second) {
                panic!("seed {seed}, shards {shards:?}: {difference}");
            }
            assert!(first.len() > 1000, "{}", first.len());
            assert!(first != scenario.run_seed(seed + 1000, bad_day), "another seed sends others");
        }
    }
}
