//! Requests that cannot succeed, against nodes that are played by the test: what their errors tell.

mod fake;

use std::time::Duration;

use driftless_client::{
    Cause, Client, Decision, FailedAttempt, IoRuntime, NoRetry, Outcome, Profile, PutError, Refusal, RequestError,
    RetryAt, RetryPolicy, Stored,
};
use driftless_proto::client::Response;
use driftless_proto::{Failure, Unknown};
use fake::Cluster;

fn unknown() -> Response {
    Response::Failed(Failure::Unknown(Unknown::Timeout { acks: 1, needed: 2 }))
}

fn request(error: &PutError) -> &RequestError {
    error.request().expect("its arguments were in order")
}

type Putting = tokio::task::JoinHandle<Result<Stored, PutError>>;

fn put(client: &Client, key: &str) -> Putting {
    tokio::spawn(client.bucket("default").put(key, "v").into_future())
}

async fn failure(put: Putting) -> PutError {
    put.await.expect("does not panic").expect_err("cannot succeed")
}

#[tokio::test]
async fn a_closed_client_says_so_at_once() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.builder().in_flight_max(1).connect().await.expect("answers");
    let under_way = put(&client, "a");
    let received = cluster.nodes[0].next().await;
    // No room for this one; it waits.
    let waiting = put(&client, "b");
    tokio::task::yield_now().await;
    client.clone().close().await;

    let error = failure(under_way).await;
    assert!(matches!(request(&error).cause(), Cause::ClientClosed), "{error}");
    assert_eq!((error.outcome(), error.write_id()), (Outcome::Unknown, Some(received.put().write_id)));
    for put in [waiting, put(&client, "c")] {
        let error = failure(put).await;
        assert!(matches!(request(&error).cause(), Cause::ClientClosed), "{error}");
        assert_eq!((error.outcome(), request(&error).attempts()), (Outcome::Refused, 0));
        assert!(error.to_string().contains("closed"), "{error}");
    }
    let error = client.bucket("unheard of").put("k", "v").await.expect_err("is closed");
    assert!(matches!(request(&error).cause(), Cause::ClientClosed), "{error}");
    let error = client.refresh_topology().await.expect_err("is closed");
    assert!(matches!(error.request().expect("was in order").cause(), Cause::ClientClosed), "{error}");
}

#[test]
fn a_runtime_that_is_gone_is_named() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let (nodes, callers, later) = (runtime(), runtime(), runtime());
    let mut cluster = nodes.block_on(async { Cluster::start(&["ada", "bob", "cyd"]) });
    let owner = cluster.owners("default", "k")[0];
    let client = callers.block_on(cluster.builder().io_runtime(IoRuntime::Caller).connect()).expect("answers");
    // A connection is up, and a request is under way on it.
    let under_way = later.spawn(client.bucket("default").put("k", "v").into_future());
    nodes.block_on(cluster.nodes[owner].next());
    drop(callers);

    later.block_on(async {
        let error = failure(under_way).await;
        assert!(matches!(request(&error).cause(), Cause::RuntimeGone), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
        let error = client.bucket("default").put("k", "v").await.expect_err("nobody sends it");
        assert!(matches!(request(&error).cause(), Cause::RuntimeGone), "{error}");
        assert_eq!((error.outcome(), request(&error).attempts()), (Outcome::Refused, 0));
        assert!(error.to_string().contains("runtime"), "{error}");
    });
}

#[test]
fn a_client_outlives_the_runtime_that_made_it() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let (nodes, first, second) = (runtime(), runtime(), runtime());
    let mut cluster = nodes.block_on(async { Cluster::start(&["ada"]) });
    let client = first.block_on(cluster.builder().connect()).expect("answers");
    drop(first);
    let put = second.spawn(client.bucket("default").put("k", "v").into_future());
    nodes.block_on(cluster.nodes[0].next_request()).stored();
    second.block_on(put).expect("does not panic").expect("stored");
}

#[tokio::test]
async fn that_nobody_can_be_reached_is_said_and_why_of_each_attempt() {
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.builder().connect_timeout(Duration::from_millis(50)).connect().await.expect("answers");
    // All owners are connected to, and then they are gone.
    let first = put(&client, "k");
    let owner = cluster.owners("default", "k")[0];
    cluster.nodes[owner].next_request().await.stored();
    first.await.expect("does not panic").expect("stored");
    cluster.nodes.iter().for_each(fake::Node::stop);
    let error = client.bucket("default").put("k", "v").timeout(Duration::from_millis(800)).await.expect_err("nobody");
    let request = request(&error);
    assert!(request.nobody_answered(), "{error}");
    assert_eq!(request.causes().len(), request.attempts() as usize, "{:?}", request.causes());
    assert!(error.to_string().starts_with("nobody can be reached: "), "{error}");
    for node in ["ada", "bob", "cyd"] {
        assert!(error.to_string().contains(node), "{error}");
    }
}

