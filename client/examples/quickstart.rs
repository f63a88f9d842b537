//! Write, read, see siblings, merge them, remove.
//!
//! `DRIFTLESS_PROFILE=DIR cargo run -p driftless-client --example quickstart`, beside `driftless dev --dir DIR`.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::time::SystemTime;

use driftless_client::Bytes;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.connect().await?;
    let bucket = client.bucket("default");

    // Begin with nothing, also when the example runs again.
    bucket.delete("greeting").await?;

    let done = bucket.create("greeting", "hello").await?;
    println!("stored: {} of the replicas have acknowledged, {} are primaries", done.acks(), done.primaries());
    if let Some(greeting) = bucket.get("greeting").await?.one()? {
        println!("read: {greeting:?}");
    }

    // A put without context has seen nothing, so it overwrites nothing.
    let done = bucket.put("greeting", "good day").await?;
    println!("stored: the key has {} values now", done.siblings());

    let read = bucket.get("greeting").await?;
    println!("as one value: {}", read.one().map_or_else(|conflict| conflict.to_string(), |one| format!("{one:?}")));
    for sibling in read.siblings() {
        let written = SystemTime::from(sibling.written_at).elapsed().unwrap_or_default();
        println!("  {:?}, written {written:.1?} ago", sibling.value);
    }

    // With the context of a read, a put replaces exactly what was read.
    let longest: Option<Bytes> = read.values().max_by_key(|value| value.len()).cloned();
    let done = bucket.put("greeting", longest.unwrap_or_default()).context(read.context()).await?;
    println!("merged: the key has {} value now", done.siblings());

    // Or in one step, which is repeated if others write meanwhile. It tells what it has written.
    let done = bucket.update("greeting", |siblings| format!("{} of them", siblings.len())).await?;
    println!("updated: {:?}", done.value());

    let deleted = bucket.delete("greeting").await?;
    println!("removed: {}", deleted.existed());
    client.close().await;
    Ok(())
}
