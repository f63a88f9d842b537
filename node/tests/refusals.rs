//! Everybody who must be turned away is, with a line that says why, and the node goes on serving.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::time::{Duration, SystemTime};

use common::{Cluster, TestClient, block_on, endpoint, eventually, get, identity, log, order, soon, topology};
use driftless_node::net::certificates::{CertificateAuthority, Issued, NODE_SERVER_NAME, Validity};
use driftless_node::net::tls::{TlsError, TlsFiles, TlsIdentity};
use driftless_node::node::{Node, NodeError, NodeSettings};
use driftless_node::peer::{Body, Hello, Incarnation, Message, Read, ReplicaRequest, RequestId, Traced, Want};
use driftless_node::time::Instant;
use driftless_proto::client::{Request, Response, Scan};
use driftless_proto::frame::{self, ALPN_CLIENT, ALPN_PEER, FRAME_MAX, FrameReader};
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand};
use driftless_proto::{BucketId, Failure, Key, ProtocolVersions, Refusal, Role, TraceContext, greeting};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};

fn holder() -> Validity {
    Validity::holder(SystemTime::now())
}

/// The node still serves everybody else.
async fn assert_serves(cluster: &Cluster) {
    let mut client = cluster.client(0).await;
    client.put("still", "here", None).await;
    assert_eq!(client.get("still").await.siblings[0].value, "here");
    client.connection.close(0_u32.into(), b"done");
}

fn one_node() -> Cluster {
    Cluster::start(&[1])
}

/// Node `a` runs; `b` is a member that the test plays.
fn node_and_stranger() -> (Cluster, Issued) {
    node_and_stranger_with(1, |_| ())
}

/// The same with nodes of so many shards and with other settings.
fn node_and_stranger_with(shards: u16, set: impl FnOnce(&mut NodeSettings)) -> (Cluster, Issued) {
    let mut cluster = Cluster::plan(&[shards, shards]);
    // Of the two, the test must be the one that dials.
    let dialer = usize::from(cluster.members[0].id > cluster.members[1].id);
    let listener = 1 - dialer;
    let mut settings = cluster.settings(listener);
    set(&mut settings);
    cluster.start_with(listener, settings);
    cluster.nodes.swap(0, listener);
    cluster.members.swap(0, listener);
    let name = cluster.members[1].name.clone();
    let issued = cluster.authority.issue_node(&name, holder()).expect("a plain name");
    (cluster, issued)
}

fn hello(cluster: &Cluster) -> Hello {
    Hello {
        cluster: cluster.topology.cluster().to_owned(),
        node: cluster.members[1].id,
        incarnation: Incarnation { starts: 5, nonce: 50 },
        knows: None,
        ring_version: cluster.topology.ring().version().0,
        topology_digest: cluster.topology.digest(),
        shard: 0,
        store: driftless_proto::membership::StoreId(1),
    }
}

async fn connect(cluster: &Cluster, ca: &str, issued: &Issued, alpn: &[u8]) -> Result<Connection, ConnectionError> {
    endpoint(ca, issued, alpn).connect(cluster.address(0), NODE_SERVER_NAME).expect("valid").await
}

/// Why the node closed the connection.
async fn closed_because(connection: Connection) -> String {
    let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.expect("is closed");
    closed.to_string()
}

async fn say(cluster: &Cluster, issued: &Issued, hello: &Hello) -> Connection {
    let first = greeting::encode(ProtocolVersions::OURS, hello).expect("fits");
    let (connection, send, receive) = begin(cluster, issued, ALPN_PEER, &first).await;
    // Streams must outlive this, or their end would be taken for the end of the conversation.
    std::mem::forget((send, receive));
    connection
}

