//! Updates, against nodes that are played by the test: what is written, when it is done, and what others leave behind.

mod fake;

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless_client::{Change, NoRetry, Outcome, Refusal, Sibling, TryUpdateError, UpdateError, WriteId};
use driftless_proto::client::{Deleted, Request, Response, Stored};
use driftless_proto::{Failure, Unknown};
use fake::Cluster;

fn stored(siblings: u32) -> Response {
    Response::Stored(Stored { context: None, acks: 2, primaries: 2, siblings, live: true })
}

fn full() -> Refusal {
    Refusal::TooManySiblings { siblings: 65, bytes: 65 }
}

#[tokio::test]
async fn an_update_replaces_what_it_read() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update =
        tokio::spawn(client.bucket("carts").update("k", |siblings| format!("{} seen", siblings.len())).into_future());
    cluster.nodes[0].next().await.values(&["x", "y"]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, "2 seen");
    assert_eq!(received.put().context.as_ref().map(|context| context.as_bytes()), Some(&b"x+y"[..]));
    received.answer(stored(1));
    let updated = update.await.expect("does not panic").expect("stored");
    assert_eq!((updated.rounds(), updated.siblings(), updated.written()), (1, 1, true));
    assert_eq!(updated.into_value().expect("is what was written"), "2 seen");
}

#[tokio::test]
async fn an_update_merges_what_came_between_and_ends() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = client.bucket("carts").update("k", |siblings| format!("{} seen", siblings.len())).rounds_max(3);
    let update = tokio::spawn(update.into_future());
    let mut ids = BTreeSet::new();
    let mut values = vec!["x".to_owned()];
    for round in 1..=3 {
        cluster.nodes[0].next().await.values(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let received = cluster.nodes[0].next().await;
        assert_eq!(received.put().value, format!("{round} seen"));
        ids.insert(received.put().write_id);
        // Somebody else writes every time.
        values = vec![format!("{round} seen"); 1].into_iter().chain(vec!["x".to_owned(); round]).collect();
        received.answer(stored(values.len() as u32));
    }
    let updated = update.await.expect("does not panic").expect("stored");
    assert_eq!((updated.rounds(), updated.siblings()), (3, 4));
    assert_eq!(ids.len(), 3, "each round is a write of its own");
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn an_update_leaves_the_rest_to_whoever_has_seen_its_change() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = tokio::spawn(client.bucket("carts").update("k", |_| "mine".to_owned()).into_future());
    cluster.nodes[0].next().await.values(&[]);
    cluster.nodes[0].next().await.answer(stored(2));
    // Another client has merged it with what was beside it; yet another has written since.
    cluster.nodes[0].next().await.values(&["mine and theirs", "yet another"]);
    let updated = update.await.expect("does not panic").expect("stored");
    assert_eq!((updated.rounds(), updated.siblings(), updated.written()), (1, 2, true));
    assert_eq!(updated.value().expect("is what it wrote"), "mine");
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn an_update_whose_change_is_stored_has_succeeded_whatever_follows() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    // Its round of tidying up fails at reading, then at writing.
    for reads in [false, true] {
        let update = tokio::spawn(client.bucket("carts").update("k", |_| "mine".to_owned()).into_future());
        cluster.nodes[0].next().await.values(&[]);
        cluster.nodes[0].next().await.answer(stored(2));
        let received = cluster.nodes[0].next().await;
        if reads {
            received.values(&["mine", "theirs"]);
            cluster.nodes[0].next().await.refuse(Refusal::BadRequest("no".into()));
        } else {
            received.refuse(Refusal::BadRequest("no".into()));
        }
        let updated = update.await.expect("does not panic").expect("the first round was acknowledged");
        assert_eq!((updated.siblings(), updated.written()), (2, true));
    }
}

