//! Each node in turn is drained, stopped and started again, as docs/operations.md says, while clients write and read: none of them sees
//! an error, and nothing that was acknowledged is missing at the end.

mod cluster_support;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster_support::{Dev, fetch, signal, text, wait};
use driftless_client::{Bucket, Client, Identity};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Clients that write a key, read it, and take the next one, until they are told to stop.
struct Load {
    client: Client,
    /// How many keys each has written.
    tasks: JoinSet<(u64, u64)>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Keys written and read.
    done: AtomicU64,
    moved: Notify,
    is_over: AtomicBool,
}

fn key(worker: u64, number: u64) -> String {
    format!("{worker}/{number}")
}

/// What an application sees: an error that the client has not cured by itself fails the test.
async fn write(bucket: &Bucket, key: &str) {
    let put = bucket.put(key, key.to_owned()).sloppy(false).await;
    let _ = put.unwrap_or_else(|error| panic!("put {key}: {error}"));
}

async fn read(bucket: &Bucket, key: &str) {
    let read = bucket.get(key).sloppy(false).await.unwrap_or_else(|error| panic!("get {key}: {error}"));
    assert!(read.values().eq([key]), "{key} was acknowledged, and is {read:?}");
}

impl Load {
    async fn start(dev: &Dev) -> Load {
        let file = |name: &str| dev.cluster().join(name);
        let identity = Identity::from_pem_files(file("ca.pem"), file("client.pem"), file("client.key"));
        let builder = Client::builder().seeds(dev.endpoints()).identity(identity.expect("dev has made it"));
        let client = builder.connect().await.expect("the cluster runs");
        let (mut tasks, progress) = (JoinSet::new(), Arc::<Progress>::default());
        for worker in 0..WORKERS {
            let (bucket, progress) = (client.bucket("default"), progress.clone());
            tasks.spawn(async move {
                let mut number = 0;
                while !progress.is_over.load(Ordering::SeqCst) {
                    let key = key(worker, number);
                    write(&bucket, &key).await;
                    read(&bucket, &key).await;
                    number += 1;
                    progress.done.fetch_add(1, Ordering::SeqCst);
                    progress.moved.notify_one();
                }
                (worker, number)
            });
        }
        Load { client, tasks, progress }
    }

    /// Lets so many more keys be written and read.
    async fn go_on(&mut self, what: &str) {
        let until = self.progress.done.load(Ordering::SeqCst) + KEYS;
        while self.progress.done.load(Ordering::SeqCst) < until {
            tokio::select! {
                ended = self.tasks.join_next() => panic!("while {what}: {ended:?}"),
                () = self.progress.moved.notified() => {}
            }
        }
    }

    /// Stops it, and reads everything once more.
    async fn end(self) {
        self.progress.is_over.store(true, Ordering::SeqCst);
        let bucket = self.client.bucket("default");
        for (worker, written) in self.tasks.join_all().await {
            for number in 0..written {
                read(&bucket, &key(worker, number)).await;
            }
        }
    }
}

/// What `/ready` says: the status line, and the rest.
fn ready(dev: &Dev, name: &str) -> (String, String) {
    let node = dev.nodes().into_iter().find(|node| text(node, "name") == name).expect("is a node");
    let answer = fetch(&text(&node, "admin"), "ready").unwrap_or_default();
    let (status, rest) = answer.split_once("\r\n").unwrap_or((&answer, ""));
    (status.to_owned(), rest.to_owned())
}

fn is_ready(dev: &Dev, name: &str) -> bool {
    ready(dev, name).0.contains("200")
}