/// Connects and says these bytes first.
async fn begin(cluster: &Cluster, issued: &Issued, alpn: &[u8], first: &[u8]) -> (Connection, SendStream, RecvStream) {
    let connection = connect(cluster, cluster.authority.certificate_pem(), issued, alpn).await.expect("accepted");
    let (mut send, receive) = connection.open_bi().await.expect("a stream");
    send.write_all(first).await.expect("is up");
    (connection, send, receive)
}

/// A first frame of somebody who claims to speak these versions, whatever they are.
fn claim(lowest: u16, highest: u16, rest: &[u8]) -> Vec<u8> {
    let versions = [lowest.to_le_bytes(), highest.to_le_bytes()].concat();
    let length = u32::try_from(versions.len() + rest.len()).expect("is short");
    [&length.to_le_bytes(), &versions[..], rest].concat()
}

/// What the node says first, if it takes part.
async fn greeted(receive: &mut RecvStream) -> Option<ProtocolVersions> {
    let mut reader = FrameReader::new(1000);
    loop {
        if let Some(body) = reader.next_frame().expect("well-formed") {
            return Some(greeting::read(&body).expect("a greeting").0);
        }
        reader.push(&receive.read_chunk(1000, true).await.ok()??.bytes);
    }
}

/// What somebody may claim to speak, and what node `us` says of it: nothing if there is a version to go by.
fn claims(us: &str, them: &str) -> Vec<(u16, u16, Option<String>)> {
    let ours = ProtocolVersions::OURS;
    let (lowest, highest) = (ours.lowest().0, ours.highest().0);
    let none = |spoken: &str, old: &str| {
        Some(format!("{us} speaks protocol version {ours}, and {them} {spoken}: update {old}"))
    };
    let range = |from: u16, to: u16| format!("{from} to {to}");
    vec![
        (lowest, highest, None),
        (lowest, highest + 1, None),
        (lowest - 1, highest, None),
        (0, u16::MAX, None),
        (lowest - 2, lowest - 1, none(&range(lowest - 2, lowest - 1), them)),
        (0, 0, none("0", them)),
        (highest + 1, highest + 2, none(&range(highest + 1, highest + 2), us)),
        (u16::MAX, u16::MAX, none("65535", us)),
        (highest + 1, lowest - 1, Some("which are none".to_owned())),
    ]
}

fn refused(cluster: &Cluster) -> u64 {
    cluster.node(0).metrics().connections_refused.get()
}

fn malformed(cluster: &Cluster) -> u64 {
    cluster.node(0).metrics().frames_malformed.get()
}

fn turned_away(cluster: &Cluster) -> u64 {
    refused(cluster) + malformed(cluster)
}

/// The node says why it closes the connection, counts that, and logs it.
async fn assert_turned_away(cluster: &Cluster, connection: Connection, before: u64, why: &str) {
    let reason = closed_because(connection).await;
    assert!(reason.contains(why), "{reason}");
    assert_eq!(turned_away(cluster), before + 1);
    soon("it is logged", || log().contains(why)).await;
}

async fn assert_hello_refused(change: impl FnOnce(&mut Hello), why: &str) {
    let (cluster, issued) = node_and_stranger();
    let mut hello = hello(&cluster);
    change(&mut hello);
    let before = refused(&cluster);
    let reason = closed_because(say(&cluster, &issued, &hello).await).await;
    assert!(reason.contains(why), "{reason}");
    assert_eq!(refused(&cluster), before + 1);
    soon("the refusal is logged", || log().replace('\\', "").contains(why)).await;
    assert!(cluster.node(0).status().peers.iter().all(|peer| !peer.connected));
    cluster.stop();
}

