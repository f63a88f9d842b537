//! A replica that lost data is complete again with nobody reading, on real threads, sockets and clocks.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, block_on, put, soon};
use driftless_node::metrics::Metrics;
use driftless_proto::Role;
use driftless_proto::client::{AaeCommand, Request, Response};

const KEYS: usize = 2_000;

/// Nodes with different numbers of shards, and a rest between rounds that a test can wait for.
fn cluster() -> (Cluster, Vec<Arc<Metrics>>) {
    let mut cluster = Cluster::plan(&[1, 2, 3]);
    let metrics = (0..3).map(|node| start(&mut cluster, node)).collect();
    cluster.wait_connected();
    (cluster, metrics)
}

fn start(cluster: &mut Cluster, node: usize) -> Arc<Metrics> {
    let mut settings = cluster.settings(node);
    settings.limits.aae.interval = Duration::from_secs(3);
    let metrics = settings.metrics.clone();
    cluster.start_with(node, settings);
    metrics
}

async fn fill(cluster: &Cluster) {
    let mut client = cluster.client(0).await;
    for key in 0..KEYS {
        client.send(put(&format!("key {key}"), format!("value {key}"), None)).await;
    }
    for _ in 0..KEYS {
        let answer = client.receive().await.expect("an answer");
        assert!(matches!(answer.response, Response::Stored(_)), "{:?}", answer.response);
    }
    let same = || (0..3).all(|node| cluster.records(node).len() == KEYS);
    soon("all replicas hold all keys", same).await;
}

#[test]
fn a_node_that_lost_its_disk_is_filled_with_nobody_reading() {
    block_on(async {
        let (mut cluster, _) = cluster();
        fill(&cluster).await;
        for victim in [1, 2] {
            let before = cluster.records(victim);
            cluster.stop_node(victim);
            cluster.lose_disk(victim);
            assert!(cluster.records(victim).is_empty());
            let metrics = start(&mut cluster, victim);
            soon("it is complete again", || cluster.records(victim) == before).await;
            // Nothing is sent twice that was not lost; some of it may have come as hints, left from the founding.
            let repaired = metrics.aae_keys_repaired.get();
            assert!(repaired > KEYS as u64 / 2 && repaired <= KEYS as u64, "{repaired}");
        }
        cluster.stop();
    });
}

#[test]
fn exactly_what_was_removed_behind_its_back_is_repaired() {
    block_on(async {
        let (mut cluster, metrics) = cluster();
        fill(&cluster).await;
        let others: Vec<u64> = metrics.iter().map(|metrics| metrics.aae_keys_repaired.get()).collect();
        let before = cluster.records(2);
        cluster.stop_node(2);
        let lost = cluster.forget(2, |key| key[9] % 16 == 0);
        assert!(lost > 50 && lost < KEYS, "{lost}");
        let repaired = start(&mut cluster, 2);
        soon("it is complete again", || cluster.records(2) == before).await;
        assert_eq!(repaired.aae_keys_repaired.get(), lost as u64);
        assert_eq!(repaired.aae_drift.get(), 0);
        let now: Vec<u64> = metrics.iter().map(|metrics| metrics.aae_keys_repaired.get()).collect();
        assert_eq!(now[..2], others[..2], "nobody else lacked anything");
        cluster.stop();
    });
}

#[test]
fn an_operator_sees_how_it_stands_and_can_pause_it() {
    block_on(async {
        let (cluster, _) = cluster();
        let mut client = cluster.client_as(1, "operator", Some(Role::Operator)).await;
        let mut aae = async |command| match client.ask(Request::Aae(command)).await {
            Response::Aae(status) => *status,
            other => panic!("unexpected {other:?}"),
        };
        let status = aae(AaeCommand::Status).await;
        assert!(!status.paused && status.drift == 0);
        aae(AaeCommand::Run { partition: None }).await;
        loop {
            let status = aae(AaeCommand::Status).await;
            // 64 partitions with two peers each, from both shards.
            if status.partitions.len() == 128 && status.partitions.iter().all(|line| line.last_full_round_ms.is_some())
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        aae(AaeCommand::Pause).await;
        while !aae(AaeCommand::Status).await.paused {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        aae(AaeCommand::Resume).await;
        while aae(AaeCommand::Status).await.paused {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.stop();
    });
}
