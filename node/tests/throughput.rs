//! How many requests three nodes in one process answer. Not a promise, so not run by default:
//! `cargo test --release -p driftless --test throughput -- --ignored --nocapture`.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.
#![allow(clippy::print_stdout)] // The figures are the result.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, TestClient, block_on, get, put};
use driftless_proto::client::{Request, Response};

const KEYS: u32 = 20_000;
const SECONDS: u64 = 5;

#[test]
#[ignore = "a measurement"]
fn puts_and_gets_per_second_in_memory() {
    run(Cluster::start(&[1, 1, 1]));
}

#[test]
#[ignore = "a measurement"]
#[cfg(feature = "disk")]
fn puts_and_gets_per_second_synced_to_disk() {
    use driftless_node::net::Node;
    use driftless_node::store::disk::{DiskDatabase, DiskOptions};

    let directory = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::plan(&[1, 1, 1]);
    for node in 0..3 {
        let path = directory.path().join(node.to_string());
        let database = DiskDatabase::open(path, DiskOptions::default()).expect("is empty");
        let settings = cluster.settings(node);
        let started = Node::start(settings, vec![database.store(0)], database.syncer());
        cluster.nodes[node] = Some(started.expect("nothing is in its way"));
    }
    run(cluster);
}

fn run(cluster: Cluster) {
    cluster.wait_connected();
    for in_flight in [1, 64] {
        let request = |i: u32| put(&format!("key-{}", i % KEYS), vec![7; 1024], None);
        // Blind puts pile up siblings, so every key is written once only.
        measure(&cluster, "puts", in_flight, 0..KEYS, request);
        measure(&cluster, "gets", in_flight, 0..u32::MAX, |i| get(&format!("key-{}", i.wrapping_mul(7919) % KEYS)));
        if in_flight == 1 {
            continue;
        }
        let fresh = |i: u32| put(&format!("fresh-{i}"), vec![7; 1024], None);
        measure(&cluster, "fresh puts", in_flight, 0..u32::MAX, fresh);
    }
    cluster.stop();
}

fn measure(
    cluster: &Cluster,
    what: &str,
    in_flight: usize,
    range: std::ops::Range<u32>,
    request: impl Fn(u32) -> Request,
) {
    let cpu_before = cpu_micros();
    let mut latencies: Vec<Duration> = block_on(async {
        let mut clients = Vec::new();
        for node in 0..cluster.members.len() {
            clients.push(cluster.client(node).await);
        }
        let next = std::cell::Cell::new(range.start);
        let until = Instant::now() + Duration::from_secs(SECONDS);
        let share = |node: usize| (in_flight + clients_len(cluster) - 1 - node) / clients_len(cluster);
        let running = clients.iter_mut().enumerate().map(|(node, client)| {
            let (next, range, request) = (&next, &range, &request);
            let mut take = move || {
                let i = next.get();
                (i < range.end && Instant::now() < until).then(|| {
                    next.set(i + 1);
                    request(i)
                })
            };
            async move { closed_loop(client, share(node), &mut take).await }
        });
        futures::future::join_all(running).await.concat()
    });
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let total: Duration = latencies.iter().sum();
    let rate = latencies.len() as f64 * in_flight as f64 / total.as_secs_f64();
    // Of client and nodes together; other programs on the machine do not count, so this is the steadier figure.
    let cpu = (cpu_micros() - cpu_before) as f64 / latencies.len() as f64;
    println!(
        "{what:>10}, {in_flight:>3} in flight: {rate:>8.0}/s  {cpu:.1} us CPU  p50 {:?}  p99 {:?}  max {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Microseconds of CPU that this process has used.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("has fields").split_whitespace().collect();
    // utime and stime, in ticks of a hundredth of a second.
    (fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")) * 10_000
}

fn clients_len(cluster: &Cluster) -> usize {
    cluster.members.len()
}

/// Keeps so many requests under way until `take` has no more.
async fn closed_loop(
    client: &mut TestClient,
    in_flight: usize,
    take: &mut dyn FnMut() -> Option<Request>,
) -> Vec<Duration> {
    let mut sent = std::collections::HashMap::new();
    let mut latencies = Vec::new();
    let mut frames = Vec::new();
    loop {
        while sent.len() < in_flight
            && let Some(request) = take()
        {
            let id = client.number();
            let frame = driftless_proto::client::RequestFrame { id, ring_version: 1, deadline_ms: 5000, request };
            driftless_proto::frame::encode(&frame, &mut frames).expect("fits");
            sent.insert(id, Instant::now());
        }
        if sent.is_empty() {
            return latencies;
        }
        if !frames.is_empty() {
            client.send.write_chunk(std::mem::take(&mut frames).into()).await.expect("is up");
        }
        for frame in client.receive_some().await {
            assert!(!matches!(frame.response, Response::Failed(_)), "{:?}", frame.response);
            latencies.push(sent.remove(&frame.id).expect("was asked").elapsed());
        }
    }
}
