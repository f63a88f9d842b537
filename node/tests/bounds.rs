//! What clients can make a node hold, with each bound driven to its end: nobody is starved by it, and what was held is given back.
//! Over real sockets.

#![allow(clippy::disallowed_methods)] // Time and chance of the system: these tests run real nodes.

mod common;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Cluster, TestClient, block_on, get, put, soon};
use driftless_node::net::certificates::{Issued, Validity};
use driftless_proto::client::{AaeCommand, Request, RequestFrame, Response};
use driftless_proto::frame::{self, FRAME_MAX};
use driftless_proto::{Failure, Refusal};
use quinn::{Connection, SendStream};

const MIB: usize = 1 << 20;

/// One node with so much memory for its clients.
fn node_with(memory: usize, set: impl FnOnce(&mut driftless_node::node::NodeSettings)) -> Cluster {
    let mut cluster = Cluster::plan(&[1]);
    let mut settings = cluster.settings(0);
    settings.net.memory = memory;
    set(&mut settings);
    cluster.start_with(0, settings);
    cluster
}

/// It was left unanswered, and the client had to call its write unknown.
#[test]
fn a_request_that_expired_before_anything_was_done_is_refused() {
    let mut cluster = Cluster::plan(&[2]);
    let mut settings = cluster.settings(0);
    settings.limits.deadline_max = Duration::ZERO;
    cluster.start_with(0, settings);
    block_on(async {
        let mut client = client_of(&cluster, "hurried").await;
        // Keys of either shard: the one that was asked hands over those of the other.
        for key in 0..20 {
            let answer = client.ask(put(&format!("key {key}"), "v", None)).await;
            assert!(is_overloaded(&answer), "{answer:?}");
        }
        assert_eq!(cluster.node(0).metrics().expired.get(), 20);
        cluster.stop();
    });
}

async fn client_of(cluster: &Cluster, name: &str) -> TestClient {
    TestClient::connect(cluster.address(0), cluster.authority.certificate_pem(), &identity(cluster, name)).await
}

/// One that takes in next to nothing of what it does not read.
async fn narrow_client_of(cluster: &Cluster, name: &str) -> TestClient {
    TestClient::connect_narrow(cluster.address(0), cluster.authority.certificate_pem(), &identity(cluster, name)).await
}

fn identity(cluster: &Cluster, name: &str) -> Issued {
    cluster.authority.issue_client(name, None, Validity::holder(SystemTime::now())).expect("a plain name")
}

/// A request as it goes on a stream of its own.
fn framed(id: u64, request: Request) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::encode(&RequestFrame { id, ring_version: 1, deadline_ms: 30_000, request }, &mut frame).expect("fits");
    frame
}

fn held(cluster: &Cluster) -> usize {
    usize::try_from(cluster.node(0).metrics().client_bytes.get()).expect("is no debt")
}

fn is_overloaded(response: &Response) -> bool {
    matches!(response, Response::Failed(Failure::Refused(Refusal::Overloaded { .. })))
}

/// Streams that announce a frame of the longest kind, and send ten bytes of it.
async fn announce(connection: &Connection, streams: usize) -> Vec<SendStream> {
    let mut announced = Vec::new();
    for _ in 0..streams {
        let mut stream = connection.open_uni().await.expect("there is room");
        stream.write_all(&(FRAME_MAX as u32).to_le_bytes()).await.expect("goes out");
        stream.write_all(&[7; 10]).await.expect("goes out");
        announced.push(stream);
    }
    announced
}

#[test]
fn what_is_announced_and_not_sent_holds_up_no_value_with_the_same_certificate() {
    let cluster = node_with(128 * MIB, |_| {});
    block_on(async {
        let mut streams = Vec::new();
        let mut greedy = Vec::new();
        for _ in 0..4 {
            let client = client_of(&cluster, "app").await;
            streams.push(announce(&client.connection, 8).await);
            greedy.push(client);
        }
        let mut good = client_of(&cluster, "app").await;
        for number in 0..8 {
            good.put(&format!("k{number}"), vec![7; 2 * MIB], None).await;
        }
        soon("no more is held than has arrived", || held(&cluster) < 32 * 300 * 1024).await;
    });
    cluster.stop();
}

