//! What a certificate allows on a running node.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::path::Path;

use common::{CARTS, Cluster, TestClient, block_on, get, put};
use driftless_node::config::Access;
use driftless_node::node::NodeSettings;
use driftless_proto::client::{AaeCommand, DrainCommand, Get, GetState, MergeState, Request, Response, Restore, Scan};
use driftless_proto::membership::ClusterCommand;
use driftless_proto::observed::Profile;
use driftless_proto::top::TopCommand;
use driftless_proto::{BucketId, Failure, Key, Missing, Refusal, Role, Siblings, TraceContext};
use driftless_ring::ArcIndex;

/// One node with this access file.
fn node_with(access: &str) -> Cluster {
    node_with_settings(access, |_| ())
}

/// The same with other settings.
fn node_with_settings(access: &str, set: impl FnOnce(&mut NodeSettings)) -> Cluster {
    let mut cluster = Cluster::plan(&[2]);
    let mut settings = cluster.settings(0);
    set(&mut settings);
    settings.security.access = Access::parse(Path::new("access.toml"), access).expect("is fine");
    cluster.start_with(0, settings);
    cluster
}

fn recover() -> Request {
    Request::Cluster(ClusterCommand::Recover { lost: vec!["nobody".to_owned()], force: false })
}

fn restore(bucket: BucketId) -> Request {
    Request::Restore(Restore { bucket, key: Key::new("k").expect("valid"), accept_loss: true })
}

fn get_state(key: &'static str) -> Request {
    let (bucket, key) = (BucketId::DEFAULT, Key::new(key).expect("valid"));
    Request::GetState(GetState { bucket, key, r: None, shown: Vec::new() })
}

fn merge_state(key: &'static str) -> Request {
    let (bucket, key) = (BucketId::DEFAULT, Key::new(key).expect("valid"));
    Request::MergeState(MergeState { bucket, key, state: Siblings::new(), w: None })
}

fn scan(bucket: BucketId) -> Request {
    Request::Scan(Scan {
        bucket,
        arc: ArcIndex(0),
        after: None,
        limit: 10,
        r: None,
        prefix: bytes::Bytes::new(),
        ring_version: 1,
    })
}

fn get_of(bucket: BucketId) -> Request {
    match get("k") {
        Request::Get(get) => Request::Get(Get { bucket, ..get }),
        _ => unreachable!("get makes a get"),
    }
}

async fn assert_allowed(client: &mut TestClient, request: Request) {
    let response = client.ask(request.clone()).await;
    assert!(
        !matches!(response, Response::Failed(Failure::Refused(Refusal::NotAllowed { .. }))),
        "{request:?}: {response:?}"
    );
}

async fn assert_refused(client: &mut TestClient, request: Request, needs: Role, lacks: Missing) {
    match client.ask(request.clone()).await {
        Response::Failed(Failure::Refused(Refusal::NotAllowed { needed, missing, .. })) => {
            assert_eq!((needed, missing), (needs, lacks), "{request:?}");
        }
        other => panic!("{request:?}: {other:?}"),
    }
}

