//! Packets that are lost, repeated, damaged, late, or from somewhere else.

use std::time::Duration;

use driftless_client::Client;
use driftless_proto::client::Liveness;
use tokio::time::Instant;

use crate::rig::{Faults, Scenario, World};

/// Puts and gets for that long, each of which must succeed and show the newest value.
async fn work(world: &World, client: &Client, duration: Duration) -> usize {
    let bucket = client.bucket("default");
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < duration {
        let key = format!("key {done}");
        let value = vec![done as u8; if done % 10 == 0 { 100_000 } else { 500 }];
        bucket.put(&*key, value.clone()).write_id(world.write_id()).await.expect("is stored");
        let read = bucket.get(&*key).await.expect("is read");
        assert_eq!(read.values().len(), 1, "no write is made twice");
        assert_eq!(read.one().expect("no siblings").map(|read| &read[..]), Some(&value[..]));
        done += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    done
}

/// Nothing of what arrived was anything but what had been sent, and nobody was thought dead.
fn unharmed(world: &World) {
    for name in world.dialling() {
        let node = world.node(&name);
        let metrics = node.metrics();
        assert_eq!(metrics.frames_malformed.get(), 0, "{name}");
        assert_eq!(metrics.protocol_violations.get(), 0, "{name}");
        assert_eq!(world.downs(&name), 0, "{name}");
    }
}

/// Nobody was turned away. (A first packet that is damaged is: nobody is known to have sent it.)
fn none_refused(world: &World) {
    for name in world.dialling() {
        assert_eq!(world.node(&name).metrics().connections_refused.get(), 0, "{name}");
    }
}

#[test]
fn a_fifth_of_all_packets_lost_is_slow_and_nothing_else() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        world.network().everywhere(Faults { loss: 0.2, ..Faults::default() });
        let done = work(&world, &client, Duration::from_secs(10)).await;
        assert!(done > 20, "{done}");
        unharmed(&world);
        none_refused(&world);
    });
}

#[test]
fn packets_that_arrive_twice_do_nothing_twice() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        world.founded().await;
        let client = world.client().await;
        world.network().everywhere(Faults { duplication: 0.5, ..Faults::default() });
        let done = work(&world, &client, Duration::from_secs(2)).await;
        assert!(done > 50 && world.network().counts().duplicated > 500, "{done}");
        unharmed(&world);
        none_refused(&world);
        let retries: u64 =
            world.dialling().iter().map(|name| world.node(name).metrics().retries_recognised.get()).sum();
        assert_eq!(retries, 0, "a packet that comes twice is no request that comes twice");
    });
}

#[test]
fn flipped_bits_never_reach_a_node() {
    Scenario::default().run(async |world: World| {
        // From the first handshake on.
        world.network().everywhere(Faults { flips: 0.1, ..Faults::default() });
        world.connected().await;
        let client = world.client().await;
        let done = work(&world, &client, Duration::from_secs(5)).await;
        assert!(done > 20 && world.network().counts().flipped > 200, "{done}");
        unharmed(&world);
    });
}

#[test]
fn packets_that_overtake_each_other_arrive_in_order_for_nodes() {
    let scenario = Scenario { latency: (Duration::ZERO, Duration::from_millis(60)), ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let done = work(&world, &client, Duration::from_secs(5)).await;
        assert!(done > 10, "{done}");
        unharmed(&world);
        none_refused(&world);
    });
}

#[test]
fn a_client_whose_port_changes_loses_no_request() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        for round in 0..5 {
            for socket in world.client_sockets() {
                let before = socket.port();
                socket.rebind();
                bucket
                    .put(format!("key {round}"), vec![round; 100_000])
                    .write_id(world.write_id())
                    .await
                    .expect("is stored");
                assert_ne!(socket.port(), before);
            }
            let read = bucket.get(format!("key {round}")).await.expect("is read");
            assert_eq!(read.values().map(|value| value[0]).collect::<Vec<_>>(), [round]);
        }
        unharmed(&world);
        none_refused(&world);
    });
}

#[test]
fn a_dialling_node_whose_port_changes_keeps_its_connections() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let (moves, other) = (world.dialling()[0].clone(), world.dialling()[1].clone());
        let client = world.client_of(&[&other]).await;
        for _ in 0..5 {
            let socket = world.machine(&moves).sockets.borrow()[0].upgrade().expect("is open");
            let before = socket.port();
            socket.rebind();
            world
                .until("a packet was sent from another port", Duration::from_secs(3), || socket.port() != before)
                .await;
            drop(socket);
            let bucket = client.bucket("default");
            for number in 0..10 {
                let put = bucket.put(format!("key {number}"), "x").write_id(world.write_id()).w(3).sloppy(false);
                put.via(&other).await.expect("all three are reached");
            }
            assert!(world.reaches(&moves, &other) && world.reaches(&other, &moves));
        }
        unharmed(&world);
        none_refused(&world);
    });
}

#[test]
fn a_node_that_gets_no_datagrams_but_answers_is_not_dead() {
    // The detector speaks in datagrams; this one says that it takes none.
    let deaf = Scenario {
        nodes: vec!["ada", "bob", "cyd"],
        transport: |host, transport| {
            if host == "bob" {
                transport.datagram_receive_buffer_size(None);
            }
        },
        ..Scenario::default()
    };
    deaf.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        work(&world, &client, Duration::from_secs(15)).await;
        for other in ["ada", "cyd"] {
            assert_eq!(world.downs(other), 0);
            assert_eq!(world.sees(other, "bob").liveness, Liveness::Alive);
        }
    });
}