#[tokio::test]
async fn an_update_that_may_have_written_in_an_earlier_round_is_unknown() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = tokio::spawn(client.bucket("carts").update("k", |_| "mine".to_owned()).into_future());
    cluster.nodes[0].next().await.values(&[]);
    let received = cluster.nodes[0].next().await;
    let id = received.put().write_id;
    received.answer(Response::Failed(Failure::Unknown(Unknown::Timeout { acks: 1, needed: 2 })));
    cluster.nodes[0].next().await.refuse(full());
    // The next round cannot even read.
    cluster.nodes[0].next().await.refuse(Refusal::BadRequest("no".into()));
    let error = update.await.expect("does not panic").expect_err("refused");
    assert!(matches!(error, UpdateError::Get(_)), "{error}");
    assert_eq!((error.outcome(), error.write_id()), (Outcome::Unknown, Some(id)));
    assert!(error.to_string().ends_with(&format!("with the write id {id}")), "{error}");
}

#[tokio::test]
async fn an_update_that_finds_the_key_full_is_let_in_when_there_is_room() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    // Nothing of it depends on how many rounds may be written.
    let update = tokio::spawn(client.bucket("carts").update("k", |_| "v".to_owned()).rounds_max(1).into_future());
    for _ in 0..9 {
        cluster.nodes[0].next_request().await.values(&[]);
        cluster.nodes[0].next_request().await.refuse(full());
    }
    cluster.nodes[0].next_request().await.values(&["x"]);
    cluster.nodes[0].next_request().await.answer(stored(1));
    assert_eq!(update.await.expect("does not panic").expect("stored").rounds(), 10);
}

#[tokio::test]
async fn an_update_of_a_key_that_stays_full_says_so_within_its_time() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = client.bucket("carts").update("k", |_| "v".to_owned());
    let mut update = tokio::spawn(update.timeout(std::time::Duration::from_millis(300)).into_future());
    let error = loop {
        tokio::select! {
            ended = &mut update => break ended.expect("does not panic").expect_err("never stored"),
            received = cluster.nodes[0].next_request() => match &received.frame.request {
                Request::Get(_) => received.values(&["x"]),
                _ => received.refuse(full()),
            },
        }
    };
    assert_eq!((error.refusal(), error.outcome()), (Some(&full()), Outcome::Refused));
}

#[tokio::test]
async fn updates_of_a_key_through_one_client_take_turns() {
    const UPDATES: usize = 8;
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let updates: Vec<_> = (0..UPDATES)
        .map(|_| tokio::spawn(client.bucket("carts").update("k", |_| "v".to_owned()).into_future()))
        .collect();
    for _ in 0..UPDATES {
        let received = cluster.nodes[0].next().await;
        assert!(matches!(received.frame.request, Request::Get(_)), "{:?}", received.frame.request);
        received.values(&["v"]);
        // A client that reads meanwhile would make a sibling.
        let received = cluster.nodes[0].next().await;
        assert_eq!(received.put().context.as_ref().map(|context| context.as_bytes()), Some(&b"v"[..]));
        received.answer(stored(1));
    }
    for update in updates {
        assert_eq!(update.await.expect("does not panic").expect("stored").rounds(), 1);
    }
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_turn_to_the_next() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = || tokio::spawn(client.bucket("carts").update("k", |_| "v".to_owned()).retry(NoRetry).into_future());
    let (first, second) = (update(), update());
    cluster.nodes[0].next().await.refuse(Refusal::Stopping);
    cluster.nodes[0].next().await.values(&[]);
    cluster.nodes[0].next().await.answer(stored(1));
    let ended = [first.await, second.await].map(|update| update.expect("does not panic").is_ok());
    assert_eq!(ended.iter().filter(|&&is_ok| is_ok).count(), 1);
}

#[tokio::test]
async fn an_update_can_remove_or_keep() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let update = tokio::spawn(client.bucket("carts").update("k", |_| None::<Bytes>).into_future());
    cluster.nodes[0].next().await.values(&["x"]);
    let received = cluster.nodes[0].next().await;
    assert!(matches!(&received.frame.request, Request::Delete(delete) if delete.context.is_some()));
    received.answer(Response::Deleted(Deleted { existed: true, acks: 2, primaries: 2, siblings: 0, basis: None }));
    assert!(update.await.expect("does not panic").expect("removed").written());

    for change in [Change::Keep, Change::Delete] {
        let update = tokio::spawn(client.bucket("carts").update("k", move |_| change.clone()).into_future());
        cluster.nodes[0].next().await.values(&[]);
        let updated = update.await.expect("does not panic").expect("nothing to do");
        assert_eq!((updated.written(), updated.value()), (false, None));
    }
}