/// Comes back when no time is left.
#[derive(Debug)]
struct TooLate;

const ALLOWED: Duration = Duration::from_millis(700);

impl RetryPolicy for TooLate {
    fn decide(&self, failed: &FailedAttempt<'_>) -> Decision {
        let after = ALLOWED.saturating_sub(failed.elapsed + Duration::from_millis(5));
        Decision::Retry { after, at: RetryAt::Next }
    }
}

#[tokio::test]
async fn no_attempt_is_begun_that_has_no_time_left() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let late = Profile::new().timeout(ALLOWED).retry(TooLate);
    let put = tokio::spawn(client.bucket("default").put("k", "v").profile(late).into_future());
    cluster.nodes[0].next().await.refuse(Refusal::Stopping);
    let error = failure(put).await;
    assert_eq!((error.refusal(), request(&error).attempts()), (Some(&Refusal::Stopping), 1), "{error}");
}

#[tokio::test]
async fn who_allows_no_time_is_told_that_nothing_was_sent() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let none = [Profile::new().timeout(Duration::ZERO), Profile::new().attempt_timeout(Duration::ZERO)];
    for profile in none {
        let error = client.bucket("default").put("k", "v").profile(profile).await.expect_err("there is no time");
        assert!(matches!(request(&error).cause(), Cause::OutOfTime { allowed: Duration::ZERO }), "{error}");
        assert_eq!((error.outcome(), request(&error).attempts()), (Outcome::Refused, 0));
        assert!(error.to_string().contains("nothing was sent"), "{error}");
    }
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn the_id_to_repeat_a_write_with_is_in_its_error() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default").with_profile(&Profile::new().retry(NoRetry));

    let put = tokio::spawn(bucket.put("k", "v").into_future());
    let received = cluster.nodes[0].next().await;
    received.answer(unknown());
    let error = failure(put).await;
    let id = received.put().write_id;
    assert_eq!(error.write_id(), Some(id));
    assert!(error.to_string().ends_with(&format!("or repeat it with the write id {id}")), "{error}");
    assert_eq!(id.to_string().parse(), Ok(id));

    let puts = tokio::spawn(bucket.multi_put([("a", "v"), ("b", "v")]).into_future());
    let received = [cluster.nodes[0].next().await, cluster.nodes[0].next().await];
    received.iter().for_each(|received| received.answer(unknown()));
    let mut sent = received.each_ref().map(|received| received.put().write_id);
    let told = puts.await.expect("does not panic").into_iter().map(|(_, put)| put.expect_err("is unknown").write_id());
    let mut told: Vec<_> = told.map(|id| id.expect("each is a write")).collect();
    sent.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, sent);

    let delete = tokio::spawn(bucket.delete("k").into_future());
    let received = cluster.nodes[0].next().await;
    received.answer(unknown());
    let error = delete.await.expect("does not panic").expect_err("is unknown");
    let driftless_proto::client::Request::Delete(sent) = &received.frame.request else { panic!("not a delete") };
    assert_eq!(error.write_id(), Some(sent.write_id));
}

#[tokio::test]
async fn a_missing_bucket_is_one_refusal_whoever_finds_it_missing() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let error = client.bucket("new").put("k", "v").await.expect_err("there is none");
    assert_eq!(error.refusal(), Some(&Refusal::NoSuchBucket));
    assert!(matches!(request(&error).cause(), Cause::NoSuchBucket(name) if name == "new"), "{error}");

    let put = put(&client, "k");
    cluster.nodes[0].next().await.refuse(Refusal::NoSuchBucket);
    let error = failure(put).await;
    assert_eq!(error.refusal(), Some(&Refusal::NoSuchBucket));
    assert!(matches!(request(&error).cause(), Cause::NoSuchBucket(name) if name == "default"), "{error}");
}

#[tokio::test]
async fn that_nobody_could_be_asked_for_a_bucket_does_not_mean_that_there_is_none() {
    let cluster = Cluster::start(&["ada", "bob"]);
    let client = cluster.connect().await;
    cluster.nodes.iter().for_each(fake::Node::stop);
    let error = client.bucket("new").put("k", "v").timeout(Duration::from_millis(200)).await.expect_err("nobody");
    assert!(request(&error).nobody_answered(), "{error}");
    assert_eq!(error.refusal(), None);
}
