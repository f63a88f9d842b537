//! Clocks that are wrong for a while, and what nodes and clients make of it.

use std::time::Duration;

use driftless_proto::client::NodeStatus;

use crate::rig::{Scenario, World};

const DAY_MS: i64 = 86_400_000;

fn status(world: &World, host: &str) -> NodeStatus {
    world.node(host).status()
}

/// Everybody hears two others, and is right to what the ways between them come to.
async fn clocks_are_heard(world: &World) {
    let heard = |host: &&str| status(world, host).clock_offset_ms.is_some_and(|offset| offset.abs() < 100);
    world
        .until("all hear each other's clocks", Duration::from_secs(5), || ["ada", "bob", "cyd"].iter().all(heard))
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[test]
fn a_node_whose_clock_jumps_takes_no_writes_and_clients_go_elsewhere() {
    for shards in [1, 2] {
        let scenario = Scenario { shards: vec![shards], ..Scenario::default() };
        scenario.run(async |world: World| {
            world.connected().await;
            clocks_are_heard(&world).await;
            let client = world.client().await;
            let bucket = client.bucket("default");
            for ahead_ms in [DAY_MS, -DAY_MS] {
                world.set_clock("bob", ahead_ms);
                // From the first write on, whoever is asked first: none is dated in the future, or refused to the user.
                for number in 0..60 {
                    let put = bucket.put(format!("key {number}"), "x").write_id(world.write_id());
                    put.await.expect("another owner takes it");
                }
                let stamped = |host: &str| world.node(host).metrics().stamps_ahead.get();
                assert_eq!(["ada", "bob", "cyd"].map(stamped), [0; 3]);
                world.until("it says so", Duration::from_secs(1), || !status(&world, "bob").takes_writes).await;
                let offset = status(&world, "bob").clock_offset_ms.expect("others are heard");
                assert!(offset.abs_diff(ahead_ms) < 100, "{offset}");
                assert_eq!(world.node("bob").metrics().clock_off.get(), 1);
                assert!(["ada", "cyd"].iter().all(|host| status(&world, host).takes_writes));
                // It still answers reads, and holds what others write.
                let read = bucket.get("key 7").r(3).await.expect("all three answer");
                assert!(read.context().is_some());
                world.set_clock("bob", 0);
                world.until("it is right again", Duration::from_secs(1), || status(&world, "bob").takes_writes).await;
            }
        });
    }
}

/// Two of three are up: neither can know whose clock is wrong. What they stamp meanwhile freezes nothing once it is right.
#[test]
fn with_one_other_in_hearing_both_go_on_and_nothing_stays_frozen() {
    let scenario = Scenario { limit: Duration::from_secs(300), ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        clocks_are_heard(&world).await;
        let (first, last) = (world.dialling()[0].clone(), world.dialling()[2].clone());
        world.crash(&last).await;
        // Until what was known of its clock is too old to count.
        tokio::time::sleep(Duration::from_secs(130)).await;
        world.set_clock(&first, DAY_MS);
        let client = world.client_of(&[&first]).await;
        let bucket = client.bucket("default");
        for number in 0..30 {
            bucket.put(format!("key {number}"), "future").write_id(world.write_id()).await.expect("is stored");
        }
        let differs = |host: &str| status(&world, host).clock_offset_ms.is_some_and(|offset| offset.abs() > DAY_MS / 2);
        let other = world.dialling()[1].clone();
        world.until("both see it", Duration::from_secs(2), || differs(&first) && differs(&other)).await;
        assert!(status(&world, &first).takes_writes && status(&world, &other).takes_writes);
        world.set_clock(&first, 0);
        world.start(&last).await;
        world.connected().await;
        for number in 0..30 {
            let key = format!("key {number}");
            let read = bucket.get(key.clone()).await.expect("is read");
            let mut put = bucket.put(key.clone(), "present").write_id(world.write_id());
            if let Some(context) = read.context().filter(|_| number % 2 == 0) {
                put = put.context(context.clone());
            }
            put.await.expect("what is stored is never a reason to refuse");
            bucket.delete(key).write_id(world.write_id()).await.expect("is deleted");
        }
        let stamped: u64 =
            [&first, &other, &last].iter().map(|host| world.node(host).metrics().stamps_ahead.get()).sum();
        assert!(stamped > 0, "and it is counted");
    });
}
