//! Members come and go, over QUIC.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::time::Duration;

use common::{Cluster, TestClient, block_on, eventually, get, order, put};
use driftless_node::node::Node;
use driftless_proto::client::{Request, Response};
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, ClusterState, Decided, Plan};
use driftless_proto::{Failure, Refusal, Role};

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
    let mut peers: Vec<_> = node.status().peers.into_iter().map(|peer| (peer.name, peer.connected)).collect();
    peers.sort();
    peers
}

fn all_connected(node: &Node, names: &[&str]) -> bool {
    peers(node) == names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>()
}

#[test]
fn who_is_no_member_is_let_in_and_serves_nothing() {
    let mut cluster = three_and_one();
    cluster.wait_connected();
    eventually("the three have founded the cluster", || all_at(&cluster, 2));
    assert!(all_connected(cluster.node(3), &["a", "b", "c"]), "{:?}", peers(cluster.node(3)));
    // It blames nobody for not answering to somebody who is no member, however long that lasts.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(conditions(cluster.node(3)), ["candidate"]);
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

/// Who may give orders.
async fn operator(cluster: &Cluster, node: usize) -> TestClient {
    cluster.client_as(node, "boss", Some(Role::Operator)).await
}

async fn state(client: &mut TestClient) -> ClusterState {
    match order(client, ClusterCommand::State).await {
        ClusterAnswer::State(state) => *state,
        other => panic!("{other:?}"),
    }
}

async fn plan(client: &mut TestClient) -> Plan {
    match order(client, ClusterCommand::Plan).await {
        ClusterAnswer::Plan(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

async fn commit(client: &mut TestClient, plan: &Plan) -> Decided {
    match order(client, ClusterCommand::Commit { plan: plan.name.clone() }).await {
        ClusterAnswer::Decided(decided) => decided,
        other => panic!("{other:?}"),
    }
}

fn all_at(cluster: &Cluster, version: u64) -> bool {
    cluster.nodes.iter().flatten().all(|node| node.status().ring_version == version)
}

fn join(name: &str) -> ClusterCommand {
    ClusterCommand::Stage(Change::Join { name: name.to_owned(), zone: None, weight: None })
}

#[test]
fn a_node_that_calls_is_staged_planned_and_committed_and_everybody_goes_by_the_next_version() {
    let cluster = three_and_one();
    eventually("the three have founded the cluster", || all_at(&cluster, 2));
    block_on(async {
        // On a shard and a node that does not run the machine itself, nor propose.
        let mut client = operator(&cluster, 1).await;
        let before = state(&mut client).await;
        assert!(before.is_agreed, "{before:?}");
        assert_eq!(before.candidates.iter().map(|candidate| candidate.name.as_str()).collect::<Vec<_>>(), ["d"]);
        let nobody = client.ask(Request::Cluster(join("nobody"))).await;
        assert!(matches!(nobody, Response::Failed(Failure::Refused(Refusal::Membership(_)))), "{nobody:?}");
        assert!(matches!(order(&mut client, join("d")).await, ClusterAnswer::Staged(staged) if staged.version == 2));
        let plan = plan(&mut client).await;
        assert_eq!((plan.base, plan.version), (2, 3), "{plan:?}");
        // What is staged at one node can be committed at another that has seen it.
        let decided = commit(&mut operator(&cluster, 2).await, &plan).await;
        assert_eq!(decided.version, 3, "{decided:?}");
    });
    eventually("everybody goes by version 3", || all_at(&cluster, 3));
    for (node, others) in [(0, ["b", "c", "d"]), (1, ["a", "c", "d"]), (2, ["a", "b", "d"]), (3, ["a", "b", "c"])] {
        eventually("all are connected as members", || all_connected(cluster.node(node), &others));
    }
    eventually("it is no candidate any more", || !conditions(cluster.node(3)).contains(&"candidate".to_owned()));
    block_on(async {
        let Response::Topology(topology) = cluster.client(3).await.ask(Request::Topology).await else {
            panic!("it has a topology");
        };
        assert_eq!((topology.ring().version().0, topology.ring().members().len()), (3, 4));
    });
    // The connections that it made as a candidate stay, whoever's part it is to call now.
    for _ in 0..100 {
        assert!(cluster.nodes.iter().flatten().all(|node| peers(node).iter().all(|(_, connected)| *connected)));
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.stop();
}

#[test]
fn what_was_agreed_on_is_what_a_node_goes_by_when_it_starts_again() {
    let mut cluster = three_and_one();
    eventually("the three have founded the cluster", || all_at(&cluster, 2));
    block_on(async {
        let mut client = operator(&cluster, 0).await;
        order(&mut client, join("d")).await;
        let plan = plan(&mut client).await;
        commit(&mut client, &plan).await;
    });
    eventually("everybody goes by version 3", || all_at(&cluster, 3));
    // The file still names three members, and a node's own description is not asked.
    for node in [3, 1] {
        cluster.stop_node(node);
        let mut settings = cluster.settings(node);
        settings.member = None;
        cluster.start_with(node, settings);
        assert_eq!(cluster.node(node).status().ring_version, 3);
    }
    eventually("all find each other", || {
        cluster.nodes.iter().flatten().all(|node| peers(node).len() == 3 && peers(node).iter().all(|peer| peer.1))
    });
    cluster.stop();
}