#[test]
fn a_peer_goes_by_a_version_that_both_speak_or_is_told_with_everybody_else_who_is_to_be_updated() {
    block_on(async {
        let (cluster, issued) = node_and_stranger();
        let (us, them) = (&cluster.members[0].name, &cluster.members[1].name);
        let rest = greeting::encode(ProtocolVersions::OURS, &hello(&cluster)).expect("fits").split_off(8);
        for tail in [&b""[..], b"what a release of tomorrow says besides"] {
            for (lowest, highest, why) in claims(us, them) {
                let first = claim(lowest, highest, &[&rest, tail].concat());
                let before = turned_away(&cluster);
                let (connection, _send, mut receive) = begin(&cluster, &issued, ALPN_PEER, &first).await;
                let status = || cluster.node(0).status();
                let Some(why) = why else {
                    assert_eq!(greeted(&mut receive).await, Some(ProtocolVersions::OURS), "{lowest} to {highest}");
                    soon("the peer is connected", || status().peers[0].connected).await;
                    connection.close(0_u32.into(), b"done");
                    soon("it is not any more", || !status().peers[0].connected).await;
                    continue;
                };
                assert_turned_away(&cluster, connection, before, &why).await;
                soon("status says so", || status().conditions.iter().any(|it| it.what.contains(&why))).await;
            }
        }
        cluster.stop();
    });
}

#[test]
fn who_calls_and_is_turned_away_is_there_and_not_to_be_declared_lost_by_force() {
    let (cluster, issued) = node_and_stranger();
    let them = cluster.members[1].name.clone();
    block_on(async {
        let mut client = cluster.client_as(0, "operator", Some(Role::Operator)).await;
        let recover = |force| Request::Cluster(ClusterCommand::Recover { lost: vec![them.clone()], force });
        let why = |response| match response {
            Response::Failed(Failure::Refused(Refusal::Membership(why))) => why,
            other => panic!("it is refused: {other:?}"),
        };
        let before = why(client.ask(recover(true)).await);
        assert!(!before.contains("is there"), "nobody has called: {before}");
        let highest = ProtocolVersions::OURS.highest().0;
        for force in [false, true] {
            // Between two calls the node may have called itself, in vain.
            let mut said = String::new();
            for _ in 0..100 {
                let first = claim(highest + 1, highest + 1, b"");
                let (connection, _send, _receive) = begin(&cluster, &issued, ALPN_PEER, &first).await;
                closed_because(connection).await;
                said = why(client.ask(recover(force)).await);
                if said.contains("is there") {
                    break;
                }
            }
            let expected = format!("{them} is there, and not lost: this node turns it away: ");
            assert!(said.starts_with(&expected), "{said}");
        }
    });
    cluster.stop();
}

#[test]
fn a_client_goes_by_a_version_that_both_speak_or_is_told_who_is_to_be_updated() {
    let cluster = one_node();
    block_on(async {
        let issued = cluster.client_identity();
        let (us, them) = (&cluster.members[0].name, "the client");
        for tail in [&b""[..], b"what a client of tomorrow says besides"] {
            for (lowest, highest, why) in claims(us, them) {
                let first = claim(lowest, highest, tail);
                let before = turned_away(&cluster);
                let (connection, _send, mut receive) = begin(&cluster, &issued, ALPN_CLIENT, &first).await;
                let Some(why) = why else {
                    assert_eq!(greeted(&mut receive).await, Some(ProtocolVersions::OURS), "{lowest} to {highest}");
                    continue;
                };
                assert_turned_away(&cluster, connection, before, &why).await;
                assert_serves(&cluster).await;
            }
        }
    });
    cluster.stop();
}

/// The versions of a release from before partitions could be doubled.
fn of_before_doubling() -> ProtocolVersions {
    ProtocolVersions::new(ProtocolVersions::OURS.lowest().0, greeting::DOUBLING.0 - 1).expect("it is still spoken with")
}

/// Doubles the partitions of a cluster of one member.
async fn double(cluster: &Cluster) {
    let mut boss = cluster.client_as(0, "boss", Some(Role::Operator)).await;
    order(&mut boss, ClusterCommand::Stage(Change::DoublePartitions)).await;
    let ClusterAnswer::Plan(plan) = order(&mut boss, ClusterCommand::Plan).await else { panic!("a plan is shown") };
    order(&mut boss, ClusterCommand::Commit { plan: plan.name }).await;
    soon("it goes by twice the partitions", || cluster.node(0).status().ring_version == plan.version).await;
}