#[test]
fn a_value_takes_room_until_nothing_refers_to_it_and_gives_it_back() {
    let cluster = node_with(128 * MIB, |_| {});
    block_on(async {
        let mut client = client_of(&cluster, "app").await;
        // The frame is begun, and most of it has arrived.
        let frame = framed(100, put("k", vec![7; 4 * MIB], None));
        let mut stream = client.connection.open_uni().await.expect("there is room");
        stream.write_all(&frame[..3 * MIB]).await.expect("goes out");
        soon("it counts half as much again as has arrived", || held(&cluster) >= 9 * MIB / 2).await;
        stream.write_all(&frame[3 * MIB..]).await.expect("goes out");
        stream.finish().expect("is open");
        assert!(matches!(client.answer_to(100).await, Response::Stored(_)));
        soon("all is given back", || held(&cluster) == 0).await;
        // A frame that never ends is given back with its connection.
        let mut stream = client.connection.open_uni().await.expect("there is room");
        stream.write_all(&frame[..2 * MIB]).await.expect("goes out");
        soon("it is counted as it arrives", || held(&cluster) >= 2 * MIB).await;
        client.connection.close(0_u32.into(), b"");
        soon("all is given back", || held(&cluster) == 0).await;
    });
    cluster.stop();
}

#[test]
fn values_beyond_a_certificates_half_wait_unread_and_others_have_room() {
    let cluster = node_with(48 * MIB, |_| {});
    block_on(async {
        // Four frames of which all but the last byte has come fill the half of 24 MiB: each counts half as much again as it has.
        let mut greedy = client_of(&cluster, "greedy").await;
        let mut begun = Vec::new();
        for id in 101..=104 {
            let mut frame = framed(id, put(&format!("k{id}"), vec![7; 2 * MIB - 100], None));
            let mut stream = greedy.connection.open_uni().await.expect("there is room");
            stream.write_all(&frame[..frame.len() - 1]).await.expect("goes out");
            begun.push((stream, frame.pop().expect("is not empty")));
        }
        soon("they are counted", || held(&cluster) > 11 * MIB).await;
        let fifth = greedy.send(put("k5", vec![7; 100_000], None)).await;
        let mut good = client_of(&cluster, "good").await;
        good.put("good", vec![7; 2 * MIB], None).await;
        soon("the fifth is not taken in", || held(&cluster) <= 12 * MIB + 64 * 1024).await;
        for (mut stream, last) in begun {
            stream.write_all(&[last]).await.expect("goes out");
            stream.finish().expect("is open");
        }
        for id in [101, 102, 103, 104, fifth] {
            let answer = greedy.answer_to(id).await;
            assert!(matches!(answer, Response::Stored(_)), "{id}: {answer:?}");
        }
        soon("all is given back", || held(&cluster) == 0).await;
    });
    cluster.stop();
}

#[test]
fn a_frame_that_finds_no_room_midway_is_refused_by_its_name_and_the_connection_goes_on() {
    let cluster = node_with(24 * MIB, |_| {});
    block_on(async {
        // Two at once of which the half of 12 MiB holds one.
        let mut client = client_of(&cluster, "app").await;
        let mut begun = Vec::new();
        for id in [101, 102] {
            let frame = framed(id, put(&format!("k{id}"), vec![7; 3 * MIB], None));
            let mut stream = client.connection.open_uni().await.expect("there is room");
            stream.write_all(&frame[..MIB]).await.expect("goes out");
            begun.push((stream, frame));
        }
        soon("both are begun", || held(&cluster) >= 2 * MIB).await;
        let rest = begun.into_iter().map(|(mut stream, frame)| async move {
            // What is refused is not taken in to its end.
            if stream.write_all(&frame[MIB..]).await.is_ok() {
                let _ = stream.finish();
            }
        });
        futures::future::join_all(rest).await;
        let answers = [client.answer_to(101).await, client.answer_to(102).await];
        assert!(answers.iter().any(is_overloaded), "{answers:?}");
        assert!(answers.iter().all(|answer| is_overloaded(answer) || matches!(answer, Response::Stored(_))));
        soon("all is given back", || held(&cluster) == 0).await;
        client.put("k", vec![7; 3 * MIB], None).await;
    });
    cluster.stop();
}

