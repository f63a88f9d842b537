//! Data directories and the clocks they were made by, on real threads, sockets and files.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Cluster, block_on, eventually, put, soon};
use driftless_node::store::directory::{DataDirectory, Identity};
use driftless_proto::client::Response;

/// The data directory of node `b`, as of a start at which the clock showed this.
fn directory(cluster: &Cluster, path: &Path, clock_s: u64) -> DataDirectory {
    let mut opened = None;
    // A process that has just ended holds its lock for a moment more.
    eventually("the directory is free", || {
        let identity = Identity {
            cluster: cluster.topology.cluster().to_owned(),
            node: "b".to_owned(),
            created: "then".to_owned(),
            created_s: clock_s,
            nonce: clock_s ^ 0x5eed,
        };
        opened = DataDirectory::open(path, &identity).ok();
        opened.is_some()
    });
    opened.expect("was opened")
}

/// Starts node `b`; with which life.
fn start(cluster: &mut Cluster, path: &Path, clock_s: u64) -> u64 {
    let directory = directory(cluster, path, clock_s);
    let mut settings = cluster.settings(B);
    settings.incarnation = directory.incarnation();
    settings.lives = Some(Arc::new(directory));
    let starts = settings.incarnation.starts;
    cluster.start_with(B, settings);
    starts
}

/// Its life as it is written down.
fn life(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path.join("identity.json")).expect("is there");
    let file: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
    ["created_s", "raised_by", "starts"].iter().map(|part| file[part].as_u64().expect("a number")).sum()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// Peers took the new directory for an older copy, until real time had caught up with the clock of its predecessor.
#[test]
fn a_node_whose_clock_was_ahead_once_comes_back_with_a_new_directory() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster::plan(&[1, 2, 3]);
        cluster.start_node(0);
        cluster.start_node(2);
        let ahead = start(&mut cluster, &folder.path().join("ahead"), NOW_S + DAY_S);
        cluster.wait_connected();
        cluster.stop_node(B);
        cluster.lose_disk(B);

        // Another of its peers has forgotten all that, and admits whatever comes: that binds nobody else.
        cluster.stop_node(2);
        cluster.start_node(2);
        let path = folder.path().join("anew");
        let behind = start(&mut cluster, &path, NOW_S);
        assert!(behind < ahead);
        cluster.wait_connected();
        assert!(life(&path) > ahead, "it has gone on above what it was told, and written it down");
        let mut client = cluster.client(0).await;
        let answer = client.ask(put("key", "value", None)).await;
        assert!(matches!(answer, Response::Stored(_)), "{answer:?}");

        // And goes on from there.
        cluster.stop_node(B);
        let again = start(&mut cluster, &path, NOW_S);
        assert!(again > ahead + 1);
        cluster.wait_connected();
        cluster.stop();
    });
}

#[test]
fn an_older_copy_of_a_directory_stays_outside() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster::plan(&[1, 2, 3]);
        cluster.start_node(0);
        cluster.start_node(2);
        let (path, backup) = (folder.path().join("data"), folder.path().join("backup"));
        start(&mut cluster, &path, NOW_S);
        cluster.wait_connected();
        cluster.stop_node(B);
        copy(&path, &backup);
        for _ in 0..2 {
            start(&mut cluster, &path, NOW_S);
            cluster.wait_connected();
            cluster.stop_node(B);
        }
        start(&mut cluster, &backup, NOW_S);
        let refused = |node: usize| cluster.node(node).metrics().connections_refused.get();
        soon("both turn it away, again and again", || refused(0) >= 3 && refused(2) >= 3).await;
        let is_alone =
            |node: usize| cluster.node(node).status().peers.iter().any(|peer| peer.name == "b" && !peer.connected);
        assert!(is_alone(0) && is_alone(2));
        assert!(life(&backup) < life(&path), "it has not raised itself");
        cluster.stop();
    });
}

/// What is the matter with node `b` by this name, and whether it is ready.
fn matter(cluster: &Cluster, name: &str) -> (bool, bool) {
    let status = cluster.node(B).status();
    (status.conditions.iter().any(|condition| condition.name == name), status.is_ready())
}

/// A node without its data was ready, and all was said to be well.
#[test]
fn a_node_that_lost_its_disk_is_not_ready_until_it_holds_what_the_others_do_also_after_a_restart() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster::plan(&[1, 2, 3]);
        cluster.start_node(0);
        cluster.start_node(2);
        start(&mut cluster, &folder.path().join("first"), NOW_S);
        cluster.wait_connected();
        soon("a new cluster is whole", || matter(&cluster, "not_compared") == (false, true)).await;
        assert!(!matter(&cluster, "refilling").0);
        cluster.stop_node(B);
        cluster.lose_disk(B);

        let path = folder.path().join("second");
        let filling = || {
            let text = std::fs::read_to_string(path.join("identity.json")).expect("is there");
            serde_json::from_str::<serde_json::Value>(&text).expect("is JSON")["filling"].clone()
        };
        // Without another owner it cannot become whole.
        cluster.stop_node(2);
        start(&mut cluster, &path, NOW_S + 1_000);
        soon("it says so", || matter(&cluster, "refilling") == (true, false)).await;
        assert_eq!(filling(), "lost");
        cluster.stop_node(B);
        start(&mut cluster, &path, NOW_S + 1_000);
        soon("and after a restart, when nobody knows more of it", || matter(&cluster, "refilling") == (true, false))
            .await;
        cluster.start_node(2);
        soon("it is whole", || matter(&cluster, "refilling") == (false, true)).await;
        assert!(filling().is_null());
        cluster.stop();
    });
}

/// Nobody remembers the life before: all processes were started anew.
#[test]
fn a_node_that_is_empty_where_others_hold_keys_is_not_ready_though_nobody_knew_it_before() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster::plan(&[1, 1, 1]);
        cluster.start_node(0);
        cluster.start_node(2);
        soon("two have found each other", || [0, 2].iter().all(|node| cluster.node(*node).status().is_ready())).await;
        let mut client = cluster.client(0).await;
        for number in 0..4_000 {
            let answer = client.ask(put(&format!("key {number}"), "value", None)).await;
            assert!(matches!(answer, Response::Stored(_)), "{answer:?}");
        }
        drop(client);
        start(&mut cluster, &folder.path().join("data"), NOW_S);
        soon("it says so", || matter(&cluster, "refilling") == (true, false)).await;
        soon("it is whole", || matter(&cluster, "refilling") == (false, true)).await;
        cluster.stop();
    });
}

const B: usize = 1;
const DAY_S: u64 = 86_400;
const NOW_S: u64 = 1_700_000_000;