#[test]
fn a_client_of_before_partitions_could_be_doubled_goes_on_but_is_told_nothing_of_a_ring_that_it_cannot_read() {
    let cluster = one_node();
    block_on(async {
        let ca = cluster.authority.certificate_pem();
        let mut old =
            TestClient::connect_speaking(cluster.address(0), ca, &cluster.client_identity(), of_before_doubling())
                .await;
        let mut new = cluster.client(0).await;
        let scan = Request::Scan(Scan {
            bucket: BucketId::DEFAULT,
            arc: driftless_ring::ArcIndex(0),
            after: None,
            limit: 10,
            r: None,
            prefix: bytes::Bytes::new(),
            // The frame says it.
            ring_version: 0,
        });
        let asks = [Request::Topology, scan];
        old.put("key", "value", None).await;
        for request in asks.clone() {
            let answer = old.ask(request).await;
            assert!(matches!(answer, Response::Topology(_) | Response::Page(_)), "{answer:?}");
        }

        double(&cluster).await;
        for request in asks {
            let answer = new.ask(request.clone()).await;
            assert!(matches!(answer, Response::Topology(_) | Response::Page(_)), "{answer:?}");
            match old.ask(request).await {
                Response::Failed(Failure::Refused(Refusal::BadRequest(why))) => assert!(
                    why.contains("have been doubled") && why.ends_with("cannot read such a ring: update it"),
                    "{why}"
                ),
                other => panic!("it cannot read that: {other:?}"),
            }
        }
        old.put("another", "value", None).await;
        for key in ["key", "another"] {
            assert_eq!(old.get(key).await.siblings[0].value, "value");
        }
        assert!(matches!(old.ask(get("nothing")).await, Response::Read(_)), "it goes on");
    });
    cluster.stop();
}

#[test]
fn a_node_of_before_partitions_could_be_doubled_is_turned_away_once_they_are() {
    // The second is no member: it may call, and the test plays it.
    let mut cluster = Cluster::plan_with(&[1, 1], 1);
    cluster.start_node(0);
    block_on(async {
        let issued = cluster.authority.issue_node(&cluster.members[1].name, holder()).expect("a plain name");
        let hello = hello(&cluster);
        let old = greeting::encode(of_before_doubling(), &hello).expect("fits");
        let (connection, _send, mut receive) = begin(&cluster, &issued, ALPN_PEER, &old).await;
        assert_eq!(greeted(&mut receive).await, Some(ProtocolVersions::OURS));
        connection.close(0_u32.into(), b"done");

        double(&cluster).await;
        let before = turned_away(&cluster);
        let (connection, _send, _receive) = begin(&cluster, &issued, ALPN_PEER, &old).await;
        let why = format!(
            "the partitions of this cluster have been doubled, and {} is of a release that cannot read such a ring (protocol {})",
            cluster.members[1].name,
            of_before_doubling().highest()
        );
        assert_turned_away(&cluster, connection, before, &why).await;
        let new = greeting::encode(ProtocolVersions::OURS, &hello).expect("fits");
        let (_connection, _send, mut receive) = begin(&cluster, &issued, ALPN_PEER, &new).await;
        assert_eq!(greeted(&mut receive).await, Some(ProtocolVersions::OURS), "once it is updated");
    });
    cluster.stop();
}

