//! What the client makes of explanations, and of nodes that cannot give any.

mod fake;

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use driftless_client::{Cause, Client, ConnectFailure, Fate, Outcome, Profile, TopCommand};
use driftless_proto::client::{ReadExplanation, ReplicaAnswer, Request, Response, Stored};
use driftless_proto::observed::{Explanation, Observed, ObservedRequest};
use driftless_proto::{ProtocolVersions, Refusal, greeting};
use driftless_ring::{Member, Ring};
use fake::{Authority, Cluster, Node, Received, SharedTopology};

fn is_explained_put(received: &Received) -> bool {
    matches!(
        &received.frame.request,
        Request::Observed(Observed { profile, request: ObservedRequest::Put(_) }) if profile.explain
    )
}

fn stored() -> Response {
    Response::Stored(Stored { context: None, acks: 2, primaries: 2, siblings: 1, live: true })
}

/// A node that speaks protocol versions 2 to 3.
async fn older() -> (Node, Client) {
    let (authority, told) = (Authority::new(), SharedTopology::default());
    let address = "127.0.0.1:0".parse().expect("an address");
    let older = ProtocolVersions::new(2, 3).expect("a range");
    let said = greeting::encode(older, &()).expect("is short");
    let node = Node::start_saying(&authority, "node", "ada", Arc::clone(&told), address, said).expect("a port");
    let address = node.address;
    let ring = Ring::first(fake::spec(vec![Member::new("ada", address.to_string())])).expect("a ring");
    *told.lock().expect("no test panics under the lock") = Some(fake::topology(ring, &["default"]));
    let builder = Client::builder().seeds([address.to_string()]).identity(authority.client());
    let brief = Profile::new().timeout(Duration::from_secs(2));
    (node, builder.profile(brief).connect().await.expect("they share version 3"))
}

#[tokio::test]
async fn a_put_that_an_older_node_could_not_explain_is_refused_before_anything_is_sent() {
    let (mut node, client) = older().await;
    let error = client.bucket("default").put("k", "v").explain().await.expect_err("it cannot be explained");
    assert_eq!(error.outcome(), Outcome::Refused);
    assert!(error.to_string().contains("nothing was written; update ada, or ask without an explanation"), "{error}");
    let put = tokio::spawn(client.bucket("default").put("k", "v").into_future());
    let first = node.next().await;
    assert!(matches!(first.frame.request, Request::Put(_)), "nothing came before the plain one: {:?}", first.frame);
    first.answer(stored());
    put.await.expect("does not panic").expect("is stored");
}

#[tokio::test]
async fn a_get_is_explained_by_an_older_node_in_its_own_words() {
    let (mut node, client) = older().await;
    let get = tokio::spawn(client.bucket("default").get("k").explain().into_future());
    let received = node.next().await;
    assert!(matches!(&received.frame.request, Request::Get(get) if get.explain), "{:?}", received.frame.request);
    let replicas = vec![ReplicaAnswer {
        node: "ada".into(),
        stands_in_for: None,
        state: Some("never seen".into()),
        latency_us: Some(3),
        counted: true,
        repaired: false,
    }];
    let explanation =
        ReadExplanation { coordinator: "ada".into(), ring_version: 1, partition: "n1/5".into(), r: 1, replicas };
    received
        .answer(Response::Read(driftless_proto::client::Read { explanation: Some(explanation), ..fake::read(&["v"]) }));
    let read = get.await.expect("does not panic").expect("is found");
    let told = read.explanation().and_then(|told| told.read.as_ref()).expect("it is explained");
    assert_eq!((told.needed, told.counted, &told.replicas[0].fate), (1, 1, &Fate::Read("never seen".into())));
}

/// It would take the question for a broken frame, and end the connection.
#[tokio::test]
async fn a_node_of_an_older_release_is_not_asked_for_its_hot_keys_and_goes_on() {
    let (mut node, client) = older().await;
    let error = client.top("ada", &TopCommand { bucket: None, most: 5 }).await.expect_err("it counts none");
    let cause = error.request().expect("it is about a request").cause();
    assert!(
        matches!(cause, Cause::NotConnected { failure: ConnectFailure::Protocol { .. }, .. }),
        "`driftless top` goes by it: {cause:?}"
    );
    assert!(error.to_string().contains("takes protocol version 4, and ada speaks 3: update ada"), "{error}");
    let status = tokio::spawn(async move { client.status("ada").await });
    let first = node.next().await;
    assert!(matches!(first.frame.request, Request::Status), "nothing came before: {:?}", first.frame.request);
    first.status();
    status.await.expect("does not panic").expect("on the same connection");
}

#[tokio::test]
async fn what_was_tried_before_is_told_and_a_failure_has_its_explanation() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").explain().into_future());
    let first = cluster.nodes[0].next().await;
    assert!(is_explained_put(&first));
    first.refuse(Refusal::Overloaded { retry_after_ms: 1 });
    let again = cluster.nodes[0].next().await;
    assert!(is_explained_put(&again));
    again.answer(stored().explained(Explanation::by("ada".into(), 1)));
    let done = put.await.expect("does not panic").expect("is stored");
    assert_eq!(done.explanation().map(|told| told.coordinator.as_str()), Some("ada"));
    assert_eq!(done.tried().iter().map(|tried| tried.node.as_str()).collect::<Vec<_>>(), ["ada"]);
    assert!(done.tried()[0].why.contains("overloaded"), "{:?}", done.tried());

    let put = tokio::spawn(client.bucket("default").put("k", "v").explain().into_future());
    let received = cluster.nodes[0].next().await;
    let failed = Response::Failed(Refusal::WriteIdReused.into());
    received.answer(failed.explained(Explanation::by("ada".into(), 7)));
    let error = put.await.expect("does not panic").expect_err("is refused");
    let told = error.request().and_then(|error| error.explanation()).expect("it is explained");
    assert_eq!((error.refusal(), told.ring_version), (Some(&Refusal::WriteIdReused), 7));
}

#[tokio::test]
async fn what_is_explained_is_not_told_as_tried_besides_and_a_later_failure_that_is_not_explained_is() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let put = tokio::spawn(client.bucket("default").put("k", "v").explain().into_future());
    let failed = Response::Failed(Refusal::Overloaded { retry_after_ms: 1 }.into());
    cluster.nodes[0].next().await.answer(failed.explained(Explanation::by("ada".into(), 7)));
    cluster.nodes[0].next().await.refuse(Refusal::WriteIdReused);
    let error = put.await.expect("does not panic").expect_err("is refused");
    let error = error.request().expect("it was asked");
    assert_eq!(error.explanation().map(|told| told.ring_version), Some(7));
    let [tried] = error.tried() else { panic!("one besides: {:?}", error.tried()) };
    assert!(tried.why.contains("write id"), "{tried:?}");
}
