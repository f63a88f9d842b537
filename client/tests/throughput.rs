//! How fast the client is by itself: `cargo test --release -p driftless-client --test throughput -- --ignored --nocapture`.
//!
//! Not a promise that is checked: a figure to look at before and after a change. The node answers from a thread of
//! its own, so a second core does its half.
#![allow(clippy::print_stdout, reason = "the figure is the point")]

mod fake;

use std::time::Instant;

use driftless_client::{Client, IoRuntime};
use driftless_proto::client::{Request, Response, Stored};
use fake::Cluster;
use futures::stream::{self, StreamExt as _};

const REQUESTS: usize = 300_000;

#[test]
#[ignore = "a measurement"]
fn requests_a_second() {
    let (told, cluster) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut cluster = Cluster::start(&["ada"]);
            told.send(cluster.builder()).expect("the test waits");
            let value = "x".repeat(1024);
            loop {
                let asked = cluster.nodes[0].next().await;
                match asked.frame.request {
                    Request::Get(_) => asked.values(&[&value]),
                    _ => asked.answer(Response::Stored(Stored { context: None, acks: 2, primaries: 2, siblings: 1 })),
                }
            }
        });
    });
    let builder = cluster.recv().expect("the cluster starts");
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let own = builder.clone();
    single.block_on(async move {
        measure(
            "caller's current-thread runtime",
            builder.io_runtime(IoRuntime::Caller).connect().await.expect("answers"),
        )
        .await;
    });
    multi.block_on(async move {
        measure("own thread under a work-stealing runtime", own.connect().await.expect("answers")).await;
    });
}

async fn measure(what: &str, client: Client) {
    let bucket = client.bucket("default");
    let value = vec![7; 1024];
    for at_once in [64, 512] {
        let (begun, cpu) = (Instant::now(), thread_cpu());
        let gets = stream::iter(0..REQUESTS).map(|i| bucket.get(format!("{i}")).send()).buffer_unordered(at_once);
        let answered = gets.filter(|read| std::future::ready(read.is_ok())).count().await;
        report(what, "gets", at_once, answered, begun, cpu);
        let (begun, cpu) = (Instant::now(), thread_cpu());
        let puts =
            stream::iter(0..REQUESTS).map(|i| bucket.put(format!("{i}"), &value[..]).send()).buffer_unordered(at_once);
        let answered = puts.filter(|put| std::future::ready(put.is_ok())).count().await;
        report(what, "puts", at_once, answered, begun, cpu);
    }
}

fn report(what: &str, kind: &str, at_once: usize, answered: usize, begun: Instant, cpu: Option<u64>) {
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = thread_cpu().zip(cpu).map_or(0.0, |(after, before)| (after - before) as f64 / 1e3 / answered as f64);
    println!(
        "{what}: {answered} {kind}, {at_once} at once: {:.0}/s, {cpu:.1} us of the calling thread's CPU each",
        answered as f64 / seconds
    );
}

/// Nanoseconds that this thread has run; Linux only.
fn thread_cpu() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}
