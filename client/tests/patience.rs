//! The client against nodes that are slow, or say nothing: whom it asks instead, when, and how often.
//!
//! No test sets how long the client is patient. With nothing measured it is for half a second.

mod fake;

use std::time::Duration;

use driftless_client::{Client, NoRetry, Outcome, Profile, PutError, Read, Refusal, Stored};
use driftless_proto::client::{Request, Response};
use fake::{Cluster, Received};
use futures::future::join_all;
use futures::stream::StreamExt as _;
use tokio::task::JoinHandle;

/// An attempt's own end is never what a test waits for.
const LONG: Duration = Duration::from_secs(60);

/// As long as a node waits for a request.
const BOUND: Duration = Duration::from_secs(30);

/// A client that is connected to all nodes, and has heard what they had to say about the topology.
async fn connect(cluster: &mut Cluster) -> Client {
    let profile = Profile::new().attempt_timeout(LONG).timeout(2 * LONG);
    let client = cluster.builder().profile(profile).connect().await.expect("answers");
    for node in 0..cluster.nodes.len() {
        sign_of_life(cluster, &client, node).await;
    }
    client
}

fn put(client: &Client, key: &str) -> JoinHandle<Result<Stored, PutError>> {
    let put = client.bucket("default").put(key, "v").into_future();
    tokio::spawn(async { tokio::time::timeout(BOUND, put).await.expect("ends long before its attempts do") })
}

async fn stored(put: JoinHandle<Result<Stored, PutError>>) -> u8 {
    put.await.expect("does not panic").expect("stored").acks()
}

fn by_two() -> driftless_proto::client::Stored {
    driftless_proto::client::Stored { context: None, acks: 2, primaries: 2, siblings: 1, live: true }
}

fn answer_with(received: &Received, acks: u8) {
    let stored = driftless_proto::client::Stored { context: None, acks, primaries: acks, siblings: 1, live: true };
    received.answer(Response::Stored(stored));
}

/// Makes the client hear something from a node, and know it.
async fn sign_of_life(cluster: &mut Cluster, client: &Client, node: usize) {
    let (asking, name) = (client.clone(), cluster.nodes[node].name.clone());
    let status = tokio::time::timeout(LONG, asking.status(name));
    let answering = async {
        loop {
            cluster.nodes[node].next().await.status();
        }
    };
    tokio::select! {
        answered = status => drop(answered.expect("it answers before long").expect("answered")),
        () = answering => {}
    }
}

#[tokio::test]
async fn an_overdue_put_is_made_elsewhere_under_its_id_and_the_first_answer_counts() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    for late_one_wins in [false, true] {
        let put = put(&client, "k");
        let first = cluster.nodes[owners[0]].next_request().await;
        let second = cluster.nodes[owners[1]].next_request().await;
        assert_eq!(first.put(), second.put(), "the write id and all else");
        let (winner, other) = if late_one_wins { (&first, &second) } else { (&second, &first) };
        answer_with(winner, 3);
        assert_eq!(stored(put).await, 3);
        answer_with(other, 2);
        sign_of_life(&mut cluster, &client, owners[0]).await;
    }
}

/// Its coordinator waits for replicas that are not needed, and another one would do the same.
#[tokio::test]
async fn an_explained_put_is_not_made_elsewhere_because_it_takes_its_time() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let explained = client.bucket("default").put("k", "v").explain().into_future();
    let explained = tokio::spawn(async { tokio::time::timeout(BOUND, explained).await.expect("is answered") });
    let first = cluster.nodes[owners[0]].next_request().await;
    let plain = put(&client, "k");
    cluster.nodes[owners[0]].next_request().await;
    sign_of_life(&mut cluster, &client, owners[0]).await;
    // Begun later, so the patience with both is over by now.
    let hedge = cluster.nodes[owners[1]].next_request().await;
    assert!(matches!(hedge.frame.request, Request::Put(_)), "{:?}", hedge.frame.request);
    answer_with(&hedge, 2);
    stored(plain).await;
    answer_with(&first, 3);
    assert_eq!(explained.await.expect("does not panic").expect("stored").acks(), 3);
}

