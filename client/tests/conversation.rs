//! The client against nodes that are played by the test: what it sends, where, and what it makes of the answers.

mod fake;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{
    Answered, ArcIndex, Cause, Client, ClusterCommand, ClusterError, Conflict, ConnectError, ConnectFailure, Context,
    DeleteError, Figures, GetError, IoRuntime, Moving, NoRetry, Outcome, Profile, PutError, Refusal, Union,
    UpdateError, WriteId,
};
use driftless_proto::client::{Basis, Cursor, Deleted, HintsFor, NodeStatus, Page, Read, Request, Response};
use driftless_proto::{Failure, Unknown};
use driftless_ring::{Member, Ring, RingSpec};
use fake::{Authority, Cluster, Node, SharedTopology};
use futures::future::join_all;
use futures::stream::StreamExt as _;

fn unknown() -> Response {
    Response::Failed(Failure::Unknown(Unknown::Timeout { acks: 1, needed: 2 }))
}

// ---- certificates

#[tokio::test]
async fn certificates_from_an_authority_with_another_in_between_are_shown_and_checked_whole() {
    let mut cluster = Cluster::start_of(Authority::with_another_between(), &["ada"]);
    let bucket = cluster.connect().await.bucket("default");
    let read = tokio::spawn(async move { bucket.get("k").send().await });
    cluster.nodes[0].next_request().await.values(&["v"]);
    assert_eq!(
        read.await.expect("does not panic").expect("answered").one().expect("no siblings").expect("a value"),
        "v"
    );
}

// ---- sending and receiving

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let reads = tokio::spawn(async move { join_all((0..50).map(|i| bucket.get(format!("key {i}")).send())).await });
    let mut received = Vec::new();
    for _ in 0..50 {
        received.push(cluster.nodes[0].next().await);
    }
    for received in received.iter().rev() {
        received.values(&[&received.key().to_string()]);
    }
    for (i, read) in reads.await.expect("does not panic").into_iter().enumerate() {
        assert_eq!(read.expect("answered").one().expect("no siblings").expect("a value"), &format!("key {i}"));
    }
}

#[tokio::test]
async fn requests_that_queue_up_leave_together() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.builder().io_runtime(IoRuntime::Caller).connect().await.expect("answers");
    let bucket = client.bucket("default");
    let play = async {
        let mut received = Vec::new();
        for _ in 0..1000 {
            received.push(cluster.nodes[0].next().await);
        }
        let datagrams = received[0].connection.stats().udp_rx.datagrams;
        received.iter().for_each(|received| received.values(&["x"]));
        datagrams
    };
    let (reads, datagrams) = tokio::join!(join_all((0..1000).map(|i| bucket.get(format!("{i}")).send())), play);
    assert!(reads.iter().all(Result::is_ok));
    assert!(datagrams < 100, "1000 requests took {datagrams} datagrams");
}

#[tokio::test]
async fn large_frames_travel_alone_both_ways() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);

    for (value, alone) in [(Bytes::from("small"), false), (large.clone(), true), (Bytes::from(vec![7; 60_000]), false)]
    {
        let put = tokio::spawn(bucket.put("k", &value).into_future());
        let received = cluster.nodes[0].next().await;
        assert_eq!((received.alone, &received.put().value), (alone, &value));
        received.stored();
        put.await.expect("does not panic").expect("answered");
    }

    let get = tokio::spawn(bucket.get("k").into_future());
    let received = cluster.nodes[0].next().await;
    let mut read = fake::read(&["x"]);
    read.siblings[0].value = large.clone();
    received.answer_alone(Response::Read(read)).await;
    assert_eq!(get.await.expect("does not panic").expect("answered").one(), Ok(Some(&large)));
}

