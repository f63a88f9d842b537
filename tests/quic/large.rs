//! Keys larger than a frame: they reach everybody, and nothing waits for them.

use std::time::Duration;

use futures::future::join_all;

use crate::rig::{Scenario, World};

const VALUE: usize = 4 << 20;

/// Each side of a partition took four values of 4 MiB for one key. Merged they are twice what a client's frame holds; they were
/// dropped at the sender for ever, and the walk that could not deliver them was given up with all else that was owed.
#[test]
fn a_key_that_outgrew_a_frame_in_a_partition_reaches_all_and_holds_up_no_other() {
    let scenario = Scenario {
        // Packets keep their order: what overtakes is taken for lost, and slows everything down.
        latency: (Duration::from_millis(1), Duration::from_millis(1)),
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let alone = &world.dialling()[0];
        let others: Vec<String> = world.dialling().into_iter().skip(1).collect();
        for other in &others {
            turmoil::partition(alone.as_str(), other.as_str());
        }
        let cut = || others.iter().all(|other| !world.reaches(alone, other) && !world.reaches(other, alone));
        world.until("the sides know that they are cut off", Duration::from_secs(20), cut).await;
        for number in 0..8_u8 {
            let side = if number < 4 { alone } else { &others[0] };
            let put = bucket.put("large", vec![number; VALUE]).write_id(world.write_id()).via(side).w(1);
            put.timeout(Duration::from_secs(30)).attempt_timeout(Duration::from_secs(10)).await.expect("one is enough");
        }
        for number in 0..23_u8 {
            let put = bucket.put(format!("key {number}"), vec![number; 100]).write_id(world.write_id());
            put.via(&others[0]).await.expect("two are left");
        }
        for other in &others {
            turmoil::repair(alone.as_str(), other.as_str());
        }
        let owes_nothing = || world.dialling().iter().all(|node| world.node(node).status().hints == Some(0));
        world.until("what each side missed is handed over", Duration::from_secs(60), owes_nothing).await;
        for number in 0..23_u8 {
            let read = bucket.get(format!("key {number}")).r(1).via(alone).await.expect("reads");
            assert_eq!(read.one().expect("no siblings").map(|value| value[0]), Some(number));
        }
        let reads = others.iter().chain([alone]).map(|node| {
            let get = bucket.get("large").r(1).via(node);
            get.timeout(Duration::from_secs(60)).attempt_timeout(Duration::from_secs(20)).into_future()
        });
        for read in join_all(reads).await {
            let read = read.expect("reads all of it");
            let mut values: Vec<u8> = read.values().map(|value| value[0]).collect();
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
        assert_eq!(world.downs(alone), others.len() as u64, "no connection was lost but by the partition");
    });
}
