//! How a client gets to a cluster: later, again, by one of several addresses, and not outside of a runtime.

mod fake;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use driftless_client::{
    ArcIndex, Cause, Client, ConnectError, ConnectFailure, Environment, IoRuntime, Outcome, Profile,
};
use driftless_proto::ProtocolVersions;
use driftless_ring::{Member, Ring};
use fake::{Authority, Cluster, Node, SharedTopology};
use futures::future::BoxFuture;
use futures::stream::StreamExt as _;

/// A port that nothing listens on yet.
fn free_address() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.local_addr().expect("is bound")
}

/// A node at this address, and the topology of it alone.
fn start_at(authority: &Authority, address: SocketAddr) -> Node {
    let told = SharedTopology::default();
    let node = Node::start_at(authority, "node", "ada", Arc::clone(&told), address).expect("the port is free");
    let ring = Ring::first(fake::spec(vec![Member::new("ada", address.to_string())])).expect("a ring");
    *told.lock().expect("no test panics under the lock") = Some(fake::topology(ring, &["default", "carts"]));
    node
}

// ---- later

#[tokio::test]
async fn a_lazy_client_is_there_before_its_cluster_and_its_first_requests_wait_for_it() {
    let (authority, address) = (Authority::new(), free_address());
    let client = Client::builder()
        .seeds([address.to_string()])
        .identity(authority.client())
        .connect_timeout(Duration::from_millis(50))
        .connect_lazy()
        .expect("asks nobody");
    assert!(client.topology().is_none());
    assert!(format!("{client:?}").contains("None"), "{client:?}");
    let gets: Vec<_> = (0..3)
        .map(|_| tokio::spawn(client.bucket("carts").get("k").timeout(Duration::from_secs(20)).into_future()))
        .collect();
    let mut node = start_at(&authority, address);
    for get in gets {
        node.next().await.values(&["v"]);
        assert!(get.await.expect("does not panic").expect("answered").exists());
    }
    assert_eq!(client.topology().expect("was heard of").cluster(), "shop");
}

#[tokio::test]
async fn a_lazy_client_whose_cluster_does_not_come_says_so_within_the_requests_time() {
    let (authority, address) = (Authority::new(), free_address());
    let client = Client::builder()
        .seeds([address.to_string()])
        .identity(authority.client())
        .connect_timeout(Duration::from_millis(50))
        .connect_lazy()
        .expect("asks nobody");
    let error = client.bucket("carts").put("k", "v").timeout(Duration::from_millis(300)).await.expect_err("nobody");
    assert_eq!(error.outcome(), Outcome::Refused);
    let request = error.request().expect("was in order");
    assert!(matches!(request.cause(), Cause::NotConnected { .. }) && request.nobody_answered(), "{error}");
    client.clone().close().await;
    let error = client.bucket("carts").get("k").await.expect_err("is closed");
    assert!(matches!(error.request().expect("was in order").cause(), Cause::ClientClosed), "{error}");
}

/// Each request began anew to connect, and took what it had begun with it: where connecting took longer than a request may, no
/// request ever succeeded.
#[tokio::test]
async fn what_a_request_had_no_time_to_connect_is_there_for_the_next_one() {
    let mut cluster = Cluster::start(&["ada"]);
    let address = cluster.nodes[0].address;
    let (gate, asked) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (open, count) = (Arc::clone(&gate), Arc::clone(&asked));
    let resolve = move |_name: String| -> BoxFuture<'static, std::io::Result<Vec<std::net::SocketAddr>>> {
        let gate = Arc::clone(&gate);
        asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            gate.acquire().await.expect("is never closed").forget();
            Ok(vec![address])
        })
    };
    let client = cluster
        .builder()
        .environment(Environment { resolve: Arc::new(resolve), ..Environment::default() })
        .connect_timeout(Duration::from_secs(3600))
        .connect_lazy()
        .expect("asks nobody");
    let carts = client.bucket("carts");
    for _ in 0..3 {
        carts.get("k").timeout(Duration::from_millis(20)).await.expect_err("has no time");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "they wait for one connection");
    open.add_permits(10);
    let get = tokio::spawn(carts.get("k").timeout(Duration::from_secs(20)).into_future());
    cluster.nodes[0].next().await.values(&["v"]);
    assert!(get.await.expect("does not panic").expect("answered").exists());
}