#[tokio::test]
async fn a_large_request_may_be_the_first_one() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let seed = cluster.nodes[0].address.to_string();
    let client = cluster.builder().seeds([seed]).connect().await.expect("answers");
    // A key of the node that nothing was asked of yet.
    let key = (0..).map(|i| i.to_string()).find(|key| cluster.owners("default", key)[0] == 1).expect("has some");
    let put = tokio::spawn(client.bucket("default").put(key, vec![7; 100_000]).into_future());
    let received = cluster.nodes[1].next().await;
    assert!(received.alone);
    received.stored();
    put.await.expect("does not panic").expect("answered");
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default").with_profile(&Profile::new().retry(NoRetry));
    let garbage = [vec![255; 64], vec![3, 0, 0, 0, 255, 255, 255], vec![0, 0, 0, 0]];
    for bytes in garbage {
        let put = tokio::spawn(bucket.put("k", "v").into_future());
        let received = cluster.nodes[0].next().await;
        received.raw(bytes);
        let error = put.await.expect("does not panic").expect_err("no answer can come");
        let cause = error.request().expect("it was sent").cause();
        assert!(matches!(cause, Cause::ConnectionLost { .. }), "{cause}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    // The next one connects anew.
    let get = tokio::spawn(bucket.get("k").into_future());
    cluster.nodes[0].next().await.values(&["v"]);
    assert!(get.await.expect("does not panic").expect("answered").exists());
}

#[tokio::test]
async fn an_answer_to_another_question_is_no_answer() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    cluster.nodes[0].next().await.values(&["v"]);
    let error = put.await.expect("does not panic").expect_err("a read does not answer a put");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_client_that_is_dropped_hangs_up() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    let received = cluster.nodes[0].next().await;
    received.values(&[]);
    let _ = get.await.expect("does not panic").expect("answered");
    drop(client);
    received.connection.closed().await;
}

// ---- retries

#[tokio::test]
async fn an_unknown_write_is_repeated_at_the_same_coordinator_then_at_the_next() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    let id = WriteId(42);
    let put = tokio::spawn(client.bucket("default").put("k", "v").write_id(id).into_future());
    for at in [owners[0], owners[0], owners[1]] {
        let received = cluster.nodes[at].next().await;
        assert_eq!(received.put().write_id, id);
        received.answer(unknown());
    }
    let again = cluster.nodes[owners[1]].next().await;
    again.refuse(Refusal::WriteIdReused);
    let error = put.await.expect("does not panic").expect_err("refused at last");
    assert_eq!(error.refusal(), Some(&Refusal::WriteIdReused));
    assert_eq!(error.request().expect("it was sent").attempts(), 4);
    assert_eq!(error.outcome(), Outcome::Unknown, "the first attempts may have taken effect");
}

#[tokio::test]
async fn a_read_goes_to_the_next_node_at_once() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    cluster.nodes[owners[0]].next().await.answer(unknown());
    cluster.nodes[owners[1]].next().await.values(&["v"]);
    assert!(get.await.expect("does not panic").expect("answered").exists());
}

#[tokio::test]
async fn an_overloaded_node_is_given_its_time() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    let received = cluster.nodes[0].next().await;
    let refused = Instant::now();
    received.refuse(Refusal::Overloaded { retry_after_ms: 150 });
    let again = cluster.nodes[0].next().await;
    assert!(refused.elapsed() >= Duration::from_millis(150), "came back after {:?}", refused.elapsed());
    assert_eq!(again.put(), received.put());
    again.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn an_overloaded_node_is_not_waited_for_beyond_the_deadline() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    cluster.nodes[0].next().await.refuse(Refusal::Overloaded { retry_after_ms: 3_600_000 });
    let error = put.await.expect("does not panic").expect_err("there is no time for that");
    assert!(matches!(error.refusal(), Some(Refusal::Overloaded { .. })), "{error}");
    assert_eq!((error.outcome(), error.request().expect("was sent").attempts()), (Outcome::Refused, 1));
}

#[tokio::test]
async fn a_node_whose_clock_is_off_is_left_for_the_next_owner() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    cluster.nodes[owners[0]].next().await.refuse(Refusal::ClockOff { ahead_ms: 86_400_000 });
    cluster.nodes[owners[1]].next().await.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn a_drained_node_is_left_for_the_next_owner_at_once_and_passed_over_for_a_while() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    let bucket = client.bucket("default");
    let [first, next] = cluster.nodes.get_disjoint_mut([owners[0], owners[1]]).expect("are two nodes");
    let began = Instant::now();
    let put = tokio::spawn(bucket.put("k", "v").into_future());
    first.next_request().await.refuse(Refusal::Stopping);
    next.next_request().await.stored();
    put.await.expect("does not panic").expect("stored");
    let put = tokio::spawn(bucket.put("k", "w").into_future());
    let received = tokio::select! {
        received = first.next_request() => {
            // On a machine that is so slow.
            assert!(began.elapsed() >= Duration::from_secs(1), "it was asked again at once");
            received
        }
        received = next.next_request() => received,
    };
    received.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn what_would_be_refused_again_is_reported_at_once() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    cluster.nodes[0].next().await.refuse(Refusal::TooManySiblings { siblings: 65, bytes: 65 });
    let error = put.await.expect("does not panic").expect_err("refused");
    assert_eq!((error.outcome(), error.request().expect("was sent").attempts()), (Outcome::Refused, 1));
    assert!(error.to_string().contains("write a merged value"), "says what to do: {error}");
}