#[test]
fn who_does_not_begin_with_its_versions_is_no_client() {
    let mut cluster = Cluster::plan(&[1]);
    let mut settings = cluster.settings(0);
    settings.net.arrival_timeout = Duration::from_secs(3);
    cluster.start_with(0, settings);
    block_on(async {
        let issued = cluster.client_identity();
        let (connection, _send, _receive) = begin(&cluster, &issued, ALPN_CLIENT, &[3, 0, 0, 0, 3, 0, 3]).await;
        assert!(closed_because(connection).await.contains("a greeting of 3 bytes names no versions"));
        let (connection, _send, _receive) = begin(&cluster, &issued, ALPN_CLIENT, &[]).await;
        assert!(closed_because(connection).await.contains("does not say in time which protocol versions it speaks"));
        assert_serves(&cluster).await;
    });
    cluster.stop();
}

#[test]
fn another_cluster_in_hello_is_refused() {
    block_on(assert_hello_refused(|hello| hello.cluster = "elsewhere".to_owned(), "hello of cluster \"elsewhere\""));
}

#[test]
fn a_differing_topology_of_the_same_version_is_refused() {
    block_on(assert_hello_refused(|hello| hello.topology_digest ^= 1, "disagree on the topology"));
}

#[test]
fn a_hello_that_contradicts_the_certificate_is_refused() {
    let other = driftless_ring::NodeId::of_name("somebody else");
    block_on(assert_hello_refused(|hello| hello.node = other, "but the certificate names"));
}

#[test]
fn a_hello_of_a_shard_that_does_not_exist_is_refused() {
    block_on(assert_hello_refused(|hello| hello.shard = 9, "hello of shard 9"));
}

#[test]
fn a_fitting_hello_connects_and_a_later_life_takes_over() {
    block_on(async {
        let (cluster, issued) = node_and_stranger();
        let connected = || cluster.node(0).status().peers[0].connected;
        let first = say(&cluster, &issued, &hello(&cluster)).await;
        soon("the peer is connected", connected).await;
        // The same life again: a reconnect.
        let again = say(&cluster, &issued, &hello(&cluster)).await;
        assert!(closed_because(first).await.contains("a newer connection took over"));
        soon("the peer is connected", connected).await;
        // A later life replaces it; an earlier one is refused.
        let mut later = hello(&cluster);
        later.incarnation = Incarnation { starts: 6, nonce: 60 };
        let later = say(&cluster, &issued, &later).await;
        assert!(closed_because(again).await.contains("another process runs as this node"));
        let stale = say(&cluster, &issued, &hello(&cluster)).await;
        assert!(closed_because(stale).await.contains("an older copy of this node"));
        soon("the peer is connected", connected).await;
        assert!(later.close_reason().is_none());
        cluster.stop();
    });
}

#[test]
fn two_copies_of_one_data_directory_are_both_refused() {
    block_on(async {
        let (cluster, issued) = node_and_stranger();
        let original = say(&cluster, &issued, &hello(&cluster)).await;
        soon("the peer is connected", || cluster.node(0).status().peers[0].connected).await;
        let mut copy = hello(&cluster);
        copy.incarnation.nonce += 1;
        let copy = say(&cluster, &issued, &copy).await;
        assert!(closed_because(copy).await.contains("copies of one data directory"));
        assert!(closed_because(original).await.contains("another process runs as this node"));
        soon("neither is connected", || !cluster.node(0).status().peers[0].connected).await;
        cluster.stop();
    });
}

#[test]
fn garbage_on_the_shared_stream_ends_only_that_connection() {
    let cluster = one_node();
    block_on(async {
        for (bytes, why) in [
            (vec![9, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255], "does not hold a message"),
            (u32::MAX.to_le_bytes().to_vec(), "exceeds the limit"),
            (vec![0, 0, 0, 0], "does not hold a message"),
        ] {
            let before = malformed(&cluster);
            let mut client = cluster.client(0).await;
            client.send.write_all(&bytes).await.expect("is up");
            let reason = closed_because(client.connection).await;
            assert!(reason.contains(why), "{reason}");
            assert_eq!(malformed(&cluster), before + 1);
            assert_serves(&cluster).await;
        }
        soon("it is logged", || log().contains("exceeds the limit")).await;
    });
    cluster.stop();
}

