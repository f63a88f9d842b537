//! What the client counts is what docs/develop.md says, by these names and with these labels.

mod fake;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use driftless_client::{Client, NoRetry, Refusal};
use fake::Cluster;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// All that was counted, by name and labels; of a histogram how many were recorded.
type Counted = BTreeMap<String, u64>;

/// One test: a process has one recorder.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_in_the_table_of_the_page() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("the only one");
    let mut cluster = Cluster::start(&["ada", "bob", "cyd"]);
    let client = cluster.connect().await;
    let bucket = client.bucket("default");
    let key = cluster.keys_of(0).next().expect("has some");
    let owners = cluster.owners("default", &key);

    let (put, ()) = tokio::join!(bucket.put(&key, "apples").send(), async {
        cluster.nodes[owners[0]].next_request().await.stored();
    });
    put.expect("was stored");
    // Slow: another owner is asked beside it.
    let (read, ()) = tokio::join!(bucket.get(&key).send(), async {
        let slow = cluster.nodes[owners[0]].next_request().await;
        cluster.nodes[owners[1]].next_request().await.values(&[]);
        drop(slow);
    });
    let _ = read.expect("was read");
    // Refused there, answered by the next owner.
    let (read, ()) = tokio::join!(bucket.get(&key).send(), async {
        cluster.nodes[owners[1]].next_request().await.refuse(Refusal::Stopping);
        cluster.nodes[owners[2]].next_request().await.values(&["apples", "pears", "plums"]);
    });
    assert_eq!(read.expect("was read").siblings().len(), 3);
    let (refused, ()) = tokio::join!(bucket.delete(&key).retry(NoRetry).via("cyd").send(), async {
        cluster.nodes[2].next_request().await.refuse(Refusal::StorageFull);
    });
    refused.expect_err("was refused");
    // Sent, and never answered.
    let (unknown, _) = tokio::join!(
        bucket.put(&key, "pears").retry(NoRetry).via("cyd").timeout(Duration::from_secs(2)).send(),
        cluster.nodes[2].next_request()
    );
    unknown.expect_err("was not answered");
    let out_of_time = bucket.get(&key).timeout(Duration::ZERO).send().await;
    out_of_time.expect_err("no time is given");
    cluster.nodes[owners[1]].stop();
    let counted = until(&snapshotter, "driftless_client_connections_lost_total", 1).await;

    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    assert_eq!(count("driftless_client_requests_total{operation=get,outcome=ok}"), 2);
    assert_eq!(count("driftless_client_requests_total{operation=put,outcome=ok}"), 1);
    assert_eq!(count("driftless_client_requests_total{operation=delete,outcome=refused}"), 1);
    assert_eq!(count("driftless_client_requests_total{operation=put,outcome=unknown}"), 1);
    assert_eq!(count("driftless_client_requests_total{operation=get,outcome=deadline}"), 1);
    assert_eq!(count("driftless_client_request_seconds{operation=get}"), 3);
    assert_eq!(count("driftless_client_siblings_per_read"), 2);
    // On a busy machine others may be slow as well.
    let (retries, hedges) = (count("driftless_client_retries_total"), count("driftless_client_hedges_total"));
    assert!(retries >= 1 && hedges >= 1, "{counted:?}");
    assert_eq!(count("driftless_client_attempts_total"), 5 + retries + hedges);
    assert!(count("driftless_client_connections_opened_total") >= 3, "{counted:?}");
    assert!(count("driftless_client_topology_fetches_total") >= 1, "{counted:?}");

    let families: BTreeSet<String> = counted.keys().map(|key| family(key)).collect();
    assert_eq!(families, documented(), "docs/develop.md, Metrics of the client");
    drop::<Client>(client);
}

/// Waits until something has been counted so often: connections end in the background.
async fn until(snapshotter: &Snapshotter, name: &str, least: u64) -> Counted {
    // A snapshot takes the histograms' values out.
    let mut all = Counted::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<String> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let name = match labels.is_empty() {
                true => key.key().name().to_owned(),
                false => format!("{}{{{}}}", key.key().name(), labels.join(",")),
            };
            match value {
                DebugValue::Counter(count) => *all.entry(name).or_default() += count,
                DebugValue::Histogram(values) => *all.entry(name).or_default() += values.len() as u64,
                DebugValue::Gauge(_) => panic!("{name} is a gauge"),
            }
        }
        if all.get(name).is_some_and(|count| *count >= least) {
            return all;
        }
        assert!(Instant::now() < deadline, "{name} was not counted {least} times: {all:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The name with its labels, without their values.
fn family(key: &str) -> String {
    let Some((name, labels)) = key.split_once('{') else { return key.to_owned() };
    let labels: Vec<&str> =
        labels.trim_end_matches('}').split(',').filter_map(|label| label.split('=').next()).collect();
    format!("{name}{{{}}}", labels.join(", "))
}

/// What the table of the page names.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/develop.md");
    let section = page.split("### Metrics of the client").nth(1).expect("has the section");
    let rows = section.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    rows.map(|row| row.split('`').nth(1).expect("has a name").to_owned()).collect()
}
