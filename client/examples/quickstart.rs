//! Write, read, see siblings, merge them, remove.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use driftless_client::Bytes;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.connect().await?;
    let bucket = client.bucket("default");

    // Begin with nothing, also when the example runs again.
    bucket.delete("greeting").await?;

    let done = bucket.put("greeting", "hello").await?;
    println!("stored: {} of the replicas have acknowledged, {} are primaries", done.acks(), done.primaries());

    // A put without context has seen nothing, so it overwrites nothing.
    let done = bucket.put("greeting", "good day").await?;
    println!("stored: the key has {} values now", done.siblings());

    let read = bucket.get("greeting").await?;
    for sibling in read.siblings() {
        println!("  {:?}, written at {}", sibling.value, sibling.written_at);
    }

    // With the context of a read, a put replaces exactly what was read.
    let longest: Option<Bytes> = read.values().max_by_key(|value| value.len()).cloned();
    let done = bucket.put("greeting", longest.unwrap_or_default()).context(read.context()).await?;
    println!("merged: the key has {} value now", done.siblings());

    let deleted = bucket.delete("greeting").await?;
    println!("removed: {}", deleted.existed());
    client.close().await;
    Ok(())
}