#[tokio::test]
async fn a_lazy_client_that_the_cluster_will_not_have_is_told_at_once() {
    let cluster = Cluster::start(&["ada"]);
    let seeds = [cluster.nodes[0].address.to_string()];
    let client =
        Client::builder().seeds(seeds).identity(Authority::new().client()).connect_lazy().expect("asks nobody");
    let get = client.bucket("carts").get("k").timeout(Duration::from_secs(3600)).into_future();
    let error =
        tokio::time::timeout(Duration::from_secs(30), get).await.expect("does not wait").expect_err("is foreign");
    let cause = error.request().expect("was in order").cause().clone();
    assert!(matches!(cause, Cause::NotConnected { failure: ConnectFailure::Untrusted { .. }, .. }), "{cause}");
}

#[tokio::test]
async fn a_node_with_which_no_version_is_shared_is_named_with_who_is_to_be_updated() {
    let claim = |lowest: u16, highest: u16, tail: &[u8]| {
        let length = u32::try_from(4 + tail.len()).expect("is short");
        [&length.to_le_bytes()[..], &lowest.to_le_bytes(), &highest.to_le_bytes(), tail].concat()
    };
    let ours = ProtocolVersions::OURS;
    let (lowest, highest) = (ours.lowest().0, ours.highest().0);
    for (from, to, update) in [
        (lowest, highest + 1, None),
        (lowest - 1, highest, None),
        (0, u16::MAX, None),
        (highest + 1, highest + 2, Some("this client")),
        (u16::MAX, u16::MAX, Some("this client")),
        (0, lowest - 1, Some("ada")),
    ] {
        for tail in [&b""[..], b"what a node of tomorrow says besides"] {
            let authority = Authority::new();
            let told = SharedTopology::default();
            let (address, first) = (free_address(), claim(from, to, tail));
            let node = Node::start_saying(&authority, "node", "ada", Arc::clone(&told), address, first);
            let node = node.expect("the port is free");
            let ring = Ring::first(fake::spec(vec![Member::new("ada", address.to_string())])).expect("a ring");
            *told.lock().expect("no test panics under the lock") = Some(fake::topology(ring, &["default"]));
            let builder = Client::builder().seeds([address.to_string()]).identity(authority.client());
            let connected = builder.profile(Profile::new().timeout(Duration::from_secs(20))).connect().await;
            let Some(update) = update else {
                connected.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
                continue;
            };
            let spoken = ProtocolVersions::new(from, to).expect("a range");
            let said = format!("this client speaks protocol version {ours}, and ada {spoken}: update {update}");
            let error = connected.expect_err("they share none").to_string();
            assert!(error.contains(&said), "{error}");
            node.stop();
        }
    }
}

#[tokio::test]
async fn what_came_with_a_nodes_greeting_is_looked_at_although_nothing_follows() {
    let (authority, address) = (Authority::new(), free_address());
    let greeting = driftless_proto::greeting::encode(ProtocolVersions::OURS, &()).expect("is short");
    let first = [&greeting[..], &u32::MAX.to_le_bytes()].concat();
    let told = SharedTopology::default();
    let node = Node::start_saying(&authority, "node", "ada", told, address, first).expect("the port is free");
    let builder = Client::builder().seeds([address.to_string()]).identity(authority.client());
    let error = builder.profile(Profile::new().timeout(Duration::from_secs(5))).connect().await.expect_err("garbage");
    assert!(error.to_string().contains("the node broke the protocol"), "{error}");
    node.stop();
}

