//! Nodes that stop, crash, come back, and appear twice.

use std::time::Duration;

use driftless_client::{Client, Outcome, Refusal};
use driftless_proto::Failure;
use driftless_proto::client::Response;
use quinn::TransportConfig;
use tokio::time::Instant;

use crate::rig::{Raw, Scenario, World, put};

async fn writes(world: &World, client: &Client, name: &str) {
    for number in 0..20 {
        let key = format!("{name} {number}");
        client.bucket("default").put(key, "x").write_id(world.write_id()).await.expect("is stored");
    }
}

/// How long the dialler of a node that was restarted at once believes in the old connection.
async fn restart(world: World) -> Duration {
    world.connected().await;
    let (dialler, dialled) = (world.dialling()[0].clone(), world.dialling()[2].clone());
    let client = world.client_of(&[&dialler]).await;
    world.crash(&dialled).await;
    let begun = Instant::now();
    world.start(&dialled).await;
    // Something goes out to the old life.
    let written = async {
        loop {
            writes(&world, &client, "after").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let back = world.until("it is reached again", Duration::from_secs(30), || world.reaches(&dialled, &dialler));
    tokio::select! {
        biased;
        _ = back => {}
        () = written => {}
    }
    begun.elapsed()
}

#[test]
fn a_restarted_peer_is_known_by_its_stateless_reset() {
    Scenario::default().run(async |world: World| {
        let took = restart(world).await;
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
    // Without the key that its data directory keeps, the old connection has to die of silence.
    let forgetful = Scenario {
        settings: |_, settings| settings.reset_key = [settings.incarnation.starts as u8; 64],
        ..Scenario::default()
    };
    forgetful.run(async |world: World| {
        let took = restart(world).await;
        assert!(took > Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn an_old_copy_of_a_node_is_refused_by_all() {
    let scenario = Scenario {
        copies: vec![("backup", "bob")],
        settings: |host, settings| settings.incarnation.starts += if host == "bob" { 5 } else { 1 },
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        // Only a copy that dials meets the others: they call at the address in the cluster file.
        assert_eq!(world.dialling()[0], "bob");
        world.start("backup").await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            writes(&world, &client, "meanwhile").await;
            for other in ["ada", "cyd"] {
                assert!(!world.reaches("backup", other), "it is told to go");
                assert!(world.reaches("bob", other) && world.reaches(other, "bob"), "the original stays");
            }
        }
        let refused = |host: &str| world.node(host).metrics().connections_refused.get();
        assert!(refused("ada") > 0 && refused("cyd") > 0);
    });
}

#[test]
fn of_two_equal_copies_both_are_refused_until_one_is_started_again() {
    let scenario = Scenario { copies: vec![("copy", "bob")], ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        // Only a copy that dials meets the others: they call at the address in the cluster file.
        assert_eq!(world.dialling()[0], "bob");
        let client = world.client_of(&["ada", "cyd"]).await;
        world.start("copy").await;
        let alone = |host: &str| ["ada", "cyd"].iter().all(|other| !world.reaches(host, other));
        world.until("neither is trusted", Duration::from_secs(3), || alone("bob") && alone("copy")).await;
        writes(&world, &client, "without them").await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            assert!(alone("bob") && alone("copy"), "nor for a moment");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.node("bob").stop();
        world.until("it has stopped", Duration::from_secs(6), || world.machine("bob").node.borrow().is_none()).await;
        world.start("bob").await;
        let back = || ["ada", "cyd"].iter().all(|other| world.reaches("bob", other) && world.reaches(other, "bob"));
        world.until("the one that was started again is trusted", Duration::from_secs(3), back).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(back() && alone("copy"));
    });
}

#[test]
fn a_node_that_stops_answers_what_is_under_way() {
    let scenario = Scenario { sync_takes: Duration::from_millis(200), ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        let stops = world.dialling()[1].clone();
        let mut raw = Raw::connect(&world, &stops, TransportConfig::default()).await;
        let deadline = Duration::from_secs(3);
        for number in 0..50 {
            raw.ask(put(&format!("key {number}"), "x", world.write_id()), deadline).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        world.node(&stops).stop();
        let late = raw.ask(put("late", "x", world.write_id()), deadline).await;
        for _ in 0..51 {
            let frame = raw.answer().await;
            match frame.response {
                Response::Stored(_) => assert_ne!(frame.id, late),
                Response::Failed(Failure::Refused(Refusal::Stopping)) => assert_eq!(frame.id, late),
                other => panic!("{other:?}"),
            }
        }
        let closed = raw.connection.closed().await;
        let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("no good-bye: {closed}") };
        assert_eq!(close.error_code.into_inner(), 0);
        let gone = || world.dialling().iter().filter(|name| **name != stops).all(|name| !world.reaches(name, &stops));
        world.until("its peers have been told", Duration::from_millis(500), gone).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        world.until("it has stopped", Duration::from_secs(6), || world.machine(&stops).node.borrow().is_none()).await;
    });
}

#[test]
fn a_power_cut_of_all_nodes_loses_nothing_acknowledged() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let mut acknowledged = Vec::new();
        for life in 0..3_u8 {
            world.connected().await;
            for number in 0..30_u8 {
                let key = format!("key {life} {number}");
                match bucket.put(&*key, vec![number]).write_id(world.write_id()).await {
                    Ok(_) => acknowledged.push((key, number)),
                    Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error}"),
                }
            }
            for name in world.dialling() {
                world.crash(&name).await;
            }
            for name in world.dialling() {
                world.start(&name).await;
            }
        }
        world.connected().await;
        for (key, number) in acknowledged {
            let read = bucket.get(&*key).await.expect("reads");
            assert_eq!(read.one().expect("no siblings").map(|value| value[0]), Some(number), "{key}");
        }
    });
}

#[test]
fn a_node_that_stops_while_it_is_cut_off_ends_in_time() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let mut raw = Raw::connect(&world, "bob", TransportConfig::default()).await;
        turmoil::partition("bob", "ada");
        turmoil::partition("bob", "cyd");
        for number in 0..20 {
            raw.ask(put(&format!("key {number}"), "x", world.write_id()), Duration::from_secs(3)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.node("bob").stop();
        for _ in 0..20 {
            let answer = raw.answer().await.response;
            assert!(matches!(answer, Response::Failed(_)), "each is told: {answer:?}");
        }
        let stopped = || world.machine("bob").node.borrow().is_none();
        world.until("it has stopped", Duration::from_secs(8), stopped).await;
    });
}