#[tokio::test]
async fn a_node_that_is_gone_is_passed_over() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    cluster.nodes[owners[0]].stop();
    for _ in 0..3 {
        let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
        cluster.nodes[owners[1]].next().await.stored();
        put.await.expect("does not panic").expect("stored");
    }
}

#[tokio::test]
async fn no_answer_by_the_deadline_is_unknown() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").timeout(Duration::from_millis(80)).into_future());
    let received = cluster.nodes[0].next_request().await;
    assert!((1..=80).contains(&received.frame.deadline_ms), "{} ms", received.frame.deadline_ms);
    let error = put.await.expect("does not panic").expect_err("no answer");
    assert!(matches!(error.request().expect("was sent").cause(), Cause::TimedOut { sent: true, .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);

    // Its answer comes when nobody waits any more, and does no harm to the next.
    received.stored();
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    cluster.nodes[0].next_request().await.values(&["v"]);
    assert!(get.await.expect("does not panic").expect("answered").exists());
}

#[tokio::test]
async fn a_silent_node_is_left_for_the_next_one() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let owners = cluster.owners("default", "k");
    let bucket = client.bucket("default").with_profile(&Profile::new().attempt_timeout(Duration::from_millis(400)));
    let put = tokio::spawn(bucket.put("k", "v").into_future());
    let received = cluster.nodes[owners[0]].next().await;
    let elsewhere = cluster.nodes[owners[1]].next().await;
    assert_eq!(elsewhere.put(), received.put());
    elsewhere.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn a_full_client_makes_callers_wait_until_their_deadline() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.builder().in_flight_max(1).connect().await.expect("answers");
    let bucket = client.bucket("default");
    let first = tokio::spawn(bucket.get("a").into_future());
    let received = cluster.nodes[0].next().await;
    let error = bucket.put("b", "v").timeout(Duration::from_millis(30)).await.expect_err("no room");
    assert!(matches!(error.request().expect("was in order").cause(), Cause::Busy { limit: 1 }), "{error}");
    assert_eq!(error.outcome(), Outcome::Refused);

    let second = tokio::spawn(bucket.get("c").into_future());
    received.values(&[]);
    let _ = first.await.expect("does not panic").expect("answered");
    cluster.nodes[0].next().await.values(&[]);
    let _ = second.await.expect("does not panic").expect("answered");
}

#[tokio::test]
async fn what_breaks_a_limit_is_not_sent() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let large = Bytes::from(vec![0; driftless_client::VALUE_BYTES_MAX + 1]);
    assert!(matches!(bucket.put("k", large).await, Err(PutError::ValueTooLarge { .. })));
    assert!(matches!(bucket.get("").await, Err(GetError::Key(_))));
    assert!(matches!(bucket.put(vec![b'k'; 1025], "v").await, Err(PutError::Key(_))));
    assert!(!cluster.nodes[0].has_been_asked());
}

// ---- the ring

#[tokio::test]
async fn a_bucket_is_looked_for_again_before_it_is_an_error() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("new");
    let error = bucket.put("k", "v").await.expect_err("there is none");
    assert!(matches!(error.request().expect("was in order").cause(), Cause::NoSuchBucket(name) if name == "new"));
    assert_eq!(error.outcome(), Outcome::Refused);

    cluster.tell(&["default", "carts", "new"]);
    let put = tokio::spawn(bucket.put("k", "v").into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().bucket.0, 2);
    received.stored();
    put.await.expect("does not panic").expect("stored");
}

/// A ring of the first node alone, and the next one of the second alone, each with one replica.
fn two_rings(cluster: &Cluster) -> (Ring, Ring) {
    let members: Vec<_> = cluster.nodes.iter().map(|node| Member::new(&*node.name, node.address.to_string())).collect();
    let one = |member: &Member| RingSpec { classes: BTreeSet::from([1]), ..fake::spec(vec![member.clone()]) };
    let first = Ring::first(one(&members[0])).expect("a ring");
    let second = first.next(one(&members[1])).expect("a ring");
    (first, second)
}

#[tokio::test]
async fn a_stale_ring_is_fetched_again_and_followed() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let (old, new) = two_rings(&cluster);
    cluster.set(fake::topology(old, &["default"]));
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.frame.ring_version, 1);
    cluster.set(fake::topology(new, &["default"]));
    received.refuse(Refusal::StaleRing { theirs: 1, ours: 2 });
    let again = cluster.nodes[1].next().await;
    assert_eq!((again.frame.ring_version, again.put()), (2, received.put()));
    again.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn a_newer_ring_is_learned_from_any_answer() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let (old, new) = two_rings(&cluster);
    cluster.set(fake::topology(old, &["default"]));
    let client = cluster.connect().await;
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    let received = cluster.nodes[0].next().await;
    cluster.set(fake::topology(new, &["default"]));
    received.answer_from_ring(2, Response::Read(fake::read(&[])));
    let _ = get.await.expect("does not panic").expect("answered");
    let told = async {
        while client.topology().expect("has heard of it").ring().version().0 < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the client hears of the newer ring");
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    cluster.nodes[1].next().await.values(&[]);
    let _ = get.await.expect("does not panic").expect("answered");
}

