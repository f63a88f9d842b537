//! The verbs beside the blind put, against nodes that are played by the test: keys that are created, written over, and many at
//! once.

mod fake;

use driftless_client::{CreateError, DeleteEntry, GetError, Outcome, PutEntry, Refusal, WriteId};
use driftless_proto::client::{Basis, Deleted, Read, Request, Response, Stored};
use driftless_proto::{Failure, Unknown};
use fake::{Cluster, Received};

fn context_of(received: &Received) -> Option<&[u8]> {
    received.put().context.as_ref().map(|context| context.as_bytes())
}

fn unknown() -> Response {
    Response::Failed(Failure::Unknown(Unknown::Timeout { acks: 1, needed: 2 }))
}

#[tokio::test]
async fn a_key_is_created_if_there_is_none_and_left_as_it_is_if_there_is() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let carts = client.bucket("carts");
    let create = tokio::spawn(carts.create("k", "mine").into_future());
    cluster.nodes[0].next().await.values(&[]);
    let received = cluster.nodes[0].next().await;
    assert_eq!((received.put().value.as_ref(), context_of(&received)), (&b"mine"[..], None));
    received.stored();
    assert_eq!(create.await.expect("does not panic").expect("created").siblings(), 1);

    let create = tokio::spawn(carts.create("k", "mine too").into_future());
    cluster.nodes[0].next().await.values(&["mine"]);
    let error = create.await.expect("does not panic").expect_err("exists");
    assert_eq!((error.outcome(), error.write_id()), (Outcome::Refused, None));
    let CreateError::Exists { read } = error else { panic!("{error}") };
    assert_eq!(read.one().expect("one").expect("a value"), "mine");
    assert!(!cluster.nodes[0].has_been_asked(), "nothing was written");
}

#[tokio::test]
async fn a_key_that_was_deleted_is_created_over_its_tombstone() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let create = tokio::spawn(client.bucket("carts").create("k", "v").into_future());
    let context = Some(bytes::Bytes::from_static(b"a tombstone").into());
    cluster.nodes[0].next().await.answer(Response::Read(Read { context, ..fake::read(&[]) }));
    let received = cluster.nodes[0].next().await;
    assert_eq!(context_of(&received), Some(&b"a tombstone"[..]));
    received.stored();
    create.await.expect("does not panic").expect("created");
}

#[tokio::test]
async fn a_key_is_not_created_while_others_may_hold_a_value() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let create = tokio::spawn(client.bucket("carts").create("k", "v").into_future());
    let basis = Basis { needed: 2, primaries: 1 };
    cluster.nodes[0].next().await.answer(Response::Read(Read { basis, ..fake::read(&[]) }));
    let error = create.await.expect("does not panic").expect_err("nobody knows");
    assert!(matches!(error, CreateError::Get(GetError::NotCertain { .. })), "{error}");
    assert!(!cluster.nodes[0].has_been_asked(), "nothing was written");
}

#[tokio::test]
async fn a_create_whose_write_is_unknown_says_so_and_tells_its_id() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let id = WriteId::random();
    let create = client.bucket("carts").create("k", "v").write_id(id).retry(driftless_client::NoRetry);
    let create = tokio::spawn(create.into_future());
    cluster.nodes[0].next().await.values(&[]);
    let received = cluster.nodes[0].next().await;
    assert_eq!(received.put().write_id, id);
    received.answer(unknown());
    let error = create.await.expect("does not panic").expect_err("is unknown");
    assert_eq!((error.outcome(), error.write_id()), (Outcome::Unknown, Some(id)));
}

#[tokio::test]
async fn put_replacing_leaves_nothing_of_what_it_read() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let carts = client.bucket("carts");
    for (found, context) in [(&[][..], None), (&["x", "y"][..], Some(&b"x+y"[..]))] {
        let put = tokio::spawn(carts.put_replacing("k", "new").into_future());
        cluster.nodes[0].next().await.values(found);
        let received = cluster.nodes[0].next().await;
        assert_eq!((received.put().value.as_ref(), context_of(&received)), (&b"new"[..], context));
        received.stored();
        put.await.expect("does not panic").expect("stored");
    }
}

