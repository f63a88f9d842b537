//! What real nodes say of their keys, put together from all their shards.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use common::{Cluster, block_on};
use driftless_proto::Role;
use driftless_proto::client::{Request, Response};
use driftless_proto::top::{Top, TopCommand};

/// Asks a node, as an operator.
async fn top(cluster: &Cluster, node: usize, most: u32) -> Top {
    let mut client = cluster.client_as(node, "operator", Some(Role::Operator)).await;
    match client.ask(Request::Top(TopCommand { bucket: None, most })).await {
        Response::Top(top) => *top,
        other => panic!("{other:?}"),
    }
}

/// Whether the owner of a key was asked or another node passes the request on, it is counted once, where it was asked.
#[test]
fn each_request_is_counted_by_the_node_that_was_asked_whichever_of_its_shards_has_the_key() {
    let cluster = Cluster::start(&[2, 1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        let mut client = cluster.client(0).await;
        for number in 0..40 {
            client.put(&format!("key-{number}"), "value", None).await;
        }
        for _ in 0..5 {
            client.get("key-7").await;
        }
        let asked = top(&cluster, 0, 100).await;
        let bucket = &asked.buckets[0];
        assert_eq!((asked.watches, asked.names, bucket.requests, bucket.floor), (true, false, 45, 0));
        assert_eq!(bucket.hot.len(), 40, "shards have keys of their own");
        assert_eq!((bucket.hot[0].reads, bucket.hot[0].writes, bucket.hot[0].over), (5, 1, 0));
        assert!(bucket.hot.iter().all(|key| key.key.name.is_none()), "nobody has asked for names");
        let seen = bucket.hot[0].seen.expect("it was read here");
        assert_eq!((seen.bytes, seen.siblings), (5, 1));
        for other in 1..4 {
            let requests: u64 = top(&cluster, other, 100).await.buckets.iter().map(|bucket| bucket.requests).sum();
            assert_eq!(requests, 0, "node {other} was asked nothing");
        }
        assert_eq!(top(&cluster, 0, 3).await.buckets[0].hot.len(), 3);
    });
    cluster.stop();
}