#[tokio::test]
async fn an_older_ring_is_not_taken() {
    let cluster = Cluster::start(&["ada", "bob"]);
    let (old, new) = two_rings(&cluster);
    cluster.set(fake::topology(new, &["default"]));
    let client = cluster.connect().await;
    cluster.set(fake::topology(old, &["default"]));
    assert_eq!(client.refresh_topology().await.expect("a node answers").ring().version().0, 2);
}

#[tokio::test]
async fn requests_go_to_the_shard_that_owns_the_partition() {
    let authority = Authority::new();
    let told = SharedTopology::default();
    // Two neighbouring ports, as the shards of a node have them.
    let mut shards = loop {
        let first = Node::start(&authority, "node", "ada", Arc::clone(&told));
        let Some(port) = first.address.port().checked_add(1) else {
            continue;
        };
        let second = SocketAddr::from(([127, 0, 0, 1], port));
        if let Ok(second) = Node::start_at(&authority, "node", "ada", Arc::clone(&told), second) {
            break [first, second];
        }
    };
    let member = Member { shards: 2, ..Member::new("ada", shards[0].address.to_string()) };
    let topology = fake::topology(Ring::first(fake::spec(vec![member.clone()])).expect("a ring"), &["default"]);
    *told.lock().expect("no test panics under the lock") = Some(topology.clone());
    let seeds = [shards[0].address.to_string()];
    let client = Client::builder().seeds(seeds).identity(authority.client()).connect().await.expect("answers");
    for i in 0..10 {
        let key = driftless_client::Key::new(format!("key {i}")).expect("valid");
        let place = topology.place(&topology.buckets()[0], &key);
        let get = tokio::spawn(client.bucket("default").get(&key).into_future());
        let received = shards[usize::from(topology.shard_of(member.id, place.partition))].next().await;
        assert_eq!(received.key(), &key);
        received.values(&[]);
        let _ = get.await.expect("does not panic").expect("answered");
    }
}

#[tokio::test]
async fn pinned_requests_reach_their_node_and_no_other() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    for at in [0, 1, 2] {
        let (name, address) = (cluster.nodes[at].name.clone(), cluster.nodes[at].address.to_string());
        let only = cluster.builder().only(&address).connect().await.expect("answers");
        let requests = [
            client.bucket("default").get("k").via(&name),
            client.bucket("default").get("k").via(&address),
            only.bucket("default").get("k"),
        ];
        for get in requests {
            let get = tokio::spawn(get.into_future());
            // A refusal that would make others go elsewhere.
            cluster.nodes[at].next().await.refuse(Refusal::Stopping);
            cluster.nodes[at].next().await.values(&[&name]);
            let read = get.await.expect("does not panic").expect("answered");
            assert_eq!(read.one().expect("no siblings").expect("a value"), &name);
        }
    }
    let error = client.bucket("default").get("k").via("dan").await.expect_err("there is no such node");
    assert!(matches!(error.request().expect("was in order").cause(), Cause::NoSuchNode(name) if name == "dan"));
}

#[tokio::test]
async fn a_node_is_asked_for_its_own_status() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let client = cluster.connect().await;
    let asking = client.clone();
    let status = tokio::spawn(async move { asking.status("bob").await });
    let received = cluster.nodes[1].next().await;
    assert_eq!(received.frame.request, Request::Status);
    received.answer(Response::Status(Box::new(NodeStatus {
        name: "bob".into(),
        version: "0".into(),
        ring_version: 1,
        uptime_ms: 1,
        keys: Some(3),
        bytes: None,
        hints: None,
        clock_offset_ms: Some(-3),
        takes_writes: true,
        conditions: Vec::new(),
        peers: vec![],
    })));
    assert_eq!(status.await.expect("does not panic").expect("answered").keys, Some(3));
}

