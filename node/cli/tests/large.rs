//! Keys larger than a frame, through real nodes and the real client.
#![allow(clippy::disallowed_methods)] // Time and chance of the system: these tests run real nodes.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Cluster, block_on};
use driftless_client::{Bucket, Client, Identity, Profile};
use driftless_node::metrics::Metrics;
use futures::future::join_all;

const MIB: usize = 1 << 20;

/// Patience for debug builds on busy machines.
const PATIENCE: Duration = Duration::from_secs(50);

async fn client(cluster: &Cluster) -> Client {
    let issued = cluster.client_identity();
    let ca = cluster.authority.certificate_pem().as_bytes().to_vec();
    let identity = Identity::from_pem(&ca, issued.certificate.as_bytes(), issued.key.as_bytes()).expect("fits");
    let profile = Profile::new().timeout(PATIENCE).attempt_timeout(PATIENCE / 2);
    let seeds = (0..3).map(|node| cluster.address(node).to_string());
    Client::builder().seeds(seeds).identity(identity).profile(profile).connect().await.expect("connects")
}

fn firsts<'a>(values: impl Iterator<Item = &'a bytes::Bytes>) -> Vec<u8> {
    let mut firsts: Vec<u8> = values.map(|value| value[0]).collect();
    firsts.sort_unstable();
    firsts
}

fn metric(cluster: &Cluster, read: impl Fn(&Metrics) -> u64) -> u64 {
    cluster.nodes.iter().flatten().map(|node| read(node.metrics())).sum()
}

/// Three blind puts that all nodes know, then one through each owner at once: each coordinator admits 16 MiB, together they are
/// 24. Every get and update was refused: `the answer has 25165970 bytes`.
#[test]
fn what_several_coordinators_admitted_is_read_whole_and_resolved() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let client = client(&cluster).await;
        let bucket = client.bucket("default");
        for number in 0..3_u8 {
            bucket.put("key", vec![number; 4 * MIB]).w(3).await.expect("is stored on all");
        }
        let puts = ["a", "b", "c"]
            .iter()
            .zip(3_u8..)
            .map(|(via, number)| bucket.put("key", vec![number; 4 * MIB]).via(*via).into_future());
        for stored in join_all(puts).await {
            stored.expect("each finds room, as far as it knows");
        }
        for via in ["a", "b", "c"] {
            let read = bucket.get("key").r(3).via(via).await.expect("all of it");
            assert_eq!(firsts(read.values()), [0, 1, 2, 3, 4, 5], "through {via}");
        }
        assert!(metric(&cluster, |metrics| metrics.read_pages.get()) >= 6, "in two answers each");
        let explained = bucket.get("key").explain().await.expect("all of it");
        assert!(explained.siblings().len() == 6 && explained.explanation().is_some());
        let updated = bucket
            .update("key", |siblings| firsts(siblings.iter().map(|sibling| &sibling.value)))
            .await
            .expect("is resolved");
        assert_eq!((updated.siblings(), updated.rounds()), (1, 1));
        let read = bucket.get("key").r(3).await.expect("reads");
        assert_eq!(read.one().expect("no siblings").map(|value| value.to_vec()), Some(vec![0, 1, 2, 3, 4, 5]));
        client.close().await;
    });
    cluster.stop();
}

/// Forty-eight clients add to a value of half a megabyte at the same time.
#[test]
fn many_updates_of_a_large_value_at_once_are_all_in_the_end() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let client = client(&cluster).await;
        let bucket = client.bucket("default");
        let add = async |bucket: &Bucket, number: u8| {
            bucket
                .update("key", move |siblings| merged(siblings.iter().map(|sibling| &sibling.value), Some(number)))
                .await
        };
        let updates = join_all((0..48).map(|number| add(&bucket, number))).await;
        for (number, updated) in updates.into_iter().enumerate() {
            if let Err(error) = updated {
                panic!("update {number}: {error}");
            }
        }
        let read = bucket.get("key").r(3).await.expect("all of it");
        let all = merged(read.values(), None);
        assert_eq!(all[..48], [1; 48]);
        client.close().await;
    });
    cluster.stop();
}

/// A byte for each client that has added itself, and ballast.
fn merged<'a>(values: impl Iterator<Item = &'a bytes::Bytes>, add: Option<u8>) -> Vec<u8> {
    let mut all = vec![0; MIB / 2];
    for value in values {
        for (at, byte) in value[..48].iter().enumerate() {
            all[at] |= byte;
        }
    }
    if let Some(number) = add {
        all[usize::from(number)] = 1;
    }
    all
}