#[tokio::test]
async fn all_that_is_under_way_at_a_silent_node_goes_elsewhere_at_once() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let topology = client.topology().expect("has heard of it");
    let bucket = topology.bucket_named("default").expect("exists");
    let place = topology.place(bucket, &driftless_client::Key::new("k").expect("valid"));

    // Pages of a scan take as long as they take: this one would wait there for a minute.
    let mut keys = client.bucket("default").scan().arc(place.partition.arc).keys();
    let page = tokio::spawn(async move { keys.next().await.is_none() });
    let scan = cluster.nodes[owners[0]].next_request().await;
    assert!(matches!(scan.frame.request, Request::Scan(_)));
    let put = put(&client, "k");
    cluster.nodes[owners[0]].next_request().await;

    for _ in 0..2 {
        let received = cluster.nodes[owners[1]].next_request().await;
        match received.frame.request {
            Request::Scan(_) => {
                received.answer(Response::Page(driftless_proto::client::Page { keys: vec![], next: None }));
            }
            _ => received.stored(),
        }
    }
    stored(put).await;
    assert!(page.await.expect("does not panic"));
}

/// A page is asked for by the number of an arc. To ask for it elsewhere by a ring with twice the arcs would be to ask for another one, and to
/// leave out keys without a word.
#[tokio::test]
async fn a_page_that_a_silent_node_owes_is_asked_for_by_the_arcs_of_the_newer_ring() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let topology = client.topology().expect("has heard of it");
    let place = topology
        .place(topology.bucket_named("default").expect("exists"), &driftless_client::Key::new("k").expect("valid"));
    let mut keys = client.bucket("default").scan().arc(place.partition.arc).keys();
    let page = tokio::spawn(async move { keys.next().await.is_none() });
    cluster.nodes[owners[0]].next_request().await;

    let doubled = topology.with_ring(topology.ring().doubled().expect("there may be more")).expect("fits");
    let elsewhere = cluster.keys_of(owners[1]).next().expect("has some");
    cluster.set(doubled.clone());
    let telling = put(&client, &elsewhere);
    let received = cluster.nodes[owners[1]].next_request().await;
    received.answer_from_ring(doubled.ring().version().0, Response::Stored(by_two()));
    stored(telling).await;
    let told = async {
        while client.topology().expect("knows one").ring().version() != doubled.ring().version() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.expect("the client hears of the doubled ring");

    // Silence is noticed by what is asked next.
    let noticing = put(&client, "k");
    cluster.nodes[owners[0]].next_request().await;
    let (old, new) = (topology.ring().partitions().range(place.partition.arc), doubled.ring().partitions());
    let mut asked = Vec::new();
    for _ in 0..3 {
        let received = cluster.nodes[owners[1]].next_request().await;
        let Request::Scan(scan) = &received.frame.request else {
            received.answer_from_ring(received.frame.ring_version, Response::Stored(by_two()));
            continue;
        };
        assert_eq!(received.frame.ring_version, doubled.ring().version().0);
        asked.push(new.range(scan.arc));
        let page = driftless_proto::client::Page { keys: vec![], next: None };
        received.answer_from_ring(received.frame.ring_version, Response::Page(page));
    }
    stored(noticing).await;
    assert!(page.await.expect("does not panic"));
    assert_eq!(asked.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), {
        let middle = driftless_ring::Token(old.first.0 + (old.last.0 - old.first.0) / 2);
        vec![(old.first, middle), (driftless_ring::Token(middle.0 + 1), old.last)]
    });
}

#[tokio::test]
async fn a_silent_node_is_asked_last_until_it_gives_a_sign_of_life() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let first = put(&client, "k");
    cluster.nodes[owners[0]].next_request().await;
    cluster.nodes[owners[1]].next_request().await.stored();
    stored(first).await;
    for _ in 0..10 {
        let put = put(&client, "k");
        cluster.nodes[owners[1]].next_request().await.stored();
        stored(put).await;
    }
    assert_eq!(cluster.nodes[owners[0]].calls_waiting(), 0);

    // It is asked by the client itself, again and again.
    assert!(cluster.nodes[owners[0]].next().await.is_probe());
    let sign = cluster.nodes[owners[0]].next().await;
    assert!(sign.is_probe());
    sign.status();
    for _ in 0..1000 {
        let put = put(&client, "k");
        let [suspect, next] = cluster.nodes.get_disjoint_mut([owners[0], owners[1]]).expect("are two");
        let (returned, received) = tokio::select! {
            received = suspect.next_request() => (true, received),
            received = next.next_request() => (false, received),
        };
        received.stored();
        stored(put).await;
        if returned {
            return;
        }
    }
    panic!("it is never asked again");
}

