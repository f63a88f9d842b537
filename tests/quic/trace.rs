//! The same seed sends the same packets.

use crate::rig::{Faults, Packet, Scenario, World};

async fn traffic(world: World) {
    world.connected().await;
    let client = world.client().await;
    let bucket = client.bucket("default");
    world.network().everywhere(Faults { loss: 0.05, duplication: 0.05, flips: 0.02 });
    for number in 0..20 {
        let key = format!("key {}", number % 7);
        bucket.put(&*key, vec![number; 2000]).write_id(world.write_id()).await.expect("gets through");
        let read = bucket.get(&*key).await.expect("gets through");
        assert!(read.values().any(|value| value[0] == number), "what was acknowledged is read");
    }
    client.close().await;
}

#[test]
fn the_same_seed_sends_the_same_packets() {
    let scenario = Scenario::default();
    let first = scenario.run_seed(7, traffic);
    let second = scenario.run_seed(7, traffic);
    let differs = first.iter().zip(&second).position(|(first, second)| first != second);
    if let Some(at) = differs {
        let show = |packets: &[Packet]| format!("{:#?}", &packets[at.saturating_sub(2)..(at + 3).min(packets.len())]);
        panic!("packet {at} of {}:\n{}\n{}", first.len(), show(&first), show(&second));
    }
    assert_eq!(first.len(), second.len());
    eprintln!("{} {:?}", first.len(), first.last());
    assert_ne!(first, scenario.run_seed(8, traffic), "another seed, other packets");
}