#[test]
fn a_frame_cut_short_ends_only_that_connection() {
    let cluster = one_node();
    block_on(async {
        let mut client = cluster.client(0).await;
        client.send.write_all(&[200, 0, 0, 0, 1, 2, 3]).await.expect("is up");
        client.send.finish().expect("is open");
        assert!(closed_because(client.connection).await.contains("ended inside a frame"));
        assert_serves(&cluster).await;
    });
    cluster.stop();
}

#[test]
fn garbage_on_a_stream_of_its_own_ends_only_that_connection() {
    let cluster = one_node();
    block_on(async {
        let length = |length: usize| (length as u32).to_le_bytes().to_vec();
        for (bytes, why) in [
            (length(FRAME_MAX + 1), "exceeds the limit"),
            (vec![1, 0], "ended inside a frame"),
            ([length(100), vec![0; 99]].concat(), "ended inside a frame"),
            ([length(100), vec![0; 101]].concat(), "goes on after its one frame"),
            ([length(100), vec![255; 100]].concat(), "does not hold a message"),
        ] {
            let client = cluster.client(0).await;
            let mut stream = client.connection.open_uni().await.expect("is up");
            stream.write_all(&bytes).await.expect("is up");
            stream.finish().expect("is open");
            let reason = closed_because(client.connection).await;
            assert!(reason.contains(why), "{reason}");
            assert_serves(&cluster).await;
        }
    });
    cluster.stop();
}

#[test]
fn one_request_id_for_two_requests_at_once_is_refused() {
    let cluster = one_node();
    block_on(async {
        let mut client = cluster.client(0).await;
        let mut out = Vec::new();
        for _ in 0..2 {
            let request = common::put("k", "v", None);
            let frame = driftless_proto::client::RequestFrame { id: 1, ring_version: 1, deadline_ms: 5000, request };
            frame::encode(&frame, &mut out).expect("fits");
        }
        client.send.write_all(&out).await.expect("is up");
        assert!(closed_because(client.connection).await.contains("used for two requests at once"));
        assert_serves(&cluster).await;
    });
    cluster.stop();
}

#[test]
fn an_unknown_protocol_is_refused() {
    let cluster = one_node();
    block_on(async {
        let before = refused(&cluster);
        let issued = cluster.client_identity();
        let ca = cluster.authority.certificate_pem();
        assert!(connect(&cluster, ca, &issued, b"h3").await.is_err());
        soon("it is counted", || refused(&cluster) == before + 1).await;
        assert_serves(&cluster).await;
    });
    eventually("it is logged", || log().contains("TLS handshake failed"));
    cluster.stop();
}

#[test]
fn a_client_certificate_does_not_open_the_peer_protocol() {
    let cluster = one_node();
    block_on(async {
        let issued = cluster.client_identity();
        let ca = cluster.authority.certificate_pem();
        let connection = connect(&cluster, ca, &issued, ALPN_PEER).await.expect("the handshake itself succeeds");
        let reason = closed_because(connection).await;
        let protocol = String::from_utf8_lossy(ALPN_PEER);
        assert!(reason.contains(&format!("does not allow protocol {protocol}")), "{reason}");
        assert_serves(&cluster).await;
        // The other way round is fine.
        let node = cluster.authority.issue_node("b", holder()).expect("a plain name");
        let mut client = TestClient::connect(cluster.address(0), ca, &node).await;
        client.put("by a node", "v", None).await;
    });
    cluster.stop();
}