#[tokio::test]
async fn an_update_may_wait_and_fail_and_then_nothing_is_written() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let answers = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let waited_for = std::sync::Arc::clone(&answers);
    let add_one = move |siblings: Vec<Sibling>| {
        let answers = std::sync::Arc::clone(&waited_for);
        async move {
            answers.acquire().await.expect("is never closed").forget();
            let number: u64 = std::str::from_utf8(&siblings[0].value).expect("is text").parse()?;
            Ok::<_, std::num::ParseIntError>((number + 1).to_string())
        }
    };
    let update = tokio::spawn(client.bucket("carts").try_update("k", add_one.clone()).into_future());
    cluster.nodes[0].next().await.values(&["41"]);
    answers.add_permits(1);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, "42");
    received.answer(stored(1));
    assert_eq!(update.await.expect("does not panic").expect("stored").value().expect("written"), "42");

    let update = tokio::spawn(client.bucket("carts").try_update("k", add_one).into_future());
    cluster.nodes[0].next().await.values(&["forty-two"]);
    answers.add_permits(1);
    let error = update.await.expect("does not panic").expect_err("is no number");
    assert!(matches!(error, TryUpdateError::Change { earlier: None, .. }), "{error}");
    assert_eq!((error.outcome(), error.write_id()), (Outcome::Refused, None));
    assert_eq!(error.to_string(), "the change failed: invalid digit found in string");
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn a_change_that_fails_when_tidying_up_does_not_make_the_update_fail() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let first_only = |siblings: Vec<Sibling>| async move {
        if siblings.is_empty() { Ok("mine") } else { Err("more than I can bear") }
    };
    let update = tokio::spawn(client.bucket("carts").try_update("k", first_only).into_future());
    cluster.nodes[0].next().await.values(&[]);
    cluster.nodes[0].next().await.answer(stored(2));
    cluster.nodes[0].next().await.values(&["mine", "theirs"]);
    let updated = update.await.expect("does not panic").expect("was stored in the first round");
    assert_eq!(updated.siblings(), 2);
    assert_eq!(updated.value().expect("written"), "mine");
}

#[tokio::test]
async fn a_change_that_never_ends_is_given_up_with_the_time_of_the_update() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let never = |_: Vec<Sibling>| std::future::pending::<Result<String, std::io::Error>>();
    let update = client.bucket("carts").try_update("k", never).timeout(std::time::Duration::from_millis(100));
    let update = tokio::spawn(update.into_future());
    cluster.nodes[0].next().await.values(&[]);
    let error = update.await.expect("does not panic").expect_err("never ends");
    assert!(matches!(error, TryUpdateError::Update(UpdateError::Get(_))), "{error}");
    assert_eq!(error.outcome(), Outcome::Refused);
}

#[tokio::test]
async fn an_update_writes_its_change_under_the_id_it_is_given_and_tidies_up_under_others() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let id = WriteId(7);
    let update = client.bucket("carts").update("k", |_| "mine").write_id(id);
    let update = tokio::spawn(update.into_future());
    for _ in 0..2 {
        cluster.nodes[0].next().await.values(&[]);
        let received = cluster.nodes[0].next().await;
        assert_eq!(received.put().write_id, id, "nothing was written under it yet");
        received.refuse(full());
    }
    cluster.nodes[0].next().await.values(&[]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().write_id, id);
    received.answer(stored(2));
    cluster.nodes[0].next().await.values(&["mine", "theirs"]);
    let received = cluster.nodes[0].next().await;
    assert_ne!(received.put().write_id, id);
    received.answer(stored(1));
    update.await.expect("does not panic").expect("stored");
}
