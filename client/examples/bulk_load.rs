//! Many writes, fast, that can be done again without making siblings.
//!
//! Everything runs on one thread, sockets included ([`IoRuntime::Caller`]): requests that are ready together leave in
//! one write, and nothing has to wake another thread.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::time::Instant;

use driftless_client::{IoRuntime, WriteId};
use futures::stream::{self, StreamExt as _};

const RECORDS: u128 = 20_000;

/// Writes under way at once. More fills the writes of a busy cluster, less keeps each one quick.
const AT_ONCE: usize = 256;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.io_runtime(IoRuntime::Caller).connect().await?;
    let bucket = client.bucket("default");
    let begun = Instant::now();
    let failures = stream::iter(0..RECORDS)
        .map(|record| {
            // An id that follows from the record: a second run repeats the same writes instead of adding siblings.
            let id = WriteId(0xb01d_10ad << 96 | record);
            let put = bucket.put(format!("bulk/{record}"), vec![b'x'; 1024]).write_id(id);
            async move { put.send().await.map_err(|error| (record, error)) }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |stored| stored.err());
    let failures: Vec<_> = failures.collect().await;
    for (record, error) in failures.iter().take(10) {
        println!("record {record}: {error}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{RECORDS} records in {seconds:.1} s, {:.0} a second, {} failed",
        RECORDS as f64 / seconds,
        failures.len()
    );
    client.close().await;
    Ok(())
}
