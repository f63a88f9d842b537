//! Keys larger than a frame, through real nodes and the real client.
#![allow(clippy::disallowed_methods)] // Time and chance of the system: these tests run real nodes.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Cluster, block_on};
use driftless_client::{Bucket, Client, Identity, Key, Profile};
use driftless_node::metrics::Metrics;
use futures::future::join_all;

const MIB: usize = 1 << 20;

/// Patience for debug builds on busy machines.
const PATIENCE: Duration = Duration::from_secs(50);

async fn client(cluster: &Cluster) -> Client {
    let issued = cluster.operator_identity();
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

/// Actors are those of a partition: states of keys of different ones have no dot in common.
fn of_two_partitions(client: &Client) -> [Key; 2] {
    let topology = client.topology().expect("is connected");
    let bucket = topology.bucket_named("default").expect("is built in");
    let arc = |key: &Key| topology.place(bucket, key).partition.arc;
    let key = Key::new("key").expect("valid");
    let mut others = (0..).map(|number| Key::new(format!("other {number}")).expect("valid"));
    let other = others.find(|other| arc(other) != arc(&key)).expect("there are several");
    [key, other]
}

fn metric(cluster: &Cluster, read: impl Fn(&Metrics) -> u64) -> u64 {
    cluster.nodes.iter().flatten().map(|node| read(node.metrics())).sum()
}

/// Six values of 4 MiB, more than one coordinator admits: merges bring them together, as when several have taken writes that do not know
/// of each other. Every get and update was refused: `the answer has 25165970 bytes`. Which of several that write at the same time know of
/// each other nobody can say, so here it is the state of another key that is merged.
#[test]
fn what_merges_have_brought_together_is_read_whole_and_resolved() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let client = client(&cluster).await;
        let bucket = client.bucket("default");
        let [key, other] = of_two_partitions(&client);
        for number in 0..6_u8 {
            let key = if number < 3 { &key } else { &other };
            bucket.put(key.to_bytes(), vec![number; 4 * MIB]).w(3).await.expect("is stored on all");
        }
        let state = bucket.read_state(&other).await.expect("all of it");
        assert_eq!((state.values(), state.value_bytes()), (3, 12 * MIB));
        bucket.with_profile(&Profile::new().w(3)).merge_state(&key, &state).await.expect("is merged");
        let key = key.to_bytes();
        for via in ["a", "b", "c"] {
            let read = bucket.get(key.clone()).r(3).via(via).await.expect("all of it");
            assert_eq!(firsts(read.values()), [0, 1, 2, 3, 4, 5], "through {via}");
        }
        assert!(metric(&cluster, |metrics| metrics.read_pages.get()) >= 6, "in two answers each");
        let explained = bucket.get(key.clone()).explain().await.expect("all of it");
        assert!(explained.siblings().len() == 6 && explained.explanation().is_some());
        let updated = bucket
            .update(key.clone(), |siblings| firsts(siblings.iter().map(|sibling| &sibling.value)))
            .await
            .expect("is resolved");
        assert_eq!((updated.siblings(), updated.rounds()), (1, 1));
        let read = bucket.get(key).r(3).await.expect("reads");
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