#[tokio::test]
async fn a_node_that_does_not_say_what_it_speaks_breaks_the_protocol() {
    for first in [vec![4, 0, 0, 0, 4, 0, 3, 0], vec![1, 0, 0, 0, 3], u32::MAX.to_le_bytes().to_vec()] {
        let (authority, address) = (Authority::new(), free_address());
        let told = SharedTopology::default();
        let node = Node::start_saying(&authority, "node", "ada", told, address, first).expect("the port is free");
        let builder = Client::builder().seeds([address.to_string()]).identity(authority.client());
        let error =
            builder.profile(Profile::new().timeout(Duration::from_secs(5))).connect().await.expect_err("it is no node");
        assert!(error.to_string().contains("the node broke the protocol"), "{error}");
        node.stop();
    }
}

#[tokio::test]
async fn a_scan_of_an_arc_finds_its_place_when_the_ring_is_known() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.builder().connect_lazy().expect("asks nobody");
    let scan = tokio::spawn(client.bucket("carts").scan().arc(ArcIndex(3)).keys().collect::<Vec<_>>());
    let received = cluster.nodes[0].next().await;
    let driftless_proto::client::Request::Scan(asked) = &received.frame.request else { panic!("not a scan") };
    assert_eq!((asked.arc, &asked.after), (ArcIndex(3), &None));
    received
        .answer(driftless_proto::client::Response::Page(driftless_proto::client::Page { keys: vec![], next: None }));
    assert!(scan.await.expect("does not panic").is_empty());
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn connecting_waits_for_the_cluster_if_it_is_told_to() {
    let (authority, address) = (Authority::new(), free_address());
    let builder = || {
        let builder = Client::builder().seeds([address.to_string()]).identity(authority.client());
        builder.connect_timeout(Duration::from_millis(50))
    };
    assert!(matches!(builder().connect().await, Err(ConnectError::NoSeedAnswered { failures }) if failures.len() == 1));
    let briefly = builder().wait_for_cluster(Duration::from_nanos(1)).connect().await;
    assert!(matches!(briefly, Err(ConnectError::NoSeedAnswered { failures }) if failures.len() == 1));
    let connecting = tokio::spawn(builder().wait_for_cluster(Duration::from_secs(30)).connect());
    tokio::task::yield_now().await;
    let _node = start_at(&authority, address);
    let client = connecting.await.expect("does not panic").expect("is there by now");
    assert_eq!(client.topology().expect("was heard of").cluster(), "shop");
}

#[tokio::test]
async fn the_buckets_that_there_are_now_are_told() {
    let cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    cluster.tell(&["default", "carts", "new"]);
    let buckets = client.buckets().await.expect("answered");
    let names: Vec<_> = buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(names, ["default", "carts", "new"]);
}

// ---- outside of a runtime

/// What a future comes to without a runtime that could make it go on.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits for what never comes"),
    }
}

#[test]
fn a_request_outside_of_a_runtime_is_an_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let cluster = runtime.block_on(async { Cluster::start(&["ada"]) });
    let connected = runtime.block_on(cluster.connect());
    let lazy = cluster.builder().connect_lazy().expect("needs no runtime");
    for bucket in [connected.bucket("carts"), lazy.bucket("carts")] {
        let error = at_once(bucket.put("k", "v").send()).expect_err("nobody keeps its time");
        assert!(matches!(error.request().expect("was in order").cause(), Cause::NoRuntime), "{error}");
        assert_eq!(error.outcome(), Outcome::Refused);
        let others = [
            at_once(bucket.update("k", |_| "v").send()).map(drop).map_err(|e| e.to_string()),
            at_once(bucket.create("k", "v").send()).map(drop).map_err(|e| e.to_string()),
            at_once(bucket.put_replacing("k", "v").send()).map(drop).map_err(|e| e.to_string()),
            at_once(bucket.get("k").send()).map(drop).map_err(|e| e.to_string()),
            at_once(bucket.scan().keys().next()).expect("one").map(drop).map_err(|e| e.to_string()),
        ];
        for other in others {
            let said = other.expect_err("nobody keeps its time");
            assert!(said.contains("tokio runtime"), "{said}");
        }
    }
    assert!(matches!(at_once(cluster.builder().connect()), Err(ConnectError::NoRuntime)));
    let on_caller = cluster.builder().io_runtime(IoRuntime::Caller).connect_lazy();
    assert!(matches!(on_caller, Err(ConnectError::NoRuntime)));
}