#[tokio::test]
async fn a_lost_connection_sends_all_its_requests_to_the_next_node() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let puts: Vec<_> = (0..20).map(|_| put(&client, "k")).collect();
    let mut ids = Vec::new();
    for i in 0..20 {
        let received = cluster.nodes[owners[0]].next_request().await;
        ids.push(received.put().write_id);
        if i == 19 {
            received.hang_up();
        }
    }
    let mut again = Vec::new();
    for _ in 0..20 {
        let received = cluster.nodes[owners[1]].next_request().await;
        again.push(received.put().write_id);
        received.stored();
    }
    join_all(puts.into_iter().map(stored)).await;
    ids.sort_unstable();
    again.sort_unstable();
    assert_eq!(ids, again);
}

#[tokio::test]
async fn when_all_primaries_are_silent_a_fallback_is_asked() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd", "dan", "eve"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    assert_eq!(owners.len(), 3);
    let put = put(&client, "k");
    for &owner in &owners {
        cluster.nodes[owner].next_request().await;
    }
    let mut others: Vec<_> = (cluster.nodes.iter_mut().enumerate()).filter(|(i, _)| !owners.contains(i)).collect();
    let [(_, one), (_, other)] = &mut others[..] else { panic!("two are left") };
    let received = tokio::select! {
        received = one.next_request() => received,
        received = other.next_request() => received,
    };
    received.stored();
    stored(put).await;
}

#[tokio::test]
async fn impatience_with_a_slow_node_has_a_budget() {
    const REQUESTS: usize = 100;
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let keys: Vec<_> = cluster.keys_of(0).take(REQUESTS).collect();
    let puts: Vec<_> = keys.iter().map(|key| put(&client, key)).collect();
    let mut received = Vec::new();
    for _ in 0..REQUESTS {
        received.push(cluster.nodes[0].next_request().await);
    }
    // It is not silent: it answers something.
    sign_of_life(&mut cluster, &client, 0).await;
    let [_, bob, cyd] = &mut cluster.nodes[..] else { panic!("three nodes") };
    for _ in 0..32 {
        // Nobody answers these.
        tokio::select! { _ = bob.next_request() => {}, _ = cyd.next_request() => {} }
    }
    for received in &received {
        received.stored();
    }
    join_all(puts.into_iter().map(stored)).await;
    let more = bob.calls_waiting() + cyd.calls_waiting();
    assert_eq!(more, 0, "a third of the requests were made twice, and no more");
}

#[tokio::test]
async fn leaving_a_silent_node_is_free() {
    const REQUESTS: usize = 100;
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let keys: Vec<_> = cluster.keys_of(0).take(REQUESTS).collect();
    let puts: Vec<_> = keys.iter().map(|key| put(&client, key)).collect();
    let [_, bob, cyd] = &mut cluster.nodes[..] else { panic!("three nodes") };
    for _ in 0..REQUESTS {
        tokio::select! { received = bob.next_request() => received.stored(), received = cyd.next_request() => received.stored() }
    }
    join_all(puts.into_iter().map(stored)).await;
}

#[tokio::test]
async fn who_wants_one_attempt_gets_one() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let one = Profile::new().retry(NoRetry).attempt_timeout(Duration::from_millis(900));
    let put = tokio::spawn(client.bucket("default").put("k", "v").profile(one).into_future());
    cluster.nodes[owners[0]].next_request().await;
    let error = put.await.expect("does not panic").expect_err("nobody answers");
    assert_eq!((error.outcome(), error.request().expect("was sent").attempts()), (Outcome::Unknown, 1));
    assert_eq!(cluster.nodes[owners[1]].calls_waiting() + cluster.nodes[owners[2]].calls_waiting(), 0);
}