#[tokio::test]
async fn a_node_is_asked_for_its_own_figures() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let client = cluster.connect().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.figures("bob").await });
    let received = cluster.nodes[1].next().await;
    assert_eq!(received.frame.request, Request::Figures);
    let put = Answered { operation: "put".to_owned(), ok: 7, refused: 1, unknown: 0, took: vec![0, 8] };
    let figures = Figures {
        status: NodeStatus {
            name: "bob".into(),
            version: "0".into(),
            ring_version: 1,
            uptime_ms: 1,
            keys: None,
            bytes: None,
            hints: None,
            clock_offset_ms: None,
            takes_writes: true,
            conditions: Vec::new(),
            peers: Vec::new(),
        },
        unfinished: Vec::new(),
        moving: Moving::default(),
        hints: Vec::new(),
        exchanges: Vec::new(),
        compared_ms: Some(59_000),
        round_trips: Vec::new(),
        requests: vec![put],
        under_way: 2,
        client_connections: 3,
        reads_found: 7,
        siblings_read: 9,
        writes_discarded: 0,
        fallback_coordinated: 1,
        hints_delivered: 70,
        keys_repaired: 4,
        disk: None,
        partitions_uncounted: 0,
        leaves_scrubbed: 600,
        damaged: 0,
        aae_paused: false,
    };
    received.answer(Response::Figures(Box::new(figures.clone())));
    assert_eq!(asked.await.expect("does not panic").expect("answered"), figures);
}