#[test]
fn certificates_that_are_foreign_expired_or_of_another_cluster_are_refused() {
    let cluster = one_node();
    let ca = cluster.authority.certificate_pem();
    let foreign = CertificateAuthority::create(common::CLUSTER).expect("a plain name");
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    let past = Validity { from: now - 2 * hour, until: now - hour };
    let future = Validity { from: now + hour, until: now + 2 * hour };
    let cases = [
        (foreign.issue_client("x", None, holder()), "TLS handshake failed"),
        (cluster.authority.issue_client("x", None, past), "TLS handshake failed"),
        (cluster.authority.issue_client("x", None, future), "TLS handshake failed"),
    ];
    block_on(async {
        for (issued, why) in cases {
            let issued = issued.expect("a plain name");
            let before = refused(&cluster);
            // In TLS 1.3 the client is done first: it may hear of the refusal only afterwards.
            if let Ok(connection) = connect(&cluster, ca, &issued, ALPN_CLIENT).await {
                closed_because(connection).await;
            }
            soon("it is counted", || refused(&cluster) == before + 1).await;
            soon("it is logged", || log().contains(why)).await;
            assert_serves(&cluster).await;
        }
        assert!(log().contains("xpired"), "the log says which");
    });
    cluster.stop();
}

#[test]
fn a_certificate_of_another_cluster_by_the_same_authority_key_is_refused() {
    // One operator, two clusters: an authority for `other` whose key the node was told to trust by mistake.
    let other = CertificateAuthority::create("other").expect("a plain name");
    let mut cluster = Cluster::plan(&[1]);
    let mut settings = cluster.settings(0);
    let both = format!("{}{}", cluster.authority.certificate_pem(), other.certificate_pem());
    let node = cluster.authority.issue_node("a", holder()).expect("a plain name");
    settings.tls = identity(&both, &node);
    cluster.start_with(0, settings);
    block_on(async {
        let issued = other.issue_client("x", None, holder()).expect("a plain name");
        let connection = connect(&cluster, cluster.authority.certificate_pem(), &issued, ALPN_CLIENT).await;
        let reason = closed_because(connection.expect("the handshake itself succeeds")).await;
        assert!(reason.contains("the certificate is of cluster \"other\", this is \"test\""), "{reason}");
        assert_serves(&cluster).await;
    });
    cluster.stop();
}

#[test]
fn a_node_does_not_start_with_what_cannot_work() {
    let mut cluster = Cluster::plan(&[1]);
    let start =
        |settings| Node::start(settings, vec![common::SharedStore::default()], driftless_node::net::sync::NoSync).err();
    let settings = cluster.settings(0);

    let taken = std::net::UdpSocket::bind(settings.listen).expect("is free");
    let busy = start(settings.clone()).expect("the port is taken");
    assert!(busy.to_string().contains(&settings.listen.to_string()), "{busy}");
    drop(taken);

    let mut other_name = settings.clone();
    other_name.tls =
        identity(cluster.authority.certificate_pem(), &cluster.authority.issue_node("z", holder()).expect("plain"));
    assert!(matches!(start(other_name), Some(NodeError::Tls(TlsError::WrongSubject { .. }))));

    let mut client = settings.clone();
    client.tls = identity(cluster.authority.certificate_pem(), &cluster.client_identity());
    assert!(matches!(start(client), Some(NodeError::Tls(TlsError::WrongSubject { .. }))));

    let mut public = settings.clone();
    public.admin = Some(([0, 0, 0, 0], 0).into());
    assert!(matches!(start(public), Some(NodeError::AdminNotLoopback(_))));

    let mut nobody = settings.clone();
    nobody.topology = topology(&[driftless_ring::Member::new("q", "127.0.0.1:1")]);
    assert!(matches!(start(nobody), Some(NodeError::NotAMember { .. })));

    let none: Vec<common::SharedStore> = Vec::new();
    let ended = Node::start(settings, none, driftless_node::net::sync::NoSync).err();
    assert_eq!(ended, Some(NodeError::Shards { expected: 1, given: 0 }));
}