#[test]
fn answers_that_nobody_reads_are_bounded_for_all_connections_with_a_certificate() {
    let cluster = node_with(16 * MIB, |_| {});
    block_on(async {
        let mut good = client_of(&cluster, "good").await;
        good.put("large", vec![7; MIB], None).await;
        let mut narrow = Vec::new();
        for _ in 0..4 {
            let client = narrow_client_of(&cluster, "greedy").await;
            // Each on a stream of its own, as nobody has to: these are as bounded as others.
            for id in 1..=200 {
                let request = if id % 2 == 0 { Request::Aae(AaeCommand::Status) } else { get("large") };
                let frame = framed(id, request);
                let sending = async {
                    let mut stream = client.connection.open_uni().await.expect("the connection is up");
                    stream.write_all(&frame).await.expect("the connection is up");
                    stream.finish().expect("is open");
                };
                if tokio::time::timeout(Duration::from_millis(200), sending).await.is_err() {
                    break;
                }
            }
            narrow.push(client);
        }
        // A half of a half, and one answer more for each connection.
        assert!(held(&cluster) <= 4 * MIB + 4 * (MIB + 128 * 1024), "{}", held(&cluster));
        assert_eq!(good.get("large").await.siblings.len(), 1);
        good.put("k", vec![7; 100_000], None).await;
        drop(narrow);
        soon("all is given back", || held(&cluster) == 0).await;
    });
    cluster.stop();
}

#[test]
fn a_client_that_stops_reading_is_shown_out_and_one_that_has_asked_nothing_is_not() {
    let cluster = node_with(128 * MIB, |settings| settings.net.arrival_timeout = Duration::from_secs(1));
    block_on(async {
        let mut idle = client_of(&cluster, "idle").await;
        idle.put("large", vec![7; 4 * MIB], None).await;
        let mut deaf = narrow_client_of(&cluster, "deaf").await;
        for _ in 0..16 {
            deaf.send(get("large")).await;
        }
        // Its endpoint takes what its windows have room for, and then no more.
        let reason = deaf.connection.closed().await;
        assert!(reason.to_string().contains("does not read the answers"), "{reason}");
        assert_eq!(idle.get("large").await.siblings.len(), 1);
    });
    cluster.stop();
}

#[test]
fn a_certificate_with_half_of_the_connections_leaves_the_others_theirs() {
    let cluster = node_with(16 * MIB, |_| {});
    block_on(async {
        let mut greedy = Vec::new();
        for _ in 0..12 {
            greedy.push(client_of(&cluster, "greedy").await);
        }
        soon("those beyond the half are closed", || {
            greedy.iter().filter(|client| client.connection.close_reason().is_some()).count() == 4
        })
        .await;
        let refused = greedy.iter().find_map(|client| client.connection.close_reason()).expect("some are");
        assert!(refused.to_string().contains("as many with this certificate"), "{refused}");
        let mut good = client_of(&cluster, "good").await;
        good.put("k", Bytes::from_static(b"v"), None).await;
        drop(greedy);
        soon("the places are free again", || cluster.node(0).metrics().client_connections.get() == 1).await;
    });
    cluster.stop();
}

#[test]
fn beyond_its_half_of_the_requests_a_certificate_waits_and_others_do_not() {
    let cluster = node_with(128 * MIB, |settings| settings.net.client_requests_max = 8);
    block_on(async {
        let mut greedy = client_of(&cluster, "greedy").await;
        let mut good = client_of(&cluster, "good").await;
        let mut frames = Vec::new();
        for id in 1..=64 {
            frames.extend(framed(id, put(&format!("k{id}"), "v", None)));
        }
        greedy.send.write_all(&frames).await.expect("is up");
        good.put("good", "v", None).await;
        for _ in 0..64 {
            let answer = greedy.receive().await.expect("is up").response;
            assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        }
        assert_eq!(cluster.node(0).metrics().overloaded.get(), 0);
    });
    cluster.stop();
}
