//! Buckets of values of a type, against nodes that are played by the test.
#![cfg(feature = "json")]

mod fake;

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless_client::{
    Bucket, Change, Codec, CodecError, Conflict, CreateError, GetError, Json, Key, Outcome, Postcard, PutError,
    TryUpdateError, UpdateError,
};
use driftless_proto::client::{Deleted, Response, Stored};
use fake::Cluster;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Cart {
    items: BTreeSet<String>,
}

fn cart(items: &[&str]) -> Cart {
    Cart { items: items.iter().map(|&item| item.to_owned()).collect() }
}

fn stored(siblings: u32) -> Response {
    Response::Stored(Stored { context: None, acks: 2, primaries: 2, siblings, live: true })
}

async fn carts(cluster: &Cluster) -> Bucket {
    cluster.connect().await.bucket("carts")
}

#[tokio::test]
async fn values_are_encoded_when_written_and_decoded_when_read() {
    let mut cluster = Cluster::start(&["ada"]);
    let carts = carts(&cluster).await.typed::<Cart>(Json);
    let put = tokio::spawn(carts.put("k", &cart(&["pears"])).into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, r#"{"items":["pears"]}"#);
    received.stored();
    put.await.expect("does not panic").expect("stored");

    let get = tokio::spawn(carts.get("k").r(1).into_future());
    cluster.nodes[0].next().await.values(&[r#"{"items":["pears"]}"#]);
    let read = get.await.expect("does not panic").expect("decodes");
    assert_eq!(read.one(), Ok(Some(&cart(&["pears"]))));
    assert!(read.exists() && read.context().is_some());

    let get = tokio::spawn(carts.get("k").into_future());
    cluster.nodes[0].next().await.values(&[r#"{"items":["pears"]}"#, r#"{"items":[]}"#]);
    let read = get.await.expect("does not panic").expect("decodes");
    assert_eq!((read.one(), read.values().len()), (Err(Conflict { siblings: 2 }), 2));

    let create = tokio::spawn(carts.create("k", &cart(&[])).into_future());
    cluster.nodes[0].next().await.values(&[r#"{"items":["pears"]}"#]);
    let Err(CreateError::Exists { read }) = create.await.expect("does not panic") else { panic!("it exists") };
    let read = carts.decode(&Key::new("k").expect("valid"), *read).expect("decodes");
    assert_eq!(read.into_values(), [cart(&["pears"])]);
}

#[tokio::test]
async fn a_sibling_that_cannot_be_decoded_is_named_and_nothing_is_written_over_it() {
    let mut cluster = Cluster::start(&["ada"]);
    let carts = carts(&cluster).await.typed::<Cart>(Json);
    let get = tokio::spawn(carts.get("k").into_future());
    cluster.nodes[0].next().await.values(&[r#"{"items":[]}"#, r#""secret""#]);
    let error = get.await.expect("does not panic").expect_err("is text");
    let GetError::Decode(decode) = &error else { panic!("{error}") };
    assert_eq!((decode.key().as_bytes(), decode.number(), decode.siblings()), (&b"k"[..], 2, 2));
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

    let update = tokio::spawn(carts.update("k", |mut carts| carts.pop()).into_future());
    cluster.nodes[0].next().await.values(&[r#"{"items":[]}"#, r#""secret""#]);
    let error = update.await.expect("does not panic").expect_err("is text");
    assert!(matches!(error, UpdateError::Get(GetError::Decode(_))), "{error}");
    assert_eq!(error.outcome(), Outcome::Refused);
    assert!(!cluster.nodes[0].has_been_asked());
}

#[tokio::test]
async fn a_typed_update_is_shown_values_and_gives_one() {
    let mut cluster = Cluster::start(&["ada"]);
    let numbers = carts(&cluster).await.typed::<u32>(Json);
    let update = tokio::spawn(numbers.update("k", |seen: Vec<u32>| seen.iter().sum::<u32>() + 1).into_future());
    cluster.nodes[0].next().await.values(&["20", "21"]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, "42");
    received.answer(stored(1));
    let updated = update.await.expect("does not panic").expect("stored");
    assert_eq!((updated.value(), updated.siblings()), (Some(&42), 1));

    let update = tokio::spawn(numbers.update("k", |_| None).into_future());
    cluster.nodes[0].next().await.values(&["42"]);
    let removed = Deleted { existed: true, acks: 2, primaries: 2, siblings: 0, basis: None };
    cluster.nodes[0].next().await.answer(Response::Deleted(removed));
    assert_eq!(update.await.expect("does not panic").expect("removed").value(), None);

    let update = tokio::spawn(numbers.update("k", |_| Change::Keep).into_future());
    cluster.nodes[0].next().await.values(&["42"]);
    assert!(!update.await.expect("does not panic").expect("kept").written());

    let refuse = |seen: Vec<u32>| async move { seen.first().map(|one| one + 1).ok_or("there is none") };
    let update = tokio::spawn(numbers.try_update("k", refuse).into_future());
    cluster.nodes[0].next().await.values(&[]);
    let error = update.await.expect("does not panic").expect_err("there is none");
    assert!(matches!(error, TryUpdateError::Change { error: "there is none", .. }), "{error}");
}

#[tokio::test]
async fn a_resolving_bucket_shows_one_value_of_all_siblings() {
    let mut cluster = Cluster::start(&["ada"]);
    let sets = carts(&cluster).await.typed::<BTreeSet<u32>>(Json).resolving(|one, other| &one | &other);
    let get = tokio::spawn(sets.get("k").into_future());
    cluster.nodes[0].next().await.values(&["[1,2]", "[3]"]);
    let read = get.await.expect("does not panic").expect("merges");
    assert_eq!((read.value.clone(), read.siblings), (Some(BTreeSet::from([1, 2, 3])), 2));
    assert!(read.context().is_some());

    let add = |set: Option<BTreeSet<u32>>| set.unwrap_or_default().into_iter().chain([4]).collect::<BTreeSet<_>>();
    let update = tokio::spawn(sets.update("k", add).into_future());
    cluster.nodes[0].next().await.values(&["[1,2]", "[3]"]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, "[1,2,3,4]");
    received.answer(stored(1));
    update.await.expect("does not panic").expect("stored");

    let get = tokio::spawn(sets.get("k").into_future());
    cluster.nodes[0].next().await.values(&[]);
    assert_eq!(get.await.expect("does not panic").expect("nothing").value, None);
}

/// A codec of an application's own: text of a number, which has none above a hundred.
struct Percent;

impl Codec<u8> for Percent {
    fn encode(&self, value: &u8) -> Result<Bytes, CodecError> {
        if *value <= 100 { Ok(format!("{value}%").into()) } else { Err("more than all".into()) }
    }

    fn decode(&self, bytes: &Bytes) -> Result<u8, CodecError> {
        Ok(std::str::from_utf8(bytes)?.trim_end_matches('%').parse()?)
    }
}

#[tokio::test]
async fn what_cannot_be_encoded_is_not_sent() {
    let mut cluster = Cluster::start(&["ada"]);
    let percents = carts(&cluster).await.typed::<u8>(Percent);
    let error = percents.put("k", &101).await.expect_err("is no percentage");
    assert!(matches!(error, PutError::Encode(_)), "{error}");
    assert_eq!(
        (error.outcome(), error.to_string().as_str()),
        (Outcome::Refused, "a value of u8 cannot be encoded: more than all")
    );
    assert!(!cluster.nodes[0].has_been_asked());

    let put = tokio::spawn(percents.put_replacing("k", &7).into_future());
    cluster.nodes[0].next().await.values(&["6%"]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, "7%");
    received.stored();
    put.await.expect("does not panic").expect("stored");
}

#[tokio::test]
async fn many_values_have_results_of_their_own() {
    let mut cluster = Cluster::start(&["ada"]);
    let percents = carts(&cluster).await.typed::<u8>(Percent);
    let entries = [percents.entry("a", &7), percents.entry("b", &101)];
    let puts = tokio::spawn(percents.bucket().multi_put(entries).into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!((received.key().as_bytes(), received.put().value.as_ref()), (&b"a"[..], &b"7%"[..]));
    received.stored();
    let puts: Vec<_> = puts.await.expect("does not panic").into_iter().map(|(_, put)| put).collect();
    assert!(matches!(&puts[..], [Ok(_), Err(PutError::Encode(_))]), "{puts:?}");

    let gets = tokio::spawn(percents.multi_get(["a", "b"]).into_future());
    for _ in 0..2 {
        let received = cluster.nodes[0].next().await;
        received.values(if received.key().as_bytes() == b"a" { &["7%"] } else { &["all of it"] });
    }
    let gets: Vec<_> = gets.await.expect("does not panic").into_iter().map(|(_, read)| read).collect();
    assert!(matches!(&gets[..], [Ok(read), Err(GetError::Decode(_))] if read.values() == [7]), "{gets:?}");
}

#[tokio::test]
async fn postcard_is_a_codec() {
    let mut cluster = Cluster::start(&["ada"]);
    let pairs = carts(&cluster).await.typed::<(u8, String)>(Postcard);
    let put = tokio::spawn(pairs.put("k", &(7, "seven".into())).into_future());
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().value, &b"\x07\x05seven"[..]);
    received.stored();
    put.await.expect("does not panic").expect("stored");
}
