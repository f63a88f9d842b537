//! Who may do what, agreed on by nodes that run: it holds on all of them at once, for connections that are open, and after a start.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::time::{Duration, SystemTime};

use common::{CARTS, Cluster, TestClient, block_on, endpoint, identity, put};
use driftless_node::net::certificates::{Issued, NODE_SERVER_NAME, Validity};
use driftless_node::net::verified::Description;
use driftless_proto::client::{Put, Request, Response};
use driftless_proto::frame::ALPN_CLIENT;
use driftless_proto::membership::{AccessState, Change, ClusterAnswer, ClusterCommand};
use driftless_proto::{
    AccessChange, BucketId, BucketName, Denial, Failure, Grant, Missing, ProtocolVersions, Refusal, Role, greeting,
};
use quinn::Connection;

/// Three members of one or two shards.
fn three() -> Cluster {
    let cluster = Cluster::start(&[2, 1, 2]);
    cluster.wait_connected();
    cluster
}

async fn boss(cluster: &Cluster, node: usize) -> TestClient {
    cluster.client_as(node, "boss", Some(Role::Operator)).await
}

/// Has a change decided, once nothing else is unfinished.
async fn agree(boss: &mut TestClient, change: AccessChange) {
    let command = ClusterCommand::Apply(Change::SetAccess(change.clone()));
    let mut last = None;
    for _ in 0..400 {
        match boss.ask(Request::Cluster(command.clone())).await {
            Response::Cluster(ClusterAnswer::Decided(_)) => return,
            other => last = Some(other),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{change} is not decided: {last:?}");
}

async fn agreed(client: &mut TestClient) -> AccessState {
    match client.ask(Request::Cluster(ClusterCommand::Access)).await {
        Response::Cluster(ClusterAnswer::Access(state)) => *state,
        other => panic!("it is not said: {other:?}"),
    }
}

async fn closed_because(connection: &Connection) -> String {
    tokio::time::timeout(Duration::from_secs(30), connection.closed()).await.expect("is closed").to_string()
}

/// Whether a client with this certificate is let in now; the node has the last word in the handshake.
async fn is_let_in(cluster: &Cluster, node: usize, issued: &Issued) -> bool {
    let endpoint = endpoint(cluster.authority.certificate_pem(), issued, ALPN_CLIENT);
    let Ok(connection) = endpoint.connect(cluster.address(node), NODE_SERVER_NAME).expect("valid").await else {
        return false;
    };
    let Ok((mut send, mut receive)) = connection.open_bi().await else { return false };
    let greeting = greeting::encode(ProtocolVersions::OURS, &()).expect("fits");
    send.write_all(&greeting).await.is_ok() && receive.read_chunk(1, true).await.is_ok_and(|answer| answer.is_some())
}

async fn let_in_soon(cluster: &Cluster, node: usize, issued: &Issued) {
    for _ in 0..400 {
        if is_let_in(cluster, node, issued).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("is not let in");
}

fn client_of(cluster: &Cluster, name: &str) -> Issued {
    cluster.authority.issue_client(name, None, Validity::holder(SystemTime::now())).expect("a plain name")
}

fn put_into(bucket: BucketId) -> Request {
    match put("k", "v", None) {
        Request::Put(put) => Request::Put(Put { bucket, ..put }),
        other => unreachable!("{other:?}"),
    }
}

/// In what the client falls short, once that is as it should be.
async fn lacks_soon(client: &mut TestClient, bucket: BucketId, expected: Option<&Missing>) {
    let mut last = None;
    for _ in 0..400 {
        let answer = client.ask(put_into(bucket)).await;
        let lacks = match &answer {
            Response::Failed(Failure::Refused(Refusal::NotAllowed { missing, .. })) => Some(missing),
            _ => None,
        };
        if lacks == expected {
            return;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("expected {expected:?}: {last:?}");
}

#[test]
fn whoever_is_denied_by_agreement_is_cut_off_everywhere_and_stays_out_after_a_start() {
    let mut cluster = three();
    let (mallory, other) = (client_of(&cluster, "mallory"), client_of(&cluster, "other"));
    let deny = AccessChange::Deny(Denial::Client("mallory".to_owned()));
    block_on(async {
        let ca = cluster.authority.certificate_pem();
        let mut open = Vec::new();
        for node in 0..3 {
            open.push(TestClient::connect(cluster.address(node), ca, &mallory).await);
        }
        let mut boss = boss(&cluster, 1).await;
        agree(&mut boss, deny.clone()).await;
        for client in &open {
            let reason = closed_because(&client.connection).await;
            assert!(reason.contains("driftless://test/client/mallory is denied by the cluster"), "{reason}");
        }
        for node in 0..3 {
            assert!(!is_let_in(&cluster, node, &mallory).await && is_let_in(&cluster, node, &other).await);
            assert_eq!(cluster.node(node).metrics().connections_revoked.get(), 1);
        }
    });
    // One alone, which hears nobody.
    (0..3).for_each(|node| cluster.stop_node(node));
    cluster.start_node(2);
    block_on(async {
        let_in_soon(&cluster, 2, &other).await;
        assert!(!is_let_in(&cluster, 2, &mallory).await);
    });
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.wait_connected();
    block_on(async {
        let mut boss = boss(&cluster, 0).await;
        agree(&mut boss, AccessChange::Allow(Denial::Client("mallory".to_owned()))).await;
        for node in 0..3 {
            let_in_soon(&cluster, node, &mallory).await;
        }
        assert!(agreed(&mut boss).await.access.is_empty());
    });
    cluster.stop();
}

#[test]
fn a_grant_for_a_bucket_holds_at_all_nodes_for_open_connections_and_is_taken_back() {
    let cluster = three();
    block_on(async {
        let mut open = Vec::new();
        for node in 0..3 {
            open.push(cluster.client_as(node, "web", Some(Role::Operator)).await);
        }
        let mut boss = boss(&cluster, 0).await;
        let carts = BucketName::new("carts").expect("is a name");
        let grant = Grant { role: Role::Writer, buckets: Some([carts].into()) };
        agree(&mut boss, AccessChange::Grant { name: "web".to_owned(), grant: grant.clone() }).await;
        for web in &mut open {
            lacks_soon(web, BucketId::DEFAULT, Some(&Missing::Bucket("default".to_owned()))).await;
            lacks_soon(web, CARTS, None).await;
            assert_eq!(agreed(web).await.access.grants().get("web"), Some(&grant), "a reader may ask");
        }
        agree(&mut boss, AccessChange::Revoke { name: "web".to_owned() }).await;
        for web in &mut open {
            lacks_soon(web, BucketId::DEFAULT, None).await;
        }
        // The default is of those whose certificate says no role.
        let mut plain = cluster.client_as(2, "plain", None).await;
        agree(&mut boss, AccessChange::Default(Some(Role::Reader))).await;
        lacks_soon(&mut plain, CARTS, Some(&Missing::Role)).await;
        lacks_soon(&mut open[2], CARTS, None).await;
    });
    cluster.stop();
}

#[test]
fn nobody_denies_the_certificate_of_the_node_that_is_asked() {
    let mut cluster = Cluster::plan(&[1]);
    let issued = cluster.authority.issue_node("a", Validity::holder(SystemTime::now())).expect("a plain name");
    let serial = Description::of_pem(issued.certificate.as_bytes()).expect("is readable").serial;
    let mut settings = cluster.settings(0);
    settings.tls = identity(cluster.authority.certificate_pem(), &issued);
    cluster.start_with(0, settings);
    block_on(async {
        let mut boss = boss(&cluster, 0).await;
        let deny = Change::SetAccess(AccessChange::Deny(Denial::Serial(serial.clone())));
        match boss.ask(Request::Cluster(ClusterCommand::Apply(deny))).await {
            Response::Failed(Failure::Refused(Refusal::Membership(why))) => {
                assert!(why.starts_with(&format!("serial number {serial} is of the certificate of a")), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
    cluster.stop();
}
