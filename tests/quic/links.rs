//! Connections that are lost, half lost, and made again.

use std::time::Duration;

use driftless_client::{Outcome, Refusal};
use driftless_proto::client::{Liveness, Response};
use driftless_proto::{Failure, Unknown};
use quinn::TransportConfig;
use tokio::time::Instant;

use crate::rig::{Raw, SCRIPT, Scenario, World, put};

const IDLE_TIMEOUT: Duration = Duration::from_secs(6);

/// A call that takes as long as it may, and the pause before it.
const RECONNECTED: Duration = Duration::from_millis(2600);

#[test]
fn after_a_partition_all_reach_all_and_nothing_is_lost() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let alone = &world.dialling()[0];
        let others = || world.dialling().into_iter().skip(1);
        for other in others() {
            turmoil::partition(alone.as_str(), other.as_str());
        }
        // Longer than the idle timeout: the connections are gone on both sides.
        for number in 0..100 {
            bucket
                .put(format!("key {number}"), vec![number; 100])
                .write_id(world.write_id())
                .await
                .expect("two are left");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for other in others() {
            assert!(!world.reaches(alone, &other) && !world.reaches(&other, alone));
        }
        let cut_off = bucket.put("alone", "x").write_id(world.write_id()).via(alone).await.expect_err("it is alone");
        assert_eq!(cut_off.outcome(), Outcome::Refused);
        assert!(matches!(cut_off.refusal(), Some(Refusal::NotEnoughReplicas { .. })), "{cut_off}");
        for other in others() {
            turmoil::repair(alone.as_str(), other.as_str());
        }
        let all = || others().all(|other| world.reaches(alone, &other) && world.reaches(&other, alone));
        world.until("all reach all", RECONNECTED, all).await;
        let owes_nothing = || others().all(|other| world.node(&other).status().hints == Some(0));
        world.until("what it missed is handed over", Duration::from_secs(20), owes_nothing).await;
        for number in 0..100 {
            let read = bucket.get(format!("key {number}")).r(1).via(alone).await.expect("reads");
            assert_eq!(read.one().expect("no siblings").map(|value| value[0]), Some(number));
        }
    });
}

#[test]
fn a_peer_that_vanished_without_a_word_is_noticed_before_the_idle_timeout() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let (asked, gone) = (&world.dialling()[0], &world.dialling()[2]);
        let begun = Instant::now();
        world.crash(gone).await;
        assert!(world.reaches(asked, gone), "half open: nobody has told");
        // All three are asked for: the answer is typed, and comes before the client gives up.
        let strict = || bucket.put("all", "x").write_id(world.write_id()).w(3).sloppy(false).via(asked);
        let failed = strict().timeout(Duration::from_secs(1)).await.expect_err("one is gone");
        assert_eq!(failed.outcome(), Outcome::Unknown, "{failed}");
        assert!(begun.elapsed() < Duration::from_millis(1200), "{:?}", begun.elapsed());
        for number in 0..20 {
            bucket.put(format!("key {number}"), "x").write_id(world.write_id()).await.expect("two are left");
        }
        let noticed = || world.sees(asked, gone).liveness != Liveness::Alive;
        world.until("the peer is suspected", IDLE_TIMEOUT / 3, noticed).await;
        assert!(world.reaches(asked, gone), "before the connection is given up");
        let refused = strict().await.expect_err("one is known to be gone");
        assert!(matches!(refused.refusal(), Some(Refusal::NotEnoughReplicas { .. })), "{refused}");
        assert!(begun.elapsed() < IDLE_TIMEOUT);
        world.until("the connection is given up", IDLE_TIMEOUT * 2, || !world.reaches(asked, gone)).await;
    });
}