#[test]
fn each_role_may_do_what_it_is_for_and_no_more() {
    let cluster = node_with("# nobody");
    let pause = || Request::Aae(AaeCommand::Pause);
    let reads = || {
        let looks = [Request::Topology, Request::Status, Request::Hints, Request::Figures, Request::Damaged];
        looks
            .into_iter()
            .chain([get("k"), get_state("k"), scan(BucketId::DEFAULT)])
            .chain([Request::Aae(AaeCommand::Status), Request::Drain(DrainCommand::Status)])
    };
    block_on(async {
        for (role, held) in [
            (Some(Role::Reader), Role::Reader),
            (None, Role::Writer),
            (Some(Role::Writer), Role::Writer),
            (Some(Role::Operator), Role::Operator),
        ] {
            let mut client = cluster.client_as(0, "somebody", role).await;
            for request in reads() {
                assert_allowed(&mut client, request).await;
            }
            let takes = [
                (put("k", "v", None), Role::Writer),
                (pause(), Role::Operator),
                (Request::Aae(AaeCommand::Run { partition: None }), Role::Operator),
                (Request::Aae(AaeCommand::Resume), Role::Operator),
                (Request::Top(TopCommand { bucket: None, most: 5 }), Role::Operator),
                (Request::Drain(DrainCommand::Begin), Role::Operator),
                (Request::Drain(DrainCommand::Undo), Role::Operator),
                (restore(BucketId::DEFAULT), Role::Operator),
                (merge_state("k"), Role::Operator),
                (recover(), Role::Operator),
            ];
            for (request, needed) in takes {
                if held >= needed {
                    assert_allowed(&mut client, request).await;
                } else {
                    assert_refused(&mut client, request, needed, Missing::Role).await;
                }
            }
        }
        // The refusal names who, what they are and what it takes.
        let mut reader = cluster.client_as(0, "web", Some(Role::Reader)).await;
        let Response::Failed(failure) = reader.ask(put("k", "v", None)).await else { panic!("it is refused") };
        let expected = "driftless://test/client/web/reader has the role reader, and this takes the role writer";
        assert!(failure.to_string().contains(expected), "{failure}");
        assert!(cluster.node(0).metrics().requests_not_allowed.get() > 0);
    });
    cluster.stop();
}

#[test]
fn a_role_for_some_buckets_is_none_in_the_others_nor_for_the_whole_node() {
    let cluster = node_with(
        "default = \"none\"\n[[client]]\nname = \"shop\"\nrole = \"operator\"\nbuckets = [\"carts\"]\n\
         [[client]]\nname = \"look\"\nrole = \"reader\"\nbuckets = []\n",
    );
    block_on(async {
        // What the file says is stronger than what the certificate says.
        let mut shop = cluster.client_as(0, "shop", Some(Role::Reader)).await;
        for request in [get_of(CARTS), scan(CARTS), restore(CARTS), Request::Topology, Request::Damaged] {
            assert_allowed(&mut shop, request).await;
        }
        let default = || Missing::Bucket("default".to_owned());
        assert_refused(&mut shop, get_of(BucketId::DEFAULT), Role::Reader, default()).await;
        assert_refused(&mut shop, scan(BucketId::DEFAULT), Role::Reader, default()).await;
        assert_refused(&mut shop, put("k", "v", None), Role::Writer, default()).await;
        assert_refused(&mut shop, restore(BucketId::DEFAULT), Role::Operator, default()).await;
        assert_refused(&mut shop, Request::Aae(AaeCommand::Pause), Role::Operator, Missing::Buckets).await;
        let unknown = shop.ask(get_of(BucketId(99))).await;
        assert!(matches!(unknown, Response::Failed(Failure::Refused(Refusal::NoSuchBucket))), "{unknown:?}");

        let mut look = cluster.client_as(0, "look", None).await;
        assert_allowed(&mut look, Request::Status).await;
        assert_refused(&mut look, get_of(CARTS), Role::Reader, Missing::Bucket("carts".to_owned())).await;

        let mut nobody = cluster.client_as(0, "nobody", None).await;
        assert_refused(&mut nobody, Request::Topology, Role::Reader, Missing::Role).await;
    });
    cluster.stop();
}

#[test]
fn what_is_refused_takes_nothing_of_what_may_be_recorded() {
    let cluster = node_with_settings("# nobody", |settings| settings.net.traces_per_second = 1_000_000);
    let trace = TraceContext { trace_id: [0x5e; 16], parent_id: [1; 8], sampled: true };
    let traced = || put("k", "v", None).observed(Profile { explain: false, trace: Some(trace) });
    let recorded = || cluster.node(0).metrics().traces.get();
    block_on(async {
        let mut reader = cluster.client_as(0, "reader", Some(Role::Reader)).await;
        assert_refused(&mut reader, traced(), Role::Writer, Missing::Role).await;
        assert_eq!(recorded(), 0);
        let mut writer = cluster.client_as(0, "writer", Some(Role::Writer)).await;
        assert_allowed(&mut writer, traced()).await;
        assert_eq!(recorded(), 1);
    });
    cluster.stop();
}