// ---- names with several addresses

/// An environment in which every name has these addresses now.
fn names_lead_to(addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Environment {
    let addresses = Arc::clone(addresses);
    let resolve = move |_: String| -> BoxFuture<'static, _> {
        let found = addresses.lock().expect("no test panics under the lock").clone();
        Box::pin(async move { Ok(found) })
    };
    Environment { resolve: Arc::new(resolve), ..Environment::default() }
}

#[tokio::test]
async fn a_silent_first_address_does_not_hide_the_node_at_the_second() {
    let (authority, silent) = (Authority::new(), std::net::UdpSocket::bind("127.0.0.1:0").expect("binds"));
    let address = free_address();
    let _node = start_at(&authority, address);
    let addresses = Arc::new(Mutex::new(vec![silent.local_addr().expect("is bound"), address]));
    let builder = Client::builder().seeds(["n1:7400"]).identity(authority.client());
    let client = builder.environment(names_lead_to(&addresses)).connect_timeout(Duration::from_secs(30)).connect();
    // The first one is still being waited for when the second has answered.
    tokio::time::timeout(Duration::from_secs(20), client).await.expect("is staggered").expect("one answers");
}

#[tokio::test]
async fn what_happened_at_each_address_of_a_name_is_in_the_error() {
    let authority = Authority::new();
    let addresses = [free_address(), free_address()];
    let shared = Arc::new(Mutex::new(addresses.to_vec()));
    let builder = Client::builder().seeds(["n1:7400"]).identity(authority.client());
    let builder = builder.environment(names_lead_to(&shared)).connect_timeout(Duration::from_millis(60));
    let error = builder.clone().connect().await.expect_err("nobody");
    for said in ["n1:7400".to_owned(), addresses[0].to_string(), addresses[1].to_string()] {
        assert!(error.to_string().contains(&said), "{error}");
    }
    shared.lock().expect("no test panics under the lock").clear();
    let error = builder.connect().await.expect_err("no address");
    assert!(error.to_string().contains("the name has no addresses"), "{error}");
}

#[tokio::test]
async fn a_name_is_resolved_anew_for_each_attempt() {
    let (authority, first, second) = (Authority::new(), free_address(), free_address());
    let addresses = Arc::new(Mutex::new(vec![first]));
    let builder = Client::builder().seeds(["n1:7400"]).identity(authority.client());
    let builder = builder.environment(names_lead_to(&addresses)).connect_timeout(Duration::from_millis(60));
    let client = builder.connect_lazy().expect("asks nobody");
    let get = client.bucket("carts").get("k").timeout(Duration::from_secs(20)).into_future();
    let get = tokio::spawn(get);
    let mut node = start_at(&authority, second);
    *addresses.lock().expect("no test panics under the lock") = vec![second];
    node.next().await.values(&["v"]);
    assert!(get.await.expect("does not panic").expect("the node has moved there").exists());
}

#[tokio::test]
async fn a_node_that_listens_on_one_address_of_its_name_is_found() {
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host("localhost:1").await.expect("every machine knows it").collect();
    let authority = Authority::new();
    for address in found {
        let mut free = free_address();
        free.set_ip(address.ip());
        let told = SharedTopology::default();
        // A machine may have the name for an address that it does not have.
        let Ok(node) = Node::start_at(&authority, "node", "ada", Arc::clone(&told), free) else { continue };
        let name = format!("localhost:{}", node.address.port());
        let ring = Ring::first(fake::spec(vec![Member::new("ada", &*name)])).expect("a ring");
        *told.lock().expect("no test panics under the lock") = Some(fake::topology(ring, &["default"]));
        let builder = Client::builder().seeds([name]).identity(authority.client());
        builder.connect().await.unwrap_or_else(|error| panic!("listens on {address} alone: {error}"));
    }
}