/// Two nodes that were told would get into each other's way, and the later one could undo what was said since.
#[tokio::test]
async fn a_change_of_the_cluster_is_sent_to_one_node_and_may_have_been_made_if_that_is_silent() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let brief = Profile::new().timeout(Duration::from_secs(2)).attempt_timeout(Duration::from_millis(200));
    let client = cluster.builder().profile(brief).connect().await.expect("answers");
    let changing = tokio::spawn(async move { client.cluster(ClusterCommand::Cancel).await });
    let [ada, bob] = &mut cluster.nodes[..] else { panic!("two nodes") };
    let mut asked = 0;
    while !changing.is_finished() {
        let next = async {
            tokio::select! { received = ada.next() => received, received = bob.next() => received }
        };
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(50), next).await {
            asked += u32::from(received.frame.request == Request::Cluster(ClusterCommand::Cancel));
        }
    }
    assert_eq!(asked, 1, "neither the other node is told, nor the same one again");
    let error = changing.await.expect("does not panic").expect_err("nobody answered");
    assert!(matches!(error, ClusterError::NotCertain { .. }) && error.outcome() == Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn a_node_is_asked_what_it_holds_for_others() {
    let mut cluster = Cluster::start(&["ada", "bob"]);
    let client = cluster.connect().await;
    let hints = tokio::spawn(async move { client.hints("bob").await });
    let received = cluster.nodes[1].next().await;
    assert_eq!(received.frame.request, Request::Hints);
    let held = HintsFor {
        target: "ada".into(),
        keys: 3,
        bytes: 300,
        oldest_ms: Some(1_000),
        delivered: 7,
        rate: 2.0,
        eta_ms: Some(1_500),
    };
    received.answer(Response::Hints(vec![held.clone()]));
    assert_eq!(hints.await.expect("does not panic").expect("answered"), [held]);
}

// ---- who is at the other end

async fn failure_with(cluster: &Cluster, identity: driftless_client::Identity) -> ConnectFailure {
    let seed = cluster.nodes[0].address.to_string();
    let error = Client::builder().seeds([seed]).identity(identity).connect().await.expect_err("cannot connect");
    let ConnectError::NoSeedAnswered { failures } = error else { panic!("{error}") };
    match failures[0].1.cause() {
        Cause::NotConnected { failure, .. } => failure.clone(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn another_clusters_ca_is_not_trusted() {
    let cluster = Cluster::start(&["ada"]);
    let own = cluster.authority.issue("client", "tester");
    let mixed =
        driftless_client::Identity::from_pem(Authority::new().ca.as_bytes(), own.cert.as_bytes(), own.key.as_bytes())
            .expect("fits together");
    let failure = failure_with(&cluster, mixed).await;
    assert!(matches!(failure, ConnectFailure::Untrusted { .. }), "{failure}");
}

#[tokio::test]
async fn a_foreign_client_is_told_that_it_was_refused() {
    let cluster = Cluster::start(&["ada"]);
    let own = Authority::new().issue("client", "stranger");
    let foreign =
        driftless_client::Identity::from_pem(cluster.authority.ca.as_bytes(), own.cert.as_bytes(), own.key.as_bytes())
            .expect("fits together");
    let failure = failure_with(&cluster, foreign).await;
    assert!(matches!(failure, ConnectFailure::Rejected { .. }), "{failure}");
    assert!(failure.to_string().contains("issued by the CA of this cluster"), "{failure}");
}

#[tokio::test]
async fn a_client_certificate_does_not_make_a_node() {
    let mut cluster = Cluster::start(&["ada"]);
    cluster.nodes[0] = Node::start(&cluster.authority, "client", "ada", Arc::clone(&cluster.topology));
    let failure = failure_with(&cluster, cluster.authority.client()).await;
    assert!(matches!(failure, ConnectFailure::NotANode { .. }), "{failure}");
}

#[tokio::test]
async fn another_node_at_a_members_address_is_noticed() {
    let cluster = Cluster::start(&["ada"]);
    let member = Member::new("bob", cluster.nodes[0].address.to_string());
    cluster.set(fake::topology(Ring::first(fake::spec(vec![member])).expect("a ring"), &["default"]));
    let client = cluster.connect().await;
    let error = client.bucket("default").get("k").await.expect_err("bob is not there");
    assert!(
        matches!(error.request().expect("was in order").cause(), Cause::NotConnected {
            failure: ConnectFailure::WrongNode { expected, found, .. }, ..
        } if expected == "bob" && found == "ada"),
        "{error}"
    );
}

/// A new process does not know yet who is gone: its first request used to wait a second for a dead first owner.
#[tokio::test]
async fn a_node_that_cannot_be_connected_to_is_passed_over() {
    let mut cluster = Cluster::start(&["ada"]);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let members = vec![
        Member::new("ada", cluster.nodes[0].address.to_string()),
        Member::new("bob", silent.local_addr().expect("is bound").to_string()),
    ];
    let ring = Ring::first(RingSpec { classes: BTreeSet::from([2]), ..fake::spec(members) }).expect("a ring");
    cluster.set(fake::topology(ring, &["default"]));
    let client = cluster.connect().await;
    let topology = client.topology().expect("has heard of it");
    let bucket = topology.bucket_named("default").expect("exists");
    let bobs = (0..).map(|i| format!("key {i}")).find(|key| {
        let key = driftless_client::Key::new(key.clone()).expect("valid");
        let first = topology.preference(topology.place(bucket, &key).partition).primaries[0];
        topology.ring().member(first).is_some_and(|member| member.name == "bob")
    });
    let started = Instant::now();
    let get = tokio::spawn(client.bucket("default").get(bobs.expect("half of all keys")).into_future());
    cluster.nodes[0].next().await.values(&["x"]);
    let read = get.await.expect("does not panic").expect("answered");
    assert_eq!(read.values().count(), 1);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

/// The node that was passed over used to count as asked: the request waited for its answer, for ever.
#[tokio::test]
async fn what_is_final_is_reported_although_a_node_was_passed_over() {
    let mut cluster = Cluster::start(&["ada"]);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let members = vec![
        Member::new("ada", cluster.nodes[0].address.to_string()),
        Member::new("bob", silent.local_addr().expect("is bound").to_string()),
    ];
    let ring = Ring::first(RingSpec { classes: BTreeSet::from([2]), ..fake::spec(members) }).expect("a ring");
    cluster.set(fake::topology(ring, &["default"]));
    let client = cluster.connect().await;
    let topology = client.topology().expect("has heard of it");
    let bucket = topology.bucket_named("default").expect("exists");
    let bobs = (0..).map(|i| format!("key {i}")).find(|key| {
        let key = driftless_client::Key::new(key.clone()).expect("valid");
        let first = topology.preference(topology.place(bucket, &key).partition).primaries[0];
        topology.ring().member(first).is_some_and(|member| member.name == "bob")
    });
    let get = client.bucket("default").get(bobs.expect("half of all keys")).into_future();
    let get =
        tokio::spawn(async { tokio::time::timeout(Duration::from_secs(30), get).await.expect("comes to an end") });
    cluster.nodes[0].next().await.refuse(Refusal::BadRequest("no".into()));
    let error = get.await.expect("does not panic").expect_err("refused");
    assert!(matches!(error.refusal(), Some(Refusal::BadRequest(_))), "{error}");
}

#[tokio::test]
async fn one_seed_that_answers_is_enough() {
    let cluster = Cluster::start(&["ada"]);
    let seeds = ["127.0.0.1:1".to_owned(), "no.such.host.invalid:7400".into(), cluster.nodes[0].address.to_string()];
    let client = cluster.builder().seeds(seeds).connect().await.expect("one answers");
    assert_eq!(client.topology().expect("has heard of it").cluster(), "shop");
}

#[tokio::test]
async fn what_a_builder_lacks_is_named() {
    assert!(matches!(Client::builder().connect().await, Err(ConnectError::NoSeeds)));
    assert!(matches!(Client::builder().seeds(["x:1"]).connect().await, Err(ConnectError::NoIdentity)));
}

// ---- operations

#[tokio::test]
async fn a_context_travels_from_the_read_to_the_write() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let carts = client.bucket("carts");
    let get = tokio::spawn(carts.get("alice").r(1).sloppy(false).into_future());
    let received = cluster.nodes[0].next().await;
    let Request::Get(sent) = &received.frame.request else { panic!("not a get") };
    assert_eq!((sent.bucket.0, sent.r, sent.sloppy, sent.explain), (1, Some(1), Some(false), false));
    received.values(&["pears", "apples"]);
    let read = get.await.expect("does not panic").expect("answered");
    assert_eq!(read.values().collect::<Vec<_>>(), ["pears", "apples"]);
    assert_eq!(read.one(), Err(Conflict { siblings: 2 }), "there are two");

    let kept: Context = read.context().expect("was written").to_string().parse().expect("is text of a context");
    let put = tokio::spawn(carts.put("alice", "both").context(&kept).w(1).into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().context.as_ref().map(|context| context.as_bytes()), Some(&b"pears+apples"[..]));
    assert_eq!(received.put().w, Some(1));
    received.stored();
    put.await.expect("does not panic").expect("stored");

    let delete = tokio::spawn(carts.delete("alice").context(read.context()).into_future());
    let received = cluster.nodes[0].next().await;
    assert!(matches!(&received.frame.request, Request::Delete(delete) if delete.context == asked_context(&kept)));
    received.answer(Response::Deleted(Deleted { existed: true, acks: 2, primaries: 1, siblings: 0, basis: None }));
    let deleted = delete.await.expect("does not panic").expect("removed");
    assert_eq!((deleted.existed(), deleted.acks(), deleted.primaries(), deleted.siblings()), (true, 2, 1, 0));
}

/// An attack from outside: with two of five nodes dead, 123 of 300 stored keys of an n = 1 bucket "did not exist".
#[tokio::test]
async fn that_a_key_does_not_exist_is_for_its_own_replicas_to_say() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let carts = client.bucket("carts");
    let uncertain =
        |values: &[&str]| Response::Read(Read { basis: Basis { needed: 2, primaries: 1 }, ..fake::read(values) });
    let get = tokio::spawn(carts.get("k").into_future());
    cluster.nodes[0].next().await.answer(uncertain(&[]));
    let error = get.await.expect("does not panic").expect_err("nobody knows");
    assert!(error.to_string().starts_with("nothing was found, but only 1 of the 2 answers"), "{error}");
    let GetError::NotCertain { read } = error else { panic!("{error}") };
    assert_eq!((read.primaries(), read.exists(), read.is_certain()), (1, false, false));
    assert!(!cluster.nodes[0].has_been_asked(), "it was answered");

    let get = tokio::spawn(carts.get("k").into_future());
    cluster.nodes[0].next().await.answer(uncertain(&["v"]));
    let read = get.await.expect("does not panic").expect("a value is a value");
    assert_eq!((read.primaries(), read.is_certain()), (1, true));

    let basis = Some(Basis { needed: 2, primaries: 1 });
    let delete = tokio::spawn(carts.delete("k").into_future());
    let nothing = Deleted { existed: false, acks: 2, primaries: 1, siblings: 0, basis };
    cluster.nodes[0].next().await.answer(Response::Deleted(nothing));
    let error = delete.await.expect("does not panic").expect_err("nobody knows");
    assert!(matches!(error, DeleteError::NotCertain { primaries: 1, needed: 2, .. }), "{error}");

    // What an update makes of nothing is no loss: it becomes a sibling. To remove what it has not found it cannot.
    let update = tokio::spawn(carts.update("k", |found| format!("{} seen", found.len())).into_future());
    cluster.nodes[0].next().await.answer(uncertain(&[]));
    let received = cluster.nodes[0].next().await;
    assert_eq!((received.put().value.as_ref(), received.put().context.is_none()), (&b"0 seen"[..], true));
    received.stored();
    assert!(update.await.expect("does not panic").expect("stored").written());
    let update = tokio::spawn(carts.update("k", |_| None::<Bytes>).into_future());
    cluster.nodes[0].next().await.answer(uncertain(&[]));
    let error = update.await.expect("does not panic").expect_err("nobody knows");
    assert!(matches!(error, UpdateError::Get(GetError::NotCertain { .. })), "{error}");
}

fn asked_context(context: &Context) -> Option<driftless_proto::ContextToken> {
    Some(Bytes::copy_from_slice(context.as_bytes()).into())
}

#[tokio::test]
async fn siblings_are_resolved_when_asked_for() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let words =
        |value: &Bytes| std::str::from_utf8(value).map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let get = tokio::spawn(client.bucket("carts").get("alice").resolve(Union::new(words)).into_future());
    cluster.nodes[0].next().await.values(&["b a", "c"]);
    let cart = get.await.expect("does not panic").expect("resolves");
    assert_eq!((cart.value.len(), cart.siblings), (3, 2));
    assert!(cart.context().is_some());
}

#[tokio::test]
async fn many_keys_are_answered_in_their_order() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let play = async {
        let mut received = Vec::new();
        for _ in 0..100 {
            received.push(cluster.nodes[0].next().await);
        }
        for received in received.iter().rev() {
            received.values(&[&received.key().to_string()]);
        }
        for _ in 0..3 {
            let received = cluster.nodes[0].next().await;
            if received.key().as_bytes() == b"b" {
                received.refuse(Refusal::StorageFull);
            } else {
                received.stored();
            }
        }
    };
    let talk = async {
        let keys: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let reads = bucket.multi_get(&keys).await;
        for (key, (received, read)) in keys.iter().zip(&reads) {
            assert_eq!(key, received);
            assert_eq!(read.as_ref().expect("answered").one().expect("no siblings").expect("a value"), key);
        }
        let puts = bucket.multi_put([("a", "1"), ("b", "2"), ("c", "3")]).await;
        assert_eq!(puts.iter().map(|(_, put)| put.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    };
    tokio::join!(play, talk);
}

#[tokio::test]
async fn a_scan_walks_through_all_arcs_page_by_page() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let topology = client.topology().expect("has heard of it");
    let ring = Arc::clone(topology.ring());
    let id = topology.bucket_named("carts").expect("exists").id.0;
    let mut keys: Vec<driftless_client::Key> =
        (0..40).map(|i| driftless_client::Key::new(format!("{i}")).expect("valid")).collect();
    keys.sort_by_key(|key| (ring.token(id, key.as_bytes()), key.clone()));

    let held = keys.clone();
    let play = async {
        loop {
            let received = cluster.nodes[0].next().await;
            let Request::Scan(scan) = &received.frame.request else { panic!("not a scan") };
            let here = held.iter().filter(|key| ring.partitions().arc_of(ring.token(id, key.as_bytes())) == scan.arc);
            let cursor =
                |key: &driftless_client::Key| Cursor { token: ring.token(id, key.as_bytes()), key: Some(key.clone()) };
            let rest: Vec<_> =
                here.filter(|key| scan.after.as_ref().is_none_or(|after| cursor(key) > *after)).cloned().collect();
            let mut page: Vec<_> = rest.iter().take(scan.limit as usize).cloned().collect();
            let next = if page.len() < rest.len() { page.last().map(cursor) } else { None };
            page.retain(|key| key.as_bytes().starts_with(&scan.prefix));
            received.answer(Response::Page(Page { keys: page, next }));
        }
    };
    let walk = async {
        let all: Vec<_> =
            client.bucket("carts").scan().page(3).keys().map(|key| key.expect("answered")).collect().await;
        assert_eq!(all, keys);

        // Stopped in the middle and begun again from there.
        let mut first = client.bucket("carts").scan().page(3).keys();
        let mut found = Vec::new();
        for _ in 0..17 {
            found.push(first.next().await.expect("there are more").expect("answered"));
        }
        let position = first.position().expect("is not at the end");
        let rest = client.bucket("carts").scan().from(position).page(5).keys();
        found.extend(rest.map(|key| key.expect("answered")).collect::<Vec<_>>().await);
        assert_eq!(found, keys);

        // Keys of a prefix, of which some pages have none.
        let some = client.bucket("carts").scan().page(1).prefix("3").keys().map(|key| key.expect("answered"));
        let wanted: Vec<_> = keys.iter().filter(|key| key.as_bytes()[0] == b'3').cloned().collect();
        assert_eq!(some.collect::<Vec<_>>().await, wanted);

        // One arc alone; every key is in exactly one.
        let mut found = Vec::new();
        for arc in 0..ring.partitions().get() {
            let arc = ArcIndex(arc);
            let inside: Vec<_> = client.bucket("carts").scan().arc(arc).keys().collect().await;
            for key in inside {
                let key = key.expect("answered");
                assert_eq!(ring.partitions().arc_of(ring.token(id, key.as_bytes())), arc);
                found.push(key);
            }
        }
        assert_eq!(found, keys);
        let behind = client.bucket("carts").scan().arc(ArcIndex(ring.partitions().get())).keys();
        assert_eq!(behind.count().await, 0);
    };
    tokio::select! {
        () = play => {}
        () = walk => {}
    }
}