#[test]
fn a_one_way_cut_between_nodes_costs_clients_nothing_but_time() {
    for direction in [false, true] {
        Scenario::default().run(move |world: World| async move {
            world.connected().await;
            let client = world.client().await;
            let bucket = client.bucket("default");
            let mut ends = [world.dialling()[0].clone(), world.dialling()[1].clone()];
            if direction {
                ends.reverse();
            }
            let [deaf_to, mute] = &ends;
            world.cut(mute, deaf_to);
            let begun = Instant::now();
            let mut slowest = Duration::ZERO;
            // Through the suspicion, the idle timeout, and many calls that fail.
            while begun.elapsed() < IDLE_TIMEOUT * 2 {
                for asked in &ends {
                    let sent = Instant::now();
                    let key = format!("key {}", begun.elapsed().as_millis());
                    bucket
                        .put(key, "x")
                        .write_id(world.write_id())
                        .via(asked)
                        .await
                        .expect("two of three can be reached");
                    slowest = slowest.max(sent.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(slowest < Duration::from_secs(1), "{slowest:?}");
            world.mend(mute, deaf_to);
            let both = || world.reaches(mute, deaf_to) && world.reaches(deaf_to, mute);
            // The side that still hears may have to find out first that it is not heard.
            world.until("they reach each other again", IDLE_TIMEOUT + RECONNECTED, both).await;
        });
    }
}

#[test]
fn a_node_answers_before_the_deadline_that_passes_on_the_way() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let asked = world.dialling()[0].clone();
        let mut raw = Raw::connect(&world, &asked, TransportConfig::default()).await;
        for other in world.dialling().iter().skip(1) {
            world.cut(&asked, other);
        }
        let begun = Instant::now();
        let deadline = Duration::from_millis(700);
        let answer = raw.call(put("key", "x", world.write_id()), deadline).await;
        let Response::Failed(Failure::Unknown(Unknown::Timeout { acks, needed })) = answer else {
            panic!("its own copy alone is no quorum: {answer:?}");
        };
        assert_eq!((acks, needed), (1, 2));
        let took = begun.elapsed();
        assert!(took >= deadline && took < deadline + Duration::from_millis(50), "{took:?}");
        assert_eq!(world.node(&asked).metrics().requests_open.get(), 0, "nothing is left of it");
    });
}

#[test]
fn a_link_that_comes_and_goes_leaves_nothing_behind() {
    for shards in [vec![1], vec![1, 3, 2]] {
        let scenario = Scenario { shards, ..Scenario::default() };
        scenario.run(async |world: World| {
            world.connected().await;
            let client = world.client().await;
            let bucket = client.bucket("default");
            let pairs = [("ada", "bob"), ("bob", "cyd"), ("ada", "cyd")];
            for round in 0..24_u64 {
                let (one, other) = pairs[round as usize % 3];
                // Now shorter, now longer than a handshake, a call, and the idle timeout.
                let time = Duration::from_millis([30, 300, 1300, 2500, 7000][round as usize % 5]);
                turmoil::partition(one, other);
                let until = Instant::now() + time;
                while Instant::now() < until {
                    let key = format!("key {round}");
                    let put = bucket.put(key, vec![7; 20_000]).write_id(world.write_id());
                    put.await.expect("every node reaches another one");
                    tokio::time::sleep(time / 10).await;
                }
                turmoil::repair(one, other);
                tokio::time::sleep(Duration::from_millis(round * 37 % 400)).await;
            }
            world.connected().await;
            for name in world.dialling() {
                assert_eq!(world.node(&name).metrics().peers_connected.get(), 2, "{name}");
            }
            // Were a connection counted twice, its end would not be noticed.
            world.crash("bob").await;
            let noticed = || ["ada", "cyd"].iter().all(|name| world.node(name).metrics().peers_connected.get() == 1);
            world.until("the end is noticed", IDLE_TIMEOUT * 2, noticed).await;
            world.start("bob").await;
            world.connected().await;
        });
    }
}

#[test]
fn a_client_that_a_node_cannot_answer_goes_elsewhere() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        let key = world.key_of("ada", 0);
        for number in 0..10 {
            bucket.put(&*key, vec![number]).write_id(world.write_id()).await.expect("is stored");
        }
        for (from, to) in [("ada", SCRIPT), (SCRIPT, "ada")] {
            world.cut(from, to);
            for number in 0..20 {
                let begun = Instant::now();
                bucket.put(&*key, vec![number]).write_id(world.write_id()).await.expect("is stored elsewhere");
                assert!(begun.elapsed() < Duration::from_millis(500), "{from} to {to}: {:?}", begun.elapsed());
            }
            world.mend(from, to);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn packets_held_back_for_seconds_do_no_harm_when_they_come() {
    Scenario::default().run(async |world: World| {
        world.connected().await;
        let client = world.client().await;
        let bucket = client.bucket("default");
        for (round, seconds) in [1, 3, 8].into_iter().enumerate() {
            turmoil::hold("ada", "bob");
            turmoil::hold("ada", "cyd");
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(seconds) {
                let key = format!("key {round} {:?}", begun.elapsed());
                bucket.put(&*key, vec![7; 500]).write_id(world.write_id()).await.expect("two of three are left");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            turmoil::release("ada", "bob");
            turmoil::release("ada", "cyd");
            world.connected().await;
            let key = format!("after {round}");
            // Everybody is thought alive again, and counted on.
            let alive = || {
                world.sees("ada", "bob").liveness == Liveness::Alive
                    && world.sees("bob", "ada").liveness == Liveness::Alive
            };
            world.until("they think well of each other", Duration::from_secs(5), alive).await;
            bucket.put(&*key, "x").write_id(world.write_id()).w(3).sloppy(false).await.expect("all three are there");
        }
        for name in world.dialling() {
            assert_eq!(world.node(&name).metrics().protocol_violations.get(), 0, "{name}");
        }
    });
}
