//! More than there is room for: bounded queues say so, and go on afterwards.

use std::time::Duration;

use driftless_client::Refusal;
use driftless_proto::Failure;
use driftless_proto::client::Response;
use driftless_proto::frame::FRAME_MAX;
use futures::future::join_all;
use quinn::{TransportConfig, VarInt};

use crate::rig::{Raw, Scenario, World, get, put};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn more_large_frames_than_streams_do_not_deadlock() {
    let scenario = Scenario {
        transport: |_, transport| {
            transport.max_concurrent_uni_streams(VarInt::from_u32(2));
        },
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let keys: Vec<String> = (0..24).map(|number| format!("key {number}")).collect();
        let puts =
            keys.iter().map(|key| bucket.put(key, vec![7; 200_000]).write_id(world.write_id()).w(3).into_future());
        for stored in join_all(puts).await {
            stored.expect("is stored on all three");
        }
        for read in join_all(keys.iter().map(|key| bucket.get(key).r(3).into_future())).await {
            assert_eq!(read.expect("is read").one().expect("no siblings").map(|value| value.len()), Some(200_000));
        }
        for name in world.dialling() {
            assert_eq!(world.downs(&name), 0);
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_refused_and_holds_up_nobody() {
    // So that most requests have been read before the first answers are too many: later ones would wait unread.
    let scenario = Scenario {
        settings: |_, settings| settings.net.outbound_bytes_max = 256 << 10,
        longest_packet: Some(1_472),
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let client = world.client().await;
        let bucket = client.bucket("default");
        bucket.put("big", vec![7; 30_000]).write_id(world.write_id()).await.expect("is stored");
        let mut narrow = TransportConfig::default();
        narrow.stream_receive_window(VarInt::from_u32(4096)).receive_window(VarInt::from_u32(8192));
        let mut raw = Raw::connect(&world, &asked, narrow).await;
        for _ in 0..200 {
            raw.ask(get("big"), DEADLINE).await;
        }
        // Nobody reads these 6 MB; others are served.
        for number in 0..50 {
            bucket.put(format!("key {number}"), "x").write_id(world.write_id()).via(&asked).await.expect("is stored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let overloaded = world.node(&asked).metrics().overloaded.get();
        assert!(overloaded > 100, "{overloaded} refused");
        let (mut read, mut refused) = (0, 0);
        for _ in 0..200 {
            match raw.answer().await.response {
                Response::Read(_) => read += 1,
                Response::Failed(Failure::Refused(Refusal::Overloaded { .. })) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(read > 0 && read * 30_000 < 2 << 20, "{read} were kept");
        assert_eq!(refused, overloaded);
        let after = raw.call(get("big"), DEADLINE).await;
        assert!(matches!(after, Response::Read(_)), "{after:?}");
    });
}

#[test]
fn more_requests_than_a_certificate_may_have_wait_and_those_of_others_do_not() {
    const SYNC_TAKES: Duration = Duration::from_millis(300);
    let scenario = Scenario {
        settings: |_, settings| settings.net.client_requests_max = 32,
        sync_takes: SYNC_TAKES,
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let mut raw = Raw::connect(&world, &asked, TransportConfig::default()).await;
        for number in 0..100 {
            raw.ask(put(&format!("key {number}"), "x", world.write_id()), DEADLINE).await;
        }
        // Sixteen at a time, and a sync or two for each.
        let begun = tokio::time::Instant::now();
        let mut other = Raw::connect_as(&world, "other", &asked, TransportConfig::default()).await;
        let answer = other.call(put("other", "x", world.write_id()), DEADLINE).await;
        assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        assert!(begun.elapsed() < 4 * SYNC_TAKES, "{:?}", begun.elapsed());
        for _ in 0..100 {
            let answer = raw.answer().await.response;
            assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        }
        assert!(begun.elapsed() > 5 * SYNC_TAKES, "{:?}", begun.elapsed());
    });
}

/// A sync takes so long that what is asked is under way for a while.
fn slow_disks() -> Scenario {
    Scenario {
        settings: |_, settings| settings.net.client_requests_max = 32,
        sync_takes: Duration::from_secs(2),
        ..Scenario::default()
    }
}

#[test]
fn a_request_whose_client_has_left_keeps_its_room_until_it_is_answered() {
    slow_disks().run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let mut raw = Raw::connect(&world, &asked, TransportConfig::default()).await;
        for number in 0..16 {
            raw.ask(put(&format!("key {number}"), vec![7; 10_000], world.write_id()), DEADLINE).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.connection.close(VarInt::from_u32(0), b"");
        let held = || world.node(&asked).metrics().client_bytes.get();
        world.until("they are counted", Duration::from_millis(1_500), || held() > 100_000).await;
        // Whoever comes back under that name finds its places taken.
        let mut again = Raw::connect(&world, &asked, TransportConfig::default()).await;
        let begun = tokio::time::Instant::now();
        let answer = again.call(put("again", "x", world.write_id()), DEADLINE).await;
        assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        assert!(begun.elapsed() > Duration::from_secs(2), "it was begun when those before it were done");
        world.until("all is given back", Duration::from_secs(20), || held() == 0).await;
    });
}

#[test]
fn what_has_arrived_on_a_connection_that_is_closed_is_not_carried_out() {
    slow_disks().run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let mut raw = Raw::connect(&world, &asked, TransportConfig::default()).await;
        for number in 0..100 {
            raw.ask(put(&format!("key {number}"), "x", world.write_id()), DEADLINE).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.connection.close(VarInt::from_u32(0), b"");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let keys = world.node(&asked).status().keys.expect("they are counted");
        assert!((1..=16).contains(&keys), "{keys} of 100 were stored, and 16 were under way");
    });
}

#[test]
fn a_client_that_reads_slowly_and_goes_on_reading_is_not_shown_out() {
    let scenario = Scenario {
        // 64 KiB for each 200 ms: a frame takes seconds, and many times as long as a silent client has.
        latency: (Duration::from_millis(100), Duration::from_millis(100)),
        settings: |_, settings| settings.net.arrival_timeout = Duration::from_secs(2),
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let mut whole = Raw::connect(&world, &asked, TransportConfig::default()).await;
        whole.call(put("big", vec![7; 3 << 20], world.write_id()), DEADLINE).await;
        let mut slow = TransportConfig::default();
        slow.receive_window(VarInt::from_u32(64 << 10));
        let mut raw = Raw::connect(&world, &asked, slow).await;
        let begun = tokio::time::Instant::now();
        let answer = raw.call(get("big"), DEADLINE).await;
        assert!(matches!(answer, Response::Read(_)), "{answer:?}");
        assert!(begun.elapsed() > Duration::from_secs(6), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_peer_that_takes_nothing_costs_bounded_memory_and_no_client_its_time() {
    let scenario =
        Scenario { settings: |_, settings| settings.net.outbound_bytes_max = 1 << 20, ..Scenario::default() };
    scenario.run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        world.cut("ada", "bob");
        world.cut("cyd", "bob");
        for number in 0..100 {
            let put = bucket.put(format!("key {number}"), vec![7; 100_000]).write_id(world.write_id());
            put.timeout(Duration::from_secs(3)).await.expect("two of three are left");
        }
        world.mend("ada", "bob");
        world.mend("cyd", "bob");
        world.connected().await;
        let put = bucket.put("after", vec![7; 100_000]).write_id(world.write_id()).w(3).sloppy(false);
        tokio::time::sleep(Duration::from_secs(5)).await;
        put.await.expect("all three are there");
    });
}

/// Each announces as much as there can be and sends a few bytes of it.
#[test]
fn large_frames_that_are_announced_and_not_sent_hold_up_no_peer_and_no_other_client() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let others = world.dialling();
        let (mut connections, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let raw = Raw::connect_as(&world, "greedy", &others[0], TransportConfig::default()).await;
            for _ in 0..8 {
                let mut stream = raw.connection.open_uni().await.expect("there is room");
                stream.write_all(&(FRAME_MAX as u32).to_le_bytes()).await.expect("goes out");
                stream.write_all(&[7; 10]).await.expect("goes out");
                streams.push(stream);
            }
            connections.push(raw);
        }
        let client = world.client().await;
        for (number, node) in others.iter().enumerate() {
            let put =
                client.bucket("default").put(format!("key {number}"), vec![7; 300_000]).write_id(world.write_id());
            put.via(node).w(3).timeout(Duration::from_secs(5)).await.expect("is stored on all three");
        }
        assert!(connections.iter().all(|raw| raw.connection.close_reason().is_none()), "none was shown out meanwhile");
    });
}

#[test]
fn large_frames_beyond_the_budget_of_memory_wait_for_their_turn() {
    let scenario = Scenario {
        // Half of the half of it: four of these.
        settings: |_, settings| settings.net.memory = 16 << 20,
        // Packets keep their order: what overtakes is taken for lost, and slows everything down.
        latency: (Duration::from_millis(1), Duration::from_millis(1)),
        ..Scenario::default()
    };
    scenario.run(async |world: World| {
        world.connected().await;
        let mut eager = TransportConfig::default();
        eager.send_window(64 << 20);
        let mut raw = Raw::connect(&world, "ada", eager).await;
        for number in 0..24 {
            raw.ask(put(&format!("key {number}"), vec![7; 1 << 20], world.write_id()), DEADLINE).await;
        }
        for _ in 0..24 {
            let answer = raw.answer().await.response;
            assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        }
    });
}