/// The kinds of what `status` says is the matter with a node.
fn conditions(dev: &Dev, name: &str) -> Vec<String> {
    let status = dev.json(&["status"]);
    let nodes = status["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == json!(name)).expect("is a member");
    let conditions = node["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().map(|condition| text(condition, "name")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_restarted_in_turn_and_no_client_notices() {
    let dev = Dev::start();
    let mut load = Load::start(&dev).await;
    let mut started = Vec::new();
    for name in ["n1", "n2", "n3"] {
        load.go_on("all nodes run").await;

        let drained = dev.json(&["drain", name, "--wait"]);
        assert_eq!((&drained["node"], &drained["draining"]), (&json!(name), &json!(true)));
        assert_eq!(drained["under_way"], json!(0));
        dev.eventually("status says so", || conditions(&dev, name).contains(&"draining".to_owned()));
        let (status, said) = ready(&dev, name);
        assert!(status.contains("503") && said.contains("an operator drains this node"), "{status} {said}");
        load.go_on("a node is drained").await;

        dev.stop(name);
        load.go_on("a node is stopped").await;

        started.push(dev.serve(name));
        dev.eventually("it is ready, and the others have it back", || {
            is_ready(&dev, name) && dev.run(&["status", "--check"]).code == Some(0)
        });
        assert!(!conditions(&dev, name).contains(&"draining".to_owned()), "a started node is not drained");
    }
    load.go_on("all nodes have been restarted").await;
    load.end().await;
    for mut child in started {
        signal(child.id(), Signal::TERM);
        let status = wait(&mut child, Duration::from_secs(30)).expect("stops when asked to");
        assert!(status.success(), "{status}");
    }
}

/// As docs/operations.md says under "Upgrading": nodes of the release before are restarted with this one, in turn, under load. Until the last
/// of them is, what only this release understands is refused; then it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_the_release_before_is_upgraded_node_by_node_and_no_client_notices() {
    let Some(before) = std::env::var_os(RELEASE_BEFORE).map(PathBuf::from) else {
        let why = format!("{RELEASE_BEFORE} names no `driftless` of the release before; `.ci/upgrade` builds one");
        // Not by a macro, of which nobody would see anything where the test succeeds.
        writeln!(std::io::stderr(), "skipped: {why}").expect("can be written");
        return;
    };
    let dev = Dev::of_release(before);
    let mut load = Load::start(&dev).await;
    let mut started = Vec::new();
    for name in ["n1", "n2", "n3"] {
        load.go_on("releases run beside each other").await;
        let of_the_past = "is of a release that cannot double partitions: update it first";
        let are_of_the_past = "are of a release that cannot double partitions: update them first";
        // Whoever is asked is of either release.
        let refused = dev.run(&["cluster", "double"]);
        let says = [of_the_past, are_of_the_past, "this request takes protocol version 4, and "];
        assert!(says.iter().any(|why| refused.stderr.contains(why)), "{refused:?}");
        assert_ne!(refused.code, Some(0));
        let counted = dev.ok(&["top"]);
        assert!(counted.contains(": of an older release."), "{counted}");

        dev.ok(&["drain", name, "--wait"]);
        load.go_on("a node is drained").await;
        dev.stop(name);
        started.push(dev.serve(name));
        dev.eventually("it is ready, and the others have it back", || {
            is_ready(&dev, name) && dev.run(&["status", "--check"]).code == Some(0)
        });
        load.go_on("a node has been upgraded").await;
    }
    dev.ok(&["cluster", "double"]);
    let plan = text(&dev.json(&["cluster", "plan"]), "plan");
    dev.ok(&["cluster", "commit", &plan]);
    dev.eventually("partitions are doubled", || {
        let status = dev.json(&["cluster", "status"]);
        dev.json(&["ring"])["partitions"] == json!(512) && status["unfinished"] == json!([])
    });
    load.go_on("partitions have been doubled").await;
    load.end().await;
    for mut child in started {
        signal(child.id(), Signal::TERM);
        let status = wait(&mut child, Duration::from_secs(30)).expect("stops when asked to");
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_drained_node_is_taken_back_and_who_is_no_member_cannot_be_drained() {
    let dev = Dev::start();
    dev.ok(&["put", "k", "v"]);
    let said = dev.ok(&["drain", "n2", "--hints"]);
    assert_eq!(said, "n2 is drained: nothing is under way, and it holds no hints\n");
    let endpoint = dev.endpoints().remove(1);
    dev.fails(3, &["--endpoint", &endpoint, "get", "k", "--timeout", "1s"], &["takes no requests", "is being drained"]);
    assert_eq!(dev.json(&["get", "k"])["values"], json!(["v"]), "the others answer");
    // Whoever asks the drained node alone can still take it back.
    let said = dev.ok(&["--endpoint", &endpoint, "drain", "n2", "--undo"]);
    assert_eq!(said, "n2 takes requests again\n");
    assert_eq!(dev.json(&["--endpoint", &endpoint, "get", "k"])["values"], json!(["v"]));
    dev.fails(2, &["drain", "n9"], &["there is no node \"n9\""]);
    dev.fails(2, &["drain", "n2", "--undo", "--wait"], &["cannot be used with"]);
    dev.fails(2, &["drain"], &["NODE"]);
}

/// A `driftless` of the release before.
const RELEASE_BEFORE: &str = "DRIFTLESS_RELEASE_BEFORE";

const WORKERS: u64 = 4;

/// So many keys are written and read in each state of each node.
const KEYS: u64 = 200;
