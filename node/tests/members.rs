//! Members come and go, over QUIC.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use common::{Cluster, block_on, eventually, get, put};
use driftless_node::node::Node;
use driftless_proto::client::{Request, Response};

/// Three members of one or two shards, and a node with two that wants to be one.
fn three_and_one() -> Cluster {
    let mut cluster = Cluster::plan_with(&[2, 1, 2, 2], 3);
    for node in 0..4 {
        cluster.start_node(node);
    }
    cluster
}

fn conditions(node: &Node) -> Vec<String> {
    node.status().conditions.into_iter().map(|condition| condition.name).collect()
}

fn peers(node: &Node) -> Vec<(String, bool)> {
    node.status().peers.into_iter().map(|peer| (peer.name, peer.connected)).collect()
}

fn all_connected(node: &Node, names: &[&str]) -> bool {
    peers(node) == names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>()
}

#[test]
fn who_is_no_member_is_let_in_and_serves_nothing() {
    let mut cluster = three_and_one();
    cluster.wait_connected();
    assert!(all_connected(cluster.node(3), &["a", "b", "c"]), "{:?}", peers(cluster.node(3)));
    assert!(conditions(cluster.node(3)).contains(&"candidate".to_owned()));
    assert!(all_connected(cluster.node(0), &["b", "c"]), "it is nobody's peer");
    block_on(async {
        let mut client = cluster.client(0).await;
        client.put("key", "value", None).await;
        let mut stranger = cluster.client(3).await;
        for request in [put("other", "value", None), get("key")] {
            let answer = stranger.ask(request).await;
            assert!(matches!(answer, Response::Failed(_)), "{answer:?}");
        }
        assert!(matches!(stranger.ask(Request::Topology).await, Response::Topology(_)), "it says whom to ask");
    });
    // What was refused is no mistake of anybody.
    for node in 0..4 {
        assert_eq!(cluster.node(node).metrics().protocol_violations.get(), 0, "node {node}");
    }
    cluster.stop_node(3);
    cluster.start_node(3);
    eventually("it calls again", || all_connected(cluster.node(3), &["a", "b", "c"]));
    cluster.stop();
}