#[tokio::test]
async fn writes_over_one_key_through_one_client_take_turns() {
    const PUTS: usize = 4;
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let puts: Vec<_> =
        (0..PUTS).map(|_| tokio::spawn(client.bucket("carts").put_replacing("k", "v").into_future())).collect();
    for _ in 0..PUTS {
        let received = cluster.nodes[0].next().await;
        assert!(matches!(received.frame.request, Request::Get(_)), "{:?}", received.frame.request);
        received.values(&["v"]);
        cluster.nodes[0].next().await.stored();
    }
    for put in puts {
        put.await.expect("does not panic").expect("stored");
    }
}

#[tokio::test]
async fn many_puts_and_deletes_have_contexts_ids_and_results_of_their_own() {
    let mut cluster = Cluster::start(&["ada"]);
    let client = cluster.connect().await;
    let carts = client.bucket("carts");
    let get = tokio::spawn(carts.get("a").into_future());
    cluster.nodes[0].next().await.values(&["x", "y"]);
    let read = get.await.expect("does not panic").expect("answered");

    let entries = [
        PutEntry::new("a", "1").context(read.context()).write_id(WriteId(1)),
        PutEntry::new("b", "2").write_id(WriteId(2)),
        ("c", "3").into(),
    ];
    let puts = tokio::spawn(carts.multi_put(entries).into_future());
    for _ in 0..3 {
        let received = cluster.nodes[0].next().await;
        let (key, put) = (received.key().as_bytes().to_vec(), received.put());
        match &*key {
            b"a" => assert_eq!((context_of(&received), put.write_id), (Some(&b"x+y"[..]), WriteId(1))),
            b"b" => assert_eq!((context_of(&received), put.write_id), (None, WriteId(2))),
            _ => assert!(context_of(&received).is_none()),
        }
        match &*key {
            b"b" => received.refuse(Refusal::BadRequest("no".into())),
            _ => received.answer(Response::Stored(Stored {
                context: None,
                acks: 2,
                primaries: 2,
                siblings: if key == b"c" { 2 } else { 1 },
                live: true,
            })),
        }
    }
    let puts = puts.await.expect("does not panic");
    let keys: Vec<_> = puts.iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(keys, [&b"a"[..], b"b", b"c"]);
    let said: Vec<_> = puts.into_iter().map(|(_, put)| put.map(|stored| stored.siblings()).ok()).collect();
    assert_eq!(said, [Some(1), None, Some(2)]);

    let entries = [DeleteEntry::new("a").context(read.context()).write_id(WriteId(3)), "b".into()];
    let deletes = tokio::spawn(carts.multi_delete(entries).into_future());
    for _ in 0..2 {
        let received = cluster.nodes[0].next().await;
        let Request::Delete(delete) = &received.frame.request else { panic!("not a delete") };
        let is_first = delete.key.as_bytes() == b"a";
        assert_eq!((delete.context.is_some(), delete.write_id == WriteId(3)), (is_first, is_first));
        received.answer(Response::Deleted(Deleted {
            existed: is_first,
            acks: 2,
            primaries: 2,
            siblings: 0,
            basis: None,
        }));
    }
    let existed: Vec<_> =
        deletes.await.expect("does not panic").into_iter().map(|(_, d)| d.expect("ok").existed()).collect();
    assert_eq!(existed, [true, false]);

    let gone = tokio::spawn(carts.multi_delete(["a", "b"]).into_future());
    for _ in 0..2 {
        cluster.nodes[0].next().await.refuse(Refusal::BadRequest("no".into()));
    }
    assert!(gone.await.expect("does not panic").iter().all(|(_, deleted)| deleted.is_err()));
}