#[test]
fn certificate_files_are_checked_before_they_are_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let authority = CertificateAuthority::create("shop").expect("a plain name");
    let files = TlsFiles { ca: path("ca.pem"), cert: path("a.pem"), key: path("a.key") };
    let write = |path: &std::path::Path, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, text).expect("is written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("is owned");
    };
    let load = || TlsIdentity::load(&files, SystemTime::now()).err();
    assert!(matches!(load(), Some(TlsError::Unreadable { .. })));

    let node = authority.issue_node("a", holder()).expect("a plain name");
    write(&files.ca, authority.certificate_pem(), 0o644);
    write(&files.cert, &node.certificate, 0o644);
    write(&files.key, &node.key, 0o644);
    let exposed = load().expect("others can read the key").to_string();
    // How far to close it depends on whether it is root's, as this test may be.
    assert!(exposed.contains("(mode 644); run `chmod "), "{exposed}");
    write(&files.key, &node.key, 0o600);
    assert_eq!(load(), None);

    write(&files.key, "not a key", 0o600);
    assert!(matches!(load(), Some(TlsError::NotPem { what: "private key", .. })));
    let other = authority.issue_node("b", holder()).expect("a plain name");
    write(&files.key, &other.key, 0o600);
    assert!(matches!(load(), Some(TlsError::KeyMismatch { .. })));
    write(&files.key, &node.key, 0o600);

    let foreign = CertificateAuthority::create("shop").expect("a plain name");
    write(&files.ca, foreign.certificate_pem(), 0o644);
    assert!(matches!(load(), Some(TlsError::ForeignAuthority { .. })));
    write(&files.ca, "nothing here", 0o644);
    assert!(matches!(load(), Some(TlsError::NotPem { what: "certificate", .. })));
    write(&files.ca, authority.certificate_pem(), 0o644);

    let years = Duration::from_secs(3 * 365 * 86_400);
    let later = TlsIdentity::load(&files, SystemTime::now() + years).err().expect("expired").to_string();
    assert!(later.contains("expired on"), "{later}");
    let earlier = TlsIdentity::load(&files, SystemTime::now() - years).err().expect("not yet valid").to_string();
    assert!(earlier.contains("valid from"), "{earlier}");
}

/// What the shard that it is for has no room for never gets there.
#[test]
fn the_part_of_a_trace_ends_with_a_refusal_at_the_first_shard() {
    let (cluster, issued) = node_and_stranger_with(2, |settings| {
        settings.net.handed_over_max = 0;
        settings.net.traces_per_second = 1_000_000;
    });
    let trace = TraceContext { trace_id: [0x5e; 16], parent_id: [1; 8], sampled: true };
    let read = |id: u64| {
        let key = Key::new(format!("k{id}")).expect("valid");
        let read = Read { bucket: BucketId::DEFAULT, key, want: Want::Full, durable: false, counted_for: None };
        let request = driftless_node::peer::Request::Traced(Traced { trace, request: ReplicaRequest::Read(read) });
        let body = Body::Request { deadline: Instant(3_600_000_000), request };
        let message = Message { id: RequestId(4 * id), ring_version: 1, body }.to_wire(Instant(0));
        let mut out = Vec::new();
        frame::encode(&message, &mut out).expect("fits");
        out
    };
    block_on(async {
        let first = greeting::encode(ProtocolVersions::OURS, &hello(&cluster)).expect("fits");
        let (connection, mut send, _receive) = begin(&cluster, &issued, ALPN_PEER, &first).await;
        for id in 1..=20 {
            send.write_all(&read(id)).await.expect("is up");
        }
        let ended = |said: &str| {
            let is_one = |line: &&str| line.contains(&trace.trace_text()) && line.contains(": answered ");
            log().lines().filter(is_one).filter(|line| line.contains(said)).count()
        };
        soon("all are answered", || ended("said=") == 20).await;
        assert!(ended("said=\"refused\"") > 0, "some are for the other shard");
        connection.close(0_u32.into(), b"done");
    });
    cluster.stop();
}
