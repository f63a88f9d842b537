//! A node that is about to be stopped coordinates nothing new, finishes what is under way, and does everything else.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Cluster, TestClient, block_on, get, put, soon};
use driftless_proto::client::{Delete, DrainCommand, DrainStatus, Request, Response, Restore, Scan};
use driftless_proto::{BucketId, Failure, Key, Refusal, Role, WriteId};
use driftless_ring::ArcIndex;

async fn operator(cluster: &Cluster, node: usize) -> TestClient {
    cluster.client_as(node, "operator", Some(Role::Operator)).await
}

async fn tell(client: &mut TestClient, command: DrainCommand) -> DrainStatus {
    match client.ask(Request::Drain(command)).await {
        Response::Drain(status) => status,
        other => panic!("{command:?}: {other:?}"),
    }
}

/// A put that all three owners have to acknowledge.
fn put_everywhere(key: &str) -> Request {
    let Request::Put(mut put) = put(key, "v", None) else { panic!("it is one") };
    put.w = Some(3);
    Request::Put(put)
}

fn coordinated() -> [Request; 4] {
    let (bucket, key) = (BucketId::DEFAULT, Key::new("k").expect("valid"));
    let (context, r, w, sloppy) = (None, None, None, None);
    let delete = Request::Delete(Delete { bucket, key, context, r, w, sloppy, write_id: WriteId(1) });
    let scan = Scan { bucket, arc: ArcIndex(0), after: None, limit: 10, r, prefix: Vec::new().into(), ring_version: 1 };
    [get("k"), put("k", "v", None), delete, Request::Scan(scan)]
}

fn refuses(response: &Response) -> bool {
    matches!(response, Response::Failed(Failure::Refused(Refusal::Stopping)))
}