#[tokio::test]
async fn what_is_final_elsewhere_waits_for_a_slow_node_and_not_for_a_silent_one() {
    let last = || Refusal::TooManySiblings { siblings: 64, bytes: 64 };
    for is_silent in [false, true] {
        let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
        let client = connect(&mut cluster).await;
        let owners = cluster.owners("default", "k");
        let put = put(&client, "k");
        let first = cluster.nodes[owners[0]].next_request().await;
        let second = cluster.nodes[owners[1]].next_request().await;
        if is_silent {
            second.refuse(last());
            let error = put.await.expect("does not panic").expect_err("refused");
            assert_eq!(error.refusal(), Some(&last()));
            assert_eq!(error.outcome(), Outcome::Unknown, "the silent node may carry it out");
        } else {
            sign_of_life(&mut cluster, &client, owners[0]).await;
            second.refuse(last());
            sign_of_life(&mut cluster, &client, owners[1]).await;
            answer_with(&first, 2);
            assert_eq!(stored(put).await, 2);
        }
    }
}

#[tokio::test]
async fn a_first_owner_that_is_far_slower_than_the_others_comes_after_them() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let fast = cluster.keys_of(owners[1]).next().expect("has some");
    for (key, node, time) in [("k", owners[0], 300), (&*fast, owners[1], 0)] {
        let put = put(&client, key);
        let received = cluster.nodes[node].next_request().await;
        tokio::time::sleep(Duration::from_millis(time)).await;
        received.stored();
        stored(put).await;
    }
    let put = put(&client, "k");
    cluster.nodes[owners[1]].next_request().await.stored();
    stored(put).await;

    // Of how long it takes for a put nothing follows for a get.
    let get = tokio::spawn(client.bucket("default").get("k").into_future());
    cluster.nodes[owners[0]].next_request().await.values(&["v"]);
    let read: Read = get.await.expect("does not panic").expect("answered");
    assert!(read.exists());
}

#[tokio::test]
async fn what_has_been_uploaded_is_not_sent_again_to_who_may_still_answer_it() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let short = Profile::new().attempt_timeout(Duration::from_millis(100)).timeout(Duration::from_secs(3));
    let large = client.bucket("default").put("k", vec![7; 1 << 20]).profile(short);
    let error = large.await.expect_err("nobody answers");
    let attempts = error.request().expect("was sent").attempts();
    assert!((1..=3).contains(&attempts), "each node at most once, and not {attempts} times");
    let uploads: Vec<_> = cluster.nodes.iter_mut().map(fake::Node::calls_waiting).collect();
    assert!(uploads.iter().all(|&uploads| uploads <= 1), "{uploads:?}");
}

#[tokio::test]
async fn an_answer_to_a_large_value_counts_after_the_time_of_a_small_attempt() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = connect(&mut cluster).await;
    let short = Profile::new().attempt_timeout(Duration::from_millis(50));
    let put = tokio::spawn(client.bucket("default").put("k", vec![7; 1 << 20]).profile(short).into_future());
    let received = cluster.nodes[0].next_request().await;
    // Later than an attempt may take; a repeated one would arrive meanwhile.
    tokio::time::sleep(Duration::from_millis(400)).await;
    received.stored();
    stored(put).await;
    assert_eq!(cluster.nodes[0].calls_waiting(), 0);
}

#[tokio::test]
async fn what_is_under_way_at_a_node_that_is_drained_meanwhile_is_waited_for() {
    let last = || Refusal::TooManySiblings { siblings: 64, bytes: 64 };
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = connect(&mut cluster).await;
    let owners = cluster.owners("default", "k");
    let waiting = put(&client, "k");
    let first = cluster.nodes[owners[0]].next_request().await;
    let second = cluster.nodes[owners[1]].next_request().await;
    sign_of_life(&mut cluster, &client, owners[0]).await;
    let other = cluster.keys_of(owners[0]).next().expect("has some");
    let passed_over = put(&client, &other);
    cluster.nodes[owners[0]].next_request().await.refuse(Refusal::Stopping);
    let [bob, cyd] = cluster.nodes.get_disjoint_mut([owners[1], owners[2]]).expect("are two");
    let received = tokio::select! {
        received = bob.next_request() => received,
        received = cyd.next_request() => received,
    };
    received.stored();
    stored(passed_over).await;
    second.refuse(last());
    sign_of_life(&mut cluster, &client, owners[1]).await;
    answer_with(&first, 2);
    assert_eq!(stored(waiting).await, 2);
}