#[test]
fn a_drained_node_refuses_what_it_would_coordinate_and_does_everything_else_until_it_is_taken_back() {
    let cluster = Cluster::start(&[2, 1, 1]);
    cluster.wait_connected();
    let words = || -> BTreeSet<String> {
        cluster.node(0).status().conditions.into_iter().map(|condition| condition.name).collect()
    };
    block_on(async {
        let (mut drained, mut other) = (operator(&cluster, 0).await, cluster.client(1).await);
        drained.put("k", "v", None).await;
        assert!(!tell(&mut drained, DrainCommand::Status).await.draining);
        for _ in 0..2 {
            let status = tell(&mut drained, DrainCommand::Begin).await;
            assert_eq!((status.draining, status.under_way), (true, 0), "told twice is told once");
        }
        for request in coordinated() {
            let response = drained.ask(request).await;
            assert!(refuses(&response), "{response:?}");
        }
        let restore = Restore { bucket: BucketId::DEFAULT, key: Key::new("k").expect("valid"), accept_loss: true };
        let response = drained.ask(Request::Restore(restore)).await;
        assert!(refuses(&response), "{response:?}");
        // Where others are, how it is, and what members decide it goes on saying.
        assert!(matches!(drained.ask(Request::Topology).await, Response::Topology(_)));
        soon("it says so", || words().contains("draining")).await;
        assert!(!cluster.node(0).status().is_ready());
        // It is a replica as before: nobody can have three acknowledgements without it.
        for i in 0..20 {
            let response = other.ask(put_everywhere(&format!("k{i}"))).await;
            assert!(matches!(&response, Response::Stored(stored) if stored.acks == 3), "{response:?}");
        }
        let status = tell(&mut drained, DrainCommand::Undo).await;
        assert!(!status.draining);
        for request in coordinated() {
            let response = drained.ask(request).await;
            assert!(!matches!(response, Response::Failed(_)), "{response:?}");
        }
        soon("it is as before", || !words().contains("draining")).await;
        assert!(cluster.node(0).status().is_ready());
    });
    cluster.stop();
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the syncs of one node wait for it")]
fn what_is_under_way_is_counted_and_answered() {
    let cluster = Cluster::start(&[1, 1, 1]);
    cluster.wait_connected();
    // While its syncs wait a replica acknowledges nothing, and all three are asked for.
    let failing = cluster.sync_failures[1].clone();
    block_on(async {
        let mut client = operator(&cluster, 0).await;
        let syncs = failing.lock().expect("not poisoned");
        let id = client.send(put_everywhere("k")).await;
        let status = tell(&mut client, DrainCommand::Begin).await;
        assert_eq!((status.draining, status.under_way), (true, 1));
        drop(syncs);
        let response = client.answer_to(id).await;
        assert!(matches!(&response, Response::Stored(stored) if stored.acks == 3), "{response:?}");
        assert_eq!(tell(&mut client, DrainCommand::Status).await.under_way, 0);
    });
    cluster.stop();
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the syncs of one node wait for it")]
fn who_stops_is_not_taken_back() {
    let mut cluster = Cluster::plan(&[1, 1, 1]);
    for node in 0..3 {
        let mut settings = cluster.settings(node);
        settings.net.drain_timeout = Duration::from_secs(60);
        cluster.start_with(node, settings);
    }
    cluster.wait_connected();
    let failing = cluster.sync_failures[1].clone();
    block_on(async {
        let mut client = operator(&cluster, 0).await;
        let syncs = failing.lock().expect("not poisoned");
        let id = client.send(put_everywhere("k")).await;
        assert_eq!(tell(&mut client, DrainCommand::Begin).await.under_way, 1);
        cluster.node(0).stop();
        assert!(tell(&mut client, DrainCommand::Undo).await.draining, "it stops, whatever it is told");
        for request in [get("k"), Request::Topology] {
            let response = client.ask(request).await;
            assert!(refuses(&response), "{response:?}");
        }
        drop(syncs);
        let response = client.answer_to(id).await;
        assert!(matches!(&response, Response::Stored(stored) if stored.acks == 3), "{response:?}");
    });
    cluster.stop();
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the syncs of one node wait for it")]
fn what_other_nodes_have_passed_on_is_under_way_too() {
    let cluster = Cluster::start(&[1, 1, 1, 1]);
    cluster.wait_connected();
    let failing = cluster.sync_failures[1].clone();
    let forwards = || cluster.node(0).metrics().forwards.get();
    block_on(async {
        let mut client = cluster.client(0).await;
        let mut others = Vec::new();
        for node in 1..4 {
            others.push(operator(&cluster, node).await);
        }
        // What node 0 does not store the other three do.
        let (mut number, passed_on) = (0, forwards());
        while forwards() == passed_on {
            assert!(number < 200, "it stores everything");
            number += 1;
            client.put(&format!("k{number}"), "v", None).await;
        }
        let syncs = failing.lock().expect("not poisoned");
        let id = client.send(put_everywhere(&format!("k{number}"))).await;
        let mut under_way = 0;
        for _ in 0..1_000 {
            for other in &mut others {
                under_way += tell(other, DrainCommand::Status).await.under_way;
            }
            if under_way > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(under_way, 1);
        drop(syncs);
        let response = client.answer_to(id).await;
        assert!(matches!(&response, Response::Stored(stored) if stored.acks == 3), "{response:?}");
        for other in &mut others {
            assert_eq!(tell(other, DrainCommand::Status).await.under_way, 0);
        }
    });
    cluster.stop();
}

#[test]
fn what_a_drained_node_is_passed_it_leaves_to_the_next_owner() {
    let cluster = Cluster::start(&[1, 1, 1, 1]);
    cluster.wait_connected();
    block_on(async {
        // Three of the four store a key: some of these node 0 has to pass on.
        let mut client = cluster.client(0).await;
        for node in 1..3 {
            assert!(tell(&mut operator(&cluster, node).await, DrainCommand::Begin).await.draining);
        }
        for i in 0..60 {
            client.put(&format!("k{i}"), "v", None).await;
        }
        let passed_on = cluster.node(0).metrics().forwards.get();
        assert!(passed_on > 0);
        assert!(tell(&mut operator(&cluster, 3).await, DrainCommand::Begin).await.draining);
        let mut refused = 0;
        for i in 0..60 {
            match client.ask(put(&format!("k{i}"), "w", None)).await {
                Response::Stored(_) => {}
                Response::Failed(Failure::Refused(Refusal::NotEnoughReplicas { needed: 1, available: 0 })) => {
                    refused += 1;
                }
                response => panic!("{response:?}"),
            }
        }
        assert_eq!(cluster.node(0).metrics().forwards.get(), passed_on + refused, "what nobody else takes is refused");
    });
    cluster.stop();
}
